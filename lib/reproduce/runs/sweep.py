"""Many runs over one executor: this machine's cores, or a Dask cluster; only those without a stored row are trained."""

from __future__ import annotations

import ast
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from reproduce import checkout
from reproduce.runs import estimate, events, store
from reproduce.runs.run import Run, keys_of, needed, status, weights_path
from reproduce.runs.store import Row

SHORT = 200
"""Training steps in all below which a sweep stays in this process: starting workers would cost more."""
ONE_THREAD = "start each with `dask worker --nthreads 1`, since a row is made with one"
RETRIES = 3
"""How often runs are given to new workers after workers were lost."""


def sweep(runs: Iterable[Run], *, jobs: int | None = None) -> list[Row]:
    """Return the row of each run, in order; runs without a stored row are trained, the others are not.

    Args:
        runs: what is needed; equal runs are made once.
        jobs: worker processes on this machine; None takes $REGNDE_JOBS, else the number of cores. Each has one thread.

    With $DASK_SCHEDULER set (tcp://host:port) the runs go to that Dask cluster instead. Lost workers are replaced and
    their runs made again, from their checkpoints where the results folder is shared.

    Raises:
        RuntimeError: workers were lost again and again, or runs failed on the cluster (they are named).
        ValueError: a stored row or checkpoint is damaged (it is named), or the cluster does not fit this library.
    """
    runs = list(runs)
    keys = keys_of(runs)
    rows: dict[str, Row] = {}
    missing: dict[str, Run] = {}
    for key, run in zip(keys, runs, strict=True):
        row = store.find(run.profile, run.experiment, key)
        if row is None:
            missing[key] = run
        else:
            rows[key] = row
    by_seed = dict(sorted(missing.items(), key=lambda item: item[1].seed))  # whose data some loaders keep
    for key, row in _make(by_seed, jobs or jobs_here()):
        rows[key] = row
    return [rows[key] for key in keys]


def jobs_here() -> int:
    """The number of worker processes: $REGNDE_JOBS, where it is not set or empty the number of cores."""
    given = os.environ.get("REGNDE_JOBS") or str(os.cpu_count() or 1)
    if not (given.isdigit() and int(given) > 0):
        raise ValueError(f"REGNDE_JOBS: expected a number of processes, at least 1, found {given!r}")
    return int(given)


def _check_guard() -> None:
    """Raise ValueError where a new process would run this script again: spawned workers read the file of `__main__`."""
    script = getattr(sys.modules["__main__"], "__file__", None)
    if script is None:
        return
    if not Path(script).is_file():
        raise ValueError(
            f"the worker processes of a sweep read this script again, but {script} is no file: write it to one, or "
            "call sweep(..., jobs=1)"
        )
    if not any(map(_is_guard, ast.walk(ast.parse(Path(script).read_bytes())))):
        raise ValueError(
            f"{Path(script).name} has no main guard, but the worker processes of a sweep read it again: put what it "
            "does below `if __name__ == '__main__':`, or call sweep(..., jobs=1)"
        )


def _is_guard(node: ast.AST) -> bool:
    if not isinstance(node, ast.Compare) or not isinstance(node.ops[0], ast.Eq):
        return False
    sides = {ast.unparse(side) for side in (node.left, *node.comparators)}
    return sides == {"__name__", "'__main__'"}


def _make(runs: dict[str, Run], jobs: int) -> Iterator[tuple[str, Row]]:
    """Make runs where it is best, and tell of the progress."""
    scheduler = os.environ.get("DASK_SCHEDULER")
    here = min(jobs, len(runs)) <= 1 or sum(run.budget().steps for run in runs.values()) < SHORT
    progress = _Progress(runs, 1 if here else jobs)
    made = _on_dask(runs, scheduler) if scheduler and runs else _here(runs) if here else _in_processes(runs, jobs)
    for key, row in made:
        progress.done(key, row)
        yield key, row


def _here(runs: dict[str, Run]) -> Iterator[tuple[str, Row]]:
    for key, run in runs.items():
        yield key, run.make()


def _in_processes(runs: dict[str, Run], jobs: int) -> Iterator[tuple[str, Row]]:
    _check_guard()
    left = dict(runs)
    for _ in range(RETRIES + 1):
        pool = ProcessPoolExecutor(
            min(jobs, len(left)), mp_context=get_context("spawn"), initializer=start_worker, initargs=(os.getpid(),)
        )
        try:
            for key, row in _submitted(pool, left, jobs):
                del left[key]
                yield key, row
            return
        except BrokenProcessPool:
            print(f"a worker process was lost; its run is made again ({len(left)} left)", file=sys.stderr, flush=True)
        finally:
            pool.shutdown(cancel_futures=True)
    raise RuntimeError(
        f"worker processes were lost {RETRIES + 1} times (out of memory?); the rows made so far are stored: use fewer "
        "JOBS and repeat the command"
    )


def _submitted(pool: Executor, runs: dict[str, Run], jobs: int) -> Iterator[tuple[str, Row]]:
    futures = {pool.submit(_make_in_slot, run, jobs): key for key, run in runs.items()}
    for future in as_completed(futures):
        yield futures[future], future.result()


def start_worker(parent: int) -> None:
    """Use one thread, and end when the sweep's process ends, however it ends."""
    torch.set_num_threads(1)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _make_in_slot(run: Run, jobs: int) -> Row:
    with slot(jobs):
        return run.make()


