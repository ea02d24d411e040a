"""Version 2 of the protocol: trained models solved with a first step that was chosen on their training batches."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regnde import Solution
from reproduce import checkout
from reproduce.experiments import Budget
from reproduce.files import write_atomically
from reproduce.models.solve import Solve
from reproduce.runs import protocol, provenance, store, sweep
from reproduce.runs.evaluation import against_reference, evaluate, generator, solve_equation
from reproduce.runs.registered import registered
from reproduce.runs.run import Run, keys_of
from reproduce.runs.store import Row
from reproduce.runs.train import Trained

Measurement = dict[str, Any]
"""Of one model: experiment, line, seed, key of its row, data, `ways` (see `measured`), provenance."""


def runs(experiment: str) -> list[Run]:
    """Return the runs of the study whose models are measured: none for an experiment that is not registered for it."""
    of = registered()["first_step"]
    if experiment not in of["experiments"]:
        return []
    seeds = registered()["seeds"]["study"]
    return [protocol.run_of(experiment, line, seed) for seed in seeds for line in of["lines"]]


def solver(budget: Budget, share: float | None) -> Solve:
    """Return the solve of a budget whose first step is a share of the interval; None: the solver's own guess."""
    own = budget.but(host="own", host_method=None, gradient="backprop")

    def solve(f: Any, y0: Tensor, t: Tensor) -> Solution:
        first: dict[str, Any] = {} if share is None else {"first_step": share * abs(float(t[-1] - t[0]))}
        return solve_equation(f, y0, t, own, noise=None, **first)

    return solve


@torch.no_grad()
def chosen(trained: Trained, budget: Budget, seed: int) -> tuple[float | None, dict[str, float]]:
    """Choose the first step with the fewest evaluations on the model's first training batches.

    Returns:
        The share of the interval, None for the solver's own guess, which wins against equals, as a longer step does
        against a shorter one; and the mean evaluations of all that were tried.
    """
    of, batches = registered()["first_step"], trained.problem.test_batches("train")
    sizes = torch.tensor([len(batch[-1]) for batch in batches]).cumsum(0)
    batches = batches[: max(1, int((sizes <= of["examples"]).sum()))]
    trained.model.eval()
    cost: dict[float | None, float] = {}
    for share in (None, *of["shares"]):
        solve, noise = solver(budget, share), generator(seed, "noise of the first step")
        found = [trained.model(trained.problem.inputs(batch), solve, noise)[1].trace.nfe for batch in batches]
        cost[share] = math.fsum(found) / len(found)
    best = min(cost, key=lambda share: cost[share])  # the first of equals
    return best, {"own" if share is None else f"{share:g}": nfe for share, nfe in cost.items()}


def measured(trained: Trained, run: Run) -> list[dict[str, Any]]:
    """Measure a model on the test part at each registered tolerance, with both first steps.

    Returns:
        One entry for each tolerance, that of training first: 'tolerance', 'share' (see `chosen`), 'tried', and 'own'
        and 'chosen', each with 'nfe', 'accepted', 'rejected', 'metric' and 'seconds' (see `evaluation.evaluate`) and,
        where the budget has a reference, 'metric' as it is and 'error', that of the solve in use.
    """
    budget, found = run.budget(), []
    for tolerance in dict.fromkeys((budget.rtol, *registered()["first_step"]["tolerances"])):
        at = budget.but(rtol=tolerance, atol=tolerance)
        share, tried = chosen(trained, at, run.seed)
        both = {name: _solved(trained, run, at, x) for name, x in (("own", None), ("chosen", share))}
        found.append({"tolerance": tolerance, "share": share, "tried": tried, **both})
    return found


def _solved(trained: Trained, run: Run, budget: Budget, share: float | None) -> dict[str, float]:
    model, problem, solve = trained.model, trained.problem, solver(budget, share)
    of = evaluate(model, problem, "test", solve, seed=run.seed)
    found = {name: getattr(of, name) for name in ("nfe", "accepted", "rejected", "metric", "seconds")}
    exact = against_reference(model, problem, "test", budget, solve, metric=trained.row.metric, seed=run.seed)
    if exact:
        found |= {"metric": exact[trained.row.metric], "error": exact["solver_error"]}
    return found


