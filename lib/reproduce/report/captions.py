"""Numbers of the figures and tables in a notebook's outputs, and captions of its tables."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Iterator
from html import escape
from typing import Any

FIGURE = re.compile(r"<figcaption>(?!<b>)")
"""Where the caption of a figure begins that has no number."""
HTML_TABLE = re.compile(r"(<table\b[^>]*>)(?!\s*<caption)")
MARKDOWN_TABLE = re.compile(r"^(?=\|[^\n]*\n\|[ :-]*-{3})", re.MULTILINE)
"""Where a table of Markdown begins: a line of cells above a line of dashes."""
HEADING = re.compile(r"^#{1,6} +(?:\d+ *[·.] *)?(.+?) *$", re.MULTILINE)
"""A heading, without its number."""
CAPTIONED = re.compile(r"\*\*(Table [\d.]+)\*\* ([^\n]*)\n\n((?:\|[^\n]*(?:\n|\Z))+)")
"""A table of Markdown with its caption: number, text, and the table."""


def numbered(notebook: Any) -> Any:
    """Return a notebook whose figures and tables are numbered in its outputs: "Figure 6.2.", "Table 6.1.".

    The first number is that at the beginning of the title ("# 06 · MNIST"); without one there is only the place. A
    table's caption is the entry `caption` of its cell's metadata, else the heading above it.
    """
    notebook = copy.deepcopy(notebook)
    title = re.match(r"# (\d+)", notebook.cells[0].source) if notebook.cells else None
    before, above = f"{int(title[1])}." if title else "", ""
    figures, tables = (_names(kind, before) for kind in ("Figure", "Table"))
    for cell in notebook.cells:
        above = (HEADING.findall(cell.source) or [above])[-1] if cell.cell_type == "markdown" else above
        for data in (output.get("data", {}) for output in cell.get("outputs", ())):
            caption = str(cell.metadata.get("caption", above))
            if "text/html" in data:
                text = FIGURE.sub(lambda _: f"<figcaption><b>{next(figures)}</b> ", "".join(data["text/html"]))
                data["text/html"] = HTML_TABLE.sub(
                    lambda match, said=caption: (
                        f"{match[1]}<caption><b>{next(tables)}</b> {escape(_ended(said))}</caption>"
                    ),
                    text,
                )
            elif "text/markdown" in data:
                text, own = "".join(data["text/markdown"]), "caption" in cell.metadata
                if not CAPTIONED.search(text):
                    data["text/markdown"] = MARKDOWN_TABLE.sub(
                        lambda match, said=caption, own=own: (
                            f"**{next(tables)}** {_ended(said if own else _above(match, said))}\n\n"
                        ),
                        text,
                    )
    return notebook


def _names(kind: str, before: str) -> Iterator[str]:
    return (f"{kind} {before}{place}." for place in itertools.count(1))


def _above(match: re.Match[str], otherwise: str) -> str:
    """Return the heading above a table in its own text, if there is one."""
    return (HEADING.findall(match.string[: match.start()]) or [otherwise])[-1]


def _ended(text: str) -> str:
    return text if text[-1:] in ("", ".", "?", "!") else f"{text}."
