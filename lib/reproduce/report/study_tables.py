"""The registered study for readers: the ledger in three forms, savings, and their sentences (no torch)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import pandas as pd

from reproduce.report import effects, papers, tables
from reproduce.report.effects import Effect
from reproduce.report.study import Saving, rules
from reproduce.report.verdicts import AGREEMENT, COST, DIRECTION, NOT_RUN, Part, Verdict
from reproduce.runs.curves import words


def ratio_text(effect: Effect | None) -> str:
    """Return '0.55x [0.44, 0.70]' for the logarithm of a ratio; empty where there is none."""
    if effect is None:
        return ""
    low, high = (math.exp(end) for end in effect.interval(rules()["level"]))
    return f"{math.exp(effect.mean):.2f}x [{low:.2f}, {high:.2f}]"


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


def ledger(judged: Sequence[Verdict]) -> pd.DataFrame:
    """Return one line for each claim, form and part, with the verdicts at the first part of each form."""
    lines = []
    for one in judged:
        for i, part in enumerate(one.parts):
            lines.append(_claim_cells(one, first=i == 0) | _part_cells(one, part))
    return pd.DataFrame(lines)


def _claim_cells(one: Verdict, *, first: bool) -> dict[str, str]:
    times = "" if one.claim.measure in ("nfe", "error") else " faster"
    cells = {
        "id": one.claim.id,
        "claim": one.claim.says,
        "printed": f"{one.claim.published:g}x{times}",
        "form": one.form,
        "direction": one.direction,
        "agreement": one.agreement,
        "gain": one.cost,
    }
    return cells if first else dict.fromkeys(cells, "")


def _part_cells(one: Verdict, part: Part) -> dict[str, str]:
    where = papers.TITLES.get(part.experiment, part.experiment)
    undecided = one.direction == DIRECTION[2] and part.ratio is not None
    found = math.exp(-effects.detectable(part.ratio, level=rules()["level"])) if undecided and part.ratio else math.nan
    return {
        "line": f"{where}: {tables.label(part.line)}",
        "ours over theirs": ratio_text(part.ratio) or NOT_RUN,
        "gain kept": kept_text(part.kept),
        "error": change_text(part.worse),
        "would have found": "" if math.isnan(found) else f"{found:.2f}x",
    }


def head(judged: Sequence[Verdict]) -> pd.DataFrame:
    """Return how many claims have which verdicts, one line for each form."""
    lines = []
    for form in dict.fromkeys(one.form for one in judged):
        of = [one for one in judged if one.form == form]
        line: dict[str, str | int] = {"form": form, "claims": len(of)}
        for title, names, given in (
            ("direction", DIRECTION, Counter(one.direction for one in of)),
            ("agreement", AGREEMENT, Counter(one.agreement for one in of)),
            ("gain", COST, Counter(one.cost for one in of)),
        ):
            line |= {f"{title}: {name}": given[name] for name in names}
        line[NOT_RUN] = sum(one.direction == NOT_RUN for one in of)
        lines.append(line)
    return pd.DataFrame(lines)


def savings(found: Sequence[Saving]) -> pd.DataFrame:
    """Return one line for each saving, in the order of tables."""
    order = tables.in_order(saving.line for saving in found)
    return pd.DataFrame(
        {
            "experiment": papers.TITLES.get(saving.experiment, saving.experiment),
            "line": tables.label(saving.line),
            "solved by": "as in training" if saving.way is None else words(saving.way),
            "evaluations": f"{saving.evaluations:.1f}",
            "over vanilla's": ratio_text(saving.ratio),
            "gain kept": kept_text(saving.kept),
            "verdict": saving.cost,
            "seeds": saving.seeds,
        }
        for saving in sorted(found, key=lambda saving: (saving.experiment, order.index(saving.line)))
    )


def reached(found: Sequence[Saving], *, at_most: float, lines: Sequence[str]) -> str:
    """Return as one sentence in how many experiments one of the lines reaches a ratio with the gain kept, and which."""
    names = list(dict.fromkeys(saving.experiment for saving in found))
    able = [n for n in names if any(s.reached(at_most) for s in found if s.experiment == n and s.line in lines)]
    titles = [papers.TITLES.get(name, name) for name in able]
    what = " or ".join(tables.label(line) for line in lines)
    which = f": {', '.join(titles)}" if titles else ""
    return f"{what}: at most {at_most:g}x the evaluations, with the gain kept, in {len(able)} of {len(names)}{which}."
