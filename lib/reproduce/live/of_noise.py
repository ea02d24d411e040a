"""Elements of equations with noise: a rejected step, and trajectories with their mean and spread (lesson 08)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from regnde import CONTROLLERS, BrownianPath, Solution, solve_sde
from reproduce.data.spiral import Y0, cubic_field
from reproduce.live.colors import DASHES, MUTED, TRUTH
from reproduce.live.element import Element
from reproduce.live.parts import Axis, Control, Index, Panel, Series, around, band, each

GROWTH, NOISE = 1.5, 0.8
"""Drift and diffusion of the geometric Brownian motion of lesson 08."""
Drift = Callable[[Any, Tensor], Tensor]
KEPT, ANEW = "path kept", "noise drawn anew"


class _Asked(BrownianPath):
    """A path that notes what it was asked: start, end and increment of each attempt."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.asked: list[tuple[float, float, float]] = []

    def __call__(self, ta: Any, tb: Any = None, return_U: bool = False, return_A: bool = False) -> Any:
        w, u = self._answer(float(ta), float(tb))
        self.asked.append((float(ta), float(tb), float(w)))
        return (w, u) if return_U else w

    def _answer(self, ta: float, tb: float) -> tuple[Tensor, Tensor]:
        w, u = super().__call__(ta, tb, return_U=True)
        return w, u


class _Forgetful(_Asked):
    """A wrong path: each question gets new noise, also the one after a rejection."""

    def __init__(self, *args: Any, seed: int, **more: Any) -> None:
        super().__init__(*args, seed=seed, **more)
        self.rng = torch.Generator().manual_seed(seed)

    def _answer(self, ta: float, tb: float) -> tuple[Tensor, Tensor]:
        h = tb - ta
        first, second = torch.randn(2, 1, 1, generator=self.rng, dtype=torch.float64)
        w = math.sqrt(h) * first
        return w, h / 2 * w + math.sqrt(h**3 / 12) * second


def solve_noisy(kind: type[_Asked], seed: int, *, tolerance: float) -> tuple[Solution, _Asked]:
    """Solve geometric Brownian motion once, from y(0) = 1 to t = 1, with a controller that asks for too much."""
    y0 = torch.ones(1, 1, dtype=torch.float64)
    bm, ends = kind(y0, 0.0, 1.0, seed=seed), torch.tensor([0.0, 1.0], dtype=torch.float64)
    eager = replace(CONTROLLERS["integral"], safety=0.95)
    with torch.no_grad():
        solved = solve_sde(lambda t, y: GROWTH * y, lambda t, y: NOISE * y, y0, ends, rtol=tolerance, atol=tolerance,
                           bm=bm, controller=eager, first_step=1.0)  # fmt: skip
    return solved, bm


def rejections(
    *, paths: int = 8, solves: int = 100, tolerance: float = 0.03, ends: Mapping[str, np.ndarray] | None = None
) -> Element:
    """Return the element of rejected steps of an SDE: choose a path and what happens to its noise after a rejection.

    Args:
        paths: how many may be looked at.
        solves: for the means on the right.
        tolerance: of the solve, relative and absolute.
        ends: end states of solves that were done already, (solves,), by 'path kept' and 'noise drawn anew'; None: they
            are made here, which takes some seconds.

    Raises:
        ValueError: fewer than one path or two solves; ends of other kinds.
    """
    kinds = {KEPT: _Asked, ANEW: _Forgetful}
    if paths < 1 or solves < 2 or (ends is not None and set(ends) != set(kinds)):
        raise ValueError(f"expected paths >= 1, solves >= 2 and ends by {list(kinds)}, found {paths}, {solves}, {ends}")
    if ends is None:
        ends = {name: np.array([solve_noisy(kind, 10_000 + seed, tolerance=tolerance)[0].y[-1].item()
                                for seed in range(solves)]) for name, kind in kinds.items()}  # fmt: skip
    names = list(kinds)
    runs = each(lambda i, k: solve_noisy(kinds[names[i]], k, tolerance=tolerance), len(names), paths)
    most = max(range(paths), key=lambda k: runs[0, k][0].trace.rejected)
    texts = each(lambda i, k: _attempt_words(names[i], *runs[i, k]), len(names), paths)
    told = ", ".join(f"{name} {np.mean(y):.2f}" for name, y in ends.items())
    return Element(
        "After a rejected step",
        (
            Control("noise", "after a rejection", tuple(names), 0, "menu"),
            Control("path", "path", tuple(str(k + 1) for k in range(paths)), most),
        ),
        (_path_panel(runs, names), _mean_panel(ends)),
        texts,
        "Crosses: where a rejected attempt would have gone. On the right the mean of the end state, which should be "
        f"{math.exp(GROWTH):.2f}, with a band of two standard errors.",
        "Left: the noise W over time, the true path in grey where there is one, squares where steps end, crosses at "
        "rejected attempts. Right: mean end state over a growing number of solves with bands, and the true mean, "
        f"{math.exp(GROWTH):.2f}. After {len(next(iter(ends.values())))} solves: {told}. Shown: {texts[0, most]}",
    )


