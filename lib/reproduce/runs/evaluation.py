"""The solve that a budget means, and what a model reaches with it: solver, evaluate -> Measured."""

from __future__ import annotations

import copy
import hashlib
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from regnde import BrownianPath, Field, Regularizer, Solution, odeint_solve, sdeint_solve, solve_ode, solve_sde
from reproduce.experiments import Budget, Problem
from reproduce.models.solve import Solve, hold_still
from reproduce.runs import device as devices

TIMINGS = 10
"""A prediction's time is the smallest of at least so many, by the clock of its device, as in training."""


def generator(seed: int, purpose: str) -> torch.Generator:
    """Return a generator of its own for one purpose, so that no purpose disturbs another."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def solver(
    budget: Budget,
    regularizer: Regularizer | None = None,
    rng: torch.Generator | None = None,
    *,
    noise: torch.Generator | None = None,
    training: bool = False,
) -> Solve:
    """Return the solve of a budget.

    Args:
        budget: method, tolerance, and what else a solve needs.
        regularizer: changes or adds times, and says what to record; None: nothing.
        rng: of the regularizer's draws.
        noise: of the Brownian paths of an SDE, one for each solve.
        training: solve with the budget's host; without it, always with the own adaptive solver.
    """

    def solve(f: Field, y0: Tensor, t: Tensor) -> Solution:
        wanted: dict[str, Any] = {}
        if regularizer is not None:
            assert rng is not None
            t, sampled_t = regularizer.times(t, rng)
            wanted = {"sampled_t": sampled_t, "records": regularizer.records}
            if regularizer.rate is not None:
                rate = regularizer.rate(rng)
                wanted["rate"] = f.rate_of(rate) if hasattr(f, "rate_of") else rate
        return solve_equation(f, y0, t, budget, noise=noise, hosted=training and budget.host != "own", **wanted)

    return solve


def path(y0: Tensor, t: Tensor, noise: torch.Generator, dt: float | None = None) -> BrownianPath:
    """Draw a Brownian path for one solve, laid out for steps of a fixed size or for even output times."""
    return BrownianPath(y0, float(t[0]), float(t[-1]), seed=int(torch.randint(2**62, (), generator=noise)), dt=dt)


def solve_equation(
    f: Any,
    y0: Tensor,
    t: Tensor,
    budget: Budget,
    *,
    noise: torch.Generator | None,
    hosted: bool = False,
    **wanted: Any,
) -> Solution:
    """Solve an ODE, or an SDE when f has the methods f and g, as a budget says; `wanted` is passed on."""
    settings: dict[str, Any] = {"rtol": budget.rtol, "atol": budget.atol, **wanted}
    if "rate" in wanted and hasattr(f, "g"):
        raise ValueError("rates (taynode, kinetic_jacobian) are derivatives along an ODE's solution: an SDE has none")
    if not hosted:
        gradient = budget.gradient if budget.host == "own" else "backprop"
        settings |= {"gradient": gradient, "controller": budget.controller, "parameters": tuple(f.parameters())}
    if not hasattr(f, "g"):
        if budget.fixed_steps is not None:
            size = abs(float(t[-1]) - float(t[0])) / budget.fixed_steps
            settings["step_sizes"] = [size] * budget.fixed_steps
        if not hosted:
            return solve_ode(f, y0, t, method=budget.method, **settings)
        return odeint_solve(f, y0, t, method=budget.method_of_host, gradient=budget.gradient, **settings)
    if noise is None:
        raise ValueError("an SDE needs a generator for its Brownian path: pass `noise` to train.solver")
    settings |= {
        "bm": path(y0, t, noise, budget.host_dt if hosted else float(t[1] - t[0])),
        "estimate": budget.estimate,
    }
    if hosted:
        return sdeint_solve(
            f, y0, t, dt=budget.host_dt, method=budget.method_of_host, own_method=budget.method, **settings
        )
    return solve_sde(f.f, f.g, y0, t, method=budget.method, **settings)


@dataclass(frozen=True)
class Measured:
    """Means over test batches, and the seconds of the fastest full batch, see TIMINGS."""

    loss: float
    metric: float
    nfe: float
    accepted: float
    rejected: float
    n: int
    seconds: float


@torch.no_grad()
def evaluate(model: nn.Module, problem: Problem, part: str, solve: Solve, *, seed: int = 0, step: int = 0) -> Measured:
    """Measure a model on all batches of a part; means weigh each batch by its size.

    Args:
        model: put into evaluation mode.
        seed: of the model's noise in the evaluation, a function of it and the part alone.
        step: training steps done, for losses that change over training.
    """
    model.eval()
    noise = generator(seed, f"noise of the evaluation on {part}")
    batches = problem.test_batches(part)
    sizes, seconds, columns = [len(batch[-1]) for batch in batches], [], []
    rounds, clock = math.ceil(TIMINGS / len(batches)), devices.clock(problem.device)
    for batch in batches * rounds:
        inputs = problem.inputs(batch)
        started = clock()
        output, solution = model(inputs, solve, noise)
        seconds.append(clock() - started)
        trace = solution.trace
        loss, metric = problem.loss(output, batch, step).item(), problem.metric(output, batch)
        columns.append((loss, metric, trace.nfe, trace.accepted, trace.rejected))
    n = sum(sizes)
    loss, metric, nfe, accepted, rejected = (
        math.fsum(size * value for size, value in zip(sizes, column, strict=True)) / n
        for column in zip(*columns[: len(batches)], strict=True)
    )
    full = [second for second, size in zip(seconds, sizes * rounds, strict=True) if size == max(sizes)]
    return Measured(loss, metric, nfe, accepted, rejected, n=n, seconds=min(full))


def adaptive_host(budget: Budget, *, noise: torch.Generator) -> Solve:
    """Return the solve of a host at a budget's tolerance: torchdiffeq's dopri5, for an SDE torchsde's adaptive SRK.

    SRK tries the whole interval as its first step: torchsde cuts a step that is too long at once (to a fifth at most),
    but lets a short one grow by 1.4 at most, which would cost some 360 evaluations from a first step of 0.01, whatever
    the model is, and 150 from 0.1.
    """

    def solve(f: Any, y0: Tensor, t: Tensor) -> Solution:
        if not hasattr(f, "g"):
            return odeint_solve(f, y0, t, rtol=budget.rtol, atol=budget.atol)
        bm, whole = path(y0, t, noise), float(t[-1] - t[0])
        return sdeint_solve(f, y0, t, rtol=budget.rtol, atol=budget.atol, dt=whole, method="srk", adaptive=True, bm=bm)

    return solve


@torch.no_grad()
def nfe_elsewhere(model: nn.Module, problem: Problem, part: str, budget: Budget, *, seed: int) -> dict[str, float]:
    """Measure the NFE of a trained model on the first batch of a part at the tolerances `budget.also_at`.

    Returns:
        'nfe@TOLERANCE' with our solver and 'nfe_host@TOLERANCE' with that of `adaptive_host`: evaluations of f.
    """
    found: dict[str, float] = {}
    if not budget.also_at:
        return found
    inputs = problem.inputs(problem.test_batches(part)[0])
    model.eval()
    for tolerance in budget.also_at:
        at, noise = budget.but(rtol=tolerance, atol=tolerance), generator(seed, f"NFE at {tolerance:g}")
        for name, solve in (("nfe", solver(at, noise=noise)), ("nfe_host", adaptive_host(at, noise=noise))):
            found[f"{name}@{tolerance:g}"] = model(inputs, solve, noise)[1].trace.nfe
    return found


@torch.no_grad()
def against_reference(
    model: nn.Module, problem: Problem, part: str, budget: Budget, solve: Solve, *, metric: str, seed: int
) -> dict[str, float]:
    """Measure an output that is a solution itself: as it is, and as the solve in use computes it.

    As it is: see `exact_outputs`.

    Args:
        model: its output is one number for each example, (batch,).
        solve: the one in use; the control's `hold_still` stays as it is.
        metric: its name.
        seed: of the model's noise, as in `evaluate`.

    Returns:
        The metric as it is, under its own name; as computed, with '_in_use'; 'solver_error', the mean absolute
        difference of the two outputs over examples. Nothing where the budget asks for no reference.

    Raises:
        ValueError: a reference that is not below the tolerances, or an output of another shape.
    """
    if budget.reference is None:
        return {}
    if budget.reference >= min(budget.rtol, budget.atol):
        raise ValueError(
            f"reference: expected a tolerance below {budget.rtol:g}, that in use, found {budget.reference}"
        )
    batches = problem.test_batches(part)
    real = exact_outputs(model, problem, part, batches, budget, solve, seed=seed)
    noise = generator(seed, f"noise of the evaluation on {part}")
    model.eval()
    columns = []
    for batch, exact in zip(batches, real, strict=True):
        used = model(problem.inputs(batch), solve, noise)[0]
        columns.append((len(used), problem.metric(exact, batch), problem.metric(used, batch), distance(used, exact)))
    n = sum(size for size, *_ in columns)
    return {
        metric: sum(size * value for size, value, _, _ in columns) / n,
        f"{metric}_in_use": sum(size * value for size, _, value, _ in columns) / n,
        "solver_error": sum(size * error for size, *_, error in columns) / n,
    }


def exact_outputs(
    model: nn.Module, problem: Problem, part: str, batches: list[Any], budget: Budget, solve: Solve, *, seed: int
) -> list[Any]:
    """Return what a copy of the model in float64, on the CPU, gives for batches when solved at `budget.reference`."""
    tight = budget.but(rtol=budget.reference, atol=budget.reference, method="tsit5", fixed_steps=None)
    exact, noise = copy.deepcopy(model).cpu().double().eval(), generator(seed, f"noise of the evaluation on {part}")
    tightly = solve if solve is hold_still else solver(tight, noise=generator(seed, "paths of the reference"))
    return [exact(_double(problem.inputs(batch)), tightly, noise)[0] for batch in batches]


def distance(used: Any, exact: Any) -> float:
    """Return the mean absolute difference of two outputs; ValueError unless they are one number for each example."""
    if not isinstance(used, Tensor) or used.ndim != 1:
        raise ValueError("a reference compares outputs of one number for each example, (batch,); found another")
    return float((used.cpu() - exact).abs().mean())


def _double(inputs: Any) -> Any:
    """Return inputs, a tensor or a tuple of them, on the CPU, with floating-point numbers in float64."""
    if isinstance(inputs, Tensor):
        return inputs.cpu().double() if inputs.is_floating_point() else inputs.cpu()
    return tuple(_double(part) for part in inputs)
