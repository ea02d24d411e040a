"""Element: tolerance and method against the steps that an adaptive solver takes (lesson 02)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from regnde import Field, Solution, solve_ode
from reproduce.data.spiral import load_spiral
from reproduce.live.colors import MUTED, TRUTH
from reproduce.live.element import Element
from reproduce.live.parts import Axis, Control, Panel, Series, around, each, power

TOLERANCES = tuple(10 ** (-2 - i / 2) for i in range(9))


def tolerances(
    f: Field | None = None,
    y0: Tensor | None = None,
    t: Tensor | None = None,
    *,
    methods: Sequence[str] = ("tsit5", "dopri5", "bosh3"),
    at: Sequence[float] = TOLERANCES,
) -> Element:
    """Return the element of a solve: choose method and tolerance, see the steps and what they cost.

    Args:
        f: field, called as f(t, y); None: the cubic spiral of lesson 02, with its own y0 and t.
        y0: state (d,) with d of at least two: the plane shows the first two entries.
        t: times of the output (times,).
        methods: adaptive methods of `solve_ode`.
        at: tolerances, relative and absolute, from loose to tight.

    Raises:
        ValueError: a field without y0 and t, or a state of one entry.

    Errors are against tsit5 at a thousandth of the tightest tolerance.
    """
    if f is None:
        spiral = load_spiral(n_times=801, t1=25.0)
        f, y0, t = spiral.f, spiral.y0, spiral.t
    if y0 is None or t is None or y0.ndim != 1 or len(y0) < 2:
        raise ValueError(f"expected a field with y0 of shape (2 or more,) and times t, found y0 {y0} and t {t}")
    field, state, times = f, y0.double(), t
    with torch.no_grad():
        exact = solve_ode(field, state, times, rtol=min(at) / 1e3, atol=min(at) / 1e3, max_steps=100_000).y
        runs = each(
            lambda i, k: solve_ode(field, state, times, rtol=at[k], atol=at[k], method=methods[i], max_steps=100_000),
            len(methods),
            len(at),
        )
    by = ("method", "tolerance")
    found = {index: _told(methods[index[0]], at[index[1]], run, exact) for index, run in runs.items()}
    start = (len(methods) - 1, min(2, len(at) - 1))
    return Element(
        "Tolerance and method",
        (
            Control("method", "method", tuple(methods), start[0], "menu"),
            Control("tolerance", "tolerance", tuple(power(tol) for tol in at), start[1]),
        ),
        (_plane(runs, exact, by), _sizes(runs, by)),
        found,
        "Dots: where an accepted step starts. Crosses: attempts that were rejected. Grey: the true curve.",
        "Left: the plane of two states, the true curve in grey, dots where accepted steps start. Right: size of each "
        f"attempt over time, logarithmic. Shown: {found[start]} Tighter tolerances put more dots on the same curve.",
    )


def _told(method: str, tolerance: float, run: Solution, exact: Tensor) -> str:
    trace, error = run.trace, float((run.y - exact).abs().max())
    return (
        f"{method} at {power(tolerance)}: {trace.accepted} steps accepted, {trace.rejected} rejected, {trace.nfe} "
        f"evaluations; largest true error {error:.0e}."
    )


def _plane(runs: dict[tuple[int, ...], Solution], exact: Tensor, by: tuple[str, ...]) -> Panel:
    def series(run: Solution) -> tuple[Series, ...]:
        starts = torch.stack(list(run.trace.y))[:, :2]
        return (Series("dots", starts[:, 0], starts[:, 1], MUTED[0], "start of a step", width=5),)

    inside = exact[:, :2]
    truth = Series("line", inside[:, 0], inside[:, 1], TRUTH, "true curve", width=1.5)
    x, y = (Axis(name, *around(inside[:, i], margin=0.15)) for i, name in enumerate(("first state", "second state")))
    return Panel(x, y, "In the plane", (truth,), by, {index: series(run) for index, run in runs.items()})


def _sizes(runs: dict[tuple[int, ...], Solution], by: tuple[str, ...]) -> Panel:
    def series(run: Solution) -> tuple[Series, ...]:
        trace = run.trace
        return (
            Series("dots", trace.t, trace.dt.abs(), MUTED[0], "accepted", width=5),
            Series("crosses", trace.rejected_t, trace.rejected_dt.abs(), MUTED[3], "rejected", width=7),
        )

    def every(name: str) -> np.ndarray:
        return np.concatenate([np.abs(getattr(run.trace, name).numpy()) for run in runs.values()])

    y = Axis("size of the step", *around(np.concatenate([every("dt"), every("rejected_dt")]), log=True), log=True)
    x = Axis("time t", *around(every("t")))
    return Panel(x, y, "Along time", (), by, {index: series(run) for index, run in runs.items()})
