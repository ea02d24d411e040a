"""The local penalties beside the global one on the error: what it costs to leave the solver closed (no torch)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from reproduce.report import effects, ladders, study, tables
from reproduce.report.effects import Effect
from reproduce.report.study import LOCAL, Saving
from reproduce.report.study_tables import change_text, kept_text, nats_text, ratio_text
from reproduce.runs.store import Row

GLOBAL = "global_error"


@dataclass(frozen=True)
class Comparison:
    """A local penalty beside the global one: both at the weight of their own ladder, solved as they were trained."""

    ours: Saving
    theirs: Saving
    evaluations: Effect | None
    """Logarithm of the local one's evaluations over the global one's."""
    training: Effect | None
    """Logarithm of the ratio of their times of training."""
    worse: Effect | None
    """Logarithm of the ratio of their errors; of a likelihood, the global one's minus the local one's in nats."""


def compared(rows: Sequence[Row], experiment: str) -> list[Comparison]:
    """Return the comparisons of an experiment, in pairs of one seed; none without rows of both sides."""
    here = [row for row in rows if row.experiment == experiment]
    lines = {line: content for (_, line), content in study.lines_of(here).items()}
    savings = {saving.line: saving for saving in study.equal_tolerance(here, experiment)}
    if GLOBAL not in savings:
        return []
    theirs = lines[GLOBAL]
    return [
        Comparison(
            savings[line],
            savings[GLOBAL],
            effects.log_ratio(ours.costs["nfe"], theirs.costs["nfe"]),
            effects.log_ratio(ours.costs["train"], theirs.costs["train"]),
            study.worse_by(ours.values, theirs.values, savings[line].metric),
        )
        for line in LOCAL
        if line in savings
        for ours in [lines[line]]
    ]


def table(rows: Sequence[Row], experiments: Sequence[str]) -> pd.DataFrame:
    """Return one line for each local penalty and experiment."""
    return pd.DataFrame(
        {
            "experiment": tables.title(name),
            "line": tables.label(one.ours.line),
            "weight": f"{_weight(name, one.ours.line)} (global {_weight(name, GLOBAL)})",
            "evaluations": f"{one.ours.evaluations:.1f} (global {one.theirs.evaluations:.1f})",
            "over global's": ratio_text(one.evaluations),
            "gain kept": f"{kept_text(one.ours.kept)}: {one.ours.verdict}",
            "global's": f"{kept_text(one.theirs.kept)}: {one.theirs.verdict}",
            "error": nats_text(one.worse) if one.ours.metric == "log_likelihood" else change_text(one.worse),
            "training time over global's": ratio_text(one.training),
        }
        for name in experiments
        for one in compared(rows, name)
    )


def _weight(experiment: str, line: str) -> str:
    weight = ladders.chosen_weight(experiment, line)
    return "not chosen" if weight is None else f"{weight:g}"


def in_words(rows: Sequence[Row], experiments: Sequence[str], lines: Sequence[str] = LOCAL) -> str:
    """Say what local penalties take of the global one's evaluations and time of training; '' without rows."""
    found = [one for name in experiments for one in compared(rows, name)]
    told = []
    for line in lines:
        of = [one for one in found if one.ours.line == line]
        if of:
            nfe, train = [one.evaluations for one in of], [one.training for one in of]
            told.append(
                f"the {tables.draw(line)} local one takes {_ratios(nfe)} of its evaluations ({_counts(nfe)}) and "
                f"{_ratios(train)} of its time of training ({_counts(train)}), with an error that is "
                + _counts([one.worse for one in of], "smaller", "larger")
            )
    if not told:
        return ""
    return (
        "**Against the global penalty on the error**, which needs a solver that hands its estimates out, each at the "
        f"weight of its own ladder: {'; '.join(told)} (by the interval of each "
        "comparison). What a local penalty has for it is a solver that stays closed."
    )


def _ratios(of: Sequence[Effect | None]) -> str:
    """Return '1.00x to 1.39x'."""
    means = [math.exp(effect.mean) for effect in of if effect is not None]
    return " to ".join(dict.fromkeys(f"{end(means):.2f}x" for end in (min, max)))


def _counts(of: Sequence[Effect | None], less: str = "less", more: str = "more") -> str:
    """Say in how many comparisons the local penalty has less, and in how many more."""
    ends = [effect.interval(study.rules()["level"]) for effect in of if effect is not None]
    return f"{less} in {sum(high < 0 for _, high in ends)} of {len(ends)}, {more} in {sum(low > 0 for low, _ in ends)}"
