"""What stays of the solves that were heard: one accepted step, drawn as they come, and what they cost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from regnde.dropin.kept_step import KeptODE, KeptSDE
from regnde.penalties.regularizer import uniform

Kept = KeptODE | KeptSDE

NOTHING = (
    "no solve was heard since the last penalty: call local.odeint(...) in place of torchdiffeq.odeint (odeint_adjoint, "
    "odeint_event, sdeint, sdeint_adjoint alike), or `with local.hears():` around code that solves by itself"
)
ROUNDING = 1e-6
"""A step of which a smaller share lies inside the interval lies outside."""


@dataclass(frozen=True)
class Cost:
    """What the solves cost that were heard since the last penalty; right after it, those that it was drawn from.

    Whole numbers. Raises nothing. Source: counted by this project where torchdiffeq and torchsde call f and g.
    """

    solves: int = 0
    accepted: int = 0
    """Steps; those of fixed size count as accepted."""
    rejected: int = 0
    nfe: int = 0
    """Evaluations of f while solving, without a backward pass and without the penalty's own."""
    nfe_diffusion: int = 0
    """Evaluations of g, 0 for ODEs."""


class Draw:
    """One of the items that were put in, each with a probability proportional to its weight; quiet ones if no other."""

    def __init__(self, rng: torch.Generator) -> None:
        self.rng, self.total, self.quiet = rng, 0.0, True
        self.item: Kept | None = None

    def put(self, make: Callable[[], Kept | None], weight: float, *, quiet: bool) -> None:
        """Put an item in; it is made only when it is drawn."""
        if self.quiet and not quiet:
            self.total, self.quiet = 0.0, False
        if weight > 0 and quiet == self.quiet:
            self.total += weight
            if float(uniform(1, self.rng)) * self.total < weight:
                self.item = make()


class Hearing:
    """One solve while it runs. Its last step waits: how much of it lies inside the interval is known only at the end.

    Args:
        ear: who hears.
        keep: makes a `Kept` of (t0, t1, y); time ascends, as it does inside the solvers.
        order: power of the step's size with which its error ratio falls.
    """

    def __init__(self, ear: Ear, keep: Callable[[float, float, Tensor], Kept], order: float) -> None:
        self.ear, self.keep, self.order, self.draw = ear, keep, order, Draw(ear.rng)
        self.accepted = self.rejected = self.nfe = self.nfe_diffusion = 0
        self.waiting: tuple[float, float, Tensor, float] | None = None

    def accept(self, t0: float, t1: float, y: Tensor, ratio: float = 1.0) -> None:
        """Add an accepted step from (t0, y) to t1; `ratio` as far as the solver tells it."""
        self.settle(t1)
        self.waiting = t0, t1, y.detach(), ratio
        self.accepted += 1

    def settle(self, end: float) -> None:
        """Put the step that waits into the draw, cut off at `end`."""
        if self.waiting is None:
            return
        (t0, t1, y, ratio), self.waiting = self.waiting, None
        cut = min(t1, end)
        share = (cut - t0) / (t1 - t0)
        if share > ROUNDING:
            weight = 1.0 if self.ear.sampling == "biased" else cut - t0
            self.draw.put(lambda: self.keep(t0, cut, y), weight, quiet=ratio * share**self.order < self.ear.floor)


class Ear:
    """Settings of the draw, and what was heard since the last penalty. Several threads may solve at once."""

    def __init__(self, rng: torch.Generator, sampling: str, floor: float, tolerance: float) -> None:
        self.rng, self.sampling, self.floor, self.tolerance = rng, sampling, floor, tolerance
        self.lock, self.draw, self.cost = threading.Lock(), Draw(rng), Cost()
        self.taken, self.unheard = False, set[str]()  # why solves were not heard

    def end(self, hearing: Hearing, end: float) -> None:
        """Add a finished solve. One that failed never comes here, and leaves nothing."""
        hearing.settle(end)
        with self.lock:
            if self.taken:
                self.cost, self.taken = Cost(), False
            new = {f.name: getattr(self.cost, f.name) + getattr(hearing, f.name, 1) for f in fields(Cost)}
            self.cost = Cost(**new)
            if hearing.draw.item is None:
                self.unheard.add("a solve without any step inside its interval")
            self.draw.put(lambda: hearing.draw.item, hearing.draw.total, quiet=hearing.draw.quiet)

    def take(self) -> Kept:
        """Return the step that chance kept, and forget it.

        Raises:
            ValueError: nothing was heard; names what ran unheard.
        """
        kept, unheard = self.draw.item, self.unheard
        if kept is None:
            raise ValueError(". Not heard: ".join([NOTHING, *sorted(unheard)]))
        self.draw, self.taken, self.unheard = Draw(self.rng), True, set()
        return kept

    def __reduce__(self) -> tuple[Any, ...]:
        return Ear, (self.rng, self.sampling, self.floor, self.tolerance)  # a copy has heard nothing
