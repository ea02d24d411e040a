"""Each public name of `regnde` stands in the reference, and says shapes, errors and where it is from."""

from __future__ import annotations

import ast
import inspect
import re

import pytest

import regnde
from reproduce import checkout
from reproduce.site import reference

PAGE = (checkout.ROOT / "docs" / "api.md").read_text(encoding="utf-8")
SHAPE = re.compile(r"\((?:batch|times|steps|stages|sampled|rejected|examples|\d),[^)\n]*\)|\b0-d\b")
"""A shape as docstrings write it: (batch, ...), (times,), (4, stages), 0-d."""
ERRORS = re.compile(r"\b[Rr]aises\b")


def told(name: str) -> str:
    """What the reference shows of a name: its docstring, and those of its fields."""
    thing = getattr(regnde, name)
    if not inspect.isclass(thing):
        return reference.docstring(name)
    [node] = ast.parse(inspect.getsource(thing)).body
    fields = [line.value.value for line in node.body if is_text(line)]  # type: ignore[attr-defined]
    return "\n".join([reference.docstring(name), *fields])


def is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def annotations(name: str) -> str:
    """The types of what a function takes and gives, or of a record's fields, as one text."""
    thing = getattr(regnde, name)
    return " ".join(map(str, getattr(thing, "__annotations__", {}).values()))


def test_the_reference_shows_each_public_name_once() -> None:
    shown = re.findall(r"^\.\. auto(?:class|function|data|exception):: (\w+)$", PAGE, flags=re.MULTILINE)
    assert sorted(shown) == sorted(regnde.__all__)


@pytest.mark.parametrize("name", regnde.__all__)
def test_each_public_name_says_where_it_is_from(name: str) -> None:
    assert "Source: " in told(name)


@pytest.mark.parametrize("name", [name for name in regnde.__all__ if inspect.isroutine(getattr(regnde, name))])
def test_each_function_says_what_it_raises(name: str) -> None:
    assert ERRORS.search(told(name))


@pytest.mark.parametrize("name", [name for name in regnde.__all__ if inspect.isclass(getattr(regnde, name))])
def test_each_class_says_what_it_raises(name: str) -> None:
    assert ERRORS.search(told(name))


@pytest.mark.parametrize("name", [name for name in regnde.__all__ if re.search("Tensor|Field|nn.", annotations(name))])
def test_what_takes_or_holds_tensors_says_their_shapes(name: str) -> None:
    assert SHAPE.search(told(name))


@pytest.mark.parametrize("text", ["the state, y", "a batch (of states)", "solve(f, y0, t, rtol=1e-5)"])
def test_a_text_without_shapes_is_found(text: str) -> None:
    assert not SHAPE.search(text)
