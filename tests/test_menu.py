"""The menu: sums, variants, rates and weights that adapt, each against the same thing done by hand."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from conftest import Counting
from resuming import assert_resumes_bitwise
from torch import Tensor

from regnde import REGULARIZERS, TSIT5, Regularizer, Solution, error_ratio, solve_ode
from regnde import make_regularizer as make
from regnde.penalties.weights import towards
from reproduce import checkout, experiments
from reproduce.models.classifiers import ODEClassifier
from reproduce.models.losses import cross_entropy
from reproduce.runs import train
from reproduce.runs.evaluation import generator
from reproduce.runs.run import Run

T = torch.tensor([0.0, 1.5], dtype=torch.float64)
TOLERANCES = {"rtol": 1e-5, "atol": 1e-5}
ERROR_RATIO = frozenset({"error_ratio"})
LOCAL = ("local_biased", "local_unbiased")


@pytest.fixture(autouse=True)
def own_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of these tests go to a folder of their own; the lock is the project's."""
    (tmp_path / "requirements.lock").symlink_to(checkout.ROOT / "requirements.lock")
    monkeypatch.setattr(checkout, "ROOT", tmp_path)


def penalty_of(regularizer: Regularizer, solution: Solution, seed: int = 0) -> Tensor:
    assert regularizer.penalty is not None
    return regularizer.penalty(solution, torch.Generator().manual_seed(seed))


def drawn(solution: Solution, seed: int = 0) -> int:
    """The accepted step that a biased penalty draws from a generator of this seed."""
    return int(torch.randint(solution.trace.accepted, (1,), generator=torch.Generator().manual_seed(seed)))


def gradient(value: Tensor, f: torch.nn.Module) -> Tensor:
    grads = torch.autograd.grad(value, list(f.parameters()), retain_graph=True)
    return torch.cat([grad.flatten() for grad in grads])


# Sums


def test_a_sum_has_the_names_settings_and_records_of_its_parts() -> None:
    total = make("global_error", weight=0.1) + make("global_stiffness", weight=0.2) + make("steer", fraction=0.25)
    assert total.name == "global_error+global_stiffness+steer"
    assert [part.name for part in total.simple] == ["global_error", "global_stiffness", "steer"]
    assert total.settings == {
        "global_error.weight": 0.1,
        "global_error.times_dt": True,
        "global_error.over": "sum",
        "global_stiffness.weight": 0.2,
        "global_stiffness.over": "sum",
        "steer.fraction": 0.25,
    }
    assert total.records == {"error_ratio", "stiffness"}


def test_a_sum_by_name_is_the_sum_of_its_parts_with_their_settings() -> None:
    by_name = make("global_error+steer", **{"global_error.weight": 0.1, "steer.fraction": 0.3})
    by_hand = make("global_error", weight=0.1) + make("steer", fraction=0.3)
    assert (by_name.name, by_name.settings, by_name.records) == (by_hand.name, by_hand.settings, by_hand.records)
    assert make("global_error+steer").settings == (make("global_error") + make("steer")).settings


def test_the_times_of_a_sum_are_those_of_its_parts_one_after_the_other() -> None:
    t = torch.linspace(0, 1, 5, dtype=torch.float64)
    steer, unbiased, rng = (
        make("steer"),
        make("local_unbiased"),
        torch.Generator().manual_seed(3),
    )
    moved, none = steer.times(t, rng)
    _, sampled = unbiased.times(moved, rng)
    found = (steer + unbiased).times(t, torch.Generator().manual_seed(3))
    assert not torch.equal(moved, t)
    assert torch.equal(found[0], moved)
    assert torch.equal(found[1], torch.cat([none, sampled]))


