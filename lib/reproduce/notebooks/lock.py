"""One reproduction at a time in a clone: a lock that the system takes back however its holder ends."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


class Busy(ValueError):
    """Another process executes notebooks in this clone."""


@contextmanager
def alone(root: Path, *, wait: bool, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the only right to execute notebooks in the clone at `root`, in any profile.

    Args:
        root: the bundle's folder.
        wait: while another process holds it, wait until that one has ended, and say so.
        say: prints a line.

    Raises:
        Busy: another process holds it, and `wait` is False.
    """
    path = root / "build" / "reproduce.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        holder = path.read_text(encoding="utf-8").strip()
        busy = f"{f'process {holder}' if holder else 'another process'} executes notebooks in this clone"
        if not wait:
            raise Busy(f"{busy}: wait until it has ended, or let this command wait with --wait (WAIT=1)") from None
        say(f"waiting: {busy}")
        lock.acquire()
    try:
        path.write_text(f"{os.getpid()}\n", encoding="utf-8")
        yield
        path.write_text("", encoding="utf-8")
    finally:
        lock.release()
