"""The front's picture: what models take with and without the penalty, as trained and solved coarsely."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from reproduce.plots.axes import two_lines
from reproduce.plots.palette import look
from reproduce.plots.report import panels
from reproduce.report import minute
from reproduce.report.evidence import Evidence
from reproduce.report.study import LOCAL
from reproduce.report.study_tables import titled
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
        y = names.index(mark.experiment) + (-SHIFT if mark.line == VANILLA else SHIFT)
        color = _color(mark.line == VANILLA)
        face = color if mark.kept else "white"
        ax.plot(mark.evaluations, y, SHAPES[mark.coarse], color=color, ms=9, markerfacecolor=face, mew=1.6, zorder=3)
        side, align = (-9, "right") if mark.coarse else (9, "left")
        ax.annotate(f"{mark.evaluations:.3g}", (mark.evaluations, y), (side, 0), textcoords="offset points",
                    ha=align, va="center", fontsize="small", color=color)  # fmt: skip
    for y, name in enumerate(names):
        for plain, shift in ((True, -SHIFT), (False, SHIFT)):
            trained, coarse = (x for x in of_all if x.experiment == name and (x.line == VANILLA) == plain)
            ends, dash = [trained.evaluations, coarse.evaluations], "-" if trained.line == coarse.line else ":"
            ax.plot(ends, [y + shift] * 2, dash, color=_color(plain), lw=1.2, zorder=2)
        if y:
            ax.axhline(y - 0.5, color="0.8", lw=1)
    ax.set_yticks(range(len(names)), [two_lines(titled(name, part.of(name))) for name in names])
    ax.set(xscale="log", ylim=(len(names) - 0.5, -0.5), xlabel="evaluations of f for one prediction")
    ax.xaxis.set_major_locator(LogLocator(base=2))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.grid(visible=False, axis="y")
    ax.margins(x=0.1)
    fig.legend(handles=_handles(), loc="outside lower center", ncols=3, fontsize="small")
    return fig


def _color(plain: bool) -> Any:
    return look(VANILLA if plain else LOCAL[0]).color


def _handles() -> list[Line2D]:
    """Colour is the penalty, shape the way to solve, fill what is kept."""
    grey = "0.35"
    colors = [
        Line2D([], [], color=look(line).color, lw=3, label=label)
        for line, label in ((VANILLA, "no penalty"), (LOCAL[0], "local penalty"))
    ]
    shapes = [
        Line2D([], [], color=grey, marker=SHAPES[coarse], linestyle="none", label=label)
        for coarse, label in (
            (False, "solved as it was trained"),
            (True, "solved in the cheapest way of held-out data"),
        )
    ]
    fills = [
        Line2D([], [], color=grey, marker="o", markerfacecolor=face, linestyle="none", mew=1.6, label=label)
        for face, label in ((grey, "gain kept on test data"), ("white", "not surely kept"))
    ]
    return [*colors, *shapes, *fills]
