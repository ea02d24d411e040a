"""solve_ode beside diffrax, torchode and torchdiffeq on three problems, and solve_sde beside torchsde and diffrax.

All in one process, on one thread, float32, with the same weights, Dormand-Prince 5 and an integral controller at the
same tolerances, one step size for the whole batch. diffrax runs under jit, and forward+backward by the adjoint that a
short trial finds to be the fastest. The floors are as many evaluations of f as torchdiffeq's solve makes, in eager
PyTorch or each through torch.compile. `make bench-peers` makes the environment, from a lock of its own.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from _cases import Case
from _timing import alternate, median, options, report, speedup, table
from bench_solve import (
    CASES,
    COMPILED,
    COMPILED_FLOOR,
    FLOOR,
    LIKE_FOR_LIKE,
    MODES,
    TORCHDIFFEQ,
    contenders,
    floors,
    forward,
    forward_backward,
    held,
    reference,
    seconds_of,
    solutions,
)

DIFFRAX, TORCHODE = "diffrax Dopri5, jit", "torchode Dopri5"
FLOORS = {"MNIST-sized": (1.0, 1.6), "latent-ODE-sized": (0.5, 1.0), "spiral, 1,000 times": (0.2, 0.6)}
"""How many times as fast as diffrax the compiled solve shall be at least, forward and both."""


def processor_ms(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return 1e3 * (time.process_time() - start)


def nanoseconds() -> dict[str, int]:
    """Return the processor time of each thread of this process (Linux; elsewhere there are none)."""
    return {path.parent.name: int(path.read_text().split()[0]) for path in Path("/proc/self/task").glob("*/schedstat")}


def share_of_one_thread(run: Callable[[], object]) -> float:
    """Return the busiest thread's share of the processor time of some calls: 1 where one thread does all."""
    before = nanoseconds()
    start = time.process_time()
    while time.process_time() - start < 0.05:
        run()
    spent = [after - before.get(thread, 0) for thread, after in nanoseconds().items()]
    return max(spent, default=0) / max(sum(spent), 1)


def first_call(run: Callable[[], object]) -> float:
    """Return the seconds on the wall that a first call takes beyond a second one."""
    return seconds_of(run) - seconds_of(run)


def measure(case: Case, seconds: float) -> dict[str, Any]:
    """Time all solvers on one case."""
    from _diffrax import Solver as Diffrax
    from _torchode import Solver as Torchode

    peer, batched, exact, ours = Diffrax(case), Torchode(case), reference(case), contenders(case)
    run = {mode: {name: ours[mode][name] for name in (TORCHDIFFEQ, LIKE_FOR_LIKE, COMPILED)} for mode in MODES}
    run["forward"] |= {TORCHODE: partial(forward, batched.states), DIFFRAX: peer.forward()}
    adjoints = peer.adjoints()
    first = {mode: {COMPILED: first_call(run[mode][COMPILED])} for mode in MODES}
    found = {name: (first_call(go), min(processor_ms(go) for _ in range(3))) for name, go in adjoints.items()}
    adjoint = min(found, key=lambda name: found[name][1])
    run["forward+backward"] |= {TORCHODE: partial(forward_backward, batched.states, case.inputs)}
    run["forward+backward"] |= {DIFFRAX: adjoints[adjoint]}
    first["forward"][DIFFRAX], first["forward+backward"][DIFFRAX] = (
        first_call(run["forward"][DIFFRAX]),
        found[adjoint][0],
    )
    solved = {name: s for name, s in solutions(case).items() if name in run["forward"]}
    counts = {n: (s.trace.nfe, s.trace.accepted, s.trace.rejected) for n, s in solved.items()}
    counts |= {TORCHODE: batched.counts(), DIFFRAX: (6 * peer.steps + 2, peer.accepted, peer.rejected)}
    with torch.no_grad():
        states = {n: s.y for n, s in solved.items()} | {TORCHODE: batched.states()}
    states[DIFFRAX] = torch.from_numpy(peer.states().copy())
    floor = floors(case, counts[TORCHDIFFEQ][0])
    run = {mode: run[mode] | floor[mode] for mode in MODES}
    times = {mode: alternate(run[mode], seconds=seconds, min_rounds=3, clock=time.process_time) for mode in MODES}
    return {
        "case": case.name,
        "counts": counts,
        "max_error": {name: float((y - exact).abs().max()) for name, y in states.items()},
        "ms": {mode: {name: median(values) for name, values in times[mode].items()} for mode in MODES},
        "x_torchdiffeq": {m: {n: speedup(times[m][TORCHDIFFEQ], v) for n, v in times[m].items()} for m in MODES},
        "x_diffrax": {m: {n: speedup(times[m][DIFFRAX], v) for n, v in times[m].items()} for m in MODES},
        "first_call_seconds": first,
        "adjoints": {name: {"first_call_seconds": s, "ms": ms} for name, (s, ms) in found.items()},
        "adjoint": adjoint,
        "share_of_one_thread": {n: min(share_of_one_thread(run[m][n]) for m in MODES) for n in run["forward"]},
        "rounds": {mode: len(times[mode][TORCHDIFFEQ]) for mode in MODES},
    }


