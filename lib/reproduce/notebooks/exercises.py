"""Exercises of a lesson: which cells of a master belong to them, by tag, and the lesson without their solutions."""

from __future__ import annotations

from typing import Any

EXERCISE, ANSWER, CHECK, SOLUTION, EXPECTED, RUBRIC, INSTRUCTOR = TAGS = (
    "exercise",
    "answer",
    "check",
    "solution",
    "expected",
    "rubric",
    "instructor",
)
"""Task and hints; the function that is asked for, complete; its check; the rest of the solution and its reading;
a cell of a solution whose picture the student may see; the marks of an open task; notes for who teaches."""
HIDDEN = frozenset({ANSWER, CHECK, SOLUTION, INSTRUCTOR})
"""Tags of cells that a lesson as such does not have: a run of profile quick or paper leaves them out."""


def tags_of(cell: Any) -> set[str]:
    """Return the tags of a cell, as a set."""
    return set(cell.metadata.get("tags", []))


def lesson_only(notebook: Any) -> Any:
    """Return a notebook with its tasks and without solutions, checks and notes for instructors (changes its argument).

    Exercises stand at the end of a master, so that the numbers of the cells before them stay.
    """
    notebook.cells = [cell for cell in notebook.cells if not tags_of(cell) & HIDDEN]
    return notebook
