"""How time and memory of a solve grow with state size, batch, steps and output times, beside torchdiffeq's.

The field is W2 tanh(W1 y) with W2 = J W1^T, J a rotation by a quarter turn: it conserves sum(log(cosh(W1 y))), so its
solutions swing for ever, and the number of steps grows with the interval. Both solvers take torchdiffeq's steps. Times
are processor times of one thread. Memory is counted (reproduce.runs.memory): bytes of tensors that live at once, at the
worst moment of forward and backward; of compiled steps it would see nothing, so there is none. A slope is that of a
line by least squares through the upper half of a range, in logarithms of both: 1 says that twice as much costs twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torchdiffeq
from _timing import alternate, median, options, report, speedup, table
from torch import Tensor, nn

from regnde import solve_ode
from regnde.hosts.with_torchdiffeq import HOST_TABLEAUS
from reproduce.runs.memory import Memory

TORCHDIFFEQ, EAGER, COMPILED = "torchdiffeq dopri5", "solve_ode, torchdiffeq's dopri5", "the same, compiled"
MODES = ("forward", "forward+backward")
HIDDEN, TOLERANCE, TURN = 32, 1e-4, 0.024  # TURN: of the interval, for each step
SHORTER = 0.54  # are steps where d = 4


class Swing(nn.Module):
    """The field."""

    def __init__(self, d: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        weight = torch.randn(HIDDEN, d) / d**0.5
        self.inwards = nn.Parameter(weight)
        self.outwards = nn.Parameter(
            4 * d**0.5 * torch.cat([weight[:, d // 2 :], -weight[:, : d // 2]], 1).T.contiguous()
        )

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """Map states (batch, d)."""
        return torch.tanh(y @ self.inwards.T) @ self.outwards.T


@dataclass(frozen=True)
class Size:
    """One solve: state size, batch, about how many steps, and output times."""

    d: int = 16
    batch: int = 32
    steps: int = 20
    times: int = 2

    def problem(self) -> tuple[Swing, Tensor, Tensor]:
        y0 = torch.randn(self.batch, self.d, generator=torch.Generator().manual_seed(1)).requires_grad_()
        return Swing(self.d), y0, torch.linspace(0, TURN * self.steps, self.times, dtype=torch.float64)


AXES: dict[str, dict[int, Size]] = {
    "state size": {d: Size(d=d) for d in (2, 16, 128, 512, 1024, 4096)},
    "batch": {n: Size(batch=n) for n in (1, 16, 128, 1024, 2048, 8192)},
    "steps": {n: Size(d=4, batch=1, steps=round(SHORTER * n)) for n in (10, 30, 100, 300, 1000, 3000)},
    "output times": {
        n: Size(d=4, batch=1, steps=round(SHORTER * 20), times=n) for n in (2, 10, 100, 1000, 3000, 10_000)
    },
}
COMPILED_TOO = ("steps", "output times")  # along the others every size compiles anew
COUNTED = 300  # so many steps at most where memory is counted, which takes long


def solvers(size: Size, *, compiled: bool) -> dict[str, Callable[[], Tensor]]:
    """Return each solver as () -> states (times, batch, d)."""
    f, y0, t = size.problem()
    how: dict[str, Any] = {"rtol": TOLERANCE, "atol": TOLERANCE}

    def ours(compile: bool) -> Tensor:
        return solve_ode(f, y0, t, method=HOST_TABLEAUS["dopri5"], compile=compile, **how).y

    found = {TORCHDIFFEQ: partial(torchdiffeq.odeint, f, y0, t, method="dopri5", **how), EAGER: partial(ours, False)}
    return found | ({COMPILED: partial(ours, True)} if compiled else {})


def run(solve: Callable[[], Tensor], mode: str) -> None:
    """Solve, and in the one mode differentiate the mean square of all states for all that requires a gradient."""
    with torch.set_grad_enabled(mode != "forward"):
        y = solve()
    if mode != "forward":
        y.square().mean().backward()


def peak(solve: Callable[[], Tensor], mode: str) -> int:
    with Memory() as memory:
        run(solve, mode)
    return memory.peak


def measure(axis: str, value: int, size: Size, seconds: float) -> dict[str, Any]:
    """Time and count one size."""
    found = solvers(size, compiled=axis in COMPILED_TOO)
    f, y0, t = size.problem()
    with torch.no_grad():
        how = {"rtol": TOLERANCE, "atol": TOLERANCE, "max_steps": 100_000}
        trace = solve_ode(f, y0, t, method=HOST_TABLEAUS["dopri5"], **how).trace
    ms, ratio, memory = {}, {}, {}
    for mode in MODES:
        timed = {name: partial(run, solve, mode) for name, solve in found.items()}
        times = alternate(timed, seconds=seconds, min_rounds=1, clock=time.process_time)
        ms[mode] = {name: median(values) for name, values in times.items()}
        ratio[mode] = {name: speedup(times[TORCHDIFFEQ], values) for name, values in times.items()}
        memory[mode] = {n: peak(found[n], mode) for n in (TORCHDIFFEQ, EAGER) if size.steps < COUNTED}
    steps = trace.accepted + trace.rejected
    return {"axis": axis, "value": value, "steps": steps, "ms": ms, "x_torchdiffeq": ratio, "peak_bytes": memory}


def slope(values: list[float], costs: list[float | None]) -> float:
    """Return the slope of a line through the upper half, by least squares in logarithms; None is not measured."""
    points = [(v, cost) for v, cost in zip(values, costs, strict=True) if cost is not None]
    x, y = np.log(np.array(points[len(points) // 2 :], dtype=np.float64)).T
    return float(np.polyfit(x, y, 1)[0])


def slopes(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the slopes of time and memory, for each axis, mode and solver."""
    found = []
    for axis in dict.fromkeys(result["axis"] for result in results):
        mine = [result for result in results if result["axis"] == axis]
        along = [result["steps" if axis == "steps" else "value"] for result in mine]
        for mode in MODES:
            of = {
                what: {name: slope(along, [r[what][mode].get(name) for r in mine]) for name in mine[0][what][mode]}
                for what in ("ms", "peak_bytes")
            }
            found.append({"axis": axis, "mode": mode, **of})
    return found


