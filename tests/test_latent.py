"""The latent ODE: gates of the recognition network, missing values, reparameterization, losses, metric."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from regnde import solve_ode
from reproduce import experiments
from reproduce.experiments import physionet
from reproduce.experiments.physionet import Batch, kl_weight, loss, metric
from reproduce.models.latent import LatentODE, Prediction, Recognition, cell_inputs
from reproduce.models.losses import kl_from_standard_normal, observed_log_likelihood, observed_squared_error
from reproduce.models.solve import hold_still
from reproduce.runs import key as keys
from reproduce.runs.evaluation import evaluate

N, TIMES, VARIABLES, SIZE, STATE = 5, 7, 4, 3, 2
T = torch.linspace(0, 1, TIMES, dtype=torch.float64)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def series(*, seed: int = 0, density: float = 0.3) -> tuple[Tensor, Tensor]:
    """Some values and their mask; where nothing was observed the value is 0."""
    mask = (torch.rand(N, TIMES, VARIABLES, generator=rng(seed), dtype=torch.float64) < density).double()
    return torch.rand(N, TIMES, VARIABLES, generator=rng(seed + 1), dtype=torch.float64) * mask, mask


def recognition() -> Recognition:
    torch.manual_seed(0)
    return Recognition(VARIABLES, hidden=6, size=SIZE).double()


def latent_ode(**settings: float) -> LatentODE:
    torch.manual_seed(0)
    sizes = {"hidden": 6, "recognition": SIZE, "state": STATE, "initial_std": 0.1} | settings
    return LatentODE(torch.full((VARIABLES,), 0.5), **sizes).double()  # type: ignore[arg-type]


def solve(f: nn.Module, y0: Tensor, t: Tensor) -> object:
    return solve_ode(f, y0, t, rtol=1e-8, atol=1e-8)


def test_the_network_computes_its_formula_in_every_cell_and_so_does_its_gradient() -> None:
    net = recognition()
    values, mask = series()
    x, seen = cell_inputs(values, mask, T)
    mean, std = torch.zeros(N, SIZE).double(), torch.ones(N, SIZE).double()
    for cell, observed in zip(x, seen[:, :, 0], strict=True):
        state = torch.cat([mean, std], 1)
        hidden = torch.tanh(net.gates_of_input(cell) + net.gates_of_state(state))
        renew, reset = torch.sigmoid(net.renew(hidden[:, :6])), torch.sigmoid(net.reset(hidden[:, 6:]))
        kept = torch.cat([reset * mean, reset * std], 1)
        new = net.new(torch.tanh(net.new_of_input(cell) + net.new_of_state(kept)))
        new_mean, new_std = new[:, :SIZE], new[:, SIZE:].abs()
        mean = torch.where(observed > 0, (1 - renew) * mean + renew * new_mean, mean)
        std = torch.where(observed > 0, (1 - renew) * std + renew * new_std, std)
    by_hand, fused = torch.stack([mean, std], 1), net(values, mask, T)
    torch.testing.assert_close(fused, by_hand, rtol=1e-12, atol=1e-14)
    gradients = (torch.autograd.grad(y.sin().sum(), list(net.parameters())) for y in (fused, by_hand))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(("changed", "other"), [("std", "mean"), ("mean", "std")])
def test_in_one_cell_the_new_mean_never_meets_the_new_std(changed: str, other: str) -> None:
    net, which = recognition(), {"mean": 0, "std": 1}
    values, mask = series(density=1.0)
    before = net(values[:, :1], mask[:, :1], T[:1])
    with torch.no_grad():  # the rows of the last layer that make the mean, or the std
        net.new.bias.view(2, SIZE)[which[changed]] += 0.7
    after = net(values[:, :1], mask[:, :1], T[:1])
    assert torch.equal(after[:, which[other]], before[:, which[other]])
    assert ((after - before)[:, which[changed]].abs() > 1e-3).all()


def test_standard_deviations_stay_positive() -> None:
    net = recognition()
    with torch.no_grad():
        net.new.bias.view(2, SIZE)[1] = -5.0
    assert (net(*series(density=0.8), T)[:, 1] > 0).all()


def test_a_cell_without_observations_leaves_the_state_as_it_is() -> None:
    net = recognition()
    values, mask = series(density=0.6)
    values[:, [0, 2, 3, 6]], mask[:, [0, 2, 3, 6]] = 0.0, 0.0
    keep = [1, 4, 5]
    torch.testing.assert_close(net(values, mask, T), net(values[:, keep], mask[:, keep], T[keep]), rtol=1e-12, atol=0)


def test_a_series_without_any_observation_is_read_as_the_prior() -> None:
    values, mask = series(density=0.0)
    state = recognition()(values, mask, T)
    assert (state[:, 0] == 0).all()
    assert (state[:, 1] == 1).all()


def test_the_time_step_of_a_cell_counts_from_the_last_observation() -> None:
    mask = torch.zeros(1, 5, 2)
    mask[0, [1, 3], 0] = 1
    x, seen = cell_inputs(mask, mask, torch.tensor([1.0, 0.9, 0.6, 0.5, 0.1]))
    torch.testing.assert_close(x[:, 0, -1], torch.tensor([0.0, 0.0, 0.3, 0.4, 0.4]))
    assert seen.flatten().tolist() == [0, 1, 0, 1, 0]


def test_the_latent_ode_reads_backwards() -> None:
    model = latent_ode()
    values, mask = series(density=0.7)
    mean, _ = model.encode(values, mask, T)
    read = model.recognition(values.flip(1), mask.flip(1), T.flip(0))
    torch.testing.assert_close(mean, model.to_state(read.flatten(1))[:, :STATE])


def test_training_draws_the_initial_state_and_prediction_takes_its_mean() -> None:
    model = latent_ode()
    inputs = (*series(), T)
    drawn = [model(inputs, solve, rng(seed))[0].values for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    model.eval()
    prediction, solution = model(inputs, solve, rng(1))
    assert torch.equal(prediction.values, model(inputs, solve)[0].values)
    assert torch.equal(solution.y[0], prediction.mean)


def test_drawn_initial_states_have_the_mean_and_the_std_of_their_distribution() -> None:
    model = latent_ode(initial_std=0.5)
    values, mask = series()
    many = 4000
    inputs = (values[:1].expand(many, -1, -1), mask[:1].expand(many, -1, -1), T)
    prediction, solution = model(inputs, hold_still, rng())
    y0, mean, std = solution.y[0], prediction.mean[0], prediction.std[0]
    assert ((y0.mean(0) - mean).abs() < 4 * std / math.sqrt(many)).all()
    assert ((y0.std(0) / std - 1).abs() < 4 / math.sqrt(2 * many)).all()


def test_without_dynamics_a_prediction_is_constant_in_time_and_the_field_learns_nothing() -> None:
    model = latent_ode()
    prediction, solution = model((*series(), T), hold_still, rng())
    assert torch.equal(prediction.values, prediction.values[:, :1].expand(N, TIMES, VARIABLES))
    assert solution.trace.nfe == 0
    prediction.values.sum().backward()
    assert all(p.grad is None for p in model.dynamics.parameters())
    assert model.decoder.weight.grad is not None


def test_the_gradient_of_the_loss_agrees_with_finite_differences_through_encoder_and_solve() -> None:
    model = latent_ode()
    values, mask = series()
    batch = Batch(values, mask, mask.sum((1, 2)).mean().expand(N))
    weights = [model.recognition.new.bias, model.to_state[0].bias, model.dynamics.net[0].bias, model.decoder.bias]

    def loss_of(*_: Tensor) -> Tensor:
        return loss(model((values, mask, T), solve, rng())[0], batch, 400)

    assert torch.autograd.gradcheck(loss_of, weights, rtol=1e-3)


def test_the_decoder_starts_near_the_center() -> None:
    model = latent_ode()
    model.decoder.weight.data.zero_()
    model.decoder.bias.data.zero_()
    assert (model((*series(), T), solve)[0].values == 0.5).all()
    assert "center" in model.state_dict()
    assert "center" not in dict(model.named_parameters())


@pytest.mark.parametrize(
    ("values", "mask", "t", "message"),
    [
        ((5, 7, 3), (5, 7, 3), 7, r"expected \(batch, times, 4\), found \(5, 7, 3\)"),
        ((5, 4), (5, 4), 5, r"expected \(batch, times, 4\), found \(5, 4\)"),
        ((5, 7, 4), (5, 7, 1), 7, r"mask: expected the shape of the values, \(5, 7, 4\), found \(5, 7, 1\)"),
        ((5, 7, 4), (5, 7, 4), 6, r"one time for each of 7 cells, \(times,\), found \(6,\)"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(values: tuple, mask: tuple, t: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        latent_ode()((torch.zeros(values).double(), torch.zeros(mask).double(), torch.linspace(0, 1, t)), solve)


def test_the_likelihood_is_that_of_normal_distributions_averaged_over_the_observations_of_a_stay() -> None:
    values, mask = series(density=0.5)
    y = torch.rand(N, TIMES, VARIABLES, generator=rng(9), dtype=torch.float64)
    of_entry = torch.distributions.Normal(y, 0.2).log_prob(values)
    expected = torch.stack([of_entry[i][mask[i] > 0].mean() for i in range(N)])
    torch.testing.assert_close(observed_log_likelihood(y, values, mask, std=0.2), expected)


def test_the_divergence_is_that_of_normal_distributions_averaged_over_dimensions() -> None:
    mean, std = torch.randn(N, STATE, generator=rng()), torch.rand(N, STATE, generator=rng(1)) + 0.1
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, std), torch.distributions.Normal(0.0, 1.0)
    )
    torch.testing.assert_close(kl_from_standard_normal(mean, std), expected.mean())
    assert kl_from_standard_normal(torch.zeros(1, 2), torch.ones(1, 2)) == 0


def test_what_was_not_observed_changes_neither_loss_nor_error_and_gets_no_gradient() -> None:
    values, mask = series()
    y = torch.rand(N, TIMES, VARIABLES, generator=rng(9), dtype=torch.float64, requires_grad=True)
    junk = torch.where(mask > 0, values, 1e6)
    for of in (
        lambda target: observed_log_likelihood(y, target, mask, std=0.01).mean(),
        lambda target: observed_squared_error(y, target, mask),
    ):
        assert torch.equal(of(values), of(junk))
        (gradient,) = torch.autograd.grad(of(values), y)
        assert (gradient[mask == 0] == 0).all()
        assert (gradient[mask > 0] != 0).all()


def test_a_batch_without_observations_is_pulled_to_the_prior_only() -> None:
    model = latent_ode()
    values, mask = series(density=0.0)
    batch = Batch(values, mask, torch.full((N,), 3.0))
    output, _ = model((values, mask, T), solve, rng())
    divergence = kl_from_standard_normal(output.mean, output.std)
    torch.testing.assert_close(loss(output, batch, 500), kl_weight(500) * divergence)
    assert metric(output, batch) == 0
    loss(output, batch, 500).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize(("shape", "std"), [((5, 7, 3), 0.01), ((5, 7, 4), 0.0), ((5, 7, 4), math.nan)])
def test_losses_refuse_shapes_and_deviations_that_cannot_be(shape: tuple[int, ...], std: float) -> None:
    with pytest.raises(ValueError, match=r"differ in shape|expected a positive"):
        observed_log_likelihood(torch.zeros(5, 7, 4), torch.zeros(shape), torch.ones(5, 7, 4), std=std)


def test_the_weight_of_the_divergence_waits_a_hundred_steps_and_tends_to_one() -> None:
    assert [kl_weight(step) for step in (0, 99, 100)] == [0, 0, 0]
    assert kl_weight(101) == pytest.approx(0.01)
    assert kl_weight(169) == pytest.approx(0.5, abs=0.01)
    assert kl_weight(3000) == pytest.approx(1.0)


def test_the_error_of_a_part_is_the_mean_over_its_observed_values_whatever_the_batches() -> None:
    experiment = experiments.get("physionet")
    found = []
    for size in (64, 5):  # 13 stays: one batch, and three of which the last is short
        budget = experiment.budget("smoke", batch=size)
        problem = experiment.problem(budget, "test")
        model = problem.model()
        torch.manual_seed(0)
        for p in model.parameters():
            nn.init.normal_(p, std=0.3)
        found.append(evaluate(model, problem, "test", hold_still))
    (whole,) = experiment.problem(experiment.budget("smoke", batch=64), "test").test_batches("test")
    with torch.no_grad():
        prediction: Prediction = model(problem.inputs(whole), hold_still)[0]
    errors = (prediction.values - whole.values)[whole.mask > 0]
    assert found[0].n == found[1].n == len(whole.values)
    assert [one.metric for one in found] == pytest.approx([errors.square().mean().item()] * 2, rel=1e-5)


def test_stays_without_an_observed_value_cannot_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    stays = physionet.stays_of(physionet.SMOKE, "test")
    nothing = replace(stays, mask_test=torch.zeros_like(stays.mask_test))
    monkeypatch.setattr(physionet, "stays_of", lambda *_: nothing)
    problem = physionet.problem(physionet.SMOKE, "test")
    assert len(problem.test_batches("train")) == 1
    with pytest.raises(ValueError, match="no stay to measure has an observed value"):
        problem.test_batches("test")


def test_settings_are_chosen_on_stays_that_are_neither_trained_on_nor_tested_on() -> None:
    experiment = experiments.get("physionet")
    budget = experiment.budget("smoke")
    test, validation = (experiment.problem(budget, part) for part in ("test", "validation"))
    assert validation.n_train < test.n_train
    assert "validation" in validation.data
    assert keys.ingredients("physionet", test)["files"] != keys.ingredients("physionet", validation)["files"]
