"""The registered verdicts: for each claim and each form of the penalty its direction, agreement and cost (no torch)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reproduce.report import effects
from reproduce.report.claims import Claim, book
from reproduce.report.effects import Effect, Seeds
from reproduce.runs.registered import registered
from reproduce.runs.store import CONTROL, VANILLA

FORMS = {"ours": "", "released": ":released", "text": ":text"}
"""Forms of a local penalty -> how their lines end. Claims about other penalties have the first alone."""
DIRECTION = ("below 1", "above 1", "undecided")
AGREEMENT = ("better than printed", "worse than printed", "compatible", "undecided")
"""The last is said where a part has no number: what cannot be compared is not compatible."""
COST = ("kept", "lost", "undecided")
NOT_RUN = "not run"
PRINTED = {
    "nfe": ("nfe",),
    "predict": ("predict_seconds",),
    "train": ("train_hours", "train_seconds_per_batch", "train_seconds"),
    "error": ("test_loss", "mse"),
}
"""Measure -> names of its numbers in the papers' tables."""
PRINTED_NAMES = {VANILLA: "vanilla", "global_error+global_stiffness": "global_both"}


@dataclass(frozen=True)
class Line:
    """What a verdict needs of the runs of one line: numbers by seed."""

    costs: Mapping[str, Seeds]
    """Measure -> what it takes; of evaluations, seconds, and the test error, so that less is better."""
    values: Seeds
    """The metric, signed so that higher is better."""


Lines = Mapping[tuple[str, str], Line]
"""(experiment, line) -> its numbers; the papers' forms of local_biased are 'local_biased:released' and ':text'."""


@dataclass(frozen=True)
class Part:
    """What the rows say on one line of a claim."""

    experiment: str
    line: str
    ratio: Effect | None
    """Logarithm of ours over theirs."""
    printed: Effect | None
    """The same of the printed numbers, where they have a deviation."""
    lost: Effect | None
    """See `effects.lost_beyond`; None without a control."""
    kept: tuple[float, float, float] = (math.nan, math.nan, math.nan)
    """Share of the gain that is kept, and its interval."""
    worse: Effect | None = None
    """Logarithm of our error over vanilla's."""


@dataclass(frozen=True)
class Verdict:
    """The three verdicts on a claim in one form; each is 'not run' where rows are missing."""

    claim: Claim
    form: str
    direction: str
    agreement: str
    cost: str
    parts: tuple[Part, ...] = field(default=())
    alpha: float = 0.05
    """Error rate at which Holm's procedure stopped refuting directions: an undecided one would have had to pass it."""


def claims() -> list[Claim]:
    """Return the claims of claims.yaml, and those that protocol.yaml registers besides."""
    return [*book().claims, *(Claim(**entry) for entry in registered()["besides"])]


def forms(claim: Claim) -> list[str]:
    """Return the forms that a claim is judged in."""
    return list(FORMS) if claim.local else ["ours"]


def ledger(
    lines: Lines, found: Sequence[Claim], printed: Mapping[str, Any], *, gain: float, level: float, runs: int
) -> list[Verdict]:
    """Return the verdicts on all claims in all forms, each of the three families corrected by Holm.

    Args:
        lines: the rows' numbers.
        found: the claims.
        printed: the papers' tables, by experiment (tables.published).
        gain: share of vanilla's gain over the control that counts as kept.
        level: one minus the error rate of each family.
        runs: behind a printed standard deviation.
    """
    each = [(claim, form) for claim in found for form in forms(claim)]
    judged = [(claim, form, _parts(claim, form, lines, printed, gain, level, runs)) for claim, form in each]
    alpha = 1 - level  # of a family: all claims in all forms, those that were not run among them
    direction = effects.sides([_of_ratio(claim, parts, 0.0) for claim, _, parts in judged], DIRECTION, alpha)
    agreement = effects.sides([_of_ratio(claim, parts, None) for claim, _, parts in judged], AGREEMENT[:3], alpha)
    agreement = [_compared(one, parts) for one, (_, _, parts) in zip(agreement, judged, strict=True)]
    cost = effects.sides([_of_cost(claim, parts) for claim, _, parts in judged], COST, alpha)
    stopped = alpha / max(1, len(direction) - sum(one in DIRECTION[:2] for one in direction))
    return [
        Verdict(claim, form, d or NOT_RUN, a or NOT_RUN, c or NOT_RUN, parts, stopped)
        for (claim, form, parts), d, a, c in zip(judged, direction, agreement, cost, strict=True)
    ]


