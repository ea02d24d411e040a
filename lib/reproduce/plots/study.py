"""Pictures of the registered study: what is kept of the gain against what a solve costs."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Literal

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reproduce.plots.axes import two_lines
from reproduce.plots.palette import look
from reproduce.plots.report import panels
from reproduce.report import ladders, study, tables
from reproduce.report.evidence import Evidence
from reproduce.report.study_tables import titled
from reproduce.runs.curves import curve
from reproduce.runs.store import Row

LINES = (tables.VANILLA, "none:decay", "global_error", "taynode", "local_biased")
"""What is drawn for every experiment, and beside it the local penalty that the ladders chose."""


def drawn(experiment: str, part: Evidence) -> list[str]:
    """Return the lines that a picture of an experiment shows: those of LINES that have rows, and the chosen penalty."""
    there = {row.regularizer for row in part.of(experiment)}
    ours = study.chosen_line(experiment, study.PENALIZED)
    return [name for name in dict.fromkeys([*LINES, *([ours] if ours else [])]) if name in there]


def gains(part: Evidence, *, what: str = "evaluations") -> Figure:
    """Draw `gain_against_cost` for each experiment that is complete, with one legend for all."""
    names = part.complete()
    fig, axes = panels(len(names), width=4.2, height=3.7)
    seen: list[str] = []
    for ax, name in zip(axes, names, strict=True):
        lines = drawn(name, part)
        seen += lines
        gain_against_cost(part.rows, name, lines, ax=ax, what=what)
        ax.set_ylabel("")
    for ax in axes[::3]:
        ax.set_ylabel("share of vanilla's gain kept")
    handles = [_handle(name) for name in tables.in_order(seen)]
    if handles:
        fig.legend(handles=handles, loc="outside lower center", ncols=4, fontsize="small")
    return fig


def gain_against_cost(
    rows: Sequence[Row], experiment: str, lines: Sequence[str], *, ax: Axes | None = None, what: str = "evaluations"
) -> Axes:
    """Draw every way to solve every line: its cost against the share of vanilla's gain that it keeps.

    Marks of ways with fixed steps are filled, those of adaptive ways are not. A staircase joins the ways that keep more
    than every cheaper one, with the interval over seeds at its corners.

    Args:
        rows: of the study, with the control and vanilla of the experiment among them.
        experiment: whose.
        lines: regularizers, in the order of the legend.
        ax: axes; None: the current ones.
        what: 'evaluations' or 'seconds'.
    """
    ax, lowest, highest = ax or plt.gca(), 0.7, 1.07
    for name in lines:
        found, seen = study.points(rows, experiment, name), look(name)
        for point in found:
            fill: Literal["full", "none"] = "full" if point.way[1] is None else "none"  # fixed steps, adaptive ones
            at = getattr(point, what), point.kept[0]
            ax.plot(*at, color=seen.color, marker=seen.marker, ms=4, alpha=0.4, fillstyle=fill, linestyle="none")
        best = study.frontier(found, what)
        if not best:
            continue
        x, y = [getattr(point, what) for point in best], [point.kept[0] for point in best]
        lowest, highest = min(lowest, y[0] - 0.05), max(highest, y[-1])
        ax.step(x, y, where="post", color=seen.color, linestyle=seen.dash, label=tables.label(name))
        ends = np.array([[p.kept[0] - p.kept[1], p.kept[2] - p.kept[0]] for p in best]).T  # (2, points)
        ends = np.clip(ends, 0.0, 9.0)  # below 0 by rounding; without an end where vanilla's gain is not sure
        ax.errorbar(x, y, yerr=ends, color=seen.color, linestyle="none", linewidth=1)
    ax.axhline(study.rules()["gain"], color="0.4", linewidth=1)
    ax.axhline(0.0, color="0.4", linewidth=1)
    ax.set(xscale="log", ylim=(max(lowest, -0.1), highest + 0.03), ylabel="share of vanilla's gain that is kept")
    if what == "evaluations":
        ax.set_xticks([1, 2, 4, 8, 16, 32, 64, 128, 256], ["1", "2", "4", "8", "16", "32", "64", "128", "256"])
        ax.minorticks_off()
    ax.set_xlabel("evaluations of f for one prediction" if what == "evaluations" else "seconds for one prediction")
    here = [row for row in rows if row.experiment == experiment]
    ax.set_title(two_lines(titled(experiment, here)), fontsize="medium")
    return ax


def ladders_of(part: Evidence) -> Figure:
    """Draw the ladders of the local penalties and of the global one: what each weight costs, and what it keeps.

    Every weight is a mark, the mean over the seeds of the ladders on held-out data, solved as it was trained; lines
    join them from the lightest to the heaviest, and a ring marks the weight that was chosen. The dotted line is what a
    choice is asked to keep: a ring below it keeps most, since no weight kept so much.
    """
    names = part.complete()
    fig, axes = panels(len(names), width=4.2, height=3.4)
    for ax, name in zip(axes, names, strict=True):
        vanilla, control = ladders.references(name)
        own = look(tables.VANILLA)
        ax.plot(fmean(row.nfe for row in vanilla), 1.0, color=own.color, marker=own.marker, ms=8, linestyle="none")
        for line, rungs in ladders.rungs(name).items():
            seen, chosen = look(line), ladders.chosen_weight(name, line)
            at = {
                w: (fmean(r.nfe for r in rows), fmean(ladders.kept(rows, vanilla, control)))
                for w, rows in rungs.items()
            }
            ax.plot(
                *zip(*at.values(), strict=True), color=seen.color, marker=seen.marker, linestyle=seen.dash, alpha=0.8
            )
            if chosen in at:
                ax.plot(*at[chosen], color=seen.color, marker="o", ms=13, fillstyle="none", linestyle="none")
        ax.axhline(study.rules()["held_out_gain"], color="0.4", linewidth=1, linestyle=":")
        ax.set_title(two_lines(titled(name, part.of(name))), fontsize="medium")
        ax.set_xlabel("evaluations of f for one prediction")
    for ax in axes[::3]:
        ax.set_ylabel("share of vanilla's gain kept")
    if names:
        lines = (tables.VANILLA, *ladders.LINES)
        fig.legend(handles=[_handle(line) for line in lines], loc="outside lower center", ncols=4, fontsize="small")
    return fig


def _handle(line: str) -> Line2D:
    seen = look(line)
    return Line2D([], [], color=seen.color, marker=seen.marker, linestyle=seen.dash, label=tables.label(line))


def ways(rows: Sequence[Row], *, ax: Axes | None = None) -> Axes:
    """Draw every way to solve some models, one for each row: its evaluations against the metric.

    A stair joins the ways that beat everything cheaper. Filled marks are fixed steps, hollow ones adapt them.
    The metric is signed so that higher is better.
    """
    ax = ax or plt.gca()
    for row in rows:
        seen, found = look(row.regularizer), curve(row)
        for (_, tolerance, _), (value, nfe) in found.items():
            fill: Literal["full", "none"] = "full" if tolerance is None else "none"
            ax.plot(nfe, value, color=seen.color, marker=seen.marker, ms=5, fillstyle=fill, linestyle="none")
        best: list[tuple[float, float]] = []
        for value, nfe in sorted(found.values(), key=lambda pair: (pair[1], -pair[0])):
            if not best or value > best[-1][1]:
                best.append((nfe, value))
        ax.step(*zip(*best, strict=True), where="post", color=seen.color, linestyle=seen.dash,
                label=tables.label(row.regularizer))  # fmt: skip
    ax.set(xscale="log", xlabel="evaluations of f for one prediction", ylabel=rows[0].metric.replace("_", " "))
    ax.legend()
    return ax
