"""Rows of one profile beside the runs that it lists: this machine's rows, or the committed ones (no torch)."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from reproduce import files
from reproduce.report import tables
from reproduce.runs import store
from reproduce.runs.store import Row

OWN, KEPT = "this machine", "committed"
VALUES: dict[str, Callable[[Row], float]] = {
    "metric": lambda row: row.metrics[row.metric],
    "nfe": lambda row: row.nfe,
    "predict": lambda row: row.seconds["predict"],
    "train": lambda row: row.seconds["train"],
}
"""What a table asks of a row, by name; times in seconds."""

UNNAMED = ("rtol", "atol", "regularizers", "history_every")
"""Entries of the budget that do not make a line a variant: the tolerance has its own place, weights are settings, and
how often a history is noted changes no number of a table."""

VARIANT_WORDS = {"host": "closed box"}
"""Entries of the budget that have another name for readers."""


@dataclass(frozen=True)
class Wanted:
    """A run that a profile lists, and the key of the row that it makes."""

    experiment: str
    regularizer: str
    """Name in the menu without spaces: 'global_error+steer'."""
    seed: int
    tolerance: float
    variant: str
    """What it changes beside the tolerance, in words; empty for the profile's own settings."""
    key: str

    @property
    def slot(self) -> tuple[str, str, int, float, str]:
        """What the run is in the eyes of a reader: rows of one slot replace each other."""
        return self.experiment, self.regularizer, self.seed, self.tolerance, self.variant


@dataclass(frozen=True)
class Group:
    """The rows of one table line, and which there should be."""

    rows: tuple[Row, ...]
    wanted: frozenset[int]
    """The seeds that there should be."""

    @property
    def complete(self) -> bool:
        """Whether there is a row for every wanted seed."""
        return len(self.rows) == len(self.wanted) > 0

    @property
    def seeds(self) -> str:
        """The number of seeds in words; says what is missing."""
        if not self.rows:
            return "not run"
        return str(len(self.rows)) if self.complete else f"{len(self.rows)} of {len(self.wanted)}"

    def values(self, what: str) -> list[float]:
        """Return an entry of VALUES for each row."""
        return [VALUES[what](row) for row in self.rows]

    def mean(self, what: str) -> float:
        """Return the mean over the seeds; NaN without rows."""
        return statistics.fmean(self.values(what)) if self.rows else math.nan

    def std(self, what: str) -> float:
        """Return the standard deviation over the seeds; NaN for fewer than two."""
        return statistics.stdev(self.values(what)) if len(self.rows) > 1 else math.nan


@dataclass(frozen=True)
class Evidence:
    """The rows of one profile from one place beside the runs that the profile lists."""

    profile: str
    place: str
    """OWN or KEPT."""
    wanted: tuple[Wanted, ...]
    rows: tuple[Row | None, ...]
    """One entry for each wanted run; None: there is no such row."""

    @property
    def name(self) -> str:
        """Profile and place in words."""
        return f"{self.profile}, {self.place}"

    def found(self) -> list[Row]:
        """Return the rows that are there."""
        return [row for row in self.rows if row is not None]

    def experiments(self) -> list[str]:
        """Return the experiments that the profile lists, in order."""
        return list(dict.fromkeys(run.experiment for run in self.wanted))

    def lines(self, experiment: str) -> list[tuple[float, str, str]]:
        """Return (tolerance, regularizer, variant) of each table line of an experiment, in the order of tables."""
        lines = {(run.tolerance, run.regularizer, run.variant) for run in self.wanted if run.experiment == experiment}
        order = tables.in_order(regularizer for _, regularizer, _ in lines)
        return sorted(lines, key=lambda line: (-line[0], bool(line[2]), order.index(line[1]), line[2]))

    def group(
        self, experiment: str, regularizer: str, tolerance: float, variant: str = "", *, like: Group | None = None
    ) -> Group:
        """Return the rows of one line; with `like`, those of the seeds of another line, if there are such."""
        asked = experiment, regularizer, tolerance, variant
        pairs = zip(self.wanted, self.rows, strict=True)
        of = {
            run.seed: row
            for run, row in pairs
            if (run.experiment, run.regularizer, run.tolerance, run.variant) == asked
        }
        if like is not None and set(of) & like.wanted:
            of = {seed: row for seed, row in of.items() if seed in like.wanted}
        return Group(tuple(row for row in of.values() if row is not None), wanted=frozenset(of))


