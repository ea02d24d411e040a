"""The Brownian path of a solve: our own, which its seed alone decides, or torchsde's."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torchsde
from torch import Tensor

RESOLUTION = 40
"""Times along a path are rounded to 2^-40 of its length."""
NODES = 64
"""So many nodes of its tree are kept, an increment and an area each; others are made again when they are needed."""
WINDOW = 3 / 4, 4 / 3
"""How much shorter or longer than proposed a step may be, in order to end where the path is cheap."""


class BrownianPath:
    """A Brownian path on [t0, t1] that its seed decides: the same to the bit whatever is asked, in whatever order.

    It answers as torchsde's paths do, and serves there as `bm=` as well. Inside, it is a binary tree: a node holds the
    increment W and the area H = U / h - W / 2 of an interval of length h, which are independent and normal with
    variances h and h / 12; its halves follow from it and two normal draws, seeded with the path's seed and the node's
    number. An interval is the sum of the nodes that fill it: a few where its ends are coarse binary fractions of the
    path, up to 80 elsewhere. Only the last NODES nodes are kept, whatever is asked.

    Args:
        t0, t1: where the path begins and ends; every interval asked lies between.
        size: shape of the state, (batch, ...); each component has a Brownian motion of its own.
        dtype: float32 or float64; None: torch's default. Draws are float32 in both: the same path but for rounding.
        device: where the path is drawn and its answers lie.
        seed: a whole number >= 0, as large as you like; None: drawn from torch's global generator.
        dt: length of equal pieces, the last one perhaps cut, that the path consists of, each with a tree: steps that
            end where pieces do cost one node each, but each piece of a long interval costs one, too. None: one piece.

    Raises:
        ValueError: for arguments that cannot be.

    A seed fixes the path for given t0, t1, size, dt and kind of device: another interval, even a part of this one, or
    another batch has another path.

    Source: Foster, Lyons, Oberhauser 2020 (polynomial expansion of Brownian motion), for W and H; the tree is that of
    Kidger et al. 2021, Efficient and accurate gradients for neural SDEs, with fixed middles.
    """

    levy_area_approximation = "space-time"

    def __init__(
        self,
        t0: float,
        t1: float,
        size: Sequence[int],
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
        seed: int | None = None,
        dt: float | None = None,
    ) -> None:
        t0, t1, self.dtype, self.shape = float(t0), float(t1), dtype or torch.get_default_dtype(), tuple(size)
        if not 0 < t1 - t0 < math.inf:
            raise ValueError(f"a path needs finite times t0 < t1, found [{t0}, {t1}]")
        if self.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"dtype must be float32 or float64, found {self.dtype}")
        self.interval, self.piece = (t0, t1), t1 - t0 if dt is None else float(dt)
        if not (t1 - t0) * 2.0**-RESOLUTION <= self.piece <= t1 - t0:
            raise ValueError(f"dt must lie between 2^-{RESOLUTION} of the path's length and all of it, found {dt}")
        self.device = torch.empty(0, device=device).device  # with its number
        self.seed = int(torch.randint(2**62, (), device="cpu")) if seed is None else _whole(seed)
        self._key = int(np.random.SeedSequence(self.seed).generate_state(1, np.uint64)[0])
        self._pieces = math.ceil((t1 - t0) / self.piece - 1e-9)
        self._levels = RESOLUTION - (self._pieces - 1).bit_length()
        self._unit = self.piece / (1 << self._levels)  # what times are multiples of
        self._nodes: dict[int, tuple[Tensor, Tensor]] = {}  # from the one used longest ago

    def __repr__(self) -> str:
        return f"BrownianPath({self.interval}, {self.shape}, {self.dtype}, {self.device}, seed={self.seed})"

    def __call__(self, ta: Any, tb: Any = None, return_U: bool = False, return_A: bool = False) -> Any:
        """Return W(tb) - W(ta), (batch, ...); with return_U also the integral of W(s) - W(ta) from ta to tb.

        With tb None the interval is [t0, ta]. With tb < ta both are those of the way back.

        Raises:
            ValueError: a time outside of the path; return_A, since a path knows no area between two components.
        """
        if return_A:
            raise ValueError("a BrownianPath knows no Levy area between components (return_A): use BrownianInterval")
        ta, tb = (self.interval[0], float(ta)) if tb is None else (float(ta), float(tb))
        if not (self.interval[0] <= min(ta, tb) and max(ta, tb) <= self.interval[1]):
            raise ValueError(f"the path is defined on {list(self.interval)}, asked was [{ta}, {tb}]")
        if tb < ta:
            w, u = self(tb, ta, return_U=True)
            return (-w, (ta - tb) * w - u) if return_U else -w
        w, u = self._sum(self._ticks(ta), self._ticks(tb))
        return (w, u) if return_U else w

    def _ticks(self, t: float) -> int:
        return round((t - self.interval[0]) / self._unit)

    def _sum(self, a: int, b: int) -> tuple[Tensor, Tensor]:
        """Return increment and integral between two ticks: the sums over the largest nodes that fill the interval."""
        w = u = None
        while a < b:
            bits = min(self._levels, (b - a).bit_length() - 1, (a & -a).bit_length() - 1 if a else self._levels)
            part, area = self._node((self._pieces << self._levels - bits) + (a >> bits))
            a += 1 << bits
            h = self._unit * (1 << bits)
            of_w, of_area = h / 2 + self._unit * (b - a), h * 2 / 3**0.5  # W counts from the node's middle on
            if w is None or u is None:
                w, u = part.clone(), (part * of_w).add_(area, alpha=of_area)
            else:
                w.add_(part)
                u.add_(part, alpha=of_w).add_(area, alpha=of_area)
        if w is None or u is None:
            w, u = torch.zeros((2, *self.shape), dtype=self.dtype, device=self.device).unbind()
        return w, u

    def _node(self, number: int) -> tuple[Tensor, Tensor]:
        """Return W and A of a node; the halves of n are 2 n and 2 n + 1, the pieces from number of pieces on."""
        node = self._nodes.pop(number, None)
        if node is None and number < 2 * self._pieces:
            w, area = self._normal(number, self.piece**0.5)
            node = w, area.mul_(0.25)
        elif node is None:
            left, right = self._halves(number >> 1)
            node, self._nodes[number ^ 1] = (right, left) if number % 2 else (left, right)
        self._nodes[number] = node
        while len(self._nodes) > NODES:
            del self._nodes[next(iter(self._nodes))]
        return node

    def _halves(self, number: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Return the halves of a node; the right one takes its place in memory.

        With D = sqrt(3) A + X_1: W_left = W / 2 + D, A_left = A - sqrt(3) / 4 D + X_2 / 2, W_right = W / 2 - D,
        A_right = A - sqrt(3) / 4 D - X_2 / 2, where the draws X_1, X_2 have the variance h / 16.
        """
        w, area = self._node(number)
        del self._nodes[number]
        level = (number // self._pieces).bit_length() - 1
        x1, x2 = self._normal(2 * number, (self.piece * 2.0 ** -(level + 4)) ** 0.5)
        x1.add_(area, alpha=3**0.5)
        area.sub_(x1, alpha=3**0.5 / 4).sub_(x2, alpha=0.5)
        x2.add_(area)
        x1.add_(w, alpha=0.5)
        w.sub_(x1)
        return (x1, x2), (w, area)

    def _normal(self, number: int, scale: float) -> tuple[Tensor, ...]:
        """Return two normal draws of a node with a standard deviation, each (batch, ...)."""
        if torch.is_inference_mode_enabled():  # what is made there could not be changed elsewhere
            with torch.inference_mode(False):
                return self._normal(number, scale)
        generator = torch.Generator(self.device).manual_seed(_mixed(self._key + number))
        x = torch.empty((2, *self.shape), dtype=torch.float32, device=self.device)
        return x.normal_(0.0, scale, generator=generator).to(self.dtype).unbind()

    def coarse_step(self, t: float, dt: float, t1: float, *, again: bool = False) -> float:
        """Return a step from t of about dt (see WINDOW) that ends where the path is cheap: at the coarsest fraction.

        Args:
            t: where the step starts.
            dt: its proposed size, positive.
            t1: where the solve ends; the step does not go further, and goes there where it may.
            again: a step from t was rejected: take none that is longer than dt.
        """
        low, high = (t + share * dt for share in (WINDOW[0], 1.0 if again else WINDOW[1]))
        if high >= t1:
            return t1 - t
        a, b = self._ticks(low), self._ticks(high)
        if a >= b:
            return dt
        bits = (a ^ b).bit_length() - 1
        return self.interval[0] + (b >> bits << bits) * self._unit - t


def _mixed(z: int) -> int:
    """Return the 64 bits of a number, mixed: SplitMix64 (Steele, Lea, Flood 2014). CPUs seed with the lower 32."""
    z = z * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    z = (z ^ z >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return z ^ z >> 31


Path = BrownianPath | torchsde.BrownianInterval


def covered(bm: Path) -> tuple[float, float]:
    """Return where a path begins and ends."""
    return bm.interval if isinstance(bm, BrownianPath) else (bm._start, bm._end)


def finest(bm: Path) -> float:
    """Return the shortest step that a path resolves."""
    start, end = covered(bm)
    return (end - start) * 2.0 ** -(RESOLUTION if isinstance(bm, BrownianPath) else 52)


def increment(bm: Path, ta: float, tb: float, *, return_U: bool = False) -> Any:
    """Ask a path between two times, of which rounding may have moved one a little over its ends."""
    start, end = covered(bm)
    return bm(min(max(ta, start), end), min(max(tb, start), end), return_U=return_U)


def brownian_path(bm: Path | None, y0: Tensor, t: Tensor, seed: int | None, dt: float | None = None) -> Path:
    """Return the Brownian path of a solve: bm where it fits, else one that the seed decides, else any, laid out for dt.

    Raises:
        ValueError: bm has another shape, dtype or device than y0, does not cover t, or knows no space-time Levy area;
            both are given; a seed that is no whole number >= 0.
    """
    t0, t1 = float(t[0]), float(t[-1])
    if bm is None:
        dt = None if dt is None or seed is not None else min(dt, t1 - t0)
        return BrownianPath(t0, t1, y0.shape, dtype=y0.dtype, device=y0.device, seed=seed, dt=dt)
    if seed is not None:
        raise ValueError("bm and seed are both given, but a path has its own seed: leave one out")
    if not isinstance(bm, Path):
        raise ValueError(f"bm must be a BrownianPath or a torchsde.BrownianInterval, found {type(bm).__name__}")
    wanted, found = ((tuple(x.shape), x.dtype, torch.empty(0, device=x.device).device) for x in (y0, bm))
    if wanted != found:
        raise ValueError(
            "bm must have the shape, dtype and device of y0, one Brownian motion for each component of the state: "
            f"expected {' '.join(map(str, wanted))} (those of y0), found {' '.join(map(str, found))} (those of bm)"
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
