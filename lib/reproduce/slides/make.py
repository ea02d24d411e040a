"""`make slides`: the decks as folders that a browser opens without a network, and as PDF where there is Chromium."""

from __future__ import annotations

import argparse
import html
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import mistune
from latex2mathml.converter import convert
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from reproduce import checkout, pdf
from reproduce.files import write_atomically
from reproduce.slides.deck import Deck, Slide, picture, published_table, read

MATH = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+)\$", re.DOTALL)
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!http)[^)]*\)")
STYLE = """
.reveal{font-size:28px}.reveal h2{font-size:1.35em;text-transform:none}.reveal h1{font-size:2em;text-transform:none}
.reveal .body{text-align:left}.reveal img{max-height:440px;margin:0 auto;display:block}
.reveal figcaption{font-size:.55em;color:#444}.reveal pre{font-size:.5em;width:100%;box-shadow:none}
.reveal table{font-size:.42em}.reveal .small{font-size:.75em}.reveal math{font-size:1em}
"""
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="reveal/reset.css"><link rel="stylesheet" href="reveal/reveal.css">
<link rel="stylesheet" href="reveal/theme/white.css"><style>{style}</style></head>
<body><div class="reveal"><div class="slides">
{slides}
</div></div>
<script src="reveal/reveal.js"></script><script src="reveal/plugin/notes.js"></script>
<script>Reveal.initialize({{hash: true, slideNumber: true, transition: "none", pdfSeparateFragments: false,
plugins: [RevealNotes]}});</script></body></html>
"""


def page(deck: Deck, root: Path, profile: str) -> str:
    """Return a deck as HTML; its pictures are named as they lie in `pictures/`."""
    first = f"<section><h1>{html.escape(deck.title)}</h1><p>{html.escape(deck.subtitle)}</p>"
    first += (
        f"<p class='small'>{deck.minutes:g} minutes. Text CC BY 4.0, code MIT: the regnde contributors.</p></section>"
    )
    slides = [first, *(_section(slide, root, profile) for slide in deck.slides)]
    style = STYLE + HtmlFormatter().get_style_defs(".highlight")
    return PAGE.format(title=html.escape(deck.title), style=style, slides="\n".join(slides))


def _section(slide: Slide, root: Path, profile: str) -> str:
    parts = [f"<h2>{html.escape(slide.title)}</h2>"]
    if slide.points:
        parts.append("<ul>" + "".join(f"<li>{_inline(point)}</li>" for point in slide.points) + "</ul>")
    if slide.text:
        parts.append(f"<div class='small'>{markdown(slide.text)}</div>")
    if slide.code:
        parts.append(highlight(slide.code, PythonLexer(), HtmlFormatter()))
    if slide.figure:
        file, said = picture(root, slide.figure, profile)
        alt, caption = html.escape(said["alt"], quote=True), html.escape(said["caption"])
        parts.append(
            f"<figure><img src='pictures/{file.name}' alt=\"{alt}\"><figcaption>{caption}</figcaption></figure>"
        )
    if slide.table:
        parts.append(markdown(published_table(root)))
    notes = "".join(markdown(note) for note in slide.notes)
    notes = f"<aside class='notes'><p>{slide.minutes:g} min</p>{notes}</aside>"
    return f"<section><div class='body'>{''.join(parts)}</div>{notes}</section>"


def markdown(text: str) -> str:
    """Return Markdown as HTML, formulas as MathML; links to files of the checkout become their text."""
    formulas: list[str] = []

    def keep(found: re.Match[str]) -> str:
        block = found[1] is not None
        formulas.append(convert(found[1] or found[2], display="block" if block else "inline"))
        return f"\u0001{len(formulas) - 1}\u0001"

    text = LINK.sub(r"\1", MATH.sub(keep, text))
    made = str(mistune.html(text))
    return re.sub("\u0001(\\d+)\u0001", lambda found: formulas[int(found[1])], made)


def _inline(text: str) -> str:
    return re.sub(r"\A<p>(.*)</p>\s*\Z", r"\1", markdown(text), flags=re.DOTALL)


def make(names: Sequence[str], *, root: Path, out: Path, reveal: Path, profile: str) -> list[Path]:
    """Make decks in a folder; return the pages and PDFs that were made.

    Raises:
        ValueError: a deck is wrong, reveal.js was not installed, or the browser did not print all slides.
    """
    if not (reveal / "reveal.js").is_file():
        raise ValueError(f"reveal.js is not in {reveal}: run `make slides`, which installs it")
    decks = [read(root / "course" / "slides" / f"{name}.yaml", root) for name in names]
    shutil.copytree(reveal, out / "reveal", dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.mjs", "*.d.ts"))
    made = []
    for deck in decks:
        for slide in deck.slides:
            if slide.figure:
                file, _ = picture(root, slide.figure, profile)
                write_atomically(out / "pictures" / file.name, file.read_bytes())
        write_atomically(out / f"{deck.name}.html", page(deck, root, profile).encode())
        made.append(out / f"{deck.name}.html")
        if pdf.browser():
            made.append(pdf.printed(made[-1], query="?print-pdf", pages=len(deck.slides) + 1))
    return made


def main() -> int:
    """Make the decks that course/slides/ has; return 2 after a sentence where one is wrong."""
    parser = argparse.ArgumentParser(prog="reproduce.slides")
    parser.add_argument("--reveal", type=Path, required=True, help="the folder dist/ of reveal.js")
    parser.add_argument("--profile", default="", help="pictures of this profile where there are any")
    given = parser.parse_args()
    names = sorted(path.stem for path in (checkout.ROOT / "course" / "slides").glob("*.yaml"))
    try:
        out = checkout.ROOT / "build" / "slides"
        for path in make(names, root=checkout.ROOT, out=out, reveal=given.reveal, profile=given.profile):
            print(path)
    except ValueError as error:
        print(f"slides: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
