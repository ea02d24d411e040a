"""How fast solve_ode is beside torchdiffeq 0.2.5 and beside two floors, eager and compiled, with one thread.

Forward runs under `torch.no_grad()` for every contender. Forward+backward differentiates the mean square of all
output states for the parameters (and for y0 where an encoder would have made it). A floor is what a solver that costs
nothing would take: as many calls of f (and of its backward) as torchdiffeq's solve makes, in eager PyTorch or each
call through torch.compile. Our compiled steps fuse several calls, and may undercut both. The like-for-like contender
is solve_ode with torchdiffeq's own tableau (its dopri5 takes two thirds of the classical embedded difference as its
error), so that both take the same steps; torchdiffeq may step past the last time.

Times are processor times of the one thread. Compile time is time on the wall: what the first call takes beyond the
second, without anything on disk, and once more in a second process, which finds what the first one left there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import torch
import torchdiffeq
from _cases import Case, latent, mnist, spiral
from _timing import alternate, median, options, report, speedup, table
from torch import Tensor

from regnde import Solution, local_biased, odeint_solve, solve_ode
from regnde.hosts.with_torchdiffeq import HOST_TABLEAUS

TORCHDIFFEQ, LIKE_FOR_LIKE = "torchdiffeq dopri5", "solve_ode, torchdiffeq's dopri5"
COMPILED = f"{LIKE_FOR_LIKE}, compiled"
FLOOR, COMPILED_FLOOR = "floor: torchdiffeq's NFE x f", "floor: torchdiffeq's NFE x f, compiled"
HOST = HOST_TABLEAUS["dopri5"]
METHODS: dict[str, dict[str, Any]] = {
    LIKE_FOR_LIKE: {"method": HOST},
    COMPILED: {"method": HOST, "compile": True},
    "solve_ode dopri5": {"method": "dopri5"},
    "solve_ode tsit5": {"method": "tsit5"},
}
MODES = ("forward", "forward+backward")
TARGETS = {
    "MNIST-sized": {LIKE_FOR_LIKE: (2.3, 2.0), COMPILED: (3.0, 2.2)},
    "latent-ODE-sized": {LIKE_FOR_LIKE: (1.4, 1.5), COMPILED: (1.9, 1.9)},
    "spiral, 1,000 times": {LIKE_FOR_LIKE: (2.5, 2.4), COMPILED: (10.0, 8.0)},
}
TRAINING_TARGET = {"latent-ODE-sized": 1.5, "spiral, 1,000 times": 1.5}
CASES = (mnist, latent, spiral)


def solvers(case: Case) -> dict[str, Callable[[], Tensor]]:
    """Return each contender as a function that solves the case: () -> states (times, batch, d)."""
    tolerances = {"rtol": case.tolerance, "atol": case.tolerance}

    def ours(how: dict[str, Any]) -> Tensor:
        return solve_ode(case.f, case.y0, case.t, **how, **tolerances).y

    theirs = partial(torchdiffeq.odeint, case.f, case.y0, case.t, method="dopri5", **tolerances)
    return {TORCHDIFFEQ: theirs, **{name: partial(ours, how) for name, how in METHODS.items()}}


@torch.no_grad()
def solutions(case: Case) -> dict[str, Solution]:
    """Solve once with each contender, to count; torchdiffeq's solve is recorded, which leaves it as it is."""
    tolerances = {"rtol": case.tolerance, "atol": case.tolerance}
    ours = {n: solve_ode(case.f, case.y0, case.t, **how, **tolerances) for n, how in METHODS.items()}
    return {TORCHDIFFEQ: odeint_solve(case.f, case.y0, case.t, method="dopri5", **tolerances), **ours}


@torch.no_grad()
def reference(case: Case) -> Tensor:
    """Solve in float64 with a tolerance 1,000 times smaller."""
    f, tight = deepcopy(case.f).double(), case.tolerance / 1000
    return solve_ode(f, case.y0.double(), case.t, rtol=tight, atol=tight, max_steps=100_000).y


def forward(run: Callable[[], Tensor]) -> None:
    with torch.no_grad():
        run()


def forward_backward(run: Callable[[], Tensor], inputs: list[Tensor]) -> None:
    torch.autograd.grad(run().square().mean(), inputs)


