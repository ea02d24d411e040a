"""Rows on disk, keyed by what produced them (no torch in the read path)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from reproduce import checkout
from reproduce.files import write_atomically
from reproduce.runs import events

PROFILES = ("smoke", "quick", "paper")
COMMITTED = "data/reference/measured/study"
VANILLA, CONTROL = "none", "no_dynamics"
"""Regularizers of a row: none at all; and the control, the same model with its dynamics set to zero, trained alike."""


@dataclass(frozen=True)
class Row:
    """One training run and what came of it; written as one JSON file."""

    key: str
    experiment: str
    regularizer: str
    """Name in the menu, or 'no_dynamics' for the control."""
    settings: dict[str, Any]
    """Settings of the regularizer."""
    seed: int
    profile: str
    part: str
    """The data that the metrics were measured on: 'test', or 'validation' for choosing settings."""
    budget: dict[str, Any]
    data: str
    """Name of the data set, in words."""
    note: str
    """What this data set can and cannot show, in words; empty when there is nothing to say."""
    n_test: int
    """Number of test examples behind the metrics."""
    metric: str
    """Name of the metric that decides, for example 'accuracy'."""
    higher_is_better: bool
    metrics: dict[str, float]
    """Means over the test batches: loss, the metric, and the same on training data with the prefix 'train_'."""
    nfe: float
    """Evaluations of f for one test batch, mean over the batches."""
    accepted: float
    rejected: float
    train_nfe: float
    """Evaluations of f in one solve of a training step, mean over the last tenth of the training."""
    seconds: dict[str, float]
    """'train' for all of it, 'predict' for one full test batch (the fastest); provenance names the timer."""
    history: list[dict[str, float]] = field(default_factory=list)
    ways: list[dict[str, Any]] = field(default_factory=list)
    """What the trained model reaches and costs in every way to solve (see ways.measured); rows of old have none."""
    made_of: dict[str, Any] = field(default_factory=dict)
    """What the key covers beside the settings: data files, source of the modules, lock, device, dtype."""
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def tolerance(self) -> float:
        """The relative tolerance that the run was trained and tested with."""
        return float(self.budget["rtol"])

    @property
    def host(self) -> str:
        """What solved while training: 'own' (open box) or another library (closed box), with its adjoint if it was."""
        host = str(self.budget.get("host", "own"))
        return f"{host}, adjoint" if self.budget.get("gradient") == "adjoint" else host

    @property
    def broke_off(self) -> str:
        """Why the training broke off, where it did: the row has no numbers then (see `runs.broken`); else empty."""
        return str(self.provenance.get("more", {}).get("broke_off", ""))


def key_of(parts: Mapping[str, Any]) -> str:
    """Return the key of everything that a row depends on: 16 hex digits of the sha256 of its sorted JSON."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def results_folder(profile: str) -> Path:
    """Return the folder of this machine's rows; ValueError for an unknown profile."""
    if profile not in PROFILES:
        raise ValueError(f"unknown profile {profile!r}; choose one of {PROFILES}")
    return checkout.ROOT / "data" / "results" / profile


def figures_folder(profile: str) -> Path:
    """Return where a profile's pictures go; the published ones lie one folder above."""
    results_folder(profile)  # refuses an unknown profile
    return checkout.ROOT / "figures" / profile


def committed_path(stage: str, experiment: str) -> Path:
    """Return the file of the study's committed rows of a stage and an experiment: a line of JSON for each."""
    return checkout.ROOT / COMMITTED / stage / f"{experiment}.jsonl"


def committed_rows(stage: str, experiment: str) -> list[Row]:
    """Return the committed rows of a stage and an experiment; none where there is no file.

    Raises:
        ValueError: a line is not a row; file and line are named.
    """
    return list(_rows_in(*_stamp(committed_path(stage, experiment))))


FIRST_STEP = "first_step"
"""The stage of version 2, whose lines are measurements of the study's models (`runs.first_step`) and no rows."""


def first_steps(experiment: str) -> list[dict[str, Any]]:
    """Return the committed measurements of an experiment's first steps; none where there is no file."""
    return list(_measurements_in(*_stamp(committed_path(FIRST_STEP, experiment))))


def _stamp(path: Path) -> tuple[Path, int, int]:
    """Return a file and what changes with its content, by which a report reads the same thousand rows only once."""
    if not path.exists():
        return path, 0, 0
    found = path.stat()
    return path, found.st_mtime_ns, found.st_size


@cache
def _rows_in(path: Path, _: int, size: int) -> tuple[Row, ...]:
    lines = path.read_text(encoding="utf-8").splitlines() if size else []
    return tuple(parse(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1))


@cache
def _measurements_in(path: Path, _: int, size: int) -> tuple[dict[str, Any], ...]:
    return tuple(json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()) if size else ()


def path_of(row: Row) -> Path:
    """Return where a row is stored: results/<profile>/<experiment>/<regularizer>-seed<seed>-<key>.json."""
    name = f"{row.regularizer}-seed{row.seed}-{row.key}.json"
    return results_folder(row.profile) / row.experiment / name


def write(row: Row, weights: bytes | None = None) -> Path:
    """Store a row atomically as one JSON file, the model's weights before it beside it; return the row's path."""
    path = path_of(row)
    if weights is not None:
        write_atomically(path.with_suffix(".pt"), weights)
    write_atomically(path, (json.dumps(asdict(row), indent=1, sort_keys=True) + "\n").encode())
    events.file(path)
    return path


def read(path: Path) -> Row:
    """Read one row; ValueError naming the file if it is not one."""
    return parse(path.read_text(encoding="utf-8"), str(path))


def parse(text: str, where: str) -> Row:
    """Return the row that a JSON text holds; ValueError naming where it stands if it is none."""
    try:
        content = json.loads(text)
        expected = {f.name for f in fields(Row)}
        if set(content) | {"ways"} != expected:
            raise ValueError(f"its fields differ from a row's by {sorted(set(content) ^ expected)}")
        return Row(**content)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where} is not a readable row ({error}); delete it to have the run made again") from error


def find(profile: str, experiment: str, key: str) -> Row | None:
    """Return the stored row with this key, or None."""
    for path in (results_folder(profile) / experiment).glob(f"*-{key}.json"):
        events.file(path)
        return read(path)
    return None


def rows(profile: str, experiment: str | None = None, *, part: str = "test") -> list[Row]:
    """Return this machine's rows of a profile, of one experiment or all, in the order of their names."""
    paths: Iterable[Path] = sorted(results_folder(profile).glob(f"{experiment or '*'}/*.json"))
    return [row for row in map(read, paths) if row.part == part]
