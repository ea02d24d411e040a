"""Every verdict of the study and every choice of its ladders, recomputed by another code path than the project's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from functools import reduce
from operator import getitem
from typing import Any

import pytest
import recomputed
import recomputed_choices
from recomputed import PROTOCOL, RULES, Effect, Saved

from reproduce.report import endpoints, evidence, first_step, study
from reproduce.report.study import LOCAL, Saving

EXPERIMENTS = list(PROTOCOL["experiments"])
Pair = tuple[str, Any, Any]
"""What is compared, what the project says, and what the recomputation says."""


def numbers(what: str, theirs: Any, ours: Effect) -> Iterator[Pair]:
    """An effect and its interval."""
    low, high = theirs.interval(RULES["level"])
    yield f"{what}: mean", theirs.mean, ours.mean
    yield f"{what}: low", low, ours.low
    yield f"{what}: high", high, ours.high


def saving(what: str, theirs: Saving, ours: Saved, at_most: float) -> Iterator[Pair]:
    """A ratio with its interval, the verdict on the gain, and whether the endpoint is reached."""
    yield f"{what}: reached", theirs.reached(at_most), ours.reached(at_most)
    yield f"{what}: fails", theirs.verdict != "kept", ours.gain != "kept"
    if not theirs.failed:  # of the seeds that were solved: the recomputation has no number then
        yield f"{what}: gain", theirs.cost, ours.gain
        yield from numbers(what, theirs.ratio, ours.ratio)
        yield from numbers(f"{what}, worse", theirs.worse, ours.worse)


def of_claims() -> Iterator[Pair]:
    ours, theirs = recomputed.ledger(), study.ledger(evidence.study().judged())
    yield "claims and forms", {(one.claim.id, one.form) for one in theirs}, set(ours)
    for one in theirs:
        what, mine = f"{one.claim.id} {one.form}", ours[one.claim.id, one.form]
        yield f"{what}: direction", one.direction, mine.direction
        yield f"{what}: agreement", one.agreement, mine.agreement
        yield f"{what}: cost", one.cost, mine.costs
        for part in one.parts:
            if part.ratio is not None and (part.experiment, part.line) in mine.ratios:
                yield from numbers(f"{what}, {part.line}", part.ratio, mine.ratios[part.experiment, part.line])
                yield from numbers(f"{what}, {part.line}, lost", part.lost, mine.lost[part.experiment, part.line])


def complete() -> dict[str, recomputed.Cells]:
    found = {name: recomputed.study(name) for name in EXPERIMENTS}
    return {name: cells for name, cells in found.items() if cells is not None}


def of_equal_tolerance() -> Iterator[Pair]:
    part, at_most = evidence.study(), RULES["equal_tolerance"]
    yield "complete experiments", part.complete(), list(complete())
    reached, apart = [], []
    for name, cells in complete().items():
        theirs = {one.line: one for one in study.equal_tolerance(part.rows, name)}
        ours = {line: recomputed.equal_tolerance(cells, line) for line in LOCAL}
        for line in LOCAL:
            yield from saving(f"{name}, {line}", theirs[line], ours[line], at_most)
        if not recomputed.dynamics_matter(cells):
            apart.append(name)
        elif any(one.reached(at_most) for one in ours.values()):
            reached.append(name)
    endpoint = endpoints.equal_tolerance(part)
    yield "reached in", endpoint.reached(), reached
    yield "where dynamics do not surely matter", list(endpoint.apart), apart
    yield "counted", endpoint.count(), f"{len(reached)} of {len(complete()) - len(apart)}"


def of_matched_error() -> Iterator[Pair]:
    part, at_most, reached = evidence.study(), RULES["matched_error"], []
    for name, cells in complete().items():
        ours = recomputed.matched_error(name, cells)
        theirs = {one.line: one for one in study.matched_error(part.rows, name, study.chosen_ways(name))}
        yield f"{name}: lines", set(theirs), set(ours)
        for line, one in theirs.items():
            yield from saving(f"{name}, {line}", one, ours[line], at_most)
        options = recomputed_choices.Ladders(name).choices()
        local = {option: line for line, option in options.items() if line.startswith("local_")}
        line = local[recomputed_choices.take(list(local))]
        _, preferred = endpoints.matched(part, name)
        yield f"{name}: the local line that held-out data prefer", preferred and preferred.line, line
        reached += [name] if ours[line].reached(at_most) else []
    yield "reached in", endpoints.matched_error(part).reached(), reached


def of_choices() -> Iterator[Pair]:
    for name in EXPERIMENTS:
        ladders, written = recomputed_choices.Ladders(name), study.chosen(name)
        options = ladders.choices()
        yield f"{name}: learning rate", written["lr"], ladders.lr
        yield f"{name}: lines", set(written["ways"]), set(options)
        for line in set(written["ways"]) & set(options):
            one = options[line]
            setting, way, evaluations, keeps = recomputed_choices.written(name, line)
            yield f"{name}, {line}: setting", setting, one.setting
            yield f"{name}, {line}: way", way, one.way
            yield f"{name}, {line}: evaluations", evaluations, round(one.evaluations, 2)
            yield f"{name}, {line}: gain", keeps, round(one.keeps, 4)
    for name in PROTOCOL["ablation"]["experiments"]:
        forms = recomputed_choices.ablation(name)
        yield f"{name}: forms of the ablation", set(study.chosen(name)["ablation"]), set(forms)
        for form, weight in study.chosen(name)["ablation"].items():
            yield f"{name}, {form}: weight", weight, forms.get(form)


def of_first_steps() -> Iterator[Pair]:
    part, at_most, reached, measured = evidence.study(), RULES["equal_tolerance"], [], []
    for name in PROTOCOL["first_step"]["experiments"]:
        for row in recomputed.rows_of("first_step", name):
            for way in row["ways"]:
                what = f"{name}, {row['line']}, {row['seed']}, {way['tolerance']}: share"
                yield what, way["share"], recomputed.chosen_share(way["tried"])
        if ours := recomputed.first_step(name):
            measured.append(name)
            for one in first_step.savings(part, name):
                line, (mine, over_guess) = one.saving.line, ours[one.saving.line]
                yield from saving(f"{name}, {line}", one.saving, mine, at_most)
                yield from numbers(f"{name}, {line}, over the own guess", one.over_usual, over_guess)
            if recomputed.dynamics_matter(complete()[name]) and any(ours[line][0].reached(at_most) for line in LOCAL):
                reached.append(name)
    yield "measured", set(first_step.complete(part)), set(measured)
    yield "reached in", set(first_step.endpoint(part).reached()), set(reached)


def differ(theirs: Any, ours: Any) -> bool:
    if isinstance(theirs, float) and isinstance(ours, float) and not (math.isnan(theirs) and math.isnan(ours)):
        return not math.isclose(theirs, ours, rel_tol=1e-9, abs_tol=1e-12)
    return bool(theirs != ours) and not (theirs != theirs and ours != ours)


def differences(what: str) -> list[Pair]:
    """The pairs that differ; where too few numbers were compared, nothing was."""
    pairs, kind, at_least = WHOLE[what]
    found = list(pairs())
    there = [pair for pair in found if pair[0].endswith(f": {kind}") and math.isfinite(pair[1])]
    assert len(there) >= at_least, f"only {len(there)} of {what} compared"
    return [pair for pair in found if differ(*pair[1:])]


WHOLE: dict[str, tuple[Callable[[], Iterator[Pair]], str, int]] = {
    "claims": (of_claims, "mean", len(recomputed.CLAIMS)),
    "equal tolerance": (of_equal_tolerance, "mean", len(EXPERIMENTS)),
    "matched error": (of_matched_error, "mean", len(EXPERIMENTS)),
    "choices": (of_choices, "evaluations", 4 * len(EXPERIMENTS)),
    "first steps": (of_first_steps, "mean", len(LOCAL)),
}
"""What is recomputed -> its pairs, and of which numbers there have to be how many."""


@pytest.mark.parametrize("what", WHOLE)
def test_what_is_recomputed_from_the_rows_and_the_registered_text_is_what_the_project_says(what: str) -> None:
    assert differences(what) == []


def changed(stage: str, line: str, path: Sequence[Any], factor: float) -> Callable[[str, str], list[recomputed.Row]]:
    """rows_of, with one number of one line of MNIST multiplied in all its seeds; the files stay as they are."""
    true = recomputed.rows_of

    def rows_of(of_stage: str, experiment: str) -> list[recomputed.Row]:
        if (of_stage, experiment) != (stage, "mnist_ode"):
            return true(of_stage, experiment)
        rows = deepcopy(true(of_stage, experiment))
        for row in rows:
            if line == row.get("regularizer", row.get("line")):
                of = reduce(getitem, path[:-1], row)
                of[path[-1]] *= factor
        return rows

    return rows_of


@pytest.mark.parametrize(
    ("what", "stage", "line", "path", "factor"),
    [
        ("claims", "study", "local_biased", ("nfe",), 1 + 1e-8),
        ("claims", "study", "local_unbiased:text", ("metrics", "accuracy"), 0.9),
        ("equal tolerance", "study", "local_biased", ("nfe",), 0.1),
        ("equal tolerance", "study", "no_dynamics", ("metrics", "accuracy"), 1.2),
        ("matched error", "study", "local_biased", ("metrics", "accuracy"), 0.9),
        ("choices", "ladders", "global_error", ("metrics", "accuracy"), 0.5),
        ("choices", "rates", "none", ("metrics", "accuracy"), 1.2),
        ("first steps", "first_step", "global_error", ("ways", 0, "chosen", "nfe"), 1 + 1e-8),
    ],
)
def test_a_number_that_is_changed_on_one_side_is_noticed(
    what: str, stage: str, line: str, path: tuple[Any, ...], factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows_of = changed(stage, line, path, factor)
    for module in (recomputed, recomputed_choices):
        monkeypatch.setattr(module, "rows_of", rows_of)
    assert differences(what) != []


@pytest.mark.parametrize(
    ("what", "rule", "value"),
    [
        ("claims", "gain", 0.9),
        ("claims", "printed_runs", 30),
        ("equal tolerance", "gain", 0.5),
        ("matched error", "gain", 0.5),
        ("choices", "held_out_gain", 0.9),
        ("first steps", "gain", 0.5),
    ],
)
def test_a_rule_that_is_changed_on_one_side_is_noticed(
    what: str, rule: str, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RULES, rule, value)
    assert differences(what) != []
