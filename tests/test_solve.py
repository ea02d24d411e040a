"""The open box: accuracy, counts, control, gradients, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchode
from conftest import Counting
from scipy.integrate import solve_ivp
from torch import Tensor

from regnde import CONTROLLERS, TABLEAUS, Controller, SolverError, error_ratio, rk_step, solve_ode
from regnde.hosts.with_torchdiffeq import HOST_TABLEAUS
from reproduce.data.spiral import cubic_field

METHODS = list(TABLEAUS)
SPIRAL0 = torch.tensor([[2.0, 0.0]], dtype=torch.float64)
T = torch.linspace(0.0, 1.5, 31, dtype=torch.float64)


def van_der_pol(t: Tensor, y: Tensor) -> Tensor:
    x, v = y[..., 0], y[..., 1]
    return torch.stack([v, 5.0 * (1 - x**2) * v - x], dim=-1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("controller", CONTROLLERS)
def test_solution_and_dense_output_agree_with_dop853_within_ten_tolerances(method: str, controller: str) -> None:
    tolerance, t = 1e-8, torch.linspace(0, 1, 41, dtype=torch.float64)
    y0 = torch.tensor([[1.0, 0.5]], dtype=torch.float64)

    def f(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack([y[..., 1], -torch.sin(y[..., 0]) + 0.3 * torch.cos(t)], dim=-1)

    ours = solve_ode(f, y0, t, rtol=tolerance, atol=tolerance, method=method, controller=controller)
    reference = solve_ivp(
        lambda t, y: f(torch.tensor(t), torch.from_numpy(y)).numpy(),
        (0, 1),
        y0[0].numpy(),
        method="DOP853",
        t_eval=t.numpy(),
        rtol=1e-13,
        atol=1e-13,
    )
    assert np.abs(ours.y[:, 0].numpy() - reference.y.T).max() < 10 * tolerance


@pytest.mark.parametrize(("method", "per_step"), [("tsit5", 6), ("dopri5", 6), ("bosh3", 3)])
def test_nfe_is_two_to_start_and_one_for_each_new_stage_of_each_attempt(
    method: str, per_step: int, mlp: Counting, y0: Tensor
) -> None:
    trace = solve_ode(mlp, y0, T, rtol=1e-7, atol=1e-7, method=method).trace
    assert trace.nfe == mlp.calls == 2 + per_step * (trace.accepted + trace.rejected)


def test_a_solve_with_rejections_counts_them_and_its_steps_cover_the_interval() -> None:
    y0 = torch.tensor([[2.0, 0.0]], dtype=torch.float64)
    trace = solve_ode(van_der_pol, y0, torch.tensor([0.0, 8.0]), rtol=1e-5, atol=1e-5).trace
    assert trace.rejected > 0
    torch.testing.assert_close(trace.t + trace.dt, torch.cat([trace.t[1:], torch.tensor([8.0])]).double())
    assert bool((trace.error_ratio <= 1).all())


def test_recorded_error_ratios_are_those_of_a_replayed_step() -> None:
    solution = solve_ode(cubic_field, SPIRAL0, T, rtol=1e-6, atol=1e-6)
    trace = solution.trace
    for t, dt, y, ratio in zip(trace.t, trace.dt, trace.y, trace.error_ratio, strict=True):
        step = rk_step(cubic_field, t.item(), y, dt.item(), solution.tableau)
        again = error_ratio(step.error, step.y, step.y1, rtol=1e-6, atol=1e-6)
        assert again.item() == pytest.approx(ratio.item(), rel=1e-9)


@pytest.mark.parametrize("name", ["tsit5", "dopri5"])
def test_torchode_counts_the_same_steps(name: str) -> None:
    """An independent library, told the same rule of step sizes, accepts and rejects the same number of steps."""
    y0, tolerance = torch.tensor([[2.0, 0.0]], dtype=torch.float64), 1e-6
    control = Controller(min_factor_accepted=0.2)
    times = torch.tensor([[0.0, 8.0]], dtype=torch.float64)
    ours = HOST_TABLEAUS.get(name, TABLEAUS[name])  # torchode scales the error of dopri5 as torchdiffeq does
    trace = solve_ode(
        van_der_pol, y0, times[0], rtol=tolerance, atol=tolerance, method=ours, controller=control, first_step=1e-3
    ).trace
    term = torchode.ODETerm(van_der_pol)
    method = {"tsit5": torchode.Tsit5, "dopri5": torchode.Dopri5}[name](term=term)
    controller = torchode.IntegralController(atol=tolerance, rtol=tolerance, term=term)
    solver = torchode.AutoDiffAdjoint(method, controller)
    stats = solver.solve(
        torchode.InitialValueProblem(y0=y0, t_eval=times), dt0=torch.full((1,), 1e-3, dtype=torch.float64)
    ).stats
    assert stats["n_accepted"].item() == trace.accepted
    assert stats["n_steps"].item() == trace.accepted + trace.rejected


def test_time_runs_backward_to_where_it_came_from() -> None:
    there = solve_ode(cubic_field, SPIRAL0, T, rtol=1e-10, atol=1e-10)
    back = solve_ode(cubic_field, there.y[-1], T.flip(0), rtol=1e-10, atol=1e-10)
    assert bool((back.trace.dt < 0).all())
    torch.testing.assert_close(back.y, there.y.flip(0), rtol=0, atol=2e-6)


@pytest.mark.parametrize("shape", [(1, 1), (5, 2), (2, 3, 4, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_state_has_any_shape_and_keeps_its_dtype(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    y0 = torch.rand(shape, dtype=dtype)
    solution = solve_ode(lambda t, y: -y, y0, torch.tensor([0.0, 0.4, 1.0]), rtol=1e-5, atol=1e-5)
    assert solution.y.shape == (3, *shape)
    assert solution.y.dtype == dtype
    torch.testing.assert_close(solution.y[-1], y0 * torch.e**-1, rtol=1e-4, atol=1e-5)


def test_more_output_times_and_sampled_times_leave_the_steps_alone() -> None:
    few = solve_ode(cubic_field, SPIRAL0, T[[0, -1]], rtol=1e-6, atol=1e-6)
    sampled_t = torch.tensor([0.9, 0.1, 1.5], dtype=torch.float64)
    many = solve_ode(cubic_field, SPIRAL0, T, rtol=1e-6, atol=1e-6, sampled_t=sampled_t)
    assert torch.equal(few.trace.dt, many.trace.dt)
    assert torch.equal(few.y[-1], many.y[-1])
    exact = solve_ode(cubic_field, SPIRAL0, torch.tensor([0.0, 0.1, 0.9, 1.5]), rtol=1e-11, atol=1e-11)
    assert many.sampled_y is not None
    torch.testing.assert_close(many.sampled_y, exact.y[[2, 1, 3]], rtol=1e-4, atol=1e-4)
    assert torch.equal(many.sampled_t, sampled_t)


@pytest.mark.parametrize("method", METHODS)
def test_backpropagation_agrees_with_finite_differences_when_the_steps_are_held(method: str) -> None:
    theta = torch.tensor([0.9, -0.4], dtype=torch.float64, requires_grad=True)
    y0 = torch.tensor([[0.5, -0.2]], dtype=torch.float64, requires_grad=True)
    t = torch.tensor([0.0, 0.33, 1.0], dtype=torch.float64)

    def states(theta: Tensor, y0: Tensor) -> Tensor:
        f = lambda t, y: torch.sin(theta[0] * y) + theta[1] * t * y.flip(-1)  # noqa: E731
        return solve_ode(f, y0, t, rtol=1e-3, atol=1e-3, method=method, step_sizes=[0.3, 0.5, 0.2]).y

    assert torch.autograd.gradcheck(states, (theta, y0))


def test_backpropagation_of_an_adaptive_solve_agrees_with_the_exact_gradient() -> None:
    rate = torch.tensor(-1.3, dtype=torch.float64, requires_grad=True)
    y0 = torch.ones(1, 1, dtype=torch.float64)
    solution = solve_ode(lambda t, y: rate * y, y0, torch.tensor([0.0, 2.0]), rtol=1e-10, atol=1e-10)
    solution.y[-1].sum().backward()
    assert rate.grad is not None
    assert rate.grad.item() == pytest.approx(2 * np.exp(-1.3 * 2), rel=1e-7)


def test_prescribed_steps_repeat_an_adaptive_solve_exactly(mlp: Counting, y0: Tensor) -> None:
    free = solve_ode(mlp, y0, T, rtol=1e-6, atol=1e-6)
    held = solve_ode(mlp, y0, T, rtol=1e-6, atol=1e-6, step_sizes=free.trace.dt.tolist())
    assert torch.equal(free.y, held.y)
    assert held.trace.nfe == 1 + 6 * free.trace.accepted


def test_too_many_steps_end_in_an_error_with_time_step_ratio_and_advice() -> None:
    with pytest.raises(SolverError, match=r"20 steps.*t = .*step size.*error ratio.*[Ll]oosen"):
        solve_ode(cubic_field, SPIRAL0, T, rtol=1e-9, atol=1e-9, max_steps=20)


def test_a_solution_that_explodes_ends_in_an_error_that_says_where() -> None:
    y0 = torch.ones(1, 1, dtype=torch.float64)  # dy/dt = y^2 from 1 is infinite at t = 1
    with pytest.raises(SolverError, match=r"t = (0\.99|1)"):
        solve_ode(lambda t, y: y**2, y0, torch.tensor([0.0, 2.0]), rtol=1e-6, atol=1e-6)


def test_non_finite_values_of_the_field_end_in_an_error() -> None:
    y0 = torch.ones(1, 1, dtype=torch.float64)
    with pytest.raises(SolverError, match="non-finite values at the initial state"):
        solve_ode(lambda t, y: y / 0.0, y0, torch.tensor([0.0, 1.0]), rtol=1e-6, atol=1e-6)
    with pytest.raises(SolverError, match="non-finite"):
        solve_ode(lambda t, y: y if t < 0.5 else y * torch.nan, y0, T, rtol=1e-6, atol=1e-6)


def test_a_non_finite_trial_step_is_only_a_rejection_when_smaller_steps_cure_it() -> None:
    y0 = torch.full((1, 1), 4.0, dtype=torch.float64)  # y' = -sqrt(y): a long first step leaves the domain

    def f(t: Tensor, y: Tensor) -> Tensor:
        return -torch.sqrt(y)

    solution = solve_ode(f, y0, torch.tensor([0.0, 3.0]), rtol=1e-6, atol=1e-6, first_step=10.0)
    assert solution.trace.rejected > 0
    assert solution.y[-1].item() == pytest.approx((2 - 3 / 2) ** 2, abs=1e-4)


BAD = {
    "a method that does not exist": ({"method": "rk99"}, "rk99.*bosh3.*tsit5"),
    "a controller that does not exist": ({"controller": "pid"}, "pid.*integral"),
    "a record that does not exist": ({"records": frozenset({"entropy"})}, "entropy"),
    "a negative tolerance": ({"rtol": -1e-3}, "rtol.*-0.001"),
    "a NaN tolerance": ({"atol": float("nan")}, "atol.*nan"),
    "two tolerances of zero": ({"rtol": 0.0, "atol": 0.0}, "both 0"),
    "times that turn back": ({"t": torch.tensor([0.0, 1.0, 0.5])}, "strictly increasing"),
    "times that repeat": ({"t": torch.tensor([0.0, 1.0, 1.0])}, "strictly increasing"),
    "a single time": ({"t": torch.tensor([0.0])}, "two times"),
    "a table of times": ({"t": torch.zeros(2, 2)}, "one-dimensional"),
    "NaN in y0": ({"y0": torch.tensor([[float("nan")]])}, "y0 holds NaN"),
    "whole numbers in y0": ({"y0": torch.tensor([[1, 2]])}, "floating-point"),
    "a list as y0": ({"y0": [1.0]}, "floating-point tensor"),
    "a first step of zero": ({"first_step": 0.0}, "first_step"),
    "no steps at all": ({"max_steps": 0}, "max_steps"),
    "sampled times outside": ({"sampled_t": torch.tensor([2.0])}, "leave the interval"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_before_any_evaluation(case: str) -> None:
    changes, message = BAD[case]
    field = Counting(torch.nn.Identity())
    arguments = {"y0": torch.ones(1, 2), "t": torch.tensor([0.0, 1.0]), "rtol": 1e-3, "atol": 1e-3, **changes}
    y0, t = arguments.pop("y0"), arguments.pop("t")
    with pytest.raises(ValueError, match=message):
        solve_ode(lambda t, y: field(y, t), y0, t, **arguments)
    assert field.calls == 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda t, y: y[:, :1], r"expected \(4, 3\).*those of y0.*found \(4, 1\).*those of f's output"),
        (lambda t, y: y.float(), r"torch.float64.*torch.float32"),
        (lambda t, y: (y,), r"must return a tensor.*tuple"),
    ],
)
def test_a_wrong_output_of_the_field_is_refused_with_both_shapes(wrong: object, message: str, y0: Tensor) -> None:
    with pytest.raises(ValueError, match=message):
        solve_ode(wrong, y0, T, rtol=1e-3, atol=1e-3)  # type: ignore[arg-type]
