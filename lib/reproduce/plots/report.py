"""Figures of the report: the papers' ratios beside ours, and training curves of all experiments (no training)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import repeat

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reproduce import plots
from reproduce.plots.base import Picture
from reproduce.report import papers, study, tables, verdicts
from reproduce.report.effects import Effect
from reproduce.report.evidence import Evidence
from reproduce.report.study_tables import FORM_TITLES
from reproduce.report.verdicts import Part, Verdict
from reproduce.runs.store import Row

RANGE = (0.125, 8.0)
"""Ratios that are drawn; what lies outside sits on the edge, as a triangle pointing out."""

MAIN = ("none", "global_error", "local_unbiased", "local_biased")
"""Regularizers whose training curves are drawn."""

OFFSETS = {"ours": -0.24, "released": 0.0, "text": 0.24}
FACES = {"ours": "full", "released": "left", "text": "none"}
"""Forms of the penalty -> where their mark stands in its line, and how much of it is filled."""


def show(fig: Figure, name: str, *, alt: str, caption: str, profile: str, rows: Sequence[Row]) -> Picture:
    """Save a figure (see `plots.save`), close it, and return it as a picture with alt text and caption."""
    path = plots.save(fig, name, alt=alt, caption=caption, profile=profile, rows=rows, show=False)
    plt.close(fig)
    return Picture(path.read_bytes(), alt, caption)


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
        axes[0, 0].text(0.5, 0.5, "no rows yet", ha="center", transform=axes[0, 0].transAxes)
        axes[0, 0].axis("off")
    return fig, list(axes.flat[:n])


def ratios(judged: Sequence[Verdict], measures: Sequence[str] = ("nfe", "predict")) -> Figure:
    """Draw the papers' ratios to vanilla beside ours, one panel for each measure, one line for each penalty.

    Diamonds are printed, with the printed deviation as that of three runs; ours are marks with 95 % intervals over
    seeds: filled in our form, half filled in that of the papers' code, hollow in that of their text.
    """
    found = {measure: lines for measure in measures if (lines := _lines(judged, measure))}
    height = 1.2 + 0.42 * max([2, *(len(lines) for lines in found.values())])
    fig, axes = panels(len(found), width=6.2, height=height, columns=2)
    names = {"nfe": "evaluations, ours / vanilla's", "predict": "seconds of a prediction, ours / vanilla's"}
    for ax, (measure, lines) in zip(axes, found.items(), strict=True):
        for y, parts in enumerate(lines.values()):
            printed = next(part.printed for part in parts.values() if part.printed is not None)
            _interval(ax, y, printed, color="0.35", marker="D", fill="none")
            for form, part in parts.items():
                if part.ratio is not None:
                    seen = plots.look(part.line.partition(":")[0])
                    _interval(ax, y + OFFSETS[form], part.ratio, color=seen.color, marker="o", fill=FACES[form])
        ax.axvline(1.0, color="0.5", linewidth=1)
        names_of = [f"{tables.title(name)}: {tables.label(line)}" for name, line in lines]
        ax.set_yticks(range(len(names_of)), names_of, fontsize="small")
        ax.set(xscale="log", xlim=RANGE, ylim=(len(names_of) - 0.5, -0.5), xlabel=names.get(measure, measure))
        ax.set_xticks([1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8], ["1/8", "1/4", "1/2", "1", "2", "4", "8"])
        ax.minorticks_off()
    if found:
        _legend(fig)
    return fig


def _lines(judged: Sequence[Verdict], measure: str) -> dict[tuple[str, str], dict[str, Part]]:
    """Return (experiment, line) -> form -> what the rows say, of claims on one experiment against vanilla."""
    found: dict[tuple[str, str], dict[str, Part]] = {}
    for one in sorted(judged, key=lambda one: len(one.parts)):  # its own claim first, then those on several lines
        if one.claim.measure != measure or len(one.claim.parts) > 1 or one.claim.against != tables.VANILLA:
            continue
        for part in one.parts if len(one.parts) == 1 else map(_of_its_line, one.parts, repeat(measure)):
            found.setdefault((part.experiment, part.line.partition(":")[0]), {}).setdefault(one.form, part)
    able = {key: parts for key, parts in found.items() if any(part.ratio for part in parts.values())}
    return dict(sorted(able.items(), key=lambda item: (list(tables.TITLES).index(item[0][0]), item[0][1])))


def _of_its_line(part: Part, measure: str) -> Part:
    """Return a part of a claim on several lines with the printed ratio of its own line, where there is a table."""
    rows, line = papers.published_rows(part.experiment), part.line.partition(":")[0]
    ratio = papers.published_ratio(rows, line, *verdicts.PRINTED[measure])
    if part.printed is None or math.isnan(ratio):
        return part
    return replace(part, printed=replace(part.printed, mean=math.log(ratio)))


def _interval(ax: Axes, y: float, effect: Effect, *, color: object, marker: str, fill: str) -> None:
    value = math.exp(effect.mean)
    low, high = (math.exp(end) for end in effect.interval(study.rules()["level"])) if effect.error else (value, value)
    at = min(max(value, RANGE[0]), RANGE[1])
    shown = marker if at == value else ">" if at < value else "<"
    ax.plot([max(low, RANGE[0]), min(high, RANGE[1])], [y, y], color=color, linewidth=1.3)
    ax.plot(at, y, marker=shown, fillstyle=fill, color=color, linestyle="none", ms=7, clip_on=False)


def _legend(fig: Figure) -> None:
    handles = [Line2D([], [], color="0.35", marker="D", fillstyle="none", linestyle="none", label="printed")]
    for form, said in FORM_TITLES.items():
        handles.append(
            Line2D([], [], color="0.2", marker="o", fillstyle=FACES[form], linestyle="none", label=said)  # type: ignore[arg-type]
        )
    fig.legend(handles=handles, loc="outside lower center", ncols=4, fontsize="small")


def over_training(part: Evidence) -> Figure:
    """Draw NFE (left) and what was learned (right) over the training, a pair of panels for each experiment.

    Lines are means over seeds, bands their range. What was learned is the metric where the history has it, else the
    loss, each on the training batch.
    """
    names = part.complete()
    fig, axes = panels(2 * len(names), width=3.1, height=2.9, columns=4)
    for experiment, left, right in zip(names, axes[::2], axes[1::2], strict=True):
        for name in MAIN:
            group = [row for row in part.of(experiment) if row.regularizer == name and row.history]
            if group:
                _curves(left, right, name, group)
        left.set_ylim(0, 1.08 * left.get_ylim()[1])
        left.set_title(tables.title(experiment), fontsize="small", loc="left")
        left.set_ylabel("NFE of the training solve", fontsize="small")
    if names:
        handles = [
            Line2D([], [], color=plots.look(n).color, linestyle=plots.look(n).dash, label=tables.label(n)) for n in MAIN
        ]
        fig.legend(handles=handles, loc="outside lower center", ncols=4, fontsize="small")
    return fig


def _curves(left: Axes, right: Axes, name: str, group: Sequence[Row]) -> None:
    look, metric = plots.look(name), group[0].metric
    learned = metric if all(metric in entry for row in group for entry in row.history) else "loss"
    steps = sorted(set.intersection(*({entry["step"] for entry in row.history} for row in group)))
    for ax, what in ((left, "nfe"), (right, learned)):
        at = [{entry["step"]: entry[what] for entry in row.history} for row in group]
        values = np.array([[entries[step] for step in steps] for entries in at])  # (seeds, entries)
        ax.plot(steps, values.mean(0), color=look.color, linestyle=look.dash, linewidth=1.8)
        ax.fill_between(steps, values.min(0), values.max(0), color=look.color, alpha=0.15, linewidth=0)
        ax.set_xlabel("training step", fontsize="small")
        ax.tick_params(labelsize="small")
    right.set_ylabel(f"{learned.replace('_', '-')} (batch)", fontsize="small")
    is_error = learned == "loss" or not group[0].higher_is_better
    if is_error and all(entry[learned] > 0 for row in group for entry in row.history):
        right.set_yscale("log")
        plots.plain_ticks(right.yaxis)
