"""Parts of an interactive element: controls, panels with a frame for each choice, series; helpers that make them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

Index = tuple[int, ...]
"""The chosen entry of each control, in their order."""


@dataclass(frozen=True)
class Control:
    """One thing that a reader may choose."""

    name: str
    """By which panels refer to it."""
    label: str
    """What stands before it."""
    choices: tuple[str, ...]
    """In words, from first to last."""
    start: int = 0
    """The entry that is shown first, and the only one where no script runs."""
    kind: Literal["slider", "menu"] = "slider"


@dataclass(frozen=True)
class Axis:
    """One axis of a panel; its limits hold for all frames, so that a change can be seen."""

    label: str
    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Series:
    """Marks of one look in a panel; a NaN breaks a line."""

    kind: Literal["line", "area", "dots", "squares", "triangles", "crosses"]
    x: ArrayLike
    """(points,)"""
    y: ArrayLike
    """(points,)"""
    color: str
    """As '#0072B2'."""
    label: str = ""
    """For the legend; empty: it has no line there."""
    dash: str = ""
    """As SVG writes it, '6 3'; empty: solid."""
    width: float = 2.0
    """Of a line, or of a mark, in pixels."""

    @property
    def look(self) -> tuple[Any, ...]:
        """All but the points."""
        return self.kind, self.color, self.label, self.dash, self.width


@dataclass(frozen=True)
class Panel:
    """One pair of axes: marks that stay, and marks of each choice."""

    x: Axis
    y: Axis
    title: str = ""
    stays: tuple[Series, ...] = ()
    by: tuple[str, ...] = ()
    """Names of the controls that change it."""
    frames: dict[Index, tuple[Series, ...]] = field(default_factory=lambda: {(): ()})
    """The series of each choice of these controls: equal in number and look, so that only points move."""


def each(make: Callable[..., Any], *sizes: int) -> dict[Index, Any]:
    """Return what `make` returns for each choice, called with the entries: index -> value."""
    return {index: make(*index) for index in product(*map(range, sizes))}


def staircase(edges: ArrayLike, heights: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners of a staircase: (n + 1,) edges and (n,) heights -> (2 n,) and (2 n,)."""
    return np.repeat(np.asarray(edges), 2)[1:-1], np.repeat(np.asarray(heights), 2)


def band(x: ArrayLike, low: ArrayLike, high: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return the outline of a band for an 'area': from the left along its lower edge, and back: (n,) -> (2 n,)."""
    at, below, above = (np.asarray(values, dtype=float) for values in (x, low, high))
    return np.concatenate([at, at[::-1]]), np.concatenate([below, above[::-1]])


def around(values: ArrayLike, *, log: bool = False, margin: float = 0.06) -> tuple[float, float]:
    """Return limits of an axis that hold all finite values, with a margin on both sides.

    Raises:
        ValueError: there is no finite value (above zero, for a logarithmic axis).
    """
    found = np.asarray(values, dtype=float).ravel()
    found = found[np.isfinite(found) & ((found > 0) | (not log))]
    if not len(found):
        raise ValueError(f"expected a finite {'positive ' if log else ''}value to draw, found none")
    low, high = (np.log10(found) if log else found).min(), (np.log10(found) if log else found).max()
    room = margin * (high - low) or 0.5 * (abs(low) if not log and low else 1.0)
    return (float(10 ** (low - room)), float(10 ** (high + room))) if log else (float(low - room), float(high + room))


def power(value: float) -> str:
    """Return a tolerance or a weight for readers: '1e-4', '3e-5', '0.3', '20'."""
    return f"{value:g}" if 1e-3 < abs(value) < 1e4 else f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