def _attempt_words(name: str, solved: Solution, bm: _Asked) -> str:
    trace = solved.trace
    return (
        f"{name[0].upper()}{name[1:]}: {trace.accepted} steps accepted, {trace.rejected} rejected, y(1) = "
        f"{solved.y[-1].item():.2f}. "
        + ("Each shorter step goes through the same path." if name == KEPT
           else "The refused noise is lost: the shorter step gets another.")
    )  # fmt: skip


def _attempts(bm: _Asked) -> tuple[np.ndarray, np.ndarray]:
    """Return the nodes of the path that was taken, and the ends of rejected attempts, each (points, 2): t and W."""
    found, lost, w = [(0.0, 0.0)], [], 0.0
    for i, (ta, tb, dw) in enumerate(bm.asked):
        if i + 1 == len(bm.asked) or bm.asked[i + 1][0] != ta:
            w += dw
            found.append((tb, w))
        else:
            lost.append((tb, w + dw))
    return np.array(found), np.array(lost).reshape(-1, 2)


def _path_panel(runs: Mapping[Index, tuple[Solution, _Asked]], names: Sequence[str]) -> Panel:
    grid, seen = np.linspace(0, 1, 129), [np.zeros(1)]
    frames: dict[Index, tuple[Series, ...]] = {}
    for (i, k), (_, bm) in runs.items():
        taken, lost = _attempts(bm)
        truth = np.full(len(grid), np.nan)
        if names[i] == KEPT:
            truth = np.cumsum([0.0, *(float(bm._answer(a, b)[0]) for a, b in pairwise(grid))])
        frames[i, k] = (
            Series("line", grid, truth, TRUTH, "the path", width=1.5),
            Series("line", taken[:, 0], taken[:, 1], MUTED[0], "steps taken"),
            Series("squares", taken[:, 0], taken[:, 1], MUTED[0], width=6),
            Series("crosses", lost[:, 0], lost[:, 1], MUTED[3], "rejected", width=9),
        )
        seen += [truth, taken[:, 1], lost[:, 1]]
    x, y = Axis("time t", *around([0.0, 1.0])), Axis("noise W(t)", *around(np.concatenate(seen)))
    return Panel(x, y, "The noise of one solve", (), ("noise", "path"), frames)


def _mean_panel(ends: Mapping[str, np.ndarray]) -> Panel:
    stays, truth = [], math.exp(GROWTH)
    for i, (name, y) in enumerate(ends.items()):
        n = np.unique(np.geomspace(5, len(y), 40).astype(int)) if len(y) > 5 else np.array([2, len(y)])
        mean = np.array([y[:k].mean() for k in n])
        error = np.array([y[:k].std() / math.sqrt(k) for k in n])
        color = MUTED[(0, 3)[i]]
        stays += [Series("area", *band(n, mean - 2 * error, mean + 2 * error), color),
                  Series("line", n, mean, color, name, DASHES[i])]  # fmt: skip
    last = max(len(y) for y in ends.values())
    stays.append(Series("line", [0, last], [truth] * 2, TRUTH, "true mean", "2 3", 2.5))
    x, y_axis = Axis("solves", 0.0, last * 1.02), Axis("mean of y(1)", 0.0, 2.2 * truth)
    return Panel(x, y_axis, "Mean of many solves", tuple(stays))


