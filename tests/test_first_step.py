"""The first step that is chosen for a model: what is tried, what wins, what is measured, and what git tracks of it."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from reproduce import checkout
from reproduce.runs import committed, first_step, protocol, store
from reproduce.runs.registered import registered
from reproduce.runs.run import Run
from reproduce.runs.train import Trained

REFERENCE = checkout.ROOT / "data" / "reference"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(checkout, "ROOT", tmp_path)
    return tmp_path


@cache
def smoke(experiment: str) -> Run:
    return replace(protocol.run_of(experiment, "none", 10), profile="smoke")


def taken(trained: Trained, run: Run, share: float | None) -> Any:
    """The trace of a solve of the first test batch."""
    batch = trained.problem.test_batches("test")[0]
    solve = first_step.solver(run.budget(), share)
    with torch.no_grad():
        return trained.model(trained.problem.inputs(batch), solve, torch.Generator().manual_seed(0))[1].trace


def test_registered_are_the_studys_models_of_odes() -> None:
    found = first_step.runs("mnist_ode")
    assert found
    assert all(run in protocol.study("mnist_ode") for run in found)
    assert {run.seed for run in found} == set(registered()["seeds"]["study"])
    assert first_step.runs("spiral_sde") == []


@pytest.mark.parametrize("experiment", ["mnist_ode", "cifar10_multiscale_ode"])
def test_a_share_is_the_first_step_and_none_is_the_solvers_own_guess(home: Path, experiment: str) -> None:
    run = smoke(experiment)
    trained = run.trained()
    assert not trained.model.training  # with a batch's own statistics it would be another model
    own = taken(trained, run, None)
    assert own.nfe == trained.row.nfe
    short = taken(trained, run, 1 / 64)
    assert float(short.dt[0]) == pytest.approx(1 / 64)
    assert own.dt[0] != short.dt[0]


def test_the_fewest_evaluations_win_then_the_own_guess_then_the_longest_step(monkeypatch: pytest.MonkeyPatch) -> None:
    cost: dict[float | None, float] = {}
    batch = (torch.zeros(2), torch.zeros(2))

    def solver(budget: Any, share: float | None) -> Any:
        return share

    def model(inputs: Any, share: float | None, noise: Any) -> Any:
        return None, SimpleNamespace(trace=SimpleNamespace(nfe=cost[share]))

    model.eval = lambda: None  # type: ignore[attr-defined]
    problem = SimpleNamespace(test_batches=lambda part: [batch] if part == "train" else [], inputs=lambda batch: batch)
    trained: Any = SimpleNamespace(model=model, problem=problem)
    monkeypatch.setattr(first_step, "solver", solver)
    shares = registered()["first_step"]["shares"]
    for costs, expected in (
        ({None: 20, 0.25: 13, 0.125: 13}, 0.25),
        ({None: 13, 1.0: 13}, None),
        ({None: 20, 1.0: 14, 0.03125: 13.5}, 0.03125),
    ):
        cost = dict.fromkeys((None, *shares), 99.0) | costs  # type: ignore[dict-item]
        best, tried = first_step.chosen(trained, None, 0)  # type: ignore[arg-type]
        assert best == expected
        assert tried["own"] == cost[None]
        assert list(tried) == ["own", *(f"{share:g}" for share in shares)]


@pytest.mark.parametrize("experiment", ["mnist_ode", "digits_cnf", "spiral_ode"])
def test_a_measurement_has_both_solves_of_the_whole_test_part_at_each_tolerance(home: Path, experiment: str) -> None:
    run = smoke(experiment)
    one = first_step.measure(run)
    row = run.make()
    own, *others = one["ways"]
    assert [own["tolerance"], *(way["tolerance"] for way in others)] == list(
        dict.fromkeys([run.budget().rtol, *registered()["first_step"]["tolerances"]])
    )
    assert own["own"]["nfe"] == row.nfe
    assert own["own"]["metric"] == row.metrics[row.metric]
    assert own["own"].get("error") == row.metrics.get("solver_error")
    for way in one["ways"]:
        best = "own" if way["share"] is None else f"{way['share']:g}"
        assert way["tried"][best] == min(way["tried"].values())
        assert way["share"] is not None or way["own"]["nfe"] == way["chosen"]["nfe"]
    assert (one["key"], one["line"], one["seed"]) == (row.key, "none", 10)


@pytest.mark.slow
def test_what_is_measured_is_stored_as_it_comes_kept_once_and_not_made_again(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = [replace(smoke("spiral_ode"), seed=seed) for seed in (10, 11)]
    monkeypatch.setattr(first_step, "runs", lambda name: few)
    for name in ("protocol.yaml", "chosen.json"):  # worker processes read them in their home
        (home / "data" / "reference").mkdir(parents=True, exist_ok=True)
        shutil.copy(REFERENCE / name, home / "data" / "reference")
    monkeypatch.setenv("REGNDE_HOME", str(home))
    first_step.study(["spiral_ode"], 2, keeps=True)
    assert "2 of them new" in capsys.readouterr().out
    assert [one["seed"] for one in store.first_steps("spiral_ode")] == [10, 11]
    kept = store.committed_path(store.FIRST_STEP, "spiral_ode").read_bytes()
    assert list(first_step.make("spiral_ode", 2)) == []
    for path in (home / "data" / "results" / store.FIRST_STEP).rglob("*.json"):  # made again, at another time
        path.write_text(json.dumps(json.loads(path.read_text()) | {"provenance": {}}))
    assert first_step.keep("spiral_ode") == 0
    assert store.committed_path(store.FIRST_STEP, "spiral_ode").read_bytes() == kept


def test_a_row_of_the_study_that_is_made_again_leaves_the_committed_one(home: Path) -> None:
    run = replace(smoke("spiral_ode"), overrides={"steps": 1})
    row = run.make()
    assert committed.keep("study", "spiral_ode", [run]) == 1
    store.write(replace(row, seconds={**row.seconds, "train": 99.0}))
    assert committed.keep("study", "spiral_ode", [run]) == 0
    assert store.committed_rows("study", "spiral_ode") == [row]


KEPT = [one for name in registered()["first_step"]["experiments"] for one in store.first_steps(name)]


@pytest.mark.slow
def test_a_model_that_is_not_the_studys_to_the_last_digits_is_not_measured(home: Path) -> None:
    run = smoke("spiral_ode")
    row = run.make()
    path = store.committed_path("study", "spiral_ode")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(row)) + "\n")
    assert first_step.measure(run)["key"] == row.key
    path.write_text(json.dumps(asdict(replace(row, nfe=row.nfe + 6))) + "\n")
    with pytest.raises(ValueError, match=r"spiral_ode/none/10: trained on this machine it is another model than the "):
        first_step.measure(run)


def test_committed_measurements_are_of_the_studys_models_and_solve_as_their_rows_do() -> None:
    for one in KEPT:
        of = {(row.regularizer, row.seed): row for row in store.committed_rows("study", one["experiment"])}
        row, own = of[one["line"], one["seed"]], one["ways"][0]
        assert one["key"] == row.key
        assert own["tolerance"] == row.tolerance
        assert own["own"]["nfe"] == pytest.approx(row.nfe)
        assert math.isclose(own["own"]["metric"], row.metrics[row.metric], rel_tol=1e-6)
