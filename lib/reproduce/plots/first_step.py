"""Picture of version 2: what each model takes by the solver's own guess of the first step, and with a chosen one."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reproduce.plots.axes import plain_ticks
from reproduce.plots.palette import look
from reproduce.plots.report import panels
from reproduce.report import effects, first_step, study, tables
from reproduce.report.evidence import Evidence
from reproduce.report.first_step import SOLVES
from reproduce.runs import store
from reproduce.runs.registered import registered
from reproduce.runs.store import VANILLA


def own_and_chosen(part: Evidence) -> Figure:
    """Draw mean evaluations of each line, one panel for each experiment: hollow by the own guess, filled as chosen.

    Grey dots are seeds with the chosen step. The line is the registered share of vanilla's with its chosen step.
    """
    names, lines = first_step.complete(part), registered()["first_step"]["lines"]
    fig, axes = panels(len(names), width=4.2, height=2.6)
    for ax, name in zip(axes, names, strict=True):
        measured = store.first_steps(name)
        for y, line in enumerate(lines):
            own, chosen = (first_step.by_seed(measured, line, solve) for solve in SOLVES)
            ends, seen = [effects.average(own), effects.average(chosen)], look(line)
            ax.plot(list(chosen.values()), [y] * len(chosen), ".", color="0.7", zorder=1)
            ax.plot(ends, [y, y], color=seen.color, linewidth=1, zorder=2)
            ax.plot(ends[0], y, color=seen.color, marker=seen.marker, fillstyle="none", ms=8, linestyle="none")
            ax.plot(ends[1], y, color=seen.color, marker=seen.marker, ms=8, linestyle="none")
            if line == VANILLA:
                ax.axvline(study.rules()["equal_tolerance"] * ends[1], color="0.4", linewidth=1, linestyle=":")
        ax.set_yticks(range(len(lines)), [tables.label(line) for line in lines], fontsize="small")
        ax.set(xscale="log", ylim=(len(lines) - 0.5, -0.5), xlabel="evaluations of f for one prediction")
        ax.set_title(tables.title(name), fontsize="medium")
        plain_ticks(ax.xaxis)
    if names:
        black = (0.0, 0.0, 0.0)
        handles = [
            Line2D(
                [], [], color=black, marker="o", fillstyle="none", linestyle="none", label="own guess of the first step"
            ),
            Line2D([], [], color=black, marker="o", linestyle="none", label="chosen first step"),
            Line2D([], [], color="0.4", linestyle=":", label="half of vanilla's with its chosen step"),
        ]
        fig.legend(handles=handles, loc="outside lower center", ncols=3, fontsize="small")
    return fig