def test_a_sum_has_the_rate_of_the_part_that_has_one() -> None:
    total = make("global_error") + make("taynode", order=2)
    assert total.rate is not None
    plain = make("taynode", order=2).rate
    assert plain is not None
    t, y, dy = torch.tensor(0.5), torch.randn(3, 2), torch.randn(3, 2)
    f = lambda t, y: torch.sin(y) * t  # noqa: E731
    rng = torch.Generator()
    assert total.rate(rng)(f, t, y, dy) == plain(rng)(f, t, y, dy)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: make("steer") + make("steer", fraction=0.1), "holds each regularizer once"),
        (lambda: make("steer+steer"), "holds each regularizer once"),
        (lambda: make("taynode") + make("kinetic_jacobian"), "integrates one rate"),
        (
            lambda: make("global_error+steer", weight=0.1),
            r"settings \['weight'\] name no part.*'global_error.weight'",
        ),
        (lambda: make("global_error+steer", **{"local.weight": 0.1}), "name no part"),
        (lambda: make("global_error+steer", **{"steer.weight": 0.1}), "do not fit regularizer 'steer'"),
        (lambda: make("global_error+dropout"), "unknown regularizer 'dropout'"),
        (lambda: make("dropout:initial"), "unknown regularizer 'dropout'"),
        (lambda: make("local_biased", reuse=True, step="initial"), "leave step='solver'"),
        (
            lambda: make("local_biased", reuse=True, detach_k1=True),
            "leave step='solver' and detach_k1=False",
        ),
        (lambda: make("local_biased", target_nfe=50.0, weight_end=2.0), "give one of them"),
        (lambda: make("local_biased", target_nfe=0.0), "target_nfe must be a positive number"),
        (lambda: make("taynode", order=5), "order must be one of"),
        (lambda: make("kinetic_jacobian", kinetic=-1.0), "kinetic must be a weight"),
    ],
)
def test_sums_and_settings_that_cannot_be_are_refused(build: Callable[[], Regularizer], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def trained_by_hand(
    penalty: Callable[[Solution, torch.Generator], Tensor], times: Callable[..., tuple[Tensor, Tensor]]
) -> torch.nn.Module:
    """Train the smoke profile of mnist_ode with two steps that are written out here; return the model."""
    experiment = experiments.get("mnist_ode")
    budget = experiment.budget("smoke", steps=2, schedule="constant")
    problem = experiment.problem(budget, "test")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(0, "initialization").initial_seed())
        model = problem.model()
    assert isinstance(model, ODEClassifier)
    batches, draws = generator(0, "batches"), generator(0, "sampled time")
    optimizer = torch.optim.Adam(model.parameters(), lr=budget.lr)
    order = torch.randperm(problem.n_train, generator=batches)
    for step in range(2):
        x, labels = problem.train_batch(order[step * budget.batch : (step + 1) * budget.batch])
        t, sampled_t = times(model.t, draws)
        tolerances = {"rtol": budget.rtol, "atol": budget.atol}
        solution = solve_ode(
            model.dynamics, x.flatten(1), t, sampled_t=sampled_t, records=frozenset({"error_ratio"}), **tolerances
        )
        loss = cross_entropy(model.head(solution.y[-1]), labels) + penalty(solution, draws)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def by_program(regularizer: Regularizer) -> train.Trained:
    budget = {"steps": 2, "schedule": "constant", "history_every": 1}
    return train.train(experiments.get("mnist_ode"), regularizer, 0, "smoke", **budget)


def assert_same_weights(one: torch.nn.Module, other: torch.nn.Module) -> None:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in pairs)


def global_error_by_hand(solution: Solution) -> Tensor:
    return (solution.trace.error_ratio * solution.trace.dt.float()).sum()


def test_training_with_steer_and_global_error_is_training_with_both() -> None:
    trained = by_program(make("steer+global_error", **{"global_error.weight": 30.0, "steer.fraction": 0.4}))
    by_hand = trained_by_hand(
        lambda solution, rng: 30.0 * global_error_by_hand(solution), make("steer", fraction=0.4).times
    )
    assert_same_weights(trained.model, by_hand)
    assert trained.row.regularizer == "steer+global_error"
    assert trained.row.settings["global_error.weight"] == 30.0
    for other in (make("steer", fraction=0.4), make("global_error", weight=30.0)):
        with pytest.raises(AssertionError):
            assert_same_weights(by_program(other).model, by_hand)


