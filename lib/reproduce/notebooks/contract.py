"""What a source notebook must look like: its parameters, read from its code, and the rules that it keeps."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat

from reproduce.runs.source import LIB, parse
from reproduce.runs.store import PROFILES

ABSOLUTE_PATH = re.compile(r"(?<![\w.:/-])/(?:home|Users|root|work)(?![\w-])|(?<!\w)[CDE]:\\")
LONGEST_CELL = 25  # lines


class ParameterError(ValueError):
    """A notebook was given a parameter that it does not have, or not given one that it needs."""


def accepted_parameters(path: str | Path) -> dict[str, bool]:
    """Return the names that the `parameters` cell of a notebook assigns, each with whether it has a default.

    Raises ParameterError unless exactly one cell is tagged `parameters` and it parses.
    """
    path = Path(path)
    cells = _parameter_cells(nbformat.read(path, as_version=4))
    if len(cells) != 1:
        raise ParameterError(f"{path.stem}: {len(cells)} cells are tagged `parameters`; exactly one must be")
    try:
        return _assignments(cells[0][1].source)
    except SyntaxError as error:
        raise ParameterError(f"{path.stem}: its `parameters` cell does not parse: {error.msg}") from error


def check_parameters(path: str | Path, given: Mapping[str, object]) -> None:
    """Raise ParameterError if `given` names what the notebook does not accept or lacks what it needs."""
    name = Path(path).stem
    accepted = accepted_parameters(path)
    accepts = f"it accepts: {', '.join(accepted) or 'none'}"
    if unknown := [parameter for parameter in given if parameter not in accepted]:
        raise ParameterError(f"{name}: unknown parameter {', '.join(map(repr, unknown))}; {accepts}")
    for parameter, default in _defaults(path).items():
        value = given.get(parameter, default)
        same = isinstance(value, int | float) if isinstance(default, float) else isinstance(value, type(default))
        if not same or isinstance(value, bool) != isinstance(default, bool):
            kind = type(default).__name__
            raise ParameterError(f"{name}: {parameter} must be of the kind of {default!r} ({kind}), found {value!r}")
        least = int(default > 0) if type(default) is int and default >= 0 else -math.inf  # a count, or a seed
        if isinstance(value, int | float) and not (math.isfinite(value) and least <= value < 2**63):
            wanted = "a finite number" if least < 0 else f"a number from {least} on"
            raise ParameterError(f"{name}: {parameter} must be {wanted} that is below 2**63, found {value!r}")
    without_default = [parameter for parameter, has_default in accepted.items() if not has_default]
    if missing := [parameter for parameter in without_default if parameter not in given]:
        raise ParameterError(f"{name}: no value for the parameter {', '.join(map(repr, missing))}; {accepts}")


def _defaults(path: str | Path) -> dict[str, Any]:
    """Values that the `parameters` cell gives, where they are literals other than None."""
    source = _parameter_cells(nbformat.read(path, as_version=4))[0][1].source
    found: dict[str, Any] = {}
    for statement in _parse(source).body:
        value = getattr(statement, "value", None)
        targets = getattr(statement, "targets", [getattr(statement, "target", None)])
        if isinstance(value, ast.expr) and isinstance(targets[0], ast.Name):
            try:
                found[targets[0].id] = ast.literal_eval(value)
            except ValueError:
                continue
    return {name: value for name, value in found.items() if value is not None}


def experiments_named(path: str | Path) -> set[str]:
    """Return the experiments whose names stand as text in a notebook's code: those whose training runs it needs."""
    files = (LIB / "reproduce" / "experiments").glob("*.py")
    known = {file.stem for file in files} - {"__init__", "experiment", "of_images"}
    sources = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    return known & set(re.findall(r"""["'](\w+)["']""", "\n".join(sources)))


def contract(path: str | Path) -> list[str]:
    """Return in words what a source notebook does against the rules of this project; nothing is good."""
    path = Path(path)
    try:
        notebook = nbformat.read(path, as_version=4)
    except Exception as error:
        return [f"not a readable notebook: {type(error).__name__}: {error}"]
    return [*_head_violations(notebook), *_parameter_violations(notebook), *_cell_violations(notebook)]


