"""Second derivatives of states, error ratios, stiffness and every penalty."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import Counting
from torch import Tensor
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.autograd.functional import hessian

from regnde import (
    REGULARIZERS,
    SRI_TABLEAUS,
    TABLEAUS,
    Solution,
    error_ratio,
    odeint_solve,
    solve_ode,
    solve_sde,
    stiffness_ratio,
)
from regnde import make_regularizer as make
from regnde.solvers.path import brownian_path
from regnde.solvers.steps import Field, rk_step

DOUBLE = torch.float64
T = torch.tensor([0.0, 0.35, 0.6], dtype=DOUBLE)
SIZES = [0.2, 0.25, 0.15]
TOLERANCES = {"rtol": 1e-2, "atol": 1e-2}
RECORDS = frozenset({"error_ratio", "stiffness"})
THETA = torch.tensor([-1.2, 0.7, 1.5], dtype=DOUBLE)
Y0 = torch.tensor([[1.0, -0.5]], dtype=DOUBLE)
OUTPUTS = ("y", "error_ratio", "stiffness")

per_gradient = pytest.mark.parametrize("gradient", ["backprop", "checkpoint"])


def drift(theta: Tensor) -> Field:
    """A nonlinear, time-dependent field with parameters."""
    return lambda t, y: theta[0] * torch.tanh(theta[2] * y) * y[..., [1, 0]] + theta[1] * torch.cos(3 * t)


def diffusion(theta: Tensor) -> Field:
    return lambda t, y: 0.4 * theta[1] * torch.sin(y) + 0.2 * theta[2]


def settings(gradient: str, *parameters: Tensor) -> dict[str, Any]:
    held = {"step_sizes": SIZES, "records": RECORDS, "gradient": gradient, **TOLERANCES}
    return held if gradient == "backprop" else {**held, "parameters": parameters}


def ode(theta: Tensor, y0: Tensor, gradient: str, **more: Any) -> Solution:
    return solve_ode(drift(theta), y0, T, **settings(gradient, theta), **more)


def sde(theta: Tensor, y0: Tensor, gradient: str, **more: Any) -> Solution:
    return solve_sde(drift(theta), diffusion(theta), y0, T, seed=3, **settings(gradient, theta), **more)


def output(solution: Solution, what: str) -> Tensor:
    """Everything of one kind that a solve returns."""
    return solution.y if what == "y" else getattr(solution.trace, what)


def scaled_by_hand(error: Tensor, y0: Tensor, y1: Tensor) -> Tensor:
    scale = TOLERANCES["atol"] + TOLERANCES["rtol"] * torch.where(y1.abs() >= y0.abs(), y1, y0).abs()
    return (error / scale).square().mean().sqrt()


def stiffness_by_hand(between_states: Tensor, between_slopes: Tensor) -> Tensor:
    return between_slopes.square().sum().sqrt() / between_states.square().sum().sqrt()


def naive_ode(theta: Tensor, y: Tensor) -> dict[str, Tensor]:
    """The same steps of Tsit5 in operations of PyTorch only, formula by formula."""
    tableau, f, t = TABLEAUS["tsit5"], drift(theta), 0.0
    ratios, stiffness = [], []
    for dt in SIZES:
        states, k = [y], [f(torch.tensor(t, dtype=DOUBLE), y)]
        for c, row in zip(tableau.c[1:], tableau.a, strict=True):
            states.append(y + dt * sum(a * ki for a, ki in zip(row, k, strict=True)))
            k.append(f(torch.tensor(t + c * dt, dtype=DOUBLE), states[-1]))
        error = dt * sum(b * ki for b, ki in zip(tableau.b_error, k, strict=True))
        ratios.append(scaled_by_hand(error, y, states[-1]))
        stiffness.append(stiffness_by_hand(states[-1] - states[-2], k[-1] - k[-2]))
        t, y = t + dt, states[-1]
    return {"y": y, "error_ratio": torch.stack(ratios), "stiffness": torch.stack(stiffness)}


def naive_sde(theta: Tensor, y: Tensor) -> dict[str, Tensor]:
    """The same steps of SOSRI2 in operations of PyTorch only, along the same path."""
    tableau, f, g, t = SRI_TABLEAUS["sosri2"], drift(theta), diffusion(theta), 0.0
    bm = brownian_path(None, Y0, T, 3)
    ratios, stiffness = [], []
    for dt in SIZES:
        w, u = bm(t, min(t + dt, float(T[-1])), return_U=True)
        chi = (w, (w**2 - dt) / (2 * dt**0.5), u / dt, (w**3 - 3 * dt * w) / (6 * dt))
        at = [torch.tensor(t + c * dt, dtype=DOUBLE) for c in (*tableau.c0, *tableau.c1)]
        h0, k, noise = [y], [f(at[0], y)], [g(at[4], y)]
        for i in range(3):
            a0, b0, a1, b1 = tableau.a0[i], tableau.b0[i], tableau.a1[i], tableau.b1[i]
            h0.append(y + sum(dt * a0[j] * k[j] + chi[2] * b0[j] * noise[j] for j in range(i + 1)))
            h1 = y + sum(dt * a1[j] * k[j] + dt**0.5 * b1[j] * noise[j] for j in range(i + 1))
            k.append(f(at[i + 1], h0[-1]))
            noise.append(g(at[i + 5], h1))
        rows = (tableau.beta1, tableau.beta2, tableau.beta3, tableau.beta4)
        parts = [c * sum(b * n for b, n in zip(row, noise, strict=True)) for c, row in zip(chi, rows, strict=True)]
        y1 = y + dt * sum(a * ki for a, ki in zip(tableau.alpha, k, strict=True)) + sum(parts)
        drift_error = dt * (sum(a * ki for a, ki in zip(tableau.alpha, k, strict=True)) - k[0])
        ratios.append(scaled_by_hand(drift_error.abs() + (parts[2] + parts[3]).abs(), y, y1))
        i, j = tableau.stiffness_pair  # type: ignore[misc]
        stiffness.append(stiffness_by_hand(h0[j] - h0[i], k[j] - k[i]))
        t, y = t + dt, y1
    return {"y": y, "error_ratio": torch.stack(ratios), "stiffness": torch.stack(stiffness)}


EQUATIONS: dict[str, tuple[Callable[..., Solution], Callable[[Tensor, Tensor], dict[str, Tensor]]]] = {
    "ode": (ode, naive_ode),
    "sde": (sde, naive_sde),
}
per_equation = pytest.mark.parametrize("equation", list(EQUATIONS))


@per_gradient
@per_equation
@pytest.mark.parametrize("what", OUTPUTS)
def test_the_hessian_of_a_solve_is_that_of_its_steps_written_in_plain_operations(
    equation: str, what: str, gradient: str
) -> None:
    solve, naive = EQUATIONS[equation]

    def of_solve(theta: Tensor, y0: Tensor) -> Tensor:
        found = output(solve(theta, y0, gradient), what)
        return (found[-1] if what == "y" else found).pow(3).sum()

    expected = hessian(lambda theta, y0: naive(theta, y0)[what].pow(3).sum(), (THETA, Y0))
    found = hessian(of_solve, (THETA, Y0))
    for row, expected_row in zip(found, expected, strict=True):
        for block, expected_block in zip(row, expected_row, strict=True):
            torch.testing.assert_close(block, expected_block, rtol=1e-7, atol=1e-8)


@pytest.mark.slow
@per_gradient
@per_equation
@pytest.mark.parametrize("what", OUTPUTS)
def test_first_and_second_derivatives_of_a_solve_agree_with_finite_differences(
    equation: str, what: str, gradient: str
) -> None:
    def of(theta: Tensor, y0: Tensor) -> Tensor:
        return output(EQUATIONS[equation][0](theta, y0, gradient), what)

    inputs = [x.clone().requires_grad_() for x in (THETA, Y0)]
    assert gradcheck(of, inputs)
    assert gradgradcheck(of, inputs)


LOCAL = ("local_biased", "local_unbiased", "local_stiffness")


@pytest.mark.slow
@per_gradient
@per_equation
@pytest.mark.parametrize("name", list(REGULARIZERS))
def test_first_and_second_derivatives_of_every_penalty_agree_with_finite_differences(
    name: str, equation: str, gradient: str
) -> None:
    regularizer = make(name)
    if equation == "sde" and regularizer.rate is not None:
        pytest.skip("a rate rides along with ODEs only")
    solve = EQUATIONS[equation][0]

    def solution(theta: Tensor, y0: Tensor) -> Solution:
        rng = torch.Generator().manual_seed(1)
        sampled_t = regularizer.times(T, rng)[1]
        more = {} if regularizer.rate is None else {"rate": regularizer.rate(rng)}
        return solve(theta, y0, gradient, sampled_t=sampled_t, **more)

    around = solution(THETA, Y0)  # a local penalty takes its state as a constant

    def of(theta: Tensor, y0: Tensor) -> Tensor:
        if regularizer.penalty is None:
            return solution(theta, y0).y
        fields = {"f": drift(theta), **({"g": diffusion(theta)} if equation == "sde" else {})}
        held = replace(around, method=replace(around.method, **fields)) if name in LOCAL else solution(theta, y0)  # type: ignore[type-var]
        return regularizer.penalty(held, torch.Generator().manual_seed(2))

    inputs = [x.clone().requires_grad_() for x in (THETA, Y0)]
    inputs = inputs[:1] if name in LOCAL else inputs
    on = (lambda theta: of(theta, Y0)) if name in LOCAL else of
    assert gradcheck(on, inputs)
    assert gradgradcheck(on, inputs)


@per_gradient
@per_equation
def test_a_gradient_penalty_of_a_solve_trains_with_the_right_gradient(equation: str, gradient: str) -> None:
    """As in physics-informed networks and score matching: the loss holds a gradient made by autograd.grad."""
    solve, naive = EQUATIONS[equation]

    def penalty(of: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        theta, y0 = THETA.clone().requires_grad_(), Y0.clone().requires_grad_()
        (inner,) = grad(of(theta, y0).sum(), y0, create_graph=True)
        return grad(inner.square().sum(), theta)[0]

    found = penalty(lambda theta, y0: solve(theta, y0, gradient).y[-1])
    torch.testing.assert_close(found, penalty(lambda theta, y0: naive(theta, y0)["y"]), rtol=1e-9, atol=1e-12)


def test_second_derivatives_of_a_checkpointed_solve_are_right_where_y0_depends_on_the_parameters() -> None:
    """An encoder that shares its weights with the field: no path may count twice."""

    def of(gradient: str) -> tuple[Tensor, Tensor]:
        theta = THETA.clone().requires_grad_()
        y = ode(theta, Y0 * theta[1] ** 2, gradient).y
        (inner,) = grad(y.pow(3).sum(), theta, create_graph=True)
        return inner, grad(inner.square().sum(), theta)[0]

    for found, expected in zip(of("checkpoint"), of("backprop"), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@per_gradient
def test_third_derivatives_are_right_too(gradient: str) -> None:
    def of(y: Callable[[Tensor], Tensor]) -> Tensor:
        theta = THETA.clone().requires_grad_()
        value = y(theta).pow(2).sum()
        for _ in range(2):
            (value,) = grad(value, theta, create_graph=True)
            value = value.square().sum()
        return grad(value, theta)[0]

    found = of(lambda theta: ode(theta, Y0, gradient).y[-1])
    torch.testing.assert_close(found, of(lambda theta: naive_ode(theta, Y0)["y"]), rtol=1e-9, atol=1e-9)


@per_gradient
def test_newton_on_the_parameters_of_a_field_converges_quadratically(gradient: str) -> None:
    """The damping of a spring from its end: a second situation, which only the right Hessian solves in a few steps."""
    a, target = torch.tensor([-0.8], dtype=DOUBLE), torch.tensor([[0.5]], dtype=DOUBLE).exp()

    def loss(a: Tensor) -> Tensor:
        named = {} if gradient == "backprop" else {"parameters": [a]}
        f = lambda t, y: -a * y  # noqa: E731
        y = solve_ode(
            f,
            torch.ones(1, 1, dtype=DOUBLE),
            T / T[-1],
            step_sizes=[0.1] * 10,
            gradient=gradient,
            **named,
            **TOLERANCES,
        ).y
        return (y[-1] - target).square().sum()

    for _ in range(6):
        slope = grad(loss(x := a.clone().requires_grad_()), x)[0]
        a = a - slope / hessian(loss, a).squeeze(0)
    assert a.item() == pytest.approx(-0.5, abs=1e-6)


def test_the_second_derivative_of_an_error_of_exactly_zero_is_zero_not_nan() -> None:
    error = torch.zeros(3, dtype=DOUBLE, requires_grad=True)
    y1 = torch.ones(3, dtype=DOUBLE, requires_grad=True)
    first = grad(error_ratio(error, y1, y1, rtol=1e-3, atol=1e-3), (error, y1), create_graph=True)
    second = grad(sum(x.square().sum() + x.sum() for x in first), (error, y1))
    assert all(torch.equal(x, torch.zeros(3, dtype=DOUBLE)) for x in (*first, *second))


def test_the_stiffness_of_a_field_that_stands_still_has_no_nan_in_its_second_derivative() -> None:
    a = torch.zeros(1, dtype=DOUBLE, requires_grad=True)
    step = rk_step(lambda t, y: a * y, 0.0, Y0, 0.1, TABLEAUS["tsit5"])
    (first,) = grad(stiffness_ratio(step), a, create_graph=True)
    (second,) = grad(first.square().sum(), a, allow_unused=True)
    assert torch.isfinite(first).all()
    assert second is None or torch.isfinite(second).all()


def test_a_second_derivative_through_the_adjoint_is_refused_at_the_first_one(mlp: Counting, y0: Tensor) -> None:
    y = odeint_solve(mlp, y0.requires_grad_(), T, gradient="adjoint", **TOLERANCES).y
    grad(y.sum(), y0, retain_graph=True)
    with pytest.raises(RuntimeError, match="gradient='backprop', or solve_ode with gradient='checkpoint'"):
        grad(y.sum(), y0, create_graph=True)