def floors(case: Case, nfe: int) -> dict[str, dict[str, Callable[[], None]]]:
    """Return, by mode, both floors: `nfe` evaluations of f and nothing else."""
    t, y = case.y0.new_tensor(0.5), case.y0.detach().clone().requires_grad_()
    inputs, cotangent = [y, *case.f.parameters()], torch.ones_like(y)

    def without_graph(f: Callable[..., Tensor]) -> None:
        with torch.no_grad():
            for _ in range(nfe):
                f(t, y)

    def with_backward(f: Callable[..., Tensor]) -> None:
        for _ in range(nfe):
            torch.autograd.grad(f(t, y), inputs, cotangent)

    fields = {FLOOR: case.f, COMPILED_FLOOR: torch.compile(case.f, fullgraph=True)}
    kinds = dict(zip(MODES, (without_graph, with_backward), strict=True))
    return {mode: {name: partial(kind, f) for name, f in fields.items()} for mode, kind in kinds.items()}


def contenders(case: Case) -> dict[str, dict[str, Callable[[], None]]]:
    """Return, by mode, all solvers as functions that are to be timed."""
    run = solvers(case)
    return {
        "forward": {n: partial(forward, r) for n, r in run.items()},
        "forward+backward": {n: partial(forward_backward, r, case.inputs) for n, r in run.items()},
    }


def training_steps(case: Case) -> dict[str, Callable[[], None]]:
    """Return a training step with a local penalty, eager and compiled: solve, loss, penalty, backward."""
    regularizer, tolerances = local_biased(weight=0.1), {"rtol": case.tolerance, "atol": case.tolerance}
    assert regularizer.penalty is not None
    penalty, rng = regularizer.penalty, torch.Generator().manual_seed(0)

    def step(compile: bool) -> None:
        solution = solve_ode(case.f, case.y0, case.t, method=HOST, compile=compile, **tolerances)
        torch.autograd.grad(solution.y.square().mean() + 0.1 * penalty(solution, rng), case.inputs)

    return {"eager": partial(step, False), "compiled": partial(step, True)}


def seconds_of(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def first_calls(case: Case) -> dict[str, float]:
    """Return the seconds of the first call of what is compiled, in this process, beyond those of the second."""
    runs = {mode: run[COMPILED] for mode, run in contenders(case).items()}
    runs["training step"] = training_steps(case)["compiled"]
    return {name: seconds_of(run) - seconds_of(run) for name, run in runs.items()}


def warm_calls() -> list[dict[str, float]]:
    """Return the first calls of all cases in a new process, which finds the kernels of this one on disk."""
    command = [sys.executable, __file__, "--first-calls"]
    return list(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))


def measure(case: Case, seconds: float) -> dict[str, Any]:
    """Time all contenders on one case."""
    cold = first_calls(case)
    solved, exact = solutions(case), reference(case)
    nfe = {name: solution.trace.nfe for name, solution in solved.items()}
    run, floor = contenders(case), floors(case, nfe[TORCHDIFFEQ])
    times = {mode: alternate({**run[mode], **floor[mode]}, seconds=seconds, clock=time.process_time) for mode in MODES}
    training = alternate(training_steps(case), seconds=seconds, clock=time.process_time)
    return {
        "case": case.name,
        "nfe": nfe,
        "accepted": {name: solution.trace.accepted for name, solution in solved.items()},
        "rejected": {name: solution.trace.rejected for name, solution in solved.items()},
        "max_error": {name: float((s.y - exact).abs().max()) for name, s in solved.items()},
        "ms": {mode: {name: median(values) for name, values in times[mode].items()} for mode in MODES},
        "speedup": {
            mode: {name: speedup(times[mode][TORCHDIFFEQ], values) for name, values in times[mode].items()}
            for mode in MODES
        },
        "rounds": {mode: len(times[mode][TORCHDIFFEQ]) for mode in MODES},
        "target": {name: dict(zip(MODES, values, strict=True)) for name, values in TARGETS[case.name].items()},
        "training_ms": {name: median(values) for name, values in training.items()},
        "training_speedup": speedup(training["eager"], training["compiled"]),
        "first_call_seconds": {"cold": cold},
    }


