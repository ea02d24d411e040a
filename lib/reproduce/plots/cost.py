"""Cost against quality: NFE and the test metric of one experiment's rows, means with intervals and single seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

from reproduce.plots.axes import interval, legend_below, plain_ticks
from reproduce.plots.palette import look
from reproduce.report import tables
from reproduce.runs.store import Row

Limits = tuple[float, float]

UNDER = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
"""What lies behind a word in a picture."""


def nfe_against_metric(
    rows: Sequence[Row], *, ax: Axes | None = None, from_vanilla: bool = False, log: bool = False
) -> Axes:
    """Draw NFE (left is cheaper) against the test metric: a large mark with 95 % intervals for the mean over seeds.

    Small marks are single seeds. A regularizer with one seed, or with fewer than the others, is hollow: its seeds may
    be easy ones, so it must not be compared with their means. What lies far from the rest (the control, a variant)
    sits on the frame as a triangle that points outwards, its number beside it.

    Args:
        rows: of one experiment, trained in one way.
        ax: axes; None: the current ones.
        from_vanilla: draw the difference to vanilla's metric of the same seed instead: where the split goes by the
            seed, the metrics of different seeds are those of different test data. A seed without vanilla is left out.
        log: a logarithmic vertical axis.
    """
    ax = ax or plt.gca()
    runs = _from_vanilla(tables.frame(rows)) if from_vanilla else tables.frame(rows)
    _panel(ax, runs, _limits(runs, log=log), log=log)
    ax.set(ylabel=f"test {rows[0].metric}" + ", difference to vanilla" * from_vanilla)
    return ax


def nfe_panels(parts: Mapping[str, Sequence[Row]], *, axes: Sequence[Axes]) -> None:
    """Draw `nfe_against_metric` in panels side by side with the same vertical range.

    Args:
        parts: title to rows, one panel each.
        axes: as many.
    """
    runs = {title: tables.frame(rows) for title, rows in parts.items()}
    limits = {title: _limits(part, log=False) for title, part in runs.items()}
    y = min(low for _, (low, _) in limits.values()), max(high for _, (_, high) in limits.values())
    for ax, (title, part) in zip(axes, runs.items(), strict=True):
        _panel(ax, part, (limits[title][0], y), log=False)
        ax.set_title(title)
    axes[0].set_ylabel(f"test {next(iter(parts.values()))[0].metric}")


def _from_vanilla(runs: pd.DataFrame) -> pd.DataFrame:
    vanilla = runs[runs["regularizer"] == tables.VANILLA].set_index("seed")["metric"]
    runs = runs[runs["seed"].isin(vanilla.index)]
    return runs.assign(metric=runs["metric"] - runs["seed"].map(vanilla))


def _panel(ax: Axes, runs: pd.DataFrame, limits: tuple[Limits, Limits], *, log: bool) -> None:
    ax.set(xlim=limits[0], ylim=limits[1], yscale="log" if log else "linear")
    most = max(2, runs["regularizer"].value_counts().max())
    for name in tables.in_order(runs["regularizer"]):
        _draw(ax, name, runs[runs["regularizer"] == name], whole=most, log=log)
    if log:
        plain_ticks(ax.yaxis)
    ax.set_xlabel("evaluations of f for one prediction (NFE)")
    legend_below(ax, title="regularizer (seeds); hollow: one or few seeds")


def _limits(runs: pd.DataFrame, *, log: bool) -> tuple[Limits, Limits]:
    """Limits for both axes: all seeds of the usual lines, their intervals as far as these do not rule the picture."""
    usual = runs[(runs["regularizer"] != tables.CONTROL) & ~runs["regularizer"].str.contains(":")]
    usual = usual if len(usual) else runs
    ends = [interval(list(group["metric"]), log=log) for _, group in usual.groupby("regularizer")]
    low, high = usual["metric"].min(), usual["metric"].max()
    if log:
        span = max(high / low, 1.2)
        y = max(low / span, min(low for low, _ in ends)), min(high * span, max(high for _, high in ends))
        y = y[0] / span**0.1, y[1] * span**0.1
    else:
        span = max(high - low, 1e-3 * abs(high), 1e-12)
        y = max(low - span, min(low for low, _ in ends)), min(high + span, max(high for _, high in ends))
        y = y[0] - 0.2 * span, y[1] + 0.2 * span
    cheap, dear = runs["nfe"].min(), max(usual["nfe"].max(), 1.0)
    return (0.0 if cheap < dear / 2 else cheap / 2, 1.15 * dear), y


def _draw(ax: Axes, name: str, group: pd.DataFrame, *, whole: int, log: bool) -> None:
    seen, (n, few) = look(name), (len(group), len(group) < whole)
    mean = group["nfe"].mean(), group["metric"].mean()
    frame = ax.get_xlim(), ax.get_ylim()
    at = tuple(min(max(value, low), high) for value, (low, high) in zip(mean, frame, strict=True))
    sides = ((">", at[0] < mean[0]), ("^", at[1] < mean[1]), ("v", at[1] > mean[1]), ("<", at[0] > mean[0]))
    marker = next((side for side, outside in sides if outside), seen.marker)
    if at == mean and n > 1:
        ax.scatter(group["nfe"], group["metric"], color=seen.color, marker=seen.marker, s=18, alpha=0.5, linewidth=0)
        ax.plot(interval(list(group["nfe"])), [at[1]] * 2, color=seen.color, linewidth=1.3)
        ax.plot([at[0]] * 2, interval(list(group["metric"]), log=log), color=seen.color, linewidth=1.3)
    ax.scatter(at[0], at[1], marker=marker, s=90, facecolor="none" if few else seen.color, clip_on=False, zorder=3,
               edgecolor=seen.color if few else "black", linewidth=1.6 if few else 0.8,
               label=f"{tables.label(name)} ({n})")  # fmt: skip
    if at != mean:
        right, told = at[0] > sum(frame[0]) / 2, f"{tables.label(name)}: "
        beyond = [value for value, on in zip(mean, at, strict=True) if value != on]
        told += ", ".join(f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" for value in beyond)
        line = 11 * (1 + len(ax.texts))  # one under the other, so that none hides another
        ax.annotate(told, at, xytext=(-9 if right else 9, -line if at[1] == frame[1][1] else line), fontsize="small",
                    textcoords="offset points", ha="right" if right else "left", va="center", zorder=2.5,
                    color=seen.color, bbox=UNDER)  # fmt: skip
