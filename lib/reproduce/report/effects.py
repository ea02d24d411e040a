"""Effects over seeds and what they decide: paired differences, their intervals, Holm's correction (no torch)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import special

Seeds = Mapping[int, float]
"""Seed -> a number of the run with this seed."""


@dataclass(frozen=True)
class Effect:
    """A mean over seeds with its standard error: of logarithms of ratios, or of differences."""

    mean: float
    error: float
    freedom: float
    """Degrees of freedom of the error."""

    def interval(self, level: float) -> tuple[float, float]:
        """Return the two-sided t-interval."""
        half = quantile(0.5 + level / 2, self.freedom) * self.error
        return self.mean - half, self.mean + half

    def above(self, at: float = 0.0) -> float:
        """Return the p-value of the one-sided test against an effect of at most `at`."""
        if self.error == 0:
            return 0.0 if self.mean > at else 1.0
        return float(special.stdtr(self.freedom, (at - self.mean) / self.error))

    def below(self, at: float = 0.0) -> float:
        """Return the p-value of the one-sided test against an effect of at least `at`."""
        return Effect(-self.mean, self.error, self.freedom).above(-at)

    def minus(self, other: Effect) -> Effect:
        """Return the difference to an independent effect; degrees of freedom by Welch and Satterthwaite."""
        parts = [(self.error**2, self.freedom), (other.error**2, other.freedom)]
        total = sum(part for part, _ in parts)
        freedom = total**2 / sum(part**2 / n for part, n in parts) if total else math.inf
        return Effect(self.mean - other.mean, math.sqrt(total), freedom)


def quantile(p: float, freedom: float) -> float:
    """Return a quantile of Student's distribution; of the normal one for infinite degrees of freedom."""
    return float(special.ndtri(p) if math.isinf(freedom) else special.stdtrit(freedom, p))


def mean_effect(values: Sequence[float]) -> Effect | None:
    """Return the mean of values, one for each seed, as an effect; None for fewer than two: one seed decides nothing."""
    if len(values) < 2:
        return None
    n = len(values)
    return Effect(math.fsum(values) / n, math.sqrt(_covariance(values, values) / n), n - 1)


def average(of: Seeds) -> float:
    """Return the mean over seeds; NaN for none."""
    return math.fsum(of.values()) / len(of) if of else math.nan


def log_ratio(ours: Seeds, theirs: Seeds) -> Effect | None:
    """Return the mean over common seeds of log(ours / theirs); None for fewer than two, NaN where one is not positive.

    Runs of one seed share initialization, batches and, where it goes by seed, the split: so they are compared in pairs.
    """
    pairs = [(ours[seed], theirs[seed]) for seed in sorted(set(ours) & set(theirs))]
    return mean_effect([math.log(one / other) if one > 0 and other > 0 else math.nan for one, other in pairs])


def printed_log_ratio(ours: Sequence[float], theirs: Sequence[float], *, ratio: float, runs: int) -> Effect:
    """Return a printed ratio as an effect, from the printed [mean, standard deviation] over so many runs of both."""
    parts = [Effect(0.0, deviation / mean / math.sqrt(runs), runs - 1) for mean, deviation in (ours, theirs)]
    both = parts[0].minus(parts[1])
    return Effect(math.log(ratio), both.error, both.freedom)


def lost_beyond(ours: Seeds, vanilla: Seeds, control: Seeds, *, share: float) -> Effect | None:
    """Return the mean over seeds of (vanilla - ours) - (1 - share) (vanilla - control); of values, higher is better.

    Below 0: more than `share` of vanilla's gain over the control is kept. There is no quotient, so that a small gain
    makes the verdict uncertain and not wild. None for fewer than two common seeds.
    """
    seeds = sorted(set(ours) & set(vanilla) & set(control))
    return mean_effect([(vanilla[seed] - ours[seed]) - (1 - share) * (vanilla[seed] - control[seed]) for seed in seeds])


def kept_interval(ours: Seeds, vanilla: Seeds, control: Seeds, *, level: float) -> tuple[float, float, float]:
    """Return the share of the gain that is kept, and its interval by Fieller's theorem: all that are not refuted.

    NaN where there is no gain; -inf and inf where the interval has no end.
    """
    seeds = sorted(set(ours) & set(vanilla) & set(control))
    gained, total = ([x[seed] - control[seed] for seed in seeds] for x in (ours, vanilla))
    n = len(seeds)
    if n < 2:
        return math.nan, math.nan, math.nan
    mean, whole = math.fsum(gained) / n, math.fsum(total) / n
    if not whole > 0:
        return math.nan, math.nan, math.nan
    t2 = quantile(0.5 + level / 2, n - 1) ** 2 / n
    a = whole**2 - t2 * _covariance(total, total)
    b = mean * whole - t2 * _covariance(gained, total)
    c = mean**2 - t2 * _covariance(gained, gained)
    share = mean / whole
    if a <= 0:  # the gain itself is not surely there
        return share, -math.inf, math.inf
    root = math.sqrt(max(0.0, b**2 - a * c))  # below 0 by rounding alone
    return share, (b - root) / a, (b + root) / a


def _covariance(x: Sequence[float], y: Sequence[float]) -> float:
    mean_x, mean_y = math.fsum(x) / len(x), math.fsum(y) / len(y)
    return math.fsum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / (len(x) - 1)


def combined(pairs: Sequence[tuple[float, float]], how: str) -> tuple[float, float]:
    """Return the p-values of a claim on several parts, (below, above), from those of its parts.

    'all': every part has to be below; one that is above refutes it. 'any': one below is enough; all above refute it.
    Where one part is enough, its p-value counts as often as there are parts (Bonferroni).
    """
    below, above = zip(*[(1.0, 1.0) if any(map(math.isnan, pair)) else pair for pair in pairs], strict=True)
    n = len(pairs)
    if how == "all":
        return max(below), min(1.0, n * min(above))
    return min(1.0, n * min(below)), max(above)


def holm(p: Sequence[float], alpha: float) -> list[bool]:
    """Return which hypotheses are refuted, so that with probability 1 - alpha no true one is among them.

    Source: Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    refuted = [False] * len(p)
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        if not p[i] <= alpha / (len(p) - rank):
            break
        refuted[i] = True
    return refuted


def sides(pairs: Sequence[tuple[float, float] | None], names: tuple[str, str, str], alpha: float) -> list[str]:
    """Return a verdict for each pair of one-sided p-values: names are (below, above, undecided); '' for None.

    Both sides are tested at once, and the whole family is corrected by Holm. What was not run (None) counts as a
    comparison that refutes nothing, so that a family is as strict before its last rows as after them.
    """
    refuted = holm([1.0 if pair is None else two_sided(pair) for pair in pairs], alpha)
    verdicts = [""] * len(pairs)
    for i, (pair, decided) in enumerate(zip(pairs, refuted, strict=True)):
        if pair is not None:
            verdicts[i] = names[2] if not decided else names[0] if pair[0] < pair[1] else names[1]
    return verdicts


def two_sided(pair: tuple[float, float]) -> float:
    """Return the p-value of both sides, from those of each; what is not a number refutes nothing."""
    return 1.0 if any(map(math.isnan, pair)) else min(1.0, 2 * min(pair))


def detectable(effect: Effect, *, level: float, power: float = 0.8) -> float:
    """Return the size of a true effect that such an error finds with probability `power`, in a test at 1 - level."""
    return effect.error * (quantile(0.5 + level / 2, effect.freedom) + quantile(power, effect.freedom))
