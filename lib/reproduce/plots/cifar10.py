"""Figures of lesson 10: photographs as published and as a model sees them, both models, where f is evaluated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from reproduce import plots
from reproduce.plots.lessons import method_look

LEVEL = 0.75
"""Height of a box of the drawings."""


def photographs(rows: Mapping[str, Any], titles: Sequence[str], *, axes: np.ndarray) -> None:
    """Draw rows of colour images above each other, a column for each image.

    Args:
        rows: name of a row to its images, (n, 3, side, side) with values from 0 to 1.
        titles: what stands above each column.
        axes: (rows, n).
    """
    for line, (name, images) in zip(axes, rows.items(), strict=True):
        for ax, image in zip(line, np.asarray(images), strict=False):
            ax.imshow(image.transpose(1, 2, 0).clip(0, 1), interpolation="nearest")
            ax.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, fontsize="small")
    for ax, title in zip(axes[0], titles, strict=False):
        ax.set_title(title, fontsize="small")


def standard_drawing(*, ax: Axes | None = None) -> Axes:
    """Draw the standard model: five channels join the image, an ODE carries all eight, one channel is classified."""
    ax = ax or plt.gca()
    steps = (
        ("image\n3 channels", 7), ("conv adds 5,\nbatch norm", 0), ("state $y(t)$\n8 channels", 1),
        ("conv to 1,\ngelu", 2), ("linear:\n10 logits", 2),
    )  # fmt: skip
    xs = (1.0, 3.1, 5.6, 8.1, 10.2)
    for x, (text, color) in zip(xs, steps, strict=True):
        _box(ax, x, 1.0, text, plots.PALETTE[color])
    for left, right in pairwise(xs):
        _arrow(ax, (left + 0.85, 1.0), (right - 0.85, 1.0))
    _box(ax, 5.6, 2.7, "$f_\\theta$: conv, norm, gelu;\nconv, norm, gelu; conv", plots.PALETTE[0], width=2.7)
    _loop(ax, 5.6)
    ax.text(7.15, 2.7, "time $t$ is a further\nchannel of each conv", ha="left", va="center", fontsize=8)
    return _frame(ax)


def multiscale_drawing(*, ax: Axes | None = None) -> Axes:
    """Draw the multiscale model: states of two resolutions, fused by the field, into which the image is injected."""
    ax = ax or plt.gca()
    _box(ax, 1.0, 1.0, "image\n3 channels", plots.PALETTE[7])
    _box(ax, 3.1, 1.0, "conv, norm,\nrelu", plots.PALETTE[0])
    _box(ax, 5.6, 1.0, "states, fine\nand coarse", plots.PALETTE[1])
    _box(ax, 8.1, 1.0, "conv, relu,\nmean", plots.PALETTE[2])
    _box(ax, 10.2, 1.0, "linear:\n10 logits", plots.PALETTE[2])
    xs = (1.0, 3.1, 5.6, 8.1, 10.2)
    for left, right in pairwise(xs):
        _arrow(ax, (left + 0.85, 1.0), (right - 0.85, 1.0))
    _box(ax, 5.6, 2.7, "$F_\\theta(y; x)$: a branch for\neach size, then all fused", plots.PALETTE[0], width=2.7)
    _loop(ax, 5.6)
    _arrow(ax, (3.1, 1.45), (4.15, 2.6))
    ax.text(3.35, 2.25, "injected at\nevery time", ha="right", va="center", fontsize=8)
    return _frame(ax)


def evaluations(times: Mapping[str, Sequence[float]], *, ax: Axes | None = None) -> Axes:
    """Draw a mark for each evaluation of f at its time, one line of marks for each method.

    Args:
        times: method to the times at which its solve evaluated f, in their order.
        ax: axes; None: the current ones.
    """
    ax = ax or plt.gca()
    for method, at in times.items():
        seen = method_look(method)
        ax.plot(at, range(1, len(at) + 1), color=seen.color, marker=seen.marker, linestyle=seen.dash, linewidth=0.8,
                markersize=6, label=f"{method}: {len(at)} evaluations")  # fmt: skip
    ax.set(xlabel="time t of an evaluation", ylabel="evaluations of f so far", ylim=(0, None))
    plots.legend_below(ax)
    return ax


def _box(ax: Axes, x: float, y: float, text: str, color: Any, *, width: float = 1.6) -> None:
    corner, style = (x - width / 2, y - LEVEL / 2), "round,pad=0.05"
    ax.add_patch(FancyBboxPatch(corner, width, LEVEL, boxstyle=style, facecolor=(*color, 0.3), edgecolor=color))
    ax.text(x, y, text, ha="center", va="center", fontsize=8)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    ax.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=12, color="0.35", linewidth=1.2))


def _loop(ax: Axes, x: float) -> None:
    """Two arrows between a state and the field above it: the state goes up, its derivative comes down."""
    _arrow(ax, (x - 0.35, 1.45), (x - 0.35, 2.25))
    _arrow(ax, (x + 0.35, 2.25), (x + 0.35, 1.45))
    ax.text(x - 0.45, 1.85, "$y$", ha="right", va="center", fontsize=10)
    ax.text(x + 0.45, 1.85, r"$\dot y$", ha="left", va="center", fontsize=10)


def _frame(ax: Axes) -> Axes:
    ax.set(xlim=(0.0, 11.2), ylim=(0.4, 3.3))
    ax.axis("off")
    return ax
