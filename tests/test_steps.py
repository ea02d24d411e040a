"""One step: its order, its error estimate, its gradient, its cost."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from regnde import TABLEAUS, Tableau, error_ratio, rk_step, stiffness_ratio
from regnde.solvers.error_ratio import rms
from regnde.solvers.order_conditions import order_defect, rooted_trees
from regnde.solvers.steps import combine

PAIRS = list(TABLEAUS.values())
per_tableau = pytest.mark.parametrize("tableau", PAIRS, ids=lambda tableau: tableau.name)


def pendulum(t: Tensor, y: Tensor) -> Tensor:
    """A nonlinear, time-dependent field."""
    return torch.stack([y[..., 1], -torch.sin(y[..., 0]) + 0.3 * torch.cos(t)], dim=-1)


Y0 = torch.tensor([[1.2, 0.3]], dtype=torch.float64)


def exact(t: float) -> Tensor:
    """The pendulum by many small steps of order 5, far below the errors measured here."""
    y, n = Y0, 400
    for i in range(n):
        y = rk_step(pendulum, i * t / n, y, t / n, TABLEAUS["tsit5"]).y1
    return y


def slope(dts: list[float], errors: list[float]) -> float:
    return float(np.polyfit(np.log(dts), np.log(errors), 1)[0])


def test_there_are_as_many_rooted_trees_as_the_literature_counts() -> None:
    assert [len(list(rooted_trees(n))) for n in range(1, 8)] == [1, 1, 2, 4, 9, 20, 48]


def test_the_order_conditions_tell_the_order_of_known_methods() -> None:
    a = np.array([[0.0, 0.0], [0.5, 0.0]])
    assert order_defect(a, np.array([0.0, 1.0]), 2) < 1e-15
    assert order_defect(a, np.array([0.0, 1.0]), 3) > 1e-2


@per_tableau
@pytest.mark.parametrize("field", ["c", "b_error", "a", "dense"])
def test_a_tableau_refuses_a_wrong_number(tableau: Tableau, field: str) -> None:
    *others, last = getattr(tableau, field)
    wrong = (*last[:-1], last[-1] + 1e-6) if isinstance(last, tuple) else last + 1e-6
    with pytest.raises(ValueError, match=tableau.name):
        dataclasses.replace(tableau, **{field: (*others, wrong)})


@per_tableau
def test_global_order_of_the_solution_is_that_of_theory(tableau: Tableau) -> None:
    end, ns = 2.0, [8, 16, 32, 64]
    target, errors = exact(end), []
    for n in ns:
        y = Y0
        for i in range(n):
            y = rk_step(pendulum, i * end / n, y, end / n, tableau).y1
        errors.append(float((y - target).norm()))
    assert slope([end / n for n in ns], errors) > tableau.order - 0.3


@per_tableau
def test_one_step_error_estimate_falls_with_embedded_order_plus_one(tableau: Tableau) -> None:
    dts = [0.4, 0.2, 0.1, 0.05]
    errors = [float(rk_step(pendulum, 0.0, Y0, dt, tableau).error.norm()) for dt in dts]
    assert slope(dts, errors) == pytest.approx(tableau.embedded_order + 1, abs=0.3)


@per_tableau
def test_dense_output_has_its_order_in_the_middle_of_the_step(tableau: Tableau) -> None:
    dts, theta = [0.8, 0.4, 0.2], 0.37
    errors = []
    for dt in dts:
        inside = rk_step(pendulum, 0.0, Y0, dt, tableau).at([theta * dt])[0]
        errors.append(float((inside - exact(theta * dt)).norm()))
    assert slope(dts, errors) > tableau.dense_order + 1 - 0.3  # local error of one step


@per_tableau
def test_a_step_calls_the_field_once_for_each_stage_and_once_less_when_the_first_is_known(tableau: Tableau) -> None:
    calls: list[float] = []

    def f(t: Tensor, y: Tensor) -> Tensor:
        calls.append(t.item())
        return pendulum(t, y)

    step = rk_step(f, 0.5, Y0, 0.1, tableau)
    assert calls == pytest.approx([0.5 + 0.1 * c for c in tableau.c])
    calls.clear()
    again = rk_step(f, 0.5, Y0, 0.1, tableau, k1=step.k[0])
    assert len(calls) == len(tableau.c) - 1
    assert torch.equal(again.y1, step.y1)


@per_tableau
def test_solution_and_error_of_a_step_follow_the_formula(tableau: Tableau) -> None:
    step = rk_step(pendulum, 0.1, Y0, 0.3, tableau)
    by_hand = Y0 + 0.3 * sum(b * k for b, k in zip(tableau.b, step.k, strict=True))
    error = 0.3 * sum(b * k for b, k in zip(tableau.b_error, step.k, strict=True))
    torch.testing.assert_close(step.y1, by_hand, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(step.error, error, rtol=1e-12, atol=1e-16)
    torch.testing.assert_close(step.at([0.1 + 0.3])[0], step.y1, rtol=1e-12, atol=1e-12)


def test_linear_combinations_have_exact_first_and_second_derivatives() -> None:
    base, k = torch.randn(3, dtype=torch.float64), [torch.randn(3, dtype=torch.float64) for _ in range(3)]
    tensors = [x.requires_grad_() for x in (base, *k)]

    def cubed(base: Tensor, *k: Tensor) -> Tensor:
        return combine(base, 0.7, (1.0, 0.0, -2.0), k) ** 3

    assert torch.autograd.gradcheck(cubed, tensors)
    assert torch.autograd.gradgradcheck(cubed, tensors)


@per_tableau
def test_gradient_of_a_step_error_ratio_agrees_with_finite_differences(tableau: Tableau) -> None:
    def ratio(theta: Tensor) -> Tensor:
        step = rk_step(lambda t, y: theta[0] * pendulum(t, y) + theta[1] * y**2, 0.0, Y0, 0.3, tableau)
        return error_ratio(step.error, step.y, step.y1, rtol=1e-3, atol=1e-3)

    assert torch.autograd.gradcheck(ratio, torch.tensor([1.3, 0.2], dtype=torch.float64, requires_grad=True))


def test_an_error_of_exactly_zero_has_a_zero_gradient_not_a_nan() -> None:
    x = torch.zeros(5, requires_grad=True)
    rms(x).backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.zeros(5))


def test_the_error_ratio_is_the_root_mean_square_of_error_over_tolerance() -> None:
    error, y0, y1 = torch.tensor([1e-3, -2e-3]), torch.tensor([1.0, -4.0]), torch.tensor([2.0, 1.0])
    by_hand = math.sqrt(((1e-3 / (0.1 + 0.01 * 2)) ** 2 + (2e-3 / (0.1 + 0.01 * 4)) ** 2) / 2)
    assert error_ratio(error, y0, y1, rtol=0.01, atol=0.1).item() == pytest.approx(by_hand, rel=1e-6)


@pytest.mark.parametrize("name", ["tsit5", "dopri5"])
def test_the_stiffness_of_a_scalar_linear_field_is_its_rate(name: str) -> None:
    y = torch.tensor([[1.0]], dtype=torch.float64)
    step = rk_step(lambda t, y: -7.0 * y, 0.0, y, 0.2, TABLEAUS[name])
    assert stiffness_ratio(step).item() == pytest.approx(7.0, rel=1e-9)


def test_a_method_without_two_stages_at_one_time_refuses_to_tell_the_stiffness() -> None:
    with pytest.raises(ValueError, match="bosh3"):
        stiffness_ratio(rk_step(pendulum, 0.0, Y0, 0.1, TABLEAUS["bosh3"]))
