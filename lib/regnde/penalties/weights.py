"""Weights of penalties over training: constant, exponential, or adapted until a solve needs a given number of NFE."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Weight:
    """Weight of a penalty over training: constant, or exponential from `start` to `end`.

    Calling it with the progress p in [0, 1] gives start * (end / start)^p.

    Raises:
        ValueError: a weight that is not positive and finite.

    Source: weights that fall over training, as those of Pal et al. 2021.
    """

    start: float
    end: float | None = None

    def __post_init__(self) -> None:
        for value in (self.start, self.start if self.end is None else self.end):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"a weight must be positive and finite, found {value}; to switch off use `none`")

    def __call__(self, progress: float) -> float:
        return self.start if self.end is None else self.start * (self.end / self.start) ** progress


GAIN = 0.05
"""Relative change of an adapted weight for each training step, at most."""
RANGE = 1e3
"""An adapted weight stays within this factor of its start."""


def towards(target_nfe: float, start: float) -> Callable[[float, float], float]:
    """Return (weight, NFE of a training step's solve) -> next weight, which leads NFE to `target_nfe`.

    The weight is multiplied by exp(0.05 r), r = NFE / target - 1 clipped to [-1, 1]: it grows while a solve needs more
    than the target, and falls while it needs less. So one chooses what a prediction may cost instead of a weight.

    Raises:
        ValueError: a target that is not positive.
    """
    if not (math.isfinite(target_nfe) and target_nfe > 0):
        raise ValueError(f"target_nfe must be a positive number of evaluations, found {target_nfe}")

    def adapt(weight: float, nfe: float) -> float:
        distance = max(-1.0, min(1.0, nfe / target_nfe - 1.0))
        return max(start / RANGE, min(start * RANGE, weight * math.exp(GAIN * distance)))

    return adapt
