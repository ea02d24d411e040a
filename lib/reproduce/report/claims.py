"""The claims ledger: each published claim, the rule written down before, and the verdict of the rows (no torch)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

from reproduce import checkout
from reproduce.report.evidence import Evidence
from reproduce.report.ratios import LEVEL, Comparison, Ratio, compare
from reproduce.runs.store import VANILLA

HOLDS, DIRECTION, FAILS, NOT_RUN = "holds", "same direction", "does not hold", "not run"
VERDICTS = (HOLDS, DIRECTION, FAILS, NOT_RUN)
MEASURES = {"nfe": "NFE ratio", "predict": "faster prediction", "train": "faster training", "error": "error"}


TOO_LITTLE = "too little of the gain is kept"


@dataclass(frozen=True)
class Claim:
    """One published number, and what would bear it out."""

    id: str
    says: str
    source: str
    measure: str
    """A key of MEASURES."""
    published: float
    parts: Mapping[str, Sequence[str]]
    """Experiment -> regularizers."""
    combine: Literal["all", "any"] = "all"
    keeps: Literal["gain", "error"] = "gain"
    note: str = ""
    against: str = VANILLA
    """The line that ours is compared with."""

    @property
    def ratio(self) -> float:
        """The published cost, ours over theirs: of times, the inverse of how many times faster."""
        return self.published if self.measure in ("nfe", "error") else 1 / self.published

    @property
    def local(self) -> bool:
        """Whether it is about local penalties alone."""
        return all(line.startswith("local_") for lines in self.parts.values() for line in lines)

    def __post_init__(self) -> None:
        if self.measure not in MEASURES or self.combine not in ("all", "any") or self.keeps not in ("gain", "error"):
            raise ValueError(f"claim {self.id}: unknown measure, combine or keeps: {self}")
        if not (self.published > 0 and any(self.parts.values())):
            raise ValueError(f"claim {self.id}: needs a positive published number and at least one regularizer")

    def met_by_mean(self, finding: Finding) -> bool:
        """Return whether a finding's ratio itself, without its interval, is as good as the published number."""
        if finding.ratio is None:
            return False
        value = finding.ratio.value
        return value <= self.published if self.measure == "nfe" else value >= self.published


@dataclass(frozen=True)
class Book:
    """The claims and the rules of data/reference/claims.yaml."""

    claims: tuple[Claim, ...]
    numbers: Mapping[str, float]
    verdicts: Mapping[str, str]
    """Verdict -> its rule in words."""
    tolerances: Mapping[str, float]
    """Experiment -> published tolerance."""
    deviations: Mapping[str, Sequence[str]]
    """Experiment (or 'all') -> ids of DEVIATIONS.md."""
    elsewhere: tuple[Mapping[str, str], ...]
    goal: Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """What the rows of one profile say about one experiment and regularizer of a claim."""

    experiment: str
    regularizer: str
    verdict: str
    why: str
    tolerance: float = math.nan
    ratio: Ratio | None = None
    gain: float = math.nan
    seeds: str = NOT_RUN

    def text(self) -> str:
        """Return the measured numbers in words; why there are none, otherwise."""
        if self.ratio is None:
            return self.why
        kept = "" if math.isnan(self.gain) else f", gain kept {self.gain:.2f}"
        why = f"; {self.why}" if self.why else ""
        return f"{self.ratio.text()}{kept}, seeds {self.seeds}, tolerance {self.tolerance:g}{why}"


@dataclass(frozen=True)
class Judgement:
    """The verdict of one profile's rows on a claim, and the findings behind it."""

    claim: Claim
    evidence: str
    verdict: str
    findings: tuple[Finding, ...] = field(default=())

    @property
    def deciding(self) -> tuple[Finding, ...]:
        """The findings that have the verdict of the whole."""
        return tuple(finding for finding in self.findings if finding.verdict == self.verdict)


