"""Stochastic differential equations: order, law, paths, gradients, the closed box, bad input."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
import torchsde
from torch import Tensor, nn
from torchsde import BrownianInterval

from regnde import (
    CONTROLLERS,
    SOSRI2,
    SRI_TABLEAUS,
    BrownianPath,
    Field,
    Solution,
    SolverError,
    sdeint_solve,
    solve_ode,
    solve_sde,
    sri_step,
    stiffness_ratio,
)
from regnde.penalties import menu as regularizers
from reproduce.data.spiral_sde import SpiralSDE, load_spiral_moments
from reproduce.models.classifiers import NeuralSDE
from reproduce.models.fields import SDE, Autonomous
from reproduce.runs.evaluation import generator

T = torch.tensor([0.0, 1.0], dtype=torch.float64)
A, B = 1.0, 0.8
per_method = pytest.mark.parametrize("method", SRI_TABLEAUS)
Path = Callable[..., BrownianInterval]


def path(*size: int, seed: int = 0, t1: float = 1.0, **other: Any) -> BrownianInterval:
    """A Brownian path in float64 on [0, t1]."""
    settings = {"dtype": torch.float64, "levy_area_approximation": "space-time", "dt": t1 / 64, **other}
    return BrownianInterval(t0=0.0, t1=t1, size=size, entropy=seed, **settings)


def linear_drift(t: Tensor, y: Tensor) -> Tensor:
    return A * y


def linear_noise(t: Tensor, y: Tensor) -> Tensor:
    return B * y


def slope(dts: list[float], errors: list[float]) -> float:
    """Slope of log error against log dt, by least squares."""
    x, y = torch.tensor(dts).log(), torch.tensor(errors).log()
    return float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())


def fixed(f: Field, g: Field, y0: Tensor, bm: BrownianInterval, n: int, **settings: Any) -> Tensor:
    """The state at the end after n equal steps along a path."""
    return solve_sde(f, g, y0, T, rtol=1.0, atol=1.0, bm=bm, step_sizes=[1 / n] * n, **settings).y[-1]


def rms_difference(a: Tensor, b: Tensor) -> float:
    return (a - b).square().mean().sqrt().item()


@pytest.fixture(scope="module")
def gbm_path() -> BrownianInterval:
    return path(2000, 1, seed=1)


@per_method
def test_the_strong_order_on_geometric_brownian_motion_is_three_halves(method: str, gbm_path: BrownianInterval) -> None:
    y0, numbers = torch.ones(2000, 1, dtype=torch.float64), [8, 16, 32, 64]
    exact = torch.exp((A - B**2 / 2) + B * gbm_path(0.0, 1.0))
    errors = [rms_difference(fixed(linear_drift, linear_noise, y0, gbm_path, n, method=method), exact) for n in numbers]
    assert slope([1 / n for n in numbers], errors) >= 1.4


@pytest.mark.slow
@per_method
def test_the_strong_order_with_componentwise_nonlinear_noise_is_three_halves(method: str) -> None:
    def f(t: Tensor, y: Tensor) -> Tensor:
        return torch.sin(3 * y) - y + t

    def g(t: Tensor, y: Tensor) -> Tensor:
        return 0.8 * torch.cos(y) + 0.3 * y

    bm, y0, numbers = path(500, 2, seed=2), torch.zeros(500, 2, dtype=torch.float64), [8, 16, 32, 64]
    reference = fixed(f, g, y0, bm, 1024, method=method)
    errors = [rms_difference(fixed(f, g, y0, bm, n, method=method), reference) for n in numbers]
    assert slope([1 / n for n in numbers], errors) >= 1.4


@pytest.mark.slow
def test_noise_that_couples_components_lowers_the_strong_order_to_one_half() -> None:
    mix = torch.tensor([[0.2, 0.7], [-0.6, 0.3]], dtype=torch.float64)
    bm, y0, numbers = path(1000, 2, seed=3), torch.ones(1000, 2, dtype=torch.float64), [8, 16, 32, 64]
    f, g = (lambda t, y: -y), (lambda t, y: y @ mix)
    reference = fixed(f, g, y0, bm, 1024)
    errors = [rms_difference(fixed(f, g, y0, bm, n), reference) for n in numbers]
    assert 0.3 < slope([1 / n for n in numbers], errors) < 0.8


@per_method
def test_without_noise_a_step_is_its_deterministic_part(method: str) -> None:
    tableau, h = SRI_TABLEAUS[method], 0.3
    y = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    w, u = path(4, 2)(0.0, h, return_U=True)
    f = lambda t, y: torch.sin(y) + t  # noqa: E731
    step = sri_step(f, lambda t, y: torch.zeros_like(y), 0.0, y, h, w, u, tableau)
    k = [f(torch.tensor(tableau.c0[0] * h), y)]
    for a0, c in zip(tableau.a0, tableau.c0[1:], strict=True):
        k.append(f(torch.tensor(c * h, dtype=y.dtype), y + h * sum(a * ki for a, ki in zip(a0, k, strict=True))))
    expected = y + h * sum(a * ki for a, ki in zip(tableau.alpha, k, strict=True))
    torch.testing.assert_close(step.y1, expected, rtol=1e-14, atol=1e-14)


@pytest.mark.slow
def test_without_noise_the_sde_solver_agrees_with_the_ode_solver() -> None:
    f = lambda t, y: torch.sin(3 * y) - y + t  # noqa: E731
    y0 = torch.tensor([[0.3, -1.0]], dtype=torch.float64)
    tight = {"rtol": 1e-7, "atol": 1e-7}
    sde = solve_sde(f, lambda t, y: torch.zeros_like(y), y0, T, seed=0, **tight)
    torch.testing.assert_close(sde.y, solve_ode(f, y0, T, **tight).y, rtol=1e-5, atol=1e-5)


@per_method
def test_the_embedded_estimate_falls_faster_than_the_step_and_the_reference_one_does_not(method: str) -> None:
    y, dts = torch.ones(2000, 1, dtype=torch.float64), [2.0**-k for k in range(4, 9)]
    mean: dict[str, list[float]] = {"embedded": [], "reference": []}
    for dt in dts:
        w, u = path(2000, 1, seed=4)(0.0, dt, return_U=True)
        for name, found in mean.items():
            step = sri_step(linear_drift, linear_noise, 0.0, y, dt, w, u, SRI_TABLEAUS[method], estimate=name)
            found.append(step.error.abs().mean().item())
    assert 1.4 < slope(dts, mean["embedded"]) < 1.7
    assert 0.8 < slope(dts, mean["reference"]) < 1.2


def test_the_reference_estimate_is_four_times_the_drift_times_the_step() -> None:
    y = torch.ones(3, 1, dtype=torch.float64)
    w, u = path(3, 1)(0.0, 0.1, return_U=True)
    constant = sri_step(lambda t, y: 2 + 0 * y, lambda t, y: 0 * y, 0.0, y, 0.1, w, u, SOSRI2, estimate="reference")
    torch.testing.assert_close(constant.error, torch.full_like(y, 4 * 0.1 * 2))


def test_on_a_linear_drift_the_stiffness_estimate_is_its_rate() -> None:
    y = torch.ones(3, 1, dtype=torch.float64)
    w, u = path(3, 1)(0.0, 0.1, return_U=True)
    step = sri_step(lambda t, y: -7.0 * y, linear_noise, 0.0, y, 0.1, w, u, SOSRI2)
    assert stiffness_ratio(step).item() == pytest.approx(7.0)


# ------------------------------------------------------------------ the path and the law


def test_the_path_of_torchsde_is_the_same_whatever_the_order_of_the_questions() -> None:
    bm, rng = path(3, 2, seed=5), torch.Generator().manual_seed(0)
    ends = torch.rand(40, 2, generator=rng, dtype=torch.float64).sort(1).values.tolist()
    first = [bm(a, b, return_U=True) for a, b in ends]
    for i in torch.randperm(40, generator=rng).tolist():
        for now, then in zip(bm(*ends[i], return_U=True), first[i], strict=True):
            torch.testing.assert_close(now, then, rtol=1e-12, atol=1e-12)
    for a, b in ends:
        middle = (a + b) / 2
        torch.testing.assert_close(bm(a, middle) + bm(middle, b), bm(a, b), rtol=1e-12, atol=1e-12)


class Redrawn(BrownianInterval):
    """A wrong path: every question gets new noise, so that a rejected step is tried again with other noise."""

    def __call__(self, ta: float, tb: float | None = None, return_U: bool = False, **other: Any) -> Any:
        assert tb is not None
        h, size = tb - ta, tuple(self.shape)
        w = math.sqrt(h) * torch.randn(size, dtype=self.dtype)
        u = h / 2 * w + math.sqrt(h**3 / 12) * torch.randn(size, dtype=self.dtype)
        return (w, u) if return_U else w


def z_scores(y: Tensor) -> tuple[float, float]:
    """Mean and variance of samples (n,) of geometric Brownian motion at 1, in standard errors from the truth."""
    mean, second = math.exp(A), math.exp(2 * A + B**2)
    variance = second - mean**2
    of_mean = (y.mean() - mean) / (y.std() / math.sqrt(len(y)))
    deviations = (y - mean) ** 2
    of_variance = (deviations.mean() - variance) / (deviations.std() / math.sqrt(len(y)))
    return float(of_mean), float(of_variance)


def interval(y0: Tensor, seed: int, kind: type[BrownianInterval] = BrownianInterval) -> BrownianInterval:
    """torchsde's path, or one made from it, as our own is called."""
    return kind(0.0, 1.0, size=y0.shape, dtype=y0.dtype, entropy=seed, levy_area_approximation="space-time")