def rows(results: list[dict[str, Any]]) -> list[list[str]]:
    """Return one line for each size and mode."""
    lines = []
    for result in results:
        for mode in MODES:
            ms, ratio, memory = (result[what][mode] for what in ("ms", "x_torchdiffeq", "peak_bytes"))
            cells = [f"{ms[name]:.1f}" if name in ms else "" for name in (TORCHDIFFEQ, EAGER, COMPILED)]
            cells += [f"{ratio[name]:.2f}" if name in ms else "" for name in (EAGER, COMPILED)]
            cells += [f"{memory[name] / 2**20:.3g}" if name in memory else "" for name in (TORCHDIFFEQ, EAGER)]
            lines.append([result["axis"], f"{result['value']:,}", f"{result['steps']:,}", mode, *cells])
    return lines


def text_of(numbers: dict[str, Any]) -> str:
    """Return the report."""
    results = numbers["cases"]
    names = (TORCHDIFFEQ, EAGER, COMPILED)
    header = ["axis", "at", "steps", "mode", *(f"{name}, ms" for name in names)]
    header += ["eager x faster", "compiled x faster", "torchdiffeq, peak MB", "eager, peak MB"]
    lines = []
    for found in slopes(results):
        time_, memory = (
            [f"{round(of[n], 2) + 0.0:.2f}" if n in of else "" for n in names]
            for of in (found["ms"], found["peak_bytes"])
        )
        lines.append([found["axis"], found["mode"], *time_, *memory[:2]])
    about = (
        f"Processor time of one thread, float32, field d-{HIDDEN}-d, tolerance {TOLERANCE:g}; where it is not\n"
        "the axis: d = 16, batch 32 (d = 4, batch 1 for steps and output times), about 20 steps, two output times.\n"
        "Attempted steps are told. Slopes: of the upper half of each range, logarithms of both. Memory is counted up\n"
        f"to some {COUNTED} steps."
    )
    head = ["axis", "mode", *(f"time: {name}" for name in names), *(f"memory: {name}" for name in names[:2])]
    return f"## How cost grows\n\n{about}\n\n{table(head, lines)}\n\n{table(header, rows(results))}"


def main() -> None:
    seconds = options(__doc__ or "", seconds=1.0).seconds
    results = [measure(axis, value, size, seconds) for axis, sizes in AXES.items() for value, size in sizes.items()]
    numbers = {"cases": results, "slopes": slopes(results), "seconds": seconds}
    report("growth", text_of(numbers), numbers)


if __name__ == "__main__":
    main()
