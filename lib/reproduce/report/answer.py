"""The report's first paragraph and the README's: what the study says, in sentences made from its rows (no torch)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import fmean

import pandas as pd

from reproduce.report import first_step, ladders, precision, study, tables
from reproduce.report.against_global import in_words
from reproduce.report.evidence import Evidence
from reproduce.report.study import LOCAL, Saving, rules
from reproduce.report.study_tables import FORM_TITLES, bold, ratio_text
from reproduce.report.tables import VANILLA, title
from reproduce.report.verdicts import AGREEMENT, COST, DIRECTION, NOT_RUN, Verdict
from reproduce.runs.curves import words
from reproduce.runs.registered import REGISTERED_IN, registered

HEAD = (
    "Ratios of evaluations of f, and the evaluations for one prediction: of the penalty and of the coarser solve to "
    "vanilla as it was trained, of both to vanilla's coarser solve. A coarser solve is the cheapest way that kept the "
    "gain on held-out data; it *fails* where the gain on test data is not surely kept. Errors are those on test data "
    "beside vanilla's as it was trained. In brackets: lines that were trained for few steps."
)
"""Leads in the table."""
HOPED = {"equal": 4, "matched": 3}
"""In how many experiments PROTOCOL.md hopes for each endpoint."""


def state(part: Evidence) -> str:
    """Say how much of the study there is, and which version of the protocol it follows."""
    done, wanted = len(part.rows), sum(part.wanted.values())
    left = [title(name) for name in part.wanted if name not in part.complete()]
    rest = f" Still to be trained: {'; '.join(left)}; what is said is about the others." if left else ""
    return (
        f"The study has {done:,} of {wanted:,} rows, registered as version 1 of the protocol in commit "
        f"{REGISTERED_IN[1]} before its first run; the protocol is at version {registered()['version']}.{rest}"
    )


def in_a_minute(part: Evidence) -> str:
    """Say what the penalty saves, what a coarser solve of vanilla saves alone, and what the penalty adds to that."""
    penalty: list[tuple[float, Saving]] = []
    coarser: list[tuple[float, Saving]] = []
    both: list[tuple[float, Saving]] = []
    for name in part.complete():
        equal = {saving.line: saving for saving in study.equal_tolerance(part.rows, name)}
        vanilla, ours = _matched(part, name)
        own = study.lines_of(part.of(name)).get((name, VANILLA))
        if LOCAL[0] not in equal or vanilla is None or ours is None or own is None:
            continue
        trained = fmean(own.costs["nfe"].values())
        penalty.append((_ratio(equal[LOCAL[0]]), equal[LOCAL[0]]))
        coarser.append((vanilla.evaluations / trained, vanilla))
        both.append((_ratio(ours), ours))
    if not penalty:
        return ""
    n = len(penalty)
    larger = [saving for (alone, saving), (trained, _) in zip(coarser, penalty, strict=True) if alone < trained]
    sure = [saving for _, saving in both if saving.ratio and saving.ratio.interval(rules()["level"])[1] < 0]
    kept = [sum(saving.verdict == COST[0] for saving in of) for of in (larger, sure)]
    return (
        "**In a minute.** Evaluations of f for one prediction, from the smallest to the largest ratio of "
        f"{n} experiments. Errors are those on test data beside vanilla's as it was trained, but for the "
        "flow, which has likelihoods:\n\n"
        f"* **the penalty**: a model with the {tables.draw(LOCAL[0])} local penalty, solved as it was trained, takes "
        f"{_range(penalty)};\n"
        f"* **a coarser solve**: vanilla itself, with no penalty at all, solved as coarsely as held-out data allow, "
        f"takes {_range(coarser, ' as it was trained')};\n"
        f"* **both**: a penalized model with the same freedom takes {_range(both, ' in its coarser solve')}.\n\n"
        f"So the coarser solve alone saves more than the penalty alone in {len(larger)} of {n} (gain kept in "
        f"{kept[0]} of these), and the penalty adds to it, by its interval, in {len(sure)} of {n} (gain kept in "
        f"{kept[1]} of these)."
    )


def _ratio(saving: Saving) -> float:
    return math.nan if saving.ratio is None else math.exp(saving.ratio.mean)


def _range(found: Sequence[tuple[float, Saving]], what: str = "") -> str:
    """Say from where to where ratios to a model go, how often the gain was kept, and the largest rise of an error."""
    ends = list(dict.fromkeys(f"{end(ratio for ratio, _ in found):.2f}x" for end in (min, max)))
    kept = sum(saving.verdict == COST[0] for _, saving in found)
    errors = [saving for _, saving in found if saving.worse is not None and saving.metric != "log_likelihood"]
    most = max(errors, key=lambda saving: saving.worse.mean if saving.worse else 0.0, default=None)
    lost = f", {_error(most)} at most" if most else ""
    return f"{' to '.join(ends)} of vanilla's{what} (gain kept in {kept} of {len(found)}{lost})"


def _error(saving: Saving) -> str:
    """Say how the error changed, so that a hopeless control cannot hide a loss; of a likelihood, in nats."""
    if saving.worse is None:
        return "error not known"
    if saving.metric == "log_likelihood":
        return f"{abs(saving.worse.mean):.2f} nats {'worse' if saving.worse.mean > 0 else 'better'}"
    return f"error {100 * math.expm1(saving.worse.mean):+.0f} %"


def equal_tolerance(part: Evidence, *, in_full: bool = True) -> str:
    """Say in how many experiments a local penalty halves the evaluations at equal tolerance, which miss it, and why."""
    at_most = rules()["equal_tolerance"]
    names = [name for name in part.complete() if study.gain_is_sure(part.of(name), name)]
    apart = "; ".join(title(name) for name in part.complete() if name not in names)
    found = {name: {s.line: s for s in study.equal_tolerance(part.rows, name) if s.line in LOCAL} for name in names}
    reached = {line: [n for n in names if line in found[n] and found[n][line].reached(at_most)] for line in LOCAL}
    missed = [name for name in names if not any(name in able for able in reached.values())]
    counts = ", ".join(f"{tables.draw(line)} in {len(able)}" for line, able in reached.items())
    said = (
        f"**At equal tolerance** a local penalty needs at most {at_most:g}x vanilla's evaluations, with the gain kept, "
        f"in {len(names) - len(missed)} of {len(names)} experiments where dynamics matter (hoped for: "
        f"{HOPED['equal']}; {counts})."
        + (f" Not counted, since vanilla's gain over the control is not sure: {apart}." if apart else "")
    )
    rounding = precision.missed(precision.rows(), missed)
    if not in_full or not missed:
        return " ".join(filter(None, [said, rounding]))
    least = {name: ratio for name in missed if (ratio := ladders.least(name)) is not None}
    told = [
        f"* {title(name)}: {', '.join(f'{tables.draw(line)} {_ratio(of):.2f}x' for line, of in found[name].items())}"
        + (f"; least on held-out data {least[name]:.2f}x" if name in least else "")
        for name in missed
    ]
    above = sum(ratio > at_most for ratio in least.values())
    rest = "" if above == len(least) else "; elsewhere the gain or the spread over seeds is in the way"
    why = (
        "*Least on held-out data* is what the cheapest weight of the ladders took, whether it kept the gain or not: of "
        f"other seeds, so that it may lie above. In {above} of {len(least)} no weight that was tried reaches the "
        f"ratio{rest}."
    )
    return "\n\n".join(
        [f"{said} It is missed in", "\n".join(told), *([why] if least else []), *filter(None, [rounding])]
    )


def matched_error(part: Evidence) -> str:
    """Say in how many experiments the local penalty halves the evaluations with the same freedom for both sides."""
    at_most, found = rules()["matched_error"], {name: _matched(part, name) for name in part.complete()}
    solved = {name: ours for name, (vanilla, ours) in found.items() if vanilla is not None and ours is not None}
    reached = sum(ours.reached(at_most) for ours in solved.values())
    unsolved = "; ".join(title(name) for name in found if name not in solved)
    rest = f" The way that was chosen for one side solves no seed of: {unsolved}." if unsolved else ""
    plain = study.as_cheap(part.rows, part.complete())
    as_cheap = [name for name, of in plain.items() if of]
    kept = sum(any(saving.verdict == COST[0] for saving in plain[name]) for name in as_cheap)
    dearer = "; ".join(title(name) for name in plain if name not in as_cheap)
    return (
        "**With the same freedom on both sides**, where penalty and way to solve (looser tolerances, lower orders, "
        f"a few fixed steps) were chosen on held-out data, the local penalty needs at most {at_most:g}x vanilla's "
        f"evaluations, with the gain kept, in {reached} of {len(found)} experiments (hoped for: {HOPED['matched']}). "
        "Without a penalty, plain or with weight decay, a model takes no more evaluations than the penalized one in "
        f"{len(as_cheap)} of {len(plain)}, with the gain kept in {kept}"
        + (f"; it takes more in: {dearer}." if dearer else ".")
        + rest
    )


def _matched(part: Evidence, experiment: str) -> tuple[Saving | None, Saving | None]:
    """Return vanilla and the local penalty that the ladders chose, each solved in its chosen way."""
    ways = study.chosen_ways(experiment)
    found = {saving.line: saving for saving in study.matched_error(part.rows, experiment, ways)}
    return found.get(VANILLA), found.get(study.chosen_line(experiment, study.PENALIZED) or "")


def printed(judged: Sequence[Verdict]) -> str:
    """Say how the papers' claims came out: in our form with every verdict, in theirs with the direction."""
    n, told = len({one.claim.id for one in judged}), []
    others = len({one.claim.id for one in judged if one.claim.against != VANILLA})
    for form, words_of in FORM_TITLES.items():
        of = [one for one in judged if one.form == form and one.direction != NOT_RUN]
        if not of:
            continue
        said = f"{words_of}: {_counts(of, 'direction', DIRECTION)} of the {len(of)} that were run"
        if form == "ours":
            said += f"; {_counts(of, 'agreement', AGREEMENT)}; the gain {_counts(of, 'cost', COST)}"
        told.append(said)
    if not told:
        return f"**The papers' {n} claims** cannot be judged yet: none of their experiments is complete."
    return (
        f"**The papers' {n} claims**, each judged on the ratio that it is about (to vanilla; {others} to the global "
        f"penalty), with the penalty in {'. In '.join(told)}."
    )


