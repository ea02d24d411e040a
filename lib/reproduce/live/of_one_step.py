"""Element: one Runge-Kutta step of any size against the true curve, and its error against its estimate (lesson 01)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from regnde import Field, Step, Tableau, rk_step, solve_ode
from reproduce.live.colors import MUTED, TRUTH
from reproduce.live.element import Element
from reproduce.live.parts import Axis, Control, Index, Panel, Series, around, each

METHODS = ("euler", "midpoint", "bosh3", "tsit5")


def logistic(t: Tensor, y: Tensor) -> Tensor:
    """The pond of lesson 01: dy/dt = y (1 - y), of any shape."""
    return y * (1 - y)


def one_step(
    f: Field = logistic,
    y0: float = 0.3,
    *,
    t0: float = 0.0,
    sizes: Sequence[float] = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0),
    methods: Sequence[str] = METHODS,
) -> Element:
    """Return the element of one step: choose method and size, see its stages, its error and its estimate.

    Args:
        f: field of one state, called as f(t, y) with y of shape (1,), double precision.
        y0: the state at t0.
        t0: where the step starts.
        sizes: of the step, positive, in units of time, in rising order.
        methods: names that `solve_ode` knows: 'euler', 'midpoint', 'rk4', 'bosh3', 'dopri5', 'tsit5'.

    Raises:
        ValueError: sizes that are not positive and rising; an unknown method.

    The true curve is tsit5's at a tolerance of 1e-11.
    """
    if len(sizes) < 2 or not all(a < b for a, b in zip((0.0, *sizes), sizes, strict=False)):
        raise ValueError(f"sizes: expected at least two positive sizes in rising order, found {list(sizes)}")
    state = torch.tensor([y0], dtype=torch.float64)
    t = torch.linspace(t0, t0 + 1.02 * sizes[-1], 120, dtype=torch.float64)
    after = torch.tensor([t0, *(t0 + h for h in sizes)], dtype=torch.float64)
    with torch.no_grad():
        curve, ends = (solve_ode(f, state, at, rtol=1e-11, atol=1e-11).y[:, 0] for at in (t, after))
        steps = {name: _steps(f, state, t0, sizes, name) for name in methods}
    start = len(methods) - 1 if "bosh3" not in methods else list(methods).index("bosh3")
    controls = (
        Control("method", "method", tuple(methods), start, "menu"),
        Control("size", "size of the step", tuple(f"{h:g}" for h in sizes), len(sizes) // 2),
    )
    chosen = each(lambda i, k: (steps[methods[i]][k], float(ends[k + 1])), len(methods), len(sizes))
    return Element(
        "One step, and what it knows of its error",
        controls,
        (_curve_panel(chosen, t, curve), _error_panel(chosen, sizes, methods)),
        {index: _words(*found) for index, found in chosen.items()},
        "The grey curve is the true solution; only the marks are what the method has seen.",
        "Left: state over time, the true curve in grey, one step as a straight line with its stages as marks with "
        "their slopes. Right: true error and estimate against the size of the step, both logarithmic. Shown: "
        f"{_words(*chosen[start, len(sizes) // 2])}",
    )


def _steps(f: Field, y: Tensor, t0: float, sizes: Sequence[float], method: str) -> list[Step]:
    return [rk_step(f, t0, y, h, _tableau(f, y, t0, method)) for h in sizes]


def _tableau(f: Field, y: Tensor, t0: float, method: str) -> Tableau:
    """Return the coefficients of a method, as a solve with it tells them."""
    ends = torch.tensor([t0, t0 + 1.0], dtype=torch.float64)
    solved = solve_ode(f, y, ends, rtol=1.0, atol=1.0, method=method, step_sizes=[1.0])
    tableau = solved.tableau
    if not isinstance(tableau, Tableau):
        raise ValueError(f"methods: expected one whose step starts from a state alone, found {method!r}")
    return tableau


def _stages(step: Step) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return times, states and slopes of a step's stages, each (stages,)."""
    rows = ((), *step.tableau.a) if isinstance(step.tableau, Tableau) else ()
    k = [stage.item() for stage in step.k]
    states = [step.y.item() + step.dt * sum(w * k[j] for j, w in enumerate(row)) for row in rows]
    times = [step.t + c * step.dt for c in step.tableau.c] if isinstance(step.tableau, Tableau) else []
    return np.array(times), np.array(states), np.array(k)


def _curve_panel(chosen: dict[Index, tuple[Step, float]], t: Tensor, curve: Tensor) -> Panel:
    reach = 0.03 * float(t[-1] - t[0])
    frames: dict[Index, tuple[Series, ...]] = {}
    seen = [curve.numpy()]
    for index, (step, _) in chosen.items():
        at, states, k = _stages(step)
        away, end = np.array([-reach, reach, np.nan]), step.t + step.dt  # from each stage to both ends of its bar
        bar_t, bar_y = at[:, None] + away, states[:, None] + away * k[:, None]  # (stages, 3)
        frames[index] = (
            Series("line", [step.t, end], [step.y.item(), step.y1.item()], MUTED[0], "the step", width=2.5),
            Series("line", bar_t.ravel(), bar_y.ravel(), MUTED[1], "slope of a stage", width=3),
            Series("dots", at, states, MUTED[1], width=7),
            Series("squares", [step.t, end], [step.y.item(), step.y1.item()], MUTED[0], width=8),
        )
        seen += [states, np.array([step.y1.item()])]
    truth = Series("line", t, curve, TRUTH, "true curve", width=4)
    time, state = Axis("time t", *around(t.numpy())), Axis("state y", *around(np.concatenate(seen)))
    return Panel(time, state, "The step", (truth,), ("method", "size"), frames)


def _error_panel(chosen: dict[Index, tuple[Step, float]], sizes: Sequence[float], methods: Sequence[str]) -> Panel:
    shape = len(methods), len(sizes)
    true = np.array([_error(*found) for found in chosen.values()]).reshape(shape)
    told = np.array([_estimate(step) for step, _ in chosen.values()]).reshape(shape)
    frames = each(
        lambda i, k: (
            Series("line", sizes, true[i], MUTED[0], "true error"),
            Series("line", sizes, told[i], MUTED[1], "estimate", "7 3"),
            Series("squares", [sizes[k]], [true[i, k]], MUTED[0], width=8),
            Series("dots", [sizes[k]], [told[i, k]], MUTED[1], width=9),
        ),
        *shape,
    )
    low, high = around([true, told], log=True)
    x, y = Axis("size of the step", *around(sizes, log=True), log=True), Axis("error", max(low, 1e-12), high, log=True)
    return Panel(x, y, "Error and estimate", (), ("method", "size"), frames)


def _error(step: Step, truth: float) -> float:
    return abs(step.y1.item() - truth)


def _estimate(step: Step) -> float:
    """Return the size of a step's own error estimate; NaN of a method without one."""
    has = isinstance(step.tableau, Tableau) and step.tableau.estimates
    return abs(step.error.item()) if has else float("nan")


def _words(step: Step, truth: float) -> str:
    told, error = _estimate(step), _error(step, truth)
    known = "it has no estimate" if np.isnan(told) else f"its own estimate is {told:.1e}"
    return (
        f"{step.tableau.name}, size {step.dt:g}: {len(step.k)} slopes; it ends at {step.y1.item():.4f}, the truth is "
        f"{truth:.4f}. True error {error:.1e}; {known}."
    )
