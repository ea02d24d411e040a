"""Checks of lesson 12: units and scales of a log-likelihood."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from reproduce.course.checks.checked import Checked, Mistake


def _points() -> list[tuple[Any, ...]]:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(5, 3, generator=rng, dtype=torch.float64)
    scale = torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64)
    return [(x, torch.tensor([0.1, -0.4, 1.0], dtype=torch.float64), scale), (2 * x, x[0], 1 / scale)]


def _normal(z: Tensor) -> Tensor:
    return (-0.5 * z.square() - 0.5 * math.log(2 * math.pi)).sum(1)


CHECKS = (
    Checked(
        number="12.1",
        call="bits_per_dimension(log_likelihood, d)",
        returns="bits, a number",
        cases=lambda: [(-120.0, 64), (35.0, 10)],
        right=lambda ll, d: -ll / (d * math.log(2)),
        mistakes=(
            Mistake("the sign: a likely image needs few bits.", lambda ll, d: ll / (d * math.log(2))),
            Mistake("those are nats for each dimension.", lambda ll, d: -ll / d),
            Mistake("those are bits for the whole image.", lambda ll, d: -ll / math.log(2)),
            Mistake("nats are turned into bits the wrong way round.", lambda ll, d: -ll * math.log(2) / d),
        ),
    ),
    Checked(
        number="12.2",
        call="log_density_of_points(x, mean, scale)",
        returns="a log-density for each point, (n,)",
        cases=_points,
        right=lambda x, m, s: _normal((x - m) / s) - s.log().sum(),
        mistakes=(
            Mistake("that is the density of z: the scale is missing.", lambda x, m, s: _normal((x - m) / s)),
            Mistake(
                "the scale has the wrong sign: a narrow density is a high one.",
                lambda x, m, s: _normal((x - m) / s) + s.log().sum(),
            ),
            Mistake(
                "the constant of the normal density is missing.",
                lambda x, m, s: (-0.5 * ((x - m) / s).square() - s.log()).sum(1),
            ),
            Mistake(
                "the scale is a standard deviation here, not a variance.",
                lambda x, m, s: _normal((x - m) / s.sqrt()) - 0.5 * s.log().sum(),
            ),
        ),
    ),
)
