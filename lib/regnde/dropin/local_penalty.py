"""LocalPenalty: an ear for your own solver calls, and the penalty of one step that it heard."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch
import torchdiffeq
import torchsde
from torch import Tensor, nn

from regnde.dropin import hear_solves
from regnde.dropin.draw_step import Cost, Ear
from regnde.penalties.weights import Weight, towards
from regnde.solvers.checks import choose

SMALL = 2**20
"""Bytes of the largest buffer that is put back after a penalty; a larger one is data."""
SAMPLING = {"biased": "each accepted step alike", "unbiased": "in proportion to its size"}


class LocalPenalty:
    """Hear the solves of your own program, and penalize the error of one step of them, drawn by chance.

    ::

        local = LocalPenalty(rng=torch.Generator().manual_seed(0))   # once
        y = local.odeint_adjoint(f, y0, t, rtol=1e-5, atol=1e-5)     # your own call, prefixed
        loss = task_loss(y) + 0.3 * local.penalty()

    Your call goes to torchdiffeq or torchsde untouched, with your own field: solution, gradients and random numbers
    stay the same to the bit. Tolerances, norm, method, options, times and the end of an event are those of the call.
    Heard are the solves of this thread; not those under `torch.no_grad()` or in a backward pass, nor those that a field
    makes inside of a solve, nor `odeint_dense`. A copy, and one that was saved, has heard nothing.

    The weight: begin with three hundredths of the loss in the first steps of a plain run, and raise it while the
    held-out loss stays: in nine programs that start cost little with every one, a tenth was too much for two (notebook
    11). A penalty is an error ratio, mostly 0.1 to 0.7 for adaptive steps (the solver accepts up to 1); what a weight
    buys depends on task and tolerance. Values near zero say that there is nothing to save: the solve is at its floor of
    three or four steps.

    Args:
        rng: for the draw, once for each accepted step, and for the noise of an SDE's step.
        weight, weight_end, target_nfe: for `loss`, as in the menu of penalties: constant; exponential from the first to
            the second over training; adapted from `weight` on until the solves between two penalties need so many
            evaluations of f.
        sampling: 'biased' draws each accepted step with equal probability; 'unbiased' in proportion to its size.
        floor: steps with an error ratio below are left out of the draw while others are there. These are steps whose
            size the error does not decide: the ramp of the first ones, the rest of a last one that is cut off.
        tolerance: relative and absolute, where the solver has none: steps of fixed size.

    Raises:
        ValueError: for arguments that cannot be.

    States are (batch, ...), or what the call takes; a penalty is 0-d. Source: Pal et al. 2023, section 3.2.
    """

    def __init__(
        self,
        *,
        rng: torch.Generator,
        weight: float | None = None,
        weight_end: float | None = None,
        target_nfe: float | None = None,
        sampling: str = "biased",
        floor: float = 0.01,
        tolerance: float = 1e-2,
    ) -> None:
        if not isinstance(rng, torch.Generator):
            raise ValueError(f"rng must be a torch.Generator, found {type(rng).__name__}")
        choose("sampling", SAMPLING, sampling)
        if not 0 <= floor < 1:
            raise ValueError(f"floor must be an error ratio in [0, 1), found {floor}")
        if not (math.isfinite(tolerance) and tolerance > 0):
            raise ValueError(f"tolerance must be a positive number, found {tolerance}")
        if weight is None and (weight_end is not None or target_nfe is not None):
            raise ValueError("weight_end and target_nfe change the weight in the course of training: give weight, too")
        if weight_end is not None and target_nfe is not None:
            raise ValueError("target_nfe adapts the weight, weight_end prescribes it: give one of them")
        if target_nfe is not None:
            towards(target_nfe, 1.0)  # checks it
        self._schedule = None if weight is None else Weight(weight, weight_end)
        self._target_nfe, self.weight = target_nfe, weight
        self._ear = Ear(rng, sampling, floor, tolerance)

    @property
    def cost(self) -> Cost:
        """What the solves cost that were heard since the last penalty; right after it, those that it was drawn from."""
        return self._ear.cost

    def hears(self) -> AbstractContextManager[None]:
        """Hear the solves that code inside starts by itself: `with local.hears(): z = torchcde.cdeint(...)`."""
        return hear_solves.hears(self._ear)

    def odeint(self, func: Callable[..., Any], y0: Any, t: Tensor, **how: Any) -> Any:
        """Call torchdiffeq.odeint, and hear it."""
        return self._solved(torchdiffeq.odeint, func, y0, t, **how)

    def odeint_adjoint(self, func: Callable[..., Any], y0: Any, t: Tensor, **how: Any) -> Any:
        """Call torchdiffeq.odeint_adjoint, and hear its way forward."""
        return self._solved(torchdiffeq.odeint_adjoint, func, y0, t, **how)

    def odeint_event(self, func: Callable[..., Any], y0: Any, t0: Tensor, **how: Any) -> Any:
        """Call torchdiffeq.odeint_event, and hear it up to the event."""
        return self._solved(torchdiffeq.odeint_event, func, y0, t0, **how)

    def sdeint(self, sde: Any, y0: Tensor, ts: Any, *args: Any, **how: Any) -> Any:
        """Call torchsde.sdeint, and hear it."""
        return self._solved(torchsde.sdeint, sde, y0, ts, *args, **how)

    def sdeint_adjoint(self, sde: Any, y0: Tensor, ts: Any, *args: Any, **how: Any) -> Any:
        """Call torchsde.sdeint_adjoint, and hear its way forward."""
        return self._solved(torchsde.sdeint_adjoint, sde, y0, ts, *args, **how)

    def penalty(self) -> Tensor:
        """Take the drawn step once more, with your field, and return its error ratio, 0-d; then forget the step.

        Only the field gets a gradient: time, size and state of the step are constants. Costs one evaluation of f for
        each stage of the solver's method (dopri5: seven; fixed steps: four, by bosh3), for an SDE four of f and of g
        (eight where they come together, by f_and_g). A counter of your own in f sees them, `cost` does not; buffers (of
        BatchNorm, ...) and random numbers are put back. Autocast is off: an f that holds tensors in half precision has
        to cast them.

        Raises:
            ValueError: no solve was heard since the last penalty.
        """
        kept = self._ear.take()
        y = kept.y.requires_grad_()  # reentrant checkpoints inside f need an input with a gradient
        mine = [y.device] if y.is_cuda else []  # dropout in f leaves the program's random numbers as they were
        with (
            hear_solves.hears(None),
            torch.random.fork_rng(mine),
            torch.autocast(y.device.type, enabled=False),
            _still(kept.field),
        ):
            return kept.ratio(y)

    def loss(self, progress: float = 0.0) -> Tensor:
        """Return weight * penalty; `weight` is adapted afterwards, or follows `progress` in [0, 1] through training."""
        if self._schedule is None or self.weight is None:
            raise ValueError("loss needs a weight: LocalPenalty(weight=0.1, ...), or weight * local.penalty() by hand")
        if not 0 <= progress <= 1:
            raise ValueError(f"progress is the share of training that is done, in [0, 1], found {progress}")
        if self._target_nfe is None:
            self.weight = self._schedule(progress)
        loss = self.weight * self.penalty()
        if self._target_nfe is not None:
            self.weight = towards(self._target_nfe, self._schedule.start)(self.weight, self.cost.nfe)
        return loss

    def _solved(self, solve: Callable[..., Any], f: Any, *args: Any, **how: Any) -> Any:
        if isinstance(f, type):
            raise ValueError(f"found the class {f.__name__} where its object belongs: write {f.__name__}(...)")
        if hasattr(f, "noise_type") and solve.__module__.startswith("torchdiffeq"):
            raise ValueError("found an SDE (it has a noise_type) where an ODE's field belongs: call local.sdeint")
        with self.hears():
            return solve(f, *args, **how)


@contextmanager
def _still(field: nn.Module) -> Iterator[None]:
    """Put the buffers of a field back afterwards: statistics of normalizations, vectors of spectral norms, counters."""
    before = [(m._buffers, dict(m._buffers)) for m in _modules(field) if not isinstance(m, torch.jit.ScriptModule)]
    for buffers, own in before:
        buffers.update({name: b.clone() for name, b in own.items() if b is not None and b.nbytes <= SMALL})
    try:
        yield
    finally:
        for buffers, own in before:
            buffers.update(own)


def _modules(field: nn.Module) -> list[nn.Module]:
    """Return the modules that a field is made of: its own, its methods' owners, those that its functions close over."""
    found, seen, rest = list[nn.Module](), set[int](), list[Any]([field])
    while rest:
        f = rest.pop()
        if id(f) in seen or isinstance(f, type):
            continue
        seen.add(id(f))
        near = list(vars(f).values()) if hasattr(f, "__dict__") else []
        if isinstance(f, nn.Module):
            found.append(f)
            near += f.children()
        elif inspect.isfunction(f):
            closed = inspect.getclosurevars(f)
            near += [*closed.nonlocals.values(), *(x for x in closed.globals.values() if isinstance(x, nn.Module))]
        elif inspect.ismethod(f):
            near.append(f.__self__)
        elif isinstance(f, partial):
            near.append(f.func)
        rest += [x for x in near if callable(x) or inspect.ismethod(f)]
    return found
