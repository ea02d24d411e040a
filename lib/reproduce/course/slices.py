"""What a cell needs of those before it: the statements that make its names, and no others."""

from __future__ import annotations

import ast
import builtins
import functools
import re
import symtable
from collections.abc import Iterator, Sequence


def needed_by(source: str, before: Sequence[str]) -> list[str]:
    """Return the statements of earlier cells that a cell needs, as source, in their order.

    A name comes from the last statement above that binds it, and from those since that put something into it by
    `name[...] = ...` or a call of a method; where none above binds it (a function may call a later one), from below.
    """
    statements = [part for cell in before for part in _statements(cell)]
    taken: set[int] = set()
    open_names = [(name, len(statements)) for name in free(source)]
    while open_names:
        name, end = open_names.pop()
        for i in _makers(name, statements, end) or _makers(name, statements, len(statements)):
            if i not in taken:
                taken.add(i)
                open_names += [(needed, i) for needed in free(statements[i])]
    return [statements[i] for i in sorted(taken)]


def _makers(name: str, statements: Sequence[str], end: int) -> list[int]:
    """Numbers of the statements above `end` that make a name what it is there; none if no one binds it."""
    found: list[int] = []
    for i in reversed(range(end)):
        if name in bound(statements[i]):
            is_module = statements[i].startswith(("import ", "from "))  # a call of its function puts nothing into it
            return [i] if is_module else [*found, i]
        if name in _filled(statements[i]):
            found.append(i)
    return []


def _statements(cell: str) -> Iterator[str]:
    """The top statements of a cell as source; lines of IPython's own are left out."""
    text = re.sub(r"^[%!].*$", "", cell, flags=re.MULTILINE)
    for node in ast.parse(text).body:
        yield ast.get_source_segment(text, node) or ""


def free(source: str) -> set[str]:
    """Return the names that a piece of code takes from outside."""

    def read(table: symtable.SymbolTable, top: bool) -> Iterator[str]:
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (top or symbol.is_global()):
                yield symbol.get_name()
        for child in table.get_children():
            yield from read(child, False)

    names = set(read(symtable.symtable(source, "cell", "exec"), True))
    return names - (bound(source) - _read_and_bound(source)) - set(dir(builtins))


@functools.cache
def bound(source: str) -> set[str]:
    """Return the names that a piece of code binds at its top."""
    symbols = symtable.symtable(source, "cell", "exec").get_symbols()
    return {symbol.get_name() for symbol in symbols if symbol.is_assigned() or symbol.is_imported()}


@functools.cache
def _filled(source: str) -> set[str]:
    """Names of things that a piece of code changes inside: `name[...] = ...`, or a call of a method as a statement."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            inner: ast.expr = node.value
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            inner = node.value.func
        else:
            continue
        if isinstance(inner, ast.Attribute):
            inner = inner.value
        if isinstance(inner, ast.Name):
            names.add(inner.id)
    return names


def _read_and_bound(source: str) -> set[str]:
    """Names that one statement reads before it binds them, as `x = x + 1` does."""
    names: set[str] = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.AugAssign):
            names |= {n.id for n in ast.walk(node.target) if isinstance(n, ast.Name)}
        elif isinstance(node, ast.Assign):
            targets = {n.id for target in node.targets for n in ast.walk(target) if isinstance(n, ast.Name)}
            names |= targets & {n.id for n in ast.walk(node.value) if isinstance(n, ast.Name)}
    return names
