"""Taylor-mode derivatives along a solution: the rule of each operation for jets, and d^K y / dt^K by one call of f."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Any
from weakref import proxy

import torch
from torch import Tensor
from torch.nn import functional

from regnde.penalties.jets import Derivative, Jet, as_jet, know


def _linear(op: Callable[..., Tensor], *terms: Jet) -> Jet:
    """Apply an operation that is linear in all its arguments together: to each derivative by itself."""

    def rule(k: int) -> Derivative:
        if all(x.at(k) is None for x in terms):
            return None
        return op(*(x.filled(k) for x in terms))

    return Jet(rule=rule)


def _add(a: Any, b: Any, *, alpha: float = 1) -> Jet:
    """Return a + alpha b, without computing anything where one of them is zero."""
    a, b = as_jet(a), as_jet(b)

    def full(x: Tensor, other: Jet) -> Tensor:
        shape = torch.broadcast_shapes(x.shape, getattr(other.at(0), "shape", ()))
        return x if x.shape == shape else x.expand(shape)

    def rule(k: int) -> Derivative:
        x, y = a.at(k), b.at(k)
        if x is None or y is None:
            only = x if y is None else y if alpha == 1 else y * alpha
            return None if only is None else full(only, b if y is None else a)
        return x + y if alpha == 1 else x - y if alpha == -1 else x + alpha * y

    return Jet(rule=rule)


def _convolve(a: Jet, b: Jet, terms: Iterable[tuple[int, int, int]]) -> Derivative:
    """Return the sum of w a_i b_j over terms (i, j, w)."""
    total = None
    for i, j, w in terms:
        x = a.at(i)
        y = None if x is None else b.at(j)
        if y is None:
            continue
        if total is None:
            total = x * y if w == 1 else x * y * w
        elif torch.is_grad_enabled():
            total.add_(x * y, alpha=w)  # cheaper to differentiate than addcmul
        else:
            total.addcmul_(x, y, value=w)
    return total


def _mul(a: Any, b: Any) -> Jet:
    a, b = as_jet(a), as_jet(b)
    return Jet(rule=lambda k: _convolve(a, b, [(k - i, i, math.comb(k, i)) for i in range(k + 1)]))


def _div(a: Any, b: Any) -> Jet:
    if isinstance(b, Jet):
        return _mul(a, _pow(b, -1))
    return _linear(lambda c: c / b, as_jet(a))


def _bilinear(op: Callable[..., Tensor], a: Any, b: Any, shift: Any = None) -> Jet:
    """Apply op(a, b, shift), linear in a, in b and in shift; op(a, b) leaves the shift out."""
    a, b, shift = as_jet(a), as_jet(b), as_jet(shift)

    def rule(k: int) -> Derivative:
        added = shift.at(k)
        total = None if added is None else op(a.filled(k), b.at(0), added)
        for i in range(0 if added is None else 1, k + 1):
            x, y, w = a.at(k - i), b.at(i), math.comb(k, i)
            if x is None or y is None:
                continue
            term = op(x, y) if w == 1 else op(x, y) * w
            total = term if total is None else total + term
        return total

    return Jet(rule=rule)


def _chain(phi: Callable[[Tensor], Tensor], x: Any, slope: Callable[[Jet], Jet]) -> Jet:
    """Return u = phi(x), given its slope phi'(x) as a jet that may use u: u' = slope x', and Leibniz' rule for more.

    The slope is made when asked for, as slopes of slopes may go on for ever, and knows u by a weak reference: with a
    ring of references, tensors would not be freed when the last jet is dropped.
    """
    x, u = as_jet(x), Jet()
    of_x = cache(partial(slope, proxy(u)))

    def rule(k: int) -> Derivative:
        if k == 0:
            return phi(x.at(0))
        return _convolve(x, of_x(), [(k - i, i, math.comb(k - 1, i)) for i in range(k)])

    u.rule = rule
    return u


def _scaled(x: Jet, factor: float) -> Jet:
    return _linear(lambda c: c * factor, x)


def _tanh(x: Any) -> Jet:
    return _chain(torch.tanh, x, lambda u: _chain(lambda c: 1 - c * c, u, lambda w: _scaled(u, -2.0)))


def _sigmoid(x: Any) -> Jet:
    def slope(u: Jet) -> Jet:
        return _chain(lambda c: c - c * c, u, lambda w: _add(1.0, u, alpha=-2.0))

    return _chain(torch.sigmoid, x, slope)


def _exp(x: Any) -> Jet:
    return _chain(torch.exp, x, lambda u: u)


def _log(x: Any) -> Jet:
    return _chain(torch.log, x, lambda u: _pow(x, -1))


def _sin(x: Any) -> Jet:
    return _chain(torch.sin, x, lambda u: _chain(torch.cos, x, lambda v: _scaled(u, -1.0)))


def _cos(x: Any) -> Jet:
    return _chain(torch.cos, x, lambda u: _scaled(_chain(torch.sin, x, lambda v: u), -1.0))


def _pow(x: Any, n: Any) -> Jet:
    """Return x to the power of a number: slope n x^(n-1), which ends at a constant for natural n."""
    if not isinstance(n, int | float):
        raise TypeError(f"the exponent must be a number, found {type(n).__name__}")
    x = as_jet(x)
    if n == 0:
        return _piecewise(torch.ones_like, x)
    if n == 1:
        return x
    return _chain(lambda c: c**n, x, lambda u: _scaled(_pow(x, n - 1), n))


def _piecewise(constant: Callable[[Tensor], Tensor], x: Jet) -> Jet:
    """Return a jet of x that is constant between kinks, such as its sign."""
    return Jet(rule=lambda k: constant(x.at(0)).to(x.dtype) if k == 0 else None)


def _softplus(x: Any, beta: float = 1.0, threshold: float = 20.0) -> Jet:
    phi = partial(functional.softplus, beta=beta, threshold=threshold)
    return _chain(phi, x, lambda u: _sigmoid(_scaled(as_jet(x), beta)))


def _gelu(x: Any, approximate: str = "none") -> Jet:
    if approximate != "none":
        raise TypeError(f"approximate={approximate!r}")

    def density(u: Jet) -> Jet:
        return _scaled(_exp(_scaled(_pow(x, 2), -0.5)), 1 / math.sqrt(2 * math.pi))

    return _mul(x, _chain(torch.special.ndtr, x, density))


def _check_constant(*args: Any) -> None:
    for x in args:
        if isinstance(x, Jet):
            raise TypeError("an argument that must be constant depends on t or y")
        if isinstance(x, tuple | list):
            _check_constant(*x)


def _rearranged(name: str, x: Any, *args: Any, **kwargs: Any) -> Jet:
    """Apply a method of tensors that is linear, such as reshape or sum."""
    _check_constant(*args, *kwargs.values())
    method = operator.getitem if name == "getitem" else getattr(Tensor, name)
    return _linear(lambda c: method(c, *args, **kwargs), as_jet(x))


def _pieces(name: str, x: Jet, *args: Any, **kwargs: Any) -> tuple[Jet, ...]:
    """Apply a method of tensors that cuts into pieces, such as chunk."""
    _check_constant(*args, *kwargs.values())

    def piece(i: int) -> Jet:
        return _linear(lambda c: getattr(Tensor, name)(c, *args, **kwargs)[i], x)

    return tuple(piece(i) for i in range(len(getattr(Tensor, name)(x.at(0), *args, **kwargs))))


def _of_value(name: str, x: Any, *args: Any, **kwargs: Any) -> Any:
    """Apply a method of tensors whose result does not change with time, such as ones_like or a comparison."""
    op = getattr(torch, name, None) or getattr(Tensor, name)
    return op(*(a.at(0) if isinstance(a, Jet) else a for a in (x, *args)), **kwargs)


def _joined(op: Callable[..., Tensor], tensors: Iterable[Any], dim: int = 0) -> Jet:
    return _linear(lambda *c: op(c, dim), *map(as_jet, tensors))


def _where(which: Tensor, a: Any, b: Any) -> Jet:
    _check_constant(which)
    return _linear(lambda x, y: torch.where(which, x, y), as_jet(a), as_jet(b))


LINEAR = (
    *("clone", "contiguous", "double", "expand", "flatten", "float", "getitem", "mean", "movedim", "neg", "permute"),
    *("reshape", "squeeze", "sum", "t", "to", "transpose", "unflatten", "unsqueeze"),
)
OF_VALUE = (
    *("dim", "eq", "ge", "gt", "is_floating_point", "le", "lt", "ne", "new_full", "new_ones", "new_tensor"),
    *("new_zeros", "numel", "ones_like", "sign", "size", "zeros_like"),
)
know(
    {
        "add": _add,
        "sub": lambda a, b, *, alpha=1: _add(a, b, alpha=-alpha),
        "mul": _mul,
        "div": _div,
        "truediv": _div,
        "addcmul": lambda base, a, b, *, value=1: _add(base, _mul(a, b), alpha=value),
        **{name: partial(_bilinear, getattr(torch, name)) for name in ("bmm", "matmul", "mm", "mv")},
        "linear": lambda x, weight, bias=None: _bilinear(functional.linear, x, weight, bias),
        "cat": partial(_joined, torch.cat),
        "stack": partial(_joined, torch.stack),
        "where": _where,
        "tanh": _tanh,
        "sigmoid": _sigmoid,
        "exp": _exp,
        "log": _log,
        "sin": _sin,
        "cos": _cos,
        "pow": _pow,
        "square": lambda x: _pow(x, 2),
        "sqrt": lambda x: _pow(x, 0.5),
        "reciprocal": lambda x: _pow(x, -1),
        "softplus": _softplus,
        "silu": lambda x, inplace=False: _mul(x, _sigmoid(x)),
        "gelu": _gelu,
        "relu": lambda x, inplace=False: _mul(x, _piecewise(lambda c: c > 0, x)),
        "abs": lambda x: _mul(x, _piecewise(torch.sign, x)),
        **{name: partial(_rearranged, name) for name in LINEAR},
        "view": partial(_rearranged, "reshape"),  # derivatives may be expanded where the value is not
        **{name: partial(_of_value, name) for name in OF_VALUE},
        **{name: partial(_pieces, name) for name in ("chunk", "split", "unbind")},
    }
)


def by_taylor(f: Callable[[Tensor, Tensor], Tensor], t: Tensor, y: Tensor, dy: Tensor, order: int) -> Tensor:
    """Return d^K y / dt^K from one call of f on jets: derivative k of y is derivative k - 1 of dy/dt."""
    state = Jet(y, dy, rule=lambda k: again.at(k - 1))
    slope = as_jet(f(Jet(t, torch.ones_like(t)), state))  # type: ignore[arg-type]
    again = proxy(slope)  # no ring of references: tensors are freed at once
    try:
        found = state.at(order)
    except RecursionError as error:
        raise ValueError(
            "the field is too deep for Taylor mode, which calls itself for each operation (about 60 layers with "
            "activations fit); raise sys.setrecursionlimit, or take mode='nested'"
        ) from error
    return torch.zeros_like(y) if found is None else found
