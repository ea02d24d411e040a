"""Figures of the lessons on SDEs: strong errors, running means, mean and spread, NFE over tolerances (no training)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from reproduce import plots
from reproduce.report import tables
from reproduce.runs.store import Row


def errors(runs: pd.DataFrame, *, x: str, ax: Axes | None = None) -> Axes:
    """Draw the column 'error' against column `x`, log-log, one line for each 'method' in order of appearance."""
    ax = ax or plt.gca()
    for i, (name, line) in enumerate(runs.groupby("method", sort=False)):
        color, marker, dash = plots.PALETTE[i], plots.MARKERS[i], plots.DASHES[i]
        ax.loglog(line[x], line["error"], color=color, marker=marker, linestyle=dash, label=name)
    ax.set(xlabel=x, ylabel="strong error")
    for axis in (ax.xaxis, ax.yaxis):
        plots.plain_ticks(axis)
    plots.legend_below(ax)
    return ax


def at_error(runs: pd.DataFrame, method: str, what: str, error: float) -> float:
    """Return column `what` of a method at a strong error, between its runs in logarithms; NaN outside of them."""
    line = runs[runs["method"] == method].sort_values("error")
    at, known = math.log(error), np.log(line["error"])
    return math.exp(np.interp(at, known, np.log(line[what]), left=math.nan, right=math.nan))


def running_means(samples: Mapping[str, np.ndarray], *, ax: Axes | None = None) -> Axes:
    """Draw, for each name, the mean of its first n samples over n, with two standard errors to either side."""
    ax = ax or plt.gca()
    for i, (name, y) in enumerate(samples.items()):
        n = np.arange(1, len(y) + 1)
        mean = np.cumsum(y) / n
        error = np.sqrt(np.maximum(np.cumsum(y**2) / n - mean**2, 0.0) / n)
        color = plots.PALETTE[i]
        ax.plot(n, mean, color=color, linestyle=plots.DASHES[i], label=name)
        ax.fill_between(n, mean - 2 * error, mean + 2 * error, color=color, alpha=0.2, linewidth=0)
    return ax


def mean_and_spread(
    t: Any, mean: Any, std: Any, *, ax: Axes | None = None, name: str | None = None, label: str | None = None
) -> Axes:
    """Draw a mean over time with two standard deviations: a grey band for data, lines for the model of a regularizer.

    Args:
        t, mean, std: (times,).
        ax: axes; None: the current ones.
        name: the regularizer; None: these are the data.
        label: for the legend; None: that of the regularizer.
    """
    ax = ax or plt.gca()
    low, high = mean - 2 * std, mean + 2 * std
    if name is None:
        ax.plot(t, mean, color="0.55", linewidth=4, label=label)
        ax.fill_between(t, low, high, color="0.8", linewidth=0)
        return ax
    seen = plots.look(name)
    ax.plot(t, mean, color=seen.color, linestyle="--", label=label or tables.label(name))
    for edge in (low, high):
        ax.plot(t, edge, color=seen.color, linestyle=":", linewidth=1.3)
    return ax


def nfe_over_tolerances(
    rows: Sequence[Row], tolerances: Sequence[float], *, what: str = "nfe", ax: Axes | None = None
) -> Axes:
    """Draw the NFE of trained models over the tolerance of the prediction, a line per regularizer.

    Lines are means over seeds with 95 % intervals; those of fewer seeds are thin and hollow, and the legend says so.

    Args:
        rows: with the metrics '`what`@TOLERANCE' (see evaluation.nfe_elsewhere).
        tolerances: which ones.
        what: 'nfe' (our solver) or 'nfe_host' (that of evaluation.adaptive_host).
        ax: axes; None: the current ones.
    """
    ax = ax or plt.gca()
    groups = {name: [row for row in rows if row.regularizer == name] for name in {row.regularizer for row in rows}}
    for name in tables.in_order(groups):
        found = [[row.metrics[f"{what}@{tolerance:g}"] for row in groups[name]] for tolerance in tolerances]
        seen, n = plots.look(name), len(groups[name])
        few, mean = n < max(map(len, groups.values())), [float(np.mean(values)) for values in found]
        ax.loglog(tolerances, mean, color=seen.color, marker=seen.marker, linestyle=seen.dash,
                  fillstyle="none" if few else "full", linewidth=1.0 if few else 1.8,
                  label=tables.label(name) + (f" ({n} seed{'s' * (n > 1)})" if few else ""))  # fmt: skip
        if n > 1:
            ax.vlines(tolerances, *zip(*(plots.interval(values, log=True) for values in found), strict=True),
                      color=seen.color, linewidth=1.2)  # fmt: skip
    ax.set(xlabel="tolerance of the prediction", ylabel="evaluations of f (NFE)")
    ax.set_xticks(tolerances, [f"{tolerance:g}" for tolerance in tolerances])
    ax.minorticks_off()
    plots.plain_ticks(ax.yaxis)
    return ax
