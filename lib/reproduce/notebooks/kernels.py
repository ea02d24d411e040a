"""Kernels that start at once: forked from one process that has imported what the lessons import (Linux, on the CPU).

PyTorch, torchdiffeq, Matplotlib and seaborn take seconds to import, the same seconds in each lesson's kernel. While a
runner executes several lessons, one process (`serve`) imports them once, and each kernel is a fork of it: its own
memory, folder and environment, as a new process has them. Jupyter starts a kernel by a command, here this file (`ask`),
which asks that process for a fork, and lives and ends with it. Where there is none, or the library was edited since it
was imported, the same command becomes an ordinary kernel.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

IMPORTED = (
    "ipykernel.kernelapp",
    "matplotlib_inline.backend_inline",
    "torch._dynamo",
    "reproduce.live",
    "reproduce.report.report",
    "reproduce.runs.sweep",
)
"""What lessons, and all that trains a model, import; `torch._dynamo` comes with the first optimizer."""
FEW = 4
"""Lessons below which an import for all of them does not pay."""
SECONDS = 0.5
"""Between two looks whether the process that started a kernel still lives."""


class Forks:
    """In the runner: the process that is forked, from the first lesson on until the runner ends, however it ends."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.process: subprocess.Popen[bytes] | None = None
        self.starting = threading.Lock()

    def __enter__(self) -> Forks:
        self.folder = tempfile.TemporaryDirectory()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.process.communicate()  # ends its standard input, which it takes for the end of the runner
        self.folder.cleanup()

    def environment(self) -> dict[str, str]:
        """Return the variables by which Jupyter finds these kernels before all others of their name."""
        with self.starting:
            self.process = self.process or self._start()
        others = os.environ.get("JUPYTER_PATH")
        return {"JUPYTER_PATH": self.folder.name + (os.pathsep + others if others else "")}

    def _start(self) -> subprocess.Popen[bytes]:
        address, kernel = Path(self.folder.name, "asked"), Path(self.folder.name, "kernels", "python3", "kernel.json")
        command = [sys.executable, "-I", "-S", __file__, "ask", str(address), "-f", "{connection_file}"]
        kernel.parent.mkdir(parents=True)
        kernel.write_text(json.dumps({"argv": command, "display_name": "Python 3", "language": "python"}))
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(address))
            listener.listen(64)  # who asks while it imports waits
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "reproduce.notebooks.kernels", "serve", str(listener.fileno())],
                cwd=self.root,
                env=os.environ | fixed(self.root),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[listener.fileno()],
            )


def fixed(root: Path) -> dict[str, str]:
    """Return the variables that all kernels of a bundle have, which PyTorch and Matplotlib read when imported."""
    inline = "module://matplotlib_inline.backend_inline"  # another one would leave no pictures
    return {"OMP_NUM_THREADS": "1", "MPLBACKEND": inline, "PYTHONSTARTUP": "", "REGNDE_HOME": str(root)}


def ask(address: str, *arguments: str) -> None:
    """Be the process that Jupyter started, with a kernel's arguments: ask for a fork, pass signals on, end with it."""
    with socket.socket(socket.AF_UNIX) as fork:
        request = {"arguments": arguments, "cwd": os.getcwd(), "env": dict(os.environ)}
        try:
            fork.connect(address)
            socket.send_fds(fork, [json.dumps(request).encode() + b"\n"], [0, 1, 2])
            answer = fork.recv(1)
        except OSError:
            answer = b""
        if not answer:
            os.execv(sys.executable, [sys.executable, "-m", "ipykernel_launcher", *arguments])
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: fork.send(bytes([number])))
        fork.settimeout(SECONDS)
        starter, ended = os.getppid(), False
        while not ended and os.getppid() == starter:
            with suppress(TimeoutError):
                ended = not fork.recv(1)


def serve(listener: socket.socket) -> None:
    """Import, then answer each that asks by a fork, until standard input ends; in a fork, run the kernel."""
    import gc
    import importlib
    import selectors

    from reproduce import checkout

    before = _code(checkout.ROOT)
    for name in IMPORTED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # what the forks share is not looked at again, which would copy it
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the runner's
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        while sys.stdin not in [key.fileobj for key, _ in selector.select()]:
            asked, _ = listener.accept()
            if _code(checkout.ROOT) == before and os.fork() == 0:
                listener.close()
                break
            asked.close()
        else:
            return
    _kernel(asked)


def _code(root: Path) -> dict[str, int]:
    """Return the files of the library and when each was changed."""
    return {str(path): path.stat().st_mtime_ns for path in (root / "lib").rglob("*.py")}


def _kernel(asked: socket.socket) -> None:
    """Become the kernel that a process asked for: its files, folder and environment, and no longer than it lives."""
    text, files, _, _ = socket.recv_fds(asked, 1 << 16, 3)
    while not text.endswith(b"\n"):
        text += asked.recv(1 << 16)
    request = json.loads(text)
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    asked.send(b"!")

    def follow() -> None:
        while heard := asked.recv(1):
            os.kill(os.getpid(), heard[0])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    sys.argv = ["ipykernel_launcher", *request["arguments"]]
    from ipykernel import kernelapp

    kernelapp.launch_new_instance()


if __name__ == "__main__":
    role, *given = sys.argv[1:]
    if role == "ask":
        ask(*given)
    else:
        serve(socket.socket(fileno=int(given[0])))