def _head_violations(notebook: Any) -> Iterator[str]:
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        yield "the kernelspec is not python3"
    head = notebook.cells[0] if notebook.cells else None
    if head is None or head.cell_type != "markdown" or not re.match(r"# \S", head.source):
        yield "the first cell is not markdown that starts with a title (`# ...`)"
        return
    for section in ("what you will learn", "what you need"):
        if section not in head.source.lower():
            yield f"the first cell has no section {section.capitalize()!r}"
    if absent := [word for word in ("minute", *PROFILES) if word not in head.source.lower()]:
        yield f"the first cell does not tell the minutes per profile: no word {', '.join(map(repr, absent))}"


def _parameter_violations(notebook: Any) -> Iterator[str]:
    cells = _parameter_cells(notebook)
    if len(cells) != 1:
        yield f"{len(cells)} cells are tagged `parameters`; exactly one must be"
        return
    try:
        names = _assignments(cells[0][1].source)
        _literals(cells[0][1].source)
    except (SyntaxError, ValueError) as error:
        yield f"the `parameters` cell is not only names with literal values: {error}"
        return
    if "profile" not in names:
        yield "the parameter `profile` is missing"
    read: set[str] = set()
    assigned: dict[str, int] = {}
    for number, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type == "code" and number > cells[0][0]:
            try:
                for name, is_read in _names(_parse(cell.source)):
                    if is_read:
                        read.add(name)
                    else:
                        assigned.setdefault(name, number)
            except SyntaxError as error:
                yield f"cell {number} does not parse: {error.msg}"
    for name in names:
        if name not in read:
            yield f"the parameter `{name}` is never read"
        if name in assigned:
            yield f"cell {assigned[name]} re-assigns the parameter `{name}`"


def _cell_violations(notebook: Any) -> Iterator[str]:
    told: dict[str, int] = {}
    for number, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type == "markdown" and (first := told.setdefault(cell.source, number)) < number:
            yield f"cell {number} repeats the text of cell {first}"
        lines = cell.source.splitlines()
        if cell.get("outputs") or cell.get("execution_count") is not None:
            yield f"cell {number} has outputs or an execution count"
        if len(lines) > LONGEST_CELL:
            yield f"cell {number} has {len(lines)} lines, over {LONGEST_CELL}"
        if any(re.match(r"\s*[!%]\s*pip\b", line) for line in lines):
            yield f"cell {number} calls pip; packages belong into requirements.lock"
        if match := ABSOLUTE_PATH.search(cell.source):
            yield f"cell {number} holds an absolute path ({match.group()}...)"


def _parameter_cells(notebook: Any) -> list[tuple[int, Any]]:
    """The code cells tagged `parameters`, each with its number."""
    cells = [(n, cell) for n, cell in enumerate(notebook.cells, start=1) if cell.cell_type == "code"]
    return [(n, cell) for n, cell in cells if "parameters" in cell.metadata.get("tags", [])]


def _parse(source: str) -> ast.Module:
    """Parse a cell; lines of IPython's own (magics, shell) count as `pass`."""
    return parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.MULTILINE))


def _assignments(source: str) -> dict[str, bool]:
    """Names assigned at the top of a cell, each with whether a value stands there."""
    names: dict[str, bool] = {}
    for statement in _parse(source).body:
        if isinstance(statement, ast.Assign):
            names |= {name.id: True for target in statement.targets for name in _targets(target)}
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            names[statement.target.id] = statement.value is not None
    return names


def _targets(target: ast.expr) -> list[ast.Name]:
    return [node for node in ast.walk(target) if isinstance(node, ast.Name)]


def _literals(source: str) -> None:
    """Raise ValueError at a statement that is not a name with a literal value."""
    for statement in _parse(source).body:
        if not isinstance(statement, ast.Assign | ast.AnnAssign) or statement.value is None:
            raise ValueError(f"`{ast.unparse(statement)}`")
        ast.literal_eval(statement.value)


def _names(tree: ast.AST) -> Iterator[tuple[str, bool]]:
    """Names in a cell, each with whether it is read there or bound (assigned, defined, imported, deleted)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id, isinstance(node.ctx, ast.Load)
            continue
        bound = getattr(node, "asname", None) or getattr(node, "name", None)
        if isinstance(bound, str):  # def, class, import, except, a capture of `match`
            yield bound.split(".")[0], False
