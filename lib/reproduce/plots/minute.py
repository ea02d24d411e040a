"""The front's picture: what models take with and without the penalty, as trained and solved coarsely."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from reproduce.plots.palette import look
from reproduce.plots.report import panels
from reproduce.report import minute, tables
from reproduce.report.evidence import Evidence
from reproduce.report.study import LOCAL
from reproduce.runs.store import VANILLA

SHAPES = {False: "o", True: "D"}
"""Whether a model is solved coarsely -> marker."""

SHIFT = 0.16
"""From the middle of an experiment's row to either line."""


def in_a_minute(part: Evidence) -> Figure:
    """Draw mean evaluations, one row for each experiment: filled where the gain is kept, else hollow."""
    of_all = minute.marks(part)
    names = list(dict.fromkeys(mark.experiment for mark in of_all))
    if not names:
        return panels(0)[0]
    fig, ax = plt.subplots(figsize=(9.0, 0.75 * len(names) + 1.6), layout="constrained")
    for mark in of_all:
        y = names.index(mark.experiment) + (SHIFT if mark.penalty else -SHIFT)
        color = look(LOCAL[0] if mark.penalty else VANILLA).color
        face = color if mark.kept else "white"
        ax.plot(mark.evaluations, y, SHAPES[mark.coarse], color=color, ms=9, markerfacecolor=face, mew=1.6, zorder=3)
        side, align = (-9, "right") if mark.coarse else (9, "left")
        ax.annotate(f"{mark.evaluations:.3g}", (mark.evaluations, y), (side, 0), textcoords="offset points",
                    ha=align, va="center", fontsize="small", color=color)  # fmt: skip
    for y, name in enumerate(names):
        for penalty, shift in ((False, -SHIFT), (True, SHIFT)):
            ends = [mark.evaluations for mark in of_all if (mark.experiment, mark.penalty) == (name, penalty)]
            ax.plot(ends, [y + shift] * len(ends), color=look(LOCAL[0] if penalty else VANILLA).color, lw=1, zorder=2)
        if y:
            ax.axhline(y - 0.5, color="0.8", lw=1)
    ax.set_yticks(range(len(names)), [_title(part, name) for name in names])
    ax.set(xscale="log", ylim=(len(names) - 0.5, -0.5), xlabel="evaluations of f for one prediction")
    ax.xaxis.set_major_locator(LogLocator(base=2))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.grid(visible=False, axis="y")
    ax.margins(x=0.1)
    fig.legend(handles=_handles(), loc="outside lower center", ncols=3, fontsize="small")
    return fig


def _title(part: Evidence, name: str) -> str:
    title = tables.title(name)
    return title if minute.sure(part, name) else f"{title}\n(vanilla's gain is not sure)"


def _handles() -> list[Line2D]:
    """Colour is the penalty, shape the way to solve, fill what is kept."""
    grey = "0.35"
    colors = [
        Line2D([], [], color=look(line).color, lw=3, label=label)
        for line, label in ((VANILLA, "no penalty"), (LOCAL[0], "local penalty"))
    ]
    shapes = [
        Line2D([], [], color=grey, marker=SHAPES[coarse], linestyle="none", label=label)
        for coarse, label in ((False, "solved as it was trained"), (True, "solved as coarsely as held-out data allow"))
    ]
    fills = [
        Line2D([], [], color=grey, marker="o", markerfacecolor=face, linestyle="none", mew=1.6, label=label)
        for face, label in ((grey, "gain kept on test data"), ("white", "not surely kept"))
    ]
    return [*colors, *shapes, *fills]
