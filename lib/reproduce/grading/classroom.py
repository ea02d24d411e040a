"""Where a class keeps its things: masters in course/, everything made or handed in below my_class/."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import nbformat

from reproduce.grading.sandbox import Limits

SETS = ("set1_solver", "set2_penalties", "set3_project")
LIMITS = {"set3_project": Limits(seconds=1200, processor_seconds=300)}
"""Where a set needs other limits than the usual ones."""
STUDENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
NOTEBOOK_BYTES = 10 * 2**20


@dataclass(frozen=True)
class Classroom:
    """The folders of one class; nbgrader's layout, so that its own commands and its formgrader work there."""

    root: Path
    """The checkout."""
    home: Path
    """my_class/, ignored by git and by `make clean`: it holds the gradebook."""

    @property
    def db_url(self) -> str:
        """The gradebook."""
        return f"sqlite:///{self.home / 'gradebook.db'}"

    def master(self, name: str) -> Path:
        """The notebook with solutions that git tracks."""
        return self.root / "course" / name / f"{name}.ipynb"

    def release(self, name: str) -> Path:
        """The notebook that students get."""
        return self.home / "release" / name / f"{name}.ipynb"

    def autograded(self, name: str, student: str) -> Path:
        """A student's notebook with its outputs."""
        return self.home / "autograded" / student / name / f"{name}.ipynb"

    def submitted(self, name: str, student: str) -> Path:
        """A student's notebook as it was handed in."""
        return self.home / "submitted" / student / name / f"{name}.ipynb"

    def record(self, name: str, student: str) -> Path:
        """What is known of one graded submission; written last, so that it says that the rest is there."""
        return self.home / "results" / name / f"{student}.json"

    def feedback(self, name: str, student: str) -> Path:
        """The page for one student."""
        return self.home / "feedback" / name / f"{student}.html"


def set_named(text: str) -> str:
    """Return the problem set that a number or a name means.

    Raises:
        ValueError: there is none.
    """
    found = [name for name in SETS if text in (name, name.removeprefix("set")[0])]
    if not found:
        raise ValueError(f"there is no problem set {text!r}: expected 1, 2, 3 or one of {', '.join(SETS)}")
    return found[0]


def handed_in(folder: Path, name: str) -> dict[str, Path | None]:
    """Return student -> notebook of a folder of submissions; None: the student's folder has no notebook.

    A submission is `student.ipynb`, or a folder `student/` with a notebook anywhere in it (the one named like the set
    first). Links are not followed: they could lead to what their author may not read.

    Raises:
        ValueError: no folder, nothing in it, or a name that is no plain word.
    """
    if not folder.is_dir():
        raise ValueError(f"SUBMISSIONS={str(folder)!r} should be a folder with one notebook or folder for each student")
    found: dict[str, Path | None] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.is_symlink() or not (path.is_dir() or path.suffix == ".ipynb"):
            continue
        student = path.stem if path.is_file() else path.name
        if not STUDENT.fullmatch(student):
            raise ValueError(f"{path.name!r}: a student's name has letters, digits, '_', '.', '-' only; rename it")
        if student in found:
            raise ValueError(f"{student!r} handed in twice in {folder}, as a file and as a folder: remove one")
        found[student] = path if path.is_file() else _notebook_in(path, name)
    if not found:
        raise ValueError(f"no submission in {folder}: expected student.ipynb or student/*.ipynb")
    return found


def _notebook_in(folder: Path, name: str) -> Path | None:
    plain = [path for path in sorted(folder.rglob("*.ipynb")) if path.is_file() and not path.is_symlink()]
    plain = [path for path in plain if not {".ipynb_checkpoints"} & set(path.parts)]
    return min(plain, key=lambda path: (path.stem != name, str(path)), default=None)


def readable(path: Path | None) -> nbformat.NotebookNode | None:
    """Return a handed-in notebook in today's format, or None where there is none that can be read."""
    if path is None or path.stat().st_size > NOTEBOOK_BYTES:
        return None
    try:
        notebook = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
        nbformat.validate(notebook)
    except Exception:  # a stranger's file: whatever is wrong with it, it is no notebook
        return None
    return notebook


def completed(notebook: nbformat.NotebookNode, release: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return a submission in which cells of the release that were removed stand again, after the one before them."""
    cells = list(notebook.cells)
    place = 0
    for cell in release.cells:
        name = grade_id(cell)
        if name is None:
            continue
        at = next((i for i, mine in enumerate(cells) if grade_id(mine) == name), None)
        if at is None:
            cells.insert(place, cell.copy())
            at = place
        place = at + 1
    whole = notebook.copy()
    whole.cells = cells
    return whole


def grade_id(cell: nbformat.NotebookNode) -> str | None:
    """Return nbgrader's name of a cell; None: it is the student's own."""
    found = cell.get("metadata", {}).get("nbgrader", {})
    return str(found["grade_id"]) if found.get("grade_id") else None
