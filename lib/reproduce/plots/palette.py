"""The look of all pictures: one colour, marker and dash for each regularizer, and matplotlib's settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import seaborn as sns
from cycler import cycler
from matplotlib.colors import to_rgb

from reproduce.report import tables

REGULARIZERS = {
    tables.VANILLA: to_rgb("#0072B2"),
    "steer": to_rgb("#B35C00"),
    "global_error": to_rgb("#00805C"),
    "global_stiffness": to_rgb("#E04B00"),
    "local_unbiased": to_rgb("#C23FA0"),
    "local_biased": to_rgb("#99000D"),
    "local_stiffness": to_rgb("#FF3D7F"),
    "taynode": to_rgb("#5E3FB0"),
    "kinetic_jacobian": to_rgb("#8A7A00"),
    tables.CONTROL: to_rgb("#0096A8"),
}
"""Strong colours, each for one regularizer and for nothing else; black for one that is not in the tables."""

PALETTE = tuple(
    to_rgb(color) for color in ("#33404D", "#9A6B3F", "#5C7F5C", "#8C5A7B", "#6F7FA8", "#5A4632", "#000000", "#7A7F87")
)
"""Muted colours for all that is no regularizer: methods, tolerances, stages, boxes of a drawing."""

MARKERS = "os^DvPX*<>"
DASHES = ("-", "--", ":", "-.", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 3)))


@dataclass(frozen=True)
class Look:
    """Colour, marker and dash of one series: two cues beside the colour, for readers who do not see it."""

    color: Any
    marker: str
    dash: Any


def look(name: str) -> Look:
    """Return the look of a regularizer, the same in every figure; variants and sums differ by marker and dash."""
    i, first = tables.rank(name), name.partition(":")[0].split("+")[0]
    more = sum(map(ord, name)) if set(name) & set(":+") else 0
    shift = i + more + (more > 0 and 0 in (more % len(MARKERS), more % len(DASHES)))  # never that of the plain one
    return Look(REGULARIZERS.get(first, (0.0, 0.0, 0.0)), MARKERS[shift % len(MARKERS)], DASHES[shift % len(DASHES)])


def style() -> None:
    """Set the look of all figures, whatever a user's matplotlibrc says; called once at the top of a notebook."""
    plt.rcdefaults()
    sns.set_theme(style="whitegrid", context="notebook")
    plt.rcParams.update({"figure.figsize": (7.0, 4.2), "figure.dpi": 100, "svg.hashsalt": "regnde"})
    plt.rcParams.update({"axes.titlesize": "medium", "axes.titleweight": "bold", "savefig.bbox": "tight"})
    plt.rcParams["axes.prop_cycle"] = cycler(color=PALETTE)
