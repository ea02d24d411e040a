"""Checks of lesson 09: what a prediction averages, and what a tolerance costs."""

from __future__ import annotations

import torch
from torch import Tensor

from reproduce.course.checks.checked import Checked, Mistake


def _logits() -> list[tuple[Tensor]]:
    rng = torch.Generator().manual_seed(0)
    return [(3 * torch.randn(*shape, generator=rng, dtype=torch.float64),) for shape in ((4, 4, 4), (6, 3, 10))]


CHECKS = (
    Checked(
        number="09.1",
        call="predicted(logits)",
        returns="probabilities, (images, classes)",
        cases=_logits,
        right=lambda logits: logits.mean(0).softmax(-1),
        mistakes=(
            Mistake(
                "that is the mean of the probabilities. What does the prediction of this lesson average?",
                lambda logits: logits.softmax(-1).mean(0),
            ),
            Mistake("those are logits: they do not sum to one.", lambda logits: logits.mean(0)),
            Mistake("that averages over the images.", lambda logits: logits.mean(1).softmax(-1)),
            Mistake("the sum over the images is one, not that over the classes.", lambda x: x.mean(0).softmax(0)),
        ),
    ),
    Checked(
        number="09.2",
        call="more_steps(tighter, power)",
        returns="a factor, a number",
        cases=lambda: [(10.0, 2.0), (100.0, 1.5), (2.0, 1.0)],
        right=lambda tighter, power: tighter ** (1 / power),
        mistakes=(
            Mistake("that is as if every estimate fell like the size itself.", lambda tighter, power: tighter),
            Mistake(
                "the power is on the wrong side: a steeper estimate makes digits cheaper.",
                lambda tighter, power: tighter**power,
            ),
            Mistake("a tighter tolerance needs more steps, not fewer.", lambda tighter, power: tighter ** (-1 / power)),
            Mistake("the power belongs to the estimate of one step already.", lambda t, power: t ** (1 / (power + 1))),
        ),
    ),
)
