"""Run a stranger's notebook: a copy in a folder of its own, limits, and a watch that ends it and all it started."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import psutil

from reproduce.grading import landlock

LIB = Path(__file__).resolve().parents[2]
LOOK = 0.1
"""Seconds between two looks at what runs."""
PREFIX = "regnde-run-"
"""Of the names of folders in the system's folder of temporary files; then the number of the process that made it."""
RESULT_BYTES = 64 * 2**20
USER = ("unshare", "--user", "--map-current-user", "--net", "--ipc")
NAMESPACES = ((*USER, "--mount", "--mount-proc", "--pid", "--fork", "--kill-child"), USER)
"""Own process numbers and no network, or only the latter; the first that this system lets its users have is taken."""


@dataclass(frozen=True)
class Limits:
    """What one submission may use; it is ended beyond."""

    seconds: float = 300.0
    """On the wall: long, since a busy machine must fail nobody."""
    processor_seconds: int = 60
    """Of each process."""
    memory_mb: int = 2048
    """Resident, of all its processes together."""
    address_mb: int = 6144
    """Address space of each process: ends a single huge request before it is filled."""
    output_mb: float = 2.0
    disk_mb: int = 256
    processes: int = 40


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
    notebook: nbformat.NotebookNode, *, inputs: Path | None = None, limits: Limits = Limits(), python: str | None = None
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
    with _folder(inputs) as folder:
        text = nbformat.writes(notebook)
        (folder / "submission.ipynb").write_text(text, encoding="utf-8")
        before = _contents(folder)
        order = _order(folder, limits)
        command = [*_dies_with_us(), *namespaces(), python or sys.executable, "-m", "reproduce.grading.inside", order]
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
        status, reason, memory, disk, found = _watch(process, folder, limits, began)
        seconds = time.monotonic() - began
        if status == "ok" and any(_contents(folder).get(name) != content for name, content in before.items()):
            status, reason = "input", "it removed or changed a file that it was given"
    if status == "broken":
        raise SandboxError(f"the sandbox does not work with {command[-4]}: {reason.strip().splitlines()[-1]}\n{reason}")
    kept = nbformat.from_dict(found) if status == "ok" else None
    return Verdict(status, reason, kept, seconds, memory, disk)


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


def _watch(
    process: subprocess.Popen[bytes], folder: Path, limits: Limits, began: float
) -> tuple[str, str, float, float, dict[str, Any] | None]:
    """Wait for the end, or bring it about; return status, reason, most memory, most disk, and the notebook."""
    parts: list[bytes] = []
    reader = threading.Thread(target=_read, args=(process, parts), daemon=True)
    reader.start()
    memory = disk = 0.0
    broke: tuple[str, str] | None = None
    while process.poll() is None and broke is None:
        resident, number = _used(process.pid)
        written = _disk(folder)
        memory, disk = max(memory, resident), max(disk, written)
        broke = _broken(limits, time.monotonic() - began, resident, number, written)
        time.sleep(LOOK)
    end(process)
    reader.join(timeout=5)
    if broke is not None:
        return *broke, memory, disk, None
    try:
        result = json.loads(b"".join(parts))
    except ValueError:
        return "crashed", "its process ended without a result", memory, disk, None
    return result["status"], _sentence(result["reason"], limits), memory, disk, result.get("notebook")


def _sentence(reason: str, limits: Limits) -> str:
    return reason.replace("than allowed", f"than {limits.memory_mb} MB, or asked for {limits.address_mb} MB")


def _broken(limits: Limits, seconds: float, resident: float, number: int, written: float) -> tuple[str, str] | None:
    """Return the first limit that is passed, as status and reason; None: none is."""
    checks = (
        ("time", seconds > limits.seconds, f"it ran longer than {limits.seconds:g} seconds"),
        ("memory", resident > limits.memory_mb, f"it used more memory than {limits.memory_mb} MB"),
        ("processes", number > limits.processes, f"it started more than {limits.processes} processes"),
        ("disk", written > limits.disk_mb, f"it wrote more than {limits.disk_mb} MB"),
    )
    return next(((status, reason) for status, passed, reason in checks if passed), None)


def _read(process: subprocess.Popen[bytes], parts: list[bytes]) -> None:
    assert process.stdout is not None
    left = RESULT_BYTES
    while left > 0 and (part := process.stdout.read(min(left, 2**16))):
        parts.append(part)
        left -= len(part)


def _family(pid: int) -> list[psutil.Process]:
    try:
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _used(pid: int) -> tuple[float, int]:
    """Return resident megabytes and number of the processes from this one down."""
    total, family = 0, _family(pid)
    for process in family:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total / 2**20, len(family)


def _disk(folder: Path) -> float:
    """Return megabytes that a folder's files take; what vanishes meanwhile counts nothing."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_blocks * 512
            except OSError:
                continue
    return total / 2**20


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and everything below it; stopped first, so that nothing starts while we count."""
    while family := [member for member in _family(process.pid)[1:] if _does(member, "suspend")]:
        for member in reversed(family):
            _does(member, "kill")
        psutil.wait_procs(family, timeout=1)
    process.kill()
    process.wait()


def _does(member: psutil.Process, what: str) -> bool:
    try:
        getattr(member, what)()
    except psutil.NoSuchProcess:
        return False
    return True
