"""The registered rules: what they say of ledgers whose truth is known, and the same by another way to compute it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from reproduce.report import effects, tables, verdicts
from reproduce.report.effects import Effect
from reproduce.report.verdicts import AGREEMENT, COST, DIRECTION, NOT_RUN, Claim, Line, Lines, Verdict

SEEDS = tuple(range(10, 20))
LEDGERS = 1000
RULES: dict[str, Any] = {"gain": 0.95, "level": 0.95, "runs": 3}
CLAIMS = verdicts.claims()
PRINTED = tables.published()
SPREAD = 0.05
"""Relative deviation over seeds of a cost that is printed without one."""


def cost_of(experiment: str, line: str, measure: str) -> tuple[float, float]:
    """Mean and deviation of a cost as printed; where nothing is printed, vanilla's is 1."""
    rows = PRINTED.get(experiment, {}).get("rows", {})
    row = rows.get(verdicts.PRINTED_NAMES.get(line, line), {})
    for name in verdicts.PRINTED[measure]:
        if name in row:
            mean, deviation = row[name]
            return float(mean), max(float(deviation), 1e-3 * float(mean))
    ours = [c for c in CLAIMS if c.measure == measure and len(c.parts) == 1 and line in c.parts.get(experiment, ())]
    ratio = ours[0].ratio if ours else 1.0
    return ratio, SPREAD * ratio


def world(rng: np.random.Generator, scale: Callable[[str], float] | None = None) -> Lines:
    """Ten seeds of every line that a claim needs: costs as printed, or `scale(line)` times vanilla's."""
    needed = {
        (e, line + end) for c in CLAIMS for e, of in c.parts.items() for line in of for end in verdicts.FORMS.values()
    }
    needed |= {(e, line) for e, _ in needed for line in ("none", "no_dynamics", "global_error")}
    found: dict[tuple[str, str], Line] = {}
    for experiment, line in sorted(needed):
        costs = {}
        for measure in verdicts.PRINTED:
            mean, deviation = cost_of(experiment, line.partition(":")[0] if scale is None else "none", measure)
            factor = 1.0 if scale is None else scale(line)
            draws = np.abs(factor * rng.normal(mean, deviation, len(SEEDS)))
            costs[measure] = dict(zip(SEEDS, draws.tolist(), strict=True))
        values = rng.normal(0.0 if line == "no_dynamics" else 1.0, 0.01, len(SEEDS))
        found[experiment, line] = Line(costs, dict(zip(SEEDS, values.tolist(), strict=True)))
    return found


def reprinted(rng: np.random.Generator) -> dict[str, Any]:
    """The papers' tables as another three runs would have printed them: their mean, and their own deviation."""
    moved: dict[str, Any] = {}
    for experiment, table in PRINTED.items():
        if isinstance(table, dict) and "rows" in table:
            moved[experiment] = {"rows": {}}
            for name, row in ((name, row) for name, row in table["rows"].items() if isinstance(row, dict)):
                moved[experiment]["rows"][name] = {
                    key: _printed(rng.normal(pair[0], pair[1], RULES["runs"]))
                    for key, pair in row.items()
                    if isinstance(pair, list)
                }
    return moved


def _printed(runs: np.ndarray) -> list[float]:
    return [float(runs.mean()), float(runs.std(ddof=1))]


def judged(lines: Lines, printed: Any = PRINTED) -> list[Verdict]:
    return verdicts.ledger(lines, CLAIMS, printed, **RULES)


def test_ledgers_whose_truth_is_what_is_printed_are_compatible_in_about_95_percent() -> None:
    rng = np.random.default_rng(0)
    single = [claim for claim in CLAIMS if len(claim.parts) == 1 and claim.against == "none"]
    clean = 0
    for _ in range(LEDGERS):
        printed = reprinted(rng)
        redrawn = []
        for claim in single:  # the printed number is the quotient of the printed means
            (experiment,), (line, *_) = claim.parts, next(iter(claim.parts.values()))
            rows = printed.get(experiment, {}).get("rows", {})
            ours, theirs = rows.get(verdicts.PRINTED_NAMES.get(line, line), {}), rows.get("vanilla", {})
            names = [name for name in verdicts.PRINTED[claim.measure] if name in ours and name in theirs]
            if names and len(claim.parts[experiment]) == 1:
                ratio = ours[names[0]][0] / theirs[names[0]][0]
                number = ratio if claim.measure in ("nfe", "error") else 1 / ratio
                redrawn.append(Claim(**{**vars(claim), "published": number}))
        given = verdicts.ledger(world(rng), redrawn, printed, **RULES)
        clean += all(one.agreement == AGREEMENT[2] for one in given)
    assert len(redrawn) > 12
    assert 0.92 <= clean / LEDGERS <= 0.98


