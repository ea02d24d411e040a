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
                data["text/html"] = _with_captions(text, tables, escape(_ended(caption)))
            elif "text/markdown" in data:
                own = caption if "caption" in cell.metadata else ""
                data["text/markdown"] = captioned("".join(data["text/markdown"]), tables, own=own, otherwise=above)
    return notebook


def _with_captions(text: str, numbers: Iterator[str], said: str) -> str:
    return HTML_TABLE.sub(lambda table: f"{table[1]}<caption><b>{next(numbers)}</b> {said}</caption>", text)


def captioned(text: str, numbers: Iterator[str], *, own: str = "", otherwise: str = "") -> str:
    """Return Markdown with a line above each table: its number, and `own`, or the heading above it, or `otherwise`."""
    if CAPTIONED.search(text):
        return text

    def line(match: re.Match[str]) -> str:
        above = own or (HEADING.findall(text[: match.start()]) or [otherwise])[-1]
        return f"**{next(numbers)}** {_ended(above)}\n\n"

    return MARKDOWN_TABLE.sub(line, text)


def page_captioned(text: str) -> str:
    """Return a page of Markdown for Sphinx with its tables numbered, each below the heading that it has."""
    return for_sphinx(captioned(text, _names("Table", "")))


def for_sphinx(text: str) -> str:
    """Return Markdown whose captions stand in directives of Sphinx."""
    return CAPTIONED.sub(r"\n:::{table} **\1** \2\n\n\3\n:::\n", text)


def _names(kind: str, before: str) -> Iterator[str]:
    return (f"{kind} {before}{place}." for place in itertools.count(1))


def _ended(text: str) -> str:
    return text if text[-1:] in ("", ".", "?", "!") else f"{text}."
