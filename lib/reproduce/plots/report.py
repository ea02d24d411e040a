"""Figures of the report: gain against cost, speed-ups, and training curves of all experiments (no training)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Image
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reproduce import plots
from reproduce.report import papers, tables
from reproduce.report.evidence import Evidence
from reproduce.report.ratios import Comparison, Ratio, compare
from reproduce.runs.store import Row

LOWEST, HIGHEST = -0.1, 1.25
"""Range of gain kept and of ratios that is drawn; what lies outside sits on the edge, as a triangle pointing out."""

NEAR = 0.6
"""The gain kept is drawn from here upwards where no mark lies lower."""

SLOWEST, FASTEST = 0.25, 8.0
"""Range of speed-ups that is drawn."""

MAIN = ("none", "global_error", "local_unbiased", "local_biased")
"""Regularizers whose training curves are drawn."""


def show(fig: Figure, name: str, *, alt: str, caption: str, profile: str, rows: Sequence[Row]) -> Image:
    """Save a figure (see `plots.save`), close it, and return it as a picture that carries its alt text."""
    path = plots.save(fig, name, alt=alt, caption=caption, profile=profile, rows=rows)
    plt.close(fig)
    return Image(data=path.read_bytes(), format="png", alt=alt, width=int(fig.get_size_inches()[0] * 80))


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

    Filled marks are our regularizers, one for each tolerance, bars their 95 % intervals; hollow marks on the lower
    edge are the published ratios, for which no control was published.
    """
    names = drawn(part)
    fig, axes = panels(len(names))
    lines = {experiment: list(compared(part, experiment)) for experiment in names}
    gains = [against.gain for found in lines.values() for _, _, against in found if not math.isnan(against.gain)]
    lowest = max(LOWEST, min([NEAR, *(gain - 0.1 for gain in gains)]))
    seen: list[str] = []
    for ax, experiment in zip(axes, names, strict=True):
        for _, name, against in lines[experiment]:
            seen.append(name)
            _mark(ax, name, against, lowest)
        for name, ratio in published_ratios(experiment, "nfe").items():
            seen.append(name)
            look = plots.look(name)
            ax.plot(ratio, lowest, marker=look.marker, color=look.color, fillstyle="none", clip_on=False, markersize=9)
        ax.axvline(1.0, color="0.5", linewidth=1)
        ax.axhline(1.0, color="0.5", linewidth=1)
        ax.set(ylim=(lowest, HIGHEST), xlim=(0, HIGHEST), xlabel="NFE / vanilla's", ylabel="share of the gain kept")
        ax.set_title(papers.TITLES.get(experiment, experiment), fontsize="medium")
    _legend(fig, seen)
    return fig


def _mark(ax: Axes, name: str, against: Comparison, lowest: float) -> None:
    assert against.nfe is not None
    look, gain, ratio = plots.look(name), against.gain, against.nfe
    x, y = min(ratio.value, HIGHEST), lowest if math.isnan(gain) else min(max(gain, lowest), HIGHEST)
    marker = look.marker
    if math.isnan(gain):
        marker = "x"
    elif (x, y) != (ratio.value, gain):
        marker = ">" if x < ratio.value else "^" if y < gain else "v"
    if ratio.low is not None and ratio.high is not None:
        ax.plot([ratio.low, ratio.high], [y, y], color=look.color, linewidth=1.2)
    edge = look.color if marker == "x" else "black"
    ax.plot(x, y, marker=marker, color=look.color, markersize=8, clip_on=False, markeredgecolor=edge, linestyle="none")


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
    """Draw how many times faster predictions and training are than vanilla's: ours with intervals, published hollow."""
    names = drawn(part)
    fig, axes = panels(2 if names else 0, width=6.4, height=max(3.2, 0.24 * sum(_height(part, name) for name in names)))
    for ax, what, keys in zip(axes, ("predict", "train"), (("predict_seconds",), papers.TIMES), strict=False):
        y, ticks = 0.0, []
        for experiment in names:
            published = published_ratios(experiment, *keys)
            for tolerance, name, against in compared(part, experiment):
                ratio = getattr(against, what)
                if ratio is not None:
                    _speed(ax, name, ratio.inverse(), y, published.get(name))
                where = papers.TITLES.get(experiment, experiment)
                ticks.append((y, f"{where}, {tolerance:g}: {papers.title(name)}"))
                y += 1
            y += 1
        ax.axvline(1.0, color="0.5", linewidth=1)
        ax.set_yticks([at for at, _ in ticks], [text for _, text in ticks] if what == "predict" else [], fontsize=7)
        ax.set(ylim=(y - 1, -1), xscale="log", xlim=(SLOWEST, FASTEST))
        ax.set_xticks([0.25, 0.5, 1, 2, 4, 8], ["1/4", "1/2", "1", "2", "4", "8"])
        ax.minorticks_off()
        ax.set_xlabel(f"{'predictions' if what == 'predict' else 'training'}: times faster than vanilla")
    return fig