def test_without_any_effect_below_1_is_read_in_at_most_5_percent_of_ledgers() -> None:
    rng = np.random.default_rng(1)
    wrong = sum(
        any(one.direction != DIRECTION[2] for one in judged(world(rng, lambda line: 1.0))) for _ in range(LEDGERS)
    )
    assert wrong / LEDGERS <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / LEDGERS)


def test_a_truth_that_is_clearly_worse_than_printed_is_read_as_worse_and_never_as_better() -> None:
    rng, of_all = np.random.default_rng(2), Counter[str]()
    for _ in range(20):
        given = judged(world(rng, lambda line: 1.0 if line == "none" else 1.6))
        nfe = [
            one for one in given if one.claim.measure == "nfe" and one.claim.against == "none" and one.claim.ratio < 1
        ]
        of_all.update(one.agreement for one in nfe)
    assert of_all[AGREEMENT[1]] == of_all.total() > 0


def test_a_gain_that_is_lost_or_kept_is_read_as_that_and_a_hopeless_spread_as_undecided() -> None:
    rng = np.random.default_rng(3)
    vanilla, control = (dict(zip(SEEDS, rng.normal(x, 0.02, 10).tolist(), strict=True)) for x in (1.0, 0.0))
    claim = Claim("X", "", "", "nfe", 0.6, {"mnist_ode": ["global_error"]})
    nfe = {"nfe": dict.fromkeys(SEEDS, 100.0)}
    for mean, spread, expected in ((1.0, 0.02, COST[0]), (0.8, 0.02, COST[1]), (0.95, 0.3, COST[2])):
        ours = dict(zip(SEEDS, rng.normal(mean, spread, 10).tolist(), strict=True))
        lines = {
            ("mnist_ode", name): Line(nfe, values) for name, values in (("none", vanilla), ("no_dynamics", control))
        }
        (one,) = verdicts.ledger({**lines, ("mnist_ode", "global_error"): Line(nfe, ours)}, [claim], {}, **RULES)
        assert one.cost == expected
        share, low, high = one.parts[0].kept
        assert low < share < high


def test_what_was_not_run_has_no_verdict_and_one_seed_decides_nothing() -> None:
    rng = np.random.default_rng(4)
    lines = {key: line for key, line in world(rng).items() if key[0] != "physionet"}
    given = {(one.claim.id, one.form): one for one in judged(lines)}
    assert given["C13", "ours"].direction == given["C13", "ours"].agreement == given["C13", "ours"].cost == NOT_RUN
    assert given["C01", "ours"].direction == NOT_RUN  # one of its experiments is missing
    assert given["C05", "ours"].direction == DIRECTION[0]
    one = {
        key: Line({m: {10: x[10]} for m, x in line.costs.items()}, {10: line.values[10]}) for key, line in lines.items()
    }
    assert {verdict.direction for verdict in judged(one)} == {NOT_RUN}


def test_a_local_claim_is_judged_in_three_forms_and_a_global_one_in_one() -> None:
    given = Counter(one.claim.id for one in judged(world(np.random.default_rng(5))))
    assert given["C05"] == given["C01b"] == 3
    assert given["C23"] == given["C25"] == 1


def test_effects_agree_with_scipys_tests_and_fiellers_interval_with_a_search() -> None:
    rng = np.random.default_rng(6)
    ours, theirs, control = (dict(zip(SEEDS, rng.normal(m, 0.1, 10), strict=True)) for m in (2.0, 2.2, 1.0))
    found = effects.log_ratio(ours, theirs)
    assert found is not None
    logs = [math.log(ours[seed] / theirs[seed]) for seed in SEEDS]
    assert found.below() == pytest.approx(stats.ttest_1samp(logs, 0.0, alternative="less").pvalue)
    assert found.above(0.1) == pytest.approx(stats.ttest_1samp(logs, 0.1, alternative="greater").pvalue)
    interval = stats.ttest_1samp(logs, 0.0).confidence_interval(0.95)
    assert found.interval(0.95) == pytest.approx((interval.low, interval.high))
    share, low, high = effects.kept_interval(ours, theirs, control, level=0.95)
    assert share == pytest.approx(
        (np.mean(list(ours.values())) - np.mean(list(control.values())))
        / (np.mean(list(theirs.values())) - np.mean(list(control.values())))
    )
    for end in (low, high):  # at the ends the test of this share has a p-value of 5 percent
        rest = [ours[s] - control[s] - end * (theirs[s] - control[s]) for s in SEEDS]
        assert stats.ttest_1samp(rest, 0.0).pvalue == pytest.approx(0.05)


def test_what_is_vanilla_itself_keeps_all_of_the_gain_and_surely() -> None:
    rng = np.random.default_rng(9)
    theirs, control = (dict(zip(SEEDS, rng.normal(m, 0.01, 10).tolist(), strict=True)) for m in (0.95, 0.91))
    assert effects.kept_interval(theirs, theirs, control, level=0.95) == pytest.approx((1.0, 1.0, 1.0))
    wide = {seed: control[seed] + 0.01 + 0.1 * (-1) ** seed for seed in SEEDS}
    hopeless = effects.kept_interval(control, wide, control, level=0.95)
    assert hopeless[1:] == (-math.inf, math.inf)


