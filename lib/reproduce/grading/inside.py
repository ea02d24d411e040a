"""What runs inside the sandbox: give up rights, execute one notebook, hand the outputs to the process outside."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import nbformat
import psutil
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

from reproduce.grading import landlock

SUBREAPER = 36
"""prctl: orphans among the descendants become children of this process, so that it can end them."""
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/proc", "/sys", "/dev")
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty")
FILE_BYTES = 64 * 2**20
"""No file may grow larger."""


class TooMuchOutputError(Exception):
    """The cells so far printed more than may be kept."""


class Client(NotebookClient):
    """Executes a notebook and counts what it prints; nbclient asks for a subclass to hear the messages."""

    left = 0

    def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
        """Count the bytes of a message that carries output, then treat it as nbclient does."""
        if msg["msg_type"] in ("stream", "display_data", "execute_result", "error", "update_display_data"):
            self.left -= len(json.dumps(msg["content"], default=str))
            if self.left < 0:
                raise TooMuchOutputError
        return super().process_message(msg, cell, cell_index)


NEARLY = 0.9
"""Share of the processor's limit: Linux ends a process by a count of ticks, which on a busy machine runs ahead."""


def give_up_rights(folder: Path, *, memory_bytes: int, processor_seconds: int) -> None:
    """Limit this process and its children: memory, processor time, size of files, and what they can reach."""
    limits = {
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_CPU: processor_seconds,
        resource.RLIMIT_FSIZE: FILE_BYTES,
        resource.RLIMIT_CORE: 0,
    }
    for what, most in limits.items():
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    python = {sys.prefix, sys.base_prefix, *(path for path in sys.path if path)}
    writable = (folder, *(Path(name) for name in DEVICES))
    landlock.restrict(writable=writable, readable=[Path(name) for name in (*SYSTEM, *sorted(python))])


def execute(notebook: nbformat.NotebookNode, *, output_bytes: int) -> tuple[str, str]:
    """Execute all cells, errors of cells included in their outputs; return status and reason, ("ok", "") if it ran."""
    client = Client(notebook, timeout=None, allow_errors=True, kernel_name="python3", shutdown_kernel="immediate")
    client.left = output_bytes
    client.create_kernel_manager()
    assert client.km is not None
    client.km.transport = "ipc"  # sockets are files in the folder: no network is needed
    try:
        client.execute(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except TooMuchOutputError:
        return "output", f"it printed more than {output_bytes / 1e6:g} MB"
    except (DeadKernelError, CellExecutionError):
        return "crashed", f"its process ended while cell {_running(notebook)} ran"
    except MemoryError:
        return "memory", "it used more memory than allowed"
    return ("memory", "it used more memory than allowed") if _ran_out_of_memory(notebook) else ("ok", "")


def _running(notebook: nbformat.NotebookNode) -> int:
    """Number, from 1, of the last cell that was started."""
    started = [i for i, cell in enumerate(notebook.cells, 1) if cell.get("metadata", {}).get("execution")]
    return started[-1] if started else 1


def _ran_out_of_memory(notebook: nbformat.NotebookNode) -> bool:
    errors = [out for cell in notebook.cells for out in cell.get("outputs", ()) if out.output_type == "error"]
    return any(out.ename == "MemoryError" or "can't allocate memory" in out.evalue for out in errors)


def _longest_child() -> float:
    """Processor seconds of all ended children together, which is at least what the longest took."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def end_children() -> None:
    """Kill every process below this one, those that are started meanwhile included."""
    while children := psutil.Process().children(recursive=True):
        for child in children:
            try:
                child.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(children, timeout=1)


def main(order: dict[str, Any], out: int) -> None:
    """Execute the notebook that the order names, and write what came of it as JSON to a file descriptor."""
    folder = Path(order["folder"])
    notebook = nbformat.read(folder / order["notebook"], as_version=4)
    give_up_rights(folder, memory_bytes=order["address_bytes"], processor_seconds=order["processor_seconds"])
    try:
        status, reason = execute(notebook, output_bytes=order["output_bytes"])
    finally:
        end_children()
    if status == "crashed" and _longest_child() >= NEARLY * order["processor_seconds"]:
        status, reason = "time", f"it used more than {order['processor_seconds']} seconds of the processor"
    result = {"status": status, "reason": reason, "notebook": notebook if status == "ok" else None}
    with os.fdopen(out, "w", encoding="utf-8") as file:
        json.dump(result, file)


if __name__ == "__main__":
    # What the notebook's process prints past Jupyter must not reach the one who reads our result.
    result_fd, devnull = os.dup(1), os.open(os.devnull, os.O_RDWR)
    os.dup2(devnull, 1)
    try:
        main(json.loads(sys.argv[1]), result_fd)
    except Exception:
        os.write(result_fd, json.dumps({"status": "broken", "reason": traceback.format_exc()}).encode())
    os._exit(0)
