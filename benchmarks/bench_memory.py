"""Memory and time of gradient methods against the number of steps, with and without penalties, with one thread.

The problem is MNIST-sized: 128 states of 784 numbers (0.4 MB), an MLP 784-100-784, equal steps. Memory is counted
(reproduce.runs.memory): bytes of tensors that live at once, over the worst moment of solve, penalty and backward pass,
in multiples of one state. It is the same in every run. Without a penalty the growth of the resident set of a fresh
process is given beside it, for the largest number of steps: it also holds buffers and what the allocator keeps (Linux
only).

torchdiffeq is made to stop at the same times (`step_t`), at a tolerance so loose that little else limits its steps.
'adjoint, recorded' is hosts.odeint_solve, whose trace keeps one state for each step; 'adjoint, drop-in' is
torchdiffeq's own call heard by a LocalPenalty, which keeps one in all.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torchdiffeq
from _cases import Case, mnist
from _timing import alternate, median, options, report, speedup, table
from torch import Tensor

from regnde import LocalPenalty, make_regularizer, odeint_solve, solve_ode
from reproduce.runs.memory import Memory

NONE, BIASED, UNBIASED, GLOBAL = "none", "local_biased", "local_unbiased", "global_error"
STEPS = (5, 10, 40)
BACKPROP, CHECKPOINT = "backprop", "checkpoint"
RECORDED, DROPIN, PEER = "adjoint, recorded", "adjoint, drop-in", "torchdiffeq, backprop"
PAIRS = [(own, penalty) for own in (BACKPROP, CHECKPOINT) for penalty in (NONE, BIASED, UNBIASED, GLOBAL)]
PAIRS += [(RECORDED, NONE), (RECORDED, BIASED), (RECORDED, UNBIASED), (DROPIN, NONE), (DROPIN, BIASED), (PEER, NONE)]
THIRD = 1 / 3  # of backpropagation's peak: what checkpointing may need at most
FLAT = 1.0  # states by which a local penalty's further memory may vary over the numbers of steps


def loose_mnist() -> Case:
    case = mnist()
    return replace(case, y0=case.y0[:128].clone(), tolerance=0.1)


def loss(case: Case, method: str, penalty: str, n: int, rng: torch.Generator) -> Tensor:
    """Return the loss of one training step: mean square of the end state, plus the penalty."""
    regularizer, tolerances = make_regularizer(penalty), {"rtol": case.tolerance, "atol": case.tolerance}
    if method in (DROPIN, PEER):
        return loss_of_a_users_call(case, method, penalty, n, rng)
    t, sampled_t = regularizer.times(case.t, rng)
    settings: dict[str, Any] = {"sampled_t": sampled_t, "records": regularizer.records, **tolerances}
    if method == RECORDED:
        solution = odeint_solve(case.f, case.y0, t, gradient="adjoint", options=equal_steps(n), **settings)
    else:
        solution = solve_ode(case.f, case.y0, t, gradient=method, step_sizes=[1 / n] * n, **settings)
    value = solution.y[-1].square().mean()
    return value if regularizer.penalty is None else value + regularizer.penalty(solution, rng)


def loss_of_a_users_call(case: Case, method: str, penalty: str, n: int, rng: torch.Generator) -> Tensor:
    """The same with torchdiffeq's own functions."""
    tolerances = {"rtol": case.tolerance, "atol": case.tolerance}
    odeint = torchdiffeq.odeint if method == PEER else torchdiffeq.odeint_adjoint
    local = LocalPenalty(rng=rng)
    solve = odeint if penalty == NONE else local.odeint_adjoint
    value = solve(case.f, case.y0, case.t, method="dopri5", options=equal_steps(n), **tolerances)[-1].square().mean()
    return value if penalty == NONE else value + local.penalty()


def equal_steps(n: int) -> dict[str, Tensor]:
    """Return torchdiffeq's option to stop at n - 1 equidistant times inside (0, 1)."""
    return {"step_t": torch.linspace(0, 1, n + 1)[1:-1]}


def training_step(case: Case, method: str, penalty: str, n: int) -> None:
    """Run forward, penalty and backward."""
    torch.autograd.grad(loss(case, method, penalty, n, torch.Generator().manual_seed(0)), list(case.f.parameters()))


def counted(case: Case, method: str, penalty: str, n: int) -> dict[str, float]:
    """Return the bytes held when the backward pass begins and at the worst moment, in states."""
    with Memory() as memory:
        value = loss(case, method, penalty, n, torch.Generator().manual_seed(0))
        held = memory.now
        torch.autograd.grad(value, list(case.f.parameters()))
    return {"held": held / case.y0.nbytes, "peak": memory.peak / case.y0.nbytes}


