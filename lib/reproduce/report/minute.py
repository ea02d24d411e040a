"""What a reader takes home in a minute: two tables and some lines, for the README and the report (no torch)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

import pandas as pd

from reproduce.report import endpoints, first_step, study, tables
from reproduce.report.against_global import GLOBAL
from reproduce.report.evidence import Evidence
from reproduce.report.study import LOCAL, Saving, rules
from reproduce.report.study_tables import bold, ratio_text
from reproduce.report.tables import VANILLA, title
from reproduce.report.verdicts import COST
from reproduce.runs.curves import words
from reproduce.runs.registered import REGISTERED_IN

HEAD = (
    "One line for each experiment: evaluations of f for one prediction and, bold, their ratio: of the penalty and of "
    "the coarser solve to vanilla as it was trained, of both to vanilla's coarser solve. A coarser solve is the "
    "cheapest way that kept the gain on held-out data; it *fails* where the gain on test data is not surely kept. "
    "Errors are those on test data beside vanilla's as it was trained. In brackets: lines that were trained for few "
    "steps."
)
"""Leads in `in_short`."""
Found = Sequence[tuple[float, Saving]]
"""Ratios of evaluations, and what was saved, of some experiments."""


def in_a_minute(part: Evidence) -> str:
    """Say what each way to save brings over all experiments, and what the penalty adds to a coarser solve; or ''."""
    coarser, both = _coarser(part), _both(part)
    if not both:
        return ""
    alone = {saving.experiment: ratio for ratio, saving in _alone(part, LOCAL[0])}
    larger = [saving for ratio, saving in coarser if ratio < alone[saving.experiment]]
    below = [saving for _, saving in both if saving.ratio and saving.ratio.interval(rules()["level"])[1] < 0]
    return (
        "**In a minute.** A coarser solve of a model without a penalty saves more than the penalty in "
        f"{len(larger)} of {len(both)} experiments (gain kept in {_kept_in(larger)} of these), and the penalty adds to "
        f"it, by its interval, in {len(below)} (gain kept in {_kept_in(below)}). {without_a_penalty(part)} Ratios of "
        "evaluations of f for one prediction, ten seeds for each line:\n\n"
        f"{tables.markdown(_ways_to_save(part))}\n\n"
        "*Gain* is what vanilla (no penalty) gains over a model without dynamics; it is *kept* where the interval over "
        "seeds says so. The worst error is the largest mean one beside vanilla's as it was trained, on test data; of "
        "the flow, which has likelihoods, the table below tells."
    )


@dataclass(frozen=True)
class Mark:
    """What a model takes for one prediction, in the mean over seeds, solved in one of two ways."""

    experiment: str
    penalty: bool
    coarse: bool
    """Solved in the way that was chosen for it, else as it was trained."""
    evaluations: float
    kept: bool
    """Whether vanilla's gain is surely kept."""


def marks(part: Evidence) -> list[Mark]:
    """Return four marks for each experiment: without and with the penalty, as trained and solved coarsely."""
    found = []
    for of, penalty, coarse in (
        (_alone(part, LOCAL[0]), True, False),
        (_coarser(part), False, True),
        (_both(part), True, True),
    ):
        found += [Mark(x.experiment, penalty, coarse, x.evaluations, x.verdict == COST[0]) for _, x in of]
    trained = [Mark(x.experiment, False, False, _trained(part, x.experiment), kept=True) for _, x in _both(part)]
    return [*trained, *found]


def sure(part: Evidence, experiment: str) -> bool:
    """Return whether vanilla's gain over the control is sure."""
    return study.gain_is_sure(part.of(experiment), experiment)


def _trained(part: Evidence, experiment: str) -> float:
    """Return the evaluations of vanilla as it was trained."""
    return fmean(study.lines_of(part.of(experiment))[experiment, VANILLA].costs["nfe"].values())


def _ways_to_save(part: Evidence) -> pd.DataFrame:
    """Return one line for each way to save, from the smallest to the largest ratio of all experiments."""
    stepped = {name: first_step.savings(part, name) for name in first_step.complete(part)}
    names = {f"the local penalty ({tables.draw(LOCAL[0])})": LOCAL[0], "the global penalty on the error": GLOBAL}
    found: dict[str, tuple[Found, str]] = {}
    for words_of, line in names.items():
        found[f"{words_of}, solved as it was trained"] = _alone(part, line), "vanilla's"
    found["a coarser solve, no penalty"] = _coarser(part), "vanilla's as it was trained"
    found["a local penalty and a coarser solve"] = _both(part), "vanilla's coarser solve"
    for words_of, line in names.items():
        chosen = [one.saving for of in stepped.values() for one in of if one.saving.line == line]
        found[f"{words_of}, with a chosen first step"] = _with_ratios(chosen), "vanilla's with its own chosen one"
    return pd.DataFrame(
        {
            "what is changed": what,
            "evaluations": f"**{_ends(of)}** of {beside}",
            "gain kept in": f"{_kept_in([saving for _, saving in of])} of {len(of)}",
            "worst error": _worst(of),
        }
        for what, (of, beside) in found.items()
        if of
    )


def _alone(part: Evidence, line: str) -> Found:
    """Return what a penalty saves, solved as it was trained, where vanilla and a local penalty have a coarser way."""
    names = [saving.experiment for _, saving in _both(part)]
    of = [saving for name in names for saving in study.equal_tolerance(part.rows, name) if saving.line == line]
    return _with_ratios(of)


