"""Density estimation: the digits, the flow and its log-density, the metric against a reference, the drop-in."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from programs import PLAIN, Cnf
from torch import Tensor, nn
from torch.func import jacrev, vmap

from regnde import LocalPenalty, Solution, kinetic_jacobian, make_regularizer, odeint_solve, solve_ode
from reproduce import experiments
from reproduce.data import digits as data
from reproduce.data.digits import checked, load_digits, validation_split
from reproduce.experiments import digits_cnf
from reproduce.models.density_toy import at, density_on_grid, fit_flow, two_moons
from reproduce.models.fields import TimeMLP
from reproduce.models.flow import Augmented, Dequantized, Flow, sample, signs
from reproduce.models.gaussian import SHRINKAGES, choose_gaussian, fit_gaussian, moments
from reproduce.models.losses import standard_normal_log_density
from reproduce.models.solve import hold_still
from reproduce.plots import density as plots_density
from reproduce.report.density import cost_and_correctness
from reproduce.runs.evaluation import against_reference, solver
from reproduce.runs.train import train

BUDGET = experiments.get("digits_cnf").budget("smoke")
D = 64


def velocity(*hidden: int, d: int = D, scale: float = 1.5, seed: int = 0) -> TimeMLP:
    """A field in float64 with weights large enough that the solver has to work."""
    torch.manual_seed(seed)
    mlp = TimeMLP((d, *hidden, d)).double()
    with torch.no_grad():
        for parameter in mlp.parameters():
            parameter.mul_(scale)
    return mlp


def points(n: int, d: int = D, seed: int = 1) -> Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def flow(*hidden: int, d: int = D, **how: Any) -> Flow:
    one = torch.ones(d, dtype=torch.float64)
    return Flow(velocity(*hidden, d=d), center=0.3 * one, scale=2.0 * one, **how)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- the digits


def arrays() -> tuple[np.ndarray, np.ndarray]:
    bunch = data.packaged()
    return bunch.data.copy(), bunch.target.copy()


def test_each_image_is_in_one_part_and_the_seed_decides_in_which() -> None:
    digits, again, other = load_digits(seed=3), load_digits(seed=3), load_digits(seed=4)
    both = torch.cat([digits.x_train, digits.x_test]).numpy()
    images, _ = arrays()
    assert sorted(map(bytes, both)) == sorted(map(bytes, images.astype(np.uint8)))
    assert (len(digits.x_train), len(digits.x_test)) == (1438, 359)
    assert digits.files == again.files
    assert all(a != b for a, b in zip(digits.files, other.files, strict=True))
    assert digits_cnf.problem(BUDGET, "test", seed=3).files == digits.files


def test_labels_and_noise_stay_with_their_images() -> None:
    digits, (images, labels) = load_digits(seed=1), arrays()
    of = {bytes(image): label for image, label in zip(images.astype(np.uint8), labels, strict=True)}
    for x, y in ((digits.x_train, digits.y_train), (digits.x_test, digits.y_test)):
        assert [of[bytes(image)] for image in x.numpy()] == y.tolist()
    for u in (digits.u_train, digits.u_test):
        assert 0 <= u.min() < 0.01
        assert 0.99 < u.max() < 1


def test_a_changed_array_of_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = arrays()
    before = dict(load_digits(seed=0).files)
    images[:, 20] = 0
    monkeypatch.setattr(data, "packaged", lambda: SimpleNamespace(data=images, target=labels))
    after = dict(load_digits(seed=0).files)
    assert {name for name in before if before[name] != after[name]} == {"x_train", "x_test"}


def edited(images: Any = None, labels: Any = None) -> tuple[np.ndarray, np.ndarray]:
    found_images, found_labels = arrays()
    return (
        found_images if images is None else images(found_images),
        found_labels if labels is None else labels(found_labels),
    )


def put(index: Any, value: float) -> Callable[[np.ndarray], np.ndarray]:
    def edit(array: np.ndarray) -> np.ndarray:
        array = array.astype(np.float64)
        array[index] = value
        return array

    return edit


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"images": lambda x: x[:-1]}, r"images: expected shape \(1797, 64\), found \(1796, 64\)"),
        ({"labels": lambda y: y[:-1]}, r"labels: expected shape \(1797,\), found \(1796,\)"),
        ({"images": put((0, 0), 0.5)}, "images: expected whole numbers"),
        ({"images": put((0, 0), math.nan)}, "images: expected whole numbers"),
        ({"images": put((0, 0), 17.0)}, "images: expected numbers from 0 to 16, found 0 to 17"),
        ({"images": put((0, 0), -1.0)}, "images: expected numbers from 0 to 16, found -1 to 16"),
        ({"labels": put(0, 10.0)}, "labels: expected numbers from 0 to 9, found 0 to 10"),
        ({"labels": lambda y: np.where(y == 7, 1, y)}, "labels: expected all digits"),
    ],
)
def test_arrays_that_are_not_the_digits_are_refused_by_name(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        checked(*edited(**change))


@pytest.mark.parametrize("seed", [-1, 0.0, True, "0"])
def test_a_seed_that_is_no_whole_number_is_refused(seed: Any) -> None:
    with pytest.raises(ValueError, match="seed: expected a whole number"):
        load_digits(seed=seed)


def test_the_validation_part_holds_training_images_only_and_has_files_of_its_own() -> None:
    digits = load_digits(seed=0)
    held = validation_split(digits, 200, seed=0)
    assert (len(held.x_train), len(held.x_test)) == (1238, 200)
    train_noise = {bytes(u) for u in digits.u_train.numpy()}
    assert {bytes(u) for u in torch.cat([held.u_train, held.u_test]).numpy()} == train_noise
    assert set(held.files) > set(digits.files)
    for n, seed, said in ((0, 0, "n: expected"), (1438, 0, "n: expected"), (200, 0.5, "seed: expected")):
        with pytest.raises(ValueError, match=said):
            validation_split(digits, n, seed=seed)  # type: ignore[arg-type]


# --- the density that a flow has to beat


def test_moments_count_the_noise_without_drawing_it() -> None:
    levels = load_digits(seed=0).x_train[:, 20:24]
    mean, covariance = moments(levels)
    drawn = levels + torch.rand(400, *levels.shape, generator=rng(), dtype=torch.float64)  # (400, n, 4)
    flat = drawn.reshape(-1, 4)
    error = (1 / 12 / len(flat)) ** 0.5
    assert ((flat.mean(0) - mean).abs() < 3 * error).all()
    torch.testing.assert_close(torch.cov(flat.T, correction=0), covariance, rtol=0, atol=0.02)


def test_the_gaussian_is_the_normal_density_and_full_shrinkage_leaves_the_pixels_alone() -> None:
    digits = load_digits(seed=0)
    x = digits.x_test[:5] + digits.u_test[:5]
    for shrinkage in (0.01, 1.0):
        fitted = fit_gaussian(digits.x_train, shrinkage=shrinkage)
        known = torch.distributions.MultivariateNormal(fitted.mean, fitted.covariance)
        torch.testing.assert_close(fitted.log_density(x), known.log_prob(x.double()))
    alone = torch.distributions.Normal(fitted.mean, fitted.covariance.diagonal().sqrt()).log_prob(x.double()).sum(1)
    torch.testing.assert_close(fitted.log_density(x), alone)


def test_the_shrinkage_is_chosen_on_held_out_rows_and_bad_arguments_are_refused() -> None:
    digits = load_digits(seed=0)
    few = choose_gaussian(digits.x_train[:100], digits.u_train[:100], n_validation=20, seed=0)
    many = choose_gaussian(digits.x_train, digits.u_train, n_validation=288, seed=0)
    assert {few.shrinkage, many.shrinkage} <= set(SHRINKAGES)
    assert few.shrinkage > many.shrinkage
    with pytest.raises(ValueError, match="shrinkage: expected"):
        fit_gaussian(digits.x_train, shrinkage=1.5)
    with pytest.raises(ValueError, match="levels: expected"):
        moments(digits.x_train[0])
    with pytest.raises(ValueError, match="n_validation: expected"):
        choose_gaussian(digits.x_train[:10], digits.u_train[:10], n_validation=9, seed=0)


# --- the field and its trace


@pytest.mark.parametrize("hidden", [(24,), (24, 16)])
def test_the_exact_trace_is_that_of_automatic_differentiation(hidden: tuple[int, ...]) -> None:
    v, z, t = velocity(*hidden), points(5), torch.tensor(0.3, dtype=torch.float64)
    found = Augmented(v)(t, torch.cat([z, torch.zeros(5, 1)], 1))
    jacobian = vmap(jacrev(lambda z: v(t, z[None])[0]))(z)  # (batch, d, d)
    torch.testing.assert_close(found[:, -1], jacobian.diagonal(dim1=1, dim2=2).sum(1))
    torch.testing.assert_close(found[:, :-1], v(t, z))


@pytest.mark.parametrize("hidden", [(24,), (24, 16)])
def test_hutchinsons_estimate_is_the_quadratic_form_of_the_jacobian(hidden: tuple[int, ...]) -> None:
    v, z, t = velocity(*hidden), points(5), torch.tensor(0.3, dtype=torch.float64)
    eps = signs(z, rng())
    found = Augmented(v, eps)(t, torch.cat([z, torch.zeros(5, 1)], 1))
    jacobian = vmap(jacrev(lambda z: v(t, z[None])[0]))(z)
    torch.testing.assert_close(found[:, -1], torch.einsum("bi,bij,bj->b", eps, jacobian, eps))
    torch.testing.assert_close(found[:, :-1], v(t, z))


@pytest.mark.parametrize("estimated", [False, True])
def test_the_field_has_the_gradient_of_finite_differences(estimated: bool) -> None:
    v, z = velocity(4, 3, d=3), points(2, 3)
    state = torch.cat([z, torch.zeros(2, 1)], 1).requires_grad_()
    field = Augmented(v, signs(z, rng()) if estimated else None)

    def derivative(state: Tensor, *_: Tensor) -> Tensor:
        return field(torch.tensor(0.3, dtype=torch.float64), state)

    assert torch.autograd.gradcheck(derivative, (state, *field.parameters()))


def test_exact_and_estimated_log_densities_agree_in_the_mean() -> None:
    model, x = flow(24), points(1).expand(4000, D)
    solve = at(1e-4)
    with torch.no_grad():
        exact = model.eval()(x[:1], solve)[0]
        estimates = model.train()(x, solve, rng())[0]
    # the log-determinant is unbiased: the path of z does not depend on the noise
    assert abs(estimates.mean() - exact).item() < 3 * estimates.std().item() / len(x) ** 0.5 + 1e-3
    assert estimates.std() > 0.1


def test_the_noise_is_one_vector_for_a_solve_and_another_for_the_next() -> None:
    model, seen = flow(24).train(), list[Any]()

    def solve(f: Augmented, y0: Tensor, t: Tensor) -> Solution:
        def noted(at: Tensor, y: Tensor) -> Tensor:
            seen[-1].append(f.eps.clone())
            return f(at, y)

        seen.append([])
        return solve_ode(noted, y0, t, rtol=1e-4, atol=1e-4)

    noise = rng()
    for _ in range(2):
        model(points(3), solve, noise)
    for noises in seen:
        assert len(noises) > 10
        assert all(torch.equal(eps, noises[0]) for eps in noises)
        assert torch.equal(noises[0].abs(), torch.ones(3, D, dtype=torch.float64))
    assert not torch.equal(seen[0][0], seen[1][0])
    again = rng()
    assert torch.equal(seen[0][0], signs(points(3), again))


def test_an_evaluation_is_exact_and_draws_nothing() -> None:
    model, noise = flow(24).eval(), rng()
    before = noise.get_state()
    first = model(points(3), at(1e-6), noise)[0]
    assert torch.equal(first, model(points(3), at(1e-6))[0])
    assert torch.equal(noise.get_state(), before)
    exact = flow(24, trace="exact").train()(points(3), at(1e-6), noise)[0]
    assert torch.equal(first, exact)


# --- the density


def test_the_control_is_the_normal_density_of_the_standardized_data_to_the_bit() -> None:
    model, x = flow(24).eval(), points(7)
    expected = standard_normal_log_density((x - model.center) / model.scale) - model.scale.log().sum()
    assert torch.equal(model(x, hold_still)[0], expected)
    known = torch.distributions.Normal(model.center, model.scale).log_prob(x).sum(1)
    torch.testing.assert_close(expected, known)


def test_a_linear_flow_has_the_density_of_the_normal_distribution_that_it_makes() -> None:
    """With v(z) = a z the base comes from z(0) = exp(-a) z(1): a normal distribution of that scale."""
    d, a = 3, 0.7
    one = torch.ones(d, dtype=torch.float64)
    model = Flow(velocity(4, d=d), center=0 * one, scale=one).eval()

    def linear(f: Augmented, y0: Tensor, t: Tensor) -> Solution:
        def field(t: Tensor, y: Tensor) -> Tensor:
            return torch.cat([a * y[:, :-1], torch.full_like(y[:, -1:], a * d)], 1)

        return solve_ode(field, y0, t, rtol=1e-9, atol=1e-9)

    x = points(6, d)
    known = torch.distributions.Normal(0 * one, math.exp(-a) * one).log_prob(x).sum(1)
    torch.testing.assert_close(model(x, linear)[0], known, rtol=0, atol=1e-7)


def test_data_in_other_units_have_the_density_of_those_units() -> None:
    model, x = flow(24).eval(), points(4)
    wide = Flow(model.velocity, center=10 * model.center, scale=10 * model.scale).eval()
    difference = model(x, at(1e-8))[0] - wide(10 * x, at(1e-8))[0]
    torch.testing.assert_close(difference, torch.full_like(difference, D * math.log(10.0)))


@pytest.fixture(scope="module")
def moons() -> Flow:
    torch.set_num_threads(1)
    return fit_flow(two_moons(2000), solve=at(1e-4), steps=100, seed=0)


def test_the_density_of_a_trained_flow_in_two_dimensions_integrates_to_one(moons: Flow) -> None:
    middles, density, mass = density_on_grid(moons, at(1e-6), low=-6.0, high=6.0, n=240)
    assert mass == pytest.approx(1.0, abs=1e-3)
    held = two_moons(500, seed=1)
    with torch.no_grad():
        better = moons(held, at(1e-6))[0].mean() - moons(held, hold_still)[0].mean()
    assert better > 0.3
    assert density.shape == (240, 240)
    assert middles[0] == -5.975


def test_samples_of_a_flow_lie_where_its_density_is_and_come_from_their_generator(moons: Flow) -> None:
    drawn = sample(moons, 2000, at(1e-5), noise=rng())
    assert torch.equal(drawn, sample(moons, 2000, at(1e-5), noise=rng()))
    with torch.no_grad():
        mine, theirs = moons(drawn, at(1e-5))[0], moons(two_moons(2000, seed=2), at(1e-5))[0]
    middles, density, _ = density_on_grid(moons, at(1e-5), low=-6.0, high=6.0, n=240)
    minus_entropy = float((density * density.clamp_min(1e-300).log()).sum() * (middles[1] - middles[0]) ** 2)
    assert abs(mine.mean() - minus_entropy) < 3 * mine.std() / len(mine) ** 0.5
    assert theirs.mean() > minus_entropy - 1


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-7])
def test_integrating_back_returns_the_data_to_ten_times_the_tolerance(tolerance: float) -> None:
    model, x = flow(48).eval(), points(16)
    with torch.no_grad():
        end = model(x, at(tolerance))[1].y[-1][:, :-1]
        back, solution = model.back(end, at(tolerance))
    assert solution.t.tolist() == [1.0, 0.0]
    z, z_back = ((y - model.center) / model.scale for y in (x, back))
    assert (z_back - z).abs().max() < 10 * tolerance * (1 + z.abs().max())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"trace": "guess"}, "unknown trace"),
        ({"center": torch.zeros(3)}, r"expected center and scale \(2,\)"),
        ({"scale": torch.tensor([1.0, 0.0])}, "finite scales above 0"),
        ({"scale": torch.tensor([1.0, math.inf])}, "finite scales above 0"),
        ({"center": torch.tensor([1.0, math.nan])}, "finite center"),
    ],
)
def test_a_flow_that_cannot_be_is_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Flow(TimeMLP((2, 4, 2)), **{"center": torch.zeros(2), "scale": torch.ones(2), **arguments})


@pytest.mark.parametrize("mlp", [TimeMLP((2, 2)), TimeMLP((2, 4, 4, 4, 2)), TimeMLP((2, 4, 2), output_tanh=True)])
def test_a_velocity_without_a_closed_form_is_refused(mlp: TimeMLP) -> None:
    with pytest.raises(ValueError, match="one or two hidden layers"):
        Augmented(mlp)


def test_a_velocity_that_does_not_end_where_it_starts_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 2 outputs, found 3"):
        Flow(TimeMLP((2, 4, 3)), center=torch.zeros(2), scale=torch.ones(2))


def test_a_grid_that_cannot_be_is_refused(moons: Flow) -> None:
    with pytest.raises(ValueError, match="low < high"):
        density_on_grid(moons, at(1e-3), low=1.0, high=1.0, n=4)


# --- rates, gradients, hosts


def along(f: nn.Module, y0: Tensor, name: str) -> Tensor:
    """The integral of a rate as a training run integrates it, by fixed generators."""
    budget = BUDGET.but(rtol=1e-8, atol=1e-8)
    solve = solver(budget, make_regularizer(name), rng(5))
    integral = solve(f, y0, torch.tensor([0.0, 1.0], dtype=torch.float64)).rate_integral
    assert integral is not None
    return integral


@pytest.mark.parametrize("name", ["kinetic_jacobian", "taynode"])
@pytest.mark.parametrize("estimated", [False, True])
def test_a_rate_is_that_of_the_path_alone_whatever_becomes_of_the_log_density(name: str, estimated: bool) -> None:
    v, z = velocity(8), points(5)
    field = Augmented(v, signs(z, rng()) if estimated else None)
    state = torch.cat([z, torch.zeros(5, 1)], 1)
    torch.testing.assert_close(along(field, state, name), along(v, z, name), rtol=1e-3, atol=0)


def test_the_rate_of_the_path_is_finlays_kinetic_energy_and_jacobian_norm_and_trains_the_velocity() -> None:
    v, z = velocity(8), points(5).requires_grad_()
    field, t = Augmented(v), torch.tensor(0.2, dtype=torch.float64)
    state = torch.cat([z, torch.zeros(5, 1)], 1)
    rate = field.rate_of(kinetic_jacobian().rate(rng(7)))  # type: ignore[misc]
    found = rate(field, t, state, field(t, state))
    eps = torch.randn(5, D, generator=rng(7), dtype=torch.float64)
    jacobian = vmap(jacrev(lambda z: v(t, z[None])[0]))(z)
    expected = v(t, z).square().mean() + torch.einsum("bi,bij->bj", eps, jacobian).square().mean()
    torch.testing.assert_close(found, expected)
    for got, wanted in zip(
        torch.autograd.grad(found, list(v.parameters()), retain_graph=True),
        torch.autograd.grad(expected, list(v.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted)


def trained_by(gradient: str, host: str) -> list[Tensor]:
    """Gradients of one training step's loss by some solver, at a tight tolerance."""
    model = flow(12).train()

    def solve(f: Augmented, y0: Tensor, t: Tensor) -> Solution:
        if host == "own":
            return solve_ode(f, y0, t, rtol=1e-10, atol=1e-10, gradient=gradient)
        return odeint_solve(f, y0, t, rtol=1e-10, atol=1e-10, gradient=gradient)

    model(points(4), solve, rng(3))[0].mean().backward()
    assert len(list(model.dynamics.parameters())) == len(list(model.parameters()))
    return [parameter.grad for parameter in model.parameters()]  # type: ignore[misc]


