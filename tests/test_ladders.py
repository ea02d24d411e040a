"""Ladders of weights, and the local penalties beside the global one: numbers are those that the rows are made with."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from rows import ROW

from reproduce.plots import study as plots_study
from reproduce.report import against_global, evidence, ladders, study
from reproduce.report.evidence import Evidence
from reproduce.runs import store
from reproduce.runs.store import Row

NFE = {"none": 100.0, "no_dynamics": 0.0, "global_error": 40.0, "local_biased": 44.0, "local_unbiased": 40.0}
TRAIN = {"none": 10.0, "no_dynamics": 1.0, "global_error": 10.0, "local_biased": 13.0, "local_unbiased": 9.0}
ACCURACY = {"none": 0.95, "no_dynamics": 0.85, "global_error": 0.95, "local_biased": 0.96, "local_unbiased": 0.94}
BUDGET = {"rtol": 1e-7, "method": "tsit5", "fixed_steps": None, "lr": 0.012}


def row(name: str, seed: int) -> Row:
    """A row of a line whose evaluations and times are those above, times a factor that is the seed's own."""
    factor = math.exp(0.1 * (seed % 3))
    return replace(
        ROW,
        regularizer=name,
        seed=seed,
        budget=BUDGET,
        metrics={"accuracy": ACCURACY[name]},
        nfe=NFE[name] * factor,
        seconds={"train": TRAIN[name] * factor, "predict": 0.1},
    )