def test_both_penalties_of_a_sum_enter_the_loss_with_their_own_weights() -> None:
    unbiased = make("local_unbiased")

    def penalty(solution: Solution, rng: torch.Generator) -> Tensor:
        assert unbiased.penalty is not None
        return 30.0 * global_error_by_hand(solution) + 7.0 * unbiased.penalty(solution, rng)

    total = make("global_error", weight=30.0) + make("local_unbiased", weight=7.0)
    trained = by_program(total)
    assert_same_weights(trained.model, trained_by_hand(penalty, unbiased.times))
    assert {entry["weight"] for entry in trained.row.history} == {37.0}


# Variants


def test_a_variant_has_its_own_name_and_the_settings_that_it_is_given() -> None:
    variant = make("local_biased:initial", step="initial", weight=0.3)
    plain = make("local_biased", step="initial", weight=0.3)
    assert variant.name == "local_biased:initial"
    assert variant.settings == plain.settings
    assert [part.name for part in (variant + make("steer")).simple] == ["local_biased:initial", "steer"]


def test_rows_of_a_variant_stand_beside_those_of_the_plain_regularizer() -> None:
    plain = Run("spiral_ode", "local_biased", 0, "smoke", overrides={"steps": 1})
    variant = Run(
        "spiral_ode", "local_biased:initial", 0, "smoke", settings={"step": "initial"}, overrides={"steps": 1}
    )
    rows = [plain.make(), variant.make()]
    assert rows[0].key != rows[1].key
    assert [row.regularizer for row in rows] == ["local_biased", "local_biased:initial"]
    assert [run.stored() for run in (plain, variant)] == rows


@pytest.mark.parametrize("name", LOCAL)
@pytest.mark.parametrize("times_dt", [False, True])
def test_reuse_is_the_recorded_error_ratio_with_its_gradient_and_costs_no_evaluation(
    name: str, times_dt: bool, mlp: Counting, y0: Tensor
) -> None:
    regularizer, rng = make(name, reuse=True, times_dt=times_dt), torch.Generator().manual_seed(0)
    t, sampled_t = regularizer.times(T, rng)
    assert regularizer.records == {"error_ratio"}
    solution = solve_ode(mlp, y0, t, sampled_t=sampled_t, records=regularizer.records, **TOLERANCES)
    trace, mlp.calls = solution.trace, 0
    found = penalty_of(regularizer, solution)
    assert mlp.calls == 0
    starts = trace.t.tolist()
    i = drawn(solution) if name == "local_biased" else sum(start <= sampled_t.item() for start in starts) - 1
    expected = trace.error_ratio[i] * (trace.dt[i] if times_dt else 1.0)
    assert found.item() == expected.item()
    assert torch.equal(gradient(found, mlp), gradient(expected, mlp))


@pytest.mark.parametrize(("over", "by_hand"), [("sum", sum), ("mean", statistics.fmean), ("max", max)])
@pytest.mark.parametrize("name", ["global_error", "global_stiffness"])
def test_a_global_penalty_is_the_sum_mean_or_maximum_over_accepted_steps(
    name: str, over: str, by_hand: Callable[[list[float]], float], mlp: Counting, y0: Tensor
) -> None:
    made = make(name, over=over)
    solution = solve_ode(mlp, y0, torch.tensor([0.0, 1.0]), rtol=1e-6, atol=1e-6, records=made.records)
    trace = solution.trace
    stiffness = [] if trace.stiffness is None else trace.stiffness.tolist()
    values = stiffness if name == "global_stiffness" else (trace.error_ratio.detach() * trace.dt.abs()).tolist()
    assert len(values) > 2
    assert penalty_of(made, solution).item() == pytest.approx(by_hand(values), rel=1e-6)


def test_an_unknown_aggregate_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="unknown over 'median'"):
        make("global_error", over="median")


