"""The tables and lines that a reader takes home: what each way to save brings, and which endpoints are reached."""

from __future__ import annotations

from dataclasses import replace

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from study_rows import ROWS, part, row

from reproduce.plots import minute as plots_minute
from reproduce.report import endpoints, first_step, front, minute, tables
from reproduce.report.study import Saving
from reproduce.runs.registered import REGISTERED_IN


def ways(*more: str) -> dict[str, dict[str, str]]:
    extra = tuple(replace(row("local_biased", seed), regularizer=name) for name in more for seed in range(10, 20))
    table = minute._ways_to_save(replace(part(), rows=(*ROWS, *extra)))
    return {line["what is changed"]: line for line in table.to_dict("records")}


def test_each_way_to_save_has_a_line_and_the_global_penalty_one_where_it_was_trained(chosen: None) -> None:
    found = ways()
    assert [line["evaluations"] for line in found.values()] == [
        "**0.41x** of vanilla's",
        "**1.00x** of vanilla's as it was trained",
        "**0.02x** of vanilla's coarser solve",
    ]
    assert {line["gain kept in"] for line in found.values()} == {"1 of 1"}
    assert [line["worst error"] for line in found.values()] == ["+0 %", "+0 %", "+2 %"]
    assert ways("global_error")["the global penalty on the error, solved as it was trained"]["evaluations"] == (
        "**0.41x** of vanilla's"
    )


def test_a_minute_says_first_what_a_coarser_solve_brings_and_what_the_penalty_adds(chosen: None) -> None:
    said = minute.in_a_minute(part())
    assert "saves more than the penalty in 0 of 1 experiments (gain kept in 0 of these)" in said
    assert "adds to it, by its interval, in 1 (gain kept in 1). Without a penalty, plain or with weight decay, " in said
    assert "evaluations than the penalized one in 0 of 1, with the gain kept in 0; it takes more in: MNIST" in said
    cheap = tuple(
        replace(one, ways=[way | {"nfe": min(way["nfe"], 2.0)} for way in one.ways])
        if one.regularizer == "none"
        else one
        for one in ROWS
    )
    said = minute.in_a_minute(replace(part(), rows=cheap))
    assert "saves more than the penalty in 1 of 1 experiments (gain kept in 1 of these)" in said
    assert "by its interval, in 0 (gain kept in 0)" in said
    assert "the penalized one in 1 of 1, with the gain kept in 1. Ratios" in said


def test_nothing_is_said_of_an_experiment_that_is_not_complete_or_whose_chosen_way_fails(chosen: None) -> None:
    unsolved = tuple(
        replace(one, ways=[way for way in one.ways if way["steps"] is None])
        if one.regularizer == "local_biased"
        else one
        for one in ROWS
    )
    for nothing in (part("mnist_odenone10"), replace(part(), rows=unsolved)):
        assert minute.in_a_minute(nothing) == ""
        assert minute.in_short(nothing).empty


def test_the_picture_has_four_marks_for_each_experiment_hollow_where_the_gain_is_not_surely_kept(chosen: None) -> None:
    lost = tuple(replace(one, metrics=ROWS[-1].metrics) if one.regularizer == "local_biased" else one for one in ROWS)
    for rows, filled in ((ROWS, [True] * 4), (lost, [True, False, True, False])):
        evidence = replace(part(), rows=tuple(rows))
        found = minute.marks(evidence)
        assert [(mark.penalty, mark.coarse) for mark in found] == [(0, 0), (1, 0), (0, 1), (1, 1)]
        assert [mark.kept for mark in found] == filled
        assert [mark.evaluations for mark in found] == pytest.approx([101.0, 41.0, 101.0, 2.0])
        fig = plots_minute.in_a_minute(evidence)
        drawn = [line for line in fig.axes[0].lines if line.get_marker() != "None"]
        assert [line.get_xdata()[0] for line in drawn] == [mark.evaluations for mark in found]
        assert [line.get_markerfacecolor() != "white" for line in drawn] == filled
        plt.close(fig)
    fig = plots_minute.in_a_minute(part("mnist_odenone10"))
    assert [text.get_text() for text in fig.axes[0].texts] == ["no rows yet"]
    plt.close(fig)


def saving(name: str, line: str, mean: float, cost: str) -> Saving:
    effect = minute.study.effects.mean_effect([mean, mean + 1e-3])
    return Saving(name, line, None, 1.0, effect, (1.0, 1.0, 1.0), cost, None, "accuracy", 2)


def test_an_endpoint_is_reached_by_a_line_with_so_small_a_ratio_that_keeps_the_gain() -> None:
    found = endpoints.Endpoint(
        0.5,
        2,
        {
            "mnist_ode": [saving("a", "local_biased", -0.1, "kept"), saving("a", "local_unbiased", -1.0, "kept")],
            "physionet": [saving("b", "local_biased", -1.0, "lost")],
            "spiral_ode": [],
        },
        ["cifar10_ode"],
    )
    assert found.reached() == found.reached("local_unbiased") == ["mnist_ode"]
    assert found.reached("local_biased") == []
    assert found.count() == "1 of 3"
    assert found.not_counted().endswith("is not sure: CIFAR-10, neural ODE.")
    assert replace(found, apart=()).not_counted() == ""


def test_the_goals_are_counted_as_the_answer_counts_them(chosen: None, monkeypatch: pytest.MonkeyPatch) -> None:
    said = minute.goals(part())
    assert "at equal tolerance in **1 of 1** experiments where vanilla's gain is sure (hoped for: 4)" in said
    assert said.endswith("freedom to solve on both sides in **1 of 1** (hoped for: 3).")  # no chosen first steps
    stepped = endpoints.Endpoint(0.5, 2, {"mnist_ode": [], "digits_cnf": []})
    monkeypatch.setattr(first_step, "endpoint", lambda part: stepped)
    assert "first step in **0 of 2** that were measured (hoped for: 2; a further question, registered in commit " in (
        said := minute.goals(part())
    )
    assert REGISTERED_IN[2] in said


def test_tables_of_the_front_are_not_wrapped() -> None:
    table = tables.markdown(pd.DataFrame({"a": ["x" * 60], "b": ["y " * 60], "c": ["z " * 30]}))
    text = f"{'word ' * 60}\n\n{table}"
    wrapped = front._wrapped(text).split("\n\n")
    assert wrapped[1] == table
    assert max(map(len, wrapped[0].splitlines())) <= 130
