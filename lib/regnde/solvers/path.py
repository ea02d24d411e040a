"""The Brownian path of a solve: our own, which its seed alone decides, or torchsde's."""

from __future__ import annotations

import math
import operator
from hashlib import blake2b
from typing import Any, TypeAlias

import torch
import torchsde
from torch import Tensor

LEVELS = 40
"""Times along a path are rounded to 2^-40 of its length."""
NODES = 64
"""So many nodes of a tree are kept; others are made again when they are needed."""
WINDOW = 4 / 5, 5 / 4
"""How much shorter or longer than proposed a step may be, so that it ends where the path is cheap."""
Node = tuple[Tensor, Tensor]


class BrownianPath:
    """A Brownian path on [t0, t1] that its seed decides: the same to the bit whatever is asked, in whatever order.

    It answers as torchsde's paths do, and serves there as `bm=`. Inside, it is a binary tree: a node holds increment W
    and area H = U / h - W / 2 of an interval of length h, independent normals of variances h and h / 12; its halves
    follow from it and two draws, seeded with the path's seed and the node's number. What is asked is the sum of nodes:
    few where times are coarse binary fractions of the path, up to 80 elsewhere. The last NODES are kept.

    Args:
        y0: a state, (batch, ...), float32 or float64: the path has its shape, dtype and device.
        t0, t1: where the path begins and ends.
        seed: a whole number >= 0, of any size; None: drawn from torch's global generator.
        dt: length of equal pieces, each with a tree: steps that end where pieces do cost one node, but so does each
            piece of a long interval. None: one piece.

    Raises:
        ValueError: for arguments that cannot be.

    A seed fixes the path for given t0, t1, dt, shape of y0 and kind of device; another interval, even a part of this
    one, or another batch has another path. Draws are float32: the paths of both dtypes are the same but for rounding.

    Source: Foster, Lyons, Oberhauser 2020, An optimal polynomial approximation of Brownian motion, for W and H; Kidger
    et al. 2021, Efficient and accurate gradients for neural SDEs, for the tree, which here is split in the middle.
    """

    levy_area_approximation = "space-time"

    def __init__(self, y0: Tensor, t0: float, t1: float, *, seed: int | None = None, dt: float | None = None) -> None:
        self.shape, self.dtype, self.device = tuple(y0.shape), y0.dtype, y0.device
        self.interval = float(t0), float(t1)
        length = self.interval[1] - self.interval[0]
        self.piece = length if dt is None else min(float(dt), length)
        for fits, wanted, found in (
            (y0.dtype in (torch.float32, torch.float64), "a path is float32 or float64", f"y0 of {y0.dtype}"),
            (0 < length < math.inf, "a path needs finite times t0 < t1", self.interval),
            (self.piece >= length * 2.0**-LEVELS, f"dt must be at least 2^-{LEVELS} of the path's length", dt),
        ):
            if not fits:
                raise ValueError(f"{wanted}, found {found}")
        self.seed = int(torch.randint(2**62, (), device="cpu")) if seed is None else _whole(seed)
        self._pieces = math.ceil(length / self.piece)
        self._levels = LEVELS - (self._pieces - 1).bit_length()
        self.finest = self.piece / (1 << self._levels)
        self._nodes: dict[int, Node] = {}  # first the one used longest ago

    def __call__(self, ta: Any, tb: Any = None, return_U: bool = False, return_A: bool = False) -> Any:
        """Return W(tb) - W(ta), (batch, ...); with return_U also the integral of W(s) - W(ta) from ta to tb.

        Without tb the interval is [t0, ta]; tb < ta goes back in time.

        Raises:
            ValueError: a time outside of the path; return_A, the area between components, which no path here knows.
        """
        if return_A:
            raise ValueError("a BrownianPath knows no Levy area between components (return_A): use BrownianInterval")
        t0, t1 = self.interval
        ta, tb = (t0, float(ta)) if tb is None else (float(ta), float(tb))
        if not (t0 <= ta <= t1 and t0 <= tb <= t1):
            raise ValueError(f"the path is defined on [{t0}, {t1}], asked was [{ta}, {tb}]")
        a, b = (round((t - t0) / self.finest) for t in ((ta, tb) if ta < tb else (tb, ta)))
        w, u = torch.zeros((2, *self.shape), dtype=self.dtype, device=self.device).unbind()
        while a < b:  # the largest nodes that fill the interval
            bits = min(self._levels, (b - a).bit_length() - 1, (a & -a).bit_length() - 1 if a else self._levels)
            part, area = self._node((self._pieces << self._levels - bits) + (a >> bits))
            a += 1 << bits
            h, rest = self.finest * (1 << bits), self.finest * (b - a)
            w.add_(part)
            u.add_(part, alpha=h / 2 + rest).add_(area, alpha=h * (4 / 3) ** 0.5)
        w, u = (w, u) if ta <= tb else (-w, (ta - tb) * w - u)
        return (w, u) if return_U else w

    def _node(self, number: int) -> Node:
        """Return a node. The pieces are numbered from their number on, the halves of n are 2 n and 2 n + 1."""
        node = self._nodes.pop(number, None)
        if node is None and number < 2 * self._pieces:
            w, area = self._draw(number, self.piece)
            node = w, area.mul_(0.25)
        elif node is None:
            left, right = self._halves(number >> 1)
            node, self._nodes[number ^ 1] = (right, left) if number % 2 else (left, right)
        self._nodes[number] = node
        while len(self._nodes) > NODES:
            del self._nodes[next(iter(self._nodes))]
        return node

    def _halves(self, number: int) -> tuple[Node, Node]:
        """Return the halves of a node, of which the right one takes its memory; A = sqrt(3/4) H.

        W_l,r = W / 2 +- D, A_l,r = A - sqrt(3) / 4 D +- X_2 / 2, D = sqrt(3) A + X_1; X_1 and X_2 have variance h / 16.
        """
        w, area = self._node(number)
        del self._nodes[number]
        x1, x2 = self._draw(2 * number, self.piece * 2.0 ** -(3 + (number // self._pieces).bit_length()))
        x1.add_(area, alpha=3**0.5)
        area.sub_(x1, alpha=3**0.5 / 4).sub_(x2, alpha=0.5)
        x2.add_(area)
        x1.add_(w, alpha=0.5)
        w.sub_(x1)
        return (x1, x2), (w, area)

    def _draw(self, number: int, variance: float) -> Node:
        """Return two normal draws of their own for each number."""
        if torch.is_inference_mode_enabled():  # what is made in it could not be changed elsewhere
            with torch.inference_mode(False):
                return self._draw(number, variance)
        seed = int.from_bytes(blake2b(b"%d/%d" % (self.seed, number), digest_size=8).digest(), "big")
        generator, x = (
            torch.Generator(self.device),
            torch.empty((2, *self.shape), dtype=torch.float32, device=self.device),
        )
        x1, x2 = x.normal_(0.0, variance**0.5, generator=generator.manual_seed(seed)).to(self.dtype).unbind()
        return x1, x2

    def coarse_step(self, t: float, dt: float, t1: float, *, again: bool = False) -> float:
        """Return a step from t of about dt, within WINDOW, that ends at the coarsest fraction there, or at t1.

        Where a step from t was rejected (`again`), the next one is not longer than dt.
        """
        low, high = t + WINDOW[0] * dt, t + (1.0 if again else WINDOW[1]) * dt
        if high >= t1:
            return t1 - t
        a, b = (math.floor((x - self.interval[0]) / self.finest) for x in (low, high))
        cell = (a ^ b).bit_length() - 1  # the coarsest fraction in (a, b] has all bits below this one zero
        return dt if a == b else self.interval[0] + (b >> cell << cell) * self.finest - t


def covered(bm: Path) -> tuple[float, float]:
    """Return where a path begins and ends."""
    return bm.interval if isinstance(bm, BrownianPath) else (bm._start, bm._end)


def finest(bm: Path) -> float:
    """Return the shortest step that a path resolves."""
    return bm.finest if isinstance(bm, BrownianPath) else (bm._end - bm._start) * 2.0**-52


def increment(bm: Path, ta: float, tb: float, *, return_U: bool = False) -> Any:
    """Ask a path between two times, of which rounding may have moved one a little over its ends."""
    start, end = covered(bm)
    return bm(min(max(ta, start), end), min(max(tb, start), end), return_U=return_U)


def brownian_path(bm: Path | None, y0: Tensor, t: Tensor, seed: int | None, dt: float | None = None) -> Path:
    """Return the Brownian path of a solve: bm where it fits, else one that the seed decides, else any, in pieces of dt.

    Raises:
        ValueError: bm has another shape, dtype or device than y0, does not cover t, or knows no space-time Levy area;
            both are given; a seed that is no whole number >= 0.
    """
    t0, t1 = float(t[0]), float(t[-1])
    if bm is None:
        return BrownianPath(y0, t0, t1, seed=seed, dt=dt if seed is None else None)
    if seed is not None:
        raise ValueError("bm and seed are both given, but a path has its own seed: leave one out")
    if not isinstance(bm, (BrownianPath, torchsde.BrownianInterval)):
        raise ValueError(f"bm must be a BrownianPath or a torchsde.BrownianInterval, found {type(bm).__name__}")
    wanted, found = (f"{tuple(x.shape)} {x.dtype} {torch.empty(0, device=x.device).device}" for x in (y0, bm))
    if wanted != found:
        raise ValueError(f"bm must have the shape, dtype and device of y0: expected {wanted}, found {found}")
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


Path: TypeAlias = BrownianPath | torchsde.BrownianInterval