def ends(make: Callable[..., Any], solves: int, batch: int) -> tuple[Tensor, int]:
    """Samples (solves * batch,) of solves whose controller asks for too much on purpose, and their rejections."""
    y0 = torch.ones(batch, 1, dtype=torch.float64)
    eager = replace(CONTROLLERS["integral"], safety=0.95)
    found, rejected = [], 0
    for seed in range(solves):
        bm = make(y0, seed=seed)
        settings = {"rtol": 0.03, "atol": 0.03, "first_step": 1.0, "controller": eager}
        solution = solve_sde(linear_drift, linear_noise, y0, T, bm=bm, **settings)
        found.append(solution.y[-1, :, 0])
        rejected += solution.trace.rejected
    return torch.cat(found), rejected


@pytest.mark.slow
@pytest.mark.parametrize("make", [interval, partial(BrownianPath, t0=0.0, t1=1.0)], ids=["torchsde's", "ours"])
def test_rejections_leave_the_law_of_the_solution_as_it_is(make: Callable[..., Any]) -> None:
    y, rejected = ends(make, 2500, 8)
    assert len(y) >= 20_000
    assert rejected > 2 * 2500
    assert max(map(abs, z_scores(y))) < 3


def test_without_rejections_the_law_is_the_same() -> None:
    y0, bm = torch.ones(40_000, 1, dtype=torch.float64), path(40_000, 1, seed=6)
    assert max(map(abs, z_scores(fixed(linear_drift, linear_noise, y0, bm, 64)[:, 0]))) < 3


