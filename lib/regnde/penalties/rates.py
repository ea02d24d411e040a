"""Rates along a solution: total time derivatives by Taylor arithmetic, kinetic energy, norm of the Jacobian.

A rate is a number for each time, to be integrated along a solve: `rate(f, t, y, dy)` gets the field, a 0-d time, the
state y (batch, ...) and dy = f(t, y), which the solver knows already, and returns a 0-d tensor: the mean over the
batch of a squared norm divided by the number of entries of one state. This is the mean of the squares over all
entries of a batch, as in the released code of Kelly et al. 2020 and of Finlay et al. 2020; their formulas show the
norm without that division, so published weights fit the rates here. Rates work with and without a graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import jvp

from regnde.penalties.taylor import by_taylor
from regnde.solvers.checks import choose
from regnde.solvers.steps import Field

Rate = Callable[[Field, Tensor, Tensor, Tensor], Tensor]
"""(f, t, y, dy) -> 0-d rate, with dy = f(t, y) known already."""
ORDERS = (2, 3, 4)


def _mean_square(x: Tensor) -> Tensor:
    """Return the mean of the squares of all entries, 0-d, in one pass over memory."""
    flat = x.flatten()
    return torch.dot(flat, flat) / max(1, len(flat))


def _by_nested(f: Field, t: Tensor, y: Tensor, dy: Tensor, order: int) -> Tensor:
    """Return d^K y / dt^K by forward-mode derivatives inside each other: dg/dt + (dg/dy) f, again and again."""
    if order == 1:
        return dy

    def lower(t: Tensor, y: Tensor) -> Tensor:
        return _by_nested(f, t, y, f(t, y), order - 1)

    return jvp(lower, (t, y), (torch.ones_like(t), dy))[1]


MODES: dict[str, Callable[[Field, Tensor, Tensor, Tensor, int], Tensor]] = {"taylor": by_taylor, "nested": _by_nested}


def _check_order(order: int) -> None:
    if not isinstance(order, int) or order not in ORDERS:
        raise ValueError(f"order must be one of {ORDERS} (order 1 is f itself), found {order!r}")


def _check(t: Tensor, y: Tensor, dy: Tensor) -> None:
    if dy.shape != y.shape:
        raise ValueError(
            "dy must be f(t, y), with the shape of the state y: expected "
            f"{tuple(y.shape)} (that of y), found {tuple(dy.shape)} (that of dy)"
        )
    if t.ndim != 0:
        raise ValueError(f"t must be a 0-d tensor, one time for the whole batch; found shape {tuple(t.shape)}")


def total_derivative(f: Field, t: Tensor, y: Tensor, dy: Tensor, *, order: int, mode: str = "taylor") -> Tensor:
    """Return the total time derivative d^K y / dt^K, (batch, ...), of the solution of dy/dt = f(t, y) through (t, y).

    Args:
        f: field; with mode 'taylor' it is called once, with jets for t and y.
        t: time, 0-d.
        y: state, (batch, ...).
        dy: f(t, y), (batch, ...): not evaluated again; a gradient flows through it.
        order: K, one of 2, 3, 4.
        mode: 'taylor', jets (see `taylor`): about K evaluations' worth, for the operations in RULES; 'nested', `jvp` in
            `jvp`: any operation that PyTorch can differentiate forward, at a cost that grows like 2^K and more.

    Raises:
        ValueError: order, mode or shapes that cannot be; with 'taylor', an operation without a rule, by its name.
    """
    _check_order(order)
    compute = choose("mode", MODES, mode)
    _check(t, y, dy)
    return compute(f, t, y, dy, order)


def taylor_rate(order: int, *, mode: str = "taylor") -> Rate:
    """Return the rate |d^K y / dt^K|^2, whose integral is R_K: zero where the solution is a polynomial of degree K-1.

    Order, mode and errors as for `total_derivative`; order and mode are refused here already.

    Source: Kelly, Bettencourt, Johnson, Duvenaud 2020, "Learning differential equations that are easy to solve".
    """
    _check_order(order)
    choose("mode", MODES, mode)

    def rate(f: Field, t: Tensor, y: Tensor, dy: Tensor) -> Tensor:
        return _mean_square(total_derivative(f, t, y, dy, order=order, mode=mode))

    return rate


def draw_noise(y: Tensor, rng: torch.Generator) -> Tensor:
    """Return eps ~ N(0, I) of y's shape, dtype and device, for `kinetic_jacobian_rate`: draw it once for each solve."""
    return torch.randn(y.shape, generator=rng, dtype=y.dtype, device=rng.device).to(y.device)


def kinetic_jacobian_rate(eps: Tensor, *, kinetic: float = 1.0, jacobian: float = 1.0) -> Rate:
    """Return the rate kinetic |f|^2 + jacobian |eps^T J|^2, J = df/dy: on average over eps, |J|_F^2.

    The first term is free, as dy is known. The second is a product with the transposed Jacobian through the graph
    of dy. Where dy has no graph that leads to this very tensor y (no_grad, or a y that needs no gradient), f is
    evaluated once more.

    Args:
        eps: noise of the state's shape, (batch, ...), from `draw_noise`.
        kinetic, jacobian: weights of the two terms, at least 0; a term of weight 0 is not computed.

    Raises:
        ValueError: a negative weight; shapes of y, dy or eps that differ.

    Source: Finlay, Jacobsen, Nurbekyan, Oberman 2020, "How to train your neural ODE"; the estimator is Hutchinson's.
    Their released code has a further factor 1/2 on the kinetic term.
    """
    for name, weight in (("kinetic", kinetic), ("jacobian", jacobian)):
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"{name} must be a weight, finite and at least 0, found {weight}")

    def rate(f: Field, t: Tensor, y: Tensor, dy: Tensor) -> Tensor:
        _check(t, y, dy)
        if eps.shape != y.shape:
            raise ValueError(
                f"eps must have the shape of the state y: expected {tuple(y.shape)} (that of y), found "
                f"{tuple(eps.shape)} (that of eps); draw it with draw_noise(y, rng)"
            )
        energy = kinetic * _mean_square(dy) if kinetic else dy.new_zeros(())
        if not jacobian:
            return energy
        return energy + jacobian * _mean_square(_vector_jacobian(f, t, y, dy, eps))

    return rate


def _vector_jacobian(f: Field, t: Tensor, y: Tensor, dy: Tensor, eps: Tensor) -> Tensor:
    """Return eps^T df/dy, (batch, ...): differentiable where gradients are on."""
    with_graph = torch.is_grad_enabled()
    if with_graph and dy.requires_grad and y.requires_grad:
        (found,) = torch.autograd.grad(dy, y, eps, create_graph=True, allow_unused=True)
        if found is not None:
            return found
    with torch.enable_grad():
        y = y if with_graph and y.requires_grad else y.detach().requires_grad_()
        again = f(t, y)
        if not again.requires_grad:
            return torch.zeros_like(y)
        (found,) = torch.autograd.grad(again, y, eps, create_graph=with_graph, allow_unused=True)
    return torch.zeros_like(y) if found is None else found
