"""VCAB3: weights, orders, start-up, dense output, counts, gradients, and the local penalty that remembers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Counting
from torch import Tensor

from regnde import AdamsBashforth, Solution, SolverError, local_error, local_step, make_regularizer, rk_step, solve_ode
from regnde.solvers.adams import History
from regnde.solvers.tableaus import BOSH3, TABLEAUS, AdamsWeights

T = torch.tensor([0.0, 2.0], dtype=torch.float64)
Y0 = torch.tensor([[1.2, 0.3]], dtype=torch.float64)
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
RECORDED = frozenset({"error_ratio"})


def pendulum(t: Tensor, y: Tensor) -> Tensor:
    """A nonlinear, time-dependent field."""
    return torch.stack([y[..., 1], -torch.sin(y[..., 0]) + 0.3 * torch.cos(t)], dim=-1)


def solve(f: Callable[[Tensor, Tensor], Tensor], y0: Tensor = Y0, t: Tensor = T, **how: Any) -> Solution:
    return solve_ode(f, y0, t, method="vcab3", **{**TOLERANCE, **how})


def exact(times: Tensor) -> Tensor:
    return solve_ode(pendulum, Y0, times, rtol=1e-12, atol=1e-12).y


def slope(x: list[float], errors: list[float]) -> float:
    return float(np.polyfit(np.log(x), np.log(errors), 1)[0])


def unequal(n: int) -> list[float]:
    """Sizes of n steps over an interval of length 2 that keep changing, by a factor of up to 3; and one to spare."""
    sizes = np.array([1.0, 0.5, 1.5, 0.75] * (n // 4))
    return [*(2.0 * sizes / sizes.sum()).tolist(), 1.0]


def exact_at(time: float) -> Tensor:
    return exact(torch.tensor([0.0, time], dtype=torch.float64))[-1]


def history(f: Callable[[Tensor, Tensor], Tensor], times: list[float]) -> History:
    """The derivatives of the exact solution at times, the newest first."""
    return History(tuple(times), tuple(f(torch.tensor(time), exact_at(time)) for time in times))


# Weights and orders


def test_for_equal_steps_the_weights_are_those_of_the_books() -> None:
    weights = AdamsWeights(1.0, 2.0)
    assert weights.b == pytest.approx((23 / 12, -16 / 12, 5 / 12))
    assert weights.b_error == pytest.approx((23 / 12 - 3 / 2, -16 / 12 + 1 / 2, 5 / 12))


@pytest.mark.parametrize(("back1", "back2"), [(1.0, 2.0), (0.3, 0.4), (2.5, 7.0)])
def test_the_weights_integrate_every_parabola_exactly_up_to_any_time(back1: float, back2: float) -> None:
    weights, nodes = AdamsWeights(back1, back2), np.array([0.0, -back1, -back2])
    theta = np.array([0.25, 1.0])
    for power in range(3):
        exact = theta ** (power + 1) / (power + 1)
        np.testing.assert_allclose(weights.weights(theta) @ nodes**power, exact, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(weights.weights(np.ones(1))[0], weights.b)


def test_the_error_is_the_difference_to_order_2() -> None:
    """Adams-Bashforth 2 with variable steps, by hand: y + dt ((1 + w / 2) f1 - w / 2 f2), w = dt / (t1 - t2)."""
    past, dt = history(pendulum, [0.5, 0.3, 0.2]), 0.4
    step = AdamsBashforth(pendulum, BOSH3, 1e-3, 1e-3).take(0.5, Y0, dt, past)
    w = dt / (0.5 - 0.3)
    order2 = Y0 + dt * ((1 + w / 2) * past.k[0] - w / 2 * past.k[1])
    torch.testing.assert_close(step.error, step.y1 - order2, rtol=1e-10, atol=1e-14)


def test_the_global_order_is_3_with_steps_that_keep_changing() -> None:
    ns, target = [16, 32, 64, 128], exact(T)[-1]
    errors = [float((solve(pendulum, step_sizes=unequal(n)).y[-1] - target).norm()) for n in ns]
    assert slope([1 / n for n in ns], errors) == pytest.approx(3, abs=0.3)


def test_under_the_controller_the_error_falls_with_the_tolerance() -> None:
    tolerances, target = [1e-4, 1e-5, 1e-6, 1e-7, 1e-8], exact(T)[-1]
    solutions = [solve(pendulum, rtol=tolerance, atol=tolerance) for tolerance in tolerances]
    errors = [float((solution.y[-1] - target).norm()) for solution in solutions]
    steps = [1 / solution.trace.accepted for solution in solutions]
    assert slope(steps, errors) == pytest.approx(3, abs=0.5)
    assert max(error / tolerance for error, tolerance in zip(errors, tolerances, strict=True)) < 30


@pytest.mark.parametrize("direction", [1.0, -1.0])
def test_the_local_error_is_of_order_4_and_its_estimate_of_order_3(direction: float) -> None:
    dts, estimates, errors = [0.2, 0.1, 0.05, 0.025], [], []
    for dt in dts:
        times = [1.0, 1.0 - direction * 0.7 * dt, 1.0 - direction * 1.9 * dt]
        method, past = AdamsBashforth(pendulum, BOSH3, 1e-3, 1e-3), history(pendulum, times)
        step = method.take(1.0, exact_at(1.0), direction * dt, past)
        estimates.append(float(step.error.norm()))
        errors.append(float((step.y1 - exact_at(1.0 + direction * dt)).norm()))
    assert slope(dts, estimates) == pytest.approx(3, abs=0.3)
    assert slope(dts, errors) == pytest.approx(4, abs=0.3)


def test_the_first_two_steps_are_those_of_the_embedded_pair_of_order_3() -> None:
    sizes = [0.1, 0.15, 0.1, 2.0]
    ours, pair = (
        solve_ode(pendulum, Y0, T, method=method, step_sizes=sizes, **TOLERANCE).trace for method in ("vcab3", "bosh3")
    )
    for i in range(3):
        assert torch.equal(ours.y[i], pair.y[i])
    assert torch.equal(ours.error_ratio[:2], pair.error_ratio[:2])
    assert not torch.equal(ours.y[3], pair.y[3])


# Dense output, time backward, dtypes


def test_dense_output_is_of_order_3_and_meets_itself_at_the_ends_of_steps() -> None:
    times, errors, ns = torch.linspace(0, 2, 41, dtype=torch.float64), [], [16, 32, 64, 128]
    target = exact(times)
    for n in ns:
        solution = solve(pendulum, t=times, step_sizes=unequal(n))
        errors.append(float((solution.y - target).norm(dim=-1).max()))
    assert slope([1 / n for n in ns], errors) == pytest.approx(3, abs=0.3)
    trace = solution.trace
    just_before = solve(pendulum, sampled_t=trace.t[1:] - 1e-12, step_sizes=unequal(ns[-1])).sampled_y
    assert just_before is not None
    torch.testing.assert_close(just_before, torch.stack(trace.y[1:]), rtol=0, atol=1e-10)


def test_output_times_leave_the_steps_alone() -> None:
    few, many = solve(pendulum), solve(pendulum, t=torch.linspace(0, 2, 17, dtype=torch.float64))
    assert torch.equal(few.trace.dt, many.trace.dt)
    assert torch.equal(few.y[-1], many.y[-1])


def test_time_runs_backward_to_where_it_came_from() -> None:
    there = solve(pendulum, rtol=1e-9, atol=1e-9)
    back = solve(pendulum, there.y[-1], T.flip(0), rtol=1e-9, atol=1e-9)
    assert bool((back.trace.dt < 0).all())
    torch.testing.assert_close(back.y[-1], Y0, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (5, 2), (2, 3, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_state_has_any_shape_and_keeps_its_dtype(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    y0 = torch.rand(shape, dtype=dtype)
    solution = solve(lambda t, y: -y, y0, torch.tensor([0.0, 0.4, 1.0]))
    assert (solution.y.shape, solution.y.dtype) == ((3, *shape), dtype)
    torch.testing.assert_close(solution.y[-1], y0 * torch.e**-1, rtol=1e-3, atol=1e-4)


# Evaluations


@pytest.mark.parametrize(("first_step", "first"), [(None, 2), (1e-3, 1), (1.0, 1)])
def test_an_accepted_step_costs_one_evaluation_and_a_rejected_one_nothing(
    first_step: float | None, first: int, mlp: Counting, y0: Tensor
) -> None:
    trace = solve(mlp, y0, torch.tensor([0.0, 4.0]), first_step=first_step).trace
    starting = 2 + int((trace.rejected_t <= trace.t[1]).sum())  # attempts at the first two steps
    assert trace.rejected > 0
    assert trace.nfe == mlp.calls == first + 3 * starting + (trace.accepted - 2)
    assert bool((trace.error_ratio <= 1).all())
    assert (trace.t[1:] - trace.t[:-1] - trace.dt[:-1]).abs().max() < 1e-12


def test_it_needs_fewer_evaluations_than_a_pair_of_the_same_order(mlp: Counting, y0: Tensor) -> None:
    tight = {"rtol": 1e-6, "atol": 1e-6}
    ours, pair = (solve_ode(mlp, y0, T, method=method, **tight).trace for method in ("vcab3", "bosh3"))
    assert ours.nfe < pair.nfe


def test_a_rate_along_the_solution_costs_nothing_and_is_integrated(mlp: Counting, y0: Tensor) -> None:
    regularizer = make_regularizer("kinetic_jacobian", jacobian=0.0)
    assert regularizer.rate is not None
    rng = torch.Generator().manual_seed(0)
    plain = solve(mlp, y0)
    with_rate = solve(mlp, y0, rate=regularizer.rate(rng))
    reference = solve_ode(mlp, y0, T, rate=regularizer.rate(rng), rtol=1e-9, atol=1e-9)
    assert with_rate.trace.nfe == plain.trace.nfe
    torch.testing.assert_close(with_rate.rate_integral, reference.rate_integral, rtol=1e-2, atol=0)


def test_a_field_that_ends_is_a_solver_error() -> None:
    with pytest.raises(SolverError, match="non-finite"):
        solve(lambda t, y: -torch.sqrt(y - 1), torch.full((1, 1), 2.0), torch.tensor([0.0, 9.0]), atol=0.1)


# Gradients


def held_field(theta: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda t, y: torch.sin(theta[0] * y) + theta[1] * t * y.flip(-1)


def theta() -> Tensor:
    return torch.tensor([0.9, -0.4], dtype=torch.float64, requires_grad=True)


def test_backpropagation_agrees_with_finite_differences_when_the_steps_are_held() -> None:
    t = torch.tensor([0.0, 0.33, 1.0], dtype=torch.float64)
    y0 = torch.tensor([[0.5, -0.2]], dtype=torch.float64, requires_grad=True)

    def values(theta: Tensor, y0: Tensor) -> tuple[Tensor, Tensor]:
        solution = solve(held_field(theta), y0, t, step_sizes=[0.2, 0.1, 0.3, 0.25, 0.15], records=RECORDED)
        return solution.y, solution.trace.error_ratio

    assert torch.autograd.gradcheck(values, (theta(), y0))
    assert torch.autograd.gradgradcheck(values, (theta(), y0))


@pytest.mark.parametrize("i", [0, 2, 4])
def test_the_gradient_of_a_local_penalty_agrees_with_finite_differences(i: int) -> None:
    solution = solve(held_field(theta().detach()), step_sizes=[0.4, 0.3, 0.5, 0.35, 0.45])

    def ratio(theta: Tensor) -> Tensor:
        method = AdamsBashforth(held_field(theta), BOSH3, **TOLERANCE)
        trace, t = solution.trace, float(solution.trace.t[i])
        start = method.recall(t, trace.y[i], float(trace.dt[i]), None, trace.t, trace.y)
        return method.step_ratio(t, trace.y[i], float(trace.dt[i]), start)

    assert torch.autograd.gradcheck(ratio, theta())


# The local penalty


def starts(solution: Solution) -> list[tuple[int, float, Tensor, float]]:
    trace = solution.trace
    return [(i, float(trace.t[i]), trace.y[i], float(trace.dt[i])) for i in range(trace.accepted)]


@pytest.mark.parametrize("t", [T, T.flip(0)], ids=["forward", "backward"])
def test_a_local_step_from_the_record_is_the_solvers_own(t: Tensor) -> None:
    solution = solve(pendulum, t=t)
    found = torch.stack([local_error(solution, at, y, dt) for _, at, y, dt in starts(solution)])
    torch.testing.assert_close(found, solution.trace.error_ratio, rtol=1e-9, atol=0)


def test_a_local_step_costs_three_evaluations_or_four_without_enough_of_a_past(mlp: Counting, y0: Tensor) -> None:
    solution = solve(mlp, y0)
    for i, t, y, dt in starts(solution):
        before = mlp.calls
        local_error(solution, t, y, dt)
        assert mlp.calls - before == (4 if i < 2 else 3)
        before = mlp.calls
        local_error(solution, t, y, dt, recall=False)
        assert mlp.calls - before == 4


def test_a_local_penalty_is_the_formula_of_three_derivatives_by_hand(mlp: Counting, y0: Tensor) -> None:
    solution = solve(mlp, y0)
    (t2, t1, t, *_), (y2, y1, y, *_) = solution.trace.t.tolist(), solution.trace.y
    dt = float(solution.trace.dt[2])
    f, f1, f2 = (mlp(torch.tensor(at, dtype=torch.float64), x) for at, x in ((t, y), (t1, y1), (t2, y2)))
    second = ((f - f1) / (t - t1) - (f1 - f2) / (t1 - t2)) / (t - t2)
    error = second * (dt**3 / 3 + (t - t1) * dt**2 / 2)
    first = y + dt * f + dt**2 / 2 * (f - f1) / (t - t1) + error
    by_hand = (error / (1e-5 + 1e-5 * torch.maximum(y.abs(), first.abs()))).square().mean().sqrt()
    found = local_error(solution, t, y, dt)
    torch.testing.assert_close(found, by_hand, rtol=1e-9, atol=0)
    parameters = tuple(mlp.parameters())
    for a, b in zip(torch.autograd.grad(found, parameters), torch.autograd.grad(by_hand, parameters), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-12)


def test_an_unbiased_penalty_goes_on_from_the_drawn_time_and_the_two_starts_before_it(
    mlp: Counting, y0: Tensor
) -> None:
    drawn = torch.tensor([1.234], dtype=torch.float64)
    solution = solve(mlp, y0, sampled_t=drawn)
    assert solution.sampled_y is not None
    penalty = make_regularizer("local_unbiased").penalty
    assert penalty is not None
    trace, t, y = solution.trace, float(drawn), solution.sampled_y[0]
    i = int((trace.t <= t).sum()) - 1
    past = History((), ())
    for at, x in ((float(trace.t[i - 1]), trace.y[i - 1]), (float(trace.t[i]), trace.y[i]), (t, y)):
        past = past.then(at, mlp(torch.tensor(at, dtype=torch.float64), x))
    method = AdamsBashforth(mlp, BOSH3, **TOLERANCE)
    by_hand = method.ratio(method.take(t, y, float(trace.dt[i]), past))
    torch.testing.assert_close(penalty(solution, torch.Generator()), by_hand, rtol=1e-9, atol=0)


def test_a_time_drawn_in_the_start_up_gets_a_step_of_the_pair_as_the_solver_took_it(mlp: Counting, y0: Tensor) -> None:
    first = solve(mlp, y0).trace
    drawn = first.t[:2] + 0.4 * first.dt[:2]
    solution = solve(mlp, y0, sampled_t=drawn)
    assert solution.sampled_y is not None
    for t, y, dt in zip(drawn.tolist(), solution.sampled_y, first.dt.tolist(), strict=False):
        by_hand = solution.method.ratio(rk_step(mlp, t, y, dt, TABLEAUS["bosh3"]))
        torch.testing.assert_close(local_error(solution, t, y, dt), by_hand, rtol=1e-9, atol=0)


def test_a_recorded_state_too_near_to_the_drawn_time_is_left_out() -> None:
    solution = solve(pendulum)
    trace, i = solution.trace, 5
    t, dt = float(trace.t[i]) + 1e-9, float(trace.dt[i])
    step = local_step(solution, t, trace.y[i], dt)
    assert isinstance(step.start, History)
    assert step.start.t == pytest.approx((t, float(trace.t[i - 1]), float(trace.t[i - 2])), abs=0)
    assert local_error(solution, t, trace.y[i], dt).item() == pytest.approx(trace.error_ratio[i].item(), rel=1e-4)


def test_a_penalty_with_the_initial_step_takes_one_step_of_the_pair(mlp: Counting, y0: Tensor) -> None:
    solution = solve(mlp, y0)
    regularizer = make_regularizer("local_biased", step="initial")
    assert regularizer.penalty is not None
    found = regularizer.penalty(solution, torch.Generator().manual_seed(0))
    i = int(torch.randint(solution.trace.accepted, (1,), generator=torch.Generator().manual_seed(0)))
    t, y = float(solution.trace.t[i]), solution.trace.y[i]
    dt = solution.method.first_step(t, y, None, 1.0, 2.0 - t)
    by_hand = solution.method.ratio(rk_step(mlp, t, y, dt, TABLEAUS["bosh3"]))
    assert found.item() == pytest.approx(by_hand.item(), rel=1e-9)


def test_to_hold_the_first_stage_holds_the_derivative_at_the_start_alone(mlp: Counting, y0: Tensor) -> None:
    solution, parameters = solve(mlp, y0), tuple(mlp.parameters())
    _, t, y, dt = starts(solution)[4]
    free, held = (local_error(solution, t, y, dt, detach_k1=detach) for detach in (False, True))
    assert free.item() == held.item()
    gradients = [torch.autograd.grad(value, parameters)[0] for value in (free, held)]
    assert all(gradient.norm() > 0 for gradient in gradients)
    assert not torch.allclose(*gradients, rtol=1e-2)


def test_a_reused_or_summed_error_ratio_carries_the_gradient_through_the_solver(mlp: Counting, y0: Tensor) -> None:
    for regularizer in (make_regularizer("local_biased", reuse=True), make_regularizer("global_error")):
        solution = solve(mlp, y0.requires_grad_(), records=regularizer.records)
        assert regularizer.penalty is not None
        (of_y0,) = torch.autograd.grad(regularizer.penalty(solution, torch.Generator().manual_seed(1)), y0)
        assert of_y0.norm() > 0


# What it refuses


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"compile": True}, "compile"),
        ({"gradient": "checkpoint", "parameters": ()}, "checkpoint"),
        ({"t": T.clone().requires_grad_()}, "detach"),
        ({"records": frozenset({"stiffness"})}, "stiffness"),
    ],
)
def test_what_a_method_with_a_memory_cannot_do_is_refused_before_any_evaluation(
    how: dict[str, Any], message: str, mlp: Counting, y0: Tensor
) -> None:
    with pytest.raises(ValueError, match=f"vcab3.*{message}"):
        solve(mlp, y0, **how)
    assert mlp.calls == 0


def test_a_local_stiffness_has_no_meaning_and_says_so(mlp: Counting, y0: Tensor) -> None:
    penalty = make_regularizer("local_stiffness").penalty
    assert penalty is not None
    with pytest.raises(ValueError, match="stiffness"):
        penalty(solve(mlp, y0), torch.Generator().manual_seed(0))


def test_a_solve_for_nobody_keeps_no_graph(mlp: Counting, y0: Tensor) -> None:
    with torch.no_grad():
        solution = solve(mlp, y0)
    assert not solution.y.requires_grad
    assert math.isfinite(float(solution.y.sum()))
