"""Every penalty, one paragraph each; the menu REGULARIZERS at the end.

The method in one paragraph. An adaptive solver estimates its own error at every step. **Global**
regularization (open box) sums these estimates over the solve and differentiates through the solver.
**Local** regularization (closed box) leaves the solver alone: draw one time, start from the detached state
there, take one step of the method, and penalize that step's error estimate. The time is drawn uniformly
(unbiased) or among the solver's own accepted steps (biased: hard regions have more steps and are hit more
often). Only the field f receives a gradient, through one step; so any solver and any gradient method will do.

To add your own: write a function that returns a Regularizer, and name it in REGULARIZERS.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from regnde.checks import choose
from regnde.solution import Solution
from regnde.solve import Regularizer


@dataclass(frozen=True)
class Weight:
    """Weight of a penalty over training: constant, or exponential from `start` to `end`.

    Calling it with the progress p in [0, 1] gives start * (end / start)^p.
    """

    start: float
    end: float | None = None

    def __post_init__(self) -> None:
        for value in (self.start, self.start if self.end is None else self.end):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"a weight must be positive and finite, found {value}; to switch off use `none`")

    def __call__(self, progress: float) -> float:
        return self.start if self.end is None else self.start * (self.end / self.start) ** progress


def none() -> Regularizer:
    """No regularization ("vanilla"): the solve is left exactly as it is."""
    return Regularizer(name="none")


def steer(*, fraction: float = 0.5) -> Regularizer:
    """Move the output times at random while training, so that the field is smooth around them (STEER).

    Each time after the first moves uniformly within +-fraction of the smaller gap to its neighbours; with
    one interval [t0, t1] that is t1 +- fraction * (t1 - t0). Nothing is added to the loss.

    Source: Ghosh et al. 2020, "STEER: Simple Temporal Regularization for Neural ODEs", eq. 5.
    """
    if not 0 < fraction <= 0.5:
        raise ValueError(f"fraction must lie in (0, 0.5] so that times keep their order, found {fraction}")

    def times(t: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        gaps = t.diff()
        room = torch.minimum(gaps.abs(), torch.cat([gaps[1:].abs(), gaps[-1:].abs()]))
        u = torch.rand(len(gaps), generator=rng, dtype=torch.float64) * 1.998 - 0.999
        return torch.cat([t[:1], t[1:] + fraction * room * u]), torch.empty(0, dtype=torch.float64)

    return Regularizer(name="steer", settings={"fraction": fraction}, times=times)


def global_error(*, weight: float = 1.0, weight_end: float | None = None, times_dt: bool = True) -> Regularizer:
    """Sum the error ratios of all accepted steps, each times |dt| (`times_dt`), through the solver (open box).

    Source: Pal et al. 2021, eq. 9 (R_E = sum_j E_j |h_j|).
    """

    def penalty(solution: Solution, rng: torch.Generator) -> Tensor:
        ratio = _recorded(solution, "error_ratio")
        return (ratio * solution.trace.dt.abs().to(ratio)).sum() if times_dt else ratio.sum()

    return Regularizer(
        name="global_error",
        settings=_settings(weight, weight_end, times_dt=times_dt),
        weight=Weight(weight, weight_end),
        records=frozenset({"error_ratio"}),
        penalty=penalty,
    )


def global_stiffness(*, weight: float = 1.0, weight_end: float | None = None) -> Regularizer:
    """Sum the stiffness estimates of all accepted steps, through the solver (open box).

    Source: Pal et al. 2021, eq. 11 (R_S = sum_j S_j), with Shampine's estimate S_j.
    """

    def penalty(solution: Solution, rng: torch.Generator) -> Tensor:
        return _recorded(solution, "stiffness").sum()

    return Regularizer(
        name="global_stiffness",
        settings=_settings(weight, weight_end),
        weight=Weight(weight, weight_end),
        records=frozenset({"stiffness"}),
        penalty=penalty,
    )


def local_unbiased(
    *,
    weight: float = 1.0,
    weight_end: float | None = None,
    step: str = "solver",
    times_dt: bool = False,
) -> Regularizer:
    """Penalize the error ratio of one step that starts at a time drawn uniformly from the interval (closed box).

    Args:
        weight, weight_end: constant weight, or exponential from the first to the second over training.
        step: size of the step: 'solver' takes that of the accepted step which contains the drawn time,
            'initial' the heuristic for a first step (the papers' code). Either is clipped to the end.
        times_dt: multiply by |dt| as the papers do. Without it the penalty's weight does not depend on the tolerance.

    Source: Pal et al. 2023, section 3.2, eq. 12-13.
    """
    step_size = choose("step", STEP_SIZES, step)

    def times(t: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        u = torch.rand(1, generator=rng, dtype=torch.float64)
        return t, t[0] + u * (t[-1] - t[0])

    def penalty(solution: Solution, rng: torch.Generator) -> Tensor:
        if solution.sampled_y is None or len(solution.sampled_t) != 1:
            raise ValueError(
                "local_unbiased needs the state at its sampled time: pass `sampled_t` of Regularizer.times to the solve"
            )
        t, y = float(solution.sampled_t[0]), solution.sampled_y[0].detach()
        return local_error(solution, t, y, step_size(solution, t, y), times_dt=times_dt)

    return Regularizer(
        name="local_unbiased",
        settings=_settings(weight, weight_end, step=step, times_dt=times_dt),
        weight=Weight(weight, weight_end),
        times=times,
        penalty=penalty,
    )


def local_biased(
    *,
    weight: float = 1.0,
    weight_end: float | None = None,
    step: str = "solver",
    times_dt: bool = False,
) -> Regularizer:
    """Penalize the error ratio of one step that starts where a random accepted step started (closed box).

    Every accepted step is drawn with the same probability, so that regions where the solver needs many steps
    are penalized often. The controller keeps the error ratio near a constant; with the solver's own step
    the gradient of this penalty is, up to that constant, a sample of the gradient of log(number of steps):
    the weight is the loss paid for each e-fold of steps, at any tolerance.

    Arguments as for `local_unbiased`. Source: Pal et al. 2023, section 3.2, "biased sampling".
    """
    step_size = choose("step", STEP_SIZES, step)

    def penalty(solution: Solution, rng: torch.Generator) -> Tensor:
        if not solution.trace.y:
            raise ValueError(
                "local_biased starts from a state that the solver recorded, but this solve recorded none (torchsde "
                "does not tell its states): use local_unbiased"
            )
        i = int(torch.randint(solution.trace.accepted, (1,), generator=rng))
        t, y = float(solution.trace.t[i]), solution.trace.y[i]
        return local_error(solution, t, y, step_size(solution, t, y), times_dt=times_dt)

    return Regularizer(
        name="local_biased",
        settings=_settings(weight, weight_end, step=step, times_dt=times_dt),
        weight=Weight(weight, weight_end),
        penalty=penalty,
    )


def local_error(solution: Solution, t: float, y: Tensor, dt: float, *, times_dt: bool = False) -> Tensor:
    """Return the error ratio of one step of the solution's method from (t, y), 0-d; f gets the gradient.

    The first stage f(t, y) is differentiated like the others; t, y and dt are constants.
    """
    end = float(solution.t[-1])
    dt = math.copysign(min(abs(dt), abs(end - t)), end - float(solution.t[0]))
    ratio = solution.method.ratio(solution.method.take(t, y, dt))
    return abs(dt) * ratio if times_dt else ratio


def _solver_step(solution: Solution, t: float, y: Tensor) -> float:
    """Size of the accepted step that contains t."""
    if not solution.trace.accepted:
        raise ValueError("this solve does not tell its steps (torchsde, adaptive): use step='initial', or fixed steps")
    starts, direction = solution.trace.t, math.copysign(1.0, float(solution.trace.dt[0]))
    i = int(torch.searchsorted(direction * starts, direction * t, right=True)) - 1
    return float(solution.trace.dt[max(i, 0)])


def _initial_step(solution: Solution, t: float, y: Tensor) -> float:
    """Size that the solver would try first if it started at (t, y)."""
    return solution.method.first_step(t, y, None, math.copysign(1.0, float(solution.t[-1] - solution.t[0])))


STEP_SIZES: dict[str, Callable[[Solution, float, Tensor], float]] = {
    "solver": _solver_step,
    "initial": _initial_step,
}


def _recorded(solution: Solution, what: str) -> Tensor:
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


def _settings(weight: float, weight_end: float | None, **others: float | str | bool) -> dict[str, float | str | bool]:
    ends: dict[str, float | str | bool] = {} if weight_end is None else {"weight_end": weight_end}
    return {"weight": weight, **ends, **others}


REGULARIZERS: dict[str, Callable[..., Regularizer]] = {
    "none": none,
    "steer": steer,
    "global_error": global_error,
    "global_stiffness": global_stiffness,
    "local_unbiased": local_unbiased,
    "local_biased": local_biased,
}


def make(name: str, **settings: float | str | bool) -> Regularizer:
    """Return the regularizer of this name from the menu, with settings; ValueError for an unknown name or setting."""
    factory = choose("regularizer", REGULARIZERS, name)
    try:
        return factory(**settings)
    except TypeError as error:
        raise ValueError(f"settings {settings} do not fit regularizer {name!r}: {error}") from error
