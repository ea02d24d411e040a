"""What a strong error costs: SOSRI2 and SOSRI beside torchsde's SRK and Milstein, on two SDEs, with one thread.

The strong error is the root mean square, over 512 paths and both components, of what a solver's state at t = 1 differs
from the truth on the same Brownian path: the exact solution of geometric Brownian motion; for the equation of the
spiral SDE's data our own SOSRI2 with 2,048 equal steps. Each contender is run at several tolerances or numbers of
steps; its evaluations and its time at a given error are interpolated between the two nearest runs (in logarithms).
The path of the errors is one BrownianPath for all. Times are those of solves that make a fresh path: solve_sde its own,
torchsde a BrownianInterval with a hint of 1/32.
Compile time is not counted: the first round of all is left out. Evaluations are those of the drift; the diffusion is
evaluated as often. Milstein's derivative of it is not counted.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torchsde
from _timing import alternate, options, report, table
from torch import Tensor, nn

from regnde import BrownianPath, sdeint_solve, solve_sde
from reproduce.data.spiral import Y0, A
from reproduce.data.spiral_sde import NOISE

OURS, COMPILED, PEER = "SOSRI2, adaptive", "SOSRI2, adaptive, compiled", "torchsde SRK, adaptive"
MODES = ("forward", "forward+backward")
ERRORS = (5e-2, 1e-2)
TARGETS = {"evaluations": 3.5, "forward": 2.2, "forward+backward": 2.2}
T = torch.tensor([0.0, 1.0], dtype=torch.float64)
PATHS, FIRST_STEP, HINT = 512, 0.1, 1 / 32


class Linear(nn.Module):
    """Geometric Brownian motion, dy = a y dt + b y dW."""

    noise_type, sde_type = "diagonal", "ito"

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(1.5, dtype=torch.float64))
        self.b = nn.Parameter(torch.tensor(0.8, dtype=torch.float64))

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        return self.a * y

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        return self.b * y

    @torch.no_grad()
    def truth(self, y0: Tensor, bm: BrownianPath) -> Tensor:
        return y0 * torch.exp(self.a - self.b**2 / 2 + self.b * bm(0.0, 1.0))


class Spiral(nn.Module):
    """The equation of the spiral SDE's data, with parameters."""

    noise_type, sde_type = "diagonal", "ito"

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(A, dtype=torch.float64))
        self.b = nn.Parameter(torch.tensor(NOISE, dtype=torch.float64))

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        return y**3 @ self.a

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        return self.b * y

    @torch.no_grad()
    def truth(self, y0: Tensor, bm: BrownianPath, steps: int = 2048) -> Tensor:
        return ours("sosri2", self, y0, steps, bm)[0]


Answer = tuple[Tensor, int]
"""State at t = 1, and evaluations of the drift."""


def ours(
    method: str, sde: Any, y0: Tensor, dial: float, bm: Any = None, *, seed: int | None = None, compile: bool = False
) -> Answer:
    """Solve with our method: `dial` is a number of equal steps, or a tolerance when below 1."""
    fixed = {"rtol": 1.0, "atol": 1.0, "step_sizes": [1 / dial] * int(dial)}
    settings: dict[str, Any] = fixed if dial > 1 else {"rtol": dial, "atol": dial}
    solution = solve_sde(sde.f, sde.g, y0, T, method=method, bm=bm, seed=seed, compile=compile, **settings)
    return solution.y[-1], solution.trace.nfe


def theirs(method: str, sde: Any, y0: Tensor, dial: float, bm: Any) -> Answer:
    """Solve with torchsde, its evaluations counted; `dial` as for `ours`."""
    solution = sdeint_solve(sde, y0, T, bm=bm, **{"rtol": 1.0, "atol": 1.0, **torchsde_settings(method, dial)})
    return solution.y[-1], solution.trace.nfe


def torchsde_settings(method: str, dial: float) -> dict[str, Any]:
    if dial > 1:
        return {"method": method, "dt": 1 / dial}
    return {"method": method, "dt": FIRST_STEP, "adaptive": True, "rtol": dial, "atol": dial}


