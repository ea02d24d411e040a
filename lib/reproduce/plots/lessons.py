"""Figures of the lessons on solvers: stages of a step, solves in the plane and over time (no training, no torch)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from reproduce.plots.palette import DASHES, MARKERS, PALETTE, Look


def method_look(method: str) -> Look:
    """Return the look of a method ('tsit5', 'dopri5', 'bosh3'), the same in every figure; others share one."""
    known = ("tsit5", "dopri5", "bosh3")
    i = known.index(method) if method in known else len(known)
    return Look(PALETTE[i], MARKERS[i], DASHES[i])


def stages(step: Any, *, ax: Axes | None = None) -> Axes:
    """Draw each stage of a Step whose state has one entry: a mark at its time and state, a bar with its slope."""
    ax = ax or plt.gca()
    half = 0.12 * step.dt  # of the bar's length in time
    for i, (c, k) in enumerate(zip(step.tableau.c, step.k, strict=True)):
        weights = ((), *step.tableau.a)[i]
        y = step.y.item() + step.dt * sum(w * step.k[j].item() for j, w in enumerate(weights))
        t, slope, color = step.t + c * step.dt, k.item(), PALETTE[i % len(PALETTE)]
        ax.plot([t - half, t + half], [y - half * slope, y + half * slope], color=color, linewidth=4)
        ax.plot(t, y, color=color, marker=MARKERS[i % len(MARKERS)], markersize=8, markeredgecolor="black",
                linestyle="none", label=f"stage {i + 1}")  # fmt: skip
    ax.set(xlabel="time t", ylabel="state y")
    return ax


def state_plane(solution: Any, *, ax: Axes | None = None) -> Axes:
    """Draw a solve with two states as a curve in their plane: dots where accepted steps start, crosses at rejections.

    Args:
        solution: a Solution whose state is one vector of two entries, y (times, 2).
        ax: axes; None: the current ones.
    """
    ax = ax or plt.gca()
    trace = solution.trace
    starts = np.array([y.tolist() for y in trace.y])  # (steps, 2)
    tried = starts[np.searchsorted(trace.t, trace.rejected_t)]  # (rejected, 2): a rejected attempt starts there, too
    ax.plot(*np.array(solution.y.tolist()).T, color="0.6", linewidth=1)
    ax.plot(*starts.T, color=PALETTE[0], marker="o", markersize=4, linestyle="none", label="start of a step")
    ax.plot(*tried.T, color=PALETTE[3], marker="x", markersize=9, mew=1.8, linestyle="none", label="rejected attempt")
    ax.set(xlabel="first state", ylabel="second state", aspect="equal")
    _legend_above(ax)
    return ax


def state_and_steps(solution: Any, *, components: dict[str, int], axes: Sequence[Axes]) -> None:
    """Draw a solve in two axes above each other: states over time, and the sizes of the steps.

    Args:
        solution: a Solution whose state is one vector, y (times, d).
        components: the components of the state to draw, each with its name; a dot where an accepted step starts.
        axes: upper and lower axes.
    """
    upper, lower = axes
    trace = solution.trace
    for i, (name, component) in enumerate(components.items()):
        color, dash = PALETTE[i], DASHES[i]
        upper.plot(solution.t, solution.y[:, component], color=color, linestyle=dash, linewidth=1.2, label=name)
        starts = [y[component].item() for y in trace.y]
        upper.plot(trace.t, starts, color=color, marker=MARKERS[i], markersize=3.5, linestyle="none")
    upper.set(ylabel="state")
    dots: dict[str, Any] = {"color": PALETTE[0], "marker": "o", "markersize": 3, "linestyle": "none"}
    crosses: dict[str, Any] = {"color": PALETTE[3], "marker": "x", "markersize": 5, "mew": 1.1, "linestyle": "none"}
    lower.plot(trace.t, trace.dt.abs(), label="accepted", **dots)
    lower.plot(trace.rejected_t, trace.rejected_dt.abs(), label="rejected attempts", **crosses)
    lower.set(xlabel="time t", ylabel="size of the step", yscale="log", xlim=upper.get_xlim())
    for ax in axes:
        _legend_above(ax)


def _legend_above(ax: Axes) -> None:
    """Put the legend over the axes, where it hides no data (figures with layout="constrained" make room for it)."""
    ax.legend(loc="lower right", bbox_to_anchor=(1.0, 0.98), ncols=4, fontsize="small", frameon=False)
