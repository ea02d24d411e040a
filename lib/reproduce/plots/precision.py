"""Picture of what float32 takes: evaluations over tolerances in both precisions, beside a straight line."""

from __future__ import annotations

from typing import Literal

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reproduce.plots.axes import plain_ticks
from reproduce.plots.palette import look
from reproduce.plots.report import panels
from reproduce.report import effects, precision, tables
from reproduce.report.precision import DTYPES, LINES, Rows
from reproduce.runs.store import VANILLA

DASHES: dict[str, Literal["-", ":"]] = {"float32": "-", "float64": ":"}


def over_tolerances(measured: Rows) -> Figure:
    """Draw mean evaluations over tolerances, one panel for each experiment: float32 solid, float64 dotted.

    Grey is a straight line of the same length, where the solve has one: start-up and rounding, and no error of steps.
    A dashed vertical line marks the tolerance that the models were trained at.
    """
    names = precision.names(measured)
    fig, axes = panels(len(names), width=4.2, height=3.4)
    for ax, name in zip(axes, names, strict=True):
        at = sorted({row["tolerance"] for row in measured if row["experiment"] == name})
        for dtype, dash in DASHES.items():
            fill: Literal["full", "none"] = "full" if dtype == DTYPES[0] else "none"
            for line in (VANILLA, LINES[0]):
                seen = look(line)
                y = [effects.average(precision.by_seed(measured, name, line, dtype, tol)) for tol in at]
                ax.plot(at, y, color=seen.color, marker=seen.marker, linestyle=dash, fillstyle=fill)
            straight = [effects.average(precision.by_seed(measured, name, VANILLA, dtype, t, "straight")) for t in at]
            ax.plot(at, straight, color="0.5", linestyle=dash)
        ax.axvline(precision.tolerances(measured, name)[0], color="0.2", linewidth=1.2, linestyle="--")
        ax.set(xscale="log", yscale="log", xlabel="tolerance", title=tables.title(name))
        ax.title.set_fontsize("medium")
        plain_ticks(ax.yaxis)
    for ax in axes[::3]:
        ax.set_ylabel("evaluations of f")
    handles = [
        Line2D([], [], color=look(line).color, marker=look(line).marker, label=tables.label(line))
        for line in (VANILLA, LINES[0])
    ]
    handles.append(Line2D([], [], color="0.5", label="a straight line"))
    handles += [Line2D([], [], color="black", linestyle=dash, label=dtype) for dtype, dash in DASHES.items()]
    if names:
        fig.legend(handles=handles, loc="outside lower center", ncols=5, fontsize="small")
    return fig
