"""An element as HTML: the first picture for all, and data and script for where scripts run."""

from __future__ import annotations

import json
from base64 import b64encode
from functools import cache
from html import escape
from itertools import product
from pathlib import Path
from typing import Any

from reproduce.live.element import LARGEST, Element
from reproduce.live.picture import drawing, paths


def html(element: Element) -> str:
    """Return an element for a page: nothing in it has an id, so several, or one twice, do not collide.

    The picture is an image, which notebooks that are not trusted keep, too; the script takes it apart and puts it back
    alive. A program of JupyterLab's own would take arrow keys for its cells; the first attribute forbids it.

    Raises:
        ValueError: the element is too large for a page.
    """
    image = b64encode(drawing(element).encode()).decode()
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


def scripts(data: Any, name: str) -> str:
    """Return data and the script that reads them, for the end of an element; the report's page knows them by class."""
    content = json.dumps(data, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
    return (
        f'<script class="rg-part" type="application/json">{content}</script>'
        f'<script class="rg-part">{asset(name)}</script>'
    )


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


@cache
def asset(name: str) -> str:
    """Return a file of this folder that pages need: the script or the look."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
