"""What a solve steps with, for ODEs and SDEs: attempt a step, scale its error, guess a first size, look inside."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from regnde.solvers.control import on_clock
from regnde.solvers.error_ratio import error_ratio
from regnde.solvers.first_step import initial_step, initial_step_sde
from regnde.solvers.graphs import Untraceable, counting_fields, graph_of
from regnde.solvers.path import BrownianPath, Path, finest, increment
from regnde.solvers.programs import RatioOfStep, RatioOfStochasticStep, clock
from regnde.solvers.sri_steps import SRIStep, sri_step
from regnde.solvers.sri_tableaus import SRITableau
from regnde.solvers.steps import Field, Start, Step, rk_step
from regnde.solvers.tableaus import Tableau


class Method(Protocol):
    """One method with its tolerance, on one equation: all that the loop of a solve and a local penalty need to know."""

    @property
    def f(self) -> Field:
        """The right-hand side; of an SDE the drift."""

    @property
    def tableau(self) -> Tableau | SRITableau:
        """The coefficients."""

    @property
    def order(self) -> float:
        """Power of dt with which the error ratio falls."""

    @property
    def compiled(self) -> bool:
        """Whether `step_ratio` goes through torch.compile."""

    def evaluate(self, t: float, y: Tensor) -> Start:
        """Evaluate the equation at (t, y), for the first attempt."""

    def take(self, t: float, y: Tensor, dt: float, start: Start | None = None) -> Step | SRIStep:
        """Take one step; `start` holds what is known at (t, y) already."""

    def ratio(self, step: Step | SRIStep) -> Tensor:
        """Return the scaled error of a step, 0-d; at most 1 is accepted."""

    def first_step(self, t: float, y: Tensor, start: Start | None, direction: float, limit: float = math.inf) -> float:
        """Guess the size (positive) of a first step from (t, y), evaluating nothing further than `limit` from t."""

    def shortest(self, t: float) -> float:
        """Return the shortest step from t that is one: neither time nor path resolves a shorter one."""

    def fit(self, t: float, dt: float, *, again: bool = False) -> float:
        """Return the step to try when the controller proposes dt (both signed); `again`: after a rejection."""

    def at(self, step: Step | SRIStep, t: Sequence[float]) -> Tensor:
        """Return the states at times inside a step, (times, batch, ...)."""

    def step_ratio(self, t: float, y: Tensor, dt: float, start: Start | None = None) -> Tensor:
        """Return the scaled error of a step that is taken for nothing else, 0-d."""

    def recall(
        self, t: float, y: Tensor, dt: float, start: Start | None, times: Tensor, states: Sequence[Tensor]
    ) -> Start | None:
        """Return what a step from (t, y) starts with, given the record of a solve: times (steps,) and states there.

        A multistep method evaluates f anew at the last states before t. Others need no more than `start`.
        """

    def later(self, step: Step | SRIStep, t: Sequence[float]) -> Any:
        """Return what `join` makes the states at times inside a step of."""

    def join(self, states: Sequence[Any]) -> Tensor:
        """Return all states of a solve, (times, batch, ...)."""


class _Plain:
    """What methods answer unless they are compiled, or remember more than one step."""

    def later(self: Method, step: Step | SRIStep, t: Sequence[float]) -> Any:
        """Return the states at once."""
        return self.at(step, t)

    def join(self, states: Sequence[Any]) -> Tensor:
        """Concatenate the states."""
        return torch.cat(list(states))

    def recall(
        self, t: float, y: Tensor, dt: float, start: Start | None, times: Tensor, states: Sequence[Tensor]
    ) -> Start | None:
        """Return `start`: one step needs nothing of those before it."""
        return start


@dataclass(frozen=True)
class RungeKutta(_Plain):
    """An embedded Runge-Kutta pair on dy/dt = f(t, y), states (batch, ...), with its tolerance.

    Raises what f raises. Source: Hairer, Norsett, Wanner, Solving ODEs I, section II.4.
    """

    f: Field
    tableau: Tableau
    rtol: float
    atol: float
    compiled: bool = False
    """Whether `step_ratio` goes through torch.compile."""

    @property
    def order(self) -> float:
        """Power of dt with which the error falls: one more than the order of the solution it is compared with."""
        return self.tableau.embedded_order + 1

    def evaluate(self, t: float, y: Tensor) -> Start:
        """Return (f(t, y),)."""
        return (self.f(y.new_full((), t), y),)

    def take(self, t: float, y: Tensor, dt: float, start: Start | None = None) -> Step:
        """Take one step."""
        return rk_step(self.f, t, y, dt, self.tableau, k1=None if start is None else start[0])

    def ratio(self, step: Step | SRIStep) -> Tensor:
        """Return the scaled error of a step."""
        return error_ratio(step.error, step.y, step.y1, rtol=self.rtol, atol=self.atol)

    def step_ratio(self, t: float, y: Tensor, dt: float, start: Start | None = None) -> Tensor:
        """Take a step, and return its scaled error alone."""
        if self.compiled and start is None:
            with suppress(Untraceable), counting_fields():
                return graph_of(RatioOfStep(self.tableau), self.f)(
                    clock(y, t, dt, self.rtol, self.atol), y.contiguous()
                )
        return self.ratio(self.take(t, y, dt, start))

    def first_step(self, t: float, y: Tensor, start: Start | None, direction: float, limit: float = math.inf) -> float:
        """Guess the size of a first step, with one evaluation of f."""
        with torch.no_grad():
            (k1,) = self.evaluate(t, y) if start is None else start
        order, bounds = self.tableau.order, {"rtol": self.rtol, "atol": self.atol, "limit": limit}
        return initial_step(self.f, t, y, k1, direction=direction, order=order, **bounds)

    def shortest(self, t: float) -> float:
        """Return the spacing of floats at t."""
        return math.ulp(t)

    def fit(self, t: float, dt: float, *, again: bool = False) -> float:
        """Return dt, by the clock."""
        return on_clock(t, dt)

    def at(self, step: Step | SRIStep, t: Sequence[float]) -> Tensor:
        """Return the dense output."""
        assert isinstance(step, Step)
        return step.at(t)


@dataclass(frozen=True)
class StochasticRungeKutta(_Plain):
    """A method of Roessler's SRI form on the Ito SDE dy = f(t, y) dt + g(t, y) dW with diagonal noise.

    Every step, rejected ones too, sees the increments of one and the same Brownian path: to draw the noise anew after a
    rejection would prefer the paths that are easy to follow, and bias the law of the solution. States, f and g are
    (batch, ...). Raises what f, g and the path raise.

    Source: Roessler 2010, eq. 6.1; Rackauckas, Nie 2020.
    """

    f: Field
    g: Field
    bm: Path
    """The path; it answers any interval consistently with all it has answered before."""
    t1: float
    """End of the path."""
    tableau: SRITableau
    rtol: float
    atol: float
    estimate: str = "embedded"
    compiled: bool = False
    """Whether `step_ratio` goes through torch.compile."""

    @property
    def order(self) -> float:
        """Local order 3/2 of the error estimate."""
        return 1.5

    def evaluate(self, t: float, y: Tensor) -> Start:
        """Return (f(t, y), g(t, y)); g comes first, since its shape is the likelier mistake."""
        time = y.new_full((), t)
        g = self.g(time, y)
        return self.f(time, y), g

    def take(self, t: float, y: Tensor, dt: float, start: Start | None = None) -> SRIStep:
        """Take one step along the path."""
        w, u = self.increments(t, dt)
        return sri_step(self.f, self.g, t, y, dt, w, u, self.tableau, estimate=self.estimate, start=start)

    def increments(self, t: float, dt: float) -> tuple[Tensor, Tensor]:
        """Return increment and integral of the path over a step, each (batch, ...)."""
        w, u = increment(self.bm, t, min(t + dt, self.t1), return_U=True)
        return w, u

    def ratio(self, step: Step | SRIStep) -> Tensor:
        """Return the scaled error of a step."""
        return error_ratio(step.error, step.y, step.y1, rtol=self.rtol, atol=self.atol)

    def step_ratio(self, t: float, y: Tensor, dt: float, start: Start | None = None) -> Tensor:
        """Take a step, and return its scaled error alone."""
        if self.compiled and start is None:
            program, numbers = RatioOfStochasticStep(self.tableau, self.estimate), clock(y, t, dt, self.rtol, self.atol)
            with suppress(Untraceable), counting_fields():
                return graph_of(program, self.f, self.g)(numbers, y.contiguous(), *self.increments(t, dt))
        return self.ratio(self.take(t, y, dt, start))

    def first_step(self, t: float, y: Tensor, start: Start | None, direction: float, limit: float = math.inf) -> float:
        """Guess the size of a first step, with one evaluation of f and one of g."""
        with torch.no_grad():
            start = self.evaluate(t, y) if start is None else start
        order, bounds = self.tableau.order, {"rtol": self.rtol, "atol": self.atol, "limit": limit}
        return initial_step_sde(self.f, self.g, t, y, start, order=order, **bounds)

    def shortest(self, t: float) -> float:
        """Return the spacing of floats at t, or what the path resolves."""
        return max(math.ulp(t), finest(self.bm))

    def fit(self, t: float, dt: float, *, again: bool = False) -> float:
        """Return dt, by the clock, or about dt along our own path, so that the step ends where the path is cheap."""
        own = isinstance(self.bm, BrownianPath)
        return self.bm.coarse_step(t, dt, self.t1, again=again) if own else on_clock(t, dt)

    def at(self, step: Step | SRIStep, t: Sequence[float]) -> Tensor:
        """Return the states between, with the deviation of the path from its chord."""
        assert isinstance(step, SRIStep)
        return step.at(t, [increment(self.bm, step.t, time) for time in t])
