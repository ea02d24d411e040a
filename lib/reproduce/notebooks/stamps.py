"""Whether an executed notebook is still good: a stamp of all that went into it and of the files it made or read."""

from __future__ import annotations

import functools
import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from reproduce.data import registry
from reproduce.runs import device, provenance, store
from reproduce.runs.source import library_hash


def inputs(source: Path, parameters: Mapping[str, object], root: Path, *, solutions: bool = False) -> dict[str, Any]:
    """Return what an execution depends on before it begins: notebook, parameters, device, code, lock, Python.

    The whole notebook counts, prose too, since the executed copy shows it; comments in the library do not.
    """
    return {
        "notebook": hashlib.sha256(source.read_bytes()).hexdigest(),
        "parameters": json.loads(json.dumps(dict(parameters))),
        "solutions": solutions,
        "device": device.asked(),
        "library": library_hash(),
        "lock": provenance.lock_hash(root),
        "python": platform.python_version(),
    }


def data_found() -> dict[str, dict[str, str]]:
    """Return the sha256 of each registered data file that is on this machine, by data set; nothing is downloaded."""
    found = {name: registry.present(name) for name in sorted(registry.DATASETS)}
    return {name: {file: _digest(path) or "" for file, path in paths.items()} for name, paths in found.items()}


def files(names: Iterable[str], root: Path) -> dict[str, str]:
    """Return the sha256 of the files that a notebook told of, by path relative to `root`; those that are gone, not."""
    digests = {name: _digest(root / name) for name in sorted(set(names))}
    return {name: digest for name, digest in digests.items() if digest}


def holds(copy: Path, wanted: Mapping[str, Any], root: Path) -> bool:
    """Whether an executed copy was made from the wanted inputs and this data, and all its files are as it left them."""
    try:
        record = json.loads(copy.with_suffix(".provenance.json").read_text(encoding="utf-8"))
        stamp = record["more"]["stamp"]
        is_of_copy = json.loads(copy.read_text(encoding="utf-8"))["metadata"]["regnde"] == record
    except (OSError, ValueError, KeyError, TypeError):
        return False  # never finished, or made by an older version
    same = stamp.get("inputs") == wanted and stamp.get("data") == data_found()
    return is_of_copy and same and all(_digest(root / name) == digest for name, digest in stamp["files"].items())


def of_rows(names: Iterable[str], root: Path) -> dict[str, Any]:
    """Return data sets, seeds and devices of the rows among files, as arguments for `provenance.record`."""
    rows = [store.read(root / name) for name in names if name.startswith("data/results/") and name.endswith(".json")]
    return provenance.behind(rows)


def _digest(path: Path) -> str | None:
    """The sha256 of a file, None if there is no file; computed again only when the file has changed."""
    try:
        status = path.stat()
        return _sha256(path, status.st_mtime_ns, status.st_size, status.st_ino)
    except OSError:
        return None


@functools.lru_cache(maxsize=4096)
def _sha256(path: Path, mtime: int, size: int, inode: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
