"""nbgrader's gradebook: what goes in after a run, and what stands in it when a table is made."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import nbformat
from nbgrader.api import Gradebook
from nbgrader.preprocessors import ClearOutput, DeduplicateIds, LockCells, OverwriteCells, SaveAutoGrades
from sqlalchemy.exc import SAWarning

from reproduce.grading.classroom import Classroom

warnings.filterwarnings("ignore", category=SAWarning)  # nbgrader's own sessions; nothing is lost


@dataclass(frozen=True)
class Part:
    """One graded cell of one student."""

    name: str
    points: float
    most: float
    open: bool
    """A person has still to read it."""
    comment: str


def prepared(classroom: Classroom, name: str, student: str, notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Enter a submission into the gradebook; return the notebook with every locked and hidden cell as in the master."""
    with Gradebook(classroom.db_url) as book:
        book.update_or_create_student(student)
        book.update_or_create_submission(name, student)
    for step in (ClearOutput(), DeduplicateIds(), OverwriteCells(), LockCells()):
        notebook, _ = step.preprocess(notebook, _resources(classroom, name, student))
    return notebook


def enter(classroom: Classroom, name: str, student: str, notebook: nbformat.NotebookNode) -> None:
    """Score an executed notebook; what a person gave before stays, and is marked to be looked at again."""
    SaveAutoGrades().preprocess(notebook, _resources(classroom, name, student))


def enter_zero(classroom: Classroom, name: str, student: str) -> None:
    """Score nothing for everything, the texts included."""
    with Gradebook(classroom.db_url) as book:
        for grade in book.find_submission_notebook(name, name, student).grades:
            grade.auto_score, grade.needs_manual_grade = 0, False
        book.db.commit()


def parts(classroom: Classroom, name: str, student: str) -> list[Part]:
    """Return a student's graded cells, in the order of the notebook."""
    with Gradebook(classroom.db_url) as book:
        notebook = book.find_submission_notebook(name, name, student)
        comments = {comment.name: comment.comment or "" for comment in notebook.comments}
        order = [cell.name for cell in book.find_notebook(name, name).source_cells]
        found = [
            Part(grade.name, grade.score or 0, grade.max_score, _is_open(grade), comments.get(grade.name, ""))
            for grade in notebook.grades
        ]
    return sorted(found, key=lambda part: order.index(part.name) if part.name in order else len(order))


def _is_open(grade: Any) -> bool:
    return bool(grade.needs_manual_grade) and grade.manual_score is None


def _resources(classroom: Classroom, name: str, student: str) -> dict[str, Any]:
    return {"nbgrader": {"student": student, "assignment": name, "notebook": name, "db_url": classroom.db_url}}
