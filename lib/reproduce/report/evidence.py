"""The rows that a report is made from: those of the study, and this machine's runs of it (no torch)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reproduce.runs import store
from reproduce.runs.registered import registered
from reproduce.runs.store import Row

STUDY, HERE, PUBLISHED = "the study", "this machine", "published settings"
"""Names of the parts of the evidence."""


@dataclass(frozen=True)
class Evidence:
    """Rows from one place beside the runs that the protocol registers for it."""

    name: str
    rows: tuple[Row, ...]
    wanted: Mapping[str, int]
    """Experiment -> number of its runs."""

    def of(self, experiment: str) -> list[Row]:
        """Return the rows of an experiment."""
        return [row for row in self.rows if row.experiment == experiment]

    def complete(self) -> list[str]:
        """Return the experiments whose runs are all there, on the data of the claims: a stand-in does not count."""
        real = Counter(row.experiment for row in self.rows if "stand-in" not in row.data.lower())
        return [name for name, n in self.wanted.items() if 0 < n <= real[name]]

    def judged(self) -> list[Row]:
        """Return the rows that may enter a verdict: those of complete experiments.

        So rows can be committed as they are made, and no verdict is read from some of the seeds.
        """
        whole = set(self.complete())
        return [row for row in self.rows if row.experiment in whole]


def study() -> Evidence:
    """Return the committed rows of the study, ten seeds of each line."""
    return _committed(STUDY, "study")


def published() -> Evidence:
    """Return the committed rows at the papers' own settings."""
    return _committed(PUBLISHED, "published")


def _committed(name: str, stage: str) -> Evidence:
    from reproduce.runs.protocol import STAGES  # here, since PyTorch takes seconds

    experiments = list(registered()["experiments"])
    rows = [row for experiment in experiments for row in store.committed_rows(stage, experiment)]
    of = {experiment: STAGES[stage](experiment) for experiment in experiments}
    return Evidence(name, tuple(rows), {experiment: len(runs) for experiment, runs in of.items()})


def here(profile: str) -> Evidence:
    """Return this machine's rows of the study's runs; a profile but quick has none, since its budgets are others.

    They are those of the profile's seeds; wanted are those that the profile trains, and those that are there besides.
    Where an experiment's data are not on this machine it has no rows.
    """
    from reproduce import experiments
    from reproduce.runs import protocol
    from reproduce.runs.run import Run, needed

    def trained_as(run: Run) -> tuple[str, int, str]:
        return run.regularizer, run.seed, json.dumps(run.budget().of_one_run(), sort_keys=True)

    stored = {(row.experiment, row.regularizer, row.seed) for row in store.rows(profile)}  # keys take long: not in vain
    found: list[Row] = []
    wanted: dict[str, int] = {}
    for name in protocol.names() if profile == registered()["profile"] else ():
        seeds = experiments.get(name).budget(profile).seeds
        runs = [run for run in protocol.study(name) if run.seed in seeds]
        usual = {trained_as(run) for run in needed(profile, name)}
        try:
            rows = [protocol.stored(run) if (name, run.regularizer, run.seed) in stored else None for run in runs]
        except FileNotFoundError:
            rows = [None] * len(runs)
        found += [row for row in rows if row is not None]
        wanted[name] = sum(row is not None or trained_as(run) in usual for run, row in zip(runs, rows, strict=True))
    return Evidence(HERE, tuple(found), wanted)


def parts(profile: str) -> list[Evidence]:
    """Return what a report of a profile shows: the study, this machine's runs of it, and published settings if any."""
    return [study(), *(part for part in (here(profile), published()) if part.rows)]


def made_by(rows: Sequence[Row]) -> dict[str, str]:
    """Return what rows are on and what made them, in words: data, commits, machines."""
    return {
        "data": "; ".join(sorted({row.data for row in rows})) or "none",
        "commits": ", ".join(sorted({_commit(row.provenance) for row in rows})),
        "machine": "; ".join(sorted({_machine(row.provenance) for row in rows})),
    }


def _commit(made: Mapping[str, Any]) -> str:
    return str(made.get("commit", "unknown"))[:7] + ("-dirty" if made.get("dirty") else "")


def _machine(made: Mapping[str, Any]) -> str:
    if "platform" not in made:
        return "unknown"
    versions = made.get("versions", {})
    preloaded = made.get("more", {}).get("preloaded")
    beside = f", with {preloaded}" if preloaded else ""
    return f"{made['platform']}, {made.get('device', 'cpu')}, torch {versions.get('torch', 'unknown')}{beside}"