def test_detach_k1_takes_the_first_stage_as_a_constant_and_has_another_gradient(mlp: Counting, y0: Tensor) -> None:
    solution = solve_ode(mlp, y0, T, **TOLERANCES)
    found, true = (penalty_of(make("local_biased", detach_k1=flag), solution, seed=3) for flag in (True, False))
    i = drawn(solution, seed=3)
    t, dt, y = float(solution.trace.t[i]), float(solution.trace.dt[i]), solution.trace.y[i]
    k = [mlp(y.new_tensor(t), y).detach()]  # written out: no code of the library takes this step
    for c, row in zip(TSIT5.c[1:], TSIT5.a, strict=True):
        y1 = y + dt * sum(a * ki for a, ki in zip(row, k, strict=True))
        k.append(mlp(y.new_tensor(t + c * dt), y1))
    error = dt * sum(b * ki for b, ki in zip(TSIT5.b_error, k, strict=True))
    assert isinstance(error, Tensor)
    by_hand = error_ratio(error, y, y1, **TOLERANCES)
    assert found.item() == pytest.approx(true.item(), rel=1e-12)  # the value is the same
    torch.testing.assert_close(gradient(found, mlp), gradient(by_hand, mlp), rtol=1e-8, atol=1e-10)
    assert gradient(found, mlp).norm() > 2 * gradient(true, mlp).norm()


def test_local_stiffness_is_the_quotient_of_the_last_two_stages_of_one_step(mlp: Counting, y0: Tensor) -> None:
    solution = solve_ode(mlp, y0, T, **TOLERANCES)
    i = drawn(solution, seed=3)
    t, dt, y = float(solution.trace.t[i]), float(solution.trace.dt[i]), solution.trace.y[i]
    k, states = [mlp(y.new_tensor(t), y)], [y]
    for c, row in zip(TSIT5.c[1:], TSIT5.a, strict=True):
        states.append(y + dt * sum(a * ki for a, ki in zip(row, k, strict=True)))
        k.append(mlp(y.new_tensor(t + c * dt), states[-1]))
    by_hand = (k[6] - k[5]).norm() / (states[6] - states[5]).norm()
    found = penalty_of(make("local_stiffness"), solution, seed=3)
    assert found.item() == pytest.approx(by_hand.item(), rel=1e-9)
    torch.testing.assert_close(gradient(found, mlp), gradient(by_hand, mlp), rtol=1e-7, atol=1e-9)


# Rates


@pytest.mark.parametrize("name", ["taynode", "kinetic_jacobian"])
def test_a_rate_changes_neither_steps_nor_counts(name: str, mlp: Counting, y0: Tensor) -> None:
    plain = solve_ode(mlp, y0, T, **TOLERANCES)
    rate = make(name).rate
    assert rate is not None
    along = solve_ode(mlp, y0, T, rate=rate(torch.Generator().manual_seed(0)), **TOLERANCES)
    assert torch.equal(along.y, plain.y)
    assert torch.equal(along.trace.dt, plain.trace.dt)
    assert (along.trace.nfe, along.trace.rejected) == (plain.trace.nfe, plain.trace.rejected)
    assert along.rate_integral is not None
    assert plain.rate_integral is None


@pytest.mark.parametrize("end", [1.5, -1.5])
def test_the_integral_of_a_rate_converges_to_the_true_one_with_order_two(end: float) -> None:
    """On y' = -y the second derivative is y, so the rate is the mean of y0^2 exp(-2t)."""
    y0 = torch.tensor([[1.0, 2.0], [0.5, -1.0]], dtype=torch.float64)
    exact = y0.square().mean().item() * abs(1 - math.exp(-2 * end)) / 2
    rate = make("taynode", order=2).rate
    assert rate is not None
    errors, sizes = [], [10, 20, 40, 80]
    for n in sizes:
        solution = solve_ode(
            lambda t, y: -y,
            y0,
            torch.tensor([0.0, end / 3, end]),  # an output time between changes nothing
            step_sizes=[abs(end) / n] * n,
            rate=rate(torch.Generator()),
            **TOLERANCES,
        )
        assert solution.rate_integral is not None
        errors.append(abs(solution.rate_integral.item() - exact))
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert orders == pytest.approx([2.0] * 3, abs=0.05)


def test_a_sum_with_a_rate_is_refused_along_an_sde_like_the_rate_itself() -> None:
    with pytest.raises(ValueError, match="an SDE has none"):
        train.train(experiments.get("spiral_sde"), make("global_error+taynode"), 0, "smoke")


# Adaptive weights


