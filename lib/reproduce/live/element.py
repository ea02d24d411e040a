"""What an interactive element shows: controls, panels with a frame for each choice, and a sentence for each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

Index = tuple[int, ...]
"""The chosen entry of each control, in their order."""
LARGEST = 150_000
"""Bytes of an element on a page, at most: a page holds several, and a phone has to load them."""


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


@dataclass(frozen=True)
class Element:
    """An interactive picture that needs no kernel, and shows itself as the last line of a notebook's cell.

    It is alive wherever scripts run: in JupyterLab, in an executed notebook, on the site. Elsewhere its first picture
    stands in its place. All that it can show is computed before.

    Raises:
        ValueError: a choice without its frame or sentence, frames of different looks, or axes that cannot be drawn.
    """

    title: str
    controls: tuple[Control, ...]
    panels: tuple[Panel, ...]
    texts: dict[Index, str]
    """What each choice shows, in a sentence that is read aloud, too."""
    caption: str
    alt: str
    """What the axes are and what the first picture shows."""

    def __post_init__(self) -> None:
        names = [control.name for control in self.controls]
        if len(set(names)) < len(names):
            raise ValueError(f"{self.title}: controls need names of their own, found {names}")
        for control in self.controls:
            if not 0 <= control.start < len(control.choices):
                raise ValueError(f"{self.title}: {control.name} starts at {control.start} of {len(control.choices)}")
        self._expect("texts", self.texts, names)
        for panel in self.panels:
            if unknown := set(panel.by) - set(names):
                raise ValueError(f"{self.title}: no control is named {sorted(unknown)}; there are {names}")
            self._expect(f"frames of {panel.title!r}", panel.frames, panel.by)
            looks = {tuple(series.look for series in frame) for frame in panel.frames.values()}
            if len(looks) > 1:
                raise ValueError(f"{self.title}: frames of {panel.title!r} differ in the looks of their series")
            for axis in (panel.x, panel.y):
                if not (math.isfinite(axis.low) and axis.low < axis.high < math.inf and (axis.low > 0 or not axis.log)):
                    raise ValueError(f"{self.title}: cannot draw an axis from {axis.low} to {axis.high}: {axis}")

    def _expect(self, what: str, found: dict[Index, Any], by: Sequence[str]) -> None:
        expected = set(product(*(range(len(self.control(name).choices)) for name in by)))
        if set(found) != expected:
            raise ValueError(
                f"{self.title}: {what}: expected one for each of {len(expected)} choices, found {len(found)}"
            )

    def control(self, name: str) -> Control:
        """Return the control of a name."""
        return next(control for control in self.controls if control.name == name)

    @property
    def start(self) -> Index:
        """The choice that is shown first."""
        return tuple(control.start for control in self.controls)

    def frame(self, panel: int, index: Index | None = None) -> tuple[Series, ...]:
        """Return the moving series of a panel at a choice of all controls; None: at the first one."""
        names, index = [control.name for control in self.controls], self.start if index is None else index
        shown = self.panels[panel]
        return shown.frames[tuple(index[names.index(name)] for name in shown.by)]

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        from reproduce.live.page import html  # which draws elements

        return {"text/html": html(self), "text/plain": f"{self.title}. {self.alt}"}


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
