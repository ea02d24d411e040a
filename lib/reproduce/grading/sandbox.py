"""Run a stranger's notebook: a copy in a folder of its own, limits, and a watch that ends it and all it started."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nbformat
import psutil

from reproduce.grading import landlock
from reproduce.grading.watch import USUAL, Limits, watch

LIB = Path(__file__).resolve().parents[2]
PREFIX = "regnde-run-"
"""Of the names of folders in the system's folder of temporary files; then the number of the process that made it."""
USER = ("unshare", "--user", "--map-current-user", "--net", "--ipc")
NAMESPACES = ((*USER, "--mount", "--mount-proc", "--pid", "--fork", "--kill-child"), USER)
"""Own process numbers and no network, or only the latter; the first that this system lets its users have is taken."""


@dataclass(frozen=True)
class Verdict:
    """What became of a run."""

    status: str
    """ok, time, memory, output, disk, processes, crashed or input."""
    reason: str
    """A sentence for the student; empty when it is ok."""
    notebook: nbformat.NotebookNode | None
    """With outputs; None unless it is ok."""
    seconds: float
    memory_mb: float
    """The most that was seen resident."""
    disk_mb: float


class SandboxError(RuntimeError):
    """The sandbox itself does not work here; no student is to blame."""


def run(
    notebook: nbformat.NotebookNode, *, inputs: Path | None = None, limits: Limits = USUAL, python: str | None = None
) -> Verdict:
    """Execute a notebook from a stranger and return its outputs, or why there are none.

    Args:
        notebook: executed top to bottom; an error in a cell is an output like others, the next cell is tried.
        inputs: a folder whose files are copied beside it; None: there are none.
        limits: what it may use.
        python: interpreter of the environment to run it in; None: this one.

    Raises:
        SandboxError: nothing could be run: the environment lacks nbclient, psutil or ipykernel.
    """
    python = python or sys.executable
    if missing := _missing(python):
        raise SandboxError(f"{python} cannot run notebooks: {missing}; make the project's environment with `make env`")
    with _folder(inputs) as folder:
        text = nbformat.writes(notebook)
        (folder / "submission.ipynb").write_text(text, encoding="utf-8")
        before = _contents(folder)
        order = _order(folder, limits)
        command = [*_dies_with_us(), *namespaces(), python, "-m", "reproduce.grading.inside", order]
        began = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=_environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        status, reason, memory, disk, found = watch(process, folder, limits, began)
        seconds = time.monotonic() - began
        if status == "ok" and any(_contents(folder).get(name) != content for name, content in before.items()):
            status, reason = "input", "it removed or changed a file that it was given"
    if status == "broken":
        raise SandboxError(f"the sandbox does not work with {command[-4]}: {reason.strip().splitlines()[-1]}\n{reason}")
    kept = nbformat.from_dict(found) if status == "ok" else None
    return Verdict(status, reason, kept, seconds, memory, disk)


@functools.cache
def _missing(python: str) -> str:
    """Return why an interpreter cannot run the inside of the sandbox; empty if it can."""
    command = [python, "-c", "import ipykernel, reproduce.grading.inside"]
    environment = os.environ | {"PYTHONPATH": str(LIB)}
    try:
        found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    return found.stderr.strip().splitlines()[-1] if found.returncode else ""


def protection() -> str:
    """Say in one sentence what this machine offers against a submission that wants to do harm."""
    offered = landlock.version()
    files = (
        f"Landlock {offered} keeps it in its folder" if offered else "NOTHING but file permissions keeps its writes in"
    )
    if "--pid" in namespaces():
        return f"{files}; process numbers of its own, no network"
    return f"{files}; {'no network' if namespaces() else 'the network is open to it, but for what Landlock closes'}"


@functools.cache
def namespaces() -> tuple[str, ...]:
    """Return the command that gives a process namespaces of its own; empty where the system has or allows none."""
    for command in NAMESPACES:
        if shutil.which(command[0]) and subprocess.run([*command, "true"], capture_output=True).returncode == 0:
            return tuple(command)
    return ()


def _dies_with_us() -> tuple[str, ...]:
    """Return the command that has a run killed when its grader is; empty where there is none."""
    return ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()


def _order(folder: Path, limits: Limits) -> str:
    order = {
        "folder": str(folder),
        "notebook": "submission.ipynb",
        "processor_seconds": limits.processor_seconds,
        "address_bytes": limits.address_mb * 2**20,
        "output_bytes": int(limits.output_mb * 1e6),
    }
    return json.dumps(order)


@contextmanager
def _folder(inputs: Path | None) -> Iterator[Path]:
    """A new folder with a copy of the inputs, removed afterwards, whatever was made of its permissions."""
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
    try:
        if inputs is not None:
            for path in sorted(inputs.iterdir()):
                if path.is_file() and not path.is_symlink() and path.suffix != ".ipynb":
                    shutil.copy(path, folder / path.name)
        for name in ("tmp", "run"):
            (folder / name).mkdir()
        yield folder
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    subprocess.run(["chmod", "-R", "u+rwX", str(folder)], check=False, capture_output=True)
    shutil.rmtree(folder, ignore_errors=True)


def sweep() -> None:
    """Remove the folders of runs whose grader was killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        owner = folder.name.removeprefix(PREFIX).split("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)) and folder.stat().st_uid == os.getuid():
            _remove(folder)


def _environment(folder: Path) -> dict[str, str]:
    """Nothing of ours but the language: a home, temporary files and Jupyter's files inside the folder."""
    kept = {name: os.environ[name] for name in ("LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH") if name in os.environ}
    own = {
        "HOME": folder,
        "TMPDIR": folder / "tmp",
        "JUPYTER_RUNTIME_DIR": folder / "run",
        "IPYTHONDIR": folder / "run",
    }
    places = {name: str(path) for name, path in own.items()}
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    plain = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(LIB),
        "PYTHONDONTWRITEBYTECODE": "1",
        "MPLCONFIGDIR": places["TMPDIR"],
    }
    return kept | places | threads | plain


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and not path.is_symlink()}