def _coarser(part: Evidence) -> Found:
    """Return what a coarser solve of vanilla saves."""
    found = [endpoints.matched(part, ours.experiment)[0] for _, ours in _both(part)]
    return [(x.evaluations / _trained(part, x.experiment), x) for x in found if x is not None]


def _both(part: Evidence) -> Found:
    """Return what the penalty saves where both sides are solved coarsely."""
    return _with_ratios(
        ours
        for name in part.complete()
        for vanilla, ours in [endpoints.matched(part, name)]
        if vanilla is not None and ours is not None
    )


def _with_ratios(savings: Iterable[Saving]) -> Found:
    return [(mean_ratio(saving), saving) for saving in savings]


def mean_ratio(saving: Saving) -> float:
    """Return the mean ratio of evaluations."""
    return math.nan if saving.ratio is None else math.exp(saving.ratio.mean)


def _kept_in(savings: Sequence[Saving]) -> int:
    return sum(saving.verdict == COST[0] for saving in savings)


def _ends(found: Found) -> str:
    """Return '0.41x to 0.85x'."""
    return " to ".join(dict.fromkeys(f"{end(ratio for ratio, _ in found):.2f}x" for end in (min, max)))


def _worst(found: Found) -> str:
    errors = [saving for _, saving in found if saving.worse is not None and saving.metric != "log_likelihood"]
    most = max(errors, key=lambda saving: saving.worse.mean if saving.worse else 0.0, default=None)
    return error(most).removeprefix("error ") if most else ""


def error(saving: Saving) -> str:
    """Say how the error changed, so that a hopeless control cannot hide a loss; of a likelihood, in nats."""
    if saving.worse is None:
        return "error not known"
    if saving.metric == "log_likelihood":
        return f"{abs(saving.worse.mean):.2f} nats {'worse' if saving.worse.mean > 0 else 'better'}"
    return f"error {100 * math.expm1(saving.worse.mean):+.0f} %"


def without_a_penalty(part: Evidence) -> str:
    """Say in how many experiments a model without a penalty is as cheap as the penalized one, each solved coarsely."""
    plain = study.as_cheap(part.rows, part.complete())
    as_cheap = [name for name, of in plain.items() if of]
    kept = sum(_kept_in(plain[name]) > 0 for name in as_cheap)
    dearer = "; ".join(title(name) for name in plain if name not in as_cheap)
    return (
        "Without a penalty, plain or with weight decay, a model takes no more evaluations than the penalized one in "
        f"{len(as_cheap)} of {len(plain)}, with the gain kept in {kept}"
        + (f"; it takes more in: {dearer}." if dearer else ".")
    )


def goals(part: Evidence) -> str:
    """Say in how many experiments each registered endpoint is reached."""
    equal, matched, stepped = endpoints.equal_tolerance(part), endpoints.matched_error(part), first_step.endpoint(part)
    told = [
        f"at equal tolerance in **{equal.count()}** experiments where vanilla's gain is sure (hoped for: "
        f"{equal.hoped})",
        f"with the same freedom to solve on both sides in **{matched.count()}** (hoped for: {matched.hoped})",
    ]
    if stepped.savings:
        told.append(
            f"at equal tolerance with a chosen first step in **{stepped.count()}** that were measured (hoped for: "
            f"{stepped.hoped}; a further question, registered in commit {REGISTERED_IN[2]} when the first two had been "
            "answered)"
        )
    return (
        f"**What was registered and hoped for**: a local penalty that needs at most {equal.at_most:g}x of vanilla's "
        f"evaluations and keeps the gain: {'; '.join(told)}."
    )


def lead(part: Evidence) -> str:
    """Return what leads in `in_short`; of stars only where it has some."""
    starred = "*)" in in_short(part).to_string()
    return HEAD + (" A star: the way keeps most on held-out data, where none keeps what is asked." if starred else "")


def in_short(part: Evidence) -> pd.DataFrame:
    """Return one line for each experiment: vanilla as trained, the penalty alone, a coarser solve alone, and both."""
    alone = {saving.experiment: saving for _, saving in _alone(part, LOCAL[0])}
    coarser = {saving.experiment: (ratio, saving) for ratio, saving in _coarser(part)}
    lines = []
    for _, ours in _both(part):
        name = ours.experiment
        own, (share, vanilla) = alone[name], coarser[name]
        lines.append(
            {
                "experiment": title(name) + ("" if sure(part, name) else " (vanilla's gain is not sure)"),
                "vanilla": f"{_trained(part, name):.3g}",
                f"penalty alone ({tables.label(LOCAL[0])})": f"{bold(ratio_text(own.ratio))}: {own.evaluations:.3g}, "
                f"{_kept(own)}",
                "coarser solve alone": f"**{share:.2f}x**: {_cost(vanilla)}, {_kept(vanilla)}",
                "both": f"{bold(ratio_text(ours.ratio))}: {tables.label(ours.line)}, {_cost(ours)}, {_kept(ours)}",
            }
        )
    return pd.DataFrame(lines)


def _kept(saving: Saving) -> str:
    return f"gain {saving.verdict}, {error(saving)}"


def _cost(saving: Saving) -> str:
    """Say what a line takes in its way, with the star of `lead`."""
    if saving.way is None:
        return f"{saving.evaluations:.3g} (as in training)"
    star = "" if study.kept_on_held_out(saving.experiment, saving.line) else "*"
    return f"{saving.evaluations:.3g} ({words(saving.way)}{star})"
