"""A lesson for students, with its solutions, and for instructors: made of its master, never edited by hand."""

from __future__ import annotations

import copy
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any

import nbformat
from nbformat import v4

from reproduce.course.tasks import Task, function_of, tasks
from reproduce.notebooks.exercises import ANSWER, CHECK, EXERCISE, EXPECTED, INSTRUCTOR, SOLUTION, tags_of

Picture = tuple[bytes, str]
"""A PNG and its alt text."""


def stub(source: str, number: str) -> str:
    """Return an answer cell with its function's body taken out: name, arguments and docstring stay, and it raises.

    The error is NotImplementedError, with one sentence; `check` answers it in words, so that a notebook runs through.
    """
    doc = function_of(source).body[0]
    assert doc.end_lineno is not None  # of a parsed docstring
    kept = "\n".join(source.splitlines()[: doc.end_lineno])
    return f'{kept}\n    raise NotImplementedError("{number} is yours to write: the line above says what to return")'


def student(notebook: Any, *, pictures: Mapping[str, Picture] | None = None) -> Any:
    """Return a master without its solutions: stubs, checks, hints, rubrics, and the pictures that are to be expected.

    Args:
        notebook: the master; stays as it is.
        pictures: by id of the cell of a solution that draws it.
    """
    made, of_task = copy.deepcopy(notebook), _numbers(notebook)
    cells: list[Any] = []
    for cell in made.cells:
        tags = tags_of(cell)
        if ANSWER in tags:
            cell.source = stub(cell.source, of_task[cell.id].number)
        elif EXPECTED in tags and pictures and cell.id in pictures:
            cell = _picture(cell.id, *pictures[cell.id])
        elif tags & {SOLUTION, INSTRUCTOR}:
            continue
        cells.append(cell)
        if EXERCISE in tags and of_task[cell.id].answer is None:
            number = of_task[cell.id].number
            cells.append(v4.new_code_cell(f"# {number}: your code", id=f"work-{number.replace('.', '-')}"))
            cells.append(v4.new_markdown_cell(f"*{number}, what you found:*", id=f"found-{number.replace('.', '-')}"))
    made.cells = cells
    return made


def solutions(notebook: Any) -> Any:
    """Return a master without the notes for instructors."""
    made = copy.deepcopy(notebook)
    made.cells = [cell for cell in made.cells if INSTRUCTOR not in tags_of(cell)]
    return made


def instructor(notebook: Any, *, mistakes_of: Callable[[str], list[str]]) -> Any:
    """Return a master whose notes stand below its head, with a table of its exercises and their known mistakes.

    Args:
        notebook: the master; stays as it is.
        mistakes_of: number of an exercise -> what its check says about each mistake that it knows.
    """
    made = copy.deepcopy(notebook)
    notes = [cell for cell in made.cells if INSTRUCTOR in tags_of(cell)]
    head, *rest = [cell for cell in made.cells if INSTRUCTOR not in tags_of(cell)]
    found = tasks(notebook)
    table = ["| exercise | kind | minutes | checked |", "|---|---|---|---|"]
    table += [f"| {task.number} | {task.kind} | {task.minutes} | {'yes' if task.answer else 'no'} |" for task in found]
    overview = "**For the instructor: the exercises of this lesson**\n\n" + "\n".join(table)
    made.cells = [head, *notes, _note("overview", overview)]
    of_task = _numbers(notebook)
    for cell in rest:
        made.cells.append(cell)
        if CHECK in tags_of(cell) and cell.id in of_task:
            number = of_task[cell.id].number
            lines = "\n".join(f"* {sentence}" for sentence in mistakes_of(number))
            text = f"**For the instructor: what the check of {number} recognizes**\n\n{lines}"
            made.cells.append(_note(f"mistakes-{number.replace('.', '-')}", text))
    return made


def student_bytes(master: bytes) -> bytes:
    """Return the student's version of a master, both as the content of a file, without pictures."""
    made = student(nbformat.reads(master.decode(), as_version=4))
    return (nbformat.writes(made).rstrip("\n") + "\n").encode()


def _note(name: str, text: str) -> Any:
    return v4.new_markdown_cell(text, id=name, metadata={"tags": [INSTRUCTOR]})


def _picture(name: str, png: bytes, alt: str) -> Any:
    """A cell that shows the expected picture, inside of the notebook, with its alt text."""
    words = " ".join(alt.split()).replace("[", "(").replace("]", ")")
    return v4.new_markdown_cell(
        f"What your picture should look like:\n\n![{words}](attachment:expected.png)",
        id=name,
        metadata={"tags": [EXPECTED]},
        attachments={"expected.png": {"image/png": b64encode(png).decode()}},
    )


def _numbers(notebook: Any) -> dict[str, Task]:
    """The exercise of each cell that belongs to one, by the cell's id."""
    return {cell.id: task for task in tasks(notebook) for cell in task.cells}
