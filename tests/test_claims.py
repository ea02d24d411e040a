"""The claims ledger: intervals are honest, verdicts follow the written rule, and missing rows are never passed over."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from reproduce.report import claims, ratios, tables
from reproduce.report.claims import DIRECTION, FAILS, HOLDS, NOT_RUN, Claim
from reproduce.report.evidence import OWN, Evidence, Wanted
from reproduce.report.ratios import ratio_of_means
from reproduce.runs.store import Row

RULES = claims.book()
CLAIM = Claim("C0", "fewer", "nowhere", "nfe", 0.6, {"mnist_ode": ["local_biased"]})
NUMBERS: dict[str, Any] = {"accepted": 6.0, "rejected": 0.0, "train_nfe": 40.0, "n_test": 10}
RUNS: dict[str, tuple[float, float, float]] = {  # (NFE, accuracy, seconds)
    "none": (100.0, 0.95, 0.10),
    "local_biased": (50.0, 0.95, 0.05),
    "no_dynamics": (0.0, 0.85, 0.01),
}
JITTER = (-1.0, 0.0, 1.0)


def row(name: str, seed: int, **changes: Any) -> Row:
    """A row whose NFE, accuracy and times differ a little from seed to seed."""
    nfe, accuracy, seconds = changes.pop("of", RUNS[name])
    accuracy += 1e-3 * JITTER[seed]
    given: dict[str, Any] = {
        "key": f"{name}{seed}",
        "experiment": "mnist_ode",
        "regularizer": name,
        "settings": {},
        "seed": seed,
        "profile": "quick",
        "part": "test",
        "budget": {"rtol": 1e-7},
        "data": "ten digits",
        "note": "",
        "metric": "accuracy",
        "higher_is_better": True,
        "metrics": {"accuracy": accuracy, "train_accuracy": accuracy},
        "nfe": nfe + (JITTER[seed] if nfe else 0.0),
        "seconds": {"predict": seconds * (1 + 0.01 * JITTER[seed]), "train": 100 * seconds},
        **NUMBERS,
        **changes,
    }
    return Row(**given)


def evidence(rows: list[Row], *, seeds: int = 3, profile: str = "quick", absent: tuple[str, ...] = ()) -> Evidence:
    """The evidence of a profile that lists every name of RUNS (but `absent`) with `seeds` seeds at each tolerance."""
    tolerances = sorted({row.tolerance for row in rows}) or [1e-7]
    wanted = tuple(
        Wanted("mnist_ode", name, seed, tolerance, "", f"{name}{seed}{tolerance}")
        for tolerance in tolerances
        for name in RUNS
        if name not in absent
        for seed in range(seeds)
    )
    of = {(row.regularizer, row.seed, row.tolerance): row for row in rows}
    return Evidence(profile, OWN, wanted, tuple(of.get((run.regularizer, run.seed, run.tolerance)) for run in wanted))


def everything(**of: tuple[float, float, float]) -> list[Row]:
    return [row(name, seed, of=of.get(name, RUNS[name])) for name in RUNS for seed in range(3)]


def judge(part: Evidence, claim: Claim = CLAIM) -> tuple[str, str]:
    judgement = claims.judge(claim, part, RULES)
    return judgement.verdict, judgement.findings[0].text()


# Ratios and their intervals


def test_an_interval_covers_the_true_ratio_as_often_as_it_says() -> None:
    rng, n = np.random.default_rng(0), 2000
    covered = 0
    for _ in range(n):
        found = ratio_of_means((20 + rng.normal(size=3)).tolist(), (40 + 3 * rng.normal(size=4)).tolist())
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0.5 <= found.high
    assert covered / n >= ratios.LEVEL - 3 * math.sqrt(ratios.LEVEL * (1 - ratios.LEVEL) / n)
    assert covered / n <= 0.99  # and is not so wide that it covers everything


def test_an_interval_is_the_formula_worked_out_by_hand() -> None:
    ours, vanilla = [19.0, 20.0, 21.0], [38.0, 40.0, 42.0]  # variances 1 and 4; both give 1 / 1200 on the logarithm
    half = stats.t.ppf(0.975, 4) * math.sqrt(2 / 1200)
    found = ratio_of_means(ours, vanilla)
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5 * math.exp(-half), 0.5 * math.exp(half)))


def test_the_interval_of_the_inverse_is_the_inverse_of_the_interval() -> None:
    one, other = ratio_of_means([1.0, 1.2], [3.0, 3.1, 2.8]), ratio_of_means([3.0, 3.1, 2.8], [1.0, 1.2])
    assert one is not None
    assert other is not None
    turned = one.inverse()
    assert (turned.value, turned.low, turned.high) == pytest.approx((other.value, other.low, other.high))


def test_a_single_seed_has_no_interval_and_equal_seeds_have_a_point() -> None:
    one = ratio_of_means([20.0], [40.0, 41.0])
    assert one is not None
    assert (one.low, one.high) == (None, None)
    equal = ratio_of_means([20.0, 20.0], [40.0, 40.0])
    assert equal is not None
    assert equal.low == equal.value == equal.high == 0.5
    assert ratio_of_means([], [40.0]) is None
    assert ratio_of_means([20.0], [0.0]) is None


def test_rows_of_different_data_sets_or_devices_are_never_compared() -> None:
    for change in ({"data": "other digits"}, {"made_of": {"device": "cuda"}}):
        part = evidence([replace(one, **change) if one.regularizer == "none" else one for one in everything()])
        with pytest.raises(ValueError, match="cannot be compared"):
            ratios.compare(part, "mnist_ode", "local_biased", 1e-7)


# Verdicts


@pytest.mark.parametrize(
    ("ours", "verdict", "word"),
    [
        ((50.0, 0.95, 0.05), HOLDS, "0.50x"),
        ((59.0, 0.95, 0.05), DIRECTION, "0.59x"),  # its interval reaches beyond 0.6
        ((80.0, 0.95, 0.05), DIRECTION, "0.80x"),
        ((99.0, 0.95, 0.05), FAILS, "the interval reaches 1"),
        ((120.0, 0.95, 0.05), FAILS, "not better than vanilla"),
        ((50.0, 0.94, 0.05), DIRECTION, "too little of the gain"),  # 90 %
        ((50.0, 0.89, 0.05), FAILS, "too little of the gain"),  # 40 %
    ],
)
def test_the_verdict_is_the_written_rule(ours: tuple[float, float, float], verdict: str, word: str) -> None:
    found, text = judge(evidence(everything(local_biased=ours)))
    assert found == verdict
    assert word in text


def test_a_speed_is_judged_in_its_own_direction() -> None:
    part = evidence(everything())  # twice as fast
    for published, verdict in ((1.9, HOLDS), (2.1, DIRECTION)):
        claim = replace(CLAIM, measure="predict", published=published)
        found, text = judge(part, claim)
        assert found == verdict
        assert "2.00x" in text
    slower = evidence(everything(local_biased=(50.0, 0.95, 0.2)))
    assert judge(slower, replace(CLAIM, measure="predict", published=1.9))[0] == FAILS


def test_one_seed_bears_a_claim_at_most_in_direction() -> None:
    one = [one for one in everything() if one.seed == 0]
    verdict, text = judge(evidence(one, seeds=1))
    assert verdict == DIRECTION
    assert text == "0.49x, gain kept 1.00, seeds 1, tolerance 1e-07; one seed, no interval"
    worse = [one for one in everything(local_biased=(110.0, 0.95, 0.05)) if one.seed == 0]
    assert judge(evidence(worse, seeds=1))[0] == FAILS


@pytest.mark.parametrize("name", list(RUNS))
def test_a_missing_row_is_said_and_no_claim_holds_without_it(name: str) -> None:
    assert judge(evidence(everything()))[0] == HOLDS
    verdict, text = judge(evidence([one for one in everything() if (one.regularizer, one.seed) != (name, 2)]))
    assert verdict == DIRECTION
    assert "2 of 3" in text
    assert "seeds missing" in text


@pytest.mark.parametrize("name", list(RUNS))
def test_without_any_row_of_ours_of_vanilla_or_of_the_control_there_is_no_verdict(name: str) -> None:
    rows = [one for one in everything() if one.regularizer != name]
    assert judge(evidence(rows))[0] == NOT_RUN
    assert judge(evidence(rows, absent=(name,)))[0] == NOT_RUN


def test_a_smoke_run_and_a_stand_in_give_no_verdict() -> None:
    assert judge(evidence(everything(), profile="smoke"))[0] == NOT_RUN
    stand_in = [replace(one, data="a stand-in for digits") for one in everything()]
    verdict, text = judge(evidence(stand_in))
    assert verdict == NOT_RUN
    assert "stand-in" in text


def test_rows_of_quick_give_the_paper_profile_no_verdict() -> None:
    quick, paper = evidence(everything()), evidence([], profile="paper")
    assert judge(quick)[0] == HOLDS
    assert judge(paper)[0] == NOT_RUN


def test_where_vanilla_gains_nothing_over_the_control_nothing_is_kept_and_no_claim_holds() -> None:
    for control in (0.95, 0.97):  # as good as vanilla, and better
        verdict, text = judge(evidence(everything(no_dynamics=(0.0, control, 0.01))))
        assert verdict == DIRECTION
        assert "vanilla gains nothing" in text


def test_a_claim_may_ask_for_the_error_instead_of_the_gain() -> None:
    claim = replace(CLAIM, keeps="error")
    rows = [one for one in everything() if one.regularizer != "no_dynamics"]
    assert judge(evidence(rows, absent=("no_dynamics",)), claim)[0] == HOLDS
    worse = everything(local_biased=(50.0, 0.947, 0.05))  # by three of vanilla's standard deviations
    assert judge(evidence(worse), claim)[0] == FAILS


def test_the_tolerance_nearest_to_the_published_one_decides_even_when_its_rows_are_missing() -> None:
    assert RULES.tolerances["mnist_ode"] < 1e-7
    loose = [replace(one, budget={"rtol": 1e-5}, nfe=2 * one.nfe) for one in everything()]
    both = evidence([*everything(), *loose])
    assert "tolerance 1e-07" in judge(both)[1]
    tight_gone = replace(
        both, rows=tuple(None if one is not None and one.tolerance == 1e-7 else one for one in both.rows)
    )
    assert judge(tight_gone)[0] == NOT_RUN


def test_a_claim_on_all_is_as_good_as_its_worst_part_and_a_claim_on_any_as_its_best() -> None:
    names = ["local_biased", "no_dynamics"]  # the control has no ratio
    part = evidence(everything())
    of_all = replace(CLAIM, parts={"mnist_ode": names})
    assert judge(part, of_all)[0] == NOT_RUN
    assert judge(part, replace(of_all, combine="any"))[0] == HOLDS
    worse = evidence(everything(local_biased=(120.0, 0.95, 0.05)))
    assert judge(worse, of_all)[0] == FAILS  # whatever the other part would say


def test_a_claim_that_cannot_be_judged_is_refused() -> None:
    for change in ({"measure": "luck"}, {"published": -1.0}, {"parts": {}}, {"combine": "most"}):
        with pytest.raises(ValueError, match="claim C0"):
            replace(CLAIM, **change)


# The book


def test_every_published_claim_of_the_reference_is_in_the_ledger() -> None:
    for experiment, content in tables.published().items():
        asked = set(content.get("claims", {}).values())
        if experiment == "abstract_claims":
            asked = {*content["nfe_ratio"], *content["predict_speedup"]}
            found = {claim.published for claim in RULES.claims if "abstract" in claim.source}
        else:
            found = {claim.published for claim in RULES.claims if list(claim.parts) == [experiment]}
        assert asked <= found, experiment


TIMES = ("train_hours", "train_seconds", "train_seconds_per_batch")


@pytest.mark.parametrize(
    "claim", [claim for claim in RULES.claims if "abstract" not in claim.source], ids=lambda c: c.id
)
def test_every_claim_on_a_table_agrees_with_the_published_table(claim: Claim) -> None:
    [(experiment, regularizers)] = claim.parts.items()
    rows = tables.published()[experiment]["rows"]
    keys = {"nfe": ("nfe",), "predict": ("predict_seconds",), "train": TIMES}[claim.measure]
    found = []
    for name in regularizers:
        row = rows["global_both" if name == "global_error+global_stiffness" else name]
        [key] = [key for key in keys if key in row]
        ratio = row[key][0] / rows["vanilla"][key][0]
        found.append(ratio if claim.measure == "nfe" else 1 / ratio)
    worst = max(found) if claim.measure == "nfe" else min(found)
    assert worst == pytest.approx(claim.published, rel=0.01)


def test_the_rules_in_words_hold_the_numbers_that_the_verdicts_use() -> None:
    assert "95%" in RULES.verdicts[HOLDS]
    assert "50%" in RULES.verdicts[DIRECTION]
    assert RULES.numbers["level"] == ratios.LEVEL


# The project's own goal


def test_the_goal_takes_the_best_local_line_and_says_what_was_not_run() -> None:
    found = {line.experiment: line for line in claims.goal(RULES, evidence(everything()))}
    assert len(found) == 5
    assert found["mnist_ode"].verdict == "reached"
    assert (found["mnist_ode"].regularizer, found["mnist_ode"].nfe) == ("local_biased", pytest.approx(0.5))
    assert found["physionet"].verdict == NOT_RUN
    slow = claims.goal(RULES, evidence(everything(local_biased=(50.0, 0.95, 0.09))))
    assert {line.experiment: line.verdict for line in slow}["mnist_ode"] == "not reached"


def test_the_goal_is_not_reached_by_an_incomplete_line() -> None:
    part = evidence([one for one in everything() if (one.regularizer, one.seed) != ("local_biased", 0)])
    [line] = [line for line in claims.goal(RULES, part) if line.experiment == "mnist_ode"]
    assert line.verdict == "not reached"
    assert line.seeds == "2 of 3"


def test_a_variant_reaches_the_goal_against_its_own_vanilla_and_enters_no_verdict_on_a_claim() -> None:
    main = evidence(everything(local_biased=(90.0, 0.95, 0.09)))
    closed = everything(none=(200.0, 0.96, 0.20), local_biased=(80.0, 0.96, 0.08))
    wanted = tuple(Wanted(one.experiment, one.regularizer, one.seed, 1e-7, "closed box", one.key) for one in closed)
    both = Evidence("quick", OWN, (*main.wanted, *wanted), (*main.rows, *closed))
    [line] = [line for line in claims.goal(RULES, both) if line.experiment == "mnist_ode"]
    assert (line.variant, line.verdict, line.nfe) == ("closed box", "reached", pytest.approx(80 / 200))
    assert judge(both) == judge(main)


def test_the_goal_is_not_reached_by_one_seed() -> None:
    first = [one for one in everything() if one.seed == 0]
    wanted = tuple(Wanted(one.experiment, one.regularizer, one.seed, 1e-7, "", one.key) for one in first)
    [line] = [one for one in claims.goal(RULES, Evidence("quick", OWN, wanted, tuple(first))) if one.seeds == "1"]
    assert (line.experiment, line.nfe < 0.6, line.verdict) == ("mnist_ode", True, "not reached")


def test_a_line_with_one_seed_is_compared_with_this_seed_of_vanilla_and_of_the_control() -> None:
    rows = [
        one for one in everything() if (one.regularizer, one.seed) not in (("local_biased", 1), ("local_biased", 2))
    ]
    whole = evidence(rows)
    listed = [(run, one) for run, one in zip(whole.wanted, whole.rows, strict=True) if one is not None]
    part = Evidence("quick", OWN, tuple(run for run, _ in listed), tuple(one for _, one in listed))
    found = ratios.compare(part, "mnist_ode", "local_biased", 1e-7)
    assert [one.seed for one in (*found.vanilla.rows, *found.control.rows)] == [0, 0]
    assert found.nfe is not None
    assert (found.nfe.value, found.nfe.low) == (pytest.approx(49 / 99), None)
    assert found.complete
    assert found.spread == pytest.approx(1e-3)  # of all of vanilla's seeds
