"""VCAB3: the Adams-Bashforth method of order 3 with variable steps, which remembers derivatives instead of stages."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from regnde.solvers.fused import combine
from regnde.solvers.methods import RungeKutta
from regnde.solvers.steps import Start, Step
from regnde.solvers.tableaus import AdamsWeights

KEPT = 3
"""So many derivatives make a step."""
APART = 1e-3
"""A recorded state nearer to the start of a local step than this fraction of the step is left out: the quotient of the
two derivatives' difference and their distance would be rounding noise."""


@dataclass(frozen=True)
class History:
    """The derivatives at the start of a step and at the starts of those before it, the newest first, `KEPT` at most."""

    t: tuple[float, ...]
    """Their times."""
    k: tuple[Tensor, ...]
    """The derivatives, each (batch, ...), with the graph of the solve."""

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.k)

    def then(self, t: float, k: Tensor) -> History:
        """Return the history of the next step, which starts at t with the derivative k."""
        return History((t, *self.t)[:KEPT], (k, *self.k)[:KEPT])


@dataclass(frozen=True)
class AdamsStep(Step):
    """One step that goes on from a history. Its k are the derivatives or stages that `tableau` weights."""

    history: History = field(kw_only=True)
    end: Callable[[], Tensor] = field(kw_only=True)
    """The derivative at (t + dt, y1): evaluated for the next step alone, so that a rejected step costs nothing."""

    @property
    def start(self) -> History:  # type: ignore[override]
        """The history, which a smaller step from the same state can use again."""
        return self.history

    @cached_property
    def next_start(self) -> History:  # type: ignore[override]
        """The history of the next step."""
        return self.history.then(self.t + self.dt, self.end())


@dataclass(frozen=True)
class AdamsBashforth(RungeKutta):
    """VCAB3 on dy/dt = f(t, y): y1 = y + the integral of the polynomial through the last three derivatives.

    The error estimate is the difference to the method of order 2, through the last two: of order 3 in dt. Dense output
    is the integral up to t, of order 3. Each accepted step evaluates f once, at its end, and a rejected one not at all:
    both estimate and end are known without. The first two steps are those of the embedded pair `tableau`, of order 3
    with an error of order 3, too. f is seen at a step's end only when the step is accepted; a field that changes
    suddenly is noticed one step later than by the stages of a Runge-Kutta method. States are (batch, ...). Raises what
    f raises.

    Source: Hairer, Norsett, Wanner, Solving ODEs I, section III.5, as in the integrator of the same name of
    OrdinaryDiffEq.jl, which the papers use.
    """

    def take(self, t: float, y: Tensor, dt: float, start: Start | History | None = None) -> AdamsStep:
        """Take one step; without a `start` that holds `KEPT` derivatives it is one of the pair."""
        history = start if isinstance(start, History) else History((t,), tuple(start or self.evaluate(t, y)))
        if len(history.k) < KEPT:
            step = super().take(t, y, dt, history.k[:1])
            return AdamsStep(step.tableau, t, dt, y, step.y1, step.k, history=history, end=lambda: step.k[-1])
        _, t1, t2 = history.t
        weights = AdamsWeights((t - t1) / dt, (t - t2) / dt)
        y1 = combine(y, dt, weights.b, history.k)
        return AdamsStep(weights, t, dt, y, y1, history.k, history=history, end=lambda: self.evaluate(t + dt, y1)[0])

    def recall(
        self, t: float, y: Tensor, dt: float, start: Start | None, times: Tensor, states: Sequence[Tensor]
    ) -> Start | None:
        """Evaluate f at (t, y), unless `start` holds it, and at the two recorded states before t; or nothing.

        Nothing where t lies in one of the first two steps: the solver took them without a past, and a size that is
        right for a step of the pair is too long for one that goes on from the short first step.

        All have their gradient: to hold the past derivatives would be the mistake that it is to hold the first stage.
        """
        since = (t - times) * (1 if dt > 0 else -1)
        before = int((since >= APART * abs(dt)).sum())
        if before < KEPT - 1 or int((since >= 0).sum()) < KEPT or dt == 0:
            return start
        history = History((), ())
        for i in range(before - KEPT + 1, before):
            history = history.then(float(times[i]), *self.evaluate(float(times[i]), states[i]))
        return history.then(t, *(start or self.evaluate(t, y)))  # type: ignore[return-value]


def check_multistep(*, compile: bool, gradient: str, moves: Tensor | None, records: Collection[str]) -> None:
    """Raise ValueError for what a solve with 'vcab3' does not offer."""
    refused = {
        "compile=True: leave it out": compile,
        "gradient='checkpoint', as no step can be taken again without those before it: use 'backprop'": (
            gradient == "checkpoint"
        ),
        "times with a gradient, as they would move the past derivatives too: pass t.detach()": moves is not None,
        "records={'stiffness'}, as it has no two stages at one time: use 'tsit5' or 'dopri5'": "stiffness" in records,
    }
    for what, asked in refused.items():
        if asked:
            raise ValueError(f"method 'vcab3' does not take {what}")
