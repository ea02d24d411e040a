"""The watch over one sandboxed run: what it uses, which limit it passes, how it ends with all that it started."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

LOOK = 0.25
"""Seconds between two looks at what runs."""
RESULT_BYTES = 64 * 2**20
"""No result is read beyond."""


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


USUAL = Limits()
"""For a notebook that computes for seconds."""


def watch(
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
    """Return a process and all below it that still run; what has ended and waits to be noticed is left out."""
    try:
        first = psutil.Process(pid)
        return [first, *filter(_runs, first.children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def _runs(member: psutil.Process) -> bool:
    try:
        return bool(member.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


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
