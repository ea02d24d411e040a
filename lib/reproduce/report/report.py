"""What the report says around its verdicts: where rows are from, the rules, tables, deviations (no torch)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pandas as pd
import yaml

from reproduce import checkout
from reproduce.report import papers, tables
from reproduce.report.claims import Book
from reproduce.report.evidence import Evidence, made_by
from reproduce.report.verdicts import NOT_RUN, Verdict
from reproduce.runs import provenance
from reproduce.runs.registered import REGISTERED_IN, registered


def masthead(profile: str) -> str:
    """Return who wrote the report, of what, and from which state of the project it was made."""
    cited = yaml.safe_load((checkout.ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    authors = ", ".join(one.get("name") or f"{one['given-names']} {one['family-names']}" for one in cited["authors"])
    commit, dirty = provenance.commit()
    made = f"commit {commit[:7]}{'-dirty' if dirty else ''}"
    return (
        f"{authors}. Made on {datetime.now(UTC):%Y-%m-%d} from {made}, profile {profile}; protocol version "
        f"{registered()['version']}, registered in commit {REGISTERED_IN[registered()['version']]}."
    )


def origins(parts: Sequence[Evidence]) -> pd.DataFrame:
    """Return one line for each part of the evidence: how many rows there are, and what made them."""
    return pd.DataFrame(
        {"rows": part.name, "there": f"{len(part.rows)} of {sum(part.wanted.values())}", **made_by(part.rows)}
        for part in parts
    )


def beside(study: Sequence[Verdict], own: Sequence[Verdict]) -> pd.DataFrame:
    """Return the verdicts of the study beside those of a reader's rows: a line for each claim and form judged here."""
    of_own = {(one.claim.id, one.form): one for one in own}
    lines = []
    for one in study:
        mine = of_own.get((one.claim.id, one.form))
        if mine is None or NOT_RUN in (mine.direction, one.direction):
            continue
        cells = {name: f"{getattr(mine, name)} / {getattr(one, name)}" for name in ("direction", "agreement", "cost")}
        lines.append({"id": one.claim.id, "form": one.form, **cells})
    return pd.DataFrame(lines)


def beside_in_words(study: Sequence[Verdict], own: Sequence[Verdict]) -> str:
    """Say how a reader's verdicts compare with the study's: how many are decided here, and how many differ."""
    table = beside(study, own)
    if table.empty:
        return "Your machine has no rows of the study that can be judged: the verdicts are those of the study alone."
    pairs = [cell.split(" / ") for name in ("direction", "agreement", "cost") for cell in table[name]]
    decided = [(mine, ten) for mine, ten in pairs if mine not in ("undecided", "compatible", NOT_RUN)]
    against = sum(ten not in ("undecided", "compatible", mine) for mine, ten in decided)
    return (
        f"Your machine's seeds decide {len(decided)} of {len(pairs)} verdicts; of these the study says the contrary in "
        f"{against}, the same in {sum(mine == ten for mine, ten in decided)}, and does not decide the rest."
    )


def section(rules: Book, experiment: str, parts: Sequence[Evidence]) -> str:
    """Return an experiment's part of the report as markdown: what was run on which data, departures, the table."""
    captions = [f"{part.name}: {tables.caption(rows)}" for part in parts if (rows := part.of(experiment))]
    departures = ", ".join(rules.deviations.get(experiment, ())) or "none"
    text = [
        f"### {tables.title(experiment)}",
        papers.not_run(experiment, parts),
        *captions,
        f"Departures from the papers that belong to this table: {departures}.",
        tables.markdown(papers.experiment_table(experiment, parts)),
    ]
    return "\n\n".join(line for line in text if line)


def of_protocol(heading: str) -> str:
    """Return the text of a section of PROTOCOL.md, without links; ValueError if it has none of that name."""
    text = (checkout.ROOT / "PROTOCOL.md").read_text(encoding="utf-8")
    match = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL)
    if match is None:
        raise ValueError(
            f"PROTOCOL.md has no section {heading!r}; it has {re.findall('^## (.*)$', text, re.MULTILINE)}"
        )
    return unlinked(match[1].strip())


def unlinked(text: str) -> str:
    """Return Markdown with the words of links to other files alone: where a text is quoted they lead nowhere."""
    return re.sub(r"\[([^\]]*)\]\((?![a-z]+:|#)[^)]*\)", r"\1", text)


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
    return pd.DataFrame({"id": one.id, "what": f"**{one.title}.** {unlinked(one.text)}"} for one in deviations())
