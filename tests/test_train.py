"""Training runs: functions of their arguments, rows that survive, sweeps that train only what is missing."""

from __future__ import annotations

import contextlib
import math
import os
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from resuming import without_clock

from regnde import make_regularizer, solve_ode
from regnde.penalties import menu as regularizers
from reproduce import checkout, experiments, files
from reproduce.models.classifiers import ODEClassifier
from reproduce.models.fields import TimeMLP
from reproduce.models.solve import hold_still
from reproduce.runs import store, train, ways
from reproduce.runs.run import Run


@pytest.fixture(autouse=True)
def own_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Rows of these tests go to a folder of their own; the lock is the project's."""
    (tmp_path / "requirements.lock").symlink_to(checkout.ROOT / "requirements.lock")
    monkeypatch.setattr(checkout, "ROOT", tmp_path)
    return tmp_path


PAIRS = list(product(regularizers.REGULARIZERS, experiments.names()))
NO_RULE = [("taynode", of) for of in experiments.names() if of.startswith("cifar10")]
NO_PAIR = [(name, "cifar10_multiscale_ode") for name in ("global_stiffness", "local_stiffness")]
REFUSED = [(name, of) for name, of in PAIRS if make_regularizer(name).rate is not None and of.endswith("_sde")]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "experiment"), [pair for pair in PAIRS if pair not in REFUSED + NO_RULE + NO_PAIR])
def test_the_same_arguments_give_the_same_row(name: str, experiment: str, request: pytest.FixtureRequest) -> None:
    if name != "none":
        request.getfixturevalue("no_ways")
    first = train.train(experiments.get(experiment), make_regularizer(name), 0, "smoke").row
    torch.manual_seed(123)  # the global generator is nobody's source of randomness
    again = train.train(experiments.get(experiment), make_regularizer(name), 0, "smoke").row
    assert without_clock(first) == without_clock(again)
    assert first.nfe > 0
    assert math.isfinite(first.metrics["loss"])


@pytest.mark.parametrize(("name", "experiment"), REFUSED)
def test_rates_are_derivatives_along_an_ode_and_refused_for_sdes(name: str, experiment: str) -> None:
    with pytest.raises(ValueError, match=f"{name}.*an SDE has none"):
        train.train(experiments.get(experiment), make_regularizer(name), 0, "smoke")


@pytest.mark.parametrize(("name", "experiment"), NO_RULE)
def test_taylor_mode_has_no_rule_for_convolutions_and_says_so(name: str, experiment: str) -> None:
    with pytest.raises(ValueError, match=r"no rule for '\w+', which the field applies.*mode='nested'"):
        train.train(experiments.get(experiment), make_regularizer(name), 0, "smoke")


@pytest.mark.parametrize(("name", "experiment"), NO_PAIR)
def test_a_method_without_two_stages_at_one_time_has_no_stiffness_and_says_so(name: str, experiment: str) -> None:
    with pytest.raises(ValueError, match=r"no two stages at (one|the same) time.*use 'tsit5'"):
        train.train(experiments.get(experiment), make_regularizer(name), 0, "smoke")


def test_another_seed_is_another_run() -> None:
    experiment = experiments.get("mnist_ode")
    rows = [train.train(experiment, make_regularizer("none"), seed, "smoke").row for seed in (0, 1)]
    assert rows[0].metrics["loss"] != rows[1].metrics["loss"]
    assert rows[0].key != rows[1].key


def test_the_regularizer_draws_from_its_own_generator_so_that_batches_stay_the_same() -> None:
    """A penalty of weight almost zero trains the very model that no penalty trains, whatever it draws."""
    experiment = experiments.get("mnist_ode")
    vanilla = train.train(experiment, make_regularizer("none"), 0, "smoke").row
    tiny = train.train(experiment, make_regularizer("local_unbiased", weight=1e-30), 0, "smoke").row
    assert tiny.metrics == vanilla.metrics