@pytest.mark.slow
def test_noise_drawn_anew_after_a_rejection_would_bias_the_law() -> None:
    torch.manual_seed(0)
    y, rejected = ends(partial(interval, kind=Redrawn), 500, 1)
    assert rejected > 2 * 500
    assert min(z_scores(y)) < -4


def test_a_non_finite_trial_step_is_a_rejection() -> None:
    def f(t: Tensor, y: Tensor) -> Tensor:
        return torch.where(y.abs() > 3, math.nan, -20.0 * y**3)

    y0 = torch.full((4, 1), 2.5, dtype=torch.float64)
    solution = solve_sde(f, lambda t, y: 0.1 * y, y0, T, rtol=1e-2, atol=1e-2, seed=0, first_step=1.0)
    assert solution.trace.rejected > 0
    assert torch.isfinite(solution.y).all()


def test_the_same_seed_gives_the_same_numbers_and_another_seed_another_path() -> None:
    y0 = torch.ones(5, 1)
    first, again, other = (
        solve_sde(linear_drift, linear_noise, y0, T, rtol=1e-2, atol=1e-2, seed=seed).y for seed in (7, 7, 8)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_states_between_steps_lie_on_the_path() -> None:
    bm, t = path(6, 2, seed=9), torch.linspace(0, 1, 23, dtype=torch.float64)
    y0 = torch.zeros(6, 2, dtype=torch.float64)
    constant = {"f": lambda t, y: 0.5 + 0 * y, "g": lambda t, y: 2.0 + 0 * y}
    y = solve_sde(**constant, y0=y0, t=t, rtol=1, atol=1, bm=bm, step_sizes=[0.3] * 4).y
    expected = torch.stack([0.5 * ti + 2.0 * (bm(0.0, ti) if ti > 0 else y0) for ti in t.tolist()])
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)


