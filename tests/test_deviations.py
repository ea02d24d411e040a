"""Every departure from the papers has an id that leads somewhere, and every id that is cited exists."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from reproduce import checkout
from reproduce.report import claims, report

CITED = re.compile(r"(?<![\w#-])D\d\d(?!\w)")
FOUND = {one.id: one for one in report.deviations()}
NOTEBOOKS = sorted((checkout.ROOT / "notebooks").glob("*.ipynb"))


def cited(path: Path) -> set[str]:
    """The ids that a file cites; of a notebook, in its prose."""
    if path.suffix != ".ipynb":
        return set(CITED.findall(path.read_text(encoding="utf-8")))
    cells = nbformat.read(path, as_version=4).cells
    return {found for cell in cells if cell.cell_type == "markdown" for found in CITED.findall(cell.source)}


def test_the_ids_are_numbered_through_and_none_is_used_twice() -> None:
    text = (checkout.ROOT / "DEVIATIONS.md").read_text(encoding="utf-8")
    headings = re.findall(r"^### (D\d\d) ", text, flags=re.MULTILINE)
    assert headings == [f"D{n:02d}" for n in range(1, len(headings) + 1)]
    assert list(FOUND) == headings  # each with a title that the report can show
    assert len(headings) >= 30


def test_each_says_what_and_in_which_part() -> None:
    for one in FOUND.values():
        assert one.section, one.id
        assert len(one.title) > 10, one.id
        assert len(one.text) > 60, one.id


SOURCES = [
    *NOTEBOOKS,
    *sorted(
        path
        for folder in ("lib", "benchmarks", "data")
        for path in (checkout.ROOT / folder).rglob("*")
        if path.is_file()
    ),
    *sorted(checkout.ROOT.glob("*.md")),
]


def test_every_id_that_is_cited_anywhere_exists() -> None:
    readable = [
        path for path in SOURCES if path.suffix in (".ipynb", ".py", ".md", ".yaml") and "results" not in path.parts
    ]
    assert len(readable) > 40
    assert {path.name: cited(path) - set(FOUND) for path in readable if cited(path) - set(FOUND)} == {}


def test_every_id_is_cited_by_a_notebook() -> None:
    assert set(FOUND) - {found for path in NOTEBOOKS for found in cited(path)} == set()


def test_the_ledger_names_only_ids_that_exist_and_leaves_none_out() -> None:
    listed = {one for ids in claims.book().deviations.values() for one in ids}
    assert listed == set(FOUND)


@pytest.mark.parametrize("text", ["see D99 there", "(D99)", "D99, D98"])
def test_a_citation_is_recognized(text: str) -> None:
    assert CITED.findall(text)
    assert not CITED.findall("#D99 0xD99 D990 xD99 a-D99")
