"""Checks of lesson 04: the two boxes, what draws are on average, and what a weight offers."""

from __future__ import annotations

import torch
from torch import Tensor

from reproduce.course.checks.checked import Checked, Mistake

SIZES = torch.tensor([0.1, 0.4, 0.5, 1.0], dtype=torch.float64)
RATIOS = torch.tensor([0.3, 0.9, 0.2, 0.6], dtype=torch.float64)


def _unbiased(q: Tensor, dt: Tensor) -> Tensor:
    return (q * dt).sum() / dt.sum()


CHECKS = (
    Checked(
        number="04.1",
        call="biased_density(dt)",
        returns="a density for each step, like dt",
        cases=lambda: [(SIZES.clone(),), (SIZES[:2].clone(),)],
        right=lambda dt: 1 / (len(dt) * dt),
        mistakes=(
            Mistake(
                "that is the probability of a step. It is spread over the length of the step.",
                lambda dt: torch.full_like(dt, 1 / len(dt)),
            ),
            Mistake(
                "that is the density of an unbiased draw, which does not care for the steps.",
                lambda dt: torch.full_like(dt, 1 / dt.sum().item()),
            ),
            Mistake("that looks where steps are long.", lambda dt: dt / dt.sum()),
            Mistake("this does not integrate to one over the interval.", lambda dt: 1 / dt),
        ),
    ),
    Checked(
        number="04.2",
        call="expected_ratios(q, dt)",
        returns="the expectations of a biased and of an unbiased draw",
        cases=lambda: [(RATIOS.clone(), SIZES.clone()), (RATIOS[1:].clone(), SIZES[1:].clone())],
        right=lambda q, dt: (q.mean(), _unbiased(q, dt)),
        mistakes=(
            Mistake("the two are in the wrong order.", lambda q, dt: (_unbiased(q, dt), q.mean())),
            Mistake(
                "the second is the global penalty: a draw's expectation has the length of the interval in it, too.",
                lambda q, dt: (q.mean(), (q * dt).sum()),
            ),
            Mistake("a sum over steps is not a mean over them.", lambda q, dt: (q.sum(), _unbiased(q, dt))),
            Mistake(
                "the second weighs steps the wrong way round: a long step is hit more often.",
                lambda q, dt: (q.mean(), (q / dt).sum() / (1 / dt).sum()),
            ),
        ),
    ),
    Checked(
        number="04.3",
        call="loss_for_an_efold(weight, q)",
        returns="a number, in units of the loss",
        cases=lambda: [(0.3, RATIOS.clone()), (2.0, RATIOS[:3].clone())],
        right=lambda weight, q: weight * 5 * q.mean(),
        mistakes=(
            Mistake(
                "that is the weight alone, a common slip: it would be the price if 5 times the mean ratio were one.",
                lambda weight, q: weight,
            ),
            Mistake("the power of the step size is missing.", lambda weight, q: weight * q.mean()),
            Mistake("the power is on the wrong side.", lambda weight, q: weight * q.mean() / 5),
            Mistake("a draw's expectation is a mean over the steps.", lambda weight, q: weight * 5 * q.sum()),
        ),
    ),
)
