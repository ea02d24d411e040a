"""What a solve refuses before it starts: states, times, tolerances, names; and fields that count and are checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor

from regnde.steps import Field


class SolverError(RuntimeError):
    """A solve that could not be finished: too many steps, a step size of nothing, non-finite values."""


class Counted:
    """A field that counts its evaluations, and checks the first one."""

    def __init__(self, f: Field, y0: Tensor) -> None:
        self.f, self.nfe = f, 0
        self.shape, self.dtype = y0.shape, y0.dtype

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        self.nfe += 1
        dy = self.f(t, y)
        if self.nfe == 1:
            self._check(dy)
        return dy

    def _check(self, dy: Tensor) -> None:
        if not isinstance(dy, Tensor):
            raise ValueError(f"f(t, y) must return a tensor, but it returned {type(dy).__name__}")
        if dy.shape != self.shape or dy.dtype != self.dtype:
            raise ValueError(
                "f(t, y) must return dy/dt with the shape and dtype of the state y: expected "
                f"{tuple(self.shape)} {self.dtype} (those of y0), found {tuple(dy.shape)} {dy.dtype} "
                "(those of f's output)"
            )


def check_problem(y0: Tensor, t: Tensor, rtol: float, atol: float) -> Tensor:
    """Return t as float64 on the CPU, or raise ValueError for a state, times or tolerances that cannot be."""
    if not isinstance(y0, Tensor) or not y0.is_floating_point():
        found = y0.dtype if isinstance(y0, Tensor) else type(y0).__name__
        raise ValueError(f"y0 must be a floating-point tensor (batch, ...), found {found}")
    if not torch.isfinite(y0).all():
        raise ValueError("y0 holds NaN or infinite values; check what produced the initial state")
    t = torch.as_tensor(t, dtype=torch.float64).detach().cpu()
    if t.ndim != 1 or len(t) < 2:
        raise ValueError(f"t must be one-dimensional with at least two times, found shape {tuple(t.shape)}")
    steps = t.diff()
    if not torch.isfinite(t).all() or not ((steps > 0).all() or (steps < 0).all()):
        raise ValueError(f"t must be finite and strictly increasing or strictly decreasing, found {t.tolist()[:8]}")
    for name, value in (("rtol", rtol), ("atol", atol)):
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be a finite number >= 0, found {value}")
    if rtol == 0 and atol == 0:
        raise ValueError("rtol and atol are both 0: no step could ever be accepted; make one of them positive")
    return t


T = TypeVar("T")


def choose(name: str, options: Mapping[str, T], value: str) -> T:
    """Return options[value], or raise ValueError naming what there is."""
    if value not in options:
        raise ValueError(f"unknown {name} {value!r}; choose one of {sorted(options)}")
    return options[value]


def check_sampled(t: Tensor, sampled_t: Tensor | None) -> Tensor:
    """Return the sampled times as float64 (None: empty), or raise ValueError when one leaves the interval of t."""
    sampled_t = torch.as_tensor([] if sampled_t is None else sampled_t, dtype=torch.float64)
    low, high = min(t[0], t[-1]), max(t[0], t[-1])
    if len(sampled_t) and not bool(((sampled_t >= low) & (sampled_t <= high)).all()):
        raise ValueError(f"sampled times {sampled_t.tolist()} leave the interval [{float(low)}, {float(high)}]")
    return sampled_t