def test_holm_refutes_what_the_sorted_thresholds_say_and_keeps_the_rate_of_errors() -> None:
    assert effects.holm([0.01, 0.04, 0.03, 0.005], 0.05) == [True, False, False, True]
    rng = np.random.default_rng(7)
    wrong = sum(any(effects.holm(rng.uniform(size=30).tolist(), 0.05)) for _ in range(4000))
    assert wrong / 4000 == pytest.approx(0.05, abs=0.011)


def test_a_claim_that_was_not_run_counts_in_its_family_so_that_no_verdict_changes_when_it_comes_in() -> None:
    names = ("below", "above", "undecided")
    sure, at_the_edge = (1e-6, 1 - 1e-6), (0.005, 0.995)  # two-sided 0.01: passes among five, not among six
    assert effects.sides([sure, at_the_edge, None, None, None, None], names, 0.05)[:3] == ["below", "below", ""]
    assert effects.sides([sure, at_the_edge, *[None] * 5], names, 0.05)[:3] == ["below", "undecided", ""]
    unsure = (0.5, 0.5)
    for n in (1, 4, 40):
        with_rows = effects.sides([sure, at_the_edge, *[unsure] * n], names, 0.05)
        assert effects.sides([sure, at_the_edge, *[None] * n], names, 0.05)[:2] == with_rows[:2]


def test_a_number_that_is_none_leaves_its_claim_undecided_and_the_others_as_they_are() -> None:
    lines = dict(world(np.random.default_rng(8)))
    vanilla = lines["physionet", "none"]
    broken = {name: {**seeds, 10: math.nan} for name, seeds in vanilla.costs.items()}
    lines["physionet", "none"] = Line(broken, vanilla.values)
    given = {(one.claim.id, one.form): one for one in judged(lines)}
    assert given["C13", "ours"].direction == DIRECTION[2]
    assert given["C05", "ours"].direction == DIRECTION[0]
    zero = effects.log_ratio({1: 1.0, 2: 0.0}, {1: 1.0, 2: 1.0})
    assert zero is not None
    assert math.isnan(zero.mean)


def test_where_vanilla_gains_nothing_there_is_no_share_of_it() -> None:
    control = dict.fromkeys(SEEDS, 0.5)
    for gain in (0.0, -0.1):
        vanilla = dict.fromkeys(SEEDS, 0.5 + gain)
        assert all(map(math.isnan, effects.kept_interval(vanilla, vanilla, control, level=0.95)))


def test_what_an_undecided_claim_would_have_found_is_of_a_test_as_strict_as_its_own() -> None:
    rng = np.random.default_rng(10)
    given = judged(world(rng, lambda line: 1.0))
    assert all(one.alpha == pytest.approx(0.05 / len(given)) for one in given)
    (one, *_) = [one for one in given if one.claim.id == "C05"]
    (part,) = one.parts
    assert part.ratio is not None
    size = effects.detectable(part.ratio, level=1 - one.alpha)
    draws = part.ratio.error * stats.nct.rvs(9, size / part.ratio.error, size=4000, random_state=1)
    needed = part.ratio.error * stats.t.ppf(1 - one.alpha / 2, 9)
    assert np.mean(draws > needed) == pytest.approx(0.8, abs=0.08)  # the usual sum of two quantiles is not exact


def test_a_claim_on_all_parts_is_below_only_if_all_are_and_one_on_any_if_one_is() -> None:
    sure, unsure, wrong = (1e-6, 1 - 1e-6), (0.5, 0.5), (1 - 1e-6, 1e-6)
    assert effects.combined([sure, sure], "all")[0] < 1e-5
    assert effects.combined([sure, unsure], "all")[0] == 0.5
    assert effects.combined([sure, wrong], "all")[1] < 1e-5
    assert effects.combined([sure, unsure], "any")[0] < 1e-5
    assert effects.combined([unsure, wrong], "any")[1] == 0.5


def test_a_printed_deviation_widens_what_is_compatible() -> None:
    ours = Effect(math.log(0.7), 0.01, 9)
    exact, vague = (effects.printed_log_ratio([60, s], [100, s], ratio=0.6, runs=3) for s in (0.0, 10.0))
    assert ours.minus(exact).above() < 1e-4
    assert ours.minus(vague).above() > 0.05


def test_the_detectable_effect_is_found_with_the_power_that_is_named() -> None:
    rng, found = np.random.default_rng(8), 0
    effect = Effect(0.0, 0.1 / math.sqrt(10), 9)
    size = effects.detectable(effect, level=0.95)
    for _ in range(2000):
        drawn = effects.mean_effect(rng.normal(-size, 0.1, 10).tolist())
        assert drawn is not None
        found += 2 * drawn.below() < 0.05
    assert found / 2000 == pytest.approx(0.8, abs=0.06)