@contextmanager
def slot(jobs: int) -> Iterator[None]:
    """Hold one of `jobs` machine-wide slots, so that notebooks together use no more."""
    folder = checkout.ROOT / "build" / "slots"
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


def _on_dask(runs: dict[str, Run], address: str) -> Iterator[tuple[str, Row]]:
    """Make runs on an existing Dask cluster; workers need this library and one thread each."""
    try:
        from distributed import Client
        from distributed import as_completed as as_completed_on_dask
    except ImportError as error:
        raise ValueError("DASK_SCHEDULER is set, but Dask is not installed: pip install -e '.[cluster]'") from error
    with Client(address, timeout="30s") as client:
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        if not (threads := {worker["nthreads"] for worker in workers}) <= {1}:
            raise ValueError(f"workers with {sorted(threads)} threads: {ONE_THREAD}")
        if not workers:
            print(f"waiting: no worker has joined {address} yet", file=sys.stderr, flush=True)
        print(f"{len(runs)} runs on {address}, dashboard {client.dashboard_link}", flush=True)
        futures = {
            client.submit(_make_remotely, run, key, key=f"regnde-{key}", retries=RETRIES): key
            for key, run in runs.items()
        }
        lost = []
        for future in as_completed_on_dask(futures):
            if future.status == "error":  # the others go on
                lost.append(f"{runs[futures[future]].name}: {type(future.exception()).__name__}: {future.exception()}")
                continue
            row, weights = future.result()
            if store.find(row.profile, row.experiment, row.key) is None:  # the worker's folder is not ours
                store.write(row, weights)
            yield futures[future], row
    if lost:
        said = "\n".join(lost)
        raise RuntimeError(f"{len(lost)} of {len(runs)} runs failed on the cluster, the others are stored:\n{said}")


def _make_remotely(run: Run, key: str) -> tuple[Row, bytes | None]:
    from distributed import get_worker

    if (threads := get_worker().state.nthreads) != 1:  # one that joined late
        raise ValueError(f"{run.name}: this worker has {threads} threads: {ONE_THREAD}")
    if (found := run.key()) != key:
        raise ValueError(
            f"{run.name}: this worker would make row {found} instead of {key}: its library, lock or data differ from "
            "those of the machine that asks; install the same commit and data there"
        )
    row = run.make()
    return row, None if row.broke_off else Path(weights_path(row)).read_bytes()


class _Progress:
    """Tells the runner, where a runner executes this notebook; else a bar where somebody watches, or lines."""

    def __init__(self, runs: dict[str, Run], jobs: int) -> None:
        self.names = _names(runs)
        self.left, self.jobs, self.total = dict(runs), jobs, len(runs)
        each = estimate.seconds_each(runs.values())
        events.to_do(dict(zip(self.names.values(), each, strict=True)))
        self.seconds = dict(zip(runs, each, strict=True))
        watched = sys.stderr.isatty() or "ipykernel" in sys.modules
        self.bar = tqdm(total=self.total, desc="training runs", disable=events.listens() or not watched or not runs)

    def done(self, key: str, row: Row) -> None:
        del self.left[key]
        events.done(self.names[key], nfe=row.nfe, seconds=row.seconds["train"])
        self.bar.update()
        if self.bar.disable and not events.listens():
            known = [seconds for seconds in (self.seconds[other] for other in self.left) if seconds]
            rest = f", {estimate.in_words(sum(known) / self.jobs)} left" if known else ""
            made = f"{self.total - len(self.left)}/{self.total} {self.names[key]}"
            what = f"broke off {row.broke_off}" if row.broke_off else f"NFE {row.nfe:.1f}, {row.seconds['train']:.0f} s"
            print(f"{made}: {what}{rest}", flush=True)
        if not self.left:
            self.bar.close()


def _names(runs: dict[str, Run]) -> dict[str, str]:
    """Return key -> the run in words, different for every run."""

    def words(run: Run) -> str:
        return " ".join([run.name, *(f"{name}={value}" for name, value in run.settings.items())])

    several = Counter(map(words, runs.values()))
    return {key: words(run) + (f" ({key[:4]})" if several[words(run)] > 1 else "") for key, run in runs.items()}


def outstanding(profile: str, experiment_names: Iterable[str]) -> dict[str, float | None]:
    """Return the runs that a profile needs of some experiments and that have no row: name -> seconds, or None."""
    found = status(run for name in experiment_names for run in needed(profile, name))
    missing = dict(zip(found.keys, found.missing, strict=True))
    return dict(zip(_names(missing).values(), estimate.seconds_each(missing.values()), strict=True))


def plan(runs: Sequence[Run], jobs: int) -> list[str]:
    """Return in words what a sweep of these runs would do, run by run, and about how long it would take."""
    found = status(runs)
    stale = [run for run, _ in found.stale]
    missing = dict(zip(found.keys, found.missing, strict=True))  # equal runs are made once
    lines = [
        f"  train  {name}" + ("  (its stored row is stale)" if missing[key] in stale else "")
        for key, name in _names(missing).items()
    ]
    seconds = estimate.total(missing.values(), jobs)
    about = f"about {estimate.in_words(seconds)}" if seconds else "no idea how long yet"
    about = about if missing else "nothing to do"
    total = len(found.rows) + len(missing)
    return [*lines, f"{len(found.rows)} of {total} runs are stored, {len(missing)} to train: {about}"]
