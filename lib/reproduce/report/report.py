"""What the report says: where the rows are from, the ledger, the goal, what follows, the deviations (no torch)."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from reproduce import checkout
from reproduce.report import claims, papers, tables
from reproduce.report.claims import Book, Finding, Judgement, Reached
from reproduce.report.evidence import Evidence, Wanted, kept, own
from reproduce.report.papers import NOT_RUN, title
from reproduce.runs import store


def profiles(profile: str) -> list[str]:
    """Return the profiles whose rows of this machine a report shows: its own, and paper where there is any row."""
    return list(dict.fromkeys([profile, *(["paper"] if store.rows("paper") else [])]))


def evidence(runs: Mapping[str, Sequence[Wanted]]) -> list[Evidence]:
    """Return what there is to report: this machine's rows, then the committed ones unless they are the same.

    Args:
        runs: profile -> the runs that it lists. The first is the report's own: its evidence is there even when empty.
    """
    mine = [own(profile, wanted) for profile, wanted in runs.items()]
    keys = {row.key for part in mine for row in part.found()}
    others = [kept(profile) for profile in ("quick", "paper")]
    others = [part for part in others if not {row.key for row in part.found()} <= keys]
    return [part for part in mine + others if part.found() or part is mine[0]]


def origins(parts: Sequence[Evidence]) -> pd.DataFrame:
    """Return one line for each part of the evidence: how many rows there are, and what made them."""
    return pd.DataFrame(
        {
            "profile": part.profile,
            "rows from": part.place,
            "rows": f"{len(part.found())} of {len(part.wanted)}",
            "data": "; ".join(sorted({row.data for row in part.found()})) or NOT_RUN,
            "commits": ", ".join(sorted({_commit(row.provenance) for row in part.found()})),
            "machine": "; ".join(sorted({_machine(row.provenance) for row in part.found()})),
        }
        for part in parts
    )


def _commit(made: Mapping[str, Any]) -> str:
    return str(made.get("commit", "unknown"))[:7] + ("-dirty" if made.get("dirty") else "")


def _machine(made: Mapping[str, Any]) -> str:
    if "platform" not in made:
        return "unknown"
    versions = made.get("versions", {})
    return f"{made['platform']}, {made.get('device', 'cpu')}, torch {versions.get('torch', 'unknown')}"


def where_from(part: Evidence) -> str:
    """Return in words which rows a table shows; of a smoke run, that they show nothing."""
    return f"Rows: {part.name}." + (f" {tables.SMOKE}" if part.profile == "smoke" else "")


def in_short(rules: Book, part: Evidence) -> pd.DataFrame:
    """Return the local penalties of every experiment, published ratios to vanilla beside ours: one line for each."""
    lines = []
    for experiment in papers.experiments([part]):
        for regularizer in rules.goal["regularizers"]:
            tolerance = claims.nearest_tolerance(rules, part, experiment, regularizer)
            if tolerance is not None:
                lines.append(papers.short_line(experiment, regularizer, tolerance, part))
    return pd.DataFrame(lines)


# The ledger


def ledger(rules: Book, parts: Sequence[Evidence]) -> pd.DataFrame:
    """Return the ledger: one line for each claim, one column for each part of the evidence."""
    judged = {part.name: claims.ledger(rules, part) for part in parts}
    return pd.DataFrame(
        {
            "id": claim.id,
            "claim": claim.says,
            "source": claim.source,
            "published": f"{claim.published:g}x" + ("" if claim.measure == "nfe" else " faster"),
            **{name: _verdict(judgements[i]) for name, judgements in judged.items()},
        }
        for i, claim in enumerate(rules.claims)
    )


def _verdict(judgement: Judgement) -> str:
    findings = judgement.deciding
    if judgement.verdict == NOT_RUN:
        reasons = dict.fromkeys(
            finding.experiment + ("" if finding.why == NOT_RUN else f" ({finding.why})") for finding in findings
        )
        return f"{NOT_RUN}: {'; '.join(reasons)}"
    several = len(judgement.findings) > 1
    return f"**{judgement.verdict}** " + "; ".join(_named(finding, several) for finding in findings)


def _named(finding: Finding, several: bool) -> str:
    where = papers.TITLES.get(finding.experiment, finding.experiment)
    return f"{where}, {title(finding.regularizer)}: {finding.text()}" if several else finding.text()


def head(rules: Book, parts: Sequence[Evidence]) -> pd.DataFrame:
    """Return how many claims have which verdict, one line for each part of the evidence."""
    lines = []
    for part in parts:
        given = Counter(judgement.verdict for judgement in claims.ledger(rules, part))
        lines.append({"rows": part.name} | {verdict: given[verdict] for verdict in claims.VERDICTS})
    return pd.DataFrame(lines)


def goal(rules: Book, part: Evidence) -> pd.DataFrame:
    """Return what was reached of the project's own goal, one line for each experiment."""
    return pd.DataFrame(_goal_line(reached) for reached in claims.goal(rules, part))


