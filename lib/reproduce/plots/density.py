"""Figures of lesson 12: a flow as a drawing, densities in the plane, traces, errors of likelihoods, samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from reproduce import plots
from reproduce.report import tables

SIDE, LEVELS = 8, 16


def digits(pictures: Any, *, columns: int, ax: Axes, titles: Sequence[str] = ()) -> Axes:
    """Draw images of 8x8 pixels beside and below each other, black for the highest of 16 grey levels.

    Args:
        pictures: (n, 64), grey levels; what lies outside of 0 to 16 is drawn as the end of the scale.
        columns: images in a line.
        ax: axes.
        titles: a short text above each image.
    """
    pictures = np.asarray(pictures, dtype=float).reshape(-1, SIDE, SIDE)
    lines, pitch = -(-len(pictures) // columns), SIDE + (3 if titles else 1)
    sheet = np.full((lines * pitch - (pitch - SIDE), columns * (SIDE + 1) - 1), np.nan)
    for i, picture in enumerate(pictures):
        top, left = i // columns * pitch, i % columns * (SIDE + 1)
        sheet[top : top + SIDE, left : left + SIDE] = picture
        if titles:
            ax.text(left + SIDE / 2 - 0.5, top - 0.8, titles[i], ha="center", va="bottom", fontsize=7)
    ax.imshow(sheet, cmap="gray_r", vmin=0, vmax=LEVELS, interpolation="nearest")
    ax.axis("off")
    return ax


def model_drawing(*, ax: Axes) -> Axes:
    """Draw the flow: image and noise, standardization, the solve of position and log-volume, the base, the sum."""
    _box(ax, 1.2, 3.0, "image $x$\nplus noise $u$", plots.PALETTE[7])
    _box(ax, 4.0, 3.0, "standardize\n$z(0)$, $l(0) = 0$", plots.PALETTE[0])
    _box(ax, 7.2, 3.0, "ODE solver\n$\\dot z = v_\\theta(t, z)$\n$\\dot l = \\mathrm{tr}\\,\\partial v/\\partial z$",
         plots.PALETTE[1], height=1.5)  # fmt: skip
    _box(ax, 10.2, 3.0, "base at $t = 1$\n$z(1)$, $l(1)$", plots.PALETTE[2])
    _box(ax, 7.2, 0.8, "$\\log p = \\log N(z(1); 0, I) + l(1) - \\sum \\log$ scale", plots.PALETTE[4], width=6.2)
    for start, end in ((2.2, 3.0), (5.0, 6.2), (8.2, 9.2)):
        _arrow(ax, (start, 3.3), (end, 3.3), "0.35")
        _arrow(ax, (end, 2.75), (start, 2.75), plots.PALETTE[3], dash="--")
    _arrow(ax, (10.2, 2.5), (9.4, 1.2), "0.35")
    ax.text(5.7, 4.35, "likelihood: from the image to the base", ha="center", fontsize=9)
    ax.text(2.6, 2.0, "samples: the same equation\nbackwards in time (dashed)", ha="center", va="center", fontsize=9)
    ax.set(xlim=(0.1, 11.4), ylim=(0.2, 4.7))
    ax.axis("off")
    return ax


def _box(ax: Axes, x: float, y: float, text: str, color: Any, *, width: float = 1.8, height: float = 0.8) -> None:
    ax.add_patch(FancyBboxPatch((x - width / 2, y - height / 2), width, height, boxstyle="round,pad=0.05",
                                facecolor=(*color, 0.25), edgecolor=color))  # fmt: skip
    ax.text(x, y, text, ha="center", va="center", fontsize=9)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], color: Any, *, dash: str = "-") -> None:
    ax.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=12, color=color, linestyle=dash,
                                 linewidth=1.3))  # fmt: skip


def plane(middles: Any, density: Any, points: Any, *, ax: Axes, name: str) -> Axes:
    """Draw a density in the plane as shades, with points over it.

    Args:
        middles, density: as from `density_toy.density_on_grid`.
        points: (n, 2).
        ax: axes.
        name: title.
    """
    image = ax.pcolormesh(middles, middles, density, cmap="Blues", shading="nearest", rasterized=True)
    x, y = np.asarray(points).T
    ax.plot(x, y, color="black", marker=".", markersize=2.5, linestyle="none", alpha=0.6)
    ax.set(xlabel="$x_1$", ylabel="$x_2$", title=name, aspect="equal")
    ax.grid(False)
    ax.figure.colorbar(image, ax=ax, shrink=0.8, label="density")
    return ax


def estimates(values: Any, exact: float, *, ax: Axes) -> Axes:
    """Draw the spread of estimated log-likelihoods of one image around the exact one.

    Args:
        values: (draws,), nats.
        exact: nats.
        ax: axes.
    """
    values = np.asarray(values)
    ax.hist(values, bins=40, color=plots.PALETTE[0], alpha=0.6, label="one noise vector each")
    ax.axvline(exact, color="black", linewidth=2, label="exact trace")
    ax.axvline(values.mean(), color=plots.PALETTE[1], linestyle="--", linewidth=2, label="mean of the estimates")
    ax.set(xlabel="log-likelihood of one image, nats", ylabel="number of noise vectors")
    plots.legend_below(ax, ncols=3)
    return ax


def error_against_nfe(curves: Mapping[str, Sequence[tuple[float, float, float]]], *, ax: Axes) -> Axes:
    """Draw what an evaluation buys: error of the likelihood over NFE, a line for each model, a mark for each tolerance.

    Args:
        curves: regularizer to (tolerance, NFE, mean absolute error in nats), one for each tolerance.
        ax: axes; the vertical one becomes logarithmic.
    """
    for i, (name, curve) in enumerate(curves.items()):
        seen = plots.look(name)
        tolerance, nfe, error = (np.array(column) for column in zip(*curve, strict=True))
        ax.semilogy(nfe, error, color=seen.color, marker=seen.marker, linestyle=seen.dash, label=tables.label(name))
        right = i == 0  # the first one's tolerances stand to its right, the others' to their left
        for point in zip(nfe, error, tolerance, strict=True):
            ax.annotate(f"{point[2]:.0e}".replace("e-0", "e-"), point[:2], fontsize=7, color="0.25",
                        xytext=(6, 4) if right else (-6, -9), textcoords="offset points",
                        ha="left" if right else "right")  # fmt: skip
    ax.set(xlabel="evaluations of the field for one batch (NFE)", ylabel="error of the likelihood, nats for each image")
    plots.legend_below(ax)
    return ax


def likelihoods(values: Mapping[str, Any], *, ax: Axes, gaussian: Any = None) -> Axes:
    """Draw how log-likelihoods of the test images are spread: an outline for each model, its mean as a short bar.

    Args:
        values: regularizer (or the control) to log-likelihoods (n,), nats.
        ax: axes.
        gaussian: those of the fitted normal density.
    """
    series = [(tables.label(name), plots.look(name).color, plots.look(name).dash, v) for name, v in values.items()]
    if gaussian is not None:
        series.append(("normal density", "0.35", (0, (1, 1)), gaussian))
    low = min(np.quantile(np.asarray(v), 0.005) for *_, v in series)
    high = max(np.max(np.asarray(v)) for *_, v in series)
    bins = np.linspace(low, high, 40)
    for label, color, dash, found in series:
        found = np.asarray(found)
        ax.hist(found, bins=list(bins), histtype="step", color=color, linestyle=dash, linewidth=1.6,
                label=f"{label}: mean {found.mean():.1f}")  # fmt: skip
        ax.axvline(found.mean(), ymax=0.06, color=color, linewidth=3)
    ax.set(xlabel="log-likelihood of a test image, nats", ylabel="number of images")
    plots.legend_below(ax)
    return ax
