"""The report's answer: what the study says, in sentences made from its rows (no torch)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from reproduce.report import endpoints, first_step, ladders, minute, precision, study, tables
from reproduce.report.against_global import in_words
from reproduce.report.evidence import Evidence
from reproduce.report.study import LOCAL
from reproduce.report.study_tables import FORM_TITLES
from reproduce.report.tables import VANILLA, title
from reproduce.report.told import mean_ratio
from reproduce.report.verdicts import AGREEMENT, COST, DIRECTION, NOT_RUN, Verdict
from reproduce.runs.registered import REGISTERED_IN, registered


def state(part: Evidence) -> str:
    """Say how much of the study there is, and which version of the protocol it follows."""
    done, wanted = len(part.rows), sum(part.wanted.values())
    left = [title(name) for name in part.wanted if name not in part.complete()]
    rest = f" Still to be trained: {'; '.join(left)}; what is said is about the others." if left else ""
    return (
        f"The study has {done:,} of {wanted:,} rows, registered as version 1 of the protocol in commit "
        f"{REGISTERED_IN[1]} before its first run; the protocol is at version {registered()['version']}."
        f"{broke_off(part)}{rest}"
    )


def broke_off(part: Evidence) -> str:
    """Say which trainings broke off; '' for none."""
    found = [row for row in part.rows if row.broke_off]
    told = "; ".join(f"{title(row.experiment)}, {tables.label(row.regularizer)}, seed {row.seed}" for row in found)
    return (
        f" Of its trainings {len(found)} broke off, so that a verdict on its line alone is undecided: {told}."
        if found
        else ""
    )


def equal_tolerance(part: Evidence) -> str:
    """Say in how many experiments a local penalty halves the evaluations at equal tolerance, which miss it, and why."""
    found = endpoints.equal_tolerance(part)
    missed = [name for name in found.savings if name not in found.reached()]
    counts = ", ".join(f"{tables.draw(line)} in {len(found.reached(line))}" for line in LOCAL)
    said = (
        f"**At equal tolerance** a local penalty needs at most {found.at_most:g}x vanilla's evaluations, with the gain "
        f"kept, in {found.count()} experiments where dynamics matter (hoped for: {found.hoped}; {counts})."
        f"{found.not_counted()}"
    )
    if not missed:
        return said
    least = {name: ratio for name in missed if (ratio := ladders.least(name)) is not None}
    told = [
        f"* {title(name)}: "
        + ", ".join(f"{tables.draw(of.line)} {mean_ratio(of):.2f}x" for of in found.savings[name])
        + (f"; least on held-out data {least[name]:.2f}x" if name in least else "")
        for name in missed
    ]
    above = sum(ratio > found.at_most for ratio in least.values())
    rest = "" if above == len(least) else "; elsewhere the gain or the spread over seeds is in the way"
    why = (
        "*Least on held-out data* is what the cheapest weight of the ladders took, whether it kept the gain or not: of "
        f"other seeds, so that it may lie above. In {above} of {len(least)} no weight that was tried reaches the "
        f"ratio{rest}."
    )
    rounding = precision.missed(precision.rows(), missed)
    return "\n\n".join(
        [f"{said} It is missed in", "\n".join(told), *([why] if least else []), *filter(None, [rounding])]
    )


def matched_error(part: Evidence) -> str:
    """Say in how many experiments the local penalty halves the evaluations with the same freedom for both sides."""
    found = endpoints.matched_error(part)
    unsolved = "; ".join(title(name) for name, of in found.savings.items() if not of)
    rest = f" The way that was chosen for one side solves no seed of: {unsolved}." if unsolved else ""
    return (
        "**With the same freedom on both sides**, where penalty and way to solve (looser tolerances, lower orders, "
        f"a few fixed steps) were chosen on held-out data, the local penalty needs at most {found.at_most:g}x "
        f"vanilla's evaluations, with the gain kept, in {found.count()} experiments (hoped for: {found.hoped}). "
        f"{minute.without_a_penalty(part)}{rest}"
    )


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


def paragraphs(part: Evidence) -> list[str]:
    """Return the answer: in short, endpoints, local against global, the papers' claims, how much there is, a lead."""
    judged = study.ledger(part.judged())
    if not part.complete():
        return [state(part)]
    found = (
        minute.in_a_minute(part),
        equal_tolerance(part),
        matched_error(part),
        first_step.in_words(part),
        in_words(part.rows, part.complete()),
    )
    return [text for text in (*found, printed(judged), state(part), minute.lead(part)) if text]