def _counts(judged: Sequence[Verdict], what: str, names: Sequence[str]) -> str:
    """Say how many verdicts there are of each name."""
    found = Counter(getattr(one, what) for one in judged)
    return ", ".join(f"{name} in {found[name]}" for name in names)


def lead(part: Evidence) -> str:
    """Return what leads in the table; of stars only where it has some."""
    starred = "*)" in in_short(part).to_string()
    return HEAD + (" A star: the way keeps most on held-out data, where none keeps what is asked." if starred else "")


def paragraphs(part: Evidence) -> list[str]:
    """Return the answer: in short, endpoints, local against global, the papers' claims, how much there is, a lead."""
    judged = study.ledger(part.judged())
    if not part.complete():
        return [state(part)]
    found = (
        in_a_minute(part),
        equal_tolerance(part),
        matched_error(part),
        first_step.in_words(part),
        in_words(part.rows, part.complete()),
    )
    return [text for text in (*found, printed(judged), state(part), lead(part)) if text]


def in_short(part: Evidence) -> pd.DataFrame:
    """Return one line for each experiment: vanilla as trained, the penalty alone, a coarser solve alone, and both."""
    lines = []
    for name in part.complete():
        equal = {saving.line: saving for saving in study.equal_tolerance(part.rows, name)}
        vanilla, ours = _matched(part, name)
        if LOCAL[0] not in equal or vanilla is None or ours is None:
            continue
        own, trained = equal[LOCAL[0]], fmean(study.lines_of(part.of(name))[name, VANILLA].costs["nfe"].values())
        sure = study.gain_is_sure(part.of(name), name)
        lines.append(
            {
                "experiment": title(name) + ("" if sure else " (vanilla's gain is not sure)"),
                "vanilla": f"{trained:.3g}",
                f"penalty alone ({tables.label(LOCAL[0])})": f"{bold(ratio_text(own.ratio))}: {own.evaluations:.3g}, "
                f"{_kept(own)}",
                "coarser solve alone": f"**{vanilla.evaluations / trained:.2f}x**: {_cost(vanilla)}, {_kept(vanilla)}",
                "both": f"{bold(ratio_text(ours.ratio))}: {tables.label(ours.line)}, {_cost(ours)}, {_kept(ours)}",
            }
        )
    return pd.DataFrame(lines)


def _kept(saving: Saving) -> str:
    return f"gain {saving.verdict}, {_error(saving)}"


def _cost(saving: Saving) -> str:
    """Say what a line takes in its way, with the star of `lead`."""
    if saving.way is None:
        return f"{saving.evaluations:.3g} (as in training)"
    star = "" if study.kept_on_held_out(saving.experiment, saving.line) else "*"
    return f"{saving.evaluations:.3g} ({words(saving.way)}{star})"