def test_the_control_never_evaluates_the_dynamics_and_is_the_linear_classifier() -> None:
    trained = train.train(experiments.get("mnist_ode"), None, 0, "smoke")
    assert trained.row.regularizer == store.CONTROL
    assert trained.row.nfe == trained.row.train_nfe == trained.row.accepted == 0
    model, x = trained.model, torch.rand(3, 28, 28)
    assert isinstance(model, ODEClassifier)
    assert torch.equal(model(x, hold_still)[0], model.head(x.flatten(1)))


def test_time_layers_are_linear_layers_with_the_time_appended() -> None:
    field, y, t = TimeMLP((5, 7, 5), output_tanh=True), torch.randn(4, 5), torch.tensor(0.3)
    one = torch.full((4, 1), 0.3)
    hidden = torch.tanh(field.layers[0].linear(torch.cat([y, one], dim=1)))  # type: ignore[union-attr, operator]
    by_hand = torch.tanh(field.layers[1].linear(torch.cat([hidden, one], dim=1)))  # type: ignore[union-attr, operator]
    torch.testing.assert_close(field(t, y), by_hand)


def test_the_measured_nfe_is_the_mean_over_test_batches() -> None:
    trained = train.train(experiments.get("mnist_ode"), make_regularizer("none"), 0, "smoke")
    batches, budget = trained.problem.test_batches("test"), experiments.get("mnist_ode").budget("smoke")
    nfe = [
        solve_ode(trained.model.dynamics, x.flatten(1), torch.tensor([0.0, 1.0]), rtol=budget.rtol, atol=budget.atol)
        for x, _ in batches
    ]
    sizes = [len(x) for x, _ in batches]
    mean = sum(n * s.trace.nfe for n, s in zip(sizes, nfe, strict=True)) / sum(sizes)
    assert trained.row.nfe == pytest.approx(mean)
    assert trained.row.n_test == sum(sizes)


def test_validation_data_are_training_data_and_never_test_data() -> None:
    experiment = experiments.get("mnist_ode")
    budget = experiment.budget("smoke", data={"source": "embedded"})
    test, validation = (experiment.problem(budget, part) for part in ("test", "validation"))
    images = {part: {x.numpy().tobytes() for x in batch[0]} for part, batch in _first_images(test, validation)}
    assert not images["test"] & images["validation"]
    assert validation.n_train < test.n_train


def _first_images(test: experiments.Problem, validation: experiments.Problem) -> list:  # type: ignore[type-arg]
    together = [
        (part, (torch.cat([x for x, _ in problem.test_batches(part)]),))
        for part, problem in (("test", test), ("validation", validation))
    ]
    return together


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"profile": "huge"}, "no profile 'huge'"),
        ({"part": "train"}, "unknown part 'train'"),
        ({"rtoll": 1e-3}, "rtoll"),
        ({"steps": 0}, "steps"),
        ({"method": "rk5"}, "method"),
    ],
)
def test_wrong_profiles_parts_and_overrides_are_refused(arguments: dict[str, object], message: str) -> None:
    arguments = {"profile": "smoke", **arguments}
    with pytest.raises((ValueError, ValidationError), match=message):
        train.train(experiments.get("spiral_ode"), None, 0, arguments.pop("profile"), **arguments)  # type: ignore[arg-type]


def test_an_unknown_experiment_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"unknown experiment 'mnist'.*mnist_ode"):
        experiments.get("mnist")


def test_a_row_comes_back_from_disk_as_it_was() -> None:
    row = train.train(experiments.get("spiral_ode"), None, 0, "smoke").row
    assert store.read(store.write(row)) == row
    assert store.rows("smoke") == [row]
    assert store.find("smoke", "spiral_ode", row.key) == row


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "folder" / "file.json"
    files.write_atomically(path, b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b'{"key": "abc"}', b"[1, 2", b'"text"'])
def test_a_broken_row_is_named_and_not_read(content: bytes) -> None:
    path = store.results_folder("smoke") / "spiral_ode" / "none-seed0-0123.json"
    files.write_atomically(path, content)
    with pytest.raises(ValueError, match=r"none-seed0-0123.json is not a readable row.*delete it"):
        store.rows("smoke")


