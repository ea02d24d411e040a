"""One HTML file from an executed notebook: pictures inside, no code shown, nothing loaded from the network."""

from __future__ import annotations

import html
import re
from typing import Any

from reproduce.report.captions import numbered

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.55 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 0 auto; max-width: 76rem;
       padding: 1.5rem; }
p, li { max-width: 54rem; }
h1, h2, h3 { line-height: 1.25; margin-top: 2.2rem; }
a.anchor-link { display: none; }
.jp-RenderedHTMLCommon, .output_markdown { overflow-x: auto; }
table { border-collapse: collapse; font-size: .8rem; margin: 1rem 0; }
th, td { border: 1px solid #c8c8c8; padding: .3rem .5rem; text-align: left; vertical-align: top; }
th { background: #f0f0f0; }
tr:nth-child(even) td { background: #f8f8f8; }
img { max-width: 100%; height: auto; }
nav ol { columns: 2 22rem; max-width: 54rem; }
@page { size: A4 landscape; margin: 12mm; }
@media print {
  body { font-size: 10pt; max-width: none; padding: 0; } table { font-size: 7.5pt; } img { max-height: 17cm; }
  h2, h3 { break-after: avoid; } tr, img { break-inside: avoid; }
}
figure { margin: 1rem 0; }
figcaption, caption { font-size: .9rem; text-align: left; }
pre { white-space: pre-wrap; }
code { background: #f2f2f2; padding: 0 .2em; }
"""
LOADS = re.compile(
    r"""<script\b|<link\b|<iframe\b|<object\b|@import|\bsrc(set)?\s*=\s*(?!["']?data:)|url\(\s*(?!["']?(data:|\#))""",
    re.IGNORECASE,
)
"""What would make a browser load or run something when it opens the page."""
ALIVE = re.compile(r'<script class="rg-part"[^>]*>.*?</script>', re.DOTALL)
"""The scripts of interactive elements, which stand as pictures, and quizzes as lists, without them."""
HEADING = re.compile(r'<h2 id="([^"]+)">(.*?)(?=<a class="anchor-link|</h2>)', re.DOTALL)
"""A section's heading as nbconvert writes it: its id, and its words."""


def _with_contents(body: str) -> str:
    """Return the page's body with a list of its sections after the title."""
    found = HEADING.findall(body)
    if not found or "</h1>" not in body:
        return body
    links = "".join(f'<li><a href="#{name}">{words.strip()}</a></li>' for name, words in found)
    return body.replace("</h1>", f'</h1>\n<nav aria-label="Contents"><ol>{links}</ol></nav>', 1)


def page(notebook: Any) -> str:
    """Return an executed notebook as one HTML page: prose, tables and pictures; code is left out.

    Args:
        notebook: a notebook as nbformat reads it, with outputs.

    Raises:
        ValueError: an output needs a script or the network, so the page alone would not show it.
    """
    from nbconvert import HTMLExporter  # here: it takes a second

    exporter = HTMLExporter(template_name="basic", exclude_input=True, exclude_output_prompt=True, embed_images=True)
    body = exporter.from_notebook_node(numbered(notebook))[0]
    body = re.sub(r"<style\b.*?</style>", "", body, flags=re.DOTALL | re.IGNORECASE)
    body = ALIVE.sub("", body)
    if found := LOADS.search(re.sub(r"<(code|pre)\b.*?</\1>", "", body, flags=re.DOTALL)):
        raise ValueError(f"the page would load or run something: {body[found.start() : found.start() + 120]!r}")
    body = _with_contents(body)
    title = next((line[2:] for cell in notebook.cells for line in cell.source.splitlines() if line[:2] == "# "), "")
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}<title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )
