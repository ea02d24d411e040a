"""Pictures of the registered study: what is kept of the gain against what a solve costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from reproduce.plots.palette import look
from reproduce.report import study, tables
from reproduce.runs.store import Row


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
    ax = ax or plt.gca()
    for name in lines:
        found, seen = study.points(rows, experiment, name), look(name)
        for point in found:
            fill: Literal["full", "none"] = "full" if point.way[1] is None else "none"  # fixed steps, adaptive ones
            at = getattr(point, what), point.kept[0]
            ax.plot(*at, color=seen.color, marker=seen.marker, ms=5, alpha=0.5, fillstyle=fill)
        best = study.frontier(found)
        if not best:
            continue
        x, y = [getattr(point, what) for point in best], [point.kept[0] for point in best]
        ax.step(x, y, where="post", color=seen.color, linestyle=seen.dash, label=tables.label(name))
        ends = [[p.kept[0] - p.kept[1] for p in best], [p.kept[2] - p.kept[0] for p in best]]
        ax.errorbar(x, y, yerr=ends, color=seen.color, linestyle="none", linewidth=1)
    ax.axhline(study.rules()["gain"], color="0.4", linewidth=1)
    ax.axhline(0.0, color="0.4", linewidth=1)
    ax.set(xscale="log", ylim=(-0.1, 1.15), ylabel="share of vanilla's gain that is kept")
    ax.set_xlabel("evaluations of f for one prediction" if what == "evaluations" else "seconds for one prediction")
    ax.set_title(experiment)
    return ax
