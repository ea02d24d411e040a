"""Every way to solve a trained model: what a row holds of it, what it is worth, and what a registered rule chooses."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rows import ROW

from reproduce import checkout, experiments
from reproduce.runs import choose, committed, curves, protocol, store, train, ways
from reproduce.runs.evaluation import evaluate, generator
from reproduce.runs.registered import PATH, registered
from reproduce.runs.run import Run
from reproduce.runs.store import CONTROL, Row
from reproduce.runs.train import Trained

STAGES = {"euler": 1, "midpoint": 2, "rk4": 4}


def trained(experiment: str, regularizer: str = "none", **overrides: Any) -> Trained:
    run = Run(experiment, regularizer, 10, "smoke", overrides=overrides)
    made = run.make_regularizer()
    return train.train(experiments.get(experiment), made, 10, "smoke", **overrides)


@pytest.fixture(scope="module")
def spiral() -> Trained:
    return trained("spiral_ode")


def entries(row: Row, method: str) -> list[dict[str, Any]]:
    return [entry for entry in row.ways if entry["method"] == method]


def test_a_row_has_each_order_at_each_tolerance_and_each_method_of_few_steps(spiral: Trained) -> None:
    for method in ("tsit5", "bosh3"):
        tolerances = [entry["tolerance"] for entry in entries(spiral.row, method)]
        assert tolerances == sorted(tolerances, reverse=True)
        assert tolerances[:4] == [1.0, 0.1, 0.01, 0.001]
    for method, stages in STAGES.items():
        assert [(e["steps"], e["nfe"]) for e in entries(spiral.row, method)] == [(n, stages * n) for n in ways.STEPS]


def test_the_solve_in_use_is_one_of_the_ways_and_has_the_rows_own_numbers(spiral: Trained) -> None:
    row = spiral.row
    (own,) = (e for e in entries(row, "tsit5") if e["tolerance"] == row.tolerance)
    assert (own["metric"], own["nfe"]) == (row.metrics["mse"], row.nfe)
    assert curves.curve(row)[curves.own_way(row)] == (curves.value(row), row.nfe)


def test_a_curve_ends_where_a_solve_becomes_too_costly_and_says_so(spiral: Trained) -> None:
    budget = spiral.row.budget
    found = ways.measured(
        spiral.model,
        spiral.problem,
        "test",
        experiments.get("spiral_ode").budget("smoke", **budget),
        control=False,
        limit=30,
        seed=0,
    )
    of_tsit5 = [entry for entry in found if entry["method"] == "tsit5"]
    assert "more than 30 evaluations" in of_tsit5[-1]["failed"]
    assert of_tsit5[-1]["metric"] is None
    assert all(entry["nfe"] <= 30 and not entry["failed"] for entry in of_tsit5[:-1])
    assert len([entry for entry in found if entry["steps"]]) == 15  # fixed steps are all there


def test_the_control_has_one_way_that_costs_nothing() -> None:
    row = train.train(experiments.get("spiral_ode"), None, 10, "smoke").row
    assert [(e["method"], e["nfe"]) for e in row.ways] == [("none", 0.0)]
    assert curves.curve(row) == {("none", None, None): (-row.metrics["mse"], 0.0)}


def test_a_model_trained_by_two_midpoint_steps_is_tested_by_them() -> None:
    row = trained("spiral_ode", "local_biased", method="midpoint", fixed_steps=2, rtol=0.01, atol=0.01).row
    assert row.nfe == row.train_nfe == 4
    assert curves.own_way(row) == ("midpoint", None, 2)
    assert row.history[-1]["penalty"] > 0
    assert curves.curve(row)["midpoint", None, 2] == (curves.value(row), 4)


def test_all_ways_of_an_sde_see_the_same_paths() -> None:
    made = trained("spiral_sde")
    t = torch.linspace(0.0, 1.0, 5, dtype=torch.float64)
    y0 = torch.full((64, 2), 0.5)
    budget = experiments.get("spiral_sde").budget("smoke")

    def end(way: ways.Way, seed: int) -> torch.Tensor:
        with torch.no_grad():
            return ways.solver_of(way, budget, generator(seed, "paths"))(made.model.dynamics, y0, t).y[-1]  # type: ignore[arg-type]

    adaptive, few = end(ways.Way("sosri2", tolerance=1e-3), 0), end(ways.Way("milstein", steps=16), 0)
    other = end(ways.Way("milstein", steps=16), 1)
    assert (adaptive - few).norm() < 0.2 * (adaptive - other).norm()


def test_the_error_of_a_likelihood_stands_in_each_way_and_falls_as_steps_get_shorter() -> None:
    row = trained("digits_cnf").row
    euler, midpoint = ([entry["error"] for entry in entries(row, method)] for method in ("euler", "midpoint"))
    assert euler[-1] == pytest.approx(euler[-2] / 2, rel=0.1)
    assert midpoint[-1] == pytest.approx(midpoint[-2] / 4, rel=0.1)
    (reference,) = entries(row, "reference")
    best = curves.curve(row)[("tsit5", entries(row, "tsit5")[-2]["tolerance"], None)][0]
    assert best == pytest.approx(row.metrics["log_likelihood"], abs=1e-2)
    assert math.isfinite(reference["metric"])


def test_an_output_that_is_not_finite_is_a_way_that_failed(spiral: Trained) -> None:
    budget = experiments.get("spiral_ode").budget("smoke")
    with torch.no_grad():
        for parameter in spiral.model.parameters():
            before = parameter.clone()
            parameter.mul_(1e20)
            found = ways.measured(spiral.model, spiral.problem, "test", budget, control=False, limit=100, seed=0)
            parameter.copy_(before)
            break
    assert any(entry["failed"] for entry in found)
    assert all((entry["metric"] is None) == bool(entry["failed"]) for entry in found)
    json.dumps(found, allow_nan=False)


def test_a_ways_value_is_the_rows_own_plus_the_difference_on_the_same_examples(spiral: Trained) -> None:
    moved = replace(spiral.row, metrics={**spiral.row.metrics, "mse": spiral.row.metrics["mse"] + 1.0})
    before, after = curves.curve(spiral.row), curves.curve(moved)
    assert all(after[name][0] == pytest.approx(before[name][0] - 1.0) for name in before)


# What the rules choose


def test_the_fewest_evaluations_that_keep_enough_are_taken_and_the_best_where_none_does() -> None:
    assert choose.keeps_most([(1.0, 50.0), (0.985, 20.0), (0.9, 10.0)], 0.98) == 1
    assert choose.keeps_most([(0.99, 20.0), (1.01, 20.0)], 0.98) == 1
    assert choose.keeps_most([(0.5, 10.0), (0.7, 90.0)], 0.98) == 1
    assert choose.keeps_most([(math.nan, 10.0), (0.1, 90.0)], 0.98) == 1


def test_every_run_of_the_protocol_can_be_made_and_none_is_listed_twice() -> None:
    for stage, runs_of in protocol.STAGES.items():
        if stage == "published":
            continue
        for name in protocol.names():
            runs = runs_of(name)
            assert len({(r.regularizer, r.seed, r.part, str(r.settings), str(r.overrides)) for r in runs}) == len(runs)
            for run in runs:
                run.make_regularizer()
                assert run.budget().curve


def test_no_reported_seed_was_chosen_on_and_ladders_never_see_the_test_part() -> None:
    seeds = registered()["seeds"]
    for name in protocol.names():
        reported = [*protocol.study(name), *protocol.published(name)]
        assert all(run.part == "test" and run.seed >= 10 for run in reported)
        chosen_on = [*protocol.rates(name), *protocol.ladders(name)]
        assert all(run.part == "validation" and run.seed in seeds["ladder"] for run in chosen_on)
        assert {run.seed for run in protocol.study(name)} == set(seeds["study"])


def fake(run: Run, metric: float, nfe: float, cheapest: float | None = None, loses: float = 0.001) -> Row:
    """A row as a run would leave it, with one cheap way that costs a tenth and loses a little."""
    budget = run.budget()
    own = {"method": budget.method, "tolerance": budget.rtol, "steps": None, "metric": metric, "nfe": nfe, "failed": ""}
    cheap = {**own, "tolerance": 1.0, "metric": metric - loses, "nfe": cheapest or nfe / 10}
    ways = [{**own, "method": "none", "tolerance": None, "nfe": 0.0}] if run.regularizer == CONTROL else [own, cheap]
    return replace(
        ROW,
        key=run.key(),
        experiment=run.experiment,
        regularizer=run.regularizer,
        seed=run.seed,
        part=run.part,
        budget=budget.of_one_run(),
        metrics={"accuracy": metric},
        nfe=nfe,
        ways=ways,
        provenance={"more": {"instead": run.instead()}},
    )


def write_rates(name: str) -> float:
    """Write rows by which the learning rate of quick is the best, vanilla's 0.40 and the control's 0.30; return it."""
    rate = experiments.get(name).budget("quick").lr
    for run in protocol.rates(name):
        best = 0.40 if run.overrides["lr"] == rate else 0.38
        store.write(fake(run, 0.30 if run.regularizer == "no_dynamics" else best, 40.0))
    return rate


@pytest.fixture
def laboratory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A repository with the registration alone; keys without data, which no ladder needs here."""
    (tmp_path / "data" / "reference").mkdir(parents=True)
    registered = (checkout.ROOT / PATH).read_text(encoding="utf-8")
    monkeypatch.setattr(checkout, "ROOT", tmp_path)
    (tmp_path / PATH).write_text(registered, encoding="utf-8")
    monkeypatch.setattr(Run, "files", lambda self: ())
    monkeypatch.setattr(Run, "ingredients", lambda self, files=None: {})
    protocol._key.cache_clear()
    yield tmp_path
    protocol._key.cache_clear()


