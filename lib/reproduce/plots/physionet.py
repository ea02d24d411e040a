"""Figures of lesson 07: a patient's day, what is missing, the latent ODE as a drawing, reconstructions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from reproduce import plots
from reproduce.report import tables

HOURS = 48


def quartiles(values: Any, mask: Any) -> np.ndarray:
    """Return the quartiles of each variable's observed values, (3, variables); NaN for one never observed.

    Args:
        values, mask: (stays, times, variables), mask 1 where something was observed.
    """
    values, mask = np.asarray(values), np.asarray(mask) > 0
    columns = [values[..., i][mask[..., i]] for i in range(values.shape[-1])]
    return np.array([np.quantile(c, (0.25, 0.5, 0.75)) if len(c) else [np.nan] * 3 for c in columns]).T


def stay(values: Any, mask: Any, variables: Sequence[str], typical: np.ndarray, *, ax: Axes | None = None) -> Axes:
    """Draw one stay as a picture: a row for each variable, a column for each hour, white where nothing was observed.

    Colours say how far a value lies from the median of all patients, in units of half the interquartile range.

    Args:
        values, mask: of the stay, (times, variables).
        variables: names.
        typical: see `quartiles`.
        ax: axes; None: the current ones.
    """
    ax = ax or plt.gca()
    low, median, high = typical
    half = np.where(high > low, high - low, 1.0) / 2
    seen = np.asarray(mask) > 0
    picture = np.where(seen, (np.asarray(values) - median) / half, np.nan).T  # (variables, times)
    order = np.argsort(-seen.sum(0), kind="stable")
    image = ax.imshow(picture[order], cmap="PuOr_r", vmin=-4, vmax=4, aspect="auto", interpolation="nearest")
    ax.set_yticks(range(len(order)), [variables[i] for i in order], fontsize=7)
    ax.set_xticks(range(0, HOURS + 1, 6))
    ax.grid(False)
    ax.set(xlabel="hours since admission to intensive care")
    bar = ax.figure.colorbar(image, ax=ax, pad=0.02, shrink=0.6)
    bar.set_label("from the patients' median,\nin half interquartile ranges", fontsize="small")
    return ax


def observed_share(mask: Any, variables: Sequence[str], *, ax: Axes | None = None) -> Axes:
    """Draw for each variable the share of hours that hold a value, from the mask (stays, times, variables)."""
    ax = ax or plt.gca()
    share = np.asarray(mask).mean((0, 1))
    order = np.argsort(-share, kind="stable")
    ax.bar(range(len(order)), share[order], color=plots.PALETTE[0])
    ax.set_xticks(range(len(order)), [variables[i] for i in order], rotation=90, fontsize=7)
    ax.set(ylabel="share of hours with a value", ylim=(0, 1))
    ax.grid(axis="x", visible=False)
    return ax


def model_drawing(*, ax: Axes | None = None) -> Axes:
    """Draw the latent ODE: cells that read backwards, an initial state, an ODE that carries it, a decoder."""
    ax = ax or plt.gca()
    xs = np.array([2.2, 4.4, 6.6, 8.8])
    times = ("$t_0$", "$t_1$", "$t_2$", "$t_3$")
    for x, time in zip(xs, times, strict=True):
        _box(ax, x, 1.0, "observed\nvalues, mask", plots.PALETTE[7])
        _box(ax, x, 2.6, "recognition\ncell", plots.PALETTE[0])
        _box(ax, x, 5.8, "predicted\nvalues", plots.PALETTE[2])
        _arrow(ax, (x, 1.4), (x, 2.2))
        _arrow(ax, (x, 4.35), (x, 5.4))
        ax.text(x, 0.2, time, ha="center", va="center")
        ax.plot(x, 4.2, color=plots.PALETTE[1], marker="o", markersize=9, zorder=3)
    for right, left in zip(xs[:0:-1], xs[-2::-1], strict=True):
        _arrow(ax, (right - 0.8, 2.6), (left + 0.8, 2.6))
    ax.plot((xs[0], xs[-1] + 0.4), (4.2, 4.2), color=plots.PALETTE[1], linewidth=2.5)
    _arrow(ax, (xs[0], 3.0), (xs[0], 4.1))
    ax.text(xs[0] - 0.15, 3.6, "mean, std:\ndraw $y(t_0)$", ha="right", va="center", fontsize=9)
    ax.text(xs[-1] + 0.5, 4.2, r"$\dot y = f_\theta(y)$", ha="left", va="center", fontsize=11)
    ax.text(xs[-1] + 0.95, 2.6, "reads\nbackwards", ha="left", va="center", fontsize=9)
    ax.text(xs[-1] + 0.95, 5.8, "decoder", ha="left", va="center", fontsize=9)
    ax.set(xlim=(0.4, 10.9), ylim=(-0.1, 6.4))
    ax.axis("off")
    return ax


def _box(ax: Axes, x: float, y: float, text: str, color: Any) -> None:
    ax.add_patch(FancyBboxPatch((x - 0.75, y - 0.33), 1.5, 0.66, boxstyle="round,pad=0.05", facecolor=(*color, 0.3),
                                edgecolor=color))  # fmt: skip
    ax.text(x, y, text, ha="center", va="center", fontsize=8)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    ax.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=12, color="0.35", linewidth=1.2))


def reconstruction(
    hours: Any, observed: tuple[Any, Any], curves: dict[str, Any], band: tuple[Any, Any] | None, *, ax: Axes
) -> None:
    """Draw one variable of one stay: dots for observations, a line for each model, a band for the first one's doubt.

    Args:
        hours: times of the grid, (times,).
        observed: values and mask, (times,).
        curves: regularizer (or the control) to its prediction, (times,).
        band: lower and upper end, (times,).
        ax: axes.
    """
    values, mask = (np.asarray(array) for array in observed)
    if band is not None:
        ax.fill_between(hours, *band, color=plots.look(next(iter(curves))).color, alpha=0.25, linewidth=0)
    for name, curve in curves.items():
        seen = plots.look(name)
        ax.plot(hours, curve, color=seen.color, linestyle=seen.dash, linewidth=1.6, label=tables.label(name))
    ax.plot(np.asarray(hours)[mask > 0], values[mask > 0], color="black", marker="o", markersize=3.5, linestyle="none",
            label="observed")  # fmt: skip
    ax.set_xticks(range(0, HOURS + 1, 12))


def along_hours(ax: Axes) -> None:
    """Label an axis of the model's time, which runs from 0 to 1, in hours."""
    ax.set_xticks(np.linspace(0, 1, 9), [f"{hour:g}" for hour in np.linspace(0, HOURS, 9)])
    ax.set_xlabel("hours since admission")
