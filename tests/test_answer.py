"""The study in sentences: what is said is what the rows hold, and what is missing is said to be missing."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from study_rows import ROWS, part, row

from reproduce.report import (
    answer,
    endpoints,
    ladders,
    minute,
    objections,
    study,
    study_tables,
)
from reproduce.report.effects import Effect
from reproduce.report.evidence import Evidence
from reproduce.runs import store
from reproduce.runs.registered import REGISTERED_IN


def test_the_answer_counts_experiments_that_reach_the_endpoints_and_names_those_still_to_come(chosen: None) -> None:
    short, equal, matched, printed, state, head = answer.paragraphs(part())  # no rows of the global penalty
    assert short == minute.in_a_minute(part())
    assert "40 of 170 rows" in state
    assert REGISTERED_IN[1] in state
    assert "Still to be trained: PhysioNet 2012" in state
    assert "in 1 of 1 experiments where dynamics matter (hoped for: 4; biased in 1, unbiased in 0)" in equal
    assert "missed" not in equal
    assert "in 1 of 1 experiments (hoped for: 3). No more than the penalized one takes vanilla itself in 0" in matched
    assert matched.endswith("a model with weight decay in 0 of 1 (gain kept in 0); neither in: MNIST, neural ODE.")
    assert head == minute.HEAD  # no stars
    assert printed.startswith("**The papers' 35 claims**")


def test_an_endpoint_that_is_missed_is_said_to_be_missed(chosen: None) -> None:
    dear = replace(part(), rows=tuple(replace(one, nfe=one.nfe + 60) for one in ROWS))
    assert "in 0 of 1 experiments where dynamics matter" in (said := answer.equal_tolerance(dear))
    assert re.search(r"missed in\n\n\* MNIST, neural ODE: biased 0\.\d\dx, unbiased [01]\.\d\dx$", said)
    worthless = [replace(one, metrics=ROWS[-1].metrics) if one.regularizer == "none" else one for one in ROWS]
    said = answer.equal_tolerance(replace(part(), rows=tuple(worthless)))
    assert "in 0 of 0 experiments where" in said
    assert "Not counted, since vanilla's gain over the control is not sure: MNIST, neural ODE." in said
    assert "not sure" not in answer.equal_tolerance(dear) + minute.in_short(dear).to_string()
    assert minute.in_short(replace(part(), rows=tuple(worthless)))["experiment"].item().endswith("is not sure)")


def test_a_way_that_some_seeds_do_not_solve_fails_and_its_experiment_stays_in_the_count(chosen: None) -> None:
    def without(line: str, n: int) -> Evidence:
        short = [
            replace(one, ways=[way for way in one.ways if way["steps"] is None])
            if one.regularizer == line and one.seed < 10 + n
            else one
            for one in ROWS
        ]
        return replace(part(), rows=tuple(short))

    assert "fails" not in minute.in_short(part())["both"].item()
    assert "in 0 of 1 experiments" in answer.matched_error(without("local_biased", 7))
    assert "7 of 10 seeds not solved: fails" in minute.in_short(without("local_biased", 7))["both"].item()
    assert "1 are not solved by every seed" in objections.objections(without("local_biased", 7))[2]
    said = answer.matched_error(without("local_biased", 10))
    assert "in 0 of 1 experiments" in said
    assert "one side solves no seed of: MNIST, neural ODE." in said


def test_a_star_marks_a_way_that_did_not_keep_the_gain_on_held_out_data(
    chosen: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "*)" not in minute.in_short(part()).to_string()
    of = study.chosen("mnist_ode")
    of["gains"]["none"]["held_out_gain"] = 0.9
    monkeypatch.setattr(study, "chosen", lambda name: of)
    assert (
        minute.in_short(part())["coarser solve alone"]
        .item()
        .endswith("]: 101 (tsit5 at 1e-07*), gain kept, error +0 %")
    )
    assert "A star: " in minute.lead(part())


@pytest.mark.parametrize(
    ("mean", "error", "text"),
    [
        (-0.4, 0.1, "0.67x [0.53, 0.84]"),
        (0.001, 0.0003, "1.0010x [1.0003, 1.0017]"),
        (-0.002, 0.0005, "0.998x [0.997, 0.999]"),
        (0.0, 0.0, "1.00x [1.00, 1.00]"),
        (float("nan"), float("nan"), "without a number in some seed"),
    ],
)
def test_an_interval_beside_one_is_not_written_as_one_that_touches_it(mean: float, error: float, text: str) -> None:
    assert study_tables.ratio_text(Effect(mean, error, 9)) == text


@pytest.mark.parametrize(
    ("metric", "mean", "text"),
    [
        ("accuracy", 0.1, "error +11 %"),
        ("mse", -0.1, "error -10 %"),
        ("log_likelihood", 0.3, "0.30 nats worse"),
        ("log_likelihood", -0.3, "0.30 nats better"),
    ],
)
def test_the_change_of_an_error_is_told_in_its_own_unit(metric: str, mean: float, text: str) -> None:
    saving = study.Saving("x", "y", None, 1.0, None, (1.0, 1.0, 1.0), "kept", Effect(mean, 0.1, 9), metric, 10)
    assert minute.error(saving) == text


def test_why_an_endpoint_is_missed_is_told_from_the_ladders(chosen: None, rowless: Path) -> None:
    dear = replace(part(), rows=tuple(replace(one, nfe=one.nfe + 60) for one in ROWS))
    assert "held-out data" not in answer.equal_tolerance(dear)  # no rows of ladders
    of_budget = {"rtol": 1e-7, "lr": 0.012}
    vanilla = [replace(row("none", seed), budget=of_budget) for seed in (0, 1, 2)]  # 101 in the mean
    other_rate = replace(row("none", 0), budget=of_budget | {"lr": 0.006}, nfe=1.0)
    rungs = [
        replace(row("local_biased", seed), budget=of_budget, settings={"weight": weight}, nfe=nfe)
        for weight, nfe in ((0.1, 80.8), (1.0, 60.6))
        for seed in (0, 1, 2)
    ]
    for stage, rows in (("rates", [*vanilla, other_rate]), ("ladders", rungs)):
        path = store.committed_path(stage, "mnist_ode")
        path.parent.mkdir(parents=True)
        path.write_text("\n".join(json.dumps(asdict(one)) for one in rows))
    assert ladders.least("mnist_ode") == pytest.approx(0.6)
    said = answer.equal_tolerance(dear)
    assert "; least on held-out data 0.60x" in said
    assert "In 1 of 1 no weight" in said


def test_what_hangs_on_the_reading_of_the_protocol_is_said(chosen: None) -> None:
    """A penalized model that is worse on the examples of its curves, and in no way worse than in its own."""
    unlucky = [
        replace(one, ways=[{**way, "metric": way["metric"] - 0.2} for way in one.ways])
        if one.regularizer == "local_biased"
        else one
        for one in ROWS
    ]
    of = replace(part(), rows=tuple(unlucky))
    assert (endpoints.matched_error(of).count(), endpoints.other_readings(of)) == ("1 of 1", "0 to 1")
    assert endpoints.other_readings(part()) == ""
    assert "by the fewer alone the ratio is reached in 0 of 1 instead of 1 of 1. " in objections.objections(of)[2]
    assert "in **1 of 1** (hoped for: 3; by other readings of what the protocol leaves open in 0 to 1)" in (
        minute.goals(of)
    )


def test_an_incomplete_experiment_enters_no_sentence(chosen: None) -> None:
    assert len(answer.paragraphs(part("mnist_odenone10"))) == 1
    assert minute.in_short(part("mnist_odenone10")).empty


def test_the_penalty_that_is_compared_is_the_one_that_the_held_out_data_chose(chosen: None) -> None:
    found = study.chosen_line("mnist_ode", study.PENALIZED)  # the unbiased one is cheaper and keeps too little
    assert found == "local_biased"
    [line] = minute.in_short(part()).to_dict("records")
    assert line["vanilla"] == "101"
    assert line["penalty alone (local, biased)"].startswith("**0.41x** [")
    assert line["both"].startswith("**0.02x** [")
    assert "]: local, biased, 2 (midpoint, 1 step), gain kept" in line["both"]


def test_the_objections_count_what_weighs_against_the_report(chosen: None) -> None:
    penalty, size, choice = objections.objections(part())
    assert "in 0 of 1 experiments." in penalty
    assert objections.rates_at_an_end() == ["MNIST, neural ODE"]  # 0.012 is the largest that was tried
    assert "in 1 of 8 experiments (MNIST, neural ODE)" in size
    assert "Of 2 chosen ways, vanilla's among them, 2 keep the gain on the test part, 0 lose it, 0 are" in choice
    assert "when 40 rows of the study had been made" in choice
    assert "the ratio is reached in 1 of 1;" in choice
    assert "by the fewer alone the ratio is reached in 1 of 1 instead of 1 of 1. Where it is reached" in choice
    cheap = [
        replace(one, ways=[{**way, "nfe": min(way["nfe"], 2.0)} for way in one.ways])
        if one.regularizer == "none"
        else one
        for one in ROWS
    ]
    assert "in 1 of 1 experiments: MNIST" in objections.objections(replace(part(), rows=tuple(cheap)))[0]