def torchsde_alone(method: str, sde: Any, y0: Tensor, dial: float, *, seed: int) -> Answer:
    """Solve with torchsde and nothing of ours around it, for timing."""
    size, double = tuple(y0.shape), {"dtype": y0.dtype, "levy_area_approximation": "space-time"}
    bm = torchsde.BrownianInterval(0.0, 1.0, size=size, entropy=seed, dt=HINT, **double)
    return torchsde.sdeint(sde, y0, T, bm=bm, **torchsde_settings(method, dial))[-1], 0


@dataclass(frozen=True)
class Contender:
    """A solver with the dials that it is run at, from coarse to fine."""

    solve: Callable[..., Answer]
    """(sde, y0, dial, path) to the answer."""
    dials: tuple[float, ...]
    timed: Callable[..., Answer]
    """(sde, y0, dial, seed=...) to the same, the path made inside."""


def contender(solve: Callable[..., Answer], method: str, dials: tuple[float, ...]) -> Contender:
    timed = torchsde_alone if solve is theirs else solve
    return Contender(partial(solve, method), dials, partial(timed, method))


STEPS = (8, 16, 32, 64, 128)
TOLERANCES = (0.1, 0.03, 0.01, 0.003, 0.001)
CONTENDERS = {
    OURS: contender(ours, "sosri2", TOLERANCES),
    COMPILED: contender(partial(ours, compile=True), "sosri2", TOLERANCES),
    "SOSRI, adaptive": contender(ours, "sosri", TOLERANCES),
    "SOSRI2, fixed steps": contender(ours, "sosri2", STEPS),
    PEER: contender(theirs, "srk", (*TOLERANCES, 0.0003)),
    "torchsde SRK, fixed steps": contender(theirs, "srk", STEPS),
    "torchsde Milstein, fixed steps": contender(theirs, "milstein", (64, 128, 256, 512)),
}


def start(name: str) -> Tensor:
    y0 = torch.tensor([1.0, 1.0] if name.startswith("geometric") else Y0, dtype=torch.float64)
    return y0.expand(PATHS, 2).clone().requires_grad_()


CASES: dict[str, Callable[[], Any]] = {"geometric Brownian motion": Linear, "spiral SDE's data": Spiral}


@torch.no_grad()
def curves(sde: Any, y0: Tensor) -> dict[str, list[dict[str, float]]]:
    """Return (dial, error, nfe) of each run of each contender, all on one and the same path."""
    bm = BrownianPath(y0, 0.0, 1.0, seed=0)
    truth = sde.truth(y0, bm)
    found: dict[str, list[dict[str, float]]] = {}
    for name, who in CONTENDERS.items():
        found[name] = []
        for dial in who.dials:
            y, nfe = who.solve(sde, y0, dial, bm)
            found[name].append({"dial": dial, "error": (y - truth).square().mean().sqrt().item(), "nfe": nfe})
    return found


def bracket(runs: list[dict[str, float]], error: float) -> tuple[int, float] | None:
    """Return (i, theta): the error lies between runs i and i + 1, at theta in logarithms; None: it lies outside."""
    for i, (coarse, fine) in enumerate(pairwise(runs)):
        if coarse["error"] >= error >= fine["error"]:
            theta = math.log(coarse["error"] / error) / math.log(coarse["error"] / fine["error"])
            return i, theta
    return None


def between(coarse: float, fine: float, theta: float) -> float:
    return coarse ** (1 - theta) * fine**theta


def timings(sde: Any, y0: Tensor, points: list[tuple[str, float]], mode: str, seconds: float) -> dict[Any, list[float]]:
    """Return the milliseconds of each round of each point (contender, dial), a fresh path for every solve."""
    seeds: Iterator[int] = iter(range(1, 10**9))
    inputs = [y0, *sde.parameters()]

    def run(name: str, dial: float) -> None:
        with torch.set_grad_enabled(mode != "forward"):
            y, _ = CONTENDERS[name].timed(sde, y0, dial, seed=next(seeds))
        if mode != "forward":
            torch.autograd.grad(y.square().mean(), inputs)

    return alternate({point: partial(run, *point) for point in points}, seconds=seconds)  # type: ignore[misc]


