"""What a rate costs, as a multiple of one evaluation of the field in the same run, in processor time of one thread.

Processor time and not time on the wall: a rate takes longer than a time slice of a busy machine, an evaluation does
not, so other work would be charged to the rate.

A rate gets the derivative dy = f(t, y) that the solver knows. `forward` is without a graph. `forward+backward`
differentiates for the parameters, y and dy, beside one evaluation with gradients for the parameters and y. The
Jacobian's term uses the graph that the solver's evaluation left behind: its time includes the way back through it, and
without a graph it evaluates f again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from _cases import Case, latent, mnist, spiral
from _timing import median, options, quartiles, report, speedup, table
from torch import Tensor

from regnde.penalties.rates import ORDERS, draw_noise, kinetic_jacobian_rate, taylor_rate
from regnde.solvers.solve import Rate

EVALUATION = "one evaluation"
PASSES = ("forward", "forward+backward")
KINETIC_JACOBIAN = "kinetic_jacobian"


def groups_of(y: Tensor) -> list[dict[str, Rate]]:
    """Return the rates in groups that are timed together, so that fast ones have neighbours like themselves."""
    taylor, nested = ({f"{m}, K={order}": taylor_rate(order, mode=m) for order in ORDERS} for m in ("taylor", "nested"))
    return [taylor, {KINETIC_JACOBIAN: kinetic_jacobian_rate(draw_noise(y, torch.Generator().manual_seed(0)))}, nested]


class Timed:
    """What is timed in one case: evaluations of the field, and rates, in either pass."""

    def __init__(self, case: Case) -> None:
        self.f, self.parameters, self.t = case.f, list(case.f.parameters()), case.y0.new_tensor(0.3)
        self.y = case.y0.detach().clone().requires_grad_()
        self.in_graph = self.f(self.t, self.y)  # its graph leads to y, as in a solve
        self.dy, self.ones = self.in_graph.detach().requires_grad_(), torch.ones_like(self.y)

    def evaluate(self, which: str) -> None:
        with torch.set_grad_enabled(which != "forward"):
            dy = self.f(self.t, self.y)
        if which != "forward":
            torch.autograd.grad(dy, [self.y, *self.parameters], self.ones)

    def rate(self, name: str, rate: Rate, which: str) -> None:
        dy = self.in_graph if name == KINETIC_JACOBIAN else self.dy
        with torch.set_grad_enabled(which != "forward"):
            value = rate(self.f, self.t, self.y, dy)
        if which != "forward":
            inputs = [self.y, *([dy] if dy.is_leaf else []), *self.parameters]
            torch.autograd.grad(value, inputs, retain_graph=True, allow_unused=True)


def alternate(contenders: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, list[float]]:
    """Run all contenders in turn for a while, and return the milliseconds of processor time of each round but one."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    start = time.process_time()
    while time.process_time() - start < seconds or len(times[EVALUATION]) < 6:
        for name, run in contenders.items():
            before = time.process_time()
            run()
            times[name].append(1e3 * (time.process_time() - before))
    return {name: values[1:] for name, values in times.items()}


def measure(case: Case, seconds: float) -> dict[str, Any]:
    """Time all rates of one case."""
    timed, groups = Timed(case), groups_of(case.y0)
    result: dict[str, Any] = {"case": case.name}
    for which in PASSES:
        ms, evaluations, spread = {}, {}, {}
        for group in groups:
            calls = {name: partial(timed.rate, name, rate, which) for name, rate in group.items()}
            times = alternate({EVALUATION: partial(timed.evaluate, which), **calls}, seconds / len(groups))
            for name, values in times.items():
                ms.setdefault(name, median(values))
                evaluations[name] = speedup(values, times[EVALUATION])
                spread[name] = quartiles([a / b for a, b in zip(values, times[EVALUATION], strict=True)])
        result[which] = {"ms": ms, "evaluations": evaluations, "quartiles": spread}
    return result


def rows(result: dict[str, Any]) -> list[list[str]]:
    """Return the lines of one case."""
    lines = []
    for name in result["forward"]["ms"]:
        cells = []
        for which in PASSES:
            low, high = result[which]["quartiles"][name]
            cells += [f"{result[which]['ms'][name]:.3f}"]
            cells += [f"{result[which]['evaluations'][name]:.2f} ({low:.2f} to {high:.2f})"]
        lines.append([result["case"], name, *cells])
    return lines


def verdicts(results: list[dict[str, Any]]) -> list[list[str]]:
    """Hold the rates by Taylor mode against K+1 evaluations' worth."""
    lines = []
    for result in results:
        for order in ORDERS:
            found = [result[which]["evaluations"][f"taylor, K={order}"] for which in PASSES]
            cells = [f"{x:.2f} {'holds' if x <= order + 1 else 'MISSED'}" for x in found]
            lines.append([result["case"], f"K={order}", str(order + 1), *cells])
    return lines


def main() -> None:
    seconds = options(__doc__ or "", seconds=6.0).seconds
    results = [measure(case(), seconds) for case in (mnist, latent, spiral)]
    header = ["case", "rate", "forward ms", "in evaluations (quartiles)"]
    header += ["forward+backward ms", "in evaluations (quartiles)"]
    costs = table(header, [line for result in results for line in rows(result)])
    targets = table(["case", "order", "allowed", *PASSES], verdicts(results))
    about = (
        "Processor time of one thread, float32. Medians of alternating rounds, each against the evaluation of its own\n"
        "round. The spiral is one state in the plane: there the time goes into calls, not into arithmetic."
    )
    report("rates", f"## Rates\n\n{about}\n\n{costs}\n\n{targets}", {"cases": results, "seconds": seconds})


if __name__ == "__main__":
    main()
