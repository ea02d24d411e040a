"""Many runs over this machine's cores: only those without a stored row are trained, one thread each."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any

import torch
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from regnde import experiments, regularizers, store, train
from regnde.solve import Regularizer
from regnde.store import Row
from regnde.train import Trained

SHORT = 200
"""Training steps in all below which a sweep stays in this process: starting workers would cost more."""


@dataclass(frozen=True)
class Run:
    """The arguments of one training run as plain data, so that any process can make it."""

    experiment: str
    regularizer: str
    """Name in the menu, or train.CONTROL."""
    seed: int
    profile: str
    part: str = "test"
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings of the regularizer that replace those of the profile."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Entries of the budget that replace those of the profile, for example rtol and atol."""

    def make_regularizer(self) -> Regularizer | None:
        """Return the regularizer with the profile's settings for it; None for the control."""
        if self.regularizer == train.CONTROL:
            return None
        of_profile = experiments.get(self.experiment).budget(self.profile).regularizers
        return regularizers.make(self.regularizer, **{**of_profile.get(self.regularizer, {}), **self.settings})

    def key(self) -> str:
        """Return the key of the row that this run makes."""
        experiment = experiments.get(self.experiment)
        budget = experiment.budget(self.profile, **self.overrides)
        return train.key(experiment, self.make_regularizer(), self.seed, self.profile, self.part, budget)

    def stored(self) -> Row | None:
        """Return the stored row of this run, or None."""
        return store.find(self.profile, self.experiment, self.key())

    def make(self) -> Row:
        """Train, store the row and the weights, and return the row; a run that another process makes is awaited."""
        folder = store.ROOT / "build" / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{self.key()}.lock"):
            if (row := self.stored()) is not None:
                return row
            trained = train.train(
                experiments.get(self.experiment),
                self.make_regularizer(),
                self.seed,
                self.profile,
                part=self.part,
                **self.overrides,
            )
            weights = io.BytesIO()
            torch.save(trained.model.state_dict(), weights)
            store.write(trained.row, weights.getvalue())
            return trained.row

    def trained(self) -> Trained:
        """Return the finished run with its model; trains it when it is not stored."""
        row = self.make()
        weights = torch.load(store.path_of(row).with_suffix(".pt"), weights_only=True)
        return train.restore(experiments.get(self.experiment), row, weights)


def plan(
    experiment: str,
    names: Sequence[str],
    profile: str,
    *,
    seeds: Sequence[int] | None = None,
    tolerances: Sequence[float] | None = None,
    part: str = "test",
) -> list[Run]:
    """Return the runs of an experiment: each regularizer (or control) x each seed x each tolerance.

    Args:
        experiment: name of the experiment.
        names: regularizers of the menu, and train.CONTROL.
        profile: 'smoke', 'quick' or 'paper'.
        seeds: None takes those of the profile.
        tolerances: each is used as rtol and atol; None takes those of the profile.
        part: 'test' or 'validation'.
    """
    budget = experiments.get(experiment).budget(profile)
    overrides: list[dict[str, Any]] = [{}]
    if tolerances is not None:
        overrides = [{"rtol": tolerance, "atol": tolerance} for tolerance in tolerances]
    seeds = budget.seeds if seeds is None else [seed for seed in budget.seeds if seed in set(seeds)]
    return [
        Run(experiment, name, seed, profile, part, overrides=over)
        for over in overrides
        for name in names
        for seed in seeds
    ]


def sweep(runs: Iterable[Run], *, jobs: int | None = None) -> list[Row]:
    """Return the row of each run, in order; runs without a stored row are trained, the others are not.

    Args:
        runs: what is needed.
        jobs: worker processes; None takes $REGNDE_JOBS, else the number of cores. Each has one thread.
    """
    runs = list(runs)
    rows = {i: row for i, run in enumerate(runs) if (row := run.stored()) is not None}
    missing = [i for i in range(len(runs)) if i not in rows]
    jobs = jobs or int(os.environ.get("REGNDE_JOBS", os.cpu_count() or 1))
    bar = tqdm(total=len(missing), desc="training runs", disable=not missing or not sys.stderr.isatty())
    steps = sum(experiments.get(runs[i].experiment).budget(runs[i].profile).steps for i in missing)
    with bar:
        if min(jobs, len(missing)) <= 1 or steps < SHORT:
            for i in missing:
                rows[i] = runs[i].make()
                bar.update()
        else:
            rows |= _in_workers({i: runs[i] for i in missing}, min(jobs, len(missing)), bar)
    return [rows[i] for i in range(len(runs))]


def _in_workers(runs: dict[int, Run], jobs: int, bar: Any) -> dict[int, Row]:
    rows = {}
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        futures = {pool.submit(_make_in_slot, run, jobs): i for i, run in runs.items()}
        for future in as_completed(futures):
            rows[futures[future]] = future.result()
            bar.update()
    return rows


def _one_thread() -> None:
    torch.set_num_threads(1)


def _make_in_slot(run: Run, jobs: int) -> Row:
    with slot(jobs):
        return run.make()


@contextmanager
def slot(jobs: int) -> Any:
    """Hold one of `jobs` machine-wide slots, so that notebooks together use no more."""
    folder = store.ROOT / "build" / "slots"
    folder.mkdir(parents=True, exist_ok=True)
    locks = [FileLock(folder / f"{i}.lock") for i in range(jobs)]
    while True:
        for lock in locks:
            try:
                lock.acquire(timeout=0.1)
            except Timeout:
                continue
            try:
                yield
            finally:
                lock.release()
            return