def trajectories(
    f: Drift = cubic_field,
    y0: Sequence[float] = Y0,
    *,
    t1: float = 1.0,
    noises: Sequence[float] = (0.0, 0.05, 0.1, 0.2, 0.4),
    numbers: Sequence[int] = (10, 100, 1000),
    shown: int = 8,
    tolerance: float = 0.01,
    seed: int = 0,
) -> Element:
    """Return the element of trajectories of dy = f(t, y) dt + noise y dW: choose the noise and how many are averaged.

    Args:
        f: drift, called as f(t, y) with y of shape (trajectories, d).
        y0: initial state, (d,), d of at least two; the first two entries are drawn.
        t1: end of the time, from 0.
        noises: factors of the diffusion, at least 0; all see the same Brownian path.
        numbers: of trajectories behind mean and spread, in rising order.
        shown: how many trajectories are drawn.
        tolerance: of the solve, relative and absolute.
        seed: of the path.

    Raises:
        ValueError: a state of one entry, negative noise, or fewer trajectories than are to be drawn.
    """
    if len(y0) < 2 or min(noises) < 0 or not 1 <= shown <= numbers[0]:
        raise ValueError(
            f"expected a state of two entries or more, noise of at least 0 and at most {numbers[0]} drawn "
            f"trajectories, found y0 {tuple(y0)}, noises {tuple(noises)}, shown {shown}"
        )
    times = torch.linspace(0, t1, 31, dtype=torch.float64)
    start = torch.tensor(y0, dtype=torch.float64).expand(numbers[-1], len(y0))
    with torch.no_grad():
        y = [_solved(f, noise, start, times, tolerance, seed).numpy() for noise in noises]
    first = (len(noises) - 2 if len(noises) > 2 else len(noises) - 1, len(numbers) - 1)
    texts = each(lambda i, k: _spread_words(noises[i], y[i][:, : numbers[k]], t1), len(noises), len(numbers))
    return Element(
        "Trajectories, their mean and their spread",
        (
            Control("noise", "noise", tuple(f"{noise:g}" for noise in noises), first[0]),
            Control("number", "trajectories averaged", tuple(f"{n:,}" for n in numbers), first[1]),
        ),
        tuple(_component_panel(i, times.numpy(), y, numbers, shown) for i in range(2)),
        texts,
        f"Thin: the first {shown} trajectories. Thick: the mean; the band is two standard deviations to either side.",
        "Two components of a state over time: thin lines are trajectories, a thick one their mean, a band two standard "
        f"deviations. More noise widens the band. Shown: {texts[first]}",
    )


def _solved(f: Drift, noise: float, y0: Tensor, t: Tensor, tolerance: float, seed: int) -> Tensor:
    """Return trajectories (times, trajectories, d); the seed alone decides the Brownian path."""
    return solve_sde(f, lambda t, y: noise * y, y0, t, rtol=tolerance, atol=tolerance, seed=seed).y


def _spread_words(noise: float, y: np.ndarray, t1: float) -> str:
    told = "; ".join(f"component {i + 1} {y[-1, :, i].mean():.3f} ± {y[-1, :, i].std():.3f}" for i in range(2))
    return f"Noise {noise:g}, mean ± standard deviation of {y.shape[1]:,} trajectories at t = {t1:g}: {told}."


def _component_panel(i: int, t: np.ndarray, y: Sequence[np.ndarray], numbers: Sequence[int], shown: int) -> Panel:
    def series(j: int, k: int) -> tuple[Series, ...]:
        of = y[j][:, : numbers[k], i]
        mean, spread = of.mean(1), of.std(1)
        thin = np.pad(y[j][:, :shown, i], ((0, 1), (0, 0)), constant_values=np.nan).T  # a gap after each
        return (
            Series("area", *band(t, mean - 2 * spread, mean + 2 * spread), MUTED[1], "two deviations"),
            Series("line", np.tile(np.append(t, np.nan), shown), thin.ravel(), MUTED[7], "trajectory", width=1),
            Series("line", t, mean, MUTED[0], "mean", width=3),
        )

    reach = np.concatenate([of[:, :shown, i].ravel() for of in y])
    axis = Axis(f"component {i + 1}", *around(reach))
    return Panel(Axis("time t", *around(t)), axis, f"Component {i + 1}", (), ("noise", "number"),
                 each(series, len(y), len(numbers)))  # fmt: skip
