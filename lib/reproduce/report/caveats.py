"""What a reader must know before believing the ledger: its history, whose form is judged, the cheap alternative."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
import yaml

from reproduce import checkout
from reproduce.report import claims, papers, tables
from reproduce.report.claims import Book
from reproduce.report.evidence import Evidence, Group
from reproduce.report.ratios import ratio_of_means

FORMS = {":released": "as their code has it (the first stage held constant)", ":text": "as their text has it"}
"""Ends of the names of penalties in the papers' form, and what they mean."""


def history() -> Mapping[str, Any]:
    """Return the earlier ledgers and what was changed after each was read (data/reference/history.yaml)."""
    path = checkout.ROOT / "data" / "reference" / "history.yaml"
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def caveats(rules: Book, part: Evidence) -> list[str]:
    """Return the caveats as sentences of markdown, the rows' numbers computed from `part`."""
    found = (_revised(rules, part), _whose_form(part), _blocked(rules, part), _clock(part))
    return [line for line in found if line]


def _counts(verdicts: Mapping[str, int]) -> str:
    return " / ".join(f"{verdicts[name]} {name}" for name in claims.VERDICTS)


def _revised(rules: Book, part: Evidence) -> str:
    ledgers = history()["ledgers"]
    given = [judgement.verdict for judgement in claims.ledger(rules, part)]
    now = {name: given.count(name) for name in claims.VERDICTS}
    reached = claims.goal(rules, part)
    told = " ".join(_before(ledger) for ledger in ledgers)
    return (
        f"**Today's ledger is number {len(ledgers) + 1}: much was changed after the earlier ones had been read, on "
        f"the same test data.** {told} Today's reads {_counts(now)}, the goal reached in "
        f"{sum(line.verdict == 'reached' for line in reached)} of {len(reached)} experiments."
    )


def _before(ledger: Mapping[str, Any]) -> str:
    """An earlier ledger, and what was changed after it, in two sentences."""
    changes = "; ".join(f"{change['what']} ({change['commit']})" for change in ledger["changes"])
    return (
        f"That of commit {ledger['commit']} read {_counts(ledger['verdicts'])}, the goal reached in "
        f"{ledger['goal_reached']}. Then: {changes}."
    )


def _whose_form(part: Evidence) -> str:
    measured = "".join(f" {_of_form(part, end, words)}" for end, words in FORMS.items()).rstrip()
    return (
        "**The verdicts are about our form of the penalty**, not the papers': one step of the solver's own size, "
        "without the factor dt, all stages differentiated (D05, D06, D07). The published weights were "
        "found for code that holds the first stage constant; how much more or less they act when it is differentiated, "
        f"lesson 04 measures.{measured}"
    )


def _of_form(part: Evidence, end: str, words: str) -> str:
    """Evaluations against vanilla's of the biased penalty in one of the papers' forms, as a sentence; maybe none."""
    found = []
    for experiment in part.experiments():
        for tolerance, regularizer, variant in part.lines(experiment):
            if regularizer != f"local_biased{end}" or variant:
                continue
            ours = part.group(experiment, regularizer, tolerance)
            vanilla = part.group(experiment, tables.VANILLA, tolerance, like=ours)
            ratio = ratio_of_means(ours.values("nfe"), vanilla.values("nfe"))
            where = papers.TITLES.get(experiment, experiment)
            found += [] if ratio is None else [f"{ratio.text()} on {where} at {tolerance:g} (seeds: {ours.seeds})"]
    return f"With the published weights {words}: evaluations {'; '.join(found)}." if found else ""


def _blocked(rules: Book, part: Evidence) -> str:
    ids = [one.claim.id for one in claims.ledger(rules, part) if claims.blocked_by_gain(one)]
    if not ids:
        return ""
    return (
        f"**In {len(ids)} claims ({', '.join(ids)}) the means are as good as published, and the gain stands in the "
        "way:** one of their lines keeps too little of what vanilla gains over the control."
    )


def _clock(part: Evidence) -> str:
    rows = [row for row in part.found() if row.made_of.get("device", "cpu") != "cpu"]
    if not rows:
        return ""
    names = ", ".join(sorted({str(row.provenance.get("device")) for row in rows}))
    return (
        f"**Times on {names} are times on the wall**, read when the device had done its work, while other runs may "
        "have shared it (`JOBS=1` has them alone); rows of the CPU have processor time of one thread. Trust NFE first."
    )


def loosened(part: Evidence) -> pd.DataFrame:
    """Return what loosening the tolerance alone gives, beside the local penalty: one line for each way.

    Of each experiment whose vanilla was trained at two tolerances: vanilla at both, local biased at both, with the
    seeds that all of these lines have.
    """
    lines = []
    for experiment in part.experiments():
        at = sorted({tol for tol, name, variant in part.lines(experiment) if name == tables.VANILLA and not variant})
        if len(at) < 2:
            continue
        ways = [(name, tol) for tol in (at[0], at[-1]) for name in (tables.VANILLA, "local_biased")]
        groups = {way: part.group(experiment, way[0], way[1]) for way in ways}
        shared = set.intersection(*({row.seed for row in group.rows} for group in groups.values()))
        if not shared:
            continue
        groups = {way: _of_seeds(group, shared) for way, group in groups.items()}
        start = groups[ways[0]].mean("nfe")
        for (name, tolerance), group in groups.items():
            row = group.rows[0]
            lines.append(
                {
                    "experiment": papers.TITLES.get(experiment, experiment),
                    "trained and solved with": f"{tables.label(name)}, at {tolerance:g}",
                    "NFE": f"{group.mean('nfe'):.1f}",
                    "against the tight vanilla": f"{group.mean('nfe') / start:.2f}x",
                    "test metric": f"{row.metric} {group.mean('metric'):.4g}"
                    + ("" if math.isnan(group.std("metric")) else f" ± {group.std('metric'):.1g}"),
                    "seeds": len(shared),
                }
            )
    return pd.DataFrame(lines)


def loosened_in_words(part: Evidence) -> str:
    """Return the ratios of `loosened` as one sentence; empty where no vanilla was trained at two tolerances."""
    table = loosened(part)
    if table.empty:
        return ""
    lines = []
    for experiment, ways in table.groupby("experiment", sort=False):
        _, penalty, loose, both = ways["against the tight vanilla"]
        lines.append(f"{experiment}: loosening alone {loose}, the penalty alone {penalty}, both {both}")
    return (
        "**The cheap alternative is a looser tolerance.** NFE against vanilla's at the tight tolerance: "
        f"{'; '.join(lines)}. Whoever can accept the looser tolerance has the first number without any penalty; the "
        "tables above compare at equal tolerance."
    )


def _of_seeds(group: Group, seeds: set[int]) -> Group:
    return Group(tuple(row for row in group.rows if row.seed in seeds), wanted=frozenset(seeds))
