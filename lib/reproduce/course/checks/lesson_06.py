"""Checks of lesson 06: what test images can show, and the floor of a solve."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from reproduce.course.checks.checked import Checked, Mistake


def _steps(first: float, growth: float) -> int:
    covered, size, steps = 0.0, first, 0
    while covered < 1 - 1e-12:
        covered, size, steps = covered + size, growth * size, steps + 1
    return steps


def _answers() -> list[tuple[Any, ...]]:
    rng = torch.Generator().manual_seed(0)
    hard = torch.rand(4000, generator=rng, dtype=torch.float64)  # how hard each image is, for both
    found = []
    for a, b in ((0.9, 0.85), (0.7, 0.75)):
        noise = 0.1 * torch.rand(2, 4000, generator=rng, dtype=torch.float64)
        found.append(((hard + noise[0] < a).double(), (hard + noise[1] < b).double()))
    return found


def _as_if_others(a: Tensor, b: Tensor) -> Tensor:
    return ((a.var() + b.var()) / len(a)).sqrt()


CHECKS = (
    Checked(
        number="06.1",
        call="standard_error_in_points(accuracy, n)",
        returns="points, a number",
        cases=lambda: [(0.95, 1000), (0.6, 50), (0.99, 10_000)],
        right=lambda a, n: 100 * math.sqrt(a * (1 - a) / n),
        mistakes=(
            Mistake("that is a share. Points are asked for.", lambda a, n: math.sqrt(a * (1 - a) / n)),
            Mistake("that is a variance: the root is missing.", lambda a, n: 100 * a * (1 - a) / n),
            Mistake(
                "that is the spread of one image, not of a mean over n.",
                lambda a, n: 100 * math.sqrt(a * (1 - a)),
            ),
            Mistake(
                "an accuracy near one is known better: the other factor is missing.",
                lambda a, n: 100 * math.sqrt(a / n),
            ),
        ),
    ),
    Checked(
        number="06.2",
        call="least_nfe(first, growth)",
        returns="evaluations, a whole number",
        cases=lambda: [(1e-3, 10.0), (0.02, 3.0), (1.0, 10.0), (0.1, 10.0), (0.05, 10.0)],
        right=lambda first, growth: 2 + 6 * _steps(first, growth),
        mistakes=(
            Mistake("the two evaluations at the start are missing.", lambda f, g: 6 * _steps(f, g)),
            Mistake("the first stage of a step is known from the one before.", lambda f, g: 2 + 7 * _steps(f, g)),
            Mistake(
                "the steps before the last one cover a part of the way, too.",
                lambda f, g: 2 + 6 * (1 + max(0, math.ceil(math.log(1 / f) / math.log(g) - 1e-9))),
            ),
            Mistake("those are steps, not evaluations.", _steps),
        ),
    ),
    Checked(
        number="06.3",
        call="standard_error_of_difference(right_a, right_b)",
        returns="a share, a number",
        cases=_answers,
        right=lambda a, b: (a - b).std() / len(a) ** 0.5,
        rtol=1e-3,
        mistakes=(
            Mistake("that would be right for two different sets of images: these are the same.", _as_if_others),
            Mistake("that is the spread of one image's difference, not of the mean.", lambda a, b: (a - b).std()),
            Mistake("that is a variance: the root is missing.", lambda a, b: (a - b).var() / len(a)),
            Mistake("that is the difference itself.", lambda a, b: a.mean() - b.mean()),
        ),
    ),
)