def _height(part: Evidence, experiment: str) -> int:
    return 1 + sum(1 for _ in compared(part, experiment))


def _speed(ax: Axes, name: str, ratio: Ratio, y: float, published: float | None) -> None:
    look = plots.look(name)
    if ratio.low is not None and ratio.high is not None:
        ax.plot([ratio.low, ratio.high], [y, y], color=look.color, linewidth=1.5)
    x = min(max(ratio.value, SLOWEST), FASTEST)
    marker = look.marker if x == ratio.value else ">" if x < ratio.value else "<"
    ax.plot(x, y, marker=marker, color=look.color, markeredgecolor="black", linestyle="none", clip_on=False)
    if published is not None:
        ax.plot(
            1 / published, y, marker=look.marker, color=look.color, fillstyle="none", markersize=10, linestyle="none"
        )


def over_training(part: Evidence) -> Figure:
    """Draw NFE (left) and what was learned (right) over the training, a pair of panels for each experiment.

    Lines are means over seeds, bands their range. What was learned is the metric where the history has it, else the
    loss on the training batch.
    """
    names = drawn(part)
    fig, axes = panels(2 * len(names), width=3.7, height=3.1, columns=4)
    seen: list[str] = []
    for experiment, left, right in zip(names, axes[::2], axes[1::2], strict=True):
        tolerance = max(run.tolerance for run in part.wanted if run.experiment == experiment)
        for name in MAIN:
            group = [row for row in part.group(experiment, name, tolerance).rows if row.history]
            if group:
                seen.append(name)
                _curves(left, right, name, group)
        left.set_title(papers.TITLES.get(experiment, experiment), fontsize="medium")
        left.set_ylabel("NFE of the training solve")
        right.set_title(f"at tolerance {tolerance:g}", fontsize="medium")
    if seen:
        handles = []
        for name in tables.in_order(seen):
            look = plots.look(name)
            handles.append(Line2D([], [], color=look.color, linestyle=look.dash, label=papers.title(name)))
        fig.legend(handles=handles, loc="outside lower center", ncols=4, fontsize="small")
    return fig


def _curves(left: Axes, right: Axes, name: str, group: Sequence[Row]) -> None:
    look, metric = plots.look(name), group[0].metric
    learned = metric if all(metric in entry for row in group for entry in row.history) else "loss"
    steps = sorted(set.intersection(*({entry["step"] for entry in row.history} for row in group)))
    for ax, what in ((left, "nfe"), (right, learned)):
        at = [{entry["step"]: entry[what] for entry in row.history} for row in group]
        values = np.array([[entries[step] for step in steps] for entries in at])  # (seeds, entries)
        ax.plot(steps, values.mean(0), color=look.color, linestyle=look.dash)
        ax.fill_between(steps, values.min(0), values.max(0), color=look.color, alpha=0.15, linewidth=0)
        ax.set_xlabel("training step")
    right.set_ylabel("loss on the training batch" if learned == "loss" else learned)
    is_error = learned == "loss" or not group[0].higher_is_better
    if is_error and all(entry[learned] > 0 for row in group for entry in row.history):
        right.set_yscale("log")
