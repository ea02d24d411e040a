"""Checks of lesson 08: steps along a Brownian path, and the two kinds of error."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reproduce.course.checks.checked import Checked, Mistake


def _steps() -> list[tuple[Any, ...]]:
    w = torch.tensor([[0.3], [-0.2], [0.05]], dtype=torch.float64)
    return [(torch.ones(3, 1, dtype=torch.float64), 1.5, 0.8, 0.1, w), (2.0 + w, -1.0, 0.5, 0.25, 2 * w)]


def _euler(y: Tensor, a: float, b: float, dt: float, w: Tensor) -> Tensor:
    return y + dt * a * y + b * y * w


def _ends() -> list[tuple[Any, ...]]:
    rng = torch.Generator().manual_seed(0)
    exact = torch.randn(300, 2, generator=rng, dtype=torch.float64)
    return [
        (exact + shift + 0.1 * torch.randn(300, 2, generator=rng, dtype=torch.float64), exact)
        for shift in (0.05, -0.02)
    ]


def _weak(computed: Tensor, exact: Tensor) -> Tensor:
    return (computed - exact).mean().abs()


def _strong(computed: Tensor, exact: Tensor) -> Tensor:
    return (computed - exact).square().mean().sqrt()


CHECKS = (
    Checked(
        number="08.1",
        call="milstein_step(y, a, b, dt, w)",
        returns="the state after the step, like y",
        cases=_steps,
        right=lambda y, a, b, dt, w: _euler(y, a, b, dt, w) + b**2 * y * (w**2 - dt) / 2,
        mistakes=(
            Mistake("that is Euler's step: what Milstein adds is missing.", _euler),
            Mistake(
                "what is added must have the mean zero: what is the mean of the square of w?",
                lambda y, a, b, dt, w: _euler(y, a, b, dt, w) + b**2 * y * w**2 / 2,
            ),
            Mistake(
                "what is added is too large: a half is missing.",
                lambda y, a, b, dt, w: _euler(y, a, b, dt, w) + b**2 * y * (w**2 - dt),
            ),
            Mistake(
                "the wrong sign of what is added.",
                lambda y, a, b, dt, w: _euler(y, a, b, dt, w) - b**2 * y * (w**2 - dt) / 2,
            ),
        ),
    ),
    Checked(
        number="08.2",
        call="first_part(w, h, s)",
        returns="mean and variance, two numbers",
        cases=lambda: [(0.7, 1.0, 0.25), (-0.3, 0.5, 0.4), (0.2, 2.0, 1.0)],
        right=lambda w, h, s: (w * s / h, s * (h - s) / h),
        mistakes=(
            Mistake("that is fresh noise: the path has forgotten what it said.", lambda w, h, s: (0.0, s)),
            Mistake(
                "the mean is right; but at s = h nothing is in doubt any more.",
                lambda w, h, s: (w * s / h, s),
            ),
            Mistake("the mean does not depend on s? At s = 0 it must be zero.", lambda w, h, s: (w, s * (h - s) / h)),
            Mistake(
                "that is a standard deviation, not a variance.",
                lambda w, h, s: (w * s / h, (s * (h - s) / h) ** 0.5),
            ),
        ),
    ),
    Checked(
        number="08.3",
        call="weak_and_strong(computed, exact)",
        returns="the weak and the strong error, two numbers",
        cases=_ends,
        right=lambda c, e: (_weak(c, e), _strong(c, e)),
        mistakes=(
            Mistake("the two are in the wrong order.", lambda c, e: (_strong(c, e), _weak(c, e))),
            Mistake(
                "the first is a mean of distances, path by path: means come first, then their difference.",
                lambda c, e: ((c - e).abs().mean(), _strong(c, e)),
            ),
            Mistake(
                "the second is a mean square: the root is missing.", lambda c, e: (_weak(c, e), _strong(c, e) ** 2)
            ),
            Mistake(
                "an error has no sign: the first should be absolute.",
                lambda c, e: ((c - e).mean(), _strong(c, e)),
            ),
        ),
    ),
)
