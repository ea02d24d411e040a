"""No result is typed into prose: numbers beside NFE, x or % come from generated blocks and from code."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from reproduce import checkout
from reproduce.report.front import BEGIN, END

NUMBER = r"\d[\d.,]*"
RESULTS = tuple(
    re.compile(pattern)
    for pattern in (
        rf"{NUMBER}\s*[x×](?![\w'])",
        rf"{NUMBER}\s*%",
        rf"\bNFE\b[^.,;:|()\n]{{0,20}}?(?<![\w.]){NUMBER}",
        rf"{NUMBER}\s*(?:NFE|evaluations|function evaluations)\b",
        rf"{NUMBER} of vanilla",
        rf"{NUMBER}\s*(?:times|-fold|fold)\s*(?:faster|slower|cheaper|dearer|fewer|more|less)",
    )
)
ALLOWED = (
    r"9\d\s*%\s*(?:t-)?(?:interval|confidence)",
    r"(?:band|interval)s?\b[^.]{0,20}9\d\s*%",
    r"NFE is 2 \+ ",
    r"[\d.,]+\s*[x×]\s*(?:1e-\d|10\^|\d)",
)
"""Settings and formulas: the level of an interval, how NFE is counted, products of numbers (sizes, units)."""

NOT_PROSE = (
    re.escape(BEGIN) + ".*?" + re.escape(END),
    "```.*?```",
    "`[^`\n]*`",
    r"\$\$.*?\$\$",
    r"\$[^$\n]*\$",
    "<code>.*?</code>",
    r"\]\([^)]*\)",
)
"""Generated blocks, code, formulas, addresses."""


def typed(text: str) -> list[str]:
    """Return the results that stand in prose, each with what is around it."""
    for pattern in (*NOT_PROSE, *ALLOWED):
        text = re.sub(pattern, " ", text, flags=re.DOTALL)
    hits = [hit for pattern in RESULTS for hit in pattern.finditer(text)]
    return [" ".join(text[max(0, hit.start() - 40) : hit.end() + 20].split()) for hit in hits]


PAGES = [
    checkout.ROOT / "README.md",
    *sorted((checkout.ROOT / "docs").rglob("*.md")),
    *sorted((checkout.ROOT / "notebooks").glob("*.ipynb")),
]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_no_result_is_typed_into_prose(path: Path) -> None:
    if path.suffix == ".md":
        texts = [path.read_text(encoding="utf-8")]
    else:
        texts = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
    assert [hit for text in texts for hit in typed(text)] == []


@pytest.mark.parametrize(
    "text",
    [
        "it needs 0.55x the evaluations",
        "NFE falls to 0.6 ×",
        "keeps 98 % of the gain",
        "an accuracy of 97.5%",
        "NFE drops from 303 to",
        "with an NFE of about 187",
        "only 44 evaluations",
        "2.1 times faster",
        "0.56 of vanilla's cost",
    ],
)
def test_a_typed_result_is_found(text: str) -> None:
    assert typed(text)


@pytest.mark.parametrize(
    "text",
    [
        "at tolerance 1e-5, after 400 steps with batch 512",
        "a 95 % interval over 3 seeds",
        "NFE is 2 + (new stages) × (accepted + rejected attempts)",
        "solved with `NFE 44` and $0.5 \\%$",
        f"{BEGIN}\nNFE 44, 0.55x\n{END}",
        "784 x 100 weights, errors in 3.4 x 1e-3",
        "notebook 06 shows NFE. Notebook 07 shows more",
    ],
)
def test_settings_formulas_and_generated_blocks_are_no_results(text: str) -> None:
    assert typed(text) == []
