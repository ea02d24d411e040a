"""Checks of lesson 00: the penalty of one random step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from regnde import local_biased, local_unbiased, solve_ode
from reproduce.course.checks.checked import Checked, Mistake


def _field(t: Tensor, y: Tensor) -> Tensor:
    return torch.stack((-torch.sin(3 * y[:, 1]) * (1 + t), torch.cos(2 * y[:, 0])), dim=1)


def _cases() -> list[tuple[Any, ...]]:
    y, end = torch.tensor([[1.0, 0.0], [0.3, -0.5]], dtype=torch.float64), torch.tensor([0.0, 2.0])
    return [(_field, y, end, torch.Generator().manual_seed(seed)) for seed in (0, 1, 2)]


def _unbiased(f: Any, y: Tensor, end: Tensor, rng: torch.Generator, *, tol: float = 1e-7, dt: bool = False) -> Tensor:
    regularizer = local_unbiased(times_dt=dt)
    times, drawn = regularizer.times(end, rng)
    assert regularizer.penalty is not None
    return regularizer.penalty(solve_ode(f, y, times, sampled_t=drawn, rtol=tol, atol=tol), rng)


def _biased(f: Any, y: Tensor, end: Tensor, rng: torch.Generator) -> Tensor:
    penalty = local_biased().penalty
    assert penalty is not None
    return penalty(solve_ode(f, y, end, rtol=1e-7, atol=1e-7), rng)


CHECKS = (
    Checked(
        number="00.1",
        call="unbiased_penalty(f, y, end, rng)",
        returns="the penalty, a tensor without axes",
        cases=_cases,
        right=_unbiased,
        mistakes=(
            Mistake("that still draws one of the accepted steps, each alike: it is the biased draw.", _biased),
            Mistake(
                "that is off by the size of the step: the error ratio alone is asked for.",
                lambda f, y, end, rng: _unbiased(f, y, end, rng, dt=True),
            ),
            Mistake(
                "the solve has another tolerance than section 3.",
                lambda f, y, end, rng: _unbiased(f, y, end, rng, tol=1e-5),
            ),
        ),
    ),
)