def test_drift_and_diffusion_are_counted_where_they_are_called() -> None:
    calls = {"f": 0, "g": 0}

    def f(t: Tensor, y: Tensor) -> Tensor:
        calls["f"] += 1
        return linear_drift(t, y)

    def g(t: Tensor, y: Tensor) -> Tensor:
        calls["g"] += 1
        return linear_noise(t, y)

    y0 = torch.ones(5, 1, dtype=torch.float64)
    trace = solve_sde(f, g, y0, T, rtol=1e-3, atol=1e-3, seed=0, first_step=0.9).trace
    assert (trace.nfe, trace.nfe_diffusion) == (calls["f"], calls["g"])
    assert trace.rejected > 0
    assert trace.nfe == 4 * trace.accepted + 3 * trace.rejected  # the first stages of a rejected step are used again


# ------------------------------------------------------------------ gradients and penalties


class Small(nn.Module):
    """A small SDE with parameters, in float64."""

    noise_type, sde_type = "diagonal", "ito"

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([0.7, -0.4, 0.3], dtype=torch.float64))

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        return torch.tanh(self.theta[0] * y) + self.theta[1] * y + t

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        return self.theta[2] * torch.cos(y) + 0.2


PENALTIES = {
    "global_error": regularizers.global_error(),
    "global_stiffness": regularizers.global_stiffness(),
    "local_unbiased": regularizers.local_unbiased(),
    "local_biased": regularizers.local_biased(),
    "local_unbiased, times dt": regularizers.local_unbiased(times_dt=True),
}
Y0 = torch.tensor([[0.5, -0.3], [1.0, 0.2]], dtype=torch.float64)


def solved(sde: Any, regularizer: Any, bm: BrownianInterval, **settings: Any) -> Solution:
    """A solve with 12 held steps along a path, as the regularizer wants it."""
    t, sampled_t = regularizer.times(T, generator(3, "time"))
    wanted = {"sampled_t": sampled_t, "records": regularizer.records, **settings}
    return solve_sde(sde.f, sde.g, Y0, t, rtol=1e-2, atol=1e-2, bm=bm, **{"step_sizes": [1 / 12] * 12, **wanted})


@per_method
def test_the_gradient_of_a_solution_agrees_with_finite_differences(method: str) -> None:
    bm, sde = path(2, 2, seed=10), Small()

    def end(theta: Tensor, y0: Tensor) -> Tensor:
        def f(t: Tensor, y: Tensor) -> Tensor:
            return torch.tanh(theta[0] * y) + theta[1] * y + t

        def g(t: Tensor, y: Tensor) -> Tensor:
            return theta[2] * torch.cos(y) + 0.2

        held = {"rtol": 1.0, "atol": 1.0, "bm": bm, "method": method, "step_sizes": [0.25] * 4}
        return solve_sde(f, g, y0, torch.linspace(0, 1, 4), **held).y

    assert torch.autograd.gradcheck(end, (sde.theta.detach().requires_grad_(), Y0.clone().requires_grad_()))


@pytest.mark.parametrize("name", PENALTIES)
def test_the_gradient_of_a_penalty_agrees_with_finite_differences(name: str) -> None:
    regularizer, bm, sde = PENALTIES[name], path(2, 2, seed=11), Small()
    base = solved(sde, regularizer, bm)

    def penalty(theta: Tensor) -> Tensor:
        moved = Small()
        del moved.theta
        moved.theta = theta  # type: ignore[assignment]
        if regularizer.records:  # global: the whole solve depends on theta
            return regularizer.penalty(solved(moved, regularizer, bm), generator(0, "draw"))
        method = replace(base.method, f=moved.f, g=moved.g)  # local: one step from a given state
        return regularizer.penalty(replace(base, method=method), generator(0, "draw"))

    assert torch.autograd.gradcheck(penalty, (sde.theta.detach().requires_grad_(),))


