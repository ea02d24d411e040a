"""Every penalty, one paragraph each; the menu REGULARIZERS at the end.

The method in one paragraph. An adaptive solver estimates its own error at every step. **Global**
regularization (open box) sums these estimates over the solve and differentiates through the solver.
**Local** regularization (closed box) leaves the solver alone: draw one time, start from the detached state
there, take one step of the method, and penalize that step's error estimate. The time is drawn uniformly
(unbiased) or among the solver's own accepted steps (biased: hard regions have more steps and are hit more
often). Only the field f receives a gradient, through one step; so any solver and any gradient method will do.

Two further families ride along or combine: a **rate** is integrated along the solution (TayNODE, kinetic and Jacobian
energy), and `a + b` is both at once. To add your own: write a function that returns a Regularizer, and name it in
REGULARIZERS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from operator import add

import torch
from torch import Tensor

from regnde.penalties.local import Where, local_penalty, local_step, random_start, recorded, step_at
from regnde.penalties.rates import draw_noise, kinetic_jacobian_rate, taylor_rate
from regnde.penalties.regularizer import Regularizer, Setting, uniform, weighted
from regnde.solvers.checks import choose, times_of
from regnde.solvers.error_ratio import stiffness_ratio
from regnde.solvers.solution import Solution
from regnde.solvers.solve import Rate
from regnde.solvers.steps import Field


def none() -> Regularizer:
    """No regularization ("vanilla"): the solve is left exactly as it is. Raises nothing. Source: none."""
    return Regularizer(name="none")


def steer(*, fraction: float = 0.5) -> Regularizer:
    """Move the output times at random while training, so that the field is smooth around them (STEER).

    Each time after the first moves uniformly within +-fraction of the smaller gap to its neighbours; with
    one interval [t0, t1] that is t1 +- fraction * (t1 - t0). Nothing is added to the loss. Raises ValueError for a
    fraction outside of (0, 0.5].

    Source: Ghosh et al. 2020, "STEER: Simple Temporal Regularization for Neural ODEs", eq. 5.
    """
    if not 0 < fraction <= 0.5:
        raise ValueError(f"fraction must lie in (0, 0.5] so that times keep their order, found {fraction}")

    def times(t: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        t = t.to("cpu", torch.float64)  # with its graph
        gaps = t.detach().diff()
        room = torch.minimum(gaps.abs(), torch.cat([gaps[1:].abs(), gaps[-1:].abs()]))
        u = uniform(len(gaps), rng) * 1.998 - 0.999
        return torch.cat([t[:1], t[1:] + fraction * room * u]), torch.empty(0, dtype=torch.float64)

    return Regularizer(name="steer", settings={"fraction": fraction}, times=times)


AGGREGATES: dict[str, Callable[[Tensor], Tensor]] = {"sum": torch.sum, "mean": torch.mean, "max": torch.amax}
"""What a global penalty makes of the steps: the sum of the paper's equations, or what its released scripts take."""


def global_error(
    *,
    weight: float = 1.0,
    weight_end: float | None = None,
    target_nfe: float | None = None,
    times_dt: bool = True,
    over: str = "sum",
) -> Regularizer:
    """Sum the error ratios of all accepted steps, each times |dt| (`times_dt`), through the solver (open box).

    `over`: 'sum', or 'mean' or 'max' over the steps. Raises ValueError for arguments that cannot be; its penalty, 0-d,
    for a solve without gradient on record. Source: Pal et al. 2021, eq. 9 (R_E = sum_j E_j |h_j|).
    """
    aggregate = choose("over", AGGREGATES, over)

    def penalty(solution: Solution, rng: torch.Generator) -> Tensor:
        ratio = recorded(solution, "error_ratio")
        return aggregate(ratio * solution.trace.dt.abs().to(ratio) if times_dt else ratio)

    made = weighted("global_error", penalty, weight, weight_end, target_nfe, times_dt=times_dt, over=over)
    return replace(made, records=frozenset({"error_ratio"}))


def global_stiffness(
    *, weight: float = 1.0, weight_end: float | None = None, target_nfe: float | None = None, over: str = "sum"
) -> Regularizer:
    """Sum the stiffness estimates of all accepted steps, through the solver (open box).

    `over`, and what it raises, as `global_error`. Source: Pal et al. 2021, eq. 11 (R_S = sum_j S_j; S_j: Shampine's).
    """
    aggregate = choose("over", AGGREGATES, over)

    def penalty(solution: Solution, rng: torch.Generator) -> Tensor:
        return aggregate(recorded(solution, "stiffness"))

    made = weighted("global_stiffness", penalty, weight, weight_end, target_nfe, over=over)
    return replace(made, records=frozenset({"stiffness"}))


