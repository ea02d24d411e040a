"""Benchmarks start, their locks agree, and the page of their results is made from the numbers beside it."""

from __future__ import annotations

import importlib
import json
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from regnde import TSIT5, local_biased, rk_step
from reproduce import experiments

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "benchmarks"
PROGRAMS = sorted([*FOLDER.glob("bench_*.py"), *FOLDER.glob("peers/bench_*.py"), FOLDER / "results.py"])


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(FOLDER), str(FOLDER / "peers"), *sys.path])


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_every_benchmark_starts_and_says_what_it_is(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module(path.stem)
    monkeypatch.setattr(sys, "argv", [path.name, "--help"])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 0
    first_words = str(module.__doc__).split()[:3]
    assert " ".join(first_words) in " ".join(capsys.readouterr().out.split())


def pins(path: Path) -> dict[str, str]:
    lines = (line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))
    return dict(line.split("==") for line in lines)


def test_the_peers_lock_has_the_same_torch_and_the_project_no_jax() -> None:
    project, peers = pins(ROOT / "requirements.lock"), pins(FOLDER / "peers" / "requirements.lock")
    for name in ("torch", "torchdiffeq", "torchsde", "torchode", "numpy", "setuptools"):
        assert peers[name] == project[name]
    assert {"jax", "jaxlib", "diffrax", "equinox"} <= set(peers)
    assert not {name for name in project if name.startswith("jax") or name in ("diffrax", "equinox")}
    assert not [version for version in peers.values() if "+" in version]


def test_the_page_of_results_is_made_from_the_numbers_beside_it() -> None:
    results = importlib.import_module("results")
    assert results.PAGE.read_text(encoding="utf-8") == results.page(results.kept())


def test_kept_numbers_say_where_when_and_from_which_commit() -> None:
    kept = sorted((FOLDER / "results").glob("*.json"))
    assert kept
    for path in kept:
        facts = json.loads(path.read_text(encoding="utf-8"))["machine"]
        assert {"cpu", "cores", "load_before", "load_average", "date", "commit", "torch"} <= set(facts), path.name


def test_the_forms_of_a_penalty_pull_by_what_they_differentiate_and_how_heavy_they_are() -> None:
    forms = importlib.import_module("bench_forms")
    row = forms.looked_at("spiral_ode", "smoke", steps=2, draws=3)
    start = row["start"]
    ours = experiments.get("spiral_ode").budget("smoke").regularizers["local_biased"]["weight"]
    assert {form: look["weight"] for form, look in start.items()} == {"ours": ours, "released": 1e-4, "text": 1e-4}
    assert 0 < start["text"]["over_loss"] < start["released"]["over_loss"], "one step, with and without its first stage"
    assert row["after"]["released"]["weight"] > 1e-4, "the weight grows over the training"
    assert forms.looked_at("spiral_ode", "smoke", steps=2, draws=3) == row


def measured(name: str) -> Any:
    """The rows of a kept measurement."""
    path = ROOT / "data" / "reference" / "measured" / name
    return json.loads(path.read_text(encoding="utf-8"))["rows"]


def test_what_lesson_04_shows_of_the_forms_holds_every_experiment() -> None:
    rows = measured("papers_forms.json")
    assert {row["experiment"] for row in rows if row["profile"] == "quick"} == set(experiments.names())


@pytest.fixture
def spiral_at_start() -> Any:
    """bench_direction, and its look at the untrained spiral."""
    direction = importlib.import_module("bench_direction")
    _, model, problem, budget = next(direction.moments("spiral_ode", steps=4))
    return direction, direction.look(model, problem, budget, examples=8)


@pytest.mark.parametrize(("box", "reuse"), [("closed", False), ("open", True)])
def test_the_direction_of_a_box_is_the_mean_over_all_outcomes_of_its_draw(
    spiral_at_start: Any, box: str, reuse: bool
) -> None:
    direction, at = spiral_at_start
    mean, run = direction.boxes(at, 1e-7)
    rng, seen = torch.Generator().manual_seed(0), dict[float, torch.Tensor]()
    while len(seen) < run.trace.accepted:
        drawn = local_biased(reuse=reuse).penalty(run, rng)
        seen[drawn.item()] = at.gradient(drawn)
    assert (torch.stack([*seen.values()]).mean(0) - mean[box]).norm() < 1e-9 * mean[box].norm()


def test_steps_are_counted_in_shares_that_grow_by_the_fifth_root_of_the_tolerance(spiral_at_start: Any) -> None:
    direction, at = spiral_at_start
    counts = [direction.log_steps(at, tol, near=8).exp() for tol in (1e-9, 1e-9 / 2**5)]
    assert all(len(set((one % 1).tolist())) == 8 for one in counts), "not whole numbers"
    assert counts[1].mean() / counts[0].mean() == pytest.approx(2, rel=0.25)


def test_a_look_along_a_training_leaves_the_training_as_it_is() -> None:
    direction = importlib.import_module("bench_direction")
    ends = []
    for looks in (False, True):
        for _, model, problem, budget in direction.moments("spiral_ode", steps=4):
            if looks:
                direction.measured(direction.look(model, problem, budget, examples=1), 1e-3, n_directions=1, near=2)
        ends.append(torch.nn.utils.parameters_to_vector(model.parameters()))
    assert torch.equal(*ends)


def test_a_draw_from_the_open_box_spends_nothing_beyond_the_solves() -> None:
    direction = importlib.import_module("bench_direction")
    spent = {draw: direction.trained_with("spiral_ode", draw, seed=0, steps=1)["spent"] for draw in direction.DRAWS}
    calls = list[float]()
    rk_step(lambda t, y: calls.append(float(t)) or -y, 0.0, torch.ones(1, 1), 0.1, TSIT5)
    assert spent["open"] == spent["vanilla"] == spent["closed"] - len(calls)


def test_what_lesson_04_shows_of_directions_holds_every_task_moment_and_tolerance() -> None:
    direction = importlib.import_module("bench_direction")
    found = [(row["experiment"], row["moment"], row["tolerance"]) for row in measured("direction.json")]
    assert found == [*product(direction.OTHERS, direction.MOMENTS, direction.TOLERANCES)]


def test_what_lesson_04_shows_of_draws_has_the_same_seeds_weight_and_steps_for_each() -> None:
    direction = importlib.import_module("bench_direction")
    rows = measured("draws.json")
    assert {row["experiment"] for row in rows} == set(direction.COMPARED)
    for task in direction.COMPARED:
        of_draw = {
            draw: [row for row in rows if (row["experiment"], row["draw"]) == (task, draw)]
            for draw in ("closed", "open")
        }
        for what in ("seed", "weight", "steps", "tolerance", "data"):
            assert [row[what] for row in of_draw["closed"]] == [row[what] for row in of_draw["open"]], what
        assert len(of_draw["open"]) >= 3