def _compared(agreement: str, parts: Sequence[Part]) -> str:
    """Return the agreement with the printed number: undecided, and not compatible, where a part has no number."""
    none = any(part.ratio is not None and math.isnan(part.ratio.mean) for part in parts)
    return AGREEMENT[3] if none and agreement == AGREEMENT[2] else agreement


def _parts(
    claim: Claim, form: str, lines: Lines, printed: Mapping[str, Any], gain: float, level: float, runs: int
) -> tuple[Part, ...]:
    return tuple(
        _part(claim, experiment, line + FORMS[form], lines, printed, gain=gain, level=level, runs=runs)
        for experiment, of in claim.parts.items()
        for line in of
    )


def _part(
    claim: Claim,
    experiment: str,
    line: str,
    lines: Lines,
    printed: Mapping[str, Any],
    *,
    gain: float,
    level: float,
    runs: int,
) -> Part:
    ours, theirs = lines.get((experiment, line)), lines.get((experiment, claim.against))
    vanilla, control = lines.get((experiment, VANILLA)), lines.get((experiment, CONTROL))
    ratio = lost = worse = None
    kept = (math.nan, math.nan, math.nan)
    if ours is not None and theirs is not None:
        ratio = effects.log_ratio(ours.costs.get(claim.measure, {}), theirs.costs.get(claim.measure, {}))
    if ours is not None and vanilla is not None:
        worse = effects.log_ratio(ours.costs.get("error", {}), vanilla.costs.get("error", {}))
        if control is not None:
            lost = effects.lost_beyond(ours.values, vanilla.values, control.values, share=gain)
            kept = effects.kept_interval(ours.values, vanilla.values, control.values, level=level)
    expected = _printed(claim, experiment, line.partition(":")[0], printed, runs)
    return Part(experiment, line, ratio, expected, lost, kept, worse)


def _printed(claim: Claim, experiment: str, line: str, printed: Mapping[str, Any], runs: int) -> Effect:
    """Return the printed ratio: with its deviation where the claim is about one experiment and its table has one."""
    rows = printed.get(experiment, {}).get("rows", {})
    ours, theirs = (rows.get(PRINTED_NAMES.get(name, name), {}) for name in (line, claim.against))
    names = [name for name in PRINTED[claim.measure] if name in ours and name in theirs]
    if len(claim.parts) > 1 or not names:
        return Effect(math.log(claim.ratio), 0.0, math.inf)
    return effects.printed_log_ratio(ours[names[0]], theirs[names[0]], ratio=claim.ratio, runs=runs)


def _of_ratio(claim: Claim, parts: Sequence[Part], at: float | None) -> tuple[float, float] | None:
    """Return the p-values of being below and above: one, or (at None) the printed ratio."""
    pairs = []
    for part in parts:
        if part.ratio is None or part.printed is None:
            return None
        effect = part.ratio if at is not None else part.ratio.minus(part.printed)
        pairs.append((effect.below(at or 0.0), effect.above(at or 0.0)))
    return effects.combined(pairs, claim.combine)


def _of_cost(claim: Claim, parts: Sequence[Part]) -> tuple[float, float] | None:
    """Return the p-values of having kept the gain, and of having lost it."""
    pairs = [(part.lost.below(), part.lost.above()) for part in parts if part.lost is not None]
    return effects.combined(pairs, claim.combine) if pairs and len(pairs) == len(parts) else None