def local_unbiased(
    *,
    weight: float = 1.0,
    weight_end: float | None = None,
    target_nfe: float | None = None,
    step: str = "solver",
    times_dt: bool = False,
    reuse: bool = False,
    detach_k1: bool = False,
) -> Regularizer:
    """Penalize the error ratio of one step that starts at a time drawn uniformly from the interval (closed box).

    Args:
        weight, weight_end: constant weight, or exponential from the first to the second over training.
        target_nfe: adapt the weight, starting from `weight`, until a training step's solve needs so many evaluations.
        step: size of the step: 'solver' takes that of the accepted step which contains the drawn time,
            'initial' the heuristic for a first step (the papers' code). Either is clipped to the end. A multistep
            method goes on from the recorded states before it with 'solver', and starts anew with 'initial'.
        times_dt: multiply by |dt| as the papers do. Without it the value lies in a band below one at any tolerance.
        reuse: take the recorded error ratio of the accepted step that contains the drawn time, with its gradient
            through the solver and all that moves the path (backpropagation only): no further evaluation, an open box.
        detach_k1: take the step's first stage as a constant, as the papers' released code does. Its gradient is wrong
            by orders of magnitude; for the study of it only.

    Raises ValueError for arguments that cannot be; the penalty, 0-d, for a solve without the state at `sampled_t`.
    Source: Pal et al. 2023, section 3.2, eq. 12-13.
    """

    def times(t: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        start, end = times_of(t)[[0, -1]]
        return t, start + uniform(1, rng) * (end - start)

    def where(solution: Solution, rng: torch.Generator) -> tuple[int, float, Tensor]:
        if solution.sampled_y is None or len(solution.sampled_t) != 1:
            raise ValueError(
                "local_unbiased needs the state at its sampled time: pass `sampled_t` of Regularizer.times to the solve"
            )
        t = float(solution.sampled_t[0])
        return step_at(solution, t) if solution.trace.accepted else -1, t, solution.sampled_y[0].detach()

    weights = weight, weight_end, target_nfe
    made = _local("local_unbiased", where, weights, step=step, times_dt=times_dt, reuse=reuse, detach_k1=detach_k1)
    return replace(made, times=times)


def local_biased(
    *,
    weight: float = 1.0,
    weight_end: float | None = None,
    target_nfe: float | None = None,
    step: str = "solver",
    times_dt: bool = False,
    reuse: bool = False,
    detach_k1: bool = False,
) -> Regularizer:
    """Penalize the error ratio of one step that starts where a random accepted step started (closed box).

    Every accepted step is drawn with the same probability, so that regions where the solver needs many steps
    are penalized often. The controller keeps the error ratio in a band below one; with the solver's own step the
    gradient of this penalty is, on a path that is held, a sample of the gradient of log(number of steps), up to a
    factor that depends on task, tolerance and state of training: the weight is of the order of a price, in loss, for
    an e-fold of steps. Where weights move the path the direction can be wrong (lesson 04); `reuse` follows the path.

    Arguments as for `local_unbiased`. Raises ValueError for arguments that cannot be; its penalty, 0-d, for a solve
    that recorded no states. Source: Pal et al. 2023, section 3.2, "biased sampling".
    """
    weights = weight, weight_end, target_nfe
    return _local("local_biased", random_start, weights, step=step, times_dt=times_dt, reuse=reuse, detach_k1=detach_k1)


def local_stiffness(
    *, weight: float = 1.0, weight_end: float | None = None, target_nfe: float | None = None
) -> Regularizer:
    """Penalize the stiffness estimate of one step that starts where a random accepted step started (closed box).

    Raises ValueError as `local_biased`, and the penalty, 0-d, for a method without a stiffness estimate.
    Source: Pal et al. 2023, section 3.2, who report that it did not help.
    """

    def penalty(solution: Solution, rng: torch.Generator) -> Tensor:
        i, t, y = random_start(solution, rng)
        return stiffness_ratio(local_step(solution, t, y, float(solution.trace.dt[i])))

    return weighted("local_stiffness", penalty, weight, weight_end, target_nfe)


def taynode(
    *,
    weight: float = 1.0,
    weight_end: float | None = None,
    target_nfe: float | None = None,
    order: int = 3,
    mode: str = "taylor",
) -> Regularizer:
    """Integrate the squared norm of the solution's K-th time derivative along the solve (TayNODE).

    `order`: K, 2 to 4; `mode`: 'taylor' or 'nested'. Raises ValueError for arguments that cannot be; its penalty, 0-d,
    for a solve without the rate. Source: Kelly et al. 2020, "Learning differential equations that are easy to solve".
    """
    rate = taylor_rate(order, mode=mode)
    made = weighted("taynode", _integral, weight, weight_end, target_nfe, order=order, mode=mode)
    return replace(made, rate=lambda rng: rate)


def kinetic_jacobian(
    *,
    weight: float = 1.0,
    weight_end: float | None = None,
    target_nfe: float | None = None,
    kinetic: float = 1.0,
    jacobian: float = 1.0,
) -> Regularizer:
    """Integrate kinetic |f|^2 + jacobian |df/dy|_F^2 along the solve, the latter by Hutchinson's estimator (RNODE).

    Raises ValueError for a negative weight; the penalty, 0-d, for a solve without the rate.
    Source: Finlay et al. 2020, "How to train your neural ODE".
    """

    def rate(rng: torch.Generator) -> Rate:
        noise: list[Rate] = []  # drawn once for each solve, when the state's shape is known

        def along(f: Field, t: Tensor, y: Tensor, dy: Tensor) -> Tensor:
            if not noise:
                noise.append(kinetic_jacobian_rate(draw_noise(y, rng), kinetic=kinetic, jacobian=jacobian))
            return noise[0](f, t, y, dy)

        return along

    kinetic_jacobian_rate(torch.empty(0), kinetic=kinetic, jacobian=jacobian)  # refuses wrong weights here already
    made = weighted("kinetic_jacobian", _integral, weight, weight_end, target_nfe, kinetic=kinetic, jacobian=jacobian)
    return replace(made, rate=rate)


def _integral(solution: Solution, rng: torch.Generator) -> Tensor:
    """Return the integral of the rate that rode along."""
    if solution.rate_integral is None:
        raise ValueError(
            "this penalty is the integral of a rate along the solve, but this solve had none: solve an ODE with "
            "solve_ode and rate=regularizer.rate(rng)"
        )
    return solution.rate_integral


def _local(
    name: str,
    where: Where,
    weights: tuple[float, float | None, float | None],
    *,
    step: str,
    times_dt: bool,
    reuse: bool,
    detach_k1: bool,
) -> Regularizer:
    """Return a local penalty of steps that start `where`; what differs from the usual form is part of its record."""
    penalty = local_penalty(where, step=step, times_dt=times_dt, reuse=reuse, detach_k1=detach_k1)
    variants = {key: True for key, chosen in (("reuse", reuse), ("detach_k1", detach_k1)) if chosen}
    made = weighted(name, penalty, *weights, step=step, times_dt=times_dt, **variants)
    return replace(made, records=frozenset({"error_ratio"}) if reuse else frozenset())


REGULARIZERS: dict[str, Callable[..., Regularizer]] = {
    "none": none,
    "steer": steer,
    "global_error": global_error,
    "global_stiffness": global_stiffness,
    "local_unbiased": local_unbiased,
    "local_biased": local_biased,
    "local_stiffness": local_stiffness,
    "taynode": taynode,
    "kinetic_jacobian": kinetic_jacobian,
}
"""The menu: name -> function that makes the `Regularizer`. Source: each says its own."""


def make_regularizer(name: str, **settings: Setting) -> Regularizer:
    """Return the regularizer of this name from the menu, with settings.

    A sum is named 'global_error+steer'; its settings are those of its parts, as 'global_error.weight'. A name may end
    in a colon and a variant, 'local_biased:initial', for rows of one regularizer with several settings.

    Raises ValueError for an unknown name or setting. Source: each regularizer says its own.
    """
    base = name.split(":")[0]
    if "+" in base:
        parts = base.split("+")
        stray = [key for key in settings if key.split(".")[0] not in parts or "." not in key]
        if stray:
            raise ValueError(f"settings {stray} name no part of {base!r}; write for example '{parts[0]}.weight'")
        of = {part: {k.split(".", 1)[1]: v for k, v in settings.items() if k.split(".")[0] == part} for part in parts}
        return replace(reduce(add, (make_regularizer(part, **of[part]) for part in parts)), name=name)
    factory = choose("regularizer", REGULARIZERS, base)
    try:
        return replace(factory(**settings), name=name)
    except TypeError as error:
        raise ValueError(f"settings {settings} do not fit regularizer {name!r}: {error}") from error
