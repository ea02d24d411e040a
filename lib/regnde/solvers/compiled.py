"""Methods whose steps are taken through torch.compile: of small states some ahead, in one call."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from regnde.solvers.checks import Counted
from regnde.solvers.control import Controller
from regnde.solvers.graphs import Untraceable, graph_of
from regnde.solvers.methods import Method, RungeKutta, StochasticRungeKutta
from regnde.solvers.programs import StepsAhead, StochasticStep, clock
from regnde.solvers.sri_steps import SRIStep
from regnde.solvers.steps import Start, Step, beside

AHEAD = 4
"""So many steps are taken in one call where the state is small: the call costs more than the steps."""
SMALL_STATE = 1024
"""Entries of a small state, batch included."""


@dataclass(frozen=True)
class Wanted:
    """What a solve wants of its steps."""

    control: Controller
    times: tuple[float, ...]
    """Output times, in the direction of the solve; where a step ends at one, its end is the state there."""
    sampled: tuple[float, ...]
    """Further times: of those, too, at which a step begins or ends, the dense output is asked."""
    records: frozenset[str]
    ahead: bool
    """Whether steps may be taken ahead: their sizes are not prescribed."""

    def inside(self, t: float, dt: float) -> bool:
        """Return whether a step is asked for its dense output."""
        sign, slack = math.copysign(1.0, dt), 4 * math.ulp(abs(t) + abs(dt))
        following = bisect_right(self.times, sign * t, key=lambda time: sign * time)
        between = following < len(self.times) and sign * self.times[following] < sign * (t + dt)
        return between or any(-slack <= sign * (time - t) <= abs(dt) + slack for time in self.sampled)


@dataclass(frozen=True)
class CompiledStep(Step):
    """A step of a graph: k holds the derivatives at its start and its end; the rest was computed with it."""

    known_ratio: Tensor = field(kw_only=True)
    number: float = field(kw_only=True)
    """The ratio, where steps are taken ahead."""
    ahead: Tensor | None = field(kw_only=True)
    """Coefficients of the dense output of this and the other steps of the call, (steps, powers, batch, ...)."""
    index: int = field(kw_only=True)
    known_stages: tuple[Tensor, ...] = field(kw_only=True)

    @property
    def stages(self) -> tuple[Tensor, Tensor]:
        """Distance between the two stages of the stiffness pair, and between their derivatives."""
        states, slopes = self.known_stages
        return states, slopes

    @property
    def polynomial(self) -> Tensor:
        """Coefficients of the dense output."""
        assert self.ahead is not None
        return self.ahead[self.index]

    def at(self, t: Sequence[float]) -> Tensor:
        """Return the dense output at times inside the step, (times, batch, ...)."""
        coefficients = self.polynomial
        theta = (np.asarray(t) - self.t) / self.dt
        powers = beside(self.y, theta[:, None] ** np.arange(1, len(coefficients) + 1))
        return self.y + torch.tensordot(powers, coefficients, dims=1)


@dataclass(frozen=True)
class Later:
    """States at times inside a step that are computed when the solve is over, for all steps together."""

    step: CompiledStep
    t: Sequence[float]


@dataclass(frozen=True)
class CompiledRungeKutta(RungeKutta):
    """An embedded Runge-Kutta pair whose steps are compiled."""

    f: Counted
    wanted: Wanted = field(kw_only=True)
    queue: list[CompiledStep] = field(default_factory=list, kw_only=True)
    """Steps that were taken ahead, the next one last."""
    graphs: dict[bool, Any] = field(default_factory=dict, kw_only=True)
    """By whether they return the dense output."""
    last: list[tuple[Tensor, Tensor, float, float]] = field(default_factory=list, kw_only=True)
    """Of the last step that was asked for: y, y1, the ratio, and the ratio of the accepted step before it."""

    def take(self, t: float, y: Tensor, dt: float, start: Start | None = None) -> Step:
        """Take one step, or the one taken ahead, where the loop asks for it; without a graph, an eager one."""
        (k1,) = start or self.evaluate(t, y)
        previous, following = self._previous(y), self.queue.pop() if self.queue else None
        if following is None or following.y is not y or abs(following.dt - dt) > max(1e-9 * abs(dt), 4 * math.ulp(t)):
            try:
                self.queue[:] = self._steps(t, y, dt, k1, previous)
            except Untraceable:
                return RungeKutta.take(self, t, y, dt, (k1,))
            following = self.queue.pop()
        self.last[:] = [(y, following.y1, following.number, previous)]
        self.f.nfe += len(self.tableau.c) - 1
        return following

    def _previous(self, y: Tensor) -> float:
        """Return the error ratio of the accepted step before y, as the loop hands it to the controller."""
        for y0, y1, ratio, previous in self.last:
            return max(ratio, 1e-4) if y is y1 else previous if y is y0 else 1.0
        return 1.0

    def _steps(self, t: float, y: Tensor, dt: float, k1: Tensor, previous: float) -> list[CompiledStep]:
        """Return a step and those that follow if each is accepted, in reverse."""
        (begin, *_, end), count = self.wanted.times, AHEAD if self.wanted.ahead and y.numel() <= SMALL_STATE else 1
        dense = self.wanted.inside(begin, end - begin) if count > 1 else self.wanted.inside(t, dt)
        numbers = clock(y, t, dt, previous, end, 1e-12 * abs(end - begin), self.rtol, self.atol)
        told, found = self._graph(count, dense)(numbers, *_inputs(y, k1))
        sizes = told.tolist() if count > 1 else [[t, dt, math.nan]]
        ahead = torch.stack([one[3] for one in found]) if dense else None
        steps = []
        for i, ((ti, dti, number), (y1, k2, ratio, *more)) in enumerate(zip(sizes, found, strict=True)):
            known: dict[str, Any] = {"known_ratio": ratio, "number": number, "known_stages": tuple(more[dense:])}
            steps.append(CompiledStep(self.tableau, ti, dti, y, y1, (k1, k2), ahead=ahead, index=i, **known))
            y, k1 = y1, k2
        steps[0] = replace(steps[0], t=t, dt=dt)
        return steps[::-1]

    def _graph(self, count: int, dense: bool) -> Any:
        if dense not in self.graphs:
            ratio, stages = ("error_ratio" in self.wanted.records, "stiffness" in self.wanted.records)
            program = StepsAhead(self.tableau, self.wanted.control, count, dense=dense, ratio=ratio, stages=stages)
            self.graphs[dense] = graph_of(program, self.f.f)
        return self.graphs[dense]

    def ratio(self, step: Step | SRIStep) -> Tensor:
        """Return the error ratio that the graph computed."""
        return step.known_ratio if isinstance(step, CompiledStep) else RungeKutta.ratio(self, step)

    def later(self, step: Step | SRIStep, t: Sequence[float]) -> Any:
        """Return the states at times inside a step, of small states when the solve is over."""
        small = isinstance(step, CompiledStep) and step.y.numel() <= SMALL_STATE
        return Later(step, t) if small and isinstance(step, CompiledStep) else self.at(step, t)

    def join(self, states: Sequence[Any]) -> Tensor:
        """Return all states, (times, batch, ...)."""
        parts: list[Tensor] = []
        waiting: list[Later] = []
        for state in (*states, None):
            if isinstance(state, Later):
                waiting.append(state)
                continue
            if waiting:
                parts.append(_dense(waiting))
                waiting = []
            if state is not None:
                parts.append(state)
        return torch.cat(parts)


def _dense(waiting: Sequence[Later]) -> Tensor:
    """Return the dense output of many steps in one product, (times, batch, ...)."""
    calls: list[Tensor] = []
    rows: list[int] = []
    before = 0
    for later in waiting:
        ahead = later.step.ahead
        assert ahead is not None
        if not calls or calls[-1] is not ahead:
            calls.append(ahead)
            before += len(ahead)
        rows.append(before - len(ahead) + later.step.index)
    y, every = torch.stack([later.step.y for later in waiting]), torch.cat(calls)
    theta = np.concatenate([(np.asarray(later.t) - later.step.t) / later.step.dt for later in waiting])
    which = torch.tensor(np.repeat(np.arange(len(waiting)), [len(later.t) for later in waiting]))
    powers = beside(y, theta[:, None] ** np.arange(1, every.shape[1] + 1))
    coefficients = every[torch.tensor(rows)[which].to(y.device)]  # (times, powers, batch, ...)
    which = which.to(y.device)
    return y[which] + (powers.reshape(*powers.shape, *[1] * (y.ndim - 1)) * coefficients).sum(1)


@dataclass(frozen=True)
class CompiledStochasticRungeKutta(StochasticRungeKutta):
    """A stochastic Runge-Kutta method whose steps are compiled. No stage is used twice."""

    f: Counted
    g: Counted
    wanted: Wanted = field(kw_only=True)
    graphs: dict[bool, Any] = field(default_factory=dict, kw_only=True)

    def take(self, t: float, y: Tensor, dt: float, start: Start | None = None) -> SRIStep:
        """Take one step along the path; without a graph, an eager one."""
        w, u = self.increments(t, dt)
        dense = self.wanted.inside(t, dt)
        try:
            numbers = clock(y, t, dt, self.rtol, self.atol)
            y1, ratio, *more = self._graph(dense)(numbers, *_inputs(y, *(start or ()))[:1], w, u)
        except Untraceable:
            return StochasticRungeKutta.take(self, t, y, dt, start)
        self.f.nfe, self.g.nfe = self.f.nfe + len(self.tableau.c0), self.g.nfe + len(self.tableau.c1)
        return CompiledSRIStep(
            self.tableau,
            self.estimate,
            t,
            dt,
            y,
            y1,
            (),
            tuple(more[:dense]),
            (),
            w,
            w,
            known_ratio=ratio,
            known_stages=tuple(more[dense:]),
        )

    def _graph(self, dense: bool) -> Any:
        if dense not in self.graphs:
            ratio, stages = ("error_ratio" in self.wanted.records, "stiffness" in self.wanted.records)
            program = StochasticStep(self.tableau, self.estimate, dense=dense, ratio=ratio, stages=stages)
            self.graphs[dense] = graph_of(program, self.f.f, self.g.f)
        return self.graphs[dense]

    def ratio(self, step: Step | SRIStep) -> Tensor:
        """Return the error ratio that the graph computed."""
        return step.known_ratio if isinstance(step, CompiledSRIStep) else StochasticRungeKutta.ratio(self, step)


@dataclass(frozen=True)
class CompiledSRIStep(SRIStep):
    """A step of a graph: of the stages it holds what was asked for."""

    known_ratio: Tensor = field(kw_only=True)
    known_stages: tuple[Tensor, ...] = field(kw_only=True)

    @property
    def start(self) -> None:  # type: ignore[override]
        """Nothing: a smaller step evaluates its first stages anew."""
        return None

    @property
    def stages(self) -> tuple[Tensor, Tensor]:
        """Distance between the two stages of the stiffness pair, and between their drifts."""
        states, slopes = self.known_stages
        return states, slopes


def compiled(method: Method, wanted: Wanted) -> Method:
    """Return the method with compiled steps."""
    kinds: dict[type, Any] = {RungeKutta: CompiledRungeKutta, StochasticRungeKutta: CompiledStochasticRungeKutta}
    own = {name: getattr(method, name) for name in method.__dataclass_fields__}  # type: ignore[attr-defined]
    taken: Method = kinds[type(method)](**own, wanted=wanted)
    return taken


def _inputs(y: Tensor, *start: Tensor) -> list[Tensor]:
    """Return a state and what is known there as graphs take them: contiguous, and the first state of a training with
    a gradient like the others, so that one graph is enough.
    """
    if any(k.requires_grad for k in start) and not y.requires_grad:
        y = y.detach().requires_grad_()
    return [x.contiguous() for x in (y, *start)]
