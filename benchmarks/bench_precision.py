"""What float32 takes of the gain: trained models solved in both precisions, beside a straight line of the same length.

A solver shortens its steps where the error that it estimates is large. In float32 the estimate of a step holds the
rounding of its stages, too: about 1e-7 of them, however short the step. So a tight tolerance is met by steps that no
truncation error asked for, and what a penalty takes from that error does not shorten the solve. Each model of the
study's settings is trained in float32, as all are here, and its first test batch is solved at several tolerances as it
is and as a copy in float64, whose weights are the same. **straight** is the same solver on a constant field between the
ends of that solve: there is no truncation error at all, and what it takes is start-up and rounding. Where a solve has
more than two output times its path is no line, and there is none. Seeds are 0 and up: they enter no verdict.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from _timing import OUT, table
from bench_weight import KEPT, write
from torch import Tensor, nn

from regnde import Solution
from reproduce.runs import protocol, provenance
from reproduce.runs.evaluation import generator, solve_equation
from reproduce.runs.run import Run
from reproduce.runs.train import Trained

TASKS, LINES = ("mnist_ode", "digits_cnf", "spiral_ode", "cifar10_ode"), ("none", "local_biased", "global_error")
DTYPES = {"float32": torch.float32, "float64": torch.float64}
TOLERANCES = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)


class Straight(nn.Module):
    """A constant field: every step of every method is exact, but for rounding."""

    def __init__(self, slope: Tensor) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.slope


def solved(trained: Trained, run: Run, dtype: torch.dtype, tolerance: float) -> dict[str, Any]:
    """Return the evaluations and the metric of the first test batch in a precision, and those of a straight line."""
    problem, budget = trained.problem, run.budget().but(rtol=tolerance, atol=tolerance)
    model, batch = copy.deepcopy(trained.model).to(dtype).eval(), problem.test_batches("test")[0]
    inputs, found = problem.inputs(batch), dict[str, Any]()

    def solve(f: Any, y0: Tensor, t: Tensor) -> Solution:
        solution = solve_equation(f, y0, t, budget, noise=None)
        found.update(nfe=solution.trace.nfe, straight=None)
        if len(t) == 2:
            slope = (solution.y[-1] - solution.y[0]) / float(t[1] - t[0])
            found["straight"] = solve_equation(Straight(slope), y0, t, budget, noise=None).trace.nfe
        return solution

    inputs = tuple(map(_to(dtype), inputs)) if isinstance(inputs, tuple) else _to(dtype)(inputs)
    with torch.no_grad():
        output, _ = model(inputs, solve, generator(run.seed, "noise"))
        return found | {"value": problem.metric(output, batch)}


def _to(dtype: torch.dtype) -> Any:
    return lambda x: x.to(dtype) if isinstance(x, Tensor) and x.dtype == torch.float32 else x


def rows_of(run: Run) -> Iterator[dict[str, Any]]:
    """Yield the row of each precision and tolerance of one run's model."""
    trained = run.trained()
    head = {"experiment": run.experiment, "line": run.regularizer, "seed": run.seed, "data": trained.row.data}
    head |= {"metric": trained.row.metric, "trained_at": run.budget().rtol}
    for name, dtype in DTYPES.items():
        for tolerance in TOLERANCES:
            yield head | {"dtype": name, "tolerance": tolerance} | solved(trained, run, dtype, tolerance)


def lines(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows as a table."""
    keys = ("experiment", "line", "seed", "dtype", "tolerance", "nfe", "straight", "value")
    shown = [[f"{row[key]:.4g}" if isinstance(row[key], float) else str(row[key]) for key in keys] for row in rows]
    return table(keys, shown)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--keep", action="store_true", help="write the rows to data/reference/measured")
    parser.add_argument("--only", default=",".join(TASKS), help="experiments, with commas between")
    parser.add_argument("--seeds", type=int, default=3, help="from 0 up")
    parser.add_argument("--profile", default="quick", help="whose budgets train the models")
    asked, start, rows = parser.parse_args(), time.perf_counter(), list[dict[str, Any]]()
    torch.set_num_threads(1)
    made_from = provenance.commit()  # before this run writes a file
    path = (KEPT.parent if asked.keep else OUT) / "precision.json"
    for seed in range(asked.seeds):
        for name in asked.only.split(","):
            for line in LINES:
                rows += rows_of(replace(protocol.run_of(name, line, seed), profile=asked.profile))
                data = "; ".join(sorted({one["data"] for one in rows}))
                seconds = time.perf_counter() - start
                write(rows, path, made_from, range(seed + 1), seconds, drawn=data)
                print(f"{name}, {line}, seed {seed}: {seconds:.0f} s", flush=True)
    text = lines(rows)
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "precision.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
