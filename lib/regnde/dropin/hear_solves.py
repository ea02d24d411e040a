"""Where torchdiffeq and torchsde start a solve: for a while, an ear hears the steps that are taken there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial, wraps
from typing import Any, Literal

import torch
from torch import Tensor
from torchdiffeq._impl.adjoint import OdeintAdjointMethod
from torchdiffeq._impl.bosh3 import Bosh3Solver
from torchdiffeq._impl.misc import _rms_norm
from torchdiffeq._impl.scipy_wrapper import ScipyWrapperODESolver
from torchdiffeq._impl.solvers import AdaptiveStepsizeEventODESolver, AdaptiveStepsizeODESolver, FixedGridODESolver
from torchsde._core.adjoint import _SdeintAdjointMethod
from torchsde._core.base_solver import BaseSDESolver

from regnde.dropin.draw_step import Ear, Hearing
from regnde.dropin.kept_step import KeptODE, KeptSDE

SDE_METHODS = {"f": (1, 0), "g": (0, 1), "f_and_g": (1, 1), "g_prod": (0, 1), "f_and_g_prod": (1, 1)}
"""How torchsde asks for drift and diffusion, and how many of each it gets."""
GENERAL = (
    "an SDE with noise_type 'general', whose error lies in iterated integrals between its noises, which the penalty's "
    "step does not have: 'diagonal', 'scalar' and 'additive' noise are heard"
)
_EAR: ContextVar[Ear | Literal[False] | None] = ContextVar("ear", default=None)
"""Who hears the next solve of this thread; False: nobody, not even an ear that a field brings."""
_ADJOINT: ContextVar[bool] = ContextVar("adjoint", default=False)
"""Whether an adjoint is under way whose caller has gradients enabled: its way forward itself runs without."""


def _listening() -> Ear | None:
    """Return who hears a solve that starts now, if anybody does: never in a backward pass, nor without gradients."""
    ear = _EAR.get()
    if not ear or torch._C._current_graph_task_id() != -1:
        return None
    if torch.is_grad_enabled() or _ADJOINT.get():
        return ear
    ear.unheard.add("a solve under torch.no_grad()")
    return None


def _around_solve(hear: Callable[..., Any], solve: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(solve)
    def heard(solver: Any, *args: Any) -> Any:
        ear = _listening()
        if ear is None:
            return solve(solver, *args)
        token = _EAR.set(None)  # what the field solves inside is another solve
        try:
            return hear(ear, solver, solve, *args)
        finally:
            _EAR.reset(token)

    return heard


def _around_adjoint(apply: Callable[..., Any]) -> Any:
    @wraps(apply)
    def with_the_callers_gradients(*args: Any) -> Any:
        token = _ADJOINT.set(torch.is_grad_enabled())
        try:
            return apply(*args)
        finally:
            _ADJOINT.reset(token)

    return staticmethod(with_the_callers_gradients)


def _hear_ode(ear: Ear, solver: Any, solve: Callable[..., Any], *args: Any) -> Any:
    adaptive = isinstance(solver, AdaptiveStepsizeODESolver)
    if adaptive:
        scale = solver.tableau, solver.rtol, solver.atol, solver.norm, solver.dtype
    else:
        scale = Bosh3Solver.tableau, ear.tolerance, ear.tolerance, _rms_norm, solver.y0.abs().dtype
    order = solver.order if adaptive else Bosh3Solver.order
    hearing = Hearing(ear, lambda t0, t1, y: KeptODE(solver.func, *scale, t0, t1, y.clone()), order)

    def count(*_: Any) -> None:
        hearing.nfe += 1

    counter = solver.func.register_forward_pre_hook(count)  # on torchdiffeq's wrapper, which lives for one solve
    try:
        with _shadowed(solver, _tell_adaptive(hearing, solver) if adaptive else _tell_fixed(hearing, solver)):
            found = solve(solver, *args)
    finally:
        counter.remove()
    end = found[0] if isinstance(found, tuple) else args[0][-1]  # of an event, its time
    ear.end(hearing, float(end.detach()))
    return found


def _tell_adaptive(hearing: Hearing, solver: Any) -> dict[str, Any]:
    norm, step, told = solver.norm, solver._adaptive_step, [torch.ones(())]

    def telling_norm(scaled: Tensor) -> Tensor:
        told[0] = norm(scaled)
        return told[0]

    def telling_step(state: Any) -> Any:
        new = step(state)
        numbers = [x.detach().reshape(1).to(new.t0) for x in (new.t0, new.t1, told[0])]  # of one element, 0-d or not
        t0, t1, r = torch.cat(numbers).tolist()  # one transfer
        if t1 > t0:
            hearing.accept(t0, t1, state.y1, abs(r))
        else:
            hearing.rejected += 1
        return new

    return {"norm": telling_norm, "_adaptive_step": telling_step}


def _tell_fixed(hearing: Hearing, solver: Any) -> dict[str, Any]:
    step = solver._step_func

    def telling_step(func: Any, t0: Tensor, dt: Any, t1: Tensor, y0: Tensor) -> Any:
        start, end = torch.stack([t0, t1]).tolist()  # one transfer
        hearing.accept(start, end, y0)
        return step(func, t0, dt, t1, y0)

    return {"_step_func": telling_step}


def _hear_scipy(ear: Ear, solver: Any, solve: Callable[..., Any], *args: Any) -> Any:
    ear.unheard.add("method 'scipy_solver', which tells no steps: use 'dopri5'")
    return solve(solver, *args)


def _hear_sde(ear: Ear, solver: Any, solve: Callable[..., Any], *args: Any) -> Any:
    sde = solver.sde
    if sde.noise_type == "general":
        ear.unheard.add(GENERAL)
        return solve(solver, *args)
    rtol, atol = (solver.rtol, solver.atol) if solver.adaptive else (ear.tolerance, ear.tolerance)
    scale = int(solver.bm.shape[-1]), float(rtol), float(atol), ear.rng
    hearing = Hearing(ear, lambda t0, t1, y: KeptSDE(sde, *scale, t0, t1, y.clone()), 1.5)
    step, calls = solver.step, 0

    def telling_step(t0: Any, t1: Any, y0: Tensor, extra: Any) -> Any:
        nonlocal calls
        if not solver.adaptive or calls % 3 == 0:  # adaptive: one full step, then two halves of it
            start, end = float(t0), float(t1)
            if solver.adaptive and hearing.waiting is not None and start == hearing.waiting[0]:
                hearing.waiting = None  # the same start again: the attempt before was rejected
                hearing.accepted, hearing.rejected = hearing.accepted - 1, hearing.rejected + 1
            share = 1.0 if solver.adaptive else (end - start) / float(solver.dt)
            hearing.accept(start, end, y0, share**1.5)  # a rest that rounding leaves is a quiet step
        calls += 1
        return step(t0, t1, y0, extra)

    with _shadowed(solver, {"step": telling_step}), _shadowed(sde, _counted(hearing, sde)):
        found = solve(solver, *args)
    ear.end(hearing, float(args[1][-1]))
    return found


def _counted(hearing: Hearing, sde: Any) -> dict[str, Any]:
    def call(inner: Callable[..., Any], of_f: int, of_g: int, *args: Any) -> Any:
        hearing.nfe, hearing.nfe_diffusion = hearing.nfe + of_f, hearing.nfe_diffusion + of_g
        return inner(*args)

    given = {name: n for name, n in SDE_METHODS.items() if hasattr(sde._base_sde, name)}
    return {name: partial(call, getattr(sde, name), *n) for name, n in given.items()}


@contextmanager
def _shadowed(instance: Any, attributes: dict[str, Any]) -> Iterator[None]:
    own = vars(instance)
    before = {name: own[name] for name in attributes if name in own}
    own.update(attributes)
    try:
        yield
    finally:
        for name in attributes:
            del own[name]
        own.update(before)


SEAMS: tuple[tuple[type, str, Callable[[Any], Any]], ...] = (
    (AdaptiveStepsizeODESolver, "integrate", partial(_around_solve, _hear_ode)),
    (AdaptiveStepsizeEventODESolver, "integrate_until_event", partial(_around_solve, _hear_ode)),
    (FixedGridODESolver, "integrate", partial(_around_solve, _hear_ode)),
    (FixedGridODESolver, "integrate_until_event", partial(_around_solve, _hear_ode)),
    (ScipyWrapperODESolver, "integrate", partial(_around_solve, _hear_scipy)),
    (BaseSDESolver, "integrate", partial(_around_solve, _hear_sde)),
    (OdeintAdjointMethod, "apply", _around_adjoint),
    (_SdeintAdjointMethod, "apply", _around_adjoint),
)
"""Every solve passes one of these, whoever started it and with whatever field."""
_LOCK, _BEFORE, _OPEN = threading.Lock(), list[tuple[type, str, Any]](), list[Any]()


@contextmanager
def hears(ear: Ear | None) -> Iterator[None]:
    """Let an ear hear the solves of this thread for a while: the innermost one; after None nobody. Others go on."""
    with _LOCK:
        if not _OPEN:
            for cls, name, around in SEAMS:
                _BEFORE.append((cls, name, vars(cls).get(name)))
                setattr(cls, name, around(getattr(cls, name)))
        _OPEN.append(ear)
    token = _EAR.set(False if ear is None or _EAR.get() is False else ear)
    try:
        yield
    finally:
        _EAR.reset(token)
        with _LOCK:
            _OPEN.pop()
            while _BEFORE and not _OPEN:
                cls, name, before = _BEFORE.pop()
                setattr(cls, name, before) if before is not None else delattr(cls, name)