def book() -> Book:
    """Return the claims and rules; ValueError for a claim that is not as it should be."""
    path = checkout.ROOT / "data" / "reference" / "claims.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    numbers = {**content["numbers"], "level": LEVEL}
    if tuple(content["verdicts"]) != VERDICTS:
        raise ValueError(f"{path}: verdicts must be {VERDICTS}, found {tuple(content['verdicts'])}")
    claims = tuple(Claim(**entry) for entry in content["claims"])
    if len({claim.id for claim in claims}) < len(claims):
        raise ValueError(f"{path}: an id is used twice")
    return Book(
        claims=claims,
        numbers=numbers,
        verdicts={name: text.format(**numbers).strip() for name, text in content["verdicts"].items()},
        tolerances=content["published_tolerances"],
        deviations=content["deviations"],
        elsewhere=tuple(content["elsewhere"]),
        goal=content["goal"],
    )


def ledger(rules: Book, evidence: Evidence) -> list[Judgement]:
    """Return the verdict of one profile's rows on every claim."""
    return [judge(claim, evidence, rules) for claim in rules.claims]


def judge(claim: Claim, evidence: Evidence, rules: Book) -> Judgement:
    """Return the verdict of one profile's rows on one claim: the rule of claims.yaml, computed."""
    findings = tuple(
        _finding(claim, experiment, regularizer, evidence, rules)
        for experiment, regularizers in claim.parts.items()
        for regularizer in regularizers
    )
    given = {finding.verdict for finding in findings}
    order = (FAILS, NOT_RUN, DIRECTION, HOLDS) if claim.combine == "all" else (HOLDS, NOT_RUN, DIRECTION, FAILS)
    verdict = next(verdict for verdict in order if verdict in given)
    return Judgement(claim, evidence.name, verdict, findings)


def nearest_tolerance(rules: Book, evidence: Evidence, experiment: str, regularizer: str) -> float | None:
    """Return the tolerance nearest to the published one at which a profile runs a line (variants left out), or None.

    Of an experiment that no paper has: the tightest.
    """
    found = [at for at, name, variant in evidence.lines(experiment) if name == regularizer and not variant]
    published = rules.tolerances.get(experiment)
    if published is None:
        return min(found, default=None)
    return min(found, key=lambda at: abs(math.log(at / published)), default=None)


def _finding(claim: Claim, experiment: str, regularizer: str, evidence: Evidence, rules: Book) -> Finding:
    """Judge one experiment and regularizer at the tolerance nearest to the published one."""
    tolerance = nearest_tolerance(rules, evidence, experiment, regularizer)
    if tolerance is None:
        return Finding(experiment, regularizer, NOT_RUN, f"not in profile {evidence.profile}")
    against = compare(evidence, experiment, regularizer, tolerance)
    if reason := _why_not_run(claim, against, evidence.profile):
        return Finding(experiment, regularizer, NOT_RUN, reason, tolerance)
    relative = getattr(against, claim.measure)
    verdict, why = verdict_of(claim, relative, against, rules.numbers)
    shown = relative if claim.measure == "nfe" else relative.inverse()
    return Finding(experiment, regularizer, verdict, why, tolerance, shown, against.gain, against.seeds)


def _why_not_run(claim: Claim, against: Comparison, profile: str) -> str:
    """Return why there is nothing to judge; empty if there is."""
    for who, group in (("ours", against.ours), ("vanilla", against.vanilla)):
        if not group.rows:
            return NOT_RUN if who == "ours" else f"{who} {NOT_RUN}"
    if claim.keeps == "gain" and not against.control.rows:
        return f"control {NOT_RUN if against.control.wanted else f'not in profile {profile}'}"
    if profile == "smoke":
        return "a smoke run shows that everything works, and nothing else"
    if any("stand-in" in row.data.lower() for row in (*against.ours.rows, *against.vanilla.rows)):
        return "run on a stand-in, not on the data of the claim"
    return "" if getattr(against, claim.measure) is not None else "no ratio: a mean is not positive"