def rows(result: dict[str, Any]) -> list[list[str]]:
    """Return the lines of one case: each contender, then the floors."""
    lines = []
    for name in (*result["nfe"], FLOOR, COMPILED_FLOOR):
        solver = name if name in result["nfe"] else TORCHDIFFEQ
        steps = f"{result['nfe'][solver]} ({result['accepted'][solver]} + {result['rejected'][solver]})"
        error = f"{result['max_error'][solver]:.0e}" if name == solver else ""
        ms, ratio = ([result[what][mode][name] for mode in MODES] for what in ("ms", "speedup"))
        lines.append([result["case"], name, steps, error, *(f"{x:.1f}" for x in ms), *(f"{x:.2f}" for x in ratio)])
    return lines


def held(found: float, target: float) -> list[str]:
    return [f"{found:.2f}", f"{target:.2f}", "holds" if found >= target else "MISSED"]


def verdicts(results: list[dict[str, Any]]) -> list[list[str]]:
    """Hold the like-for-like contender, eager and compiled, and the compiled training step against the targets."""
    lines = []
    for result in results:
        for name, targets in result["target"].items():
            for mode, target in targets.items():
                lines.append([result["case"], name, mode, *held(result["speedup"][mode][name], target)])
    for result in results:
        if (case := result["case"]) in TRAINING_TARGET:
            name, found = "training step with a local penalty: compiled over eager", result["training_speedup"]
            lines.append([case, name, "forward+backward", *held(found, TRAINING_TARGET[case])])
    return lines


def compiling(result: dict[str, Any]) -> list[str]:
    """Return the line of one case about compiling, and after how many solves it has paid against our eager ones."""
    first = result["first_call_seconds"]
    cells = [f"{first['cold'][name]:.0f} / {first['warm'][name]:.1f}" for name in first["cold"]]
    saved = [(result["ms"][mode][LIKE_FOR_LIKE] - result["ms"][mode][COMPILED]) / 1e3 for mode in MODES]
    paid = [f"{first['cold'][mode] / s:.0f}" if s > 0 else "never" for mode, s in zip(MODES, saved, strict=True)]
    training = [f"{result['training_ms'][name]:.1f}" for name in ("eager", "compiled")]
    return [result["case"], *cells, " / ".join(paid), *training, f"{result['training_speedup']:.2f}"]


def text_of(numbers: dict[str, Any]) -> str:
    """Return the report."""
    results = numbers["cases"]
    header = ["case", "contender", "NFE (accepted + rejected)", "max error"]
    header += ["forward ms", "forward+backward ms", "x faster, forward", "x faster, both"]
    times = table(header, [line for result in results for line in rows(result)])
    targets = table(["case", "what", "mode", "x faster", "target", ""], verdicts(results))
    header = ["case", "compiling s, forward: cold / warm", "compiling s, both: cold / warm"]
    header += ["compiling s, penalty on top: cold / warm", "pays after so many solves, forward / both"]
    header += ["training step with a local penalty ms, eager", "compiled", "x faster"]
    first = table(header, [compiling(result) for result in results])
    about = (
        "Processor time of one thread, float32. Forward is under torch.no_grad() for all. Milliseconds are medians of\n"
        "alternating rounds, 'x faster' (than torchdiffeq) the median over rounds. Max error: against a float64 solve\n"
        "with a tolerance 1,000 times smaller. Targets are held against the contender that takes torchdiffeq's own\n"
        "steps. Compiling is outside of all milliseconds, in seconds on the wall: cold with nothing on disk, warm in\n"
        "a second process; 'pays' counts the solves after which cold compiling has paid, against our eager solve."
    )
    return f"## Solve\n\n{about}\n\n{times}\n\n{targets}\n\n{first}"


def main() -> None:
    seconds = options(__doc__ or "", seconds=4.0).seconds
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        results = [measure(case(), seconds) for case in CASES]
        for result, warm in zip(results, warm_calls(), strict=True):
            result["first_call_seconds"]["warm"] = warm
    numbers = {"cases": results, "seconds": seconds}
    report("solve", text_of(numbers), numbers)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["--first-calls"]:
        print(json.dumps([first_calls(case()) for case in CASES]))
    else:
        main()
