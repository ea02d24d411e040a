"""Where runs compute: the device that was asked for, its clock, memory and name (no torch until one is asked).

What decides an experiment is drawn on the CPU, wherever a run computes, and moved: initial parameters, the order of the
batches, what a regularizer draws, the seeds of Brownian paths, the noise of a latent state. So a run on another device
sees the same draws, though not the same bits: sums are rounded in another order there. A Brownian path itself is drawn
where the state is. Time and its control are on the CPU, in float64. Data are moved once, before the training.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

CHOICES = ("auto", "cpu", "cuda", "mps")
PLACE = "REGNDE_DEVICE"
"""The environment variable that tells notebooks and the processes of a sweep what was asked for; not set: the CPU."""
THREAD = "processor time of one thread"
WALL = "time on the wall, the device's work done"


def class_of(name: str) -> str:
    """Return the class of device that a choice means; 'auto' takes CUDA, else Metal, else the CPU.

    Raises:
        ValueError: an unknown choice. Which of several GPUs it is says CUDA_VISIBLE_DEVICES.
    """
    if name not in CHOICES:
        raise ValueError(f"unknown device {name!r}; choose one of: {', '.join(CHOICES)}")
    return next(kind for kind in ("cuda", "mps", "cpu") if not _missing(kind)) if name == "auto" else name


def asked() -> str:
    """Return the class of device that was asked for: $REGNDE_DEVICE, where it is not set or empty the CPU."""
    return class_of(os.environ.get(PLACE) or "cpu")


@contextmanager
def asking(name: str | None) -> Iterator[None]:
    """Ask for a device, in this process and those that it starts; None leaves it as it is."""
    before = os.environ.get(PLACE)
    if name is not None:
        os.environ[PLACE] = class_of(name)
    try:
        yield
    finally:
        os.environ.pop(PLACE, None)
        os.environ.update({} if before is None else {PLACE: before})


def check(name: str) -> None:
    """Raise ValueError where a device is unknown, is not there, or cannot compute in the default dtype."""
    kind = class_of(name)
    if reason := _missing(kind):
        raise ValueError(f"DEVICE={kind}: {reason}; choose DEVICE=cpu, or DEVICE=auto for the best that there is")


def _missing(kind: str) -> str:
    """Return why a class of device cannot be used here; empty if it can."""
    if kind == "cpu":
        return ""
    import torch

    if kind == "cuda":
        build = "PyTorch finds no GPU" if torch.version.cuda else "this build of PyTorch has no CUDA"
        return "" if torch.cuda.is_available() else f"{build} (torch {torch.__version__})"
    if not torch.backends.mps.is_available():
        return f"PyTorch finds no Metal here (torch {torch.__version__})"
    return "Metal has no float64, which is the default dtype" if torch.get_default_dtype() == torch.float64 else ""


def ready(name: str) -> torch.device:
    """Return a device to compute on; ValueError as `check`."""
    import torch

    check(name)
    return torch.device(class_of(name))


def title(device: torch.device) -> str:
    """Return 'cpu', or the name of the accelerator."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def timer(device: torch.device) -> str:
    """Return in words what `clock` measures."""
    return THREAD if device.type == "cpu" else WALL


def clock(device: torch.device) -> Callable[[], float]:
    """Return the clock of a device, in seconds: see `timer`.

    On an idle machine a thread's processor time is the time on the wall, on a busy one it leaves out what other
    programs took. An accelerator computes while the thread goes on, so there the wall decides, read when the
    accelerator has done all that it was given; runs that share it slow each other.
    """
    if device.type == "cpu":
        return time.thread_time
    import torch

    wait: Callable[[], None] = torch.get_device_module(device).synchronize

    def wall() -> float:
        wait()
        return time.perf_counter()

    return wall


def peak(device: torch.device) -> dict[str, Any]:
    """Return {'peak_bytes': the most memory that tensors took on a GPU since this was last asked}; else nothing."""
    import torch

    if device.type != "cuda":
        return {}
    found = torch.cuda.max_memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    return {"peak_bytes": found}
