"""The registered study for readers: the ledger in three forms, savings, and their sentences (no torch)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import pandas as pd

from reproduce.report import effects, tables
from reproduce.report.effects import Effect
from reproduce.report.study import Saving, gain_is_sure, rules
from reproduce.report.verdicts import AGREEMENT, COST, DIRECTION, NOT_RUN, Verdict
from reproduce.runs.curves import words
from reproduce.runs.store import Row


def ratio_text(effect: Effect | None) -> str:
    """Return '0.55x [0.44, 0.70]' for the logarithm of a ratio; empty where there is none."""
    if effect is None:
        return ""
    if math.isnan(effect.mean):
        return "without a number in some seed"
    low, high = (math.exp(end) for end in effect.interval(rules()["level"]))
    digits = 2
    while digits < 6 and (low > 1 >= round(low, digits) or high < 1 <= round(high, digits)):
        digits += 1  # an interval that lies beside 1 is not written as one that touches it
    return f"{math.exp(effect.mean):.{digits}f}x [{low:.{digits}f}, {high:.{digits}f}]"


def titled(experiment: str, rows: Sequence[Row]) -> str:
    """Return the title of an experiment, which says where vanilla's gain is not sure, from its rows."""
    return tables.title(experiment) + ("" if gain_is_sure(rows, experiment) else " (vanilla's gain is not sure)")


def span(of_all: Sequence[Effect | None]) -> str:
    """Return '0.41x to 0.85x', the smallest and the largest of some ratios; empty where there is none."""
    means = [math.exp(effect.mean) for effect in of_all if effect is not None and not math.isnan(effect.mean)]
    return " to ".join(dict.fromkeys(f"{end(means):.2f}x" for end in (min, max))) if means else ""


def bold(ratio: str) -> str:
    """Make what stands before an interval bold."""
    share, *interval = ratio.split(" [", maxsplit=1)
    return " [".join([f"**{share}**", *interval])


def kept_text(kept: tuple[float, float, float]) -> str:
    """Return '0.98 [0.95, 1.01]' for a share that is kept; says where its interval has no end."""
    share, low, high = kept
    if math.isnan(share):
        return ""
    return f"{share:.2f} [{low:.2f}, {high:.2f}]" if math.isfinite(low) else f"{share:.2f} (vanilla's gain is not sure)"


def change_text(effect: Effect | None) -> str:
    """Return '+3.1 % [+1.0, +5.2]' for the logarithm of a ratio of errors; empty where there is none."""
    if effect is None:
        return ""
    low, high = (100 * math.expm1(end) for end in effect.interval(rules()["level"]))
    return f"{100 * math.expm1(effect.mean):+.1f} % [{low:+.1f}, {high:+.1f}]"


def nats_text(effect: Effect | None) -> str:
    """Return '+0.31 nats [+0.10, +0.52]' for a difference of log-likelihoods; empty where there is none."""
    if effect is None:
        return ""
    low, high = effect.interval(rules()["level"])
    return f"{effect.mean:+.2f} nats [{low:+.2f}, {high:+.2f}]"


FORM_TITLES = {"ours": "our form", "released": "the papers' code", "text": "the papers' text"}
"""Forms of the penalty for readers."""


def ledger(judged: Sequence[Verdict]) -> pd.DataFrame:
    """Return one line for each claim: what is printed, and in each form ratio, verdicts, and power where undecided."""
    of: dict[str, dict[str, str]] = {}
    for one in judged:
        printed = f"{one.claim.ratio:.3g}x"
        if one.claim.ratio != one.claim.published:
            printed += f" (as {one.claim.published:g}x faster)"
        line = of.setdefault(
            one.claim.id,
            {"id": one.claim.id, "claim": one.claim.says, "printed": printed},
        )
        line[FORM_TITLES[one.form]] = cell(one)
    return pd.DataFrame(of.values()).fillna("")


def cell(one: Verdict) -> str:
    """Return a claim's verdicts in one form as text: of one part with its numbers, of several with the verdicts alone.

    A claim without rows is said to be not run. Ratios are costs, ours over theirs, of times, too.
    """
    if one.direction == NOT_RUN:
        return NOT_RUN
    said = f"**{one.direction}**, {one.agreement}, gain {one.cost}"
    numbers = [_power(one)]
    if len(one.parts) == 1:
        (part,) = one.parts
        numbers = [ratio_text(part.ratio), f"kept {kept}" if (kept := kept_text(part.kept)) else "", *numbers]
    return f"{said}: {told}" if (told := ", ".join(filter(None, numbers))) else said


def _power(one: Verdict) -> str:
    """The ratio that rows of such a spread would have decided with the power of `effects.detectable`.

    It is that of the part with the widest spread, and of a test as strict as the corrected one.
    """
    sizes = [effects.detectable(part.ratio, level=1 - one.alpha) for part in one.parts if part.ratio is not None]
    found = max(sizes, default=math.nan)
    return f"would have found {math.exp(-found):.2f}x" if one.direction == DIRECTION[2] and found < math.inf else ""


def head(judged: Sequence[Verdict]) -> pd.DataFrame:
    """Return how many claims have which verdicts, one line for each form."""
    lines = []
    for form in dict.fromkeys(one.form for one in judged):
        of = [one for one in judged if one.form == form]
        given = {
            "direction": Counter(one.direction for one in of),
            "agreement": Counter(one.agreement for one in of),
            "gain": Counter(one.cost for one in of),
        }
        names = {"direction": DIRECTION, "agreement": AGREEMENT, "gain": COST}
        line: dict[str, str | int] = {"form": FORM_TITLES[form], "claims": len(of)}
        for title, counts in given.items():
            line[title] = ", ".join(f"{counts[name]} {name}" for name in names[title] if counts[name])
        line[NOT_RUN] = given["direction"][NOT_RUN]
        lines.append(line)
    return pd.DataFrame(lines)


def savings(found: Sequence[Saving]) -> pd.DataFrame:
    """Return one line for each saving, in the order of tables."""
    order = tables.in_order(saving.line for saving in found)
    return pd.DataFrame(
        {
            "experiment": tables.title(saving.experiment),
            "line": tables.label(saving.line),
            "solved by": "as in training" if saving.way is None else words(saving.way),
            "evaluations": f"{saving.evaluations:.1f}",
            "over vanilla's": ratio_text(saving.ratio),
            "gain kept": kept_text(saving.kept),
            "verdict": saving.verdict,
            "error": nats_text(saving.worse) if saving.metric == "log_likelihood" else change_text(saving.worse),
            "seeds": saving.seeds,
        }
        for saving in sorted(found, key=lambda saving: (saving.experiment, order.index(saving.line)))
    )
