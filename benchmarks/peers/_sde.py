"""A neural SDE in R^32, batch 512, with diagonal noise: what a strong error costs torchsde, diffrax and us.

The drift is an MLP 32-64-32 with time, the diffusion of component i is a_i + b_i y_i, and t runs from 0 to 1. The
strong error is the root mean square of what a solver's end state differs from a fine solve of the same path: on
torchsde's interval for torchsde and for us, on diffrax's tree for diffrax. diffrax's SPaRK solves Stratonovich
equations, so it gets the drift less half of b (a + b y), which is the same equation.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torchsde
from _cases import scaled
from _timing import alternate, median, table
from torch import Tensor, nn

from regnde import solve_sde
from reproduce.models.fields import TimeMLP

BATCH, SIZE, FINE = 512, 32, 1024
OURS, COMPILED, TORCHSDE, DIFFRAX = (
    "solve_sde SOSRI2",
    "solve_sde SOSRI2, compiled",
    "torchsde SRK",
    "diffrax SPaRK, jit",
)
TOLERANCES = {OURS: (0.1, 0.03, 0.01, 0.003), TORCHSDE: (0.1, 0.03, 0.01, 0.003), DIFFRAX: (0.03, 0.01, 0.003, 0.001)}
TOLERANCES[COMPILED] = TOLERANCES[OURS]
MODES = ("forward", "forward+backward")
T = torch.tensor([0.0, 1.0])


class SDE(nn.Module):
    """The equation."""

    noise_type, sde_type = "diagonal", "ito"

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.drift = scaled(TimeMLP((SIZE, 64, SIZE)), 2.0)
        self.a, self.b = nn.Parameter(0.2 + 0.2 * torch.rand(SIZE)), nn.Parameter(0.3 + 0.3 * torch.rand(SIZE))

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        return self.drift(t, y)

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        return torch.addcmul(self.a, self.b, y)


def path(y0: Tensor, seed: int, **hints: Any) -> torchsde.BrownianInterval:
    kind = {"dtype": y0.dtype, "levy_area_approximation": "space-time"}
    return torchsde.BrownianInterval(0.0, 1.0, size=tuple(y0.shape), entropy=seed, **kind, **hints)


def ours(sde: SDE, y0: Tensor, tolerance: float, bm: Any, *, compile: bool) -> Tensor:
    tolerances = {"rtol": tolerance, "atol": tolerance}
    return solve_sde(sde.f, sde.g, y0, T.double(), bm=bm, compile=compile, **tolerances).y[-1]


def theirs(sde: SDE, y0: Tensor, tolerance: float, bm: Any) -> Tensor:
    settings = {"method": "srk", "adaptive": True, "dt": 0.1, "rtol": tolerance, "atol": tolerance}
    return torchsde.sdeint(sde, y0, T, bm=bm, **settings)[-1]


def in_torch(sde: SDE, y0: Tensor) -> tuple[dict[str, list[float]], dict[Any, dict[str, Callable[[], None]]]]:
    """Return the strong errors of each solver at its tolerances, and what is timed, by (solver, tolerance) and mode."""
    solvers = {OURS: partial(ours, compile=False), COMPILED: partial(ours, compile=True), TORCHSDE: theirs}
    inputs, errors, runs = [y0, *sde.parameters()], {}, {}
    bm = path(y0, 0, cache_size=None)
    with torch.no_grad():
        steps = [1 / FINE] * FINE
        truth = solve_sde(sde.f, sde.g, y0, T.double(), rtol=1.0, atol=1.0, bm=bm, step_sizes=steps).y[-1]
        for name, solve in solvers.items():
            found = (solve(sde, y0, tolerance, bm) for tolerance in TOLERANCES[name])
            errors[name] = [(y - truth).square().mean().sqrt().item() for y in found]
    seeds = iter(range(1, 10**9))

    def run(name: str, tolerance: float, mode: str) -> None:
        fresh = path(y0, next(seeds), dt=1 / 32) if name == TORCHSDE else None
        with torch.set_grad_enabled(mode != "forward"):
            y = solvers[name](sde, y0, tolerance, fresh)
        if mode != "forward":
            torch.autograd.grad(y.square().mean(), inputs)

    for name in solvers:
        for tolerance in TOLERANCES[name]:
            runs[name, tolerance] = {mode: partial(run, name, tolerance, mode) for mode in MODES}
    return errors, runs


def in_jax(sde: SDE, y0: Tensor) -> tuple[dict[str, list[float]], dict[Any, dict[str, Callable[[], None]]]]:
    """The same for diffrax."""
    from _diffrax import array, diffrax, field, jax, jnp
    from lineax import DiagonalLinearOperator

    layers, drift = field(sde.drift)
    parameters, start = (layers, array(sde.a), array(sde.b)), array(y0)

    def corrected(t: Any, y: Any, p: Any) -> Any:
        return drift(t, y, p[0]) - 0.5 * p[2] * (p[1] + p[2] * y)

    def end(p: Any, y: Any, key: Any, controller: Any, step: float) -> Any:
        shape, area = jax.ShapeDtypeStruct(y.shape, y.dtype), diffrax.SpaceTimeLevyArea
        tree = diffrax.VirtualBrownianTree(0.0, 1.0, tol=2.0**-12, shape=shape, key=key, levy_area=area)
        noise = diffrax.ControlTerm(lambda t, y, p: DiagonalLinearOperator(p[1] + p[2] * y), tree)
        terms = diffrax.MultiTerm(diffrax.ODETerm(corrected), noise)
        how = {"stepsize_controller": controller, "max_steps": 2 * FINE}
        return diffrax.diffeqsolve(terms, diffrax.SPaRK(), 0.0, 1.0, step, y, p, **how).ys[-1]

    def adaptive(tolerance: float) -> Any:
        control = diffrax.PIDController(rtol=tolerance, atol=tolerance, dtmin=2.0**-11)
        return lambda p, y, key: end(p, y, key, control, 0.1)

    first = jax.random.key(0)
    fine = jax.jit(lambda p, y, key: end(p, y, key, diffrax.ConstantStepSize(), 1 / FINE))(parameters, start, first)
    errors: list[float] = []
    runs: dict[Any, dict[str, Callable[[], None]]] = {}
    seeds = iter(range(1, 10**9))
    for tolerance in TOLERANCES[DIFFRAX]:
        solve = adaptive(tolerance)
        forward = jax.jit(solve)
        both = jax.jit(jax.grad(lambda p, y, key, solve=solve: jnp.square(solve(p, y, key)).mean(), argnums=(0, 1)))
        errors.append(float(jnp.sqrt(jnp.square(forward(parameters, start, first) - fine).mean())))

        def call(go: Any) -> None:
            jax.block_until_ready(go(parameters, start, jax.random.key(next(seeds))))

        runs[DIFFRAX, tolerance] = dict(zip(MODES, (partial(call, forward), partial(call, both)), strict=True))
    return {DIFFRAX: errors}, runs


def measure(seconds: float) -> dict[str, Any]:
    """Time all solvers at all their tolerances."""
    sde = SDE()
    y0 = torch.randn(BATCH, SIZE, generator=torch.Generator().manual_seed(0)).requires_grad_()
    errors, runs = in_torch(sde, y0)
    more = in_jax(sde, y0)
    errors, runs = errors | more[0], runs | more[1]
    ms = {}
    for mode in MODES:
        times = alternate({key: run[mode] for key, run in runs.items()}, seconds=seconds, clock=time.process_time)
        ms[mode] = {key: median(values) for key, values in times.items()}  # type: ignore[index]
    lines = [
        {"solver": name, "tolerance": tolerance, "error": error, **{mode: ms[mode][name, tolerance] for mode in MODES}}
        for name in errors
        for tolerance, error in zip(TOLERANCES[name], errors[name], strict=True)
    ]
    return {"runs": lines, "at_error": at_equal_error(lines)}


def at_equal_error(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the smallest round error that all solvers reach between two runs, and their times there."""
    mine = {name: [line for line in lines if line["solver"] == name] for name in TOLERANCES}
    for error in (0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05):
        found = {name: interpolated(runs, error) for name, runs in mine.items()}
        if all(found.values()):
            return {"error": error, "ms": found}
    return {}