def test_ladders_choose_the_rate_the_weight_and_the_way_and_the_study_takes_them(laboratory: Path) -> None:
    name = "cifar10_ode"
    rate = write_rates(name)
    accuracy = {0.03: 0.401, 0.1: 0.399, 0.3: 0.390, 1.0: 0.35}
    for run in protocol.ladders(name):
        weight = run.settings.get("weight", run.overrides.get("weight_decay"))
        store.write(fake(run, accuracy.get(weight, 0.35), 40.0 - weight))
    assert choose.update([name]) == [name]
    assert choose.update([name]) == []
    chosen = json.loads((laboratory / "data" / "reference" / "chosen.json").read_text())[name]
    assert chosen["lr"] == rate
    assert chosen["regularizers"]["local_biased"]["weight"] == 0.1  # the largest that keeps 98 percent: 0.399 of 0.40
    assert chosen["regularizers"]["global_error"] == {"weight": 0.1, "times_dt": False}
    assert chosen["ways"]["none"] == ["tsit5", 1.0, None]
    assert chosen["weight_decay"] == 0.1
    choose.check_stage("study", [name])
    (run, *_) = (run for run in protocol.study(name) if run.regularizer == protocol.DECAY)
    assert run.budget().weight_decay == 0.1


@pytest.mark.parametrize(("cheapest", "few"), [(1.0, {"local_biased": {"weight": 0.03}}), (3.99, None), (4.5, None)])
def test_another_weight_serves_few_evaluations_only_if_it_really_takes_fewer(
    laboratory: Path, cheapest: float, few: dict[str, Any] | None
) -> None:
    name = "cifar10_ode"
    write_rates(name)
    accuracy = {0.03: 0.401, 0.1: 0.400}
    for run in protocol.ladders(name):
        weight, of_one = (
            run.settings.get("weight", 1.0),
            run.regularizer == "local_biased" and run.settings["weight"] == 0.03,
        )
        store.write(fake(run, accuracy.get(weight, 0.35), 40.0 - weight, cheapest if of_one else None))
    choose.update([name])
    chosen = json.loads((laboratory / "data" / "reference" / "chosen.json").read_text())[name]
    assert chosen["regularizers"]["local_biased"]["weight"] == 0.1
    assert chosen.get("few") == few


