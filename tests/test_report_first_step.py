"""Version 2's endpoint as the report has it: numbers are those that the measurements are made with."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
from rows import ROW

from reproduce.plots import first_step as plots_first_step
from reproduce.report import first_step
from reproduce.report.evidence import Evidence
from reproduce.runs import store
from reproduce.runs.registered import REGISTERED_IN, registered

LINES = registered()["first_step"]["lines"]
SEEDS = registered()["seeds"]["study"]
OWN = {"none": 70.0, "local_unbiased": 50.0, "local_biased": 48.0, "global_error": 44.0}
CHOSEN = {"none": 60.0, "local_unbiased": 36.0, "local_biased": 24.0, "global_error": 18.0}
ACCURACY = {"none": 0.95, "no_dynamics": 0.85, "local_unbiased": 0.95, "local_biased": 0.95, "global_error": 0.90}


def factor(seed: int) -> float:
    return math.exp(0.1 * (seed % 3))


ROWS = tuple(
    replace(
        ROW,
        regularizer=line,
        seed=seed,
        key=f"{line}-{seed}",
        metrics={"accuracy": ACCURACY[line] + 0.001 * (seed % 2)},
        nfe=OWN.get(line, 0.0) * factor(seed),
        seconds={"train": 1.0, "predict": 0.1},
    )
    for line in (*LINES, "no_dynamics")
    for seed in SEEDS
)
PART = Evidence("study", ROWS, {"mnist_ode": len(ROWS)})


def measurement(line: str, seed: int, **solved: Any) -> dict[str, Any]:
    def at(tolerance: float, scale: float) -> dict[str, Any]:
        accuracy = ACCURACY[line] + 0.001 * (seed % 2)
        of = {
            name: {"nfe": scale * nfe[line] * factor(seed), "metric": accuracy}
            for name, nfe in (("own", OWN), ("chosen", CHOSEN))
        }
        of["chosen"] |= solved
        return {"tolerance": tolerance, "share": 0.25, **of}

    head = {"experiment": "mnist_ode", "line": line, "seed": seed, "key": f"{line}-{seed}"}
    ways = [at(1e-7, 1.0), at(1e-3, 0.5)]
    return head | {"metric": "accuracy", "higher_is_better": True, "data": ROW.data, "ways": ways}


@pytest.fixture
def commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes measurements where git would track them."""
    monkeypatch.setattr(store, "COMMITTED", str(tmp_path))

    def written(measured: list[dict[str, Any]]) -> None:
        path = store.committed_path(store.FIRST_STEP, "mnist_ode")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(map(json.dumps, measured)))

    return written


ALL = [measurement(line, seed) for line in LINES for seed in SEEDS]


def test_both_sides_have_their_chosen_step_and_a_reader_sees_the_usual_solve_beside_it(commit: Any) -> None:
    commit(ALL)
    found = {one.saving.line: one for one in first_step.savings(PART, "mnist_ode")}
    biased, world = found["local_biased"], found["global_error"]
    assert biased.saving.ratio is not None
    assert biased.over_usual is not None
    assert math.exp(biased.saving.ratio.mean) == pytest.approx(24 / 60)
    assert math.exp(biased.over_usual.mean) == pytest.approx(24 / 70)
    assert biased.saving.reached(0.5)
    assert world.saving.verdict == "lost", "half of the gain"
    assert not world.saving.reached(0.5)
    assert not found["local_unbiased"].saving.reached(0.5), "0.6x"


def test_the_gain_is_that_of_the_solve_with_the_chosen_step_and_an_error_of_the_solve_is_lost(commit: Any) -> None:
    commit([one for one in ALL if one["line"] != "local_biased"] + [measurement("local_biased", seed, metric=0.86)
            for seed in SEEDS])  # fmt: skip
    found = {one.saving.line: one.saving for one in first_step.savings(PART, "mnist_ode")}
    assert found["local_biased"].verdict == "lost"
    commit([measurement(line, seed, error=0.5 if line == "local_biased" else 0.0) for line in LINES for seed in SEEDS])
    found = {one.saving.line: one.saving for one in first_step.savings(PART, "mnist_ode")}
    assert found["local_biased"].verdict == "lost"


def test_words_table_and_picture_say_it(commit: Any) -> None:
    commit(ALL)
    said = first_step.in_words(PART)
    assert f"in commit {REGISTERED_IN[2]} before its first solve" in said
    assert "in 1 of 1 experiments where dynamics matter: MNIST, neural ODE (hoped for: 2)." in said
    assert (
        "the biased one takes 0.40x of vanilla's with its chosen step, and 0.34x of vanilla's by the solver's" in said
    )
    assert (
        "the global penalty on the error takes 0.30x and 0.26x. The biased one takes 1.33x of its evaluations." in said
    )
    assert (
        "* MNIST, neural ODE: local, unbiased 0.60x [0.60, 0.60], gain kept, 0.51x of vanilla by its own guess; "
        in said
    )
    assert "Not measured yet: PhysioNet 2012, latent ODE; " in said
    unbiased, biased, _ = first_step.table(PART).to_dict("records")
    mean = math.fsum(map(factor, SEEDS)) / len(SEEDS)
    assert biased["evaluations"] == f"{48 * mean:.1f} -> {24 * mean:.1f}"
    assert biased["vanilla's"] == unbiased["vanilla's"] == f"{70 * mean:.1f} -> {60 * mean:.1f}"
    _, other, _ = first_step.at_other_tolerances(PART).to_dict("records")
    assert (other["tolerance"], other["penalty"]) == ("0.001", "local, biased")
    assert other["over vanilla's, chosen steps"].startswith("0.40x")
    assert first_step.models(PART) == [row for row in ROWS if row.regularizer != "no_dynamics"]
    fig = plots_first_step.own_and_chosen(PART)
    marks = [float(line.get_xdata()[0]) for line in fig.axes[0].lines if len(line.get_xdata()) == 1]
    assert marks == pytest.approx([mean * of[line] for line in LINES for of in (OWN, CHOSEN)])
    plt.close(fig)


def test_nothing_is_said_of_models_that_are_missing_or_that_are_others(commit: Any) -> None:
    assert first_step.in_words(PART) == ""
    assert len(first_step.table(PART)) == 0
    commit(ALL[:-1])
    assert first_step.complete(PART) == []
    commit([one | {"key": "another"} for one in ALL])
    assert first_step.complete(PART) == []
    plt.close(plots_first_step.own_and_chosen(PART))
