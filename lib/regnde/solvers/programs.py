"""What is compiled: one or more steps of a method with what the solve reads of them; the error ratio of a step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from regnde.solvers.control import Controller
from regnde.solvers.error_ratio import error_ratio
from regnde.solvers.sri_steps import SRIStep, sri_step
from regnde.solvers.sri_tableaus import SRITableau
from regnde.solvers.steps import Field, Step, rk_step
from regnde.solvers.tableaus import Tableau


def clock(y: Tensor, *numbers: float) -> Tensor:
    """Return times, sizes and tolerances as one tensor on the state's device: float64 where the device has it."""
    metal = y.device.type == "mps"
    told = torch.tensor(numbers, dtype=torch.float32 if metal else torch.float64)
    return told.to(y.device, non_blocking=not metal)


@dataclass(frozen=True)
class StepsAhead:
    """Take steps of an embedded Runge-Kutta pair, as if each were accepted: sizes are controlled within the graph.

    Called with (f, clock, y, k1), clock = (t, dt, previous ratio, end, slack, rtol, atol); from the second on, steps
    are cut at the end of the interval, where it is nearer than slack. Returns the times, sizes and error ratios of the
    steps, (steps, 3), and a list for each step: y1, derivative there, and what was asked for.
    """

    tableau: Tableau
    control: Controller
    steps: int
    dense: bool
    """Whether the coefficients of the dense output are wanted, (powers, batch, ...)."""
    ratio: bool
    """Whether the error ratio shall carry a gradient."""
    stages: bool
    """Whether `Step.stages` are wanted."""

    def __call__(self, f: Field, clock: Tensor, y: Tensor, k1: Tensor) -> tuple[Tensor, list[list[Tensor]]]:
        """Take the steps."""
        t, dt, previous, end, slack, rtol, atol = clock.unbind()
        told, found = [], []
        for i in range(self.steps):
            if i:
                left = end - t
                dt = torch.where((t + dt - end) * left.sign() >= -slack, left, dt)
            step = rk_step(f, t, y, dt, self.tableau, k1=k1)  # type: ignore[arg-type]
            error, y0, y1 = step.error, y, step.y1
            if not self.ratio:
                error, y0, y1 = error.detach(), y0.detach(), y1.detach()
            ratio = error_ratio(error, y0, y1, rtol=rtol, atol=atol)
            number = ratio.detach().to(clock.dtype)
            told.append(torch.stack([t, dt, number]))
            found.append([step.y1, step.k[-1], ratio, *self._more(step)])
            t, y, k1 = t + dt, step.y1, step.k[-1]
            dt = dt * self.control.growth(number, previous, order=self.tableau.order)
            previous = number.clamp_min(1e-4)
        return torch.stack(told), found

    def _more(self, step: Step) -> list[Tensor]:
        return [*([step.polynomial] if self.dense else []), *(step.stages if self.stages else ())]


@dataclass(frozen=True)
class RatioOfStep:
    """Return the error ratio of one step, 0-d; called with (f, clock, y), clock = (t, dt, rtol, atol)."""

    tableau: Tableau

    def __call__(self, f: Field, clock: Tensor, y: Tensor) -> Tensor:
        """Take the step."""
        t, dt, rtol, atol = clock.unbind()
        step = rk_step(f, t, y, dt, self.tableau)  # type: ignore[arg-type]
        return error_ratio(step.error, y, step.y1, rtol=rtol, atol=atol)


@dataclass(frozen=True)
class StochasticStep:
    """Take one stochastic step; called with (f, g, clock, y, w, u), clock = (t, dt, rtol, atol).

    Returns y1, the error ratio, and what was asked for: the first stage of the diffusion, `SRIStep.stages`.
    """

    tableau: SRITableau
    estimate: str
    dense: bool
    ratio: bool
    stages: bool

    def __call__(self, f: Field, g: Field, clock: Tensor, y: Tensor, w: Tensor, u: Tensor) -> list[Tensor]:
        """Take the step."""
        step, ratio = self.taken(f, g, clock, y, w, u)
        more = [*([step.g[0]] if self.dense else []), *(step.stages if self.stages else ())]
        return [step.y1, ratio, *more]

    def taken(self, f: Field, g: Field, clock: Tensor, y: Tensor, w: Tensor, u: Tensor) -> tuple[SRIStep, Tensor]:
        """Return the step and its ratio."""
        t, dt, rtol, atol = clock.unbind()
        step = sri_step(f, g, t, y, dt, w, u, self.tableau, estimate=self.estimate)  # type: ignore[arg-type]
        error, y1 = step.error, step.y1
        if not self.ratio:
            error, y, y1 = error.detach(), y.detach(), y1.detach()
        return step, error_ratio(error, y, y1, rtol=rtol, atol=atol)


@dataclass(frozen=True)
class RatioOfStochasticStep:
    """Return the error ratio of one stochastic step, 0-d; called as `StochasticStep` is."""

    tableau: SRITableau
    estimate: str

    def __call__(self, f: Field, g: Field, clock: Tensor, y: Tensor, w: Tensor, u: Tensor) -> Tensor:
        """Take the step."""
        one = StochasticStep(self.tableau, self.estimate, dense=False, ratio=True, stages=False)
        return one.taken(f, g, clock, y, w, u)[1]
