"""A value and its time derivatives along a solution: the type Jet, and the table of operations that it knows."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from torch import Tensor

Derivative = Any
"""Tensor of the full shape of the value, a number (constants only), or None: exactly zero."""
RULES: dict[str, Callable[..., Any]] = {}
"""Name of an operation -> what it does with jets; see `know`, and `taylor` for the rules."""


class Jet:
    """A value and its derivatives along the solution, computed when they are asked for, and kept.

    Operations on jets give jets, so a field that is called once with jets for t and y returns the jet of dy/dt.
    Derivative k of dy/dt is derivative k + 1 of y, on which derivative k + 1 of dy/dt depends. Each is computed
    once: K orders cost about K evaluations, where derivatives nested in each other cost 2^K and more.

    Source: Griewank, Walther, Evaluating Derivatives, chapter 13; derivatives here in place of Taylor coefficients.
    """

    __array_ufunc__ = None  # numpy's numbers leave the operation to us

    def __init__(self, *known: Derivative, rule: Callable[[int], Derivative] = lambda k: None) -> None:
        self.known, self.rule = dict(enumerate(known)), rule

    def at(self, k: int) -> Derivative:
        """Return derivative k; 0 is the value itself."""
        if k not in self.known:
            self.known[k] = self.rule(k)
        return self.known[k]

    def filled(self, k: int) -> Tensor | float:
        """Return derivative k, with zeros of the full shape (without memory) for None."""
        found, value = self.at(k), self.at(0)
        if found is not None:
            return found
        return value.new_zeros(()).expand(value.shape) if isinstance(value, Tensor) else 0.0

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        return _call(func.__name__, *args, **(kwargs or {}))

    def __getattr__(self, name: str) -> Any:
        if name in ("shape", "dtype", "device", "ndim"):
            return getattr(self.at(0), name)
        if not hasattr(Tensor, name) or name.startswith("__"):
            raise AttributeError(name)
        if not callable(getattr(Tensor, name)):
            raise unknown(name)
        return partial(_call, name, self)

    def __iter__(self) -> Iterator[Jet]:
        return iter(_call("unbind", self))

    def __bool__(self) -> bool:
        raise unknown("bool()")

    def __float__(self) -> float:
        raise unknown("float()")


def unknown(name: str, why: str = "") -> ValueError:
    """Return the error for an operation that has no rule."""
    return ValueError(
        f"Taylor mode has no rule for '{name}'{why}, which the field applies to t or y. Write the field with "
        f"{', '.join(sorted(RULES))}; or take mode='nested', which allows every operation that PyTorch can "
        "differentiate forward, at a cost that grows like 2^order and more"
    )


def _call(name: str, *args: Any, **kwargs: Any) -> Any:
    """Apply the rule of an operation, or raise ValueError naming it."""
    name = name.strip("_") if name.startswith("__") else name
    if name not in RULES:
        raise unknown(name)
    try:
        return RULES[name](*args, **kwargs)
    except TypeError as error:
        raise unknown(name, f" with these arguments ({error})") from error


def as_jet(x: Any) -> Jet:
    """Return x as a jet: a tensor or a number is a constant."""
    return x if isinstance(x, Jet) else Jet(x)


def know(rules: Mapping[str, Callable[..., Any]]) -> None:
    """Add rules to RULES, and let Python's operators of their names use them."""
    RULES.update(rules)
    for name in rules:
        if hasattr(operator, f"__{name}__"):
            setattr(Jet, f"__{name}__", _operator(name))
        if name in ("add", "matmul", "mul", "sub", "truediv"):
            setattr(Jet, f"__r{name}__", _operator(name, swapped=True))


def _operator(name: str, *, swapped: bool = False) -> Callable[..., Any]:
    return lambda self, *other: _call(name, *((*other, self) if swapped else (self, *other)))