def measure(run: Run) -> Measurement:
    """Return the measurement of a run's model; trains the model where its weights are not on this machine.

    Raises:
        ValueError: trained here it is another model than the study's: processors round differently, and a training
            makes much of that.
    """
    trained = run.trained()
    row = trained.row
    _check_same(row)
    head = {"experiment": run.experiment, "line": run.regularizer, "seed": run.seed, "key": row.key, "data": row.data}
    head |= {"metric": row.metric, "higher_is_better": row.higher_is_better, "ways": measured(trained, run)}
    made = provenance.record(run.profile, data=[row.data], seeds=[run.seed])
    return head | {"provenance": made}


def _check_same(row: Row) -> None:
    """Raise ValueError where the study's committed row of this key has other numbers."""
    for study in store.committed_rows("study", row.experiment):
        pairs = [(study.nfe, row.nfe), (study.metrics[row.metric], row.metrics[row.metric])]
        if study.key == row.key and not all(math.isclose(*pair, rel_tol=1e-6) for pair in pairs):
            raise ValueError(
                f"{row.experiment}/{row.regularizer}/{row.seed}: trained on this machine it is another model than the "
                f"study's ({row.nfe:g} evaluations for {study.nfe:g}), and nothing is measured of it: take the machine "
                "that made the row, or its weights"
            )


def make(experiment: str, jobs: int) -> Iterator[Measurement]:
    """Measure the models that have not been, in worker processes of one thread; yield and store each as it comes."""
    asked = runs(experiment)
    todo = {path: run for run, path in zip(asked, map(_path, asked, keys_of(asked)), strict=True) if not path.exists()}
    if not todo:
        return
    with ProcessPoolExecutor(
        min(jobs, len(todo)), mp_context=get_context("spawn"), initializer=sweep.start_worker, initargs=(os.getpid(),)
    ) as pool:
        futures = {pool.submit(measure, run): path for path, run in todo.items()}
        for future in as_completed(futures):
            measurement = future.result()
            write_atomically(futures[future], (json.dumps(measurement, indent=1, sort_keys=True) + "\n").encode())
            yield measurement


def _path(run: Run, key: str) -> Path:
    name = f"{run.regularizer.replace(':', '-')}-seed{run.seed}-{key}.json"
    return checkout.ROOT / "data" / "results" / store.FIRST_STEP / run.experiment / name


def keep(experiment: str) -> int:
    """Write this machine's measurements into the file that git tracks; return how many are new there."""
    asked = runs(experiment)
    here = [path for path in map(_path, asked, keys_of(asked)) if path.exists()]
    before = {(one["line"], one["seed"]): one for one in store.first_steps(experiment)}
    now = dict(before)
    for one in (json.loads(path.read_text(encoding="utf-8")) for path in here):
        if before.get((one["line"], one["seed"]), {}).get("key") != one["key"]:
            now[one["line"], one["seed"]] = one
    new = sum(one is not before.get(slot) for slot, one in now.items())
    if new:
        lines = (json.dumps(now[slot], sort_keys=True, separators=(",", ":")) for slot in sorted(now))
        write_atomically(store.committed_path(store.FIRST_STEP, experiment), ("\n".join(lines) + "\n").encode())
    return new


def study(names: Sequence[str], jobs: int, *, keeps: bool) -> None:
    """Measure what the protocol registers of some experiments and is not stored; with `keeps`, into what git tracks."""
    for name in names:
        try:
            for done, one in enumerate(make(name, jobs), start=1):
                own, ours = (one["ways"][0][which]["nfe"] for which in ("own", "chosen"))
                print(f"{done}: {name}/{one['line']}/{one['seed']}: {own:.1f} -> {ours:.1f} evaluations", flush=True)
        finally:
            kept = keep(name) if keeps else 0
        print(
            f"{store.FIRST_STEP} of {name}: {len(runs(name))} models, {kept} of them new in {store.COMMITTED}",
            flush=True,
        )