@pytest.mark.parametrize(
    ("gradient", "host"), [("checkpoint", "own"), ("backprop", "torchdiffeq"), ("adjoint", "torchdiffeq")]
)
def test_every_gradient_is_that_of_backpropagation_with_the_noise_held(gradient: str, host: str) -> None:
    for found, expected in zip(trained_by(gradient, host), trained_by("backprop", "own"), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_a_local_penalty_after_the_adjoint_steps_with_the_noise_of_its_solve() -> None:
    model = flow(12).train()
    _, solution = model(points(4), lambda *a: odeint_solve(*a, rtol=1e-5, atol=1e-5, gradient="adjoint"), rng(3))
    penalty = make_regularizer("local_biased").penalty
    assert penalty is not None
    value = penalty(solution, rng())
    value.backward()
    assert value > 0
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


# --- the experiment


def test_training_draws_the_noise_of_the_images_anew_and_an_evaluation_takes_theirs() -> None:
    model = Dequantized(flow(12))
    levels, u = points(3).round(), torch.rand(3, D, dtype=torch.float64, generator=rng())
    torch.testing.assert_close(model.eval()((levels, u), hold_still)[0], model.flow(levels + u, hold_still)[0])
    noise = rng(2)
    first, second = (model.train()((levels, u), hold_still, noise)[0] for _ in range(2))
    assert not torch.equal(first, second)
    drawn = torch.rand(3, D, dtype=torch.float64, generator=rng(2))
    torch.testing.assert_close(first, model.flow(levels + drawn, hold_still)[0])


def test_the_metric_is_that_of_a_thousandth_of_the_tolerance_in_float64() -> None:
    problem = digits_cnf.problem(BUDGET, "test")
    budget = BUDGET.but(rtol=1e-2, atol=1e-2)
    torch.manual_seed(0)
    model = problem.model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    solve = solver(budget)
    found = against_reference(model, problem, "test", budget, solve, metric="log_likelihood", seed=0)
    x, u = (torch.cat(parts) for parts in zip(*problem.test_batches("test"), strict=True))
    with torch.no_grad():
        real = model.double()((x.double(), u.double()), at(1e-9))[0]
    assert found["log_likelihood"] == pytest.approx(real.mean().item(), abs=0.01)
    assert abs(found["log_likelihood_in_use"] - found["log_likelihood"]) <= found["solver_error"]
    assert found["solver_error"] > 0.05
    tight = budget.but(rtol=1e-5, atol=1e-5)
    again = against_reference(model.float(), problem, "test", tight, solver(tight), metric="log_likelihood", seed=0)
    assert again["solver_error"] < found["solver_error"] / 20


def test_without_a_reference_a_budget_measures_as_before_and_a_wrong_one_is_refused() -> None:
    problem, budget = digits_cnf.problem(BUDGET, "test"), BUDGET.but(reference=None)
    how: dict[str, Any] = {"metric": "log_likelihood", "seed": 0}
    assert against_reference(problem.model(), problem, "test", budget, solver(budget), **how) == {}
    budget = BUDGET.but(reference=1.0)
    with pytest.raises(ValueError, match="reference: expected a tolerance below"):
        against_reference(problem.model(), problem, "test", budget, solver(budget), **how)
    images = experiments.get("mnist_ode")
    budget = images.budget("smoke").but(reference=1e-8)
    problem = images.problem(budget, "test")
    with pytest.raises(ValueError, match="one number for each example"):
        against_reference(problem.model(), problem, "test", budget, solver(budget), metric="accuracy", seed=0)


def test_a_row_holds_the_likelihood_as_it_is_and_as_it_is_computed() -> None:
    row = train(experiments.get("digits_cnf"), make_regularizer("none"), 0, "smoke").row
    metrics = row.metrics
    assert abs(metrics["log_likelihood"] - metrics["log_likelihood_in_use"]) <= metrics["solver_error"] < 0.1
    assert metrics["loss"] == pytest.approx(-metrics["log_likelihood_in_use"], rel=1e-6)
    control = train(experiments.get("digits_cnf"), None, 0, "smoke").row
    assert control.nfe == 0
    assert control.metrics["solver_error"] < 1e-3


def test_the_control_is_the_gaussian_without_correlations() -> None:
    problem, digits = digits_cnf.problem(BUDGET.but(data={}), "test"), load_digits(seed=0)
    alone = fit_gaussian(digits.x_train, shrinkage=1.0)
    x, u = (torch.cat(parts) for parts in zip(*problem.test_batches("test"), strict=True))
    found = problem.model().eval()((x, u), hold_still)[0]
    torch.testing.assert_close(found.double(), alone.log_density(x + u), rtol=1e-4, atol=1e-3)


def test_the_table_shows_cost_and_correctness_of_each_regularizer_and_wants_a_reference() -> None:
    experiment = experiments.get("digits_cnf")
    rows = [
        train(experiment, make_regularizer(name), seed, "smoke").row for name in ("none", "steer") for seed in (0, 1)
    ]
    rows.append(train(experiment, None, 0, "smoke").row)
    table = cost_and_correctness(rows).set_index("regularizer")
    assert list(table.index) == ["vanilla", "STEER", "control: no dynamics"]
    values = [row.metrics["log_likelihood"] for row in rows[:2]]
    assert table.loc["vanilla", "log-likelihood [nats]"] == f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"
    assert table.loc["vanilla", "error of one image"] == f"{np.mean([r.metrics['solver_error'] for r in rows[:2]]):.1e}"
    away = np.mean(
        [b.metrics["log_likelihood"] - a.metrics["log_likelihood"] for a, b in zip(rows[:2], rows[2:4], strict=True)]
    )
    assert table.loc["STEER", "against vanilla"] == f"{away:+.2f}"
    away = (
        rows[4].metrics["log_likelihood"] - values[0]
    )  # one seed: that of vanilla's two which is tested on its images
    assert table.loc["control: no dynamics", "against vanilla"] == f"{away:+.2f}"
    assert table.loc["vanilla", "against vanilla"] == ""
    assert table.loc["control: no dynamics", "NFE"] == "0.0"
    assert table["seeds"].tolist() == [2, 2, 1]
    other = replace(rows[0], metrics={"log_likelihood": 0.0, "train_log_likelihood": 0.0})
    with pytest.raises(ValueError, match="no metric 'solver_error'"):
        cost_and_correctness([other])


def test_pictures_show_what_they_are_given() -> None:
    fig, (left, right) = plt.subplots(1, 2)
    pictures = np.arange(3 * D, dtype=float).reshape(3, D) % 17
    plots_density.digits(pictures, columns=2, ax=left, titles=["a", "b", "c"])
    sheet = np.asarray(left.images[0].get_array())
    assert np.array_equal(sheet[:8, :8], pictures[0].reshape(8, 8))
    assert np.array_equal(sheet[11:, :8], pictures[2].reshape(8, 8))
    curve = [(1e-3, 20.0, 1e-2), (1e-5, 44.0, 1e-4)]
    plots_density.error_against_nfe({"none": curve}, ax=right)
    assert right.lines[0].get_xydata().tolist() == [[20.0, 1e-2], [44.0, 1e-4]]
    plt.close(fig)


@pytest.mark.slow
def test_a_short_training_beats_the_control_and_a_gaussian_with_correlations() -> None:
    experiment, digits = experiments.get("digits_cnf"), load_digits(seed=0)
    row = train(experiment, make_regularizer("none"), 0, "quick", steps=150).row
    control = train(experiment, None, 0, "quick").row
    gaussian = choose_gaussian(digits.x_train, digits.u_train, n_validation=288, seed=0)
    likelihood = gaussian.log_density(digits.x_test + digits.u_test)
    error = likelihood.std().item() / len(likelihood) ** 0.5
    assert row.metrics["log_likelihood"] > likelihood.mean().item() + 2 * error
    assert likelihood.mean().item() > control.metrics["log_likelihood"] + 2 * error


@pytest.mark.slow
@pytest.mark.parametrize("tolerance", [1e-5, 1e-6])
def test_a_trained_flow_returns_the_digits_to_ten_times_the_tolerance_in_the_norm_of_the_solver(
    tolerance: float,
) -> None:
    trained = train(experiments.get("digits_cnf"), make_regularizer("none"), 0, "quick", steps=150)
    x, u = (torch.cat(parts) for parts in zip(*trained.problem.test_batches("test"), strict=True))
    model = trained.model.flow.double().eval()
    with torch.no_grad():
        end = model((x + u).double(), at(tolerance))[1].y[-1][:, :-1]
        away = (model.back(end, at(tolerance))[0] - x - u) / model.scale
    assert away.square().mean().sqrt() < 10 * tolerance


# --- the drop-in


class DigitsCnf(Cnf):
    """The public pattern on digits: a state tuple, and Hutchinson's estimate with noise kept on the module."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.net = nn.Sequential(nn.Linear(D + 1, 32), nn.Tanh(), nn.Linear(32, D))

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        z = state[0]
        with torch.set_grad_enabled(True):
            z.requires_grad_(True)
            dz = self.net(torch.cat([z, t.expand(len(z), 1)], 1))
            (vjp,) = torch.autograd.grad(dz, z, self.eps, create_graph=True)
        return dz, -(vjp * self.eps).sum(1, keepdim=True)

    def loss(self, by: Any, step: int) -> Tensor:
        digits = load_digits(seed=0)
        x = (digits.x_train[:32] + digits.u_train[:32] - 8.0) / 8.0
        self.eps = signs(x, rng(step))
        times, start = torch.tensor([1.0, 0.0]), (x, torch.zeros(len(x), 1))
        z, change = by.odeint_adjoint(self, start, times, method="dopri5", rtol=1e-4, atol=1e-4)
        return (0.5 * z[-1].square().sum(1) + change[-1, :, 0]).mean()


def fitted(by: Any, weight: float | None, n: int = 3) -> tuple[list[Tensor], float]:
    torch.manual_seed(0)
    model, terms = DigitsCnf(), 0.0
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(n):
        optimizer.zero_grad()
        loss = model.loss(by, step)
        if weight is not None:
            term = by.penalty()
            loss, terms = loss + weight * term, terms + term.item()
        loss.backward()
        optimizer.step()
    return [parameter.detach() for parameter in model.parameters()], terms


def test_a_users_state_tuple_on_digits_runs_unchanged_through_the_drop_in() -> None:
    plain, _ = fitted(PLAIN, None)
    heard, terms = fitted(LocalPenalty(rng=rng()), 0.0)
    assert all(torch.equal(a, b) for a, b in zip(plain, heard, strict=True))
    assert terms > 0
    weighted, _ = fitted(LocalPenalty(rng=rng()), 0.3)
    assert not any(torch.equal(a, b) for a, b in zip(plain, weighted, strict=True))
