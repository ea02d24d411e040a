"""How long training runs will take, from measured rows: this machine's, else the committed ones (no torch)."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from reproduce.runs import store
from reproduce.runs.store import Row

if TYPE_CHECKING:
    from reproduce.runs.run import Run


def in_words(seconds: float) -> str:
    """Return a duration for readers."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def seconds_each(runs: Iterable[Run]) -> list[float | None]:
    """Return the seconds that each run will take in one process; None where no row of its experiment is known.

    A run is taken to last, with all that is measured after its training, as long as the median row of its experiment,
    device, regularizer, tolerance, and host with its gradient (else of its experiment and device, with this host where
    there is one), scaled by the number of training steps and the batch size.
    """
    known = lru_cache(maxsize=None)(lambda experiment: list(_rows(experiment)))
    return [_seconds(run, known(run.experiment)) for run in runs]


def _rows(experiment: str) -> Iterator[Row]:
    own = [row for profile in store.PROFILES for row in store.rows(profile, experiment)]
    stages = ("rates", "ladders", "study", "published")
    yield from own or [row for stage in stages for row in store.committed_rows(stage, experiment)]


def _seconds(run: Run, rows: list[Row]) -> float | None:
    budget, rows = run.budget(), [row for row in rows if row.made_of.get("device", "cpu") == run.device]
    rows = [row for row in rows if not row.broke_off]
    rows = [row for row in rows if _solved(row.budget) == _solved(budget.of_one_run())] or rows
    alike = [row for row in rows if row.regularizer == run.regularizer and row.tolerance == budget.rtol]
    of_one = [_taken(row) / (row.budget["steps"] * row.budget["batch"]) for row in alike or rows]
    return statistics.median(of_one) * budget.steps * budget.batch if of_one else None


def _taken(row: Row) -> float:
    """Return the processor time of a row; of one that does not have it noted, that of its training."""
    return float(row.provenance.get("more", {}).get("seconds_in_all", row.seconds["train"]))


def _solved(budget: Mapping[str, Any]) -> tuple[str, str]:
    """Return what solves while training, and how that is differentiated: an adjoint takes several times as long."""
    return str(budget.get("host", "own")), str(budget.get("gradient", "backprop"))


def total(runs: Iterable[Run], jobs: int) -> float | None:
    """Return the seconds that runs will take on `jobs` processes; None where one of them cannot be told."""
    each = seconds_each(runs)
    known = [seconds for seconds in each if seconds is not None]
    return sum(known) / jobs if len(known) == len(each) else None