def resident(method: str, n: int) -> float:
    """Return the growth of the largest resident set, MB, in a fresh process that makes one training step."""
    command = [sys.executable, __file__, "--resident", method, str(n)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_resident(method: str, n: int) -> None:
    torch.set_num_threads(1)
    case = loose_mnist()
    before = largest_resident_mb()
    training_step(case, method, NONE, n)
    print(largest_resident_mb() - before)


def largest_resident_mb() -> float:
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 2**10 for line in lines if line.startswith("VmHWM")), float("nan"))


def measure(case: Case, seconds: float) -> list[dict[str, Any]]:
    """Count all pairs of a gradient method and a penalty at all numbers of steps; time them at the largest one."""
    results = [
        {"steps": n, "method": method, "penalty": penalty, **counted(case, method, penalty, n)}
        for n in STEPS
        for method, penalty in PAIRS
    ]
    n = STEPS[-1]
    timed = {pair: partial(training_step, case, *pair, n) for pair in PAIRS if pair[1] in (NONE, BIASED)}
    ms = alternate(
        {str(pair): step for pair, step in timed.items()}, seconds=seconds, min_rounds=2, clock=time.process_time
    )
    for found in results:
        pair = (found["method"], found["penalty"])
        if found["steps"] == n and pair in timed:
            found["ms"] = median(ms[str(pair)])
            found["times_backprop"] = speedup(ms[str(pair)], ms[str((BACKPROP, NONE))])
            if pair[1] == NONE:
                found["resident_mb"] = resident(pair[0], n)
    return results


def peaks(results: list[dict[str, Any]], method: str, penalty: str) -> list[float]:
    """Return the peaks of one pair over the numbers of steps."""
    return [found["peak"] for found in results if (found["method"], found["penalty"]) == (method, penalty)]


def rows(results: list[dict[str, Any]], state_mb: float) -> list[list[str]]:
    """Return one line for each gradient method and penalty."""
    lines = []
    for method, penalty in PAIRS:
        mine = [found for found in results if (found["method"], found["penalty"]) == (method, penalty)]
        per_step = [(b["peak"] - a["peak"]) / (b["steps"] - a["steps"]) for a, b in pairwise(mine)]
        last = mine[-1]
        cells = [" / ".join(f"{found[what]:.0f}" for found in mine) for what in ("held", "peak")]
        cells += [f"{per_step[-1]:.2f}", f"{last['peak'] * state_mb:.0f}"]
        measured = (("resident_mb", ".0f"), ("ms", ".0f"), ("times_backprop", ".2f"))
        lines.append(
            [method, penalty, *cells, *(f"{last[name]:{form}}" if name in last else "" for name, form in measured)]
        )
    return lines


def verdicts(results: list[dict[str, Any]]) -> list[list[str]]:
    """Hold checkpointing against a third of backpropagation's peak, and local penalties against flatness."""
    lines = []
    for penalty in (NONE, BIASED, UNBIASED, GLOBAL):
        share = peaks(results, CHECKPOINT, penalty)[-1] / peaks(results, BACKPROP, penalty)[-1]
        claim = f"checkpoint, {penalty}: share of backpropagation's peak at {STEPS[-1]} steps"
        lines.append([claim, f"{share:.2f}", "<= 1/3", "holds" if share <= THIRD else "MISSED"])
    for method, penalty in PAIRS:
        if penalty in (BIASED, UNBIASED):
            pairs = zip(peaks(results, method, penalty), peaks(results, method, NONE), strict=True)
            further = [with_ - without for with_, without in pairs]
            claim = f"{method}, {penalty}: further states at {', '.join(map(str, STEPS))} steps"
            flat = max(further) - min(further) <= FLAT
            found = ", ".join(f"{x:.1f}" for x in further)
            lines.append([claim, found, f"within {FLAT:g}", "holds" if flat else "MISSED"])
    return lines


def text_of(numbers: dict[str, Any]) -> str:
    """Return the report."""
    results, state_mb = numbers["cases"], numbers["state_mb"]
    of = " / ".join(map(str, STEPS))
    header = ["gradient", "penalty", f"held, states ({of} steps)", "peak, states", "peak, states per step"]
    header += [f"peak MB ({STEPS[-1]} steps)", "resident MB", "ms", "times backprop"]
    found = table(header, rows(results, state_mb))
    targets = table(["claim", "found", "allowed", ""], verdicts(results))
    about = (
        f"One thread, float32; one state is {state_mb:.2f} MB. Held: when the backward pass begins. Medians of\n"
        "alternating rounds, processor time. torchdiffeq's steps are dopri5's, ours tsit5's; both have six new stages\n"
        "a step."
    )
    return f"## Memory\n\n{about}\n\n{found}\n\n{targets}"


def main() -> None:
    seconds = options(__doc__ or "", seconds=60.0).seconds
    case = loose_mnist()
    numbers = {"cases": measure(case, seconds), "state_mb": case.y0.nbytes / 2**20, "seconds": seconds}
    report("memory", text_of(numbers), numbers)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--resident"]:
        print_resident(sys.argv[2], int(sys.argv[3]))
    else:
        main()
