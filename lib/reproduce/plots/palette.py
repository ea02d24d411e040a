"""The look of all pictures: one colour, marker and dash for each regularizer, and matplotlib's settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import seaborn as sns

from reproduce.report import tables

PALETTE = sns.color_palette("colorblind")
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
    i = tables.rank(name)
    shift = i + (sum(map(ord, name)) if set(name) & set(":+") else 0)
    return Look(PALETTE[i % len(PALETTE)], MARKERS[shift % len(MARKERS)], DASHES[shift % len(DASHES)])


def style() -> None:
    """Set the look of all figures, whatever a user's matplotlibrc says; called once at the top of a notebook."""
    plt.rcdefaults()
    sns.set_theme(style="whitegrid", context="notebook")
    plt.rcParams.update({"figure.figsize": (7.0, 4.2), "figure.dpi": 100, "svg.hashsalt": "regnde"})
    plt.rcParams.update({"axes.titlesize": "medium", "axes.titleweight": "bold", "savefig.bbox": "tight"})
