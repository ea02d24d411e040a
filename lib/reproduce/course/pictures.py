"""The pictures of solutions that a student may see: each drawn by its own cell and what that needs."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

from reproduce.course.slices import needed_by
from reproduce.notebooks.exercises import EXPECTED, tags_of


def value_of(source: str, before: list[str]) -> Any:
    """Return the value of a cell's last expression, after the statements of earlier cells that it needs were run."""
    namespace: dict[str, Any] = {"__name__": "course"}
    for part in needed_by(source, before):
        exec(compile(part, "lesson", "exec"), namespace)
    tree = ast.parse(source)
    last = tree.body.pop()
    if not isinstance(last, ast.Expr):
        raise ValueError(f"a cell with a value ends with an expression, found {ast.unparse(last)[:60]!r}")
    exec(compile(tree, "solution", "exec"), namespace)
    return eval(compile(ast.Expression(last.value), "solution", "eval"), namespace)


def expected(notebook: Any) -> Iterator[tuple[str, tuple[bytes, str]]]:
    """Yield id, PNG and alt text of each cell tagged `expected`, which ends with a `plots.Picture`."""
    before: list[str] = []
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        if EXPECTED in tags_of(cell):
            picture = value_of(cell.source, before)
            yield cell.id, (picture.png, picture.alt)
        before.append(cell.source)
