"""The open box: solve_ode, solve_sde -> Solution with its Trace (one small, readable, fast loop)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from regnde.solvers.adams import AdamsBashforth, check_multistep
from regnde.solvers.checks import (
    Counted,
    check_options,
    check_problem,
    check_sampled,
    check_sde,
    check_tableau,
    choose,
    choose_gradient,
)
from regnde.solvers.compiled import Wanted, compiled
from regnde.solvers.control import CONTROLLERS, Controller
from regnde.solvers.graphs import counting_fields
from regnde.solvers.loop import Loop
from regnde.solvers.methods import Method, RungeKutta, StochasticRungeKutta
from regnde.solvers.path import Path, brownian_path
from regnde.solvers.replay import replay
from regnde.solvers.side_effects import Conditions, with_fields
from regnde.solvers.solution import Solution
from regnde.solvers.sri_steps import ERROR_ESTIMATES
from regnde.solvers.sri_tableaus import SRI_TABLEAUS, SRITableau
from regnde.solvers.steps import Field, refuse_gradient
from regnde.solvers.tableaus import BOSH3, CLASSICAL, TABLEAUS, Tableau

RECORDS = ("error_ratio", "stiffness")
METHODS: dict[str, Callable[..., RungeKutta]] = {
    **{name: partial(RungeKutta, tableau=tableau) for name, tableau in (TABLEAUS | CLASSICAL).items()},
    "vcab3": partial(AdamsBashforth, tableau=BOSH3),
}
Rate = Callable[[Field, Tensor, Tensor, Tensor], Tensor]
"""(f, t, y, dy) -> 0-d rate along a solution, with dy = f(t, y), (batch, ...), known already. Source: this project."""


def solve_ode(
    f: Field,
    y0: Tensor,
    t: Tensor,
    *,
    rtol: float,
    atol: float,
    method: str | Tableau = "tsit5",
    controller: str | Controller = "integral",
    first_step: float | None = None,
    step_sizes: Sequence[float] | None = None,
    max_steps: int = 10_000,
    sampled_t: Tensor | None = None,
    records: frozenset[str] = frozenset(),
    rate: Rate | None = None,
    gradient: str = "backprop",
    parameters: Sequence[Tensor] | None = None,
    compile: bool = False,
) -> Solution:
    """Solve dy/dt = f(t, y) with adaptive steps; backpropagation goes through the accepted steps.

    Args:
        f: field; gets a 0-d time of y0's dtype and a state (batch, ...), returns (batch, ...).
        y0: initial state, (batch, ...), float32 or float64; one step size serves the whole batch.
        t: output times, (times,), at least two, increasing or decreasing; the state at t[0] is y0. Where they require
            a gradient, it is that with the accepted steps held: t[0] moves them all, the others move on their own.
        rtol, atol: relative and absolute tolerance of one step.
        method: 'tsit5', 'dopri5', 'bosh3', or a Tableau; or 'vcab3', the Adams-Bashforth method of order 3 with
            variable steps, one evaluation each (see `AdamsBashforth`): for gradient='backprop' and times without a
            gradient, neither compiled nor with 'stiffness' on record. Or 'euler', 'midpoint', 'rk4', for a few steps
            of fixed size: neither compiled nor with a rate; 'euler' knows no error, and needs `step_sizes`.
        controller: 'integral', 'pi', or a Controller.
        first_step: size of the first step (positive); None: chosen by `first_step.initial_step`.
        step_sizes: take exactly these steps (positive, in order) instead of controlling them.
        max_steps: largest number of attempted steps.
        sampled_t: further times inside the interval where a regularizer wants the state, (sampled,).
        records: what the trace shall carry with gradient: a subset of {'error_ratio', 'stiffness'}.
        rate: (f, t, y, dy) -> 0-d rate, integrated along the accepted steps by the trapezoidal rule; it changes neither
            steps nor NFE. dy = f(t, y) is known already and not evaluated again.
        gradient: 'backprop' keeps the graph of all steps; 'checkpoint' keeps the states where they start, and takes
            them again one by one in the backward pass: the same gradient, at the memory of one step.
        parameters: of f, for gradient='checkpoint'; None: those of f, which must then be an nn.Module.
        compile: take the steps, and the local penalties of this solve, through torch.compile: the first solve with a
            field compiles it (seconds to a minute; see benchmarks), later ones are faster. Same steps, states and
            gradients to rounding, which decides the steps where the tolerance is as fine as the dtype. Small states are
            stepped ahead, `compiled.AHEAD` steps in one call; of these steps NFE counts those that were asked for. A
            field that cannot be traced is stepped as usual, with a warning.
            Not with gradient='checkpoint', times with a gradient, or second derivatives.

    Raises:
        ValueError: for arguments that cannot be, before f is evaluated; for a wrong output of f, at its first
            evaluation.
        SolverError: too many steps, or non-finite values that smaller steps do not cure.

    Source: Hairer, Norsett, Wanner, Solving ODEs I, sections II.4 to II.6; each method names its own.
    """
    make = choose("method", METHODS, method) if isinstance(method, str) else partial(RungeKutta, tableau=method)
    control = choose("controller", CONTROLLERS, controller) if isinstance(controller, str) else controller
    moves = t - t.detach() if isinstance(t, Tensor) and t.requires_grad and torch.is_grad_enabled() else None
    t = check_problem(y0, t, rtol, atol)
    if rate is not None and moves is not None:
        raise ValueError("t requires a gradient, but the integral of a rate has none for its limits: pass t.detach()")
    check_options(records, RECORDS, first_step, max_steps)
    if method == "vcab3":
        check_multistep(compile=compile, gradient=gradient, moves=moves, records=records)
    counted = make(f=Counted(f, y0), rtol=rtol, atol=atol, compiled=compile)
    check_tableau(counted.tableau, compile=compile, rate=rate is not None, fixed=step_sizes is not None)
    return _solve(
        counted,
        replace(counted, f=f),
        y0,
        t,
        control,
        gradient=choose_gradient(gradient, f, parameters),
        first_step=first_step,
        step_sizes=step_sizes,
        max_steps=max_steps,
        sampled_t=sampled_t,
        records=records,
        rate=rate,
        moves=None if moves is None else moves.to(t),
    )


def solve_sde(
    f: Field,
    g: Field,
    y0: Tensor,
    t: Tensor,
    *,
    rtol: float,
    atol: float,
    method: str | SRITableau = "sosri2",
    controller: str | Controller = "sde",
    estimate: str = "embedded",
    bm: Path | None = None,
    seed: int | None = None,
    noise_type: str = "diagonal",
    sde_type: str = "ito",
    first_step: float | None = None,
    step_sizes: Sequence[float] | None = None,
    max_steps: int = 10_000,
    sampled_t: Tensor | None = None,
    records: frozenset[str] = frozenset(),
    gradient: str = "backprop",
    parameters: Sequence[Tensor] | None = None,
    compile: bool = False,
) -> Solution:
    """Solve the Ito SDE dy = f(t, y) dt + g(t, y) dW with adaptive steps along one Brownian path.

    Args:
        f, g: drift and diffusion; both get a 0-d time of y0's dtype and a state (batch, ...) and return (batch, ...):
            component i of y is driven by component i of W (diagonal noise). Strong order 3/2 needs g_i to depend on
            y_i alone; a diffusion that couples the components is solved with strong order 1/2, by any method here.
        y0: initial state, (batch, ...), float32 or float64; one step size serves the whole batch.
        t: output times, (times,), at least two, increasing; the state at t[0] is y0.
        rtol, atol: relative and absolute tolerance of one step.
        method: 'sosri2', 'sosri', or an SRITableau. 'sosri' evaluates f up to 3.75 steps ahead, beyond t[-1] as well.
        controller: 'sde' (growth up to 3), 'sde_reference' (growth up to 1.125), 'pi', 'integral', or a Controller.
        estimate: 'embedded', or 'reference' for that of the published integrators (see sri_steps.ERROR_ESTIMATES).
        bm: the Brownian path: a `BrownianPath`, or torchsde's BrownianInterval with levy_area_approximation=
            'space-time'; of y0's shape, dtype and device, and it covers t. Rejected steps never change it.
        seed: of a BrownianPath made here, when bm is None: a whole number, which decides the path, whatever the steps
            are. None: drawn from torch's global generator, and laid out for t where it is even. Steps along such a path
            are up to a quarter longer or a fifth shorter than the controller's, to end where it is cheap.
        noise_type, sde_type: what f and g are, in torchsde's words; only 'diagonal' and 'ito' are solved here.
        first_step, step_sizes, max_steps, sampled_t, records, gradient, parameters, compile: as for `solve_ode`;
            'stiffness' with 'sosri2' only; compiled, each attempt evaluates f and g anew at its start.

    Raises:
        ValueError: for arguments that cannot be, before f and g are evaluated; for a wrong output of f or g, at its
            first evaluation.
        SolverError: too many steps, or non-finite values that smaller steps do not cure.

    Source: Rackauckas, Nie 2020 for the methods and their step sizes; `BrownianPath` names that of the path.
    """
    tableau = choose("method", SRI_TABLEAUS, method) if isinstance(method, str) else method
    control = choose("controller", CONTROLLERS, controller) if isinstance(controller, str) else controller
    choose("estimate", ERROR_ESTIMATES, estimate)
    refuse_gradient(t=t)
    t = check_problem(y0, t, rtol, atol)
    check_options(records, RECORDS, first_step, max_steps)
    check_sde(t, noise_type, sde_type)
    even = torch.allclose(t.diff(), t.diff().mean(), rtol=1e-9, atol=0.0)
    bm = brownian_path(bm, y0, t, seed, float(t[1] - t[0]) if even else None)
    drift = Counted(f, y0, what="the drift")
    diffusion = Counted(g, y0, name="g", what="the diffusion of diagonal noise")
    counted = StochasticRungeKutta(drift, diffusion, bm, float(t[-1]), tableau, rtol, atol, estimate, compile)
    return _solve(
        counted,
        replace(counted, f=f, g=g),
        y0,
        t,
        control,
        gradient=choose_gradient(gradient, getattr(f, "__self__", f), parameters),
        first_step=first_step,
        step_sizes=step_sizes,
        max_steps=max_steps,
        sampled_t=sampled_t,
        records=records,
    )


def _settings(method: Method) -> AbstractContextManager[None]:
    return counting_fields() if method.compiled else nullcontext()


def _solve(
    counted: RungeKutta | StochasticRungeKutta,
    method: RungeKutta | StochasticRungeKutta,
    y0: Tensor,
    t: Tensor,
    control: Controller,
    *,
    gradient: tuple[Tensor, ...] | None,
    first_step: float | None,
    step_sizes: Sequence[float] | None,
    max_steps: int,
    sampled_t: Tensor | None,
    records: frozenset[str],
    rate: Rate | None = None,
    moves: Tensor | None = None,
) -> Solution:
    """Run the loop with a method whose fields count, and return the Solution with the one whose fields do not.

    `gradient` holds the parameters of checkpointed gradients, or is None for backpropagation. `moves` (times,) is zero,
    and carries the gradient of the output times.
    """
    refuse_gradient(step_sizes=step_sizes)
    if method.compiled and (gradient is not None or moves is not None):
        raise ValueError("compile=True takes gradient='backprop' and times without a gradient (t.detach())")
    drawn = check_sampled(t, sampled_t)
    along = None if rate is None else lambda at, y, dy: rate(method.f, y.new_full((), at), y, dy)
    replayed = gradient is not None and torch.is_grad_enabled()
    conditions = Conditions(method, y0) if replayed else None
    first = None if moves is None else moves[0].to(y0)

    def moved(method: Method) -> Method:
        return method if first is None else with_fields(method, lambda f: lambda at, y: f(at + first, y))

    taken, keep = moved(counted), None
    if conditions is not None:
        taken, keep = conditions.noting(taken), conditions.keep
    sampled = drawn.tolist()
    if counted.compiled:
        wanted = Wanted(control, tuple(t.tolist()), tuple(sampled), records, ahead=step_sizes is None)
        taken = compiled(taken, wanted)
    loop = Loop(
        taken, control, max_steps=max_steps, records=records, sampled_t=sampled, rate=along, keep=keep, moves=moves
    )
    with torch.set_grad_enabled(torch.is_grad_enabled() and not replayed), _settings(method):
        y = loop.run(y0, t.tolist(), first_step, step_sizes)  # (times, batch, ...)
    method = replace(method, f=counted.f.plain)  # type: ignore[attr-defined]
    if isinstance(method, StochasticRungeKutta):
        method = replace(method, g=counted.g.plain)  # type: ignore[union-attr]
    diffusion = counted.g.nfe if isinstance(counted, StochasticRungeKutta) else 0  # type: ignore[attr-defined]
    trace, integral = loop.trace(nfe=counted.f.nfe, nfe_diffusion=diffusion), loop.integral()  # type: ignore[attr-defined]
    if gradient is not None and conditions is not None:
        gradient = gradient if moves is None else (*gradient, moves)
        y, trace, integral = replay(loop, moved(method), y0, t.tolist(), gradient, conditions, y, trace, integral)
    sampled_y = loop.sampled(sampled)
    return Solution(t=t, y=y, trace=trace, method=method, sampled_t=drawn, sampled_y=sampled_y, rate_integral=integral)