def rows(result: dict[str, Any]) -> list[list[str]]:
    """Return the lines of one case."""
    lines = []
    for name in (TORCHDIFFEQ, TORCHODE, LIKE_FOR_LIKE, COMPILED, DIFFRAX, FLOOR, COMPILED_FLOOR):
        nfe, accepted, rejected = result["counts"].get(name, result["counts"][TORCHDIFFEQ])
        solver = name in result["counts"]
        what = [f"{nfe} ({accepted} + {rejected})", f"{result['max_error'][name]:.0e}"] if solver else [f"{nfe}", ""]
        ms = [f"{result['ms'][mode][name]:.1f}" for mode in MODES]
        ratios = [f"{result[peer][mode][name]:.2f}" for peer in ("x_torchdiffeq", "x_diffrax") for mode in MODES]
        first = [
            f"{result['first_call_seconds'][mode][name]:.0f}" if name in (COMPILED, DIFFRAX) else "" for mode in MODES
        ]
        label = f"{name} (backward: {result['adjoint']})" if name == DIFFRAX else name
        share = f"{result['share_of_one_thread'][name]:.2f}"
        lines.append([result["case"], label, *what, *ms, *ratios, " / ".join(first).strip(" /"), share])
    return lines


def verdicts(results: list[dict[str, Any]]) -> list[list[str]]:
    """Hold the compiled solve against diffrax."""
    return [
        [result["case"], mode, *held(result["x_diffrax"][mode][COMPILED], floor)]
        for result in results
        for mode, floor in zip(MODES, FLOORS[result["case"]], strict=True)
    ]


def text_of(numbers: dict[str, Any]) -> str:
    """Return the report."""
    from _sde import text_of as text_of_sde

    results = numbers["cases"]
    header = ["case", "solver", "NFE (accepted + rejected)", "max error", "forward ms", "forward+backward ms"]
    header += ["x torchdiffeq, forward", "both", "x diffrax, forward", "both", "first call s, forward / both"]
    header += ["busiest thread's share of processor time"]
    times = table(header, [line for result in results for line in rows(result)])
    targets = table(["case", "mode", "compiled: x as fast as diffrax", "floor", ""], verdicts(results))
    about = (
        "Processor time of one thread, float32, all in one process; milliseconds are medians of alternating\n"
        "rounds, 'x' medians over rounds of the ratio of neighbours in time. First calls, which compile, are\n"
        "outside; they are given in seconds on the wall, for torch.compile with what earlier runs left on disk (cold\n"
        "ones: `make bench`). Max error: against a float64 solve with a tolerance 1,000\n"
        "times smaller. diffrax's NFE is six for each step and two for its first size. A busiest thread's share\n"
        "of 1 says that one thread did all."
    )
    return f"## Peers\n\n{about}\n\n{times}\n\n{targets}\n\n{text_of_sde(numbers['sde'])}"


def main() -> None:
    seconds = options(__doc__ or "", seconds=4.0).seconds
    from _sde import measure as measure_sde

    results = [measure(case(), seconds) for case in CASES]
    sde = measure_sde(4 * seconds)
    numbers = {"cases": results, "sde": sde, "seconds": seconds}
    report("peers", text_of(numbers), numbers)


if __name__ == "__main__":
    main()
