"""What made this: commit, lock, data, seed, device, profile, time (no torch)."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from reproduce import checkout, files
from reproduce.runs import store
from reproduce.runs.store import Row

PACKAGES = ("regnde", "torch", "torchdiffeq", "torchsde", "numpy", "scipy")
"""Packages whose versions every record names; the lock hash stands for the others."""

UNKNOWN = "unknown"


def lock_hash(root: Path | None = None) -> str:
    """Return the hash of what requirements.lock pins, comments and order left out; 'unknown' if there is no lock."""
    try:
        text = ((root or checkout.ROOT) / "requirements.lock").read_text(encoding="utf-8")
    except FileNotFoundError:
        return UNKNOWN
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return store.key_of({"lock": sorted(line for line in lines if line)})


OF_THE_STUDY = ("data/reference/measured/study", "data/reference/chosen.json")
"""Rows and choices, which `make study` writes into what git tracks."""


def commit(root: Path | None = None) -> tuple[str, bool]:
    """Return the commit of the bundle and whether its files differ from it; ('unknown', True) if nobody can tell.

    Nobody can where git is missing, or where the bundle is not a repository of its own: see `why_no_commit`. What a
    study writes while it runs (OF_THE_STUDY) is no difference: a row holds the settings that were chosen for it.
    """
    root = root or checkout.ROOT
    if why_no_commit(root):
        return UNKNOWN, True
    others = [f":(exclude){path}" for path in OF_THE_STUDY]
    return _git(root, "rev-parse", "HEAD"), bool(_git(root, "status", "--porcelain", "--", ".", *others))


def why_no_commit(root: Path | None = None) -> str:
    """Return why nobody can tell the commit of the bundle, in git's own words where it has some; empty if one can."""
    root, not_own = root or checkout.ROOT, "this folder is no repository of its own"
    try:
        top = _git(root, "rev-parse", "--show-toplevel")
        _git(root, "rev-parse", "HEAD")
    except subprocess.CalledProcessError as error:
        said = str(error.stderr).strip().partition("\n")[0]
        is_none = "not a git repository" in said and not (root / ".git").exists()  # else a damaged one
        return not_own if is_none else said or str(error)
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return "" if Path(top).resolve() == root.resolve() else not_own


def _git(root: Path, *arguments: str) -> str:
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # those of a git hook
    ended = subprocess.run(
        ["git", *arguments],
        cwd=root,
        env={**own, "GIT_OPTIONAL_LOCKS": "0"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return ended.stdout.strip()


def record(
    profile: str,
    *,
    data: Iterable[str] = (),
    seeds: Iterable[int] = (),
    device: str = "cpu",
    threads: int = 1,
    seconds: float | None = None,
    root: Path | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Return what makes something now, as plain data that `schema` describes; no host, no user, no path is in it.

    Args:
        profile: 'smoke', 'quick' or 'paper'.
        data: names of the data sets, in words.
        seeds: those behind it.
        device: 'cpu', or the name of the accelerator.
        threads: of each process that computed.
        seconds: time of the making, of a row's training by the device's timer; None where nobody measured it.
        root: the bundle's folder; None: this one's.
        more: whatever else belongs to it, as plain data.
    """
    head, dirty = commit(root)
    made = {
        "commit": head,
        "dirty": dirty,
        "lock": lock_hash(root),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": {name: _version(name) for name in PACKAGES},
        "data": sorted(set(data)),
        "seeds": sorted(set(seeds)),
        "device": device,
        "threads": threads,
        "profile": profile,
        "seconds": None if seconds is None else round(seconds, 3),
        "made": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return {**made, "more": more} if more else made


def behind(rows: Iterable[Row]) -> dict[str, Any]:
    """Return data sets, seeds and devices of rows, as arguments for `record`."""
    rows = list(rows)
    devices = {str(row.provenance.get("device", "cpu")) for row in rows} or {"cpu"}
    return {
        "data": sorted({row.data for row in rows}),
        "seeds": sorted({row.seed for row in rows}),
        "device": ", ".join(sorted(devices)),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def schema() -> dict[str, Any]:
    """Return the JSON schema of records (data/reference/provenance.schema.json)."""
    text = (checkout.ROOT / "data" / "reference" / "provenance.schema.json").read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    return content


def check(record: Any) -> None:
    """Raise ValueError naming every field of a record that is not as the schema asks."""
    from jsonschema import Draft202012Validator

    errors = sorted(Draft202012Validator(schema()).iter_errors(record), key=lambda error: list(error.absolute_path))
    if errors:
        said = "; ".join(f"{'.'.join(map(str, error.absolute_path)) or 'record'}: {error.message}" for error in errors)
        raise ValueError(f"not a record of provenance: {said}")


def beside(path: Path, record: dict[str, Any]) -> Path:
    """Check a record and write it atomically beside an artefact: 05_x.ipynb -> 05_x.provenance.json; return its path.

    Raises:
        ValueError: the record is not as the schema asks; nothing is written.
    """
    check(record)
    target = path.with_suffix(".provenance.json")
    files.write_atomically(target, (json.dumps(record, indent=1, sort_keys=True) + "\n").encode())
    return target