def interpolated(runs: list[dict[str, Any]], error: float) -> dict[str, float] | None:
    """Return the times at an error, in logarithms between the two runs that it lies between."""
    for coarse, fine in pairwise(runs):
        if coarse["error"] >= error >= fine["error"]:
            theta = math.log(coarse["error"] / error) / max(math.log(coarse["error"] / fine["error"]), 1e-9)
            return {mode: coarse[mode] ** (1 - theta) * fine[mode] ** theta for mode in MODES}
    return None


def text_of(result: dict[str, Any]) -> str:
    """Return the part of the report about SDEs."""
    header = ["solver, adaptive", "tolerance", "strong error", "forward ms", "forward+backward ms"]
    lines = [
        [run["solver"], f"{run['tolerance']:g}", f"{run['error']:.1e}", *(f"{run[mode]:.1f}" for mode in MODES)]
        for run in result["runs"]
    ]
    text = f"### An SDE in R^32, batch {BATCH}\n\n{table(header, lines)}\n\n"
    if not (equal := result["at_error"]):
        return text + "No error was reached by all between two of their runs. Nominal tolerances are not comparable."
    ms = equal["ms"]
    rows = [
        [name, *(f"{ms[name][m]:.1f}" for m in MODES), *(f"{ms[TORCHSDE][m] / ms[name][m]:.2f}" for m in MODES)]
        for name in ms
    ]
    header = ["solver, adaptive", "forward ms", "forward+backward ms", "x torchsde, forward", "both"]
    return f"{text}At a strong error of {equal['error']:g}, interpolated between runs:\n\n{table(header, rows)}"
