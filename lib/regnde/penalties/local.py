"""One local step: where it starts, how long it is, and the penalty of its error."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from regnde.penalties.regularizer import Penalty
from regnde.solvers.checks import choose
from regnde.solvers.control import until
from regnde.solvers.methods import StochasticRungeKutta
from regnde.solvers.solution import Solution
from regnde.solvers.sri_steps import SRIStep
from regnde.solvers.steps import Start, Step

Where = Callable[[Solution, torch.Generator], tuple[int, float, Tensor]]
"""Draws where a local step starts: index of the accepted step, time, state (batch, ...)."""


def local_step(
    solution: Solution, t: float, y: Tensor, dt: float, *, detach_k1: bool = False, recall: bool = True
) -> Step | SRIStep:
    """Take one step of the solution's method from (t, y), clipped to the end of the interval; f gets the gradient.

    The first stage f(t, y) is differentiated like the others (unless `detach_k1`); t, y and dt are constants. So are
    the recorded states before t, at which a multistep method evaluates f anew (`recall`), with gradient; without them
    it takes the step that it starts a solve with. y is (batch, ...), and so are the ends of the step.

    Raises:
        ValueError: t is the end of the interval of an SDE, where no time is left.

    Source: Pal et al. 2023, section 3.2.
    """
    dt, start = _within(solution, t, y, dt, detach_k1=detach_k1, recall=recall)
    return solution.method.take(t, y, dt, start)


def _within(
    solution: Solution, t: float, y: Tensor, dt: float, *, detach_k1: bool, recall: bool
) -> tuple[float, Start | None]:
    """Return the size of a local step, clipped to the end of the interval, and what is known at its start."""
    end = float(solution.t[-1])
    dt = math.copysign(min(abs(dt), abs(until(t, end))), end - float(solution.t[0]))
    if dt == 0.0 and isinstance(solution.method, StochasticRungeKutta):
        raise ValueError(f"a local step along a Brownian path needs time, but t = {t:g} is the end of the interval")
    with torch.no_grad():
        start = solution.method.evaluate(t, y) if detach_k1 else None
    trace = solution.trace
    return dt, solution.method.recall(t, y, dt, start, trace.t, trace.y) if recall else start


def local_error(
    solution: Solution,
    t: float,
    y: Tensor,
    dt: float,
    *,
    times_dt: bool = False,
    detach_k1: bool = False,
    recall: bool = True,
) -> Tensor:
    """Return the error ratio of one local step (see `local_step`), 0-d, times |dt| with `times_dt`.

    Raises:
        ValueError: as `local_step`; for a method that estimates no error ('euler').

    Source: Pal et al. 2023, eq. 12.
    """
    if not getattr(solution.method.tableau, "estimates", True):
        raise ValueError(
            f"method '{solution.method.tableau.name}' estimates no error: use 'midpoint', or an embedded pair"
        )
    dt, start = _within(solution, t, y, dt, detach_k1=detach_k1, recall=recall)
    ratio = solution.method.step_ratio(t, y, dt, start)
    return abs(dt) * ratio if times_dt else ratio


def local_penalty(
    where: Where,
    *,
    step: str,
    times_dt: bool,
    reuse: bool,
    detach_k1: bool,
) -> Penalty:
    """Return the penalty of one step; `where` draws the accepted step, and the time and state to start from."""
    step_size = choose("step", STEP_SIZES, step)
    if reuse and (step != "solver" or detach_k1):
        raise ValueError("reuse takes a step of the solver as it was: leave step='solver' and detach_k1=False")

    def penalty(solution: Solution, rng: torch.Generator) -> Tensor:
        i, t, y = where(solution, rng)
        if reuse:
            ratio = recorded(solution, "error_ratio")[i]
            return float(solution.trace.dt[i].abs()) * ratio if times_dt else ratio
        size, recall = step_size(solution, t, y), step == "solver"
        return local_error(solution, t, y, size, times_dt=times_dt, detach_k1=detach_k1, recall=recall)

    return penalty


def random_start(solution: Solution, rng: torch.Generator) -> tuple[int, float, Tensor]:
    """Draw an accepted step, each with the same probability; return it with the time and state where it started."""
    if not solution.trace.y:
        raise ValueError(
            "this penalty starts from a state that the solver recorded, but this solve recorded none (torchsde "
            "does not tell its states): use local_unbiased"
        )
    i = int(torch.randint(solution.trace.accepted, (1,), generator=rng, device=rng.device))
    return i, float(solution.trace.t[i]), solution.trace.y[i]


def step_at(solution: Solution, t: float) -> int:
    """Index of the accepted step that contains t."""
    if not solution.trace.accepted:
        raise ValueError("this solve does not tell its steps (torchsde, adaptive): use step='initial', or fixed steps")
    starts, direction = solution.trace.t, math.copysign(1.0, float(solution.trace.dt[0]))
    return max(0, int(torch.searchsorted(direction * starts, direction * t, right=True)) - 1)


def _solver_step(solution: Solution, t: float, y: Tensor) -> float:
    """Size of the accepted step that contains t."""
    return float(solution.trace.dt[step_at(solution, t)])


def _initial_step(solution: Solution, t: float, y: Tensor) -> float:
    """Size that the solver would try first if it started at (t, y); nothing at the end of the interval."""
    left = until(t, float(solution.t[-1]))
    return solution.method.first_step(t, y, None, math.copysign(1.0, left), abs(left)) if left else 0.0


STEP_SIZES: dict[str, Callable[[Solution, float, Tensor], float]] = {
    "solver": _solver_step,
    "initial": _initial_step,
}
"""Name -> (solution, t, y) -> size of a local step: that of the solver's own step, or the one that it would try first.

Source: `initial` is that of the released code of Pal et al. 2023; `solver` is this project's."""


def recorded(solution: Solution, what: str) -> Tensor:
    """Return what the trace recorded, or raise ValueError when it carries no gradient."""
    if what not in solution.trace.with_gradient:
        raise ValueError(
            f"a global penalty differentiates the solver's recorded {what}, but this solve recorded it without "
            "gradient (continuous adjoint, torch.no_grad(), or not asked for). Solve with backpropagation and "
            f"records={{{what!r}}}, or use local_unbiased or local_biased, which work with any gradient method"
        )
    value = getattr(solution.trace, what)
    assert isinstance(value, Tensor)
    return value
