"""Situations at the edge: seeds, nothing at all, zero scales, tiny and late times, reused memory, devices."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchsde import BrownianInterval

from regnde import (
    BrownianPath,
    Controller,
    Solution,
    SolverError,
    error_ratio,
    global_error,
    global_stiffness,
    initial_step,
    kinetic_jacobian,
    local_biased,
    local_step,
    local_unbiased,
    odeint_solve,
    rk_step,
    sdeint_solve,
    solve_ode,
    solve_sde,
    steer,
    taynode,
)
from regnde.solvers.control import until
from regnde.solvers.methods import StochasticRungeKutta
from regnde.solvers.sri_tableaus import SOSRI2
from regnde.solvers.tableaus import TSIT5

T = torch.tensor([0.0, 1.0], dtype=torch.float64)
RNG = torch.Generator
LOOSE: dict[str, Any] = {"rtol": 1e-3, "atol": 1e-3}
FAR = {"rtol": 1e-6, "atol": 1e-6}


class Linear(nn.Module):
    """dy = -theta y dt + 0.8 y dW, as torchsde wants it, and the drift alone as a field."""

    noise_type, sde_type = "diagonal", "ito"

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(1.0, dtype=dtype))

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        return -self.theta * y

    forward = f

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        return 0.8 * y


# ------------------------------------------------------------------ F3: a seed is a path


STEPS: list[dict[str, Any]] = [
    {"rtol": 1e-1},
    {"rtol": 1e-3},
    {"rtol": 1e-2, "first_step": 0.3},
    {"rtol": 1e-2, "step_sizes": [1.0] * 4},
    {"rtol": 1e-2, "method": "sosri"},
]


@pytest.mark.parametrize("interval", [(0.0, 1.0), (-3.0, 0.7), (1.7e9, 1.7e9 + 2)])
def test_the_path_of_a_seed_is_the_same_to_the_bit_whatever_steps_were_taken(interval: tuple[float, float]) -> None:
    t, y0, (a, b) = torch.tensor(interval, dtype=torch.float64), torch.ones(3, 2, dtype=torch.float64), interval
    asked = [(a, (a + b) / 2), (a + 0.1 * (b - a), a + 0.23456 * (b - a)), (a, b)]
    found = []
    for steps in STEPS:
        bm = solve_sde(Linear().f, Linear().g, y0, t, atol=1e-3, seed=7, **steps).method.bm  # type: ignore[attr-defined]
        found.append([value for ends in asked for value in bm(*ends, return_U=True)])
    for other in found[1:]:
        assert all(torch.equal(x, y) for x, y in zip(found[0], other, strict=True))


def test_the_strong_error_of_one_seed_falls_with_the_tolerance_at_the_order_of_the_method() -> None:
    y0, errors, sizes = torch.ones(400, 1, dtype=torch.float64), [], []
    for tolerance in (1e-1, 3e-2, 1e-2, 3e-3):
        solution = solve_sde(Linear().f, Linear().g, y0, T, rtol=tolerance, atol=tolerance, seed=7)
        exact = torch.exp(-1.32 + 0.8 * solution.method.bm(0.0, 1.0))  # type: ignore[attr-defined]
        errors.append(math.log(float((solution.y[-1].detach() - exact).square().mean().sqrt())))
        sizes.append(math.log(1 / solution.trace.accepted))
    assert np.polyfit(sizes, errors, 1)[0] > 1.3  # along a path that depends on the steps: no slope at all


def test_more_output_times_leave_the_solution_of_a_seed_alone() -> None:
    y0 = torch.ones(3, 2, dtype=torch.float64)
    few, many = (
        solve_sde(Linear().f, Linear().g, y0, torch.linspace(0, 1, n), seed=7, **LOOSE, sampled_t=sampled)
        for n, sampled in ((2, None), (9, torch.tensor([0.123])))
    )
    assert torch.equal(few.y[-1], many.y[-1])
    assert torch.equal(few.trace.dt, many.trace.dt)


# ------------------------------------------------------------------ F6: nothing, zero scales, no step size


def penalties(solution: Solution) -> list[Tensor]:
    """Every penalty that a solve with both records can pay."""
    menu = (global_error(), global_stiffness(), local_biased(), local_biased(step="initial"), local_unbiased())
    return [regularizer.penalty(solution, RNG()) for regularizer in menu if regularizer.penalty is not None]


@pytest.mark.parametrize("kind", ["ode", "sde"])
def test_an_empty_batch_gives_an_empty_solution_and_penalties_of_nothing(kind: str) -> None:
    field, y0 = Linear(torch.float32), torch.empty(0, 3, requires_grad=True)
    asked: dict[str, Any] = {**LOOSE, "records": frozenset({"error_ratio", "stiffness"}), "sampled_t": T[:1] + 0.3}
    if kind == "ode":
        solution = solve_ode(field, y0, T, **asked)
    else:
        solution = solve_sde(field.f, field.g, y0, T, seed=0, **asked)
    assert solution.y.shape == (2, 0, 3)
    assert solution.trace.nfe < 100
    total = solution.y.sum() + torch.stack(penalties(solution)).sum()
    total.backward()
    assert total.item() == 0.0
    assert field.theta.grad is not None
    assert field.theta.grad.item() == 0.0


@pytest.mark.parametrize("gradient", ["backprop", "adjoint"])
def test_torchdiffeq_takes_an_empty_batch_too_and_for_torchsde_it_is_refused(gradient: str) -> None:
    field, y0 = Linear(torch.float32), torch.empty(0, 3, requires_grad=True)
    hosted = odeint_solve(field, y0, T, gradient=gradient, **LOOSE)
    assert hosted.y.shape == (2, 0, 3)
    hosted.y.sum().backward()
    with pytest.raises(ValueError, match=r"empty batch.*solve_sde"):
        sdeint_solve(field, y0, T, dt=0.1, gradient=gradient, seed=0, **LOOSE)


def test_rates_of_an_empty_batch_are_zero() -> None:
    for regularizer in (taynode(), kinetic_jacobian()):
        assert regularizer.rate is not None
        rate = regularizer.rate(RNG())
        solution = solve_ode(lambda t, y: torch.tanh(y), torch.empty(0, 3), T, rate=rate, **LOOSE)
        assert solution.rate_integral is not None
        assert solution.rate_integral.item() == 0.0


@pytest.mark.parametrize("atol", [0.0, 1e-60])
def test_entries_without_a_scale_are_refused_by_name_before_any_evaluation(atol: float) -> None:
    def forbidden(t: Tensor, y: Tensor) -> Tensor:
        raise AssertionError("evaluated")

    message, y0 = (
        r"0 in 1 of 2 entries of y0 \(the first at index \(0, 1\).*give a larger atol",
        torch.tensor([[1.0, 0]]),
    )
    with pytest.raises(ValueError, match=message):
        solve_ode(forbidden, y0, T, rtol=1e-3, atol=atol)
    with pytest.raises(ValueError, match=message):
        solve_sde(forbidden, forbidden, y0, T, rtol=1e-3, atol=atol, max_steps=50)
    with pytest.raises(ValueError, match=message):
        odeint_solve(forbidden, y0, T, rtol=1e-3, atol=atol)


def test_a_step_size_of_nan_is_an_error_at_once() -> None:
    broken, y0 = Controller(max_factor=math.nan), torch.ones(1, 1)
    with pytest.raises(SolverError, match="step size fell to nan"):
        solve_ode(lambda t, y: -y, y0, T, controller=broken, **LOOSE)


def test_a_step_of_torchsde_that_time_cannot_resolve_is_refused_instead_of_taken_for_ever() -> None:
    late, y0 = torch.tensor([1e10, 1e10 + 1], dtype=torch.float64), torch.ones(2, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"above the spacing .* of floats at t"):
        sdeint_solve(Linear(), y0, late, dt=1e-7, seed=0, **LOOSE)


# ------------------------------------------------------------------ F7, F11, F12: first steps, short steps, late times


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_derivative_whose_norm_overflows_is_solved(dtype: torch.dtype) -> None:
    y0, f = torch.full((1, 1), 80.0, dtype=dtype), lambda t, y: -torch.exp(y)
    y = solve_ode(f, y0, T, rtol=1e-5, atol=1e-5).y[-1]
    assert y.item() == pytest.approx(-math.log(math.exp(-80) + 1), abs=1e-4)


def test_overflow_in_the_choice_of_the_first_step_is_a_solver_error() -> None:
    y0 = torch.full((1, 1), 80.0)
    with pytest.raises(SolverError):
        solve_sde(lambda t, y: -torch.exp(y), lambda t, y: torch.exp(y), y0, T, rtol=1e-5, atol=1e-5, seed=0)
    with pytest.raises(SolverError, match="give first_step, or a larger atol"):
        initial_step(lambda t, y: y, 0.0, y0, y0 * math.inf, direction=1.0, order=5, rtol=1e-5, atol=1e-5)


def van_der_pol(t: Tensor, y: Tensor) -> Tensor:
    x, v = y[..., 0], y[..., 1]
    return torch.stack([v, 5.0 * (1 - x**2) * v - x], dim=-1)


@pytest.mark.parametrize(("start", "length"), [(0.0, 1e-12), (0.0, -1e-12), (1e10, 1e3), (-1e-3, 1e-12), (0.0, 1e-30)])
def test_a_scaled_time_changes_nothing_but_the_clock(start: float, length: float) -> None:
    y0, t = torch.tensor([[2.0, 0.0]], dtype=torch.float64), torch.tensor([start, start + length], dtype=torch.float64)
    exact = solve_ode(van_der_pol, y0, 8 * T, rtol=1e-10, atol=1e-10).y[-1]
    faster = 8 / float(t[1] - t[0])
    y = solve_ode(lambda t, y: faster * van_der_pol(t, y), y0, t, rtol=1e-6, atol=1e-6).y[-1]
    torch.testing.assert_close(y, exact, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_where_floats_are_coarse_a_step_is_as_long_as_the_clock_says(sign: float) -> None:
    t = sign * torch.tensor([1.7e9, 1.7e9 + 1e-4], dtype=torch.float64)  # 419 floats, about 15 for each step
    rate, y0 = 1.0 / float(t[1] - t[0]), torch.ones(1, dtype=torch.float64)
    solution = solve_ode(lambda t, y: rate * y, y0, t, rtol=1e-10, atol=1e-10)
    assert torch.equal(solution.trace.t + solution.trace.dt, torch.cat([solution.trace.t[1:], t[1:]]))
    assert solution.trace.dt.sum() == t[1] - t[0]
    assert solution.y[-1].item() == pytest.approx(math.e, rel=1e-8)


def test_an_sde_on_a_tiny_interval_is_the_same_in_law_and_path() -> None:
    y0, t = torch.ones(3, 2, dtype=torch.float64), 1e-12 * T
    bm = BrownianPath(y0, 0.0, 1e-12, seed=5)
    y = solve_sde(lambda t, y: -1e12 * y, lambda t, y: 8e5 * y, y0, t, rtol=1e-4, atol=1e-4, bm=bm).y[-1]
    torch.testing.assert_close(y, torch.exp(-1.32 + 8e5 * bm(0.0, 1e-12)), rtol=1e-2, atol=1e-2)


class Watched:
    """A field that notes the times at which it is evaluated."""

    def __init__(self, f: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.f, self.times = f, []  # type: Callable[[Tensor, Tensor], Tensor], list[float]

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        self.times.append(float(t))
        return self.f(t, y)


@pytest.mark.parametrize("end", [1.0, -1.0, 1e-9])
def test_no_evaluation_of_a_solve_lies_outside_its_interval(end: float) -> None:
    f, g = Watched(lambda t, y: torch.ones_like(y)), Watched(lambda t, y: torch.ones_like(y))
    t, y0 = end * T, torch.full((1, 2), 1e4, dtype=torch.float64)
    solve_ode(f, y0, t, **LOOSE)
    if end > 0:
        solve_sde(f, g, y0, t, seed=0, **LOOSE)
    assert min(f.times + g.times) >= min(0.0, end)
    assert max(f.times + g.times) <= max(0.0, end)


def test_the_initial_step_of_a_penalty_is_not_looked_for_outside_the_interval() -> None:
    f = Watched(lambda t, y: torch.ones_like(y))
    y0 = torch.full((1, 2), 1e4, dtype=torch.float64)
    for sampled_t in (T[:1] + 0.999, T[1:]):  # the very end, too
        solution = solve_ode(f, y0, T, sampled_t=sampled_t, **LOOSE)
        penalty = local_unbiased(step="initial").penalty
        assert penalty is not None
        assert torch.isfinite(penalty(solution, RNG()))
    assert max(f.times) <= 1.0
    noisy = solve_sde(f, f, y0, T, seed=0, sampled_t=T[1:], **LOOSE)
    with pytest.raises(ValueError, match="is the end of the interval"):
        local_unbiased().penalty(noisy, RNG())  # type: ignore[misc]


def test_the_last_step_does_not_round_beyond_the_end() -> None:
    rng = np.random.default_rng(0)
    pairs = [(float(a), float(b)) for a, b in rng.uniform(-2, 2, (4000, 2)).round(12) if a != b]
    pairs += [(b * (1 - 3 * 2.0**-53 * k), b) for _, b in pairs[:50] for k in range(2, 40)]
    assert all((a + until(a, b) - b) * (b - a) <= 0 for a, b in pairs)
    assert any((a + (b - a) - b) * (b - a) > 0 for a, b in pairs)  # plain subtraction would


# ------------------------------------------------------------------ F13: memory that comes back


W = torch.randn(3, 3, dtype=torch.float64, generator=RNG().manual_seed(0))
Y0 = torch.randn(4, 3, dtype=torch.float64, generator=RNG().manual_seed(1))


def buffered(n: int = 1) -> Callable[[Tensor, Tensor], Tensor]:
    """y W, written into n buffers in turn."""
    buffers, calls = [torch.empty_like(Y0) for _ in range(n)], [0]

    def f(t: Tensor, y: Tensor) -> Tensor:
        calls[0] += 1
        return torch.mm(y, W, out=buffers[calls[0] % n])

    return f


SOLVERS: dict[str, Callable[..., Solution]] = {
    "ode": lambda f: solve_ode(f, Y0, T, **FAR),
    "sde": lambda f: solve_sde(f, f, Y0, T, rtol=1e-3, atol=1e-3, seed=0),
    "torchdiffeq": lambda f: odeint_solve(f, Y0, T, **FAR),
    "torchsde": lambda f: sdeint_solve(
        SimpleNamespace(f=f, g=f, noise_type="diagonal", sde_type="ito"),
        *(Y0, T),
        **{"dt": 0.1, "seed": 0, "method": "srk", **FAR},
    ),
}


@pytest.mark.parametrize("solver", SOLVERS)
@torch.no_grad()
def test_a_field_that_returns_one_buffer_again_and_again_is_solved_and_penalized_right(solver: str) -> None:
    ours, plain = SOLVERS[solver](buffered()), SOLVERS[solver](lambda t, y: y @ W)  # drift and diffusion share it, too
    assert torch.equal(ours.y, plain.y)
    assert ours.trace.nfe == plain.trace.nfe
    steps = [local_step(solution, 0.2, Y0, 0.3) for solution in (ours, plain)]
    assert torch.equal(steps[0].error, steps[1].error)


@torch.no_grad()
def test_memory_of_numpy_that_comes_back_is_copied_too() -> None:
    array = np.empty((4, 3))

    def f(t: Tensor, y: Tensor) -> Tensor:
        np.matmul(y.numpy(), W.numpy(), out=array)
        return torch.from_numpy(array)

    ours, plain = solve_ode(f, Y0, T, **FAR), solve_ode(lambda t, y: y @ W, Y0, T, **FAR)
    torch.testing.assert_close(ours.y, plain.y, rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_two_buffers_in_turn_are_refused_by_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"f\(t, y\) writes into memory .* buffer.clone\(\)"):
        solve_ode(buffered(2), Y0, T, **FAR)


@pytest.mark.parametrize("method", ["tsit5", "bosh3", "vcab3"])
@pytest.mark.parametrize("n", [1, 2])
@torch.no_grad()
def test_buffers_that_come_after_a_first_new_tensor_are_refused_too(n: int, method: str) -> None:
    later, calls = buffered(n), []

    def f(t: Tensor, y: Tensor) -> Tensor:
        calls.append(t)
        return y @ W if len(calls) == 1 else later(t, y)

    with pytest.raises(ValueError, match=r"f\(t, y\) writes into memory .* buffer.clone\(\)"):
        solve_ode(f, Y0, T, method=method, **FAR)


def test_a_field_may_return_one_of_several_constants() -> None:
    low, high = torch.full_like(Y0, 1.0), torch.full_like(Y0, 3.0)
    y = solve_ode(lambda t, y: low if t < 0.5 else high, Y0, T, **FAR).y[-1]
    torch.testing.assert_close(y, Y0 + 0.5 * 1.0 + 0.5 * 3.0, rtol=1e-4, atol=1e-4)


def test_a_field_may_return_its_input_a_view_of_it_or_one_constant() -> None:
    constant = torch.full_like(Y0, 2.0)
    for f, exact in (
        (lambda t, y: y, Y0 * math.e),
        (lambda t, y: y.view(4, 3)[:], Y0 * math.e),
        (lambda t, y: constant, Y0 + 2.0),
        (lambda t, y: constant[:1].expand(4, 3), Y0 + 2.0),
    ):
        kept = Y0.clone()
        torch.testing.assert_close(solve_ode(f, Y0, T, **FAR).y[-1], exact, rtol=1e-5, atol=1e-5)
        assert torch.equal(Y0, kept)


def test_a_field_that_changes_the_state_in_place_is_refused() -> None:
    with pytest.raises(ValueError, match=r"changes the state y in place.*y.clone\(\)"):
        solve_ode(lambda t, y: y.mul_(-1.0), Y0.clone(), T, **FAR)


# ------------------------------------------------------------------ F17: devices


def test_a_step_its_error_and_its_dense_output_stay_on_the_device_of_the_state() -> None:
    y0 = torch.empty(4, 3, device="meta")
    step = rk_step(lambda t, y: torch.tanh(y) + t, 0.0, y0, 0.1, TSIT5)
    ratio = error_ratio(step.error, step.y, step.y1, rtol=1e-3, atol=1e-3)
    for found in (step.y1, step.error, step.at([0.05, 0.07]), ratio):
        assert found.device.type == "meta"


def test_a_local_step_along_a_path_stays_on_the_device_of_the_state() -> None:
    y0 = torch.empty(4, 3, device="meta")
    path = SimpleNamespace(_start=0.0, _end=1.0)
    bm: Any = type("Path", (), {**vars(path), "__call__": lambda self, a, b, return_U: (y0, y0)})()
    method = StochasticRungeKutta(lambda t, y: -y + t, lambda t, y: y * t, bm, 1.0, SOSRI2, 1e-3, 1e-3)
    step = method.take(0.2, y0, 0.1)
    assert method.ratio(step).device.type == step.y1.device.type == "meta"


def test_penalties_draw_on_the_device_of_their_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    rng: Any = SimpleNamespace(device=torch.device("meta"))

    def drawing(value: Tensor) -> Callable[..., Tensor]:
        return lambda *size, **options: asked.append((options["generator"], options["device"])) or value

    solution = solve_ode(lambda t, y: -y, Y0, T, **LOOSE)
    monkeypatch.setattr(torch, "rand", drawing(torch.tensor([0.5])))
    monkeypatch.setattr(torch, "randint", drawing(torch.tensor([1])))
    for regularizer in (steer(), local_unbiased()):
        times, further = regularizer.times(T.float(), rng)
        assert further.device.type == times.device.type == "cpu"
    local_biased().penalty(solution, rng)  # type: ignore[misc]
    assert asked == [(rng, rng.device)] * 3


def test_a_global_penalty_moves_the_step_sizes_to_the_errors() -> None:
    solution = solve_ode(Linear(), Y0, T, records=frozenset({"error_ratio"}), **LOOSE)
    trace = SimpleNamespace(**{**vars(solution.trace), "error_ratio": solution.trace.error_ratio.to("meta")})
    moved: Any = SimpleNamespace(trace=trace)
    assert global_error().penalty(moved, RNG()).device.type == "meta"  # type: ignore[misc]


# ------------------------------------------------------------------ F19: no dimensions, late times, seeds, ends


def test_a_state_of_no_dimensions_is_solved_by_every_solver_and_penalty() -> None:
    field, y0 = Linear(), torch.tensor(2.0, dtype=torch.float64)
    asked: dict[str, Any] = {**LOOSE, "records": frozenset({"error_ratio", "stiffness"}), "sampled_t": T[:1] + 0.3}
    for solution in (solve_ode(field, y0, T, **asked), solve_sde(field.f, field.g, y0, T, seed=0, **asked)):
        assert solution.y.shape == (2,)
        (solution.y[-1] + torch.stack(penalties(solution)).sum()).backward()
    assert solve_ode(field, y0, T, **FAR).y[-1].item() == pytest.approx(2 / math.e, rel=1e-5)
    assert odeint_solve(field, y0, T, **FAR).y[-1].item() == pytest.approx(2 / math.e, rel=1e-5)
    for regularizer in (taynode(), kinetic_jacobian()):
        assert regularizer.rate is not None
        assert solve_ode(lambda t, y: -y, y0, T, rate=regularizer.rate(RNG()), **FAR).rate_integral is not None


def test_times_that_the_dtype_of_the_state_cannot_tell_apart_are_refused() -> None:
    late, message = torch.tensor([1.7e9, 1.7e9 + 2], dtype=torch.float64), r"count time from the start \(t - t\[0\]\)"
    with pytest.raises(ValueError, match=message):
        solve_ode(lambda t, y: -y, torch.ones(1, 1), late, **LOOSE)
    with pytest.raises(ValueError, match=message):
        sdeint_solve(Linear(torch.float32), torch.ones(1, 1), late, dt=0.1, **LOOSE)
    y = solve_ode(lambda t, y: (t - 1.7e9) * y, torch.ones(1, 1, dtype=torch.float64), late, **FAR).y[-1]
    assert y.item() == pytest.approx(math.exp(2.0), rel=1e-4)


@pytest.mark.parametrize("seed", [torch.tensor(3), np.int64(3), np.uint8(3)])
def test_every_whole_number_is_a_seed(seed: Any) -> None:
    def end(seed: Any) -> Tensor:
        return solve_sde(Linear().f, Linear().g, Y0, T, seed=seed, **LOOSE).y[-1]

    assert torch.equal(end(seed), end(3))


@pytest.mark.parametrize("seed", [1.5, -1, "three", torch.tensor(0.5)])
def test_what_is_no_whole_number_is_no_seed(seed: Any) -> None:
    with pytest.raises(ValueError, match="seed must be a whole number >= 0"):
        solve_sde(Linear().f, Linear().g, Y0, T, seed=seed, **LOOSE)


def test_a_path_that_ends_by_rounding_too_early_is_taken_and_a_shorter_one_is_not() -> None:
    for start, end in ((1e-17, 1 - 1.2e-16), (0.0, 1.0)):
        bm = BrownianInterval(start, end, size=(4, 3), dtype=Y0.dtype, levy_area_approximation="space-time", entropy=1)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            solution = solve_sde(Linear().f, Linear().g, Y0, T, bm=bm, sampled_t=T, **LOOSE)
            assert torch.equal(solution.y[-1], solution.sampled_y[1])  # type: ignore[index]
    with pytest.raises(ValueError, match="must cover the times"):
        solve_sde(Linear().f, Linear().g, Y0, T, bm=BrownianPath(Y0, 0.0, 0.999999), **LOOSE)


# ------------------------------------------------------------------ F20: the steps that were taken


@pytest.mark.parametrize(("t1", "dt"), [(1.0, 0.1), (1.0, 0.3), (0.7, 0.07), (0.3, 1.0)])
@pytest.mark.parametrize("gradient", ["backprop", "adjoint"])
def test_the_steps_of_torchsde_are_those_that_it_took(gradient: str, t1: float, dt: float) -> None:
    starts: list[float] = []

    class Noted(Linear):
        def f(self, t: Tensor, y: Tensor) -> Tensor:
            starts.append(float(t))
            return super().f(t, y)

    t = torch.tensor([0.0, t1 / 3, t1], dtype=torch.float64)
    solution = sdeint_solve(Noted(), Y0, t, dt=dt, method="euler", gradient=gradient, seed=0, **LOOSE)
    assert solution.trace.t.tolist() == starts[1:]  # torchsde evaluates once to look at the shapes
    torch.testing.assert_close(
        solution.trace.t + solution.trace.dt, torch.tensor([*starts[2:], t1], dtype=torch.float64)
    )
    solution.y.sum().backward()  # the way back asks the path, too
    assert len(solution.trace.t) == solution.trace.nfe - 1
