"""Landlock: a Linux process gives up its own right to write, read, connect and signal beyond some folders."""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

CREATE, ADD, RESTRICT = 444, 445, 446
"""Numbers of the three system calls; the same on every architecture."""
NO_NEW_PRIVILEGES = 38
READ = 1 << 0 | 1 << 2 | 1 << 3
"""Execute, read a file, list a folder."""
ON_FILES = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15
"""The rights that a rule for a single file may name."""
FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
"""How many rights on files a version knows; later ones know sixteen."""


def version() -> int:
    """Return the version of Landlock that this kernel offers; 0: none."""
    if sys.platform != "linux":
        return 0
    return max(0, _libc().syscall(CREATE, None, ctypes.c_size_t(0), 1))


def restrict(*, writable: Iterable[Path], readable: Iterable[Path]) -> int:
    """Leave this process, and all that it starts, only these folders and files; return the version, 0: not done.

    From version 4 on it cannot bind or connect TCP sockets either; from version 6 on it cannot signal processes that
    are not restricted with it. Not covered: metadata (chmod, times) of its user's files, UDP, files open already.

    Raises:
        OSError: the kernel offers Landlock and refuses these rules.

    Source: the kernel's documentation, userspace-api/landlock.
    """
    offered = version()
    if not offered:
        return 0
    every = (1 << FILE_RIGHTS.get(offered, 16)) - 1
    attributes = struct.pack("QQQ", every, 3 if offered >= 4 else 0, 3 if offered >= 6 else 0)
    size = 8 if offered < 4 else 16 if offered < 6 else 24
    libc = _libc()
    rules = _checked(libc.syscall(CREATE, attributes[:size], ctypes.c_size_t(size), 0))
    for rights, paths in ((every, writable), (READ, readable)):
        for path in paths:
            _allow(rules, Path(path), rights & every)
    _checked(libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    _checked(libc.syscall(RESTRICT, rules, 0))
    os.close(rules)
    return offered


def _allow(rules: int, path: Path, rights: int) -> None:
    if not path.exists():
        return
    beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
    rights = rights if stat.S_ISDIR(os.fstat(beneath).st_mode) else rights & ON_FILES
    rule = struct.pack("=Qi", rights, beneath)
    _checked(_libc().syscall(ADD, rules, 1, rule, 0))
    os.close(beneath)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"Landlock: {os.strerror(code)}")
    return result
