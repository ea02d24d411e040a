"""Docstrings of the public names of `regnde`, constants among them, from where each is defined (no torch)."""

from __future__ import annotations

import ast
import functools
import inspect

from reproduce.runs.source import LIB


@functools.cache
def homes() -> dict[str, str]:
    """Return the module that each public name of `regnde` is from."""
    tree = ast.parse((LIB / "regnde" / "__init__.py").read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name: str(node.module) for node in imports for alias in node.names}


@functools.cache
def docstring(name: str) -> str:
    """Return the docstring of a public name: that of a function or class, or the text below an assignment.

    Empty where there is none.

    Raises:
        KeyError: `regnde` has no such name.
    """
    body = ast.parse(LIB.joinpath(*homes()[name].split(".")).with_suffix(".py").read_text(encoding="utf-8")).body
    for i, node in enumerate(body):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return ast.get_docstring(node) or ""
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        below = body[i + 1] if i + 1 < len(body) else None
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            is_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            return inspect.cleandoc(str(below.value.value)) if is_text else ""  # type: ignore[union-attr]
    return ""
