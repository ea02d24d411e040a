"""What a trained model reaches and costs in every way to solve it: all tolerances, two orders, few fixed steps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from regnde import Solution, SolverError, sdeint_solve
from reproduce.experiments import Budget, Problem
from reproduce.models.solve import Solve, hold_still
from reproduce.runs import device as devices
from reproduce.runs.evaluation import distance, exact_outputs, generator, path, solve_equation

TOLERANCES = tuple(10.0**-i for i in range(10))
STEPS = (1, 2, 4, 8, 16)
ORDERS = ("tsit5", "bosh3")
FIXED = {"ode": ("euler", "midpoint", "rk4"), "sde": ("euler", "milstein")}
"""Methods with fixed steps: of ODEs our own solver's, of SDEs torchsde's."""
SDE = ("sosri", "sosri2")


@dataclass(frozen=True)
class Way:
    """One way to solve: a method with a tolerance, or with a number of equal steps."""

    method: str
    tolerance: float | None = None
    """Relative and absolute; None: fixed steps."""
    steps: int | None = None


def ways(budget: Budget) -> Iterator[Way]:
    """Yield the ways of a budget's equation: each method from loose to tight, then from few steps to many.

    The tolerance of the budget is among them.
    """
    sde = budget.method in SDE
    methods = (budget.method,) if sde else (*ORDERS, *(("vcab3",) if budget.method == "vcab3" else ()))
    tolerances = sorted({*TOLERANCES, budget.rtol}, reverse=True)
    yield from (Way(method, tolerance=tolerance) for method in methods for tolerance in tolerances)
    yield from (Way(method, steps=n) for method in FIXED["sde" if sde else "ode"] for n in STEPS)


def solver_of(way: Way, budget: Budget, noise: torch.Generator) -> Solve:
    """Return the solve of a way; an SDE's paths are those of `noise`, whatever the way."""
    if way.steps is not None and budget.method in SDE:

        def by_torchsde(f: Any, y0: Tensor, t: Tensor) -> Solution:
            dt = float(t[-1] - t[0]) / int(way.steps or 1)
            return sdeint_solve(
                f, y0, t, rtol=1.0, atol=1.0, dt=dt, method=way.method, bm=path(y0, t, noise, float(t[1] - t[0]))
            )

        return by_torchsde
    tolerance = 1.0 if way.tolerance is None else way.tolerance
    plain = {"host": "own", "host_method": None, "gradient": "backprop"}
    at = budget.but(**plain, method=way.method, rtol=tolerance, atol=tolerance, fixed_steps=way.steps)
    return lambda f, y0, t: solve_equation(f, y0, t, at, noise=noise)


@torch.no_grad()
def measured(
    model: nn.Module, problem: Problem, part: str, budget: Budget, *, control: bool, limit: float, seed: int
) -> list[dict[str, Any]]:
    """Measure a trained model in every way on the first batches of a part, `budget.curve` examples at most.

    Args:
        control: whether it solves nothing.
        limit: evaluations on the first batch above which a tolerance is not measured, nor a tighter one.
        seed: of the model's noise and of the paths of an SDE, the same in every way.

    Returns:
        One entry for each way: the fields of `Way`, 'metric' and 'nfe' (means over the batches), 'seconds' of the
        fastest full batch, and 'failed', in words, where the solve did or gave no finite metric. Where the budget has a
        reference, 'error' is the mean absolute error of the output, and a first entry 'reference' has the metric of the
        exact one. The control has one way, 'none'. Nothing where the budget asks for no curve.
    """
    if budget.curve is None:
        return []
    model.eval()
    batches, solve = _first(problem.test_batches(part), budget.curve), hold_still if control else None
    real: list[Any] | None = None
    found: list[dict[str, Any]] = []
    if budget.reference is not None:
        real = exact_outputs(model, problem, part, batches, budget, solve or _none, seed=seed)
        found.append(asdict(Way("reference")) | {"metric": _mean(map(problem.metric, real, batches), batches)})
    if solve is not None:
        return [*found, asdict(Way("none")) | _measure(model, problem, batches, solve, real, math.inf, seed)]
    ended = set[str]()
    for way in ways(budget):
        if way.method in ended and way.steps is None:
            continue
        way_solve = solver_of(way, budget, generator(seed, "paths of the ways"))
        entry = _measure(model, problem, batches, way_solve, real, math.inf if way.steps else limit, seed)
        if entry["failed"]:
            ended.add(way.method)
        found.append(asdict(way) | entry)
    return found


def _none(f: Any, y0: Tensor, t: Tensor) -> Solution:
    raise AssertionError("the reference has a solve of its own")


def _first(batches: list[Any], n: int) -> list[Any]:
    sizes = torch.tensor([len(batch[-1]) for batch in batches]).cumsum(0)
    return batches[: max(1, int((sizes <= n).sum()))]


def _mean(values: Any, batches: list[Any]) -> float:
    sizes = [len(batch[-1]) for batch in batches]
    return math.fsum(size * value for size, value in zip(sizes, values, strict=True)) / sum(sizes)


def _measure(
    model: nn.Module,
    problem: Problem,
    batches: list[Any],
    solve: Solve,
    real: list[Any] | None,
    limit: float,
    seed: int,
) -> dict[str, Any]:
    clock, noise = devices.clock(problem.device), generator(seed, "noise of the ways")
    metrics, nfe, seconds, errors = [], [], [], []
    try:
        for i, batch in enumerate(batches):
            inputs, started = problem.inputs(batch), clock()
            output, solution = model(inputs, solve, noise)
            seconds.append((-len(batch[-1]), clock() - started))
            nfe.append(solution.trace.nfe)
            if nfe[0] > limit:
                return _nothing(f"more than {limit:.0f} evaluations", nfe[0])
            metrics.append(problem.metric(output, batch))
            errors.append(0.0 if real is None else distance(output, real[i]))
    except SolverError as error:
        return _nothing(str(error).split(":")[0])
    entry: dict[str, Any] = {"metric": _mean(metrics, batches), "nfe": _mean(nfe, batches), "seconds": min(seconds)[1]}
    if real is not None:
        entry["error"] = _mean(errors, batches)
    if all(math.isfinite(value) for value in entry.values()):
        return entry | {"failed": ""}
    return _nothing("the output is not finite", entry["nfe"])


def _nothing(why: str, nfe: float | None = None) -> dict[str, Any]:
    return {"metric": None, "nfe": nfe, "seconds": None, "failed": why}
