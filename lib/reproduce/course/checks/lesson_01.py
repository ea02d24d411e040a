"""Checks of lesson 01: one step and its error estimate."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from regnde import BOSH3, error_ratio, rk_step
from reproduce.course.checks.checked import Checked, Mistake

PONDS = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9], dtype=torch.float64)


def _heun(f: Callable[..., Tensor], t: float, y: Tensor, dt: float, *, at: float = 1.0) -> tuple[Tensor, Tensor]:
    """Slopes at the start and at the end of Euler's step; `at` is the share of dt at which the second looks."""
    k1 = f(t, y)
    return k1, f(t + at * dt, y + dt * k1)


def _pair(f: Callable[..., Tensor], t: float, y: Tensor, dt: float) -> tuple[Tensor, Tensor]:
    k1, k2 = _heun(f, t, y, dt)
    return y + dt / 2 * (k1 + k2), dt / 2 * (k2 - k1)


def _pair_at_start(f: Callable[..., Tensor], t: float, y: Tensor, dt: float) -> tuple[Tensor, Tensor]:
    k1, k2 = _heun(f, t, y, dt, at=0.0)
    return y + dt / 2 * (k1 + k2), dt / 2 * (k2 - k1)


def _euler_kept(f: Callable[..., Tensor], t: float, y: Tensor, dt: float) -> tuple[Tensor, Tensor]:
    k1, k2 = _heun(f, t, y, dt)
    return y + dt * k1, dt / 2 * (k2 - k1)


def _pairs() -> list[tuple[Any, ...]]:
    return [
        (lambda t, y: y * (1 - y), 0.0, PONDS, 0.5),
        (lambda t, y: t * y - y**2, 1.0, PONDS, 0.3),
    ]


def _derivative(r: float, dt: float, held: bool) -> float:
    """The derivative of the error ratio of one step on the ponds by the growth rate."""
    rate = torch.tensor(float(r), dtype=torch.float64, requires_grad=True)

    def f(t: Tensor, y: Tensor) -> Tensor:
        return rate * y * (1 - y)

    k1 = f(torch.tensor(0.0), PONDS)
    step = rk_step(f, 0.0, PONDS, dt, BOSH3, k1=k1.detach() if held else k1)
    ratio = error_ratio(step.error, step.y, step.y1, rtol=1e-4, atol=1e-4)
    return torch.autograd.grad(ratio, rate)[0].item()


def fooled(answer: Callable[[float], Any]) -> str | None:
    """Say what keeps a field from fooling bosh3: an estimate that is not zero, or a true error that is."""
    for dt in (1.0, 0.4):
        hidden = answer(dt)
        if not callable(hidden):
            return "expected a function of time for each dt: return the function, not its value."
        grid = torch.linspace(0, dt, 4001, dtype=torch.float64)
        values = torch.as_tensor(hidden(grid), dtype=torch.float64).expand_as(grid)
        seen = torch.stack([torch.as_tensor(hidden(grid[i]), dtype=torch.float64) for i in (0, 2000, 3000, 4000)])
        if values.min() < -1e-9:
            return "the function is negative somewhere: its integral, the true error, may then cancel as well."
        if values.max() < 1e-9:
            return "the function is zero everywhere: then there is no error to hide."
        if seen.abs().max() > 1e-6 * values.max():
            return "the method sees it: at one of its four times (of this dt!) the function is not zero."
    return None


CHECKS = (
    Checked(
        number="01.1",
        call="right_size(dt, ratio, embedded_order)",
        returns="the new size of the step, a number",
        cases=lambda: [(0.5, 2.0, 2), (0.1, 0.01, 4), (1.0, 30.0, 1)],
        right=lambda dt, ratio, p: dt * ratio ** (-1 / (p + 1)),
        mistakes=(
            Mistake(
                "the wrong sign of the exponent: a step that is too bad becomes longer.",
                lambda dt, ratio, p: dt * ratio ** (1 / (p + 1)),
            ),
            Mistake(
                "the wrong power: with which power of the size does the *estimate* of one step fall?",
                lambda dt, ratio, p: dt * ratio ** (-1 / p),
            ),
            Mistake("that is the factor. The size is asked for.", lambda dt, ratio, p: ratio ** (-1 / (p + 1))),
            Mistake("the size does not fall like the ratio itself: a root is missing.", lambda dt, q, p: dt / q),
        ),
    ),
    Checked(
        number="01.2",
        call="heun_pair(f, t, y, dt)",
        returns="y1 and the estimate, two tensors like y",
        cases=_pairs,
        right=_pair,
        mistakes=(
            Mistake(
                "the estimate has the wrong sign: it is the kept answer less the other one.",
                lambda *case: (_pair(*case)[0], -_pair(*case)[1]),
            ),
            Mistake(
                "the estimate is off by the factor dt: slopes were subtracted, not states.",
                lambda f, t, y, dt: (_pair(f, t, y, dt)[0], _pair(f, t, y, dt)[1] / dt),
            ),
            Mistake("this keeps Euler's answer; the better one of the two is to be kept.", _euler_kept),
            Mistake(
                "right where f does not see the time: at which time is the second slope taken?",
                _pair_at_start,
            ),
        ),
    ),
    Checked(
        number="01.3",
        call="two_derivatives(r, dt)",
        returns="the full derivative and the one with the first stage held, two numbers",
        cases=lambda: [(1.0, 0.5), (0.7, 0.2)],
        right=lambda r, dt: (_derivative(r, dt, False), _derivative(r, dt, True)),
        mistakes=(
            Mistake(
                "both are the full derivative: nothing was held. Is the detached stage really passed as k1?",
                lambda r, dt: (_derivative(r, dt, False), _derivative(r, dt, False)),
            ),
            Mistake(
                "both have the first stage held: the full derivative needs all stages.",
                lambda r, dt: (_derivative(r, dt, True), _derivative(r, dt, True)),
            ),
            Mistake(
                "the two are in the wrong order.",
                lambda r, dt: (_derivative(r, dt, True), _derivative(r, dt, False)),
            ),
        ),
    ),
    Checked(
        number="01.4",
        call="fooling_field(dt)",
        returns="a function of time",
        cases=lambda: [(1.0,), (0.4,)],
        right=lambda dt: lambda t: torch.sin(4 * math.pi * t / dt) ** 2,
        mistakes=(
            Mistake(
                "the function is negative somewhere: its integral, the true error, may then cancel as well.",
                lambda dt: lambda t: torch.sin(4 * math.pi * t / dt),
            ),
            Mistake("the function is zero everywhere: then there is no error to hide.", lambda dt: lambda t: 0 * t),
            Mistake(
                "the method sees it: at one of its four times (of this dt!) the function is not zero.",
                lambda dt: lambda t: torch.sin(4 * math.pi * t) ** 2,
            ),
        ),
        wrong=fooled,
    ),
)
