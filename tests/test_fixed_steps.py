"""Euler, midpoint and RK4 in the same loop: a few fixed steps, counted, dense, differentiated and penalized."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import Counting
from torch import Tensor

from regnde import local_biased, solve_ode
from regnde.solvers.tableaus import CLASSICAL, Tableau

STAGES = {"euler": 1, "midpoint": 2, "rk4": 4}
T = torch.tensor([0.0, 1.0], dtype=torch.float64)
Y0 = torch.tensor([[1.0, 0.5]], dtype=torch.float64)
LOOSE = {"rtol": 1e-2, "atol": 1e-2}


def field(t: Tensor, y: Tensor) -> Tensor:
    return torch.stack([y[:, 1], -y[:, 0] * torch.cos(t)], dim=1)


def fixed(name: str, n: int, t: Tensor = T, f: object = field) -> Tensor:
    return solve_ode(f, Y0, t, method=name, step_sizes=[float(t[-1] - t[0]) / n] * n, **LOOSE).y  # type: ignore[arg-type]


@pytest.mark.parametrize("tableau", CLASSICAL.values(), ids=lambda tableau: tableau.name)
def test_global_error_and_dense_output_have_the_order_of_theory(tableau: Tableau) -> None:
    t = torch.tensor([0.0, 0.37, 1.0], dtype=torch.float64)
    exact = solve_ode(field, Y0, t, rtol=1e-12, atol=1e-12).y
    errors = torch.stack([(fixed(tableau.name, n, t) - exact).norm(dim=-1).squeeze() for n in (20, 40, 80, 160)])
    orders = (errors[:-1] / errors[1:]).log2().median(0).values
    assert abs(orders[2] - tableau.order) < 0.25
    assert orders[1] > tableau.dense_order - 0.6  # inside a step; the place within the step changes with n


@pytest.mark.parametrize("name", CLASSICAL)
def test_n_steps_cost_n_times_the_stages_and_nothing_else(name: str) -> None:
    counting = Counting(field)
    solution = solve_ode(counting, Y0, T, method=name, step_sizes=[0.25] * 4, **LOOSE)
    assert counting.calls == solution.trace.nfe == 4 * STAGES[name]


def test_the_formulas_by_hand() -> None:
    h = 0.5
    k1 = field(T[0], Y0)
    k2 = field(T[0] + h / 2, Y0 + h / 2 * k1)
    k3 = field(T[0] + h / 2, Y0 + h / 2 * k2)
    k4 = field(T[0] + h, Y0 + h * k3)
    ends = {"euler": Y0 + h * k1, "midpoint": Y0 + h * k2, "rk4": Y0 + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)}
    t = torch.tensor([0.0, h], dtype=torch.float64)
    for name, end in ends.items():
        torch.testing.assert_close(fixed(name, 1, t)[-1], end)


@pytest.mark.parametrize("name", CLASSICAL)
def test_the_gradient_of_fixed_steps_agrees_with_finite_differences(name: str) -> None:
    weight = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def end(weight: Tensor) -> Tensor:
        return fixed(name, 3, f=lambda t, y: torch.tanh(weight * y) * torch.cos(t))[-1].square().sum()

    assert torch.autograd.gradcheck(end, weight)


@pytest.mark.parametrize("name", ["midpoint", "rk4"])
def test_the_local_penalty_of_a_coarse_method_is_the_recorded_error_of_its_own_step(name: str) -> None:
    solution = solve_ode(field, Y0, T, method=name, step_sizes=[0.25] * 4, **LOOSE)
    rng = torch.Generator().manual_seed(0)
    drawn = int(torch.randint(4, (1,), generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(local_biased().penalty(solution, rng), solution.trace.error_ratio[drawn])  # type: ignore[misc]


def test_an_adaptive_solve_by_midpoint_keeps_its_tolerance() -> None:
    exact = solve_ode(field, Y0, T, rtol=1e-12, atol=1e-12).y[-1]
    errors = [
        float((solve_ode(field, Y0, T, method="midpoint", rtol=tol, atol=tol).y[-1] - exact).norm())
        for tol in (1e-3, 1e-5)
    ]
    assert errors[0] < 1e-2
    assert errors[1] < 1e-4
    assert errors[1] < errors[0] / 10


@pytest.mark.parametrize(
    ("name", "more", "says"),
    [
        ("euler", {}, "does not estimate its error"),
        ("midpoint", {"compile": True}, "is not compiled"),
        ("rk4", {"rate": lambda f, t, y, dy: dy.square().sum()}, "integrates no rate"),
        ("rk4", {"records": frozenset({"stiffness"})}, "no two stages"),
    ],
)
def test_what_they_do_not_offer_is_refused(name: str, more: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        solve_ode(field, Y0, T, method=name, **LOOSE, **more)  # type: ignore[arg-type]


def test_euler_has_no_error_to_penalize() -> None:
    solution = solve_ode(field, Y0, T, method="euler", step_sizes=[0.5, 0.5], **LOOSE)
    with pytest.raises(ValueError, match="estimates no error"):
        local_biased().penalty(solution, torch.Generator())  # type: ignore[misc]
    assert math.isclose(float(solution.trace.error_ratio.sum()), 0.0)
