"""Pictures of the ablation: what each choice does, and what each of the crossed forms costs and keeps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, Literal

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reproduce.plots.axes import plain_ticks
from reproduce.plots.palette import PALETTE, look
from reproduce.report import ablation, study, tables
from reproduce.report.ablation import CHOICES, Form
from reproduce.report.effects import Effect
from reproduce.report.study import LOCAL
from reproduce.runs.store import Row

MARKS = {(False, False): "o", (False, True): "D", (True, False): "s", (True, True): "^"}
"""(whether an initial step is taken, whether its size multiplies) -> the mark of a form."""


def crossed(rows: Sequence[Row], experiment: str) -> Figure:
    """Draw the ablation of one experiment: effects of the four choices on the left, all sixteen forms on the right.

    Args:
        rows: of the ablation, with vanilla and the control of its seeds (`report.ablation.rows_of`).
        experiment: whose.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(12.6, 4.4), layout="constrained")
    if not ablation.complete(rows):
        for ax in (left, right):
            ax.axis("off")
        left.text(0.5, 0.5, "no rows yet", ha="center", transform=left.transAxes)
        return fig
    _effects(left, ablation.ingredients(rows), PALETTE[0], -0.12, "o", "evaluations")
    _effects(left, ablation.ingredients(rows, "error"), PALETTE[1], 0.12, "D", "test error")
    left.axvline(1.0, color="0.4", linewidth=1)
    left.set_yticks(range(len(CHOICES)), [f"{name}:\n{of[1]}" for name, of in CHOICES.items()], fontsize="small")
    left.set(xscale="log", ylim=(len(CHOICES) - 0.5, -0.5), xlabel="second choice over the first, mean over all else")
    plain_ticks(left.xaxis)
    left.legend(fontsize="small")
    for form, saving in ablation.savings(rows, experiment).items():
        _form(right, form, saving.evaluations, saving.kept)
    vanilla = fmean(row.nfe for row in rows if row.regularizer == tables.VANILLA)
    right.axvline(vanilla, color=look(tables.VANILLA).color, linewidth=1)
    right.axhline(study.rules()["gain"], color="0.4", linewidth=1)
    right.set(xscale="log", xlabel="evaluations of f for one prediction", ylabel="share of vanilla's gain that is kept")
    plain_ticks(right.xaxis)
    right.legend(handles=_legend(), fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    fig.suptitle(tables.title(experiment), fontsize="medium", fontweight="bold")
    return fig


def _effects(ax: Axes, found: Mapping[str, Effect], color: Any, shift: float, marker: str, label: str) -> None:
    """Draw ratios with their intervals, one line for each choice."""
    for y, name in enumerate(CHOICES):
        if name in found:
            ends = [math.exp(end) for end in found[name].interval(study.rules()["level"])]
            ax.plot(ends, [y + shift] * 2, color=color)
            ax.plot(
                math.exp(found[name].mean), y + shift, color=color, marker=marker, linestyle="none",
                label=label if y == 0 else None,
            )  # fmt: skip


def _form(ax: Axes, form: Form, evaluations: float, kept: tuple[float, float, float]) -> None:
    """Draw a form: hue for the draw, mark for the step, filled where the first stage is differentiated."""
    unbiased, initial, dt, held = form.second
    color = look(LOCAL[unbiased]).color
    share, low, high = kept
    ends = [[min(share - low, 9.0)], [min(high - share, 9.0)]]  # without an end where vanilla's gain is not sure
    ax.errorbar(evaluations, share, yerr=ends, color=color, linewidth=1, alpha=0.6)
    fill: Literal["full", "none"] = "none" if held else "full"
    ax.plot(evaluations, share, color=color, marker=MARKS[initial, dt], fillstyle=fill, ms=8, linestyle="none")


def _legend() -> list[Line2D]:
    """Return handles that explain hue, mark and fill, each by itself."""
    steps = {False: CHOICES["step"][0], True: CHOICES["step"][1]}
    sizes = {False: "", True: f", {CHOICES['size'][1]}"}
    black = (0.0, 0.0, 0.0)
    handles = [Line2D([], [], color=look(line).color, lw=4, label=tables.label(line)) for line in LOCAL]
    handles += [
        Line2D([], [], color=black, marker=mark, linestyle="none", label=f"{steps[initial]}{sizes[dt]}")
        for (initial, dt), mark in MARKS.items()
    ]
    fills: dict[Literal["full", "none"], str] = dict(zip(("full", "none"), CHOICES["first stage"], strict=True))
    handles += [
        Line2D([], [], color=black, marker="o", fillstyle=fill, linestyle="none", label=f"first stage {words}")
        for fill, words in fills.items()
    ]
    handles.append(Line2D([], [], color=look(tables.VANILLA).color, lw=1, label=tables.label(tables.VANILLA)))
    return handles