ROWS = [row(name, seed) for name in NFE for seed in range(10, 20)]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without committed rows; ladders chose a weight of 1 for the biased penalty at a rate of 0.012."""
    monkeypatch.setattr(store, "COMMITTED", str(tmp_path))
    chosen = {"lr": 0.012, "regularizers": {"local_biased": {"weight": 1.0}}}
    monkeypatch.setattr(study, "chosen", lambda name: chosen if name == "mnist_ode" else {})
    return tmp_path


def commit(stage: str, rows: list[Row]) -> None:
    path = store.committed_path(stage, "mnist_ode")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(asdict(one)) for one in rows))


def rungs(line: str, costs: dict[float, float], seeds: tuple[int, ...] = (0, 1, 2)) -> list[Row]:
    made = [(weight, nfe, seed) for weight, nfe in costs.items() for seed in seeds]
    return [replace(row(line, seed), settings={"weight": weight}, nfe=nfe) for weight, nfe, seed in made]


# Local against global


def test_a_local_penalty_is_compared_with_the_global_one_in_pairs_of_one_seed(home: Path) -> None:
    biased, unbiased = against_global.compared(ROWS, "mnist_ode")
    assert (biased.ours.line, unbiased.ours.line) == ("local_biased", "local_unbiased")
    for effect, ratio in (
        (biased.evaluations, 1.1),
        (biased.training, 1.3),
        (biased.worse, 0.04 / 0.05),
        (unbiased.evaluations, 1.0),
        (unbiased.training, 0.9),
        (unbiased.worse, 0.06 / 0.05),
    ):
        assert effect is not None
        assert math.exp(effect.mean) == pytest.approx(ratio)
        assert effect.error < 1e-12  # the seeds' own factors are those of both sides


def test_the_sentence_counts_by_the_interval_of_each_comparison(home: Path) -> None:
    said = against_global.in_words(ROWS, ["mnist_ode"])
    assert (
        "**local, biased**: 1.10x of the global one's evaluations (fewer in 0 of 1, more in 1; where both keep the "
        "gain fewer in 0 of 1, more in 1), and 1.30x of its time of training (less in 0 of 1, more in 1)."
    ) in said
    assert (
        "**local, unbiased**: 1.00x of the global one's evaluations (fewer in 0 of 1, more in 0; where both keep the "
        "gain nowhere), and 0.90x of its time of training (less in 1 of 1, more in 0)."
    ) in said
    spread = [replace(one, nfe=one.nfe * (2.0 if one.seed % 2 else 0.6)) if one.regularizer == "local_biased" else one
              for one in ROWS]  # fmt: skip
    assert "evaluations (fewer in 0 of 1, more in 0; where" in against_global.in_words(spread, ["mnist_ode"])


def test_the_sentence_says_what_is_left_when_both_penalties_comparisons_are_corrected_as_one_family(home: Path) -> None:
    assert (
        "Corrected by Holm over all 4 of these comparisons of both local penalties, solved as trained: "
        "more evaluations in 1 and fewer in 0, more time of training in 1 and less in 1."
    ) in against_global.in_words(ROWS, ["mnist_ode"])
    assert (
        "it takes 1.00x to 1.10x of the global one's evaluations (fewer in 0 of 2, more in 1 by the interval of each; "
        "corrected by Holm fewer in 0, more in 1) and 0.90x to 1.30x of its time of training (corrected less in 1, "
        "more in 1; looked at when rows had been seen)"
    ) in against_global.in_short(ROWS, ["mnist_ode"])
    # Seeds that spread so that the interval of the biased penalty's evaluations alone is above 1, with the others not.
    spread = [
        replace(one, nfe=one.nfe * math.exp(0.116 * (-1) ** one.seed)) if one.regularizer == "local_biased" else one
        for one in ROWS
    ]
    effect = against_global.compared(spread, "mnist_ode")[0].evaluations
    assert effect is not None
    assert 0.05 / 2 < 2 * effect.above() < 0.05  # the third smallest of four
    said = against_global.in_words(spread, ["mnist_ode"])
    assert "fewer in 0 of 1, more in 1; where" in said
    assert "more evaluations in 0 and fewer in 0, more time of training in 1 and less in 1" in said


def test_each_in_its_chosen_way_is_compared_too_unless_a_seed_is_not_solved_so(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = ("midpoint", None, 1)
    monkeypatch.setattr(study, "chosen_ways", lambda name: {"local_biased": way, "global_error": way})
    entry = {"method": "midpoint", "tolerance": None, "steps": 1, "metric": 0.9, "seconds": 0.1, "failed": ""}
    own = entry | {"method": "tsit5", "tolerance": 1e-7, "steps": None, "nfe": 40.0}
    few = {"local_biased": 2.0, "global_error": 4.0}
    rows = [replace(one, ways=[own, entry | {"nfe": few.get(one.regularizer, 8.0)}]) for one in ROWS]
    biased, unbiased = against_global.compared(rows, "mnist_ode")
    assert biased.free is not None
    assert math.exp(biased.free.mean) == pytest.approx(0.5)
    assert unbiased.free is None  # it has no way
    assert "; each in the way chosen for it, 0.50x (fewer in 1 of 1, more in 0)." in against_global.in_words(
        rows, ["mnist_ode"]
    )
    unsolved = [
        replace(one, ways=[own]) if (one.regularizer, one.seed) == ("global_error", 12) else one for one in rows
    ]
    assert against_global.compared(unsolved, "mnist_ode")[0].free is None


def test_the_table_has_both_sides_with_their_weights_and_a_star_at_an_end_of_a_ladder(home: Path) -> None:
    biased, _ = against_global.table(ROWS, ["mnist_ode"]).to_dict("records")
    assert biased["weight"] == "1 (global not chosen)"
    assert biased["over global's"].startswith("1.10")
    assert biased["gain kept"].startswith("1.10 [")
    assert biased["gain kept"].endswith("kept (global 1.00 [1.00, 1.00]: kept)")
    assert biased["error"].startswith("-20.0 %")
    commit("ladders", rungs("local_biased", {0.1: 80.0, 1.0: 60.0}))
    assert against_global.table(ROWS, ["mnist_ode"])["weight"].iloc[0] == "1* (global not chosen)"
    commit("ladders", rungs("local_biased", {0.1: 80.0, 1.0: 60.0, 3.0: 50.0}))
    assert against_global.table(ROWS, ["mnist_ode"])["weight"].iloc[0] == "1 (global not chosen)"


def test_without_rows_of_the_global_penalty_nothing_is_said() -> None:
    without = [one for one in ROWS if one.regularizer != "global_error"]
    assert against_global.in_words(without, ["mnist_ode", "physionet"]) == ""
    assert against_global.in_short(without, ["mnist_ode", "physionet"]) == ""
    assert against_global.table(without, ["mnist_ode", "physionet"]).empty


# Ladders


def test_a_ladder_has_the_rows_of_the_chosen_rate_and_of_every_seed(home: Path) -> None:
    other = [replace(one, budget=BUDGET | {"lr": 0.006}) for one in rungs("global_error", {1.0: 50.0})]
    short = rungs("local_unbiased", {1.0: 50.0}, seeds=(0, 1))
    commit("ladders", [*rungs("local_biased", {1.0: 60.0, 0.1: 80.0}), *other, *short])
    found = ladders.rungs("mnist_ode")
    assert {line: list(of) for line, of in found.items()} == {"local_biased": [0.1, 1.0]}
    assert ladders.measured() == []  # no rows of vanilla yet
    commit("rates", [row(name, seed) for name in ("none", "no_dynamics") for seed in (0, 1, 2)])
    assert ladders.measured() == ["mnist_ode"]
    assert len(ladders.rows_of(["mnist_ode"])) == 12


def test_the_least_of_a_ladder_is_that_of_the_local_penalties(home: Path) -> None:
    assert ladders.least("mnist_ode") is None
    vanilla = [replace(row("none", seed), nfe=100.0) for seed in (0, 1, 2)]
    commit("rates", vanilla)
    commit("ladders", [*rungs("local_biased", {0.1: 80.0, 1.0: 60.0}), *rungs("global_error", {0.3: 20.0})])
    assert ladders.least("mnist_ode") == pytest.approx(0.6)
    assert list(ladders.weights("mnist_ode")) == ["local_biased"]  # the global one was tried with other weights


def test_the_picture_has_a_mark_for_each_weight_and_a_ring_at_the_choice(home: Path) -> None:
    commit("rates", [row(name, seed) for name in ("none", "no_dynamics") for seed in (0, 1, 2)])
    commit("ladders", [*rungs("local_biased", {0.1: 80.0, 1.0: 60.0}), *rungs("global_error", {0.3: 20.0})])
    fig = plots_study.ladders_of(Evidence("the study", tuple(ROWS), {"mnist_ode": len(ROWS)}))
    vanilla, biased, ring, other, _ = fig.axes[0].lines
    assert vanilla.get_ydata()[0] == 1.0
    assert list(biased.get_xdata()) == [80.0, 60.0]
    assert list(biased.get_ydata()) == pytest.approx([1.1, 1.1])
    assert list(ring.get_xdata()) == [60.0]
    assert list(other.get_xdata()) == [20.0]
    plt.close(fig)
    assert (
        plots_study.ladders_of(Evidence("the study", (), {"mnist_ode": 1})).axes[0].texts[0].get_text() == "no rows yet"
    )
    plt.close("all")


def test_the_studys_own_ladders_are_whole() -> None:
    """Every experiment whose study is complete has ladders of both local penalties and of the global one."""
    for name in evidence.study().complete():
        assert set(ladders.rungs(name)) == set(ladders.LINES)
        assert ladders.chosen_weight(name, "global_error") in ladders.rungs(name)["global_error"]