def test_the_key_knows_every_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [
        Run("spiral_ode", "local_biased", 0, "smoke"),
        Run("spiral_ode", "local_unbiased", 0, "smoke"),
        Run("spiral_ode", "local_biased", 1, "smoke"),
        Run("spiral_ode", "local_biased", 0, "quick"),
        Run("spiral_ode", "local_biased", 0, "smoke", part="validation"),
        Run("spiral_ode", "local_biased", 0, "smoke", settings={"weight": 0.5}),
        Run("spiral_ode", "local_biased", 0, "smoke", settings={"step": "initial"}),
        Run("spiral_ode", "local_biased", 0, "smoke", overrides={"rtol": 1e-3}),
        Run("spiral_ode", "local_biased", 0, "smoke", overrides={"data": {"n_times": 20, "t1": 1.5}}),
        Run("spiral_ode", store.CONTROL, 0, "smoke"),
    ]
    assert len({run.key() for run in runs}) == len(runs)
    assert runs[0].key() == Run("spiral_ode", "local_biased", 0, "smoke").key()


@pytest.mark.slow
@pytest.mark.parametrize("experiment", experiments.names())
def test_every_experiment_runs_in_the_default_dtype(experiment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as quickly:
        quickly.setattr(ways, "measured", lambda *given, **more: [])
        single = train.train(experiments.get(experiment), make_regularizer("local_unbiased"), 0, "smoke")
    torch.set_default_dtype(torch.float64)
    try:
        double = train.train(experiments.get(experiment), make_regularizer("local_unbiased"), 0, "smoke")
    finally:
        torch.set_default_dtype(torch.float32)
    assert {parameter.dtype for parameter in double.model.parameters()} == {torch.float64}
    assert double.row.made_of["dtype"] == "float64"
    assert double.row.key != single.row.key
    assert all(math.isfinite(value) for value in double.row.metrics.values())


def test_a_row_is_made_with_one_thread_wherever_it_is_made() -> None:
    torch.set_num_threads(2)
    experiment = experiments.get("spiral_ode")
    made = train.train(experiment, make_regularizer("local_biased"), 0, "smoke").row
    assert torch.get_num_threads() == 2, "and the caller's number is left as it was"
    torch.set_num_threads(1)
    assert made.metrics == train.train(experiment, make_regularizer("local_biased"), 0, "smoke").row.metrics
    assert made.provenance["threads"] == 1


@pytest.mark.parametrize("setting", ["no_grad", "inference_mode", "autocast", "matmul_precision", "default_device"])
def test_what_the_caller_has_set_changes_no_row_and_is_left_as_it_was(setting: str) -> None:
    """A sweep called inside `torch.no_grad()` trained nothing, and stored the row."""
    arguments: Any = experiments.get("spiral_ode"), make_regularizer("local_biased"), 0, "smoke"
    usual, around = train.train(*arguments).row, contextlib.ExitStack()
    with around:
        if setting == "matmul_precision":
            around.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
            torch.set_float32_matmul_precision("medium")
        elif setting == "default_device":
            around.enter_context(torch.device("meta"))  # stands for a GPU
        else:
            given = {"device_type": "cpu", "dtype": torch.bfloat16} if setting == "autocast" else {}
            around.enter_context(getattr(torch, setting)(**given))
        row = train.train(*arguments).row
        assert torch.is_grad_enabled() == (setting not in ("no_grad", "inference_mode"))
        assert torch.is_autocast_enabled("cpu") == (setting == "autocast")
        assert torch.get_default_device().type == ("meta" if setting == "default_device" else "cpu")
        assert (torch.get_float32_matmul_precision() == "medium") == (setting == "matmul_precision")
    assert (row.key, row.nfe, row.metrics, row.train_nfe) == (usual.key, usual.nfe, usual.metrics, usual.train_nfe)
