"""The house: which floor may import which, drawn from the imports; how large its files may grow."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import regnde
from reproduce import checkout
from reproduce.runs.source import LIB

FLOORS = {
    "regnde.solvers": 0,
    "regnde.penalties": 1,
    "regnde.hosts": 1,
    "regnde.dropin": 2,
    "regnde": 3,
    "reproduce.left_out": 3,
    "reproduce": 4,
    "reproduce.checkout": 4,
    "reproduce.files": 4,
    "reproduce.pdf": 4,
    "reproduce.data": 5,
    "reproduce.models": 5,
    "reproduce.experiments": 6,
    "reproduce.runs": 7,
    "reproduce.report": 8,
    "reproduce.notebooks": 8,
    "reproduce.plots": 9,
    "reproduce.live": 10,
    "reproduce.grading": 9,
    "reproduce.slides": 9,
    "reproduce.doctor": 9,
    "reproduce.site": 9,
    "reproduce.course.checks": 9,
    "reproduce.course": 10,
    "reproduce.cli": 11,
}
"""Folder, or module outside of one -> its floor, from the ground. Rooms of one floor do not know each other."""

FILES = sorted(path for path in LIB.rglob("*.py") if path.relative_to(LIB).parts[0] in ("regnde", "reproduce"))
LINES = {str(path.relative_to(LIB)): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
LIBRARY = {name: n for name, n in LINES.items() if name.startswith("regnde")}


def module(path: Path) -> str:
    parts = path.relative_to(LIB).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(path): path for path in FILES}


def imported(name: str) -> Iterator[str]:
    """Modules of the two packages that a module imports, anywhere in its code."""
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from inner & set(MODULES)
            if inner - set(MODULES):
                yield str(node.module)


ARROWS = {name: set(imported(name)) - {name} for name in MODULES}


def room(name: str) -> str:
    """The folder of a module, as FLOORS names it; the module itself where it lies in none of them."""
    return next((part for part in (name, name.rpartition(".")[0]) if part in FLOORS), name)


def test_every_room_has_a_floor_and_every_floor_a_room() -> None:
    assert {room(name) for name in MODULES} == set(FLOORS)


def test_no_arrow_runs_up_or_between_rooms_of_one_floor() -> None:
    wrong = [
        (name, other)
        for name, others in ARROWS.items()
        for other in others
        if room(name) != room(other) and FLOORS[room(other)] >= FLOORS[room(name)]
    ]
    assert wrong == []


def test_no_module_leads_back_to_itself() -> None:
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join((*way[way.index(name) :], name))
        if name not in done:
            for other in ARROWS[name]:
                visit(other, (*way, name))
            done.add(name)

    for name in MODULES:
        visit(name, ())


def test_the_library_never_imports_the_laboratory() -> None:
    assert [name for name in MODULES if name.startswith("regnde") and "reproduce" in str(sorted(ARROWS[name]))] == []


def test_the_laboratory_takes_the_library_by_its_public_names_only() -> None:
    by_home = {name: sorted(other for other in ARROWS[name] if other.startswith("regnde.")) for name in MODULES}
    assert {name: found for name, found in by_home.items() if found and name.startswith("reproduce")} == {}


def test_lessons_readme_and_pages_take_the_library_by_its_public_names_only() -> None:
    pages = [checkout.ROOT / "README.md"]
    pages += [*(checkout.ROOT / "docs").rglob("*.md"), *(checkout.ROOT / "notebooks").glob("*.ipynb")]
    inner = {page.name: re.findall(r"(?:from|import) regnde\.[\w.]+", page.read_text()) for page in pages}
    assert {name: found for name, found in inner.items() if found} == {}


def test_each_public_name_is_passed_on_once() -> None:
    assert sorted(regnde.__all__) == sorted(set(_names_passed_on()))
    assert len(regnde.__all__) == len(set(regnde.__all__))


def _names_passed_on() -> Iterator[str]:
    for node in ast.walk(ast.parse(MODULES["regnde"].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)


def test_experiments_and_penalties_never_meet_below_the_runs() -> None:
    names = {alias for name in MODULES if "experiments" in name for alias in _names_from_regnde(name)}
    assert not names & {"Regularizer", "REGULARIZERS", "make_regularizer", "local_error"}


def _names_from_regnde(name: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "regnde":
            yield from (alias.name for alias in node.names)


READERS = (
    "runs.store runs.device runs.provenance runs.source report.tables report.evidence report.claims report.answer "
    "report.papers report.report report.front report.page report.history report.objections report.publish "
    "report.output plots.base plots.report plots.study notebooks.stamps notebooks.runner notebooks.progress doctor cli"
)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS.split())
def test_results_can_be_read_without_torch(name: str) -> None:
    code = f"import sys, reproduce.{name}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_each_file_says_in_one_line_at_its_top_what_it_is() -> None:
    for path in FILES:
        doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        assert doc, path
        assert doc.splitlines()[0].endswith("."), path


def test_the_library_stays_small_and_no_file_outgrows_its_idea() -> None:
    assert sum(LIBRARY.values()) <= 6130  # docstrings of all public names have shapes, errors and source
    assert statistics.median(LIBRARY.values()) <= 150
    assert statistics.median(LINES.values()) <= 150
    assert {name: n for name, n in LINES.items() if n > 300} == {}
