"""What rows say against vanilla: ratios of means with intervals over seeds, and the gain kept (no torch)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

from reproduce.report import tables
from reproduce.report.evidence import Evidence, Group

LEVEL = 0.95
"""Level of every interval."""


@dataclass(frozen=True)
class Ratio:
    """A ratio of two means over seeds and its interval; no interval where one side has a single seed."""

    value: float
    low: float | None
    high: float | None

    def inverse(self) -> Ratio:
        """Return vanilla / ours for ours / vanilla."""
        turned = [None if end is None else 1 / end for end in (self.high, self.low)]
        return Ratio(1 / self.value, *turned)

    def text(self) -> str:
        """Return '0.55x [0.44, 0.70]', or '0.55x' without an interval."""
        interval = "" if self.low is None or self.high is None else f" [{self.low:.2f}, {self.high:.2f}]"
        return f"{self.value:.2f}x{interval}"


def ratio_of_means(ours: Sequence[float], vanilla: Sequence[float]) -> Ratio | None:
    """Return mean(ours) / mean(vanilla) with its 95 % t-interval over seeds; None unless both means are positive.

    Delta method on the logarithm: var(log ratio) = s1^2 / (n1 m1^2) + s2^2 / (n2 m2^2), degrees of freedom by Welch
    and Satterthwaite. Where no seed differs from another the interval is the point.
    """
    if not (ours and vanilla and statistics.fmean(ours) > 0 and statistics.fmean(vanilla) > 0):
        return None
    value = statistics.fmean(ours) / statistics.fmean(vanilla)
    if min(len(ours), len(vanilla)) < 2:
        return Ratio(value, None, None)
    parts = [statistics.variance(x) / (len(x) * statistics.fmean(x) ** 2) for x in (ours, vanilla)]
    if sum(parts) == 0:
        return Ratio(value, value, value)
    freedom = sum(parts) ** 2 / sum(part**2 / (len(x) - 1) for part, x in zip(parts, (ours, vanilla), strict=True))
    half = float(stats.t.ppf(0.5 + LEVEL / 2, freedom)) * math.sqrt(sum(parts))
    return Ratio(value, value * math.exp(-half), value * math.exp(half))


@dataclass(frozen=True)
class Comparison:
    """One line against vanilla and the control at the same tolerance."""

    ours: Group
    vanilla: Group
    control: Group
    nfe: Ratio | None
    predict: Ratio | None
    train: Ratio | None
    """Ours / vanilla; None where a row is missing (or the control, which solves nothing)."""
    gain: float
    """Share of vanilla's gain over the control that is kept; NaN where `gain_note` says why."""
    gain_note: str
    spread: float
    """Standard deviation of vanilla's metric over all its seeds; NaN for fewer than two."""

    @property
    def seeds(self) -> str:
        """The seeds behind the ratios in words: what is missing is said."""
        parts = {"": self.ours, "vanilla ": self.vanilla, "control ": self.control}
        short = [f"{who}{group.seeds}" for who, group in parts.items() if group.wanted and not group.complete]
        return ", ".join(short) if short else self.ours.seeds

    @property
    def complete(self) -> bool:
        """Whether no row that the comparison needs is missing."""
        return self.ours.complete and self.vanilla.complete and (self.control.complete or not self.control.wanted)


def compare(evidence: Evidence, experiment: str, regularizer: str, tolerance: float, variant: str = "") -> Comparison:
    """Compare a line with vanilla and the control of the same seeds.

    They are those of the same variant if the profile runs them, else the usual. A line with fewer seeds is compared
    with these alone: vanilla's cost differs much from seed to seed.

    Raises:
        ValueError: rows of several data sets or devices would be mixed.
    """

    ours = evidence.group(experiment, regularizer, tolerance, variant)

    def reference(name: str, like: Group | None = ours) -> Group:
        same = evidence.group(experiment, name, tolerance, variant, like=like)
        return same if same.wanted else evidence.group(experiment, name, tolerance, like=like)

    vanilla, control = reference(tables.VANILLA), reference(tables.CONTROL)
    spread = reference(tables.VANILLA, like=None).std("metric")
    rows = (*ours.rows, *vanilla.rows, *control.rows)
    for what, found in (
        ("data set", {row.data for row in rows}),
        ("device", {row.made_of.get("device") for row in rows}),
    ):
        if len(found) > 1:
            raise ValueError(f"rows of several {what}s cannot be compared: {sorted(map(str, found))}")
    solves = regularizer != tables.CONTROL

    def ratio(what: str) -> Ratio | None:
        return ratio_of_means(ours.values(what), vanilla.values(what)) if solves else None

    gain, gain_note = _gain_kept(ours, vanilla, control, spread)
    return Comparison(ours, vanilla, control, ratio("nfe"), ratio("predict"), ratio("train"), gain, gain_note, spread)


def _gain_kept(ours: Group, vanilla: Group, control: Group, spread: float) -> tuple[float, str]:
    """Return the share of the gain that is kept, or NaN and why there is no such share."""
    if not ours.rows or not vanilla.rows:
        return math.nan, "not run"
    if not control.rows:
        return math.nan, "control not run" if control.wanted else "no control in this profile"
    means = [group.mean("metric") for group in (ours, vanilla, control)]
    better = vanilla.rows[0].higher_is_better
    if not (1 if better else -1) * (means[1] - means[2]) > (0.0 if math.isnan(spread) else spread):
        return math.nan, "vanilla gains nothing over the control"
    return tables.gain_kept(means[0], vanilla=means[1], control=means[2], higher_is_better=better), ""