def measure(case: str, seconds: float) -> dict[str, Any]:
    """Run all contenders on one case, and time the runs that lie beside the errors of interest."""
    sde, y0 = CASES[case](), start(case)
    found = curves(sde, y0)
    places = {(name, error): bracket(found[name], error) for name in CONTENDERS for error in ERRORS}
    near = {(name, found[name][p[0] + j]["dial"]): None for (name, _), p in places.items() if p for j in (0, 1)}
    times = {mode: timings(sde, y0, list(near), mode, seconds) for mode in MODES}

    def at(name: str, error: float) -> dict[str, Any] | None:
        place = places[name, error]
        if place is None:
            return None
        i, theta = place
        coarse, fine = found[name][i], found[name][i + 1]
        of_time = {
            mode: [between(a, b, theta) for a, b in zip(ms[name, coarse["dial"]], ms[name, fine["dial"]], strict=True)]
            for mode, ms in times.items()
        }
        return {"evaluations": between(coarse["nfe"], fine["nfe"], theta), **of_time}

    lines = []
    for error in ERRORS:
        peer = at(PEER, error)
        assert peer is not None
        for name in CONTENDERS:
            mine = at(name, error)
            lines.append({"error": error, "contender": name, **({} if mine is None else compared(mine, peer))})
    return {"case": case, "curves": found, "at_error": lines}


def compared(mine: dict[str, Any], peer: dict[str, Any]) -> dict[str, float]:
    """Return evaluations and median milliseconds, and how many times less they are than the peer's."""
    line = {"evaluations": mine["evaluations"], "x evaluations": peer["evaluations"] / mine["evaluations"]}
    for mode in MODES:
        line[mode] = statistics.median(mine[mode])
        line[f"x {mode}"] = statistics.median(b / a for a, b in zip(mine[mode], peer[mode], strict=True))
    return line


def rows(result: dict[str, Any]) -> list[list[str]]:
    """Return the lines of one case; a contender that does not reach an error with the runs given has none."""
    out = []
    for line in result["at_error"]:
        head = [result["case"], f"{line['error']:g}", line["contender"]]
        if "evaluations" not in line:
            out.append([*head, *["-"] * 6])
            continue
        work = [f"{line['evaluations']:.0f}", *(f"{line[mode]:.1f}" for mode in MODES)]
        out.append([*head, *work, *(f"{line[f'x {what}']:.2f}" for what in ("evaluations", *MODES))])
    return out


def verdicts(results: list[dict[str, Any]]) -> list[list[str]]:
    """Hold our adaptive SOSRI2 against the targets."""
    out = []
    for result in results:
        for line in (line for line in result["at_error"] if line["contender"] in (OURS, COMPILED)):
            for what, target in TARGETS.items():
                value = line[f"x {what}"]
                verdict = "holds" if value >= target else "MISSED"
                out.append(
                    [
                        result["case"],
                        f"{line['error']:g}",
                        line["contender"],
                        what,
                        f"{value:.2f}",
                        f"{target:.1f}",
                        verdict,
                    ]
                )
    return out


def main() -> None:
    seconds = options(__doc__ or "", seconds=40.0).seconds
    results = [measure(case, seconds) for case in CASES]
    header = ["case", "strong error", "contender", "evaluations of f", "forward ms", "forward+backward ms"]
    header += ["x fewer evaluations", "x faster, forward", "x faster, both"]
    work = table(header, [line for result in results for line in rows(result)])
    of_curves = [
        [result["case"], name, f"{run['dial']:g}", f"{run['nfe']:.0f}", f"{run['error']:.1e}"]
        for result in results
        for name, runs in result["curves"].items()
        for run in runs
    ]
    curve = table(["case", "contender", "tolerance or steps", "evaluations of f", "strong error"], of_curves)
    held = table(["case", "strong error", "contender", "what", f"x less than {PEER}", "target", ""], verdicts(results))
    about = (
        f"One thread, float64, {PATHS} paths. At equal strong error, interpolated between runs; 'x' is against\n"
        f"{PEER} (the median over rounds for times). '-': not reached with the runs given."
    )
    text = f"## Solving SDEs\n\n{about}\n\n{work}\n\n{held}\n\nThe runs:\n\n{curve}"
    report("sde", text, {"cases": results, "seconds": seconds})


if __name__ == "__main__":
    main()
