"""What all axes share: legends beside the data, ticks that can be read, intervals over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from reproduce.report.effects import mean_effect

LEVEL = 0.95
"""Level of the intervals over seeds."""

GAP = 46
"""Room for the labels of the horizontal axis, in points."""


def legend_below(ax: Axes, *, title: str | None = None, ncols: int = 2) -> Legend:
    """Put the legend under the axes and their labels, where it can hide no data."""
    under = ax.transAxes + ScaledTranslation(0, -GAP / 72, ax.figure.dpi_scale_trans)
    return ax.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), bbox_transform=under, borderaxespad=0.0,
                     ncols=ncols, fontsize="small", title=title, title_fontsize="small")  # fmt: skip


def legend_of_all(fig: Figure, *, ncols: int = 4) -> Legend:
    """Put one legend under a figure with layout="constrained", each label of its axes once; theirs are taken away."""
    found: dict[str, Artist] = {}
    for ax in fig.axes:
        handles, labels = ax.get_legend_handles_labels()
        found |= {label: handle for handle, label in zip(handles, labels, strict=True) if label not in found}
        if (own := ax.get_legend()) is not None:
            own.remove()
    handles, labels = list(found.values()), list(found)
    return fig.legend(handles, labels, loc="outside lower center", ncols=ncols, fontsize="small")


def plain_ticks(axis: Axis) -> None:
    """Label a logarithmic axis with few plain numbers, the fewer the more powers of ten it spans.

    Call it last: it looks at the limits.
    """
    low, high = sorted(axis.get_view_interval())
    subs = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0) if high < 6 * low else (1.0, 2.0, 5.0) if high < 200 * low else (1.0,)
    narrow = high < 2 * low  # where few of those lie
    axis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]) if narrow else LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def two_lines(title: str) -> str:
    """Put what stands in brackets into a line of its own."""
    return title.replace(" (", "\n(")


def interval(values: Sequence[float], *, log: bool = False) -> tuple[float, float]:
    """Return the mean's 95 % t-interval over seeds; of one seed its value twice, which is no interval.

    Args:
        values: one for each seed.
        log: of the logarithm, by the delta method, so that a positive mean has a positive interval.
    """
    effect = mean_effect(values)
    if effect is None:
        return values[0], values[0]
    low, high = effect.interval(LEVEL)
    if not log:
        return low, high
    half = (high - effect.mean) / effect.mean
    return effect.mean * math.exp(-half), effect.mean * math.exp(half)
