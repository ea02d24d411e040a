"""The exercises of a master as data: number, kind, minutes, and the cells that belong to each."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from reproduce.notebooks.exercises import ANSWER, CHECK, EXERCISE, RUBRIC, SOLUTION, TAGS, tags_of

KINDS = ("check", "compute", "explain", "explore")
"""In rising order: recall and use a formula; write some lines; say why a result is as it is; find out."""
OPEN = "explore"
HEAD = re.compile(r"\*\*(\d\d\.\d) · .+?\*\* \((\w+), (\d+) minutes?\)")
"""How the text of an exercise begins: `**01.2 · A pair of your own** (compute, 15 minutes)`."""


@dataclass(frozen=True)
class Task:
    """One exercise of a lesson."""

    number: str
    """Lesson and exercise: '01.2'."""
    kind: str
    """One of KINDS."""
    minutes: int
    """For a student who has read the lesson."""
    cells: tuple[Any, ...]
    """Of the master, from its text on."""

    def tagged(self, tag: str) -> list[Any]:
        """Return its cells with a tag, in order."""
        return [cell for cell in self.cells if tag in tags_of(cell)]

    @property
    def answer(self) -> ast.FunctionDef | None:
        """The function that the student writes, as it stands in the master; None where none is asked for."""
        cells = self.tagged(ANSWER)
        return function_of(cells[0].source) if cells else None


def tasks(notebook: Any) -> list[Task]:
    """Return the exercises of a master, in order.

    Raises:
        ValueError: a cell that is tagged as an exercise does not begin as HEAD says.
    """
    found: list[Task] = []
    for cell in notebook.cells:
        if EXERCISE in tags_of(cell):
            head = HEAD.match(cell.source)
            if head is None:
                first = cell.source.partition("\n")[0]
                raise ValueError(
                    f"an exercise begins like '**01.2 · Its name** (compute, 15 minutes)', found {first!r}"
                )
            found.append(Task(head[1], head[2], int(head[3]), (cell,)))
        elif found and tags_of(cell) & set(TAGS):
            last = found.pop()
            found.append(Task(last.number, last.kind, last.minutes, (*last.cells, cell)))
    return found


def function_of(source: str) -> ast.FunctionDef:
    """Return the one function of an answer cell, above which imports may stand.

    Raises:
        ValueError: there is something else in the cell, or the function has no docstring that says what to return.
    """
    *above, last = ast.parse(source).body
    if not isinstance(last, ast.FunctionDef) or not all(isinstance(one, ast.Import | ast.ImportFrom) for one in above):
        raise ValueError(f"an answer cell holds imports and one function, found {source[:60]!r}")
    doc = ast.get_docstring(last)
    if doc is None or not doc.startswith("Return "):
        raise ValueError(f"{last.name}: its docstring must begin with 'Return', since a student's stub keeps it")
    return last


def violations(notebook: Any, lesson: str) -> Iterator[str]:
    """Yield in words what the exercises of a master do against the rules of the course; nothing is good."""
    found = tasks(notebook)
    numbers = [task.number for task in found]
    if numbers != [f"{lesson}.{i}" for i in range(1, len(found) + 1)]:
        yield f"the exercises are numbered {', '.join(numbers) or 'not at all'}"
    if wrong := [task.number for task in found if task.kind not in KINDS]:
        yield f"{', '.join(wrong)}: the kind is none of {', '.join(KINDS)}"
    elif [task.kind for task in found] != sorted((task.kind for task in found), key=KINDS.index):
        yield f"the kinds do not rise: {', '.join(task.kind for task in found)}"
    if not any(task.kind == OPEN for task in found):
        yield "no exercise is open-ended"
    for task in found:
        yield from _violations_of(task)


def _violations_of(task: Task) -> Iterator[str]:
    """What one exercise does against the rules."""
    solution, number = task.tagged(SOLUTION), task.number
    if not any(cell.cell_type == "code" for cell in task.tagged(ANSWER) + solution):
        yield f"{number}: its solution has no code"
    if not solution or (solution[-1].cell_type != "markdown" and "Markdown(" not in solution[-1].source):
        yield f"{number}: its solution does not end with a reading of the result"
    if (task.kind == OPEN) != bool(task.tagged(RUBRIC)):
        yield f"{number}: exactly the open-ended exercises have a rubric"
    if len(task.tagged(ANSWER)) != len(task.tagged(CHECK)) or len(task.tagged(ANSWER)) > 1:
        yield f"{number}: an answer has one check, and a check one answer"
    answer = task.answer
    if answer and task.tagged(CHECK)[0].source != f'check("{number}", {answer.name})':
        yield f"{number}: its check is not check({number!r}, {answer.name})"
