"""Is this machine ready? One line for each question: OK, NOTE (it changes what is used) or FAIL, with what to do."""

from __future__ import annotations

import importlib.util
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from reproduce import checkout
from reproduce.runs import device, provenance

OK, NOTE, FAIL = "OK", "NOTE", "FAIL"
OLDEST, NEWEST = (3, 11), (3, 14)
"""The versions of Python that the lock was made for."""

NEEDED_BYTES = 2 * 10**9
FOLDERS = ("data", "build", "figures")
PORTS = range(8888, 8900)
SHOWN = 5
"""Packages that a line names; of more it tells the number."""


@dataclass(frozen=True)
class Finding:
    """The answer to one question."""

    level: str
    """OK, NOTE or FAIL."""
    what: str
    found: str
    advice: str = ""
    """What to do; empty when there is nothing to do."""

    def __str__(self) -> str:
        return f"{self.level:<4}  {self.what}: {self.found}" + (f"; {self.advice}" if self.advice else "")


def examine() -> Iterator[Finding]:
    """Yield the answers one after the other; a question that itself breaks is a FAIL that says so. No download."""
    for question in QUESTIONS:
        try:
            yield from question()
        except Exception as error:  # the others must still be asked
            yield Finding(FAIL, question.__name__, f"{type(error).__name__}: {error}", "please report this")


def main(say: Callable[[str], None] = print) -> int:
    """Print the answers; return 1 if one of them is FAIL, else 0."""
    findings = []
    for finding in examine():
        say(str(finding))
        findings.append(finding)
    return int(any(finding.level == FAIL for finding in findings))


def python() -> Iterator[Finding]:
    """Is this a Python that the lock was made for?"""
    found, name = sys.version_info[:2], ".".join(map(str, sys.version_info[:3]))
    span = f"{'.'.join(map(str, OLDEST))} to {'.'.join(map(str, NEWEST))}"
    if found < OLDEST:
        yield Finding(FAIL, "Python", name, f"the lock is for {span}: make distclean env PYTHON=python3.12")
    elif found > NEWEST:
        yield Finding(NOTE, "Python", name, f"the lock is for {span}; if it does not install, take one of these")
    else:
        yield Finding(OK, "Python", name)


def packages() -> Iterator[Finding]:
    """Are the packages of the lock installed in the versions that it names?"""
    lock = checkout.ROOT / "requirements.lock"
    if not lock.is_file():
        yield Finding(FAIL, "packages", f"{lock} is missing", "restore it: git checkout requirements.lock")
        return
    lines = [line.partition("#")[0].strip() for line in lock.read_text(encoding="utf-8").splitlines()]
    pinned = dict(line.split("==") for line in lines if "==" in line)
    missing, other = [], []
    for name, wanted in pinned.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            missing.append(name)
            continue
        if found.partition("+")[0] != wanted:  # "+cpu" names a build, not a version
            other.append(f"{name} {found} instead of {wanted}")
    told = [f"{len(names)} {how}: {_few(names)}" for how, names in (("missing", missing), ("other", other)) if names]
    if told:
        yield Finding(FAIL, "packages", "; ".join(told), "install the lock: make distclean env")
    else:
        yield Finding(OK, "packages", f"{len(pinned)} as in requirements.lock ({provenance.lock_hash()})")


