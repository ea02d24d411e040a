"""Checks of lesson 14: fixed steps and what they cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from reproduce.course.checks.checked import Checked, Mistake

STAGES = {"euler": 1, "midpoint": 2, "rk4": 4}


def _steps() -> list[tuple[Any, ...]]:
    y = torch.tensor([[0.2, 0.8], [1.5, -0.3]], dtype=torch.float64)
    return [(lambda t, y: y * (1 - y), 0.0, y, 0.5), (lambda t, y: t * y - y**2, 1.0, y, 0.3)]


def _midpoint(f: Callable[..., Tensor], t: float, y: Tensor, h: float, *, at: float = 0.5) -> Tensor:
    return y + h * f(t + at * h, y + h / 2 * f(t, y))


CHECKS = (
    Checked(
        number="14.1",
        call="fixed_bill(method, steps)",
        returns="evaluations, a number",
        cases=lambda: [("euler", 7), ("midpoint", 3), ("rk4", 5)],
        right=lambda method, steps: STAGES[method] * steps,
        mistakes=(
            Mistake("that counts steps: how often does a step of each method look?", lambda method, steps: steps),
            Mistake(
                "the two evaluations at the start belong to adaptive solves: nothing is guessed here.",
                lambda method, steps: 2 + STAGES[method] * steps,
            ),
            Mistake(
                "no stage is used again by the next step: these methods are not first same as last.",
                lambda method, steps: (STAGES[method] - 1) * steps + 1,
            ),
        ),
    ),
    Checked(
        number="14.2",
        call="midpoint_step(f, t, y, h)",
        returns="the state after the step, like y",
        cases=_steps,
        right=_midpoint,
        mistakes=(
            Mistake("that is Euler's step.", lambda f, t, y, h: y + h * f(t, y)),
            Mistake(
                "right where f does not see the time: at which time is the second slope taken?",
                lambda f, t, y, h: _midpoint(f, t, y, h, at=0.0),
            ),
            Mistake(
                "the second slope is taken at the end, not in the middle.",
                lambda f, t, y, h: y + h * f(t + h, y + h * f(t, y)),
            ),
            Mistake(
                "that is the middle: the whole step goes from the start along the second slope.",
                lambda f, t, y, h: y + h / 2 * f(t, y),
            ),
        ),
    ),
)