def wanted(runs: Iterable[Any]) -> tuple[Wanted, ...]:
    """Return what the tables of these runs need; `runs` are values of runs.Run (not imported here: it needs torch).

    Where an experiment's data are not on this machine its runs have no key, and so no row.
    """
    found = []
    without_data: set[str] = set()
    for run in runs:
        others = {name: value for name, value in run.overrides.items() if name not in UNNAMED}
        changes = (
            f"{VARIANT_WORDS.get(name, name)} {value}" for name, value in sorted((others | run.settings).items())
        )
        variant = ", ".join(changes)
        key = ""
        if run.experiment not in without_data:
            try:
                key = run.key()
            except FileNotFoundError:
                without_data.add(run.experiment)
        name = run.regularizer.replace(" ", "")
        found.append(Wanted(run.experiment, name, run.seed, run.budget().rtol, variant, key))
    return tuple(found)


def own(profile: str, runs: Sequence[Wanted]) -> Evidence:
    """Return this machine's current rows of a profile."""
    rows = (store.find(profile, run.experiment, run.key) if run.key else None for run in runs)
    return Evidence(profile, OWN, tuple(runs), tuple(rows))


def kept(profile: str) -> Evidence:
    """Return the committed rows of a profile, and the runs that it listed when they were committed; maybe none.

    Raises:
        ValueError: a row cannot be read, or is not in the list.
    """
    folder = store.committed_folder(profile)
    index = folder / "wanted.json"
    content = json.loads(index.read_text(encoding="utf-8")) if index.exists() else []
    runs = tuple(Wanted(**entry) for entry in content)
    rows = {row.key: row for row in map(store.read, sorted(folder.glob("*/*.json")))}
    if unknown := sorted(set(rows) - {run.key for run in runs}):
        raise ValueError(f"{folder} holds rows that wanted.json does not list: {unknown}; use `make report KEEP=1`")
    return Evidence(profile, KEPT, runs, tuple(rows.get(run.key) for run in runs))


def keep(profile: str, runs: Sequence[Wanted]) -> Evidence:
    """Copy this machine's rows into the folder of committed rows, which a person then commits; return what is there.

    A slot that has no row here keeps the committed one; rows of runs that the profile does not list any more go.

    Raises:
        ValueError: there is no row to keep, or the profile is smoke, whose rows show nothing.
    """
    if profile == "smoke":
        raise ValueError("rows of the smoke profile show nothing and are not kept; keep 'quick' or 'paper'")
    here, before = own(profile, runs), kept(profile)
    if not here.found():
        raise ValueError(
            f"this machine has no row of profile {profile} to keep; run `make reproduce PROFILE={profile}`"
        )
    old = {run.slot: row for run, row in zip(before.wanted, before.rows, strict=True) if row is not None}
    chosen = [row or old.get(run.slot) for run, row in zip(runs, here.rows, strict=True)]
    folder, lines = store.committed_folder(profile), []
    paths = {row.key: folder / row.experiment / store.path_of(row).name for row in chosen if row is not None}
    for run, row in zip(runs, chosen, strict=True):
        lines.append(asdict(run) | ({} if row is None else {"key": row.key}))
        if row is not None:
            files.write_atomically(paths[row.key], (json.dumps(asdict(row), indent=1, sort_keys=True) + "\n").encode())
    files.write_atomically(folder / "wanted.json", (json.dumps(lines, indent=1) + "\n").encode())
    for path in set(folder.glob("*/*.json")) - set(paths.values()):
        path.unlink()
    return kept(profile)