def _few(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def torch() -> Iterator[Finding]:
    """Can PyTorch be used, and on what device would it compute?"""
    try:
        import torch
    except Exception as error:  # a missing library raises OSError, a mixed installation anything
        yield Finding(FAIL, "torch", f"{type(error).__name__}: {error}", "install it again: make distclean env")
        return
    best = device.ready("auto")
    name = f"{torch.get_num_threads()} threads" if best.type == "cpu" else device.title(best)
    yield Finding(OK, "torch", f"{torch.__version__}, device {best.type}, {name} (what DEVICE=auto takes)")


def disk() -> Iterator[Finding]:
    """Is there room for results?"""
    free = shutil.disk_usage(checkout.ROOT).free
    found = f"{free / 1e9:.1f} GB free"
    if free < NEEDED_BYTES:
        yield Finding(FAIL, "disk", found, f"free some space, {NEEDED_BYTES / 1e9:.0f} GB are needed")
    else:
        yield Finding(OK, "disk", found)


def write_access() -> Iterator[Finding]:
    """Can the folders of results be written?"""
    for name in FOLDERS:
        folder = checkout.ROOT / name
        place = next(path for path in (folder, *folder.parents) if path.exists())  # a folder may still have to be made
        try:
            with tempfile.NamedTemporaryFile(dir=place) as file:
                file.write(b"regnde")
        except OSError as error:
            advice = f"make {place} a folder that you may write"
            yield Finding(FAIL, "write access", f"{name}/: {error.strerror or error}", advice)
        else:
            yield Finding(OK, "write access", f"{name}/")


def data() -> Iterator[Finding]:
    """Where would each data set be taken from? Nothing is downloaded."""
    if importlib.util.find_spec("pooch") is None:
        yield Finding(FAIL, "data", "the package pooch is missing", "install the lock: make distclean env")
        return
    from reproduce.data import registry

    for dataset, registered in registry.DATASETS.items():
        try:
            paths, offline = registry.present(dataset), registry.is_offline()
            for file in registered:
                if file.name in paths:
                    registry.check(paths[file.name], file)
        except (OSError, ValueError) as error:
            yield Finding(FAIL, f"data {dataset}", str(error))
            continue
        lacking = [file.name for file in registered if file.name not in paths]
        places = ", ".join(sorted({_shown(path.parent) for path in paths.values()}))
        if not lacking:
            yield Finding(OK, f"data {dataset}", f"{len(paths)} files, checked, in {places}")
            continue
        if not paths and not any(file.urls for file in registered):
            continue  # nobody publishes it: nothing is missing where it is not
        found = f"incomplete in {places}, without {_few(lacking)}" if paths else "not on this machine"
        advice = "the set that needs no file takes its place and is called so (data/README.md)"
        parts = [name for name in registry.DATASETS if name.startswith(f"{dataset}:") and registry.present(name)]
        if parts:
            advice = f"{parts[0]} takes its place and is called so (data/README.md)"
        elif offline:
            advice = f"REGNDE_OFFLINE=1 forbids the download: {advice}"
        else:
            advice = f"the first use downloads it; where that fails, {advice}"
        yield Finding(NOTE, f"data {dataset}", found, advice)


def _shown(path: Path) -> str:
    return str(path.relative_to(checkout.ROOT)) if path.is_relative_to(checkout.ROOT) else str(path)


def ports() -> Iterator[Finding]:
    """Can programs of this machine talk to each other, as Jupyter's do, and has JupyterLab a port?"""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=5).close()
    except OSError as error:
        advice = "allow connections to 127.0.0.1: notebooks need them to talk to their kernels"
        yield Finding(FAIL, "loopback", str(error), advice)
        return
    yield Finding(OK, "loopback", "127.0.0.1 answers")
    for port in PORTS:
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        yield Finding(OK, "port for JupyterLab", str(port))
        return
    command = ".venv/bin/python -m jupyterlab --config=lib/reproduce/notebooks/jupyter_config.py"
    advice = f"end an old JupyterLab, or name a port: {command} --port {PORTS[-1] + 1}"
    yield Finding(FAIL, "port for JupyterLab", f"{PORTS[0]} to {PORTS[-1]} are taken", advice)


def git() -> Iterator[Finding]:
    """Can results say which commit made them?"""
    advice = "results will say 'unknown' instead of their commit"
    try:
        said = subprocess.run(["git", "--version"], capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        yield Finding(NOTE, "git", "missing", f"{advice}; install it")
        return
    number = re.sub(r"^git version ", "", said.strip())
    commit, dirty = provenance.commit()
    if commit == provenance.UNKNOWN:
        yield Finding(NOTE, "git", f"{number}, but {provenance.why_no_commit()}", advice)
    else:
        yield Finding(OK, "git", f"{number}, commit {commit[:12]}" + (" and changes since" if dirty else ""))


QUESTIONS = (python, packages, torch, disk, write_access, data, ports, git)

if __name__ == "__main__":
    sys.exit(main())