def verdict_of(claim: Claim, cost: Ratio, against: Comparison, numbers: Mapping[str, float]) -> tuple[str, str]:
    """Return the verdict and, where it is not plain from the numbers, why.

    Args:
        claim: the claim.
        cost: ours / vanilla of the claim's measure, so that below 1 is better.
        against: the comparison that it comes from.
        numbers: of claims.yaml.
    """
    target = claim.ratio
    worst = cost.value if cost.high is None else cost.high
    if worst >= 1:
        reason = "the interval reaches 1" if cost.value < 1 else "not better than vanilla"
        return FAILS, reason
    kept_all, kept_some, why = _keeps(claim, against, numbers)
    if not kept_some:
        return FAILS, why
    short = "one seed, no interval" if cost.high is None else "" if against.complete else "seeds missing"
    if short or not kept_all:
        return DIRECTION, short or why
    return (HOLDS, "") if worst <= target else (DIRECTION, "")


def _keeps(claim: Claim, against: Comparison, numbers: Mapping[str, float]) -> tuple[bool, bool, str]:
    """Return whether enough is kept to hold, whether enough for the direction, and why not."""
    if claim.keeps == "error":
        rows = against.vanilla.rows
        sign = 1 if rows[0].higher_is_better else -1
        loss = sign * (against.vanilla.mean("metric") - against.ours.mean("metric"))
        fine = loss <= (0.0 if math.isnan(against.spread) else against.spread)
        return fine, fine, "the error is worse by more than vanilla's spread"
    if math.isnan(against.gain):
        return False, True, against.gain_note
    some = against.gain >= numbers["gain_for_direction"]
    return against.gain >= numbers["gain_to_hold"], some, TOO_LITTLE


def met_by_means(judgement: Judgement) -> bool:
    """Whether a claim that shows the direction only has means, without their intervals, as good as published."""
    return judgement.verdict == DIRECTION and all(map(judgement.claim.met_by_mean, judgement.findings))


def blocked_by_gain(judgement: Judgement) -> bool:
    """Whether it is the gain kept, of one line at least, that keeps such a claim from holding."""
    return met_by_means(judgement) and any(finding.why == TOO_LITTLE for finding in judgement.findings)


@dataclass(frozen=True)
class Reached:
    """What the quick profile reached of this project's own goal in one experiment."""

    experiment: str
    regularizer: str
    variant: str
    """How the line was trained otherwise than the profile's main ones, in words; empty for those."""
    tolerance: float
    nfe: float
    predict: float
    gain: float
    seeds: str
    verdict: str
    """'reached', 'not reached', or NOT_RUN."""
    because: str


def goal(rules: Book, evidence: Evidence) -> list[Reached]:
    """Return, for each experiment of the goal, the line that comes nearest to it (by NFE among those that reach it)."""
    experiments: Mapping[str, str] = rules.goal["experiments"]
    return [_reached(rules.goal, name, because, evidence) for name, because in experiments.items()]


def _reached(goal: Mapping[str, Any], experiment: str, because: str, evidence: Evidence) -> Reached:
    candidates: list[tuple[int, float, Reached]] = []
    for tolerance, regularizer, variant in evidence.lines(experiment):
        if regularizer not in goal["regularizers"]:
            continue
        against = compare(evidence, experiment, regularizer, tolerance, variant)
        if against.nfe is None or against.predict is None:
            continue
        nfe, predict, gain = against.nfe.value, 1 / against.predict.value, against.gain
        meets = [nfe <= goal["nfe"], predict >= goal["predict"], gain >= goal["gain"]]
        several = len(against.ours.rows) > 1  # the goal is one of means: one seed may be a lucky one
        verdict = "reached" if all(meets) and against.complete and several else "not reached"
        numbers = (tolerance, nfe, predict, gain)
        line = Reached(experiment, regularizer, variant, *numbers, against.seeds, verdict, because)
        candidates.append((-sum(meets) - (verdict == "reached"), nfe, line))
    if not candidates:
        return Reached(experiment, "", "", math.nan, math.nan, math.nan, math.nan, NOT_RUN, NOT_RUN, "")
    return min(candidates, key=lambda candidate: candidate[:2])[2]
