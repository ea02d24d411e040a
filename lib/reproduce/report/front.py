"""The README's generated block: the first picture, the answer, the times of whole runs (no torch)."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from reproduce import checkout
from reproduce.files import write_atomically
from reproduce.report import ablation, against_global, answer, history, minute, tables
from reproduce.report.evidence import Evidence, study
from reproduce.report.study import ledger
from reproduce.report.study_tables import head
from reproduce.runs import store

BEGIN, END = "<!-- generated: make report -->", "<!-- end -->"
PICTURE = "13_in_a_minute"
CLAIMS = (
    "**The papers' claims**, each judged on the ratio of costs that it is about: below or above 1 or undecided, better "
    "than printed or compatible with it or worse, the gain kept or lost. With the penalty in our form, in that of the "
    "papers' code, and in that of their text:"
)
"""Leads in the table of verdicts."""
BLOCK = re.compile(re.escape(BEGIN) + r"\n(.*?)\n?" + re.escape(END), re.DOTALL)
LINE = re.compile(r"^\* (\w+): ([\d.]+) min on (\d+) cores, commit (\S+), (\d{4}-\d\d-\d\d)$", re.MULTILINE)


@dataclass(frozen=True)
class Time:
    """How long a whole run of a profile took, from nothing stored to the report."""

    minutes: float
    cores: int
    commit: str
    day: str


def read_times(readme: str) -> dict[str, Time]:
    """Return the times that a README's block holds, by profile."""
    match = BLOCK.search(readme)
    found = LINE.findall(match[1]) if match else []
    return {profile: Time(float(minutes), int(cores), commit, day) for profile, minutes, cores, commit, day in found}


def block(times: Mapping[str, Time]) -> str:
    """Return the block's content: a function of the committed rows, claims and picture, and of the times given."""
    return "\n\n".join(text for text in (_picture(), _answer(study()), _times(times)) if text)


def _picture() -> str:
    about = checkout.ROOT / "figures" / f"{PICTURE}.json"
    if not about.exists():
        return ""
    content = json.loads(about.read_text(encoding="utf-8"))
    return f"{_wrapped('![' + content['alt'] + ']')}(figures/{PICTURE}.png)\n\n*{content['caption']}*"


def _answer(part: Evidence) -> str:
    links = (
        "Every claim with its verdicts, every way to solve, and the papers' tables beside ours: lesson "
        "[13 report](notebooks/13_report.ipynb), which a run leaves as one page, `build/<profile>/13_report.html`. "
        "What was registered: [PROTOCOL.md](PROTOCOL.md). Departures from the papers: [DEVIATIONS.md](DEVIATIONS.md)."
    )
    if not part.complete():
        return "\n\n".join(map(_wrapped, (answer.state(part), history.in_one_sentence(), links)))
    texts = (
        minute.in_a_minute(part),
        minute.goals(part),
        against_global.in_short(part.rows, part.complete()),
        CLAIMS,
        tables.markdown(head(ledger(part.judged()))),
        *_folded("Experiment by experiment", minute.lead(part), tables.markdown(minute.in_short(part))),
        *_folded("Which ingredient makes the effect", ablation.in_short()),
        answer.state(part),
        history.in_one_sentence(),
        links,
    )
    return "\n\n".join(_wrapped(text) for text in texts if text)


def _folded(title: str, *texts: str) -> Sequence[str]:
    """Return texts that a page opens on a click; where HTML is not shown they stand open."""
    return (f"<details>\n<summary>{title}</summary>", *texts, "</details>") if any(texts) else ()


def _wrapped(text: str) -> str:
    """Wrap each line of a text by itself, so that a table stays one, and a list too."""
    wrap = partial(textwrap.fill, width=130, break_long_words=False, break_on_hyphens=False)
    return "\n".join(
        line if line.startswith("|") else wrap(line, subsequent_indent="  " if line.startswith("* ") else "")
        for line in text.split("\n")
    )


def _times(times: Mapping[str, Time]) -> str:
    if not times:
        return "**A whole run:** not measured yet."
    lines = [
        f"* {profile}: {time.minutes:.1f} min on {time.cores} cores, commit {time.commit}, {time.day}"
        for profile, time in sorted(times.items(), key=lambda item: store.PROFILES.index(item[0]))
    ]
    return "**A whole run** (`make reproduce`, nothing stored before), measured by the run itself:\n\n" + "\n".join(
        lines
    )


def note_time(profile: str, time: Time) -> None:
    """Store how long a whole run took here, where `update` finds it."""
    write_atomically(_noted(profile), (json.dumps(asdict(time)) + "\n").encode())


def _noted(profile: str) -> Path:
    return checkout.ROOT / "build" / profile / "whole_run.json"


def update() -> bool:
    """Write the block into README.md, with the times noted here beside those that it holds; return whether it changed.

    Does nothing where there is no README with the two marks.
    """
    path = checkout.ROOT / "README.md"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if not BLOCK.search(text):
        return False
    noted = {profile: _noted(profile) for profile in store.PROFILES}
    times = {profile: Time(**json.loads(file.read_text())) for profile, file in noted.items() if file.exists()}
    content = block({**read_times(text), **times})
    made = BLOCK.sub(lambda match: f"{BEGIN}\n{content}\n{END}", text)
    if made != text:
        write_atomically(path, made.encode())
    return made != text
