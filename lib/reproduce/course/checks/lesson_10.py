"""Checks of lesson 10: a step with a memory, and running averages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from reproduce.course.checks.checked import Checked, Mistake


def _steps() -> list[tuple[Any, ...]]:
    y, now, before = torch.tensor([[1.0, 2.0], [0.5, -1.0], [0.2, 0.4]], dtype=torch.float64)
    return [(y, now, before, 0.2, 0.1), (y, now, before, 0.1, 0.3)]


def _step(y: Tensor, now: Tensor, before: Tensor, dt: float, dt_before: float) -> Tensor:
    return y + dt * now + dt**2 / (2 * dt_before) * (now - before)


def _mean(values: Sequence[float], momentum: float, start: float = 0.0) -> float:
    mean = start
    for value in values:
        mean = (1 - momentum) * mean + momentum * value
    return mean


CHECKS = (
    Checked(
        number="10.1",
        call="two_derivative_step(y, f_now, f_before, dt, dt_before)",
        returns="the state after the step, like y",
        cases=_steps,
        right=_step,
        mistakes=(
            Mistake(
                "that is the formula for equal steps: the size of the step before is not used.",
                lambda y, now, before, dt, dt_before: y + dt * (1.5 * now - 0.5 * before),
            ),
            Mistake("that is Euler's step: the past is not used.", lambda y, now, before, dt, dt_before: y + dt * now),
            Mistake(
                "the line is prolonged with the wrong slope: its sign.",
                lambda y, now, before, dt, dt_before: _step(y, now, 2 * now - before, dt, dt_before),
            ),
            Mistake(
                "the line was evaluated at the end of the step. Its integral is asked for: a half is missing.",
                lambda y, now, before, dt, dt_before: _step(y, now, before, dt, dt_before / 2),
            ),
        ),
    ),
    Checked(
        number="10.2",
        call="running_mean(values, momentum)",
        returns="a number",
        cases=lambda: [([1.0, 2.0, 5.0], 0.1), ([3.0, -1.0], 0.7), ([2.0] * 9, 0.3)],
        right=_mean,
        mistakes=(
            Mistake(
                "the two shares are swapped: here a large momentum forgets.",
                lambda values, momentum: _mean(values, 1 - momentum),
            ),
            Mistake("that is the plain mean of all values.", lambda values, momentum: sum(values) / len(values)),
            Mistake(
                "it starts at the first value; batch norm starts at zero.",
                lambda values, momentum: _mean(values[1:], momentum, values[0]),
            ),
            Mistake("only the last value has an influence.", lambda values, momentum: momentum * values[-1]),
        ),
    ),
)
