"""The study read from rows: savings at equal tolerance and at matched error, recomputed by hand."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from rows import ROW
from scipy import stats
from study_rows import broken

from reproduce import checkout
from reproduce.plots.study import gain_against_cost
from reproduce.report import study, study_tables, verdicts
from reproduce.report.verdicts import COST, NOT_RUN
from reproduce.runs.store import Row

SEEDS = range(10, 20)
TIGHT, LOOSE, FEW = ("tsit5", 1e-7, None), ("tsit5", 0.1, None), ("midpoint", None, 1)
Curve = dict[tuple[str, float | None, int | None], tuple[float, float]]


def row(line: str, seed: int, accuracy: float, curve: Curve) -> Row:
    """A row with its metric on all images, and a curve on a part of them, where the metric is a little lower."""
    entries = [
        {
            "method": m,
            "tolerance": t,
            "steps": n,
            "metric": accuracy - 0.01 + moved,
            "nfe": nfe,
            "seconds": 1.0,
            "failed": "",
        }
        for (m, t, n), (moved, nfe) in curve.items()
    ]
    own = curve.get(TIGHT, (0.0, 0.0))[1]
    return replace(
        ROW,
        key=f"{line}{seed}",
        regularizer=line,
        seed=seed,
        budget={"method": "tsit5", "rtol": 1e-7, "fixed_steps": None},
        metrics={"accuracy": accuracy},
        nfe=own,
        ways=entries,
    )


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    rng, found = np.random.default_rng(0), []
    for seed in SEEDS:
        noise = rng.normal(0, 0.001, 3)
        found.append(
            row("none", seed, 0.95 + noise[0], {TIGHT: (0.0, 80.0 + seed), LOOSE: (-0.001, 14.0), FEW: (-0.02, 2.0)})
        )
        found.append(row("no_dynamics", seed, 0.91 + noise[1], {("none", None, None): (0.0, 0.0)}))
        found.append(
            row("local_biased", seed, 0.95 + noise[2], {TIGHT: (0.0, 32.0), LOOSE: (0.0, 14.0), FEW: (-0.001, 2.0)})
        )
    return found


def test_equal_tolerance_compares_seed_by_seed_at_the_tolerance_of_training(rows: list[Row]) -> None:
    (saving,) = study.equal_tolerance(rows, "mnist_ode")
    logs = [math.log(32.0 / (80.0 + seed)) for seed in SEEDS]
    assert saving.ratio is not None
    assert saving.ratio.mean == pytest.approx(np.mean(logs))
    assert saving.ratio.error == pytest.approx(stats.sem(logs))
    assert (saving.cost, saving.evaluations, saving.seeds) == (COST[0], 32.0, 10)
    assert saving.reached(0.5)
    assert not saving.reached(0.3)


def test_a_line_that_is_trained_in_another_way_is_not_compared_at_equal_tolerance(rows: list[Row]) -> None:
    loose = [replace(r, regularizer=f"{r.regularizer}:loose", budget={**r.budget, "rtol": 0.01}) for r in rows[2::3]]
    assert [saving.line for saving in study.equal_tolerance([*rows, *loose], "mnist_ode")] == ["local_biased"]


def test_matched_error_solves_each_line_in_its_own_way_and_asks_both_for_the_gain(rows: list[Row]) -> None:
    ways = {"none": LOOSE, "local_biased": FEW}
    found = {saving.line: saving for saving in study.matched_error(rows, "mnist_ode", ways)}
    assert math.exp(found["local_biased"].ratio.mean) == pytest.approx(2 / 14)  # type: ignore[union-attr]
    assert math.exp(found["none"].ratio.mean) == 1.0  # type: ignore[union-attr]
    assert found["none"].kept[0] == pytest.approx(1 - 0.001 / 0.04, abs=0.01)
    greedy = {
        saving.line: saving for saving in study.matched_error(rows, "mnist_ode", {"none": FEW, "local_biased": FEW})
    }
    assert greedy["none"].cost == COST[1]  # a midpoint step ruins vanilla: half of its gain is gone
    assert greedy["local_biased"].cost == COST[0]


def test_the_gain_by_hand_is_that_of_the_paired_test(rows: list[Row]) -> None:
    (saving,) = study.equal_tolerance(rows, "mnist_ode")
    of = {
        name: np.array([r.metrics["accuracy"] for r in rows if r.regularizer == name])
        for name in {r.regularizer for r in rows}
    }
    lost = of["none"] - of["local_biased"] - 0.05 * (of["none"] - of["no_dynamics"])
    test = stats.ttest_1samp(lost, 0.0, alternative="less")
    assert (2 * test.pvalue < 0.05) == (saving.cost == COST[0])
    share = (of["local_biased"] - of["no_dynamics"]).mean() / (of["none"] - of["no_dynamics"]).mean()
    assert saving.kept[0] == pytest.approx(share)
    assert saving.kept[1] < share < saving.kept[2]


def test_a_way_that_no_row_has_measured_gives_no_saving(rows: list[Row]) -> None:
    assert study.matched_error(rows, "mnist_ode", {"none": LOOSE, "local_biased": ("rk4", None, 16)})[0].line == "none"
    assert study.matched_error(rows, "mnist_ode", {"local_biased": FEW}) == []


def test_the_ledger_reads_the_rows_and_says_what_was_not_run(rows: list[Row]) -> None:
    given = {(one.claim.id, one.form): one for one in study.ledger(rows)}
    assert given["C06", "ours"].direction == verdicts.DIRECTION[0]
    assert given["C06", "ours"].agreement == verdicts.AGREEMENT[0]  # 0.38x, where 0.602x is printed
    assert given["C06", "released"].direction == NOT_RUN
    assert given["C14", "ours"].direction == NOT_RUN
    worse = given["C06", "ours"].parts[0].worse
    assert worse is not None
    assert abs(worse.mean) < 0.1  # the error itself hardly changes


def test_of_a_training_that_broke_off_no_verdict_is_read_and_every_other_one_stays(rows: list[Row]) -> None:
    gone = [broken(one) if (one.regularizer, one.seed) == ("local_biased", 14) else one for one in rows]
    (saving,) = study.equal_tolerance(gone, "mnist_ode")
    assert (saving.seeds, saving.failed, saving.verdict) == (9, 1, "1 of 10 seeds broke off: fails")
    assert saving.evaluations == 32.0
    assert not saving.reached(0.5)
    (vanilla, ours) = study.matched_error(gone, "mnist_ode", {"none": LOOSE, "local_biased": FEW})
    assert (vanilla.verdict, ours.verdict) == (COST[0], "1 of 10 seeds not solved: fails")
    given = {(one.claim.id, one.form): one for one in study.ledger(gone)}
    of = given["C06", "ours"]
    assert (of.direction, of.agreement, of.cost) == (verdicts.DIRECTION[2], verdicts.AGREEMENT[3], COST[2])
    assert "without a number in some seed" in study_tables.cell(of)
    (whole,) = study.equal_tolerance(rows, "mnist_ode")
    assert whole.reached(0.5), "as it would be without"


@pytest.mark.parametrize("reference", ["none", "no_dynamics"])
def test_where_the_reference_broke_off_in_one_seed_no_line_is_judged_by_the_others(
    rows: list[Row], reference: str
) -> None:
    gone = [broken(one) if (one.regularizer, one.seed) == (reference, 14) else one for one in rows]
    (saving,) = study.equal_tolerance(gone, "mnist_ode")
    assert (saving.cost, saving.reached(0.5)) == (COST[2], False)
    (_, ours) = study.matched_error(gone, "mnist_ode", {"none": LOOSE, "local_biased": FEW})
    assert (ours.cost, ours.reached(0.5)) == (COST[2], False)


def test_where_vanillas_way_does_not_solve_one_seed_no_line_is_compared_with_the_others(rows: list[Row]) -> None:
    def unsolved(one: Row) -> Row:
        return replace(one, ways=[{**way, "metric": None} if study.name(way) == LOOSE else way for way in one.ways])

    ways = {"none": LOOSE, "local_biased": FEW}
    assert study.matched_error(rows, "mnist_ode", ways)[1].reached(0.5)
    gone = [unsolved(one) if (one.regularizer, one.seed) == ("none", 14) else one for one in rows]
    (vanilla, ours) = study.matched_error(gone, "mnist_ode", ways)
    assert (vanilla.verdict, vanilla.evaluations) == ("1 of 10 seeds not solved: fails", 14.0)
    assert not ours.reached(0.5)
    assert list(study_tables.savings([ours])["over vanilla's"]) == ["without a number in some seed"]


def test_without_choices_no_line_has_a_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkout, "ROOT", tmp_path)
    assert study.chosen_ways("mnist_ode") == {}
    assert study.chosen_line("mnist_ode", study.PENALIZED) is None


# For readers


def test_the_tables_say_ratio_interval_gain_and_verdict_of_each_form(rows: list[Row]) -> None:
    judged = study.ledger(rows)
    ledger = study_tables.ledger(judged)
    (line,) = ledger[ledger["id"] == "C06"].to_dict("records")
    said = r"\*\*below 1\*\*, better than printed, gain kept: 0\.3\dx \[0\.3\d, 0\.3\d\], kept [\d.]+ \[[\d., ]+\]"
    assert re.fullmatch(said, line["our form"]), "and no power, for it is decided"
    assert line["the papers' code"] == NOT_RUN
    head = study_tables.head(judged).set_index("form")
    assert "below 1" in head.loc["our form", "direction"]
    assert head.loc["the papers' code", NOT_RUN] == head.loc["the papers' code", "claims"]


def test_an_undecided_claim_says_what_such_rows_would_have_found(rows: list[Row]) -> None:
    rng = np.random.default_rng(1)
    wide = [replace(r, nfe=r.nfe * math.exp(rng.normal(0.9, 2.0))) if r.regularizer != "none" else r for r in rows]
    judged = study.ledger(wide)
    (one,) = [one for one in judged if (one.claim.id, one.form) == ("C06", "ours")]
    assert one.direction == verdicts.DIRECTION[2]
    left = sum(other.direction not in verdicts.DIRECTION[:2] for other in judged)  # what Holm has not refuted
    found = re.search(r"would have found (0\.\d+)x", study_tables.cell(one))
    assert found
    error = stats.sem([math.log(a.nfe / b.nfe) for a, b in zip(wide[2::3], wide[0::3], strict=True)])
    hand = math.exp(-error * (stats.t.ppf(1 - 0.05 / left / 2, 9) + stats.t.ppf(0.8, 9)))
    assert float(found[1]) == pytest.approx(hand, abs=0.005)


def test_savings_name_the_way_that_each_line_is_solved_in(rows: list[Row]) -> None:
    table = study_tables.savings(study.matched_error(rows, "mnist_ode", {"none": LOOSE, "local_biased": FEW}))
    assert list(table["solved by"]) == ["tsit5 at 0.1", "midpoint, 1 step"]
    assert list(table["verdict"]) == ["kept", "kept"]


def test_the_frontier_keeps_what_is_better_than_everything_cheaper(rows: list[Row]) -> None:
    points = study.points(rows, "mnist_ode", "none")
    assert [point.evaluations for point in points] == sorted(point.evaluations for point in points)
    best = study.frontier(points)
    assert [point.way for point in best] == [FEW, LOOSE, TIGHT]
    assert all(a.kept[0] < b.kept[0] for a, b in pairwise(best))
    few = replace(points[0], evaluations=1.0, seconds=9.0, kept=(0.9, 0.8, 1.0))
    quick = replace(points[0], evaluations=2.0, seconds=0.1, kept=(0.8, 0.7, 0.9))
    assert study.frontier([few, quick]) == [few]
    assert study.frontier([few, quick], "seconds") == [quick, few]
    ax = gain_against_cost(rows, "mnist_ode", ["none", "local_biased"], ax=plt.figure().add_subplot())
    assert len(ax.get_legend_handles_labels()[1]) == 2
    plt.close(ax.figure)
