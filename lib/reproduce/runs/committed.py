"""Rows of the study that git tracks, one file for each stage and experiment; and back into this machine's results."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict

from reproduce.files import write_atomically
from reproduce.runs import protocol, store
from reproduce.runs.run import Run, keys_of, slot_of
from reproduce.runs.store import Row, committed_path, committed_rows


def keep(stage: str, experiment: str, runs: Sequence[Run]) -> int:
    """Write this machine's rows of some runs into the file of their stage, by slot; return how many are new there."""
    made = [row for row in map(protocol.stored, runs) if row is not None]
    before = {slot_of(row): row for row in committed_rows(stage, experiment)}
    fresh = {slot_of(row): row for row in made if row.key != getattr(before.get(slot_of(row)), "key", None)}
    now, new = {**before, **fresh}, len(fresh)  # a row that was made again leaves the committed one as it is
    if new:
        ordered = sorted(now.values(), key=lambda row: (row.regularizer, row.seed, row.key))
        lines = (json.dumps(asdict(row), sort_keys=True, separators=(",", ":")) for row in ordered)
        write_atomically(committed_path(stage, experiment), ("\n".join(lines) + "\n").encode())
    return new


def restore(names: Iterable[str], stages: Iterable[str] = tuple(protocol.STAGES)) -> tuple[int, int]:
    """Bring committed rows whose key is still right into this machine's results; weights are not among them.

    Returns:
        How many were brought, and how many have another key by now: settings, data, source or lock have changed.
    """
    brought = stale = 0
    found = list(_with_runs(names, stages))
    for (run, row), key in zip(found, keys_of(run for run, _ in found), strict=True):
        if row.key != key:
            stale += 1
        elif store.find(run.profile, run.experiment, key) is None:
            store.write(row)
            brought += 1
    return brought, stale


def _with_runs(names: Iterable[str], stages: Iterable[str]) -> Iterator[tuple[Run, Row]]:
    """Yield each committed row with the run of the protocol that has its slot."""
    for name in names:
        for stage in stages:
            of_slot = {slot_of(row): row for row in committed_rows(stage, name)}
            runs = protocol.STAGES[stage](name) if of_slot else []
            for run in runs:
                if run.slot() in of_slot:
                    yield run, of_slot[run.slot()]
