"""The Brownian path of a solve: the caller's own, or one that its seed alone decides."""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
import torchsde
from torch import Tensor

PIECES = 32
"""A quick path expects about so many steps; it answers any number of them."""
RESOLUTION = 2.0**-40
"""Times along a seeded path are rounded to this fraction of its length."""


def _like(y0: Tensor, seed: int) -> dict[str, Any]:
    kind = {"size": tuple(y0.shape), "dtype": y0.dtype, "device": y0.device}
    return {**kind, "entropy": seed, "levy_area_approximation": "space-time"}


class SeededPath(torchsde.BrownianInterval):
    """A Brownian path on [t0, t1] that its seed decides: the same to the bit whatever is asked, in whatever order.

    torchsde's interval splits its tree where it is asked, and what it answers depends on that; with `halfway_tree` it
    splits in the middle. Inside, time runs from 0 to 1, where the middles are exact. A question costs one node of the
    tree (two normal draws) for each binary digit of its ends: few where `shorten` chose the end, up to 40 elsewhere.
    """

    def __init__(self, y0: Tensor, t0: float, t1: float, seed: int) -> None:
        fine = 1e-60  # finer than any time here: what rounds is `_unit`
        super().__init__(t0=0.0, t1=1.0, halfway_tree=True, tol=fine, **_like(y0, seed))
        self.interval = t0, t1

    def _unit(self, t: float) -> float:
        t0, t1 = self.interval
        return min(1.0, max(0.0, round((float(t) - t0) / (t1 - t0) / RESOLUTION) * RESOLUTION))

    def __call__(self, ta: float, tb: float | None = None, return_U: bool = False, return_A: bool = False) -> Any:
        """Return W(tb) - W(ta), (batch, ...); with return_U also the integral of W - W(ta) (see torchsde)."""
        t0, t1 = self.interval
        ta, tb = (t0, ta) if tb is None else (ta, tb)
        w, u = super().__call__(self._unit(ta), self._unit(tb), return_U=True)
        found = (w * (t1 - t0) ** 0.5, *([u * (t1 - t0) ** 1.5] * return_U), *([None] * return_A))
        return found if len(found) > 1 else found[0]

    def shorten(self, t: float, dt: float) -> float:
        """Return a step of at least 7/8 of dt from t that ends where the path is cheap: on a coarse binary fraction."""
        t0, t1 = self.interval
        cell = 2.0 ** (math.frexp(dt / (t1 - t0))[1] - 4)  # at most an eighth of the step
        end = math.floor(self._unit(t + dt) / cell) * cell
        return t0 + end * (t1 - t0) - t if cell > RESOLUTION else dt


def covered(bm: torchsde.BrownianInterval) -> tuple[float, float]:
    """Return where a path begins and ends."""
    return bm.interval if isinstance(bm, SeededPath) else (bm._start, bm._end)


def finest(bm: torchsde.BrownianInterval) -> float:
    """Return the shortest step that a path resolves."""
    start, end = covered(bm)
    return (end - start) * (RESOLUTION if isinstance(bm, SeededPath) else 2.0**-52)


def increment(bm: torchsde.BrownianInterval, ta: float, tb: float, *, return_U: bool = False) -> Any:
    """Ask a path between two times, of which rounding may have moved one a little over its ends."""
    start, end = covered(bm)
    return bm(min(max(ta, start), end), min(max(tb, start), end), return_U=return_U)


def quick_path(y0: Tensor, t: Tensor, seed: int) -> torchsde.BrownianInterval:
    """Return torchsde's usual path: quicker than a SeededPath, but its values depend on the steps that were taken."""
    t0, t1 = float(t[0]), float(t[-1])
    return torchsde.BrownianInterval(t0=t0, t1=t1, dt=(t1 - t0) / PIECES, **_like(y0, seed))


def brownian_path(
    bm: torchsde.BrownianInterval | None, y0: Tensor, t: Tensor, seed: int | None
) -> torchsde.BrownianInterval:
    """Return the Brownian path of a solve: bm where it fits, else one that the seed decides, else any.

    Raises:
        ValueError: bm has another shape than y0, does not cover t, or knows no space-time Levy area; both are given; a
            seed that is no whole number >= 0.
    """
    t0, t1 = float(t[0]), float(t[-1])
    if bm is None and seed is None:
        return quick_path(y0, t, int(torch.randint(2**62, ())))
    if bm is None:
        return SeededPath(y0, t0, t1, _whole(seed))
    if seed is not None:
        raise ValueError("bm and seed are both given, but a BrownianInterval has its own seed: leave one out")
    if not isinstance(bm, torchsde.BrownianInterval):
        raise ValueError(f"bm must be a torchsde.BrownianInterval, found {type(bm).__name__}")
    if tuple(bm.shape) != tuple(y0.shape) or bm.dtype != y0.dtype:
        raise ValueError(
            f"bm must have the shape and dtype of y0, one Brownian motion for each component of the state: expected "
            f"{tuple(y0.shape)} {y0.dtype} (those of y0), found {tuple(bm.shape)} {bm.dtype} (those of bm)"
        )
    if bm.levy_area_approximation == "none":
        raise ValueError("bm must know its integral: make it with levy_area_approximation='space-time'")
    (start, end), rounding = covered(bm), 4 * math.ulp(max(abs(t0), abs(t1)))
    if start > t0 + rounding or end < t1 - rounding:
        raise ValueError(f"bm must cover the times [{t0}, {t1}], but it is defined on [{start}, {end}]")
    return bm


def _whole(seed: Any) -> int:
    try:
        whole = operator.index(seed)  # of int, NumPy's integers, tensor(3)
    except TypeError:
        whole = -1
    if whole < 0:
        raise ValueError(f"seed must be a whole number >= 0, found {seed!r}")
    return whole
