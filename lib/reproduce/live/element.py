"""An interactive element: checked when it is made; as HTML the first picture for all, data and script besides."""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import product
from typing import Any

from reproduce.live.assets import asset, scripts
from reproduce.live.parts import Control, Index, Panel, Series
from reproduce.live.picture import drawing, paths

LARGEST = 150_000
"""Bytes of an element on a page, at most: a page holds several, and a phone has to load them."""


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
        return {"text/html": html(self), "text/plain": f"{self.title}. {self.alt}"}


def html(element: Element) -> str:
    """Return an element for a page: nothing in it has an id, so several, or one twice, do not collide.

    The picture is an image, which notebooks that are not trusted keep, too; the script takes it apart and puts it back
    alive. A program of JupyterLab's own would take arrow keys for its cells; the first attribute forbids it.

    Raises:
        ValueError: the element is too large for a page.
    """
    frames = [element.frame(i) for i in range(len(element.panels))]
    image = b64encode(drawing(element.panels, frames).encode()).decode()
    page = (
        f'<div class="rg-live" data-lm-suppress-shortcuts="true"><style>{asset("live.css")}</style>'
        f'<div class="rg-title">{escape(element.title)}</div>'
        f'<img src="data:image/svg+xml;base64,{image}" alt="{escape(element.alt)}">'
        f'<p class="rg-text">{escape(element.texts[element.start])}</p>'
        f'<p class="rg-caption">{escape(element.caption)}</p>'
        f"{scripts(_data(element), 'live.js')}</div>"
    )
    if len(page.encode()) > LARGEST:
        raise ValueError(
            f"{element.title}: expected at most {LARGEST // 1000} kB on a page, found {len(page.encode()) // 1000}: "
            "ask for fewer choices, looser tolerances or fewer times"
        )
    return page


def _data(element: Element) -> dict[str, Any]:
    """Return what the script needs: lists over choices are in the order of counting, the last control fastest."""
    names = [control.name for control in element.controls]
    sizes = [range(len(control.choices)) for control in element.controls]
    return {
        "controls": [
            {"label": control.label, "choices": control.choices, "start": control.start, "kind": control.kind}
            for control in element.controls
        ],
        "panels": [
            {
                "by": [names.index(name) for name in panel.by],
                "frames": [paths(panel, by) for by in product(*(sizes[names.index(name)] for name in panel.by))],
            }
            for panel in element.panels
        ],
        "texts": [element.texts[index] for index in product(*sizes)],
    }