def _goal_line(reached: Reached) -> dict[str, str]:
    where = papers.TITLES.get(reached.experiment, reached.experiment)
    if reached.verdict == NOT_RUN:
        return {"experiment": where, "best local line": NOT_RUN} | dict.fromkeys(
            ("NFE ratio", "faster", "gain kept", "seeds", "verdict", "why"), ""
        )
    return {
        "experiment": where,
        "best local line": f"{title(reached.regularizer, reached.variant)}, at {reached.tolerance:g}",
        "NFE ratio": f"{reached.nfe:.2f}x",
        "faster": f"{reached.predict:.2f}x",
        "gain kept": "none to keep" if math.isnan(reached.gain) else f"{reached.gain:.2f}",
        "seeds": reached.seeds,
        "verdict": reached.verdict,
        "why": "" if reached.verdict == "reached" else reached.because,
    }


def goal_in_words(rules: Book, part: Evidence) -> str:
    """Return the goal and how many experiments reach it, as one sentence."""
    found, asked = claims.goal(rules, part), rules.goal
    reached = sum(line.verdict == "reached" for line in found)
    absent = sum(line.verdict == NOT_RUN for line in found)
    missing = f"; {absent} not run" if absent else ""
    return (
        f"This project's own goal for profile {asked['profile']}: at most {asked['nfe']:g}x the evaluations and "
        f"predictions at least {asked['predict']:g}x faster, with at least {asked['gain']:.0%} of the gain kept, in "
        f"{asked['needed']} of {len(found)} experiments. Reached in {reached} ({part.name}{missing})."
    )


def section(rules: Book, experiment: str, parts: Sequence[Evidence]) -> str:
    """Return an experiment's part of the report as markdown: what was run on which data, departures, the table."""
    captions = [
        f"{part.name}: {tables.caption(rows)}"
        for part in parts
        if (rows := [row for row in part.found() if row.experiment == experiment])
    ]
    departures = ", ".join(rules.deviations.get(experiment, ())) or "none"
    text = [
        f"## {papers.TITLES.get(experiment, experiment)}",
        papers.not_run(experiment, parts),
        *captions,
        f"Departures from the papers that belong to this table: {departures}.",
        tables.markdown(papers.experiment_table(experiment, parts)),
    ]
    return "\n\n".join(line for line in text if line)


# The deviations


@dataclass(frozen=True)
class Deviation:
    """One departure from the papers or their code, as DEVIATIONS.md tells it."""

    id: str
    section: str
    title: str
    text: str


def deviations() -> list[Deviation]:
    """Return the entries of DEVIATIONS.md: headings `### D01 · title` below headings `## section`."""
    found: list[Deviation] = []
    section = ""
    for block in re.split(
        r"^(?=##)", (checkout.ROOT / "DEVIATIONS.md").read_text(encoding="utf-8"), flags=re.MULTILINE
    ):
        line, _, text = block.partition("\n")
        if match := re.fullmatch(r"### (D\d\d) · (.+)", line):
            found.append(Deviation(match[1], section, match[2], " ".join(text.split())))
        elif line.startswith("## "):
            section = line.removeprefix("## ")
    return found


def deviations_table() -> pd.DataFrame:
    """Return the deviations for readers."""
    return pd.DataFrame({"id": one.id, "what": f"**{one.title}.** {one.text}"} for one in deviations())


def conclusions(rules: Book, parts: Sequence[Evidence]) -> list[str]:
    """Return what follows, in sentences made from the verdicts: for each part of the evidence, then the goal."""
    asked = [part for part in parts if part.profile == rules.goal["profile"]]
    return [*(_conclusion(rules, part) for part in parts), *(goal_in_words(rules, part) for part in asked)]


def _conclusion(rules: Book, part: Evidence) -> str:
    judged = claims.ledger(rules, part)
    of = {verdict: [one for one in judged if one.verdict == verdict] for verdict in claims.VERDICTS}
    ids = {verdict: ", ".join(one.claim.id for one in found) or "none" for verdict, found in of.items()}
    met = [one for one in of[claims.DIRECTION] if claims.met_by_means(one)]
    reasons = {
        "too little of the gain is kept": [one.claim.id for one in met if claims.blocked_by_gain(one)],
        "only its interval reaches further": [one.claim.id for one in met if not claims.blocked_by_gain(one)],
    }
    wide = "; ".join(f"{', '.join(found)}: {why}" for why, found in reasons.items() if found)
    missing = dict.fromkeys(finding.experiment for one in of[NOT_RUN] for finding in one.deciding)
    sentences = [
        f"**{part.name}**, {len(part.found())} of {len(part.wanted)} rows, {len(judged)} claims.",
        f"Holds: {ids[claims.HOLDS]}.",
        f"Same direction: {ids[claims.DIRECTION]}"
        + (f" (the mean alone is as good as published in {wide})." if wide else "."),
        f"Does not hold: {ids[claims.FAILS]}.",
        f"Not run: {ids[NOT_RUN]}" + (f" (no rows of {', '.join(missing)})." if missing else "."),
    ]
    return " ".join(sentences)


def shown(parts: Sequence[Evidence]) -> Evidence:
    """Return the part that figures are drawn from: the first that has rows."""
    return next((part for part in parts if part.found()), parts[0])