def test_the_local_step_goes_along_the_path_of_the_solve() -> None:
    bm, sde = path(2, 2, seed=12), Small()
    solution = solved(sde, regularizers.none(), bm)
    i = 5
    again = solution.method.take(float(solution.trace.t[i]), solution.trace.y[i], float(solution.trace.dt[i]))
    torch.testing.assert_close(again.y1, solution.trace.y[i + 1], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(solution.method.ratio(again), solution.trace.error_ratio[i], rtol=1e-10, atol=1e-12)


def test_the_mean_of_the_local_penalty_over_uniform_times_is_the_global_one() -> None:
    bm, sde = path(2, 2, seed=13), Small()
    whole = solved(sde, regularizers.global_error(), bm, step_sizes=None, first_step=0.1)
    total = float(regularizers.global_error().penalty(whole, generator(0, "draw")).detach())  # type: ignore[misc]
    rng, local = torch.Generator().manual_seed(0), regularizers.local_biased(times_dt=True)
    found = torch.stack([local.penalty(whole, rng).detach() for _ in range(400)])  # type: ignore[misc]
    mean, error = whole.trace.accepted * found.mean(), whole.trace.accepted * found.std() / math.sqrt(len(found))
    assert abs(float(mean) - total) < 3 * float(error)


# ------------------------------------------------------------------ the closed box


def test_a_hosted_solve_is_bit_identical_to_torchsdes_own() -> None:
    sde, t = Small(), torch.linspace(0, 1, 5, dtype=torch.float64)
    for method in ("milstein", "srk", "euler"):
        plain = torchsde.sdeint(sde, Y0, t, bm=path(2, 2, seed=14), method=method, dt=0.1)
        settings = {"rtol": 1e-2, "atol": 1e-2, "dt": 0.1, "method": method}
        assert torch.equal(sdeint_solve(sde, Y0, t, bm=path(2, 2, seed=14), **settings).y, plain)


@pytest.mark.parametrize("gradient", ["backprop", "adjoint"])
def test_the_local_penalty_works_with_the_closed_box_and_any_gradient(gradient: str) -> None:
    sde, regularizer = Small(), regularizers.local_unbiased()
    t, sampled_t = regularizer.times(T, generator(1, "time"))
    settings = {"rtol": 1e-2, "atol": 1e-2, "dt": 0.1, "gradient": gradient, "sampled_t": sampled_t}
    solution = sdeint_solve(sde, Y0, t, bm=path(2, 2, seed=15), **settings)
    assert solution.sampled_y is not None
    assert not solution.sampled_y.requires_grad
    (alone,) = torch.autograd.grad(regularizer.penalty(solution, generator(0, "draw")), sde.theta)  # type: ignore[misc]
    (with_loss,) = torch.autograd.grad(
        solution.y[-1].sum() + regularizer.penalty(solution, generator(0, "draw")),  # type: ignore[misc]
        sde.theta,
    )
    assert torch.isfinite(with_loss).all()
    assert alone.abs().sum() > 0
    assert not torch.equal(alone, with_loss)


def test_the_closed_box_tells_its_fixed_steps_and_counts_both_fields() -> None:
    solution = sdeint_solve(Small(), Y0, T, rtol=1e-2, atol=1e-2, dt=0.3, seed=0)
    torch.testing.assert_close(solution.trace.dt, torch.tensor([0.3, 0.3, 0.3, 0.1], dtype=torch.float64))
    assert solution.trace.nfe == solution.trace.nfe_diffusion == 4 + 1  # torchsde looks at the shapes first


def test_penalties_that_the_closed_box_cannot_serve_are_refused_with_what_to_use() -> None:
    settings = {"rtol": 1e-2, "atol": 1e-2, "seed": 0, "dt": 0.1}
    with pytest.raises(ValueError, match=r"without gradient.*local_unbiased"):
        sdeint_solve(Small(), Y0, T, records=frozenset({"error_ratio"}), **settings)
    with pytest.raises(ValueError, match="use local_unbiased"):
        regularizers.local_biased().penalty(sdeint_solve(Small(), Y0, T, **settings), generator(0, "draw"))  # type: ignore[misc]
    sampled = {"sampled_t": torch.tensor([0.4]), "adaptive": True, "method": "srk"}
    with pytest.raises(ValueError, match="step='initial'"):
        regularizers.local_unbiased().penalty(  # type: ignore[misc]
            sdeint_solve(Small(), Y0, T, **settings, **sampled), generator(0, "draw")
        )


# ------------------------------------------------------------------ models and data


def test_a_prediction_averages_the_logits_of_several_trajectories() -> None:
    torch.manual_seed(0)
    model, x = NeuralSDE(d_in=6, d=4, hidden=5, n_classes=3, trajectories=7), torch.randn(2, 6)
    seen: list[Tensor] = []

    def solve(f: SDE, y0: Tensor, t: Tensor) -> Solution:
        solution = solve_sde(f.f, f.g, y0, t, rtol=0.1, atol=0.1, seed=0)
        seen.append(solution.y[-1])
        return solution

    model.train()
    assert model(x, solve)[0].shape == (2, 3)
    assert seen[-1].shape == (2, 4)
    model.eval()
    logits, _ = model(x, solve)
    assert seen[-1].shape == (14, 4)
    torch.testing.assert_close(logits[1], model.head(seen[-1][1::2]).mean(0))


def test_the_moments_of_the_data_agree_with_our_own_solver_on_the_same_equation() -> None:
    data, sde = load_spiral_moments(n_times=6, trajectories=4000, seed=0), SpiralSDE()
    y = solve_sde(sde.f, sde.g, data.y0.expand(4000, 2), data.t, rtol=1e-3, atol=1e-3, seed=1).y
    error = (y.std(1) / math.sqrt(4000)).clamp_min(1e-12) * math.sqrt(2)  # both are samples
    assert ((y.mean(1) - data.mean).abs() < 4 * error + 1e-9).all()


# ------------------------------------------------------------------ bad input


class Forbidden(nn.Module):
    """An SDE that must not be evaluated."""

    noise_type, sde_type = "diagonal", "ito"

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        raise AssertionError("evaluated")

    g = f


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rtol": -1.0}, "rtol must be a finite number >= 0"),
        ({"rtol": 0.0, "atol": 0.0}, "both 0"),
        ({"method": "srk"}, "unknown method 'srk'"),
        ({"estimate": "guess"}, "unknown estimate 'guess'"),
        ({"t": T.flip(0)}, "increasing"),
        ({"noise_type": "general"}, "'general' is not supported: only 'diagonal'"),
        ({"sde_type": "stratonovich"}, "'stratonovich' is not supported.*convert the drift"),
        ({"bm": path(3, 2)}, r"expected \(2, 2\).*found \(3, 2\)"),
        ({"bm": path(2, 2, dtype=torch.float32)}, "float64.*float32"),
        ({"bm": path(2, 2, t1=0.5)}, r"must cover the times \[0.0, 1.0\].*\[0.0, 0.5\]"),
        ({"bm": path(2, 2, levy_area_approximation="none")}, "space-time"),
        ({"bm": "noise"}, "torchsde.BrownianInterval, found str"),
        ({"bm": path(2, 2), "seed": 1}, "leave one out"),
        ({"records": frozenset({"colour"})}, "unknown records"),
        ({"first_step": 0.0}, "first_step must be positive"),
    ],
)
def test_bad_arguments_are_refused_before_any_evaluation(wrong: dict[str, Any], message: str) -> None:
    arguments = {"t": T, "rtol": 1e-2, "atol": 1e-2, **wrong}
    with pytest.raises(ValueError, match=message):
        solve_sde(Forbidden().f, Forbidden().g, Y0, **arguments)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dt": 0.0}, "dt must be positive"),
        ({"gradient": "magic"}, "unknown gradient"),
        ({"own_method": "milstein"}, "unknown own_method"),
        ({"bm": path(2, 2, t1=0.5)}, "must cover"),
        ({"sampled_t": torch.tensor([1.5])}, "leave the interval"),
    ],
)
def test_bad_arguments_of_the_closed_box_are_refused_before_any_evaluation(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sdeint_solve(Forbidden(), Y0, T, **{"rtol": 1e-2, "atol": 1e-2, "dt": 0.1, **wrong})


@pytest.mark.parametrize(("name", "value"), [("noise_type", "general"), ("sde_type", "stratonovich")])
def test_the_closed_box_refuses_other_kinds_of_sde_by_name(name: str, value: str) -> None:
    sde = Forbidden()
    setattr(sde, name, value)
    with pytest.raises(ValueError, match=f"{value!r} is not supported"):
        sdeint_solve(sde, Y0, T, rtol=1e-2, atol=1e-2, dt=0.1)


def test_a_diffusion_of_the_wrong_shape_is_refused_with_both_shapes() -> None:
    with pytest.raises(ValueError, match=r"diagonal noise.*expected \(2, 2\).*found \(2, 2, 3\)"):
        solve_sde(linear_drift, lambda t, y: y[..., None].expand(2, 2, 3), Y0, T, rtol=1e-2, atol=1e-2)


def test_stiffness_is_not_promised_by_a_method_that_has_none() -> None:
    with pytest.raises(ValueError, match="sosri2"):
        solved(Small(), PENALTIES["global_stiffness"], path(2, 2), method="sosri")


def test_too_many_steps_end_in_an_error_that_says_where() -> None:
    with pytest.raises(SolverError, match=r"10 steps \(max_steps\) were not enough"):
        solve_sde(linear_drift, linear_noise, Y0, T, rtol=1e-7, atol=1e-7, seed=0, max_steps=10)


def test_a_linear_layer_as_diffusion_is_an_autonomous_field() -> None:
    layer = nn.Linear(2, 2).double()
    assert torch.equal(Autonomous(layer)(torch.tensor(0.3), Y0), layer(Y0))
