"""The local penalties beside the global one on the error: what one drawn step loses against all of them (no torch)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from reproduce.report import effects, ladders, study, tables
from reproduce.report.effects import Effect
from reproduce.report.study import LOCAL, Saving
from reproduce.report.study_tables import change_text, kept_text, nats_text, ratio_text, span
from reproduce.report.verdicts import COST
from reproduce.runs.store import Row

GLOBAL = "global_error"
BESIDE = (
    "**Beside the global penalty on the error**, which takes every step of an open solver, a local one takes one drawn "
    "step."
)
CLOSED = (
    "Where a solver is closed, or differentiated by its adjoint, a global penalty would have to take every step once "
    "more: a local one takes one."
)


@dataclass(frozen=True)
class Comparison:
    """A local penalty beside the global one, each at the weight of its ladder; solved as trained, but for `free`."""

    ours: Saving
    theirs: Saving
    evaluations: Effect | None
    """Logarithm of the local one's evaluations over the global one's."""
    training: Effect | None
    """Logarithm of the ratio of their times of training."""
    worse: Effect | None
    """Logarithm of the ratio of their errors; of a likelihood, the global one's minus the local one's in nats."""
    free: Effect | None
    """As `evaluations`, each solved in the way that was chosen for it."""

    @property
    def both_keep(self) -> bool:
        """Whether both surely keep vanilla's gain, solved as they were trained."""
        return self.ours.verdict == self.theirs.verdict == COST[0]


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
            effects.log_ratio(_free(here, experiment, line), _free(here, experiment, GLOBAL)),
        )
        for line in LOCAL
        if line in savings
        for ours in [lines[line]]
    ]


def _free(rows: Sequence[Row], experiment: str, line: str) -> dict[int, float]:
    """Return the evaluations by seed in the way that was chosen for a line; none where a seed is not solved so."""
    way = study.chosen_ways(experiment).get(line)
    found = {} if way is None else study.solved(rows, line, way)
    return {seed: pair[1] for seed, pair in found.items() if pair is not None} if None not in found.values() else {}


def table(rows: Sequence[Row], experiments: Sequence[str]) -> pd.DataFrame:
    """Return one line for each local penalty and experiment; a star marks a weight at an end of its ladder."""
    return pd.DataFrame(
        {
            "experiment": tables.title(name),
            "line": tables.label(one.ours.line),
            "weight": f"{_weight(name, one.ours.line)} (global {_weight(name, GLOBAL)})",
            "evaluations": f"{one.ours.evaluations:.1f} (global {one.theirs.evaluations:.1f})",
            "over global's": ratio_text(one.evaluations),
            "gain kept": f"{_kept(one.ours)} (global {_kept(one.theirs)})",
            "error": nats_text(one.worse) if one.ours.metric == "log_likelihood" else change_text(one.worse),
            "training time over global's": ratio_text(one.training),
            "in the chosen ways": ratio_text(one.free),
        }
        for name in experiments
        for one in compared(rows, name)
    )


def _kept(saving: Saving) -> str:
    return f"{kept_text(saving.kept)}: {saving.verdict}"


def _weight(experiment: str, line: str) -> str:
    weight, tried = ladders.chosen_weight(experiment, line), ladders.rungs(experiment).get(line, {})
    if weight is None:
        return "not chosen"
    return f"{weight:g}" + ("*" if tried and weight in (min(tried), max(tried)) else "")


def in_words(rows: Sequence[Row], experiments: Sequence[str]) -> str:
    """Say what local penalties take of the global one's evaluations and time of training; '' without rows."""
    found = [one for name in experiments for one in compared(rows, name)]
    told = []
    for line in LOCAL:
        of = [one for one in found if one.ours.line == line]
        if of:
            nfe, train, free = [x.evaluations for x in of], [x.training for x in of], [x.free for x in of]
            keep = [one.evaluations for one in of if one.both_keep]
            told.append(
                f"* **{tables.label(line)}**: {span(nfe)} of the global one's evaluations ({_counts(nfe, 'fewer')}; "
                f"where both keep the gain {_counts(keep, 'fewer')}), and {span(train)} of its time of training "
                f"({_counts(train)})"
                + (f"; each in the way chosen for it, {span(free)} ({_counts(free, 'fewer')})" if any(free) else "")
                + "."
            )
    if not told:
        return ""
    n, more, less = _corrected(found)
    return (
        f"{BESIDE} Both in the same open solver, at weights chosen by one rule, solved as trained (no registered "
        "endpoint, looked at when rows had been seen; by the interval of each comparison, uncorrected):\n\n"
        + "\n".join(told)
        + f"\n\nCorrected by Holm over all {2 * n} of these comparisons of both local penalties, solved as trained: "
        f"more evaluations in {more[0]} and fewer in {less[0]}, more time of training in {more[1]} and less in "
        f"{less[1]}. {CLOSED}"
    )


def in_short(rows: Sequence[Row], experiments: Sequence[str]) -> str:
    """Say the same of both local penalties together in some lines, for the front; '' without rows."""
    found = [one for name in experiments for one in compared(rows, name)]
    if not found:
        return ""
    _, more, less = _corrected(found)
    nfe, train = [one.evaluations for one in found], [one.training for one in found]
    return (
        f"{BESIDE} Solved as trained, in the same open solver and at weights chosen by one rule, it takes {span(nfe)} "
        f"of the global one's evaluations ({_counts(nfe, 'fewer')} by the interval of each; corrected by Holm fewer in "
        f"{less[0]}, more in {more[0]}) and {span(train)} of its time of training (corrected less in {less[1]}, more "
        f"in {more[1]}; looked at when rows had been seen). {CLOSED}"
    )


def _corrected(found: Sequence[Comparison]) -> tuple[int, tuple[int, int], tuple[int, int]]:
    """Correct comparisons of evaluations and of times of training as one family.

    Return how many there are of each; in how many of each the local penalty surely takes more; and less.
    """
    each = [one.evaluations for one in found] + [one.training for one in found]
    pairs = [None if effect is None else (effect.below(), effect.above()) for effect in each]
    told = effects.sides(pairs, ("less", "more", ""), 1 - study.rules()["level"])
    nfe, train = told[: len(found)], told[len(found) :]
    return len(found), (nfe.count("more"), train.count("more")), (nfe.count("less"), train.count("less"))


def _counts(of: Sequence[Effect | None], less: str = "less", more: str = "more") -> str:
    """Say in how many comparisons the local penalty has less, and in how many more."""
    ends = [effect.interval(study.rules()["level"]) for effect in of if effect is not None]
    if not ends:
        return "nowhere"
    return f"{less} in {sum(high < 0 for _, high in ends)} of {len(ends)}, {more} in {sum(low > 0 for low, _ in ends)}"
