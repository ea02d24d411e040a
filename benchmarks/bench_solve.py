"""How fast solve_ode is beside torchdiffeq 0.2.5 and beside the floor, on three problems, with one thread.

Forward runs under `torch.no_grad()` for every contender. Forward+backward differentiates the mean square of all
output states for the parameters (and for y0 where an encoder would have made it). The floor is what a solver that
costs nothing would take: as many calls of f (and of its backward) as torchdiffeq's solve makes. The like-for-like
contender is solve_ode with torchdiffeq's own tableau (its dopri5 takes two thirds of the classical embedded
difference as its error), so that both take the same steps; torchdiffeq may step past the last time.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import torch
import torchdiffeq
from _cases import Case, latent, mnist, spiral
from _timing import alternate, median, options, report, speedup, table
from torch import Tensor

from regnde import Solution, odeint_solve, solve_ode
from regnde.hosts.with_torchdiffeq import HOST_TABLEAUS

TORCHDIFFEQ, LIKE_FOR_LIKE = "torchdiffeq dopri5", "solve_ode, torchdiffeq's dopri5"
FLOOR = "floor: torchdiffeq's NFE x f"
METHODS = {LIKE_FOR_LIKE: HOST_TABLEAUS["dopri5"], "solve_ode dopri5": "dopri5", "solve_ode tsit5": "tsit5"}
MODES = ("forward", "forward+backward")
TARGETS = {"MNIST-sized": (1.8, 1.5), "latent-ODE-sized": (1.15, 1.3), "spiral, 1,000 times": (2.0, 2.0)}


def solvers(case: Case) -> dict[str, Callable[[], Tensor]]:
    """Return each contender as a function that solves the case: () -> states (times, batch, d)."""
    tolerances = {"rtol": case.tolerance, "atol": case.tolerance}

    def ours(method: Any) -> Tensor:
        return solve_ode(case.f, case.y0, case.t, method=method, **tolerances).y

    theirs = partial(torchdiffeq.odeint, case.f, case.y0, case.t, method="dopri5", **tolerances)
    return {TORCHDIFFEQ: theirs, **{name: partial(ours, method) for name, method in METHODS.items()}}


@torch.no_grad()
def solutions(case: Case) -> dict[str, Solution]:
    """Solve once with each contender, to count; torchdiffeq's solve is recorded, which leaves it as it is."""
    tolerances = {"rtol": case.tolerance, "atol": case.tolerance}
    ours = {n: solve_ode(case.f, case.y0, case.t, method=m, **tolerances) for n, m in METHODS.items()}
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


def floors(case: Case, nfe: int) -> dict[str, Callable[[], None]]:
    """Return `nfe` evaluations of f and nothing else, forward and forward+backward."""
    t, y = case.y0.new_tensor(0.5), case.y0.detach().clone().requires_grad_()
    inputs, cotangent = [y, *case.f.parameters()], torch.ones_like(y)

    def without_graph() -> None:
        with torch.no_grad():
            for _ in range(nfe):
                case.f(t, y)

    def with_backward() -> None:
        for _ in range(nfe):
            torch.autograd.grad(case.f(t, y), inputs, cotangent)

    return dict(zip(MODES, (without_graph, with_backward), strict=True))


def measure(case: Case, seconds: float) -> dict[str, Any]:
    """Time all contenders on one case."""
    solved, exact = solutions(case), reference(case)
    run = solvers(case)
    nfe = {name: solution.trace.nfe for name, solution in solved.items()}
    floor = floors(case, nfe[TORCHDIFFEQ])
    contenders: dict[str, dict[str, Callable[[], None]]] = {
        "forward": {n: partial(forward, r) for n, r in run.items()},
        "forward+backward": {n: partial(forward_backward, r, case.inputs) for n, r in run.items()},
    }
    times = {mode: alternate({**contenders[mode], FLOOR: floor[mode]}, seconds=seconds) for mode in MODES}
    return {
        "case": case.name,
        "nfe": nfe,
        "accepted": {name: solution.trace.accepted for name, solution in solved.items()},
        "rejected": {name: solution.trace.rejected for name, solution in solved.items()},
        "max_error": {name: float((s.y - exact).abs().max()) for name, s in solved.items()},
        "ms": {mode: {n: median(times[mode][n]) for n in (*run, FLOOR)} for mode in MODES},
        "speedup": {
            mode: {n: speedup(times[mode][TORCHDIFFEQ], times[mode][n]) for n in (*run, FLOOR)} for mode in MODES
        },
        "rounds": {mode: len(times[mode][TORCHDIFFEQ]) for mode in MODES},
        "target": dict(zip(MODES, TARGETS[case.name], strict=True)),
    }


def rows(result: dict[str, Any]) -> list[list[str]]:
    """Return the lines of one case: each contender, then the floor."""
    lines = []
    for name in (*result["nfe"], FLOOR):
        solver = name if name in result["nfe"] else TORCHDIFFEQ
        steps = f"{result['nfe'][solver]} ({result['accepted'][solver]} + {result['rejected'][solver]})"
        error = f"{result['max_error'][solver]:.0e}" if name == solver else ""
        ms, ratio = ([result[what][mode][name] for mode in MODES] for what in ("ms", "speedup"))
        lines.append([result["case"], name, steps, error, *(f"{x:.1f}" for x in ms), *(f"{x:.2f}" for x in ratio)])
    return lines


def verdicts(results: list[dict[str, Any]]) -> list[list[str]]:
    """Hold the like-for-like contender against the targets."""
    lines = []
    for result in results:
        for mode in MODES:
            found, target = result["speedup"][mode][LIKE_FOR_LIKE], result["target"][mode]
            holds = "holds" if found >= target else "MISSED"
            lines.append([result["case"], mode, f"{found:.2f}", f"{target:.2f}", holds])
    return lines


def main() -> None:
    seconds = options(__doc__ or "", seconds=4.0).seconds
    results = [measure(case(), seconds) for case in (mnist, latent, spiral)]
    header = ["case", "contender", "NFE (accepted + rejected)", "max error"]
    header += ["forward ms", "forward+backward ms", "x faster, forward", "x faster, both"]
    times = table(header, [line for result in results for line in rows(result)])
    targets = table(["case", "mode", "like-for-like: x faster", "target", ""], verdicts(results))
    about = (
        "One thread, float32. Forward is under torch.no_grad() for all. Milliseconds are medians of alternating\n"
        "rounds, 'x faster' (than torchdiffeq) the median over rounds. Max error: against a float64 solve with a\n"
        "tolerance 1,000 times smaller. Targets are held against the contender that takes torchdiffeq's own steps."
    )
    report("solve", f"## Solve\n\n{about}\n\n{times}\n\n{targets}", {"cases": results, "seconds": seconds})


if __name__ == "__main__":
    main()
