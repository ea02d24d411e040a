"""A training run as plain data: its key, its stored row, why that is stale, and the runs that a profile needs."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock

from regnde import Regularizer, make_regularizer
from reproduce import checkout, experiments
from reproduce.experiments import Budget
from reproduce.runs import broken, store, train
from reproduce.runs import device as devices
from reproduce.runs import key as keys
from reproduce.runs.store import Row
from reproduce.runs.train import Trained

Files = tuple[tuple[str, str], ...]
"""Of a run's data: name, and checksum or recipe, of each."""


class _Known(NamedTuple):
    """Files without the problem that has them, and its data."""

    files: Files


@dataclass(frozen=True)
class Run:
    """The arguments of one training run as plain data, so that any process can make it."""

    experiment: str
    regularizer: str
    """Name in the menu (and a variant after a colon), or store.CONTROL."""
    seed: int
    profile: str
    part: str = "test"
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings of the regularizer that replace those of the profile."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Entries of the budget that replace those of the profile, for example rtol and atol."""
    device: str = field(default_factory=devices.asked)
    """The class of device to compute on; where none is given, the one that was asked for (see `device.asked`)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "device", devices.class_of(self.device))

    @property
    def name(self) -> str:
        """The run in words: experiment/regularizer/seed@tolerance; the training's solver and device if not usual."""
        budget = self.budget()
        host = "" if budget.host == "own" else f"/{budget.host}"
        host += "" if budget.gradient == "backprop" else f"-{budget.gradient}"
        device = "" if self.device == "cpu" else f"/{self.device}"
        return f"{self.experiment}/{self.regularizer}/{self.seed}@{budget.rtol:g}{host}{device}"

    def budget(self) -> Budget:
        """Return the budget of the profile with this run's overrides."""
        return experiments.get(self.experiment).budget(self.profile, **self.overrides)

    def make_regularizer(self) -> Regularizer | None:
        """Return the regularizer with the profile's settings for it; None for the control."""
        if self.regularizer == store.CONTROL:
            return None
        of_profile = self.budget().regularizers.get(self.regularizer, {})
        return make_regularizer(self.regularizer, **{**of_profile, **self.settings})

    def files(self) -> Files:
        """Return its data files: name, and checksum or recipe. To know them the data are read, simulated or drawn."""
        return experiments.get(self.experiment).problem(self.budget(), self.part, seed=self.seed).files

    def ingredients(self, files: Files | None = None) -> dict[str, Any]:
        """Return what the run depends on beside its settings (see `key.ingredients`); `files` where they are known."""
        known = _Known(self.files() if files is None else files)
        return keys.ingredients(self.experiment, known, self.device)

    def key(self, files: Files | None = None) -> str:
        """Return the key of the row that this run makes; `files` where they are known, as `keys_of` does."""
        experiment, regularizer = experiments.get(self.experiment), self.make_regularizer()
        made_of = self.ingredients(files)
        return keys.key_of_run(experiment, regularizer, self.seed, self.profile, self.part, self.budget(), made_of)

    def stored(self) -> Row | None:
        """Return the stored row of this run, or None: a row with another key is stale and not returned."""
        return store.find(self.profile, self.experiment, self.key())

    def make(self, *, weights: bool = False) -> Row:
        """Return the stored row; if there is none, train, store weights and row, and remove the checkpoint.

        A training that breaks off leaves a row without numbers and weights, which says why (`Row.broke_off`).

        With `weights` a row that was brought here without them (see `committed.restore`) is made anew. A run that
        another process is making is waited for; one that was stopped goes on from its checkpoint.
        """
        key = self.key()
        lock = checkout.ROOT / "build" / "locks" / f"{key}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            row = store.find(self.profile, self.experiment, key)
            if row is not None and (weights_path(row).exists() or not weights or row.broke_off):
                return row
            path = store.results_folder(self.profile) / self.experiment / f"{key}.checkpoint"
            begun = None if path.exists() else time.process_time()
            row, held = self._make(path)
            more = {**row.provenance["more"], "instead": self.instead(), **_preloaded()}
            if begun is not None:  # a run that went on from a checkpoint does not know
                more["seconds_in_all"] = round(time.process_time() - begun, 3)
            row = replace(row, provenance={**row.provenance, "more": more})
            store.write(row, held)
            path.unlink(missing_ok=True)
            return row

    def _make(self, path: Path) -> tuple[Row, bytes | None]:
        """Train, with the checkpoint at `path`; return the row and the weights, None of a training that broke off."""
        asked = experiments.get(self.experiment), self.make_regularizer(), self.seed, self.profile
        how = {"part": self.part, "device": self.device, **self.overrides}
        try:
            trained = train.train(*asked, checkpoint_path=path, **how)
        except (ValueError, RuntimeError) as error:
            if not broken.breaks_off(error):
                raise
            return broken.row(error, path, *asked, **how), None
        held = io.BytesIO()
        torch.save(trained.model.cpu().state_dict(), held)
        return trained.row, held.getvalue()

    def trained(self, *, on: str = "cpu") -> Trained:
        """Return the finished run with its model, in evaluation mode as it was measured; trains what is not stored.

        The model is put `on` any device, wherever it was trained: lessons look inside on the CPU.

        Raises:
            ValueError: its training broke off, so that there is no model.
        """
        row = self.make(weights=True)
        if row.broke_off:
            raise ValueError(f"{self.name} has no model: its training broke off {row.broke_off}")
        weights = torch.load(weights_path(row), map_location="cpu", weights_only=True)
        trained = train.restore(experiments.get(self.experiment), row, weights, on)
        trained.model.eval()
        return trained

    def instead(self) -> dict[str, Any]:
        """Return what the run has instead of its profile's own settings and budget, as plain data."""
        return {"settings": self.settings, "overrides": json.loads(json.dumps(self.overrides))}

    def slot(self) -> tuple[Any, ...]:
        """Return what the run is in the eyes of a reader: rows of one slot and different keys replace each other.

        A study that replaces settings or entries of the budget has slots of its own, and so has each class of device.
        """
        instead = json.dumps(self.instead(), sort_keys=True)
        return self.experiment, self.regularizer, self.seed, self.profile, self.part, instead, self.device