def test_a_weight_for_few_evaluations_need_not_keep_what_no_weight_keeps(laboratory: Path) -> None:
    name = "cifar10_ode"
    write_rates(name)
    for run in protocol.ladders(name):  # all weights keep 80 percent as trained; 0.1 of one line more in a cheap way
        better = run.regularizer == "global_error" and run.settings["weight"] == 0.1
        store.write(fake(run, 0.38, 40.0, 4.0, loses=-0.001 if better else 0.001))
    choose.update([name])
    chosen = json.loads((laboratory / "data" / "reference" / "chosen.json").read_text())[name]
    assert chosen["regularizers"]["global_error"]["weight"] == 0.03  # of equals the first
    assert chosen["few"] == {"global_error": {"weight": 0.1, "times_dt": False}}
    assert chosen["gains"]["global_error:few"] == {"held_out_gain": 0.81, "evaluations": 4.0}


def test_a_stage_whose_choices_are_not_made_yet_is_refused(laboratory: Path) -> None:
    choose.check_stage("rates", protocol.names())
    with pytest.raises(ValueError, match=r"'ladders' needs what stage 'rates' chooses.*mnist_ode"):
        choose.check_stage("ladders", ["mnist_ode"])
    path = laboratory / "data" / "reference" / "chosen.json"
    path.write_text(json.dumps({"mnist_ode": {"lr": 0.006, "ways": {"none": ["rk4", None, 2]}}}))
    choose.check_stage("ladders", ["mnist_ode"])
    with pytest.raises(ValueError, match=r"'study' needs what stage 'ladders' chooses"):
        choose.check_stage("study", ["mnist_ode"])


def test_committed_rows_come_back_where_their_key_is_still_right(laboratory: Path) -> None:
    runs = protocol.rates("cifar10_ode")
    for run in runs[:3]:
        store.write(fake(run, 0.4, 40.0))
    assert committed.keep("rates", "cifar10_ode", runs) == 3
    assert committed.keep("rates", "cifar10_ode", runs) == 0
    for path in store.results_folder("quick").glob("*/*.json"):
        path.unlink()
    path = store.committed_path("rates", "cifar10_ode")
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0].replace(json.loads(lines[0])["key"], "0" * 16), *lines[1:]]) + "\n")
    assert committed.restore(["cifar10_ode"]) == (2, 1)
    assert committed.restore(["cifar10_ode"]) == (0, 1)
    assert sum(run.stored() is not None for run in runs) == 2


def test_a_broken_line_of_committed_rows_is_named(laboratory: Path) -> None:
    path = store.committed_path("rates", "cifar10_ode")
    path.parent.mkdir(parents=True)
    path.write_text("{}\n")
    with pytest.raises(ValueError, match="line 1 is not a readable row"):
        store.committed_rows("rates", "cifar10_ode")


def test_the_curve_of_a_part_is_measured_on_its_first_examples_alone() -> None:
    made = trained("mnist_ode")
    whole = evaluate(made.model, made.problem, "test", made.solve, seed=10, step=4)
    assert whole.n > 8
    assert len(ways._first(made.problem.test_batches("test"), 8)) == 1
