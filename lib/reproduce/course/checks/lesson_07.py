"""Checks of lesson 07: errors, masks and bands where most values are missing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reproduce.course.checks.checked import Checked, Mistake


def _stays() -> tuple[Tensor, Tensor, Tensor]:
    """Predictions, values and mask of some made-up stays, (4, 49, 3) each; unobserved values are zero."""
    rng = torch.Generator().manual_seed(0)
    prediction, values = torch.rand(2, 4, 49, 3, generator=rng, dtype=torch.float64)
    share = torch.tensor([0.9, 0.1, 0.4, 0.6], dtype=torch.float64)[:, None, None]
    mask = (torch.rand(4, 49, 3, generator=rng, dtype=torch.float64) < share).double()
    return prediction, values * mask, mask


def _squared(prediction: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    return (prediction - values).square() * mask


def _bands() -> list[tuple[Any, ...]]:
    prediction, values, mask = _stays()
    return [(values, mask, prediction, torch.full_like(values, spread)) for spread in (0.1, 0.25)]


def _split(mask: Tensor, until: int = 24, since: int = 24) -> tuple[Tensor, Tensor]:
    hour = torch.arange(mask.shape[1])[None, :, None]
    return mask * (hour < until), mask * (hour >= since)


def _inside(values: Tensor, mask: Tensor, mean: Tensor, spread: Tensor, *, times: float = 1.96) -> Tensor:
    return (((values - mean).abs() <= times * spread) * mask).sum() / mask.sum()


CHECKS = (
    Checked(
        number="07.1",
        call="observed_error(prediction, values, mask)",
        returns="the error, a number",
        cases=lambda: [_stays()],
        right=lambda p, v, m: _squared(p, v, m).sum() / m.sum(),
        mistakes=(
            Mistake(
                "divided by all cells: empty ones count as if they were right.",
                lambda p, v, m: _squared(p, v, m).mean(),
            ),
            Mistake(
                "the mask is missing: empty cells hold zeros, no values.",
                lambda p, v, m: (p - v).square().mean(),
            ),
            Mistake(
                "a mean over stays of their own means: each observed value counts alike.",
                lambda p, v, m: (_squared(p, v, m).sum((1, 2)) / m.sum((1, 2))).mean(),
            ),
            Mistake("that is its root.", lambda p, v, m: (_squared(p, v, m).sum() / m.sum()).sqrt()),
        ),
    ),
    Checked(
        number="07.2",
        call="one_day_each(mask)",
        returns="the mask that is read and the one that is scored",
        cases=lambda: [(_stays()[2],)],
        right=_split,
        mistakes=(
            Mistake("the two are in the wrong order.", lambda mask: _split(mask)[::-1]),
            Mistake("hour 24 is read: it belongs to the second day.", lambda mask: _split(mask, 25, 25)),
            Mistake("an hour is in both: what is read must not be scored.", lambda mask: _split(mask, 25, 24)),
            Mistake("the first day is scored as well.", lambda mask: (_split(mask)[0], mask)),
        ),
    ),
    Checked(
        number="07.3",
        call="covered_share(values, mask, mean, spread)",
        returns="a share, a number",
        cases=_bands,
        right=_inside,
        mistakes=(
            Mistake(
                "empty cells are counted.",
                lambda v, m, mean, s: ((v - mean).abs() <= 1.96 * s).double().mean(),
            ),
            Mistake(
                "that is a band of one standard deviation.", lambda v, m, mean, s: _inside(v, m, mean, s, times=1.0)
            ),
            Mistake(
                "one side only: a value may be too low, too.",
                lambda v, m, mean, s: (((v - mean) <= 1.96 * s) * m).sum() / m.sum(),
            ),
            Mistake("that is the share outside.", lambda v, m, mean, s: 1 - _inside(v, m, mean, s)),
        ),
    ),
)