def _preloaded() -> dict[str, str]:
    """Return the names of preloaded libraries, if there are some: another allocator changes times, and nothing else."""
    paths = os.environ.get("LD_PRELOAD", "").replace(":", " ").split()
    return {"preloaded": " ".join(Path(path).name for path in paths)} if paths else {}


def weights_path(row: Row) -> Path:
    """Return where the weights of a row's model are stored."""
    return store.path_of(row).with_suffix(".pt")


def slot_of(row: Row) -> tuple[Any, ...]:
    """Return the slot of a stored row (see `Run.slot`)."""
    instead = json.dumps(row.provenance.get("more", {}).get("instead"), sort_keys=True)
    device = row.made_of.get("device", "cpu")
    return row.experiment, row.regularizer, row.seed, row.profile, row.part, instead, device


def keys_of(runs: Iterable[Run], files: dict[tuple[str, ...], Files] | None = None) -> list[str]:
    """Return the key of each run; those with the same data ask for their files once.

    Args:
        runs: of any experiments.
        files: those of data that were asked for before; what is new is added.
    """
    found, files = [], {} if files is None else files
    for run in runs:
        of = (run.experiment, run.part, str(run.seed), json.dumps(dict(run.budget().data), sort_keys=True))
        if of not in files:
            files[of] = run.files()
        found.append(run.key(files[of]))
    return found


def needed(profile: str, experiment: str | None = None) -> list[Run]:
    """Return the runs that a profile's budgets list, of one experiment or of all."""
    found = []
    for name in experiments.names() if experiment is None else [experiment]:
        budget = experiments.get(name).budget(profile)
        for entry in budget.runs:
            for regularizer in entry.regularizers:
                seeds = budget.seeds if entry.seeds is None else entry.seeds
                found += [Run(name, regularizer, seed, profile, overrides=entry.overrides()) for seed in seeds]
    return found


@dataclass(frozen=True)
class Status:
    """What is stored of the runs that a profile needs."""

    rows: list[Row]
    """Rows of runs whose key is the present one."""
    missing: list[Run]
    """Runs without such a row."""
    keys: list[str]
    """Keys of the missing."""
    stale: list[tuple[Run, Row]]
    """Those of the missing that have a row made of something else."""


def status(runs: Iterable[Run]) -> Status:
    """Return which runs are stored, missing, or stale."""
    runs = list(runs)
    of_slot = {slot_of(row): row for profile in {run.profile for run in runs} for row in store.rows(profile)}
    keys = keys_of(runs)
    rows = {key: store.find(run.profile, run.experiment, key) for key, run in zip(keys, runs, strict=True)}
    lacking = [(key, run) for key, run in zip(keys, runs, strict=True) if rows[key] is None]
    missing = [run for _, run in lacking]
    stale = [(run, of_slot[run.slot()]) for run in missing if run.slot() in of_slot]
    return Status([row for row in rows.values() if row is not None], missing, [key for key, _ in lacking], stale)


def why(run: Run, row: Row) -> list[str]:
    """Return, part by part, what changed since a stored row of the same slot was made; empty: it is current."""
    regularizer = run.make_regularizer()
    now = {
        "settings": {} if regularizer is None else regularizer.settings,
        "budget": run.budget().of_one_run(),
        **run.ingredients(),
    }
    then = {"settings": row.settings, "budget": row.budget, **row.made_of}
    lines = []
    for part in sorted({*now, *then}):
        old, new = _flat(then.get(part)), _flat(now.get(part))
        for name in sorted({*old, *new}):
            if old.get(name) != new.get(name):
                lines.append(f"{part}{name}: {old.get(name, 'nothing')} -> {new.get(name, 'nothing')}")
    return lines


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested dictionaries as one level; lists of (name, value) pairs count as dictionaries."""
    if isinstance(value, list) and all(isinstance(item, list) and len(item) == 2 for item in value):
        value = dict(value)
    if not isinstance(value, dict):
        return {prefix: value}
    return {name: leaf for key in value for name, leaf in _flat(value[key], f"{prefix}.{key}").items()}


def find_run(text: str, profile: str) -> Run:
    """Return the needed run that `text` names: experiment/regularizer/seed, with @tolerance where it is ambiguous.

    Raises:
        ValueError: no such run, or several; the message lists what there is.
    """
    runs = {run.name: run for run in needed(profile)}
    found = [run for name, run in runs.items() if text in (name, name.split("@")[0])]
    if len(found) != 1:
        which = "several runs" if found else "no run"
        names = [run.name for run in found] or list(runs)
        raise ValueError(f"{text!r} names {which} of profile {profile}; choose one of: {', '.join(names)}")
    return found[0]
