"""Compiled steps on the trained model of every experiment: the same steps? the same numbers? how much faster?

Each experiment is trained for some steps of its quick budget. Then one batch of test data is solved by the eager and by
the compiled solver, without and with gradients. Differences are norms, relative to those of the eager result. Compile
times are those of the first solve of a process (the kernels of an earlier one may lie in torch's cache on disk; an
empty TORCHINDUCTOR_CACHE_DIR shows what the very first costs).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from _timing import alternate, median, options, report, speedup, table
from torch import Tensor

from regnde import Solution, make_regularizer, solve_ode, solve_sde
from reproduce import experiments
from reproduce.experiments import Budget
from reproduce.runs import train
from reproduce.runs.evaluation import generator

STEPS = {"spiral_ode": 200, "mnist_ode": 150, "physionet": 60, "spiral_sde": 60, "mnist_sde": 200}
Solve = Callable[[Any, Tensor, Tensor], Solution]


def solver(budget: Budget, *, compile: bool) -> Solve:
    """Return a budget's own adaptive solve; of an SDE always along the same path."""

    def solve(f: Any, y0: Tensor, t: Tensor) -> Solution:
        how: dict[str, Any] = {"rtol": budget.rtol, "atol": budget.atol, "controller": budget.controller}
        how |= {"method": budget.method, "compile": compile}
        if hasattr(f, "g"):
            return solve_sde(f.f, f.g, y0, t, seed=1, estimate=budget.estimate, **how)
        return solve_ode(f, y0, t, **how)

    return solve


def measure(name: str, seconds: float) -> dict[str, Any]:
    """Train an experiment for a while, and hold its compiled solve against the eager one."""
    experiment = experiments.get(name)
    budget = experiment.budget("quick", steps=STEPS[name])
    trained = train.train(experiment, make_regularizer("none"), 0, "quick", steps=STEPS[name])
    model, problem = trained.model, trained.problem
    batch = problem.test_batches("test")[0]
    solves = {"eager": solver(budget, compile=False), "compiled": solver(budget, compile=True)}
    model.eval()

    def loss(kind: str) -> tuple[Tensor, Solution]:
        output, solution = model(problem.inputs(batch), solves[kind], generator(0, "noise"))
        return problem.loss(output, batch, budget.steps), solution

    def forward(kind: str) -> Solution:
        with torch.no_grad():
            return loss(kind)[1]

    def gradient(kind: str) -> list[Tensor]:
        return list(torch.autograd.grad(loss(kind)[0], list(model.parameters()), allow_unused=True))

    first = {"forward": timed(lambda: forward("compiled")), "both": timed(lambda: gradient("compiled"))}
    a, b = forward("eager"), forward("compiled")
    of_parameters = zip(gradient("eager"), gradient("compiled"), strict=True)
    runs: dict[str, Callable[[str], object]] = {"forward": forward, "both": gradient}
    times = {
        mode: alternate({kind: lambda run=run, kind=kind: run(kind) for kind in solves}, seconds=seconds)  # type: ignore[misc]
        for mode, run in runs.items()
    }
    return {
        "experiment": name,
        "steps": {
            kind: [s.trace.accepted, s.trace.rejected, s.trace.nfe] for kind, s in zip(solves, (a, b), strict=True)
        },
        "dt": float((a.trace.dt - b.trace.dt).norm() / a.trace.dt.norm())
        if len(a.trace.dt) == len(b.trace.dt)
        else None,
        "states": relative(a.y, b.y),
        "gradients": max(relative(x, y) for x, y in of_parameters if x is not None),
        "first": first,
        "ms": {mode: {kind: median(times[mode][kind]) for kind in solves} for mode in runs},
        "speedup": {mode: speedup(times[mode]["eager"], times[mode]["compiled"]) for mode in runs},
    }


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / a.norm())


def timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def line(result: dict[str, Any]) -> list[str]:
    steps = ["{} + {}".format(*result["steps"][kind][:2]) for kind in ("eager", "compiled")]
    dt = "-" if result["dt"] is None else f"{result['dt']:.0e}"
    found = [dt, f"{result['states']:.0e}", f"{result['gradients']:.0e}"]
    speed = [f"{result['speedup'][mode]:.2f}" for mode in ("forward", "both")]
    return [
        result["experiment"],
        *steps,
        *found,
        *(f"{result['first'][mode]:.0f}" for mode in ("forward", "both")),
        *speed,
    ]


def main() -> None:
    seconds = options(__doc__ or "", seconds=8.0).seconds
    results = []
    for name in STEPS:
        results.append(measure(name, seconds))
        print(line(results[-1]), flush=True)
    header = [
        "experiment",
        "steps, eager (accepted + rejected)",
        "steps, compiled",
        "step sizes differ by",
        "states",
        "gradients",
    ]
    header += ["first solve, s", "first with gradient, s", "x faster, forward", "x faster, both"]
    about = (
        "Models trained for a part of their quick budget; one test batch, float32, one thread; times are those of the\n"
        "whole prediction, encoders and losses included. 'x faster': compiled against eager, medians over rounds."
    )
    text = f"## Compiled and eager\n\n{about}\n\n{table(header, [line(result) for result in results])}"
    report("compiled", text, {"experiments": results, "steps": STEPS, "seconds": seconds})


if __name__ == "__main__":
    main()