def test_an_adapted_weight_is_multiplied_by_the_exponential_of_the_relative_distance() -> None:
    adapt = towards(50.0, start=0.2)
    assert adapt(0.3, 50.0) == pytest.approx(0.3)
    assert adapt(0.3, 60.0) == pytest.approx(0.3 * math.exp(0.05 * 0.2))
    assert adapt(0.3, 40.0) == pytest.approx(0.3 * math.exp(-0.05 * 0.2))


def test_an_adapted_weight_moves_five_percent_at_most_and_stays_within_a_thousandfold_of_its_start() -> None:
    adapt = towards(50.0, start=0.2)
    assert adapt(0.3, 500.0) == adapt(0.3, 100.0) == pytest.approx(0.3 * math.exp(0.05))
    assert adapt(0.3, 0.0) == pytest.approx(0.3 * math.exp(-0.05))
    assert adapt(199.9, 100.0) == pytest.approx(200.0)
    assert adapt(0.000201, 0.0) == pytest.approx(0.0002)


@pytest.mark.parametrize("target", [0.0, -5.0, math.nan, math.inf])
def test_a_target_that_is_no_number_of_evaluations_is_refused(target: float) -> None:
    with pytest.raises(ValueError, match="target_nfe must be a positive number"):
        towards(target, start=1.0)


ADAPTED = {"weight": 0.01, "target_nfe": 30.0}


@pytest.mark.usefixtures("no_ways")
@pytest.mark.parametrize("name", ["local_biased", "local_biased+steer"])
def test_the_weight_of_each_training_step_follows_from_the_one_before_and_its_evaluations(name: str) -> None:
    prefix = "local_biased." if "+" in name else ""
    regularizer = make(name, **{prefix + key: value for key, value in ADAPTED.items()})
    row = train.train(experiments.get("spiral_ode"), regularizer, 0, "smoke", steps=8, history_every=1).row
    adapt, weight = towards(30.0, start=0.01), 0.01
    for entry in row.history:
        assert entry["weight"] == pytest.approx(weight, rel=1e-12)
        weight = adapt(weight, entry["nfe"])
    assert weight > 0.012


def test_a_resumed_run_goes_on_with_its_adapted_weight() -> None:
    tiny = {"steps": 10, "history_every": 1, "checkpoint_every": 4}
    run = Run("spiral_ode", "local_biased", 0, "smoke", overrides=tiny)
    assert_resumes_bitwise(dataclasses.replace(run, regularizer="local_biased:adapted", settings=ADAPTED), at=[4])


@pytest.mark.slow
@pytest.mark.usefixtures("no_ways")
def test_an_adapted_weight_leads_a_training_to_the_evaluations_that_it_is_told() -> None:
    """On a part of the spiral vanilla needs a quarter more than the target; the noise of the draws stays."""
    short = {"rtol": 1e-4, "atol": 1e-4, "data": {"n_times": 10, "t1": 0.5}, "steps": 250, "history_every": 1}

    def late(regularizer: Regularizer) -> float:
        history = train.train(experiments.get("spiral_ode"), regularizer, 0, "quick", **short).row.history
        return statistics.fmean(entry["nfe"] for entry in history[-80:])

    target = 0.8 * late(make("none"))
    assert late(make("local_biased", weight=0.1, target_nfe=target)) == pytest.approx(target, rel=0.1)


# The whole menu in a training


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        *[(name, {}) for name in REGULARIZERS if name != "none"],
        ("local_biased:reuse", {"reuse": True}),
        ("local_unbiased:reuse", {"reuse": True}),
        ("local_biased:detached", {"detach_k1": True}),
        ("local_biased:initial", {"step": "initial", "weight": 1e3}),
        ("global_error+global_stiffness", {}),
        ("kinetic_jacobian+local_unbiased+steer", {}),
    ],
)
def test_every_regularizer_trains_and_changes_what_is_learned(name: str, settings: dict[str, float]) -> None:
    trained, vanilla = by_program(make(name, **settings)), by_program(make("none"))
    assert all(bool(p.isfinite().all()) for p in trained.model.parameters())
    changed = [
        not torch.equal(a, b)
        for a, b in zip(trained.model.dynamics.parameters(), vanilla.model.dynamics.parameters(), strict=True)
    ]
    assert all(changed)
    assert make(name, **settings).name == trained.row.regularizer
