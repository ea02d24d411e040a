"""How well the local penalty follows log(number of steps) along a training, and what its open sister does better.

Three tasks are trained without a penalty for a short while, and looked at on a few examples at five moments, in double
precision, at each tolerance:

* **factor**: 5 times the mean error ratio of the accepted steps: what the derivation of lesson 04 has between the
  gradient of the penalty and that of log N;
* **closed**: the mean gradient of the biased draw, all accepted steps taken again from held states; **open**: the
  gradient of the mean recorded ratio, through the solve. Both are means over all outcomes of a draw: of `local_biased`,
  without and with `reuse`;
* **counted**: slopes of log N along random directions, by central differences of counts that are averages over
  tolerances within a factor of two, the last step by its share. **twice** is the cosine of the slopes from every other
  tolerance with those from the rest: where it is low, the count itself is jagged, and no cosine with it says much.
* **along**: the counted slope along each box's own gradient: what a short step against it saves.

With `--what draws`, into a file of its own: trainings with the draw from either box, and with none. The same weight,
the same steps, several seeds.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import torch
from _timing import OUT, table
from bench_forms import batch_of, training
from bench_weight import KEPT, write
from torch import Tensor, nn

from regnde import Solution, local_error, make_regularizer, solve_ode
from reproduce import experiments
from reproduce.experiments import Budget, Problem
from reproduce.runs import provenance, train
from reproduce.runs.evaluation import generator

MOMENTS, TOLERANCES = (0.0, 0.25, 0.5, 0.75, 1.0), (1e-3, 1e-5, 1e-7)
EPS, EPS_ALONG = 0.03, 0.01
"""Lengths of a move along a random direction and along a gradient, in lengths of the parameters."""
RECORDS = frozenset({"error_ratio"})
OTHERS: dict[str, dict[str, Any]] = {
    "mnist_ode": {"batch": 32, "steps": 120, "data": {"source": "embedded"}},
    "spiral_ode": {},
    "digits_cnf": {"batch": 32, "steps": 120},
}
"""Tasks, and what is other than in the quick budget."""
DRAWS: dict[str, dict[str, bool] | None] = {"vanilla": None, "closed": {}, "open": {"reuse": True}}
COMPARED: dict[str, dict[str, Any]] = {"spiral_ode": {}, "mnist_ode": {"steps": 60}}
"""Tasks of the comparison of draws, and what is other there: each is trained for every draw and seed."""
OF_PENALTY = 7
"""Evaluations of one step from scratch that is taken again (tsit5)."""


@dataclass(frozen=True)
class Look:
    """A model at a moment of its training, in double precision: what to solve, and the parameters that f has."""

    solve: Callable[[float], Solution]
    """Tolerance to the solve of the few examples."""
    parameters: list[nn.Parameter]

    def move(self, to: Tensor) -> None:
        """Set the parameters (as one vector)."""
        nn.utils.vector_to_parameters(to, self.parameters)

    @property
    def flat(self) -> Tensor:
        """A copy of the parameters as one vector, (parameters,)."""
        return nn.utils.parameters_to_vector(self.parameters).detach().clone()

    def gradient(self, value: Tensor) -> Tensor:
        """Return the gradient of a value, (parameters,); its graph is kept."""
        return torch.cat([g.flatten() for g in torch.autograd.grad(value, self.parameters, retain_graph=True)])


def look(model: nn.Module, problem: Problem, budget: Budget, examples: int) -> Look:
    """Return a look at a copy of a model, on the same few training examples at every moment."""
    exact, batch = copy.deepcopy(model).double(), batch_of(problem, budget.but(batch=examples), budget.steps)
    inputs = problem.inputs(batch)
    inputs = tuple(x.double() for x in inputs) if isinstance(inputs, tuple) else inputs.double()

    def solve(tol: float) -> Solution:
        def records(f: Any, y: Tensor, t: Tensor) -> Solution:
            return solve_ode(f, y, t, method=budget.method, rtol=tol, atol=tol, records=RECORDS)

        solution: Solution = exact(inputs, records, generator(0, "noise"))[1]
        return solution

    parameters = list(exact.parameters())
    ratio = solve(TOLERANCES[0]).trace.error_ratio.mean()
    of_ratio = torch.autograd.grad(ratio, parameters, allow_unused=True)
    return Look(solve, [p for p, found in zip(parameters, of_ratio, strict=True) if found is not None])


def boxes(at: Look, tol: float) -> tuple[dict[str, Tensor], Solution]:
    """Return the mean gradient of each box over all outcomes of a biased draw, and the solve."""
    run = at.solve(tol)
    steps = zip(run.trace.t.tolist(), run.trace.y, run.trace.dt.tolist(), strict=True)
    closed = torch.stack([at.gradient(local_error(run, t, y, h)) for t, y, h in steps]).mean(0)
    return {"closed": closed, "open": at.gradient(run.trace.error_ratio.mean())}, run


@torch.no_grad()
def log_steps(at: Look, tol: float, near: int) -> Tensor:
    """Return log N at tolerances within a factor of two, (near,): the last step counts by its share."""
    found = []
    for i in range(near):
        trace = at.solve(tol * 2 ** (i / near)).trace
        share = 1.0
        if trace.accepted > 1:  # else nobody knows what size the solver wanted
            wanted = trace.dt[-2] * (0.9 * trace.error_ratio[-2] ** (-1 / 5)).clamp(1, 10)
            share = min(1.0, float(trace.dt[-1] / wanted))
        found.append(math.log(trace.accepted - 1 + share))
    return torch.tensor(found, dtype=torch.float64)


def slopes(at: Look, directions: Tensor, tol: float, near: int, eps: float) -> Tensor:
    """Return slopes of log N along directions (n, parameters), for each nearby tolerance: (n, near)."""
    flat, found = at.flat, []
    for direction in directions:
        ends = []
        for sign in (1, -1):
            at.move(flat + sign * eps * direction)
            ends.append(log_steps(at, tol, near))
        found.append((ends[0] - ends[1]) / (2 * eps))
    at.move(flat)
    return torch.stack(found)


def cosine(a: Tensor, b: Tensor) -> float:
    """Return the cosine of two vectors; 0 where one of them is 0."""
    return float(nn.functional.cosine_similarity(a, b, 0))


def measured(at: Look, tol: float, n_directions: int, near: int) -> dict[str, Any]:
    """Return what one moment shows at one tolerance (see the head of this file)."""
    mean, run = boxes(at, tol)
    length = float(at.flat.norm())
    directions = torch.randn(n_directions, len(at.flat), generator=generator(0, "directions"), dtype=torch.float64)
    directions *= length / directions.norm(dim=1, keepdim=True)
    own = torch.stack([length * gradient / gradient.norm() for gradient in mean.values()])
    counted, along = slopes(at, directions, tol, near, EPS), slopes(at, own, tol, near, EPS_ALONG).mean(1)
    return {
        "tolerance": tol,
        "accepted": run.trace.accepted,
        "rejected": run.trace.rejected,
        "factor": 5 * run.trace.error_ratio.mean().item(),
        "closed_open": cosine(mean["closed"], mean["open"]),
        **{f"{box}_counted": cosine(directions @ gradient, counted.mean(1)) for box, gradient in mean.items()},
        "twice": cosine(counted[:, ::2].mean(1), counted[:, 1::2].mean(1)),
        "along": dict(zip(mean, along.tolist(), strict=True)),
    }


def moments(of: str, steps: int | None = None) -> Iterator[tuple[float, nn.Module, Problem, Budget]]:
    """Yield (share of training done, model, problem, budget) at MOMENTS of a vanilla training of seed 0."""
    budget = experiments.get(of).budget("quick", **OTHERS[of])
    budget = budget if steps is None else budget.but(steps=steps)
    problem = experiments.get(of).problem(budget, "validation")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(0, "initialization").initial_seed())
        model = problem.model().train()
    taught, done = training(model, problem, budget), 0
    for moment in MOMENTS:
        until = round(moment * budget.steps)
        deque(islice(taught, until - done), maxlen=0)
        done = until
        yield moment, model, problem, budget


def along_training(of: str, examples: int, n_directions: int, near: int, steps: int | None = None) -> Iterator[Any]:
    """Yield a row for each moment and tolerance of a task."""
    for moment, model, problem, budget in moments(of, steps):
        at = look(model, problem, budget, examples)
        head = {"what": "direction", "experiment": of, "moment": moment, "steps": budget.steps, "data": problem.data}
        head |= {
            "examples": min(examples, problem.n_train),
            "parameters": len(at.flat),
            "directions": n_directions,
            "near": near,
        }
        yield from (head | measured(at, tol, n_directions, near) for tol in TOLERANCES)


def trained_with(of: str, draw: str, seed: int, **others: Any) -> dict[str, Any]:
    """Return the row of one training with a draw from one of the boxes (or without), measured on held-out data."""
    experiment, settings = experiments.get(of), DRAWS[draw]
    overrides = {**OTHERS[of], **COMPARED[of], "curve": None, "history_every": 1, **others}
    weight = experiment.budget("quick", **overrides).regularizers["local_biased"]
    regularizer = (
        make_regularizer("none") if settings is None else make_regularizer("local_biased", **weight, **settings)
    )
    row = train.train(experiment, regularizer, seed, "quick", part="validation", **overrides).row
    spent = sum(entry["nfe"] for entry in row.history) + (OF_PENALTY * len(row.history) if draw == "closed" else 0)
    head = {"what": "draws", "experiment": of, "draw": draw, "seed": seed, "steps": len(row.history)}
    head |= {"weight": {} if settings is None else weight, "tolerance": row.budget["rtol"], "data": row.data}
    return head | {"nfe": row.nfe, "metric": row.metric, "value": row.metrics[row.metric], "spent": spent}


def trainings(tasks: Sequence[str], seeds: range) -> Iterator[dict[str, Any]]:
    """Yield the rows of all trainings with a draw, seed by seed."""
    for seed in seeds:
        for of in tasks:
            yield from (trained_with(of, draw, seed) for draw in DRAWS)


def lines(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows as a table."""
    shown = ("experiment", "moment", "tolerance", "accepted", "rejected", "factor", "closed_open")
    shown += ("closed_counted", "open_counted", "twice")
    first = [
        [*(_text(row[key]) for key in shown), *map(_text, row["along"].values())] for row in rows if "along" in row
    ]
    keys = ("experiment", "draw", "seed", "nfe", "value", "spent")
    second = [[_text(row[key]) for key in keys] for row in rows if "draw" in row]
    return table([*shown, "along closed", "along open"], first) if first else table(keys, second)


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--keep", action="store_true", help="write the rows to data/reference/measured")
    parser.add_argument("--what", choices=("direction", "draws"), default="direction", help="name of the file, too")
    parser.add_argument("--only", default=",".join(OTHERS), help="tasks, with commas between")
    parser.add_argument("--examples", type=int, default=8, help="that are solved for at each moment")
    parser.add_argument("--directions", type=int, default=8, help="along which steps are counted")
    parser.add_argument("--near", type=int, default=4, help="tolerances that each count is the average of")
    parser.add_argument("--seeds", type=int, default=1, help="of the trainings with a draw")
    asked, start, rows = parser.parse_args(), time.perf_counter(), list[dict[str, Any]]()
    torch.set_num_threads(1)
    made_from = provenance.commit()  # before this run writes a file
    path, names = (KEPT.parent if asked.keep else OUT) / f"{asked.what}.json", asked.only.split(",")
    if asked.what == "direction":
        todo = chain(*(along_training(name, asked.examples, asked.directions, asked.near) for name in names))
    else:
        todo = trainings([name for name in COMPARED if name in names], range(asked.seeds))
    for row in todo:
        rows.append(row)
        seeds = {one.get("seed", 0) for one in rows}
        data = "; ".join(sorted({one["data"] for one in rows}))
        write(rows, path, made_from, sorted(seeds), time.perf_counter() - start, drawn=data)
        print(f"{row['what']}, {row['experiment']}: {time.perf_counter() - start:.0f} s", flush=True)
    text = lines(rows)
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / f"{asked.what}.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
