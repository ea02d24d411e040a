"""Penalties: what they are on average, whom they train, and what they leave alone."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from conftest import Counting
from torch import Tensor

from regnde import (
    REGULARIZERS,
    Regularizer,
    Solution,
    Weight,
    error_ratio,
    initial_step,
    local_error,
    rk_step,
    solve_ode,
)
from regnde import make_regularizer as make
from regnde.penalties import local
from reproduce.data.spiral import cubic_field

T = torch.tensor([0.0, 1.5], dtype=torch.float64)
SPIRAL0 = torch.tensor([[2.0, 0.0]], dtype=torch.float64)
TOLERANCES = {"rtol": 1e-5, "atol": 1e-5}
LOCAL = ["local_unbiased", "local_biased"]


def solved(regularizer: Regularizer, rng: torch.Generator, f: object = cubic_field, y0: Tensor = SPIRAL0) -> Solution:
    t, sampled_t = regularizer.times(T, rng)
    sampled = sampled_t if len(sampled_t) else None
    return solve_ode(f, y0, t, sampled_t=sampled, records=regularizer.records, **TOLERANCES)  # type: ignore[arg-type]


def penalty_of(regularizer: Regularizer, solution: Solution, rng: torch.Generator) -> Tensor:
    assert regularizer.penalty is not None
    return regularizer.penalty(solution, rng)


@pytest.mark.slow
@pytest.mark.parametrize("times_dt", [False, True])
def test_mean_of_the_unbiased_penalty_is_the_time_average_by_quadrature(times_dt: bool) -> None:
    regularizer, rng = make("local_unbiased", times_dt=times_dt), torch.Generator().manual_seed(0)
    drawn_t = torch.cat([regularizer.times(T, rng)[1] for _ in range(2000)])
    at_all = solve_ode(cubic_field, SPIRAL0, T, sampled_t=drawn_t, **TOLERANCES)
    assert at_all.sampled_y is not None
    each = zip(drawn_t.split(1), at_all.sampled_y.split(1), strict=True)
    solutions = [dataclasses.replace(at_all, sampled_t=t, sampled_y=y) for t, y in each]
    draws = np.array([penalty_of(regularizer, solution, rng).item() for solution in solutions])
    # midpoint rule over every accepted step, on which the integrand is smooth
    trace, total, n = at_all.trace, 0.0, 20
    for t, dt in zip(trace.t.tolist(), trace.dt.tolist(), strict=True):
        times = torch.tensor([t + dt * (j + 0.5) / n for j in range(n)], dtype=torch.float64)
        solution = solve_ode(cubic_field, SPIRAL0, T, sampled_t=times, **TOLERANCES)
        assert solution.sampled_y is not None
        for u, y in zip(times.tolist(), solution.sampled_y, strict=True):
            total += local_error(solution, u, y, dt, times_dt=times_dt).item() * dt / n
    standard_error = draws.std(ddof=1) / math.sqrt(len(draws))
    assert abs(draws.mean() - total / 1.5) < 3 * standard_error


def test_the_biased_draw_hits_each_accepted_step_equally_often(monkeypatch: pytest.MonkeyPatch) -> None:
    regularizer, rng, n = make("local_biased"), torch.Generator().manual_seed(0), 4000
    solution, starts = solved(regularizer, rng), []

    def remember(solution: Solution, t: float, y: Tensor, dt: float, **options: bool) -> Tensor:
        starts.append(t)
        return torch.zeros(())

    monkeypatch.setattr(local, "local_error", remember)
    for _ in range(n):
        penalty_of(regularizer, solution, rng)
    steps = solution.trace.accepted
    counts = np.array([starts.count(t) for t in solution.trace.t.tolist()])
    spread = math.sqrt(n / steps * (1 - 1 / steps))
    assert counts.sum() == n
    assert (np.abs(counts - n / steps) < 3.5 * spread).all()
    assert abs(((counts - n / steps) ** 2 / (n / steps)).sum() - (steps - 1)) < 3 * math.sqrt(2 * (steps - 1))


def test_the_biased_penalty_is_the_error_ratio_that_the_solver_recorded() -> None:
    regularizer, rng = make("local_biased"), torch.Generator().manual_seed(3)
    solution = solved(regularizer, rng)
    values = {round(penalty_of(regularizer, solution, rng).item(), 12) for _ in range(300)}
    assert values <= {round(ratio, 12) for ratio in solution.trace.error_ratio.tolist()}
    assert len(values) > solution.trace.accepted / 2


@pytest.mark.parametrize("name", LOCAL)
@pytest.mark.parametrize("step", ["solver", "initial"])
@pytest.mark.parametrize("times_dt", [False, True])
def test_the_gradient_of_a_local_penalty_agrees_with_finite_differences(name: str, step: str, times_dt: bool) -> None:
    """With the state and the step held, also the first stage of the local step is differentiated."""
    regularizer, rng = make(name, step="solver", times_dt=times_dt), torch.Generator().manual_seed(0)
    solution = solved(regularizer, rng)
    dt = solution.trace.dt[3].item()
    if step == "initial":
        k1 = cubic_field(0.0, solution.trace.y[3])
        dt = initial_step(cubic_field, 0.0, solution.trace.y[3], k1, direction=1.0, order=5, **TOLERANCES)

    def penalty(theta: Tensor) -> Tensor:
        method = dataclasses.replace(solution.method, f=lambda t, y: theta[0] * cubic_field(t, y) + theta[1] * y)
        scaled = dataclasses.replace(solution, method=method)
        return local_error(scaled, solution.trace.t[3].item(), solution.trace.y[3], dt, times_dt=times_dt)

    theta = torch.tensor([1.1, 0.1], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(penalty, theta)


@pytest.mark.parametrize("name", ["global_error", "global_stiffness"])
def test_the_gradient_of_a_global_penalty_agrees_with_finite_differences_when_the_steps_are_held(name: str) -> None:
    regularizer, rng = make(name), torch.Generator()
    sizes = solve_ode(cubic_field, SPIRAL0, T, rtol=1e-3, atol=1e-3).trace.dt.tolist()

    def penalty(theta: Tensor) -> Tensor:
        f = lambda t, y: theta[0] * cubic_field(t, y) + theta[1] * y  # noqa: E731
        solution = solve_ode(f, SPIRAL0, T, step_sizes=sizes, records=regularizer.records, rtol=1e-3, atol=1e-3)
        return penalty_of(regularizer, solution, rng)

    theta = torch.tensor([1.0, 0.1], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(penalty, theta)


def test_global_penalties_are_sums_over_the_trace(mlp: Counting, y0: Tensor) -> None:
    rng = torch.Generator()
    solution = solve_ode(mlp, y0, T, records=frozenset({"error_ratio", "stiffness"}), **TOLERANCES)
    trace = solution.trace
    assert trace.stiffness is not None
    by_dt = penalty_of(make("global_error"), solution, rng)
    assert by_dt.item() == pytest.approx((trace.error_ratio * trace.dt).sum().item())
    assert penalty_of(make("global_error", times_dt=False), solution, rng).item() == pytest.approx(
        trace.error_ratio.sum().item()
    )
    assert penalty_of(make("global_stiffness"), solution, rng).item() == pytest.approx(trace.stiffness.sum().item())


@pytest.mark.parametrize("name", REGULARIZERS)
def test_no_regularizer_but_steer_changes_the_steps_and_none_of_them_the_states(
    name: str, mlp: Counting, y0: Tensor
) -> None:
    plain = solve_ode(mlp, y0, T, **TOLERANCES)
    solution = solved(make(name), torch.Generator().manual_seed(0), mlp, y0)
    if name == "steer":
        assert not torch.equal(solution.t, plain.t)
    else:
        assert torch.equal(solution.y, plain.y)
        assert torch.equal(solution.trace.dt, plain.trace.dt)
        assert solution.trace.nfe == plain.trace.nfe


def test_a_local_penalty_costs_one_step_from_scratch_in_evaluations(mlp: Counting, y0: Tensor) -> None:
    for name in LOCAL:
        regularizer, rng = make(name), torch.Generator().manual_seed(0)
        solution = solved(regularizer, rng, mlp, y0)
        mlp.calls = 0
        penalty_of(regularizer, solution, rng)
        assert mlp.calls == 7


@pytest.mark.parametrize("name", LOCAL)
def test_a_local_penalty_trains_the_field_and_never_reaches_the_initial_state(
    name: str, mlp: Counting, y0: Tensor
) -> None:
    y0.requires_grad_()
    regularizer, rng = make(name), torch.Generator().manual_seed(0)
    penalty_of(regularizer, solved(regularizer, rng, mlp, y0), rng).backward()
    assert y0.grad is None
    assert all(parameter.grad is not None for parameter in mlp.parameters())


def test_the_local_step_is_clipped_to_the_end_of_the_interval() -> None:
    solution = solve_ode(cubic_field, SPIRAL0, T, **TOLERANCES)
    times: list[float] = []

    def f(t: Tensor, y: Tensor) -> Tensor:
        times.append(t.item())
        return cubic_field(t, y)

    method = dataclasses.replace(solution.method, f=f)
    local_error(dataclasses.replace(solution, method=method), 1.4, SPIRAL0, 5.0)
    assert max(times) == pytest.approx(1.5)


def test_the_solver_step_is_the_accepted_step_that_contains_the_time() -> None:
    trace = solve_ode(cubic_field, SPIRAL0, T, **TOLERANCES).trace
    solution = solve_ode(cubic_field, SPIRAL0, T, **TOLERANCES)
    for t, dt in zip(trace.t.tolist(), trace.dt.tolist(), strict=True):
        for share in (0.0, 0.4, 0.999):
            assert local.STEP_SIZES["solver"](solution, t + share * dt, SPIRAL0) == dt


def test_the_papers_form_takes_the_initial_step_times_its_size() -> None:
    rng = torch.Generator().manual_seed(0)
    regularizer = make("local_unbiased", step="initial", times_dt=True)
    solution = solved(regularizer, rng)
    assert solution.sampled_y is not None
    t, y = solution.sampled_t.item(), solution.sampled_y[0]
    k1 = cubic_field(t, y)
    dt = initial_step(cubic_field, t, y, k1, direction=1.0, order=5, **TOLERANCES)
    step = rk_step(cubic_field, t, y, dt, solution.tableau)
    by_hand = dt * error_ratio(step.error, y, step.y1, **TOLERANCES)
    assert penalty_of(regularizer, solution, rng).item() == pytest.approx(by_hand.item(), rel=1e-9)


@pytest.mark.parametrize("name", LOCAL)
def test_a_field_of_zero_has_no_penalty_and_a_finite_gradient(name: str) -> None:
    regularizer, rng = make(name), torch.Generator().manual_seed(0)
    scale = torch.zeros((), dtype=torch.float64, requires_grad=True)
    penalty = penalty_of(regularizer, solved(regularizer, rng, lambda t, y: scale * y), rng)
    penalty.backward()
    assert penalty.item() == 0
    assert scale.grad is not None
    assert torch.isfinite(scale.grad)


@pytest.mark.parametrize("name", ["global_error", "global_stiffness"])
def test_a_global_penalty_refuses_a_trace_without_gradient(name: str, mlp: Counting, y0: Tensor) -> None:
    regularizer = make(name)
    unasked = solve_ode(mlp, y0, T, **TOLERANCES)
    with torch.no_grad():
        graphless = solve_ode(mlp, y0, T, records=regularizer.records, **TOLERANCES)
    for solution in (unasked, graphless):
        with pytest.raises(ValueError, match="local_unbiased or local_biased"):
            penalty_of(regularizer, solution, torch.Generator())


def test_training_on_the_local_penalty_alone_makes_the_solve_cheaper(mlp: Counting, y0: Tensor) -> None:
    """The point of it all: following the gradient of the biased penalty lowers the number of steps."""
    regularizer, rng = make("local_biased"), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(mlp.parameters(), lr=3e-2)
    nfe = []
    for _ in range(30):
        optimizer.zero_grad()
        solution = solve_ode(mlp, y0, T, rtol=1e-9, atol=1e-9)
        nfe.append(solution.trace.nfe)
        penalty_of(regularizer, solution, rng).backward()
        optimizer.step()
    assert nfe[-1] < 0.7 * nfe[0]


def test_steer_moves_every_time_but_the_first_within_its_room_and_keeps_the_order() -> None:
    t, rng = torch.tensor([0.0, 1.0, 1.5, 4.0], dtype=torch.float64), torch.Generator().manual_seed(0)
    regularizer = make("steer", fraction=0.5)
    moved = torch.stack([regularizer.times(t, rng)[0] for _ in range(2000)])
    room = torch.tensor([0.0, 0.25, 0.25, 1.25], dtype=torch.float64)
    assert bool(((moved - t).abs() <= room).all())
    assert bool((moved.diff(dim=1) > 0).all())
    uniform = room / math.sqrt(3)  # standard deviation of a uniform time
    torch.testing.assert_close(moved.std(0), uniform, rtol=0.05, atol=1e-12)
    backward = regularizer.times(t.flip(0), rng)[0]
    assert bool((backward.diff() < 0).all())


def test_weights_are_constant_or_exponential_in_the_progress() -> None:
    assert [Weight(2.0)(p) for p in (0.0, 0.5, 1.0)] == [2.0, 2.0, 2.0]
    assert [Weight(2.5, 1.0)(p) for p in (0.0, 0.5, 1.0)] == pytest.approx([2.5, math.sqrt(2.5), 1.0])
    assert [Weight(0.1, 5.0)(p) for p in (0.0, 1.0)] == pytest.approx([0.1, 5.0])


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("dropout", {}, "unknown regularizer 'dropout'.*local_biased"),
        ("local_biased", {"steps": "solver"}, "do not fit regularizer 'local_biased'"),
        ("local_biased", {"step": "half"}, "unknown step 'half'.*initial.*solver"),
        ("local_unbiased", {"weight": 0.0}, "weight must be positive"),
        ("global_error", {"weight": float("nan")}, "weight must be positive"),
        ("steer", {"fraction": 0.7}, r"\(0, 0.5\]"),
    ],
)
def test_wrong_names_and_settings_are_refused(name: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(name, **settings)  # type: ignore[arg-type]


def test_the_unbiased_penalty_refuses_a_solve_without_its_sampled_time() -> None:
    with pytest.raises(ValueError, match="sampled_t"):
        penalty_of(make("local_unbiased"), solve_ode(cubic_field, SPIRAL0, T, **TOLERANCES), torch.Generator())
