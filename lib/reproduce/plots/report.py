"""Figures of the report: gain against cost, speed-ups, and training curves of all experiments (no training)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reproduce import plots
from reproduce.plots.base import Picture
from reproduce.report import papers, tables
from reproduce.report.claims import Book, nearest_tolerance
from reproduce.report.effects import kept_interval
from reproduce.report.evidence import Evidence
from reproduce.report.ratios import Comparison, Ratio, compare
from reproduce.runs.store import Row

LOWEST, HIGHEST = -0.1, 1.25
"""Range of gain kept and of ratios that is drawn; what lies outside sits on the edge, as a triangle pointing out."""

STRIP = 0.07
"""Where the published ratios stand, below the lowest gain, as a share of the range."""

NEAR = 0.6
"""The gain kept is drawn from here upwards where no mark lies lower."""

SLOWEST, FASTEST = 0.25, 8.0
"""Range of speed-ups that is drawn."""

MAIN = ("none", "global_error", "local_unbiased", "local_biased")
"""Regularizers whose training curves and times are drawn."""


def show(fig: Figure, name: str, *, alt: str, caption: str, profile: str, rows: Sequence[Row]) -> Picture:
    """Save a figure (see `plots.save`), close it, and return it as a picture that carries its alt text."""
    path = plots.save(fig, name, alt=alt, caption=caption, profile=profile, rows=rows, show=False)
    plt.close(fig)
    return Picture(path.read_bytes(), alt)


def compared(part: Evidence, experiment: str) -> Iterator[tuple[float, str, Comparison]]:
    """Yield (tolerance, regularizer, comparison) of each line with a ratio; all variants and vanilla left out."""
    for tolerance, name, variant in part.lines(experiment):
        if variant or ":" in name or name == tables.VANILLA:
            continue
        against = compare(part, experiment, name, tolerance)
        if against.nfe is not None:
            yield tolerance, name, against


def drawn(part: Evidence) -> list[str]:
    """Return the experiments with something to compare, in the order of the report."""
    return [name for name in papers.experiments([part]) if any(True for _ in compared(part, name))]


def panels(n: int, *, width: float = 4.3, height: float = 3.6, columns: int = 3) -> tuple[Figure, list[Axes]]:
    """Return a figure of `n` panels, `columns` in a row, and their axes; one that says so when there are none."""
    columns = min(columns, max(1, n))
    rows = math.ceil(max(1, n) / columns)
    fig, axes = plt.subplots(
        rows, columns, figsize=(width * columns, height * rows), squeeze=False, layout="constrained"
    )
    for ax in axes.flat[n:]:
        ax.axis("off")
    if not n:
        axes[0, 0].text(0.5, 0.5, "no rows yet: run `make reproduce`", ha="center", transform=axes[0, 0].transAxes)
    return fig, list(axes.flat[:n])


def gain_against_nfe(part: Evidence) -> Figure:
    """Draw NFE / vanilla's (left is cheaper) against the share of the gain kept, one panel for each experiment.

    Filled marks are our regularizers with 95 % intervals over seeds, pale ones at the looser tolerance, small ones
    of one seed. Hollow marks in the strip below are the published ratios, for which no control was published.
    """
    names = drawn(part)
    fig, axes = panels(len(names), width=4.0)
    lines = {experiment: list(compared(part, experiment)) for experiment in names}
    gains = [against.gain for found in lines.values() for _, _, against in found if not math.isnan(against.gain)]
    lowest = max(LOWEST, min([NEAR, *(gain - 0.1 for gain in gains)]))
    strip = lowest - STRIP * (HIGHEST - lowest)
    seen: list[str] = []
    for ax, experiment in zip(axes, names, strict=True):
        ax.set(ylim=(2 * strip - lowest, HIGHEST), xlim=(0, HIGHEST), xlabel="NFE / vanilla's")
        tight = min(tolerance for tolerance, _, _ in lines[experiment])
        for tolerance, name, against in lines[experiment]:
            seen.append(name)
            _mark(ax, name, against, lowest, pale=tolerance > tight)
        published = published_ratios(experiment, "nfe")
        for name, ratio in published.items():
            seen.append(name)
            look = plots.look(name)
            ax.plot(ratio, strip, marker=look.marker, color=look.color, fillstyle="none", markersize=9)
        if published:
            ax.text(0.02, strip, "published", va="center", fontsize="small", color="0.3")
        for line in (ax.axvline, ax.axhline):
            line(1.0, color="0.5", linewidth=1)
        ax.axhline(lowest, color="0.3", linewidth=0.8, linestyle=":")
        at = ", ".join(f"{tolerance:g}" for tolerance in sorted({tolerance for tolerance, _, _ in lines[experiment]}))
        ax.set_title(f"{papers.TITLES.get(experiment, experiment)}\nat {at}", fontsize="medium")
    for ax in axes[::3]:
        ax.set_ylabel("share of the gain kept")
    _legend(fig, seen)
    return fig


def _mark(ax: Axes, name: str, against: Comparison, lowest: float, *, pale: bool) -> None:
    assert against.nfe is not None
    look, gain, ratio = plots.look(name), against.gain, against.nfe
    x, y = min(ratio.value, HIGHEST), lowest if math.isnan(gain) else min(max(gain, lowest), HIGHEST)
    marker = look.marker
    if math.isnan(gain):
        marker = "x"
    elif (x, y) != (ratio.value, gain):
        marker = ">" if x < ratio.value else "^" if y < gain else "v"
    bars: dict[str, Any] = {"color": look.color, "linewidth": 1.2, "alpha": 0.5 if pale else 1.0}
    if ratio.low is not None and ratio.high is not None:
        ax.plot([ratio.low, ratio.high], [y, y], **bars)
    low, high = kept(against)
    if low < high:
        ax.plot([x, x], [max(low, lowest), min(high, HIGHEST)], **bars)
    face = (*look.color, 0.3 if pale else 1.0)
    edge = look.color if marker == "x" or pale else "black"
    ax.plot(x, y, marker=marker, markerfacecolor=face, markersize=_size(ratio), clip_on=False, markeredgecolor=edge,
            linestyle="none", color=look.color, markeredgewidth=1.5 if marker == "x" else 0.6)  # fmt: skip


def _size(ratio: Ratio) -> float:
    """The size of a mark: small for one seed, which has no interval and may be an easy one."""
    return 5.0 if ratio.low is None else 8.0


def kept(against: Comparison) -> tuple[float, float]:
    """Return the 95 % interval of the share of the gain that is kept (Fieller); NaN twice for one seed."""
    ours, vanilla, control = (
        dict(zip((row.seed for row in group.rows), group.values("metric"), strict=True))
        for group in (against.ours, against.vanilla, against.control)
    )
    _, low, high = kept_interval(ours, vanilla, control, level=0.95)
    return (math.nan, math.nan) if math.isnan(against.gain) else (low, high)


def published_ratios(experiment: str, *keys: str) -> dict[str, float]:
    """Return the published ratios to vanilla of the first of the entries that has one, by regularizer."""
    rows = papers.published_rows(experiment)
    found = {}
    for name in rows:
        ratios = [ratio for key in keys if not math.isnan(ratio := papers.published_ratio(rows, name, key))]
        if ratios:
            found[name] = ratios[0]
    return found


def _legend(fig: Figure, names: Sequence[str]) -> None:
    handles = []
    for name in tables.in_order(names):
        look = plots.look(name)
        handles.append(Line2D([], [], color=look.color, marker=look.marker, linestyle="none", markersize=8,
                              markeredgecolor="black", label=papers.title(name)))  # fmt: skip
    if handles:
        hollow = Line2D([], [], color="0.3", marker="o", fillstyle="none", linestyle="none", label="published")
        fig.legend(handles=[*handles, hollow], loc="outside lower center", ncols=4, fontsize="small")


def speedups(part: Evidence) -> Figure:
    """Draw how many times faster predictions and training are than vanilla's, for the regularizers of MAIN.

    Ours are filled, with 95 % intervals over seeds, small ones of one seed; those that were published are hollow.
    """
    names = drawn(part)
    lines = {name: [line for line in compared(part, name) if line[1] in MAIN] for name in names}
    height = 0.27 * sum(2 + len(found) for found in lines.values())
    fig, axes = panels(2 if names else 0, width=5.2, height=max(3.2, height))
    for ax, what, keys in zip(axes, ("predict", "train"), (("predict_seconds",), papers.TIMES), strict=False):
        y, ticks = 0.0, []
        for experiment, found in lines.items():
            published = published_ratios(experiment, *keys)
            ax.text(SLOWEST * 1.05, y, papers.TITLES.get(experiment, experiment), va="center", fontsize="small",
                    fontweight="bold")  # fmt: skip
            for tolerance, name, against in found:
                y += 1
                ratio = getattr(against, what)
                if ratio is not None:
                    _speed(ax, name, ratio.inverse(), y, published.get(name))
                ticks.append((y, f"{papers.title(name)}, {tolerance:g}"))
            y += 1.5
        ax.axvline(1.0, color="0.5", linewidth=1)
        ax.set_yticks([at for at, _ in ticks], [text for _, text in ticks] if what == "predict" else [])
        ax.tick_params(axis="y", labelsize="small")
        ax.set(ylim=(y - 0.5, -1), xscale="log", xlim=(SLOWEST, FASTEST))
        ax.set_xticks([0.25, 0.5, 1, 2, 4, 8], ["1/4", "1/2", "1", "2", "4", "8"])
        ax.minorticks_off()
        ax.set_xlabel(f"{'predictions' if what == 'predict' else 'training'}: times faster than vanilla")
    return fig


def _speed(ax: Axes, name: str, ratio: Ratio, y: float, published: float | None) -> None:
    look = plots.look(name)
    if ratio.low is not None and ratio.high is not None:
        ax.plot([ratio.low, ratio.high], [y, y], color=look.color, linewidth=1.5)
    x = min(max(ratio.value, SLOWEST), FASTEST)
    marker = look.marker if x == ratio.value else ">" if x < ratio.value else "<"
    ax.plot(x, y, marker=marker, color=look.color, markeredgecolor="black", linestyle="none", clip_on=False,
            markersize=_size(ratio))  # fmt: skip
    if published is not None:
        ax.plot(
            1 / published, y, marker=look.marker, color=look.color, fillstyle="none", markersize=10, linestyle="none"
        )


def over_training(part: Evidence, rules: Book) -> Figure:
    """Draw NFE (left) and what was learned (right) over the training, a pair of panels for each experiment.

    Lines are means over seeds, bands their range, thin lines have fewer seeds than vanilla. What was learned is the
    metric where the history has it, else the loss on the training batch. The tolerance is that of the verdicts, the
    one nearest to the published.
    """
    names = drawn(part)
    fig, axes = panels(2 * len(names), width=3.1, height=2.9, columns=4)
    seen: list[str] = []
    for experiment, left, right in zip(names, axes[::2], axes[1::2], strict=True):
        tolerance = nearest_tolerance(rules, part, experiment, tables.VANILLA)
        assert tolerance is not None  # what is drawn has a vanilla to compare with
        groups = {name: part.group(experiment, name, tolerance).rows for name in MAIN}
        for name, group in groups.items():
            if any(row.history for row in group):
                seen.append(name)
                few = len(group) < len(groups[tables.VANILLA])
                _curves(left, right, name, [row for row in group if row.history], width=1.0 if few else 1.8)
        left.set_ylim(0, 1.08 * left.get_ylim()[1])
        left.set_title(papers.TITLES.get(experiment, experiment), fontsize="small", loc="left")
        right.set_title(f"at tolerance {tolerance:g}", fontsize="small", loc="left")
        left.set_ylabel("NFE of the training solve", fontsize="small")
    if seen:
        handles = []
        for name in tables.in_order(seen):
            look = plots.look(name)
            handles.append(Line2D([], [], color=look.color, linestyle=look.dash, label=papers.title(name)))
        fig.legend(handles=handles, loc="outside lower center", ncols=4, fontsize="small")
    return fig


def _curves(left: Axes, right: Axes, name: str, group: Sequence[Row], *, width: float) -> None:
    look, metric = plots.look(name), group[0].metric
    learned = metric if all(metric in entry for row in group for entry in row.history) else "loss"
    steps = sorted(set.intersection(*({entry["step"] for entry in row.history} for row in group)))
    for ax, what in ((left, "nfe"), (right, learned)):
        at = [{entry["step"]: entry[what] for entry in row.history} for row in group]
        values = np.array([[entries[step] for step in steps] for entries in at])  # (seeds, entries)
        ax.plot(steps, values.mean(0), color=look.color, linestyle=look.dash, linewidth=width)
        ax.fill_between(steps, values.min(0), values.max(0), color=look.color, alpha=0.15, linewidth=0)
        ax.set_xlabel("training step", fontsize="small")
        ax.tick_params(labelsize="small")
    right.set_ylabel("loss on the training batch" if learned == "loss" else learned, fontsize="small")
    is_error = learned == "loss" or not group[0].higher_is_better
    if is_error and all(entry[learned] > 0 for row in group for entry in row.history):
        right.set_yscale("log")
        plots.plain_ticks(right.yaxis)
