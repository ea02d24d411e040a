"""The open box: solve_ode -> Solution with its Trace (small, readable, fast loops)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from regnde.checks import Counted, SolverError, check_problem, check_sampled, choose
from regnde.control import CONTROLLERS, Controller, initial_step
from regnde.steps import Field, Step, error_ratio, rk_step, stiffness_ratio
from regnde.tableaus import TABLEAUS, Tableau

RECORDS = ("error_ratio", "stiffness")


@dataclass(frozen=True)
class Trace:
    """What the solver did: one entry for each accepted step, and a count of everything it paid for."""

    t: Tensor
    """Times at which the accepted steps start, (steps,), float64."""
    dt: Tensor
    """Signed sizes of the accepted steps, (steps,), float64; they carry no gradient."""
    y: tuple[Tensor, ...]
    """States at which the accepted steps start, each (batch, ...), detached."""
    error_ratio: Tensor
    """Scaled errors of the accepted steps, (steps,)."""
    stiffness: Tensor | None
    """Stiffness estimates of the accepted steps, (steps,); None where the method gives none."""
    rejected_t: Tensor
    rejected_dt: Tensor
    """Times and sizes of the rejected steps, (rejected,), float64."""
    nfe: int
    """Evaluations of f in this solve."""
    with_gradient: frozenset[str] = frozenset()
    """Which of 'error_ratio' and 'stiffness' carry a gradient."""

    @property
    def accepted(self) -> int:
        """Number of accepted steps."""
        return len(self.t)

    @property
    def rejected(self) -> int:
        """Number of rejected steps."""
        return len(self.rejected_t)


@dataclass(frozen=True)
class Solution:
    """States at the times asked for, the trace of the solve, and how it was solved."""

    t: Tensor
    """(times,), float64."""
    y: Tensor
    """(times, batch, ...)."""
    trace: Trace
    f: Field
    tableau: Tableau
    """The method whose single step a local penalty takes."""
    rtol: float
    atol: float
    sampled_t: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.float64))
    """Further times, asked for by a regularizer only, (sampled,), float64."""
    sampled_y: Tensor | None = None
    """States there, detached, (sampled, batch, ...)."""


Times = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor]]
Penalty = Callable[[Solution, torch.Generator], Tensor]


def _times_as_they_are(t: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    return t, torch.empty(0, dtype=torch.float64)


@dataclass(frozen=True)
class Regularizer:
    """One way to make a differential equation cheap to solve; the values are in `regularizers`."""

    name: str
    settings: dict[str, float | str | bool] = field(default_factory=dict)
    """Everything that distinguishes it from others of its name; part of a row's key."""
    weight: Callable[[float], float] = lambda progress: 0.0
    """Weight of the penalty as a function of the training's progress in [0, 1]."""
    times: Times = _times_as_they_are
    """Before the solve: (t, rng) -> (times of the output, further times where the penalty wants the state)."""
    records: frozenset[str] = frozenset()
    """What the trace must carry with gradient for the penalty: a subset of RECORDS."""
    penalty: Penalty | None = None
    """After the solve: (solution, rng) -> 0-d penalty; None: there is nothing to add to the loss."""


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
) -> Solution:
    """Solve dy/dt = f(t, y) with adaptive steps; backpropagation goes through the accepted steps.

    Args:
        f: field; gets a 0-d time of y0's dtype and a state (batch, ...), returns (batch, ...).
        y0: initial state, (batch, ...), float32 or float64; one step size serves the whole batch.
        t: output times, (times,), at least two, increasing or decreasing; the state at t[0] is y0.
        rtol, atol: relative and absolute tolerance of one step.
        method: 'tsit5', 'dopri5', 'bosh3', or a Tableau.
        controller: 'integral', 'pi', or a Controller.
        first_step: size of the first step (positive); None: chosen by `control.initial_step`.
        step_sizes: take exactly these steps (positive, in order) instead of controlling them.
        max_steps: largest number of attempted steps.
        sampled_t: further times inside the interval where a regularizer wants the state, (sampled,).
        records: what the trace shall carry with gradient: a subset of {'error_ratio', 'stiffness'}.

    Raises:
        ValueError: for arguments that cannot be, before f is evaluated; for a wrong output of f, at its first
            evaluation.
        SolverError: too many steps, or non-finite values that smaller steps do not cure.
    """
    tableau = choose("method", TABLEAUS, method) if isinstance(method, str) else method
    control = choose("controller", CONTROLLERS, controller) if isinstance(controller, str) else controller
    t = check_problem(y0, t, rtol, atol)
    if not records <= set(RECORDS):
        raise ValueError(f"unknown records {sorted(records - set(RECORDS))}; choose from {RECORDS}")
    if first_step is not None and not (math.isfinite(first_step) and first_step > 0):
        raise ValueError(f"first_step must be positive, found {first_step}")
    if max_steps < 1:
        raise ValueError(f"max_steps must be at least 1, found {max_steps}")
    drawn = check_sampled(t, sampled_t)
    loop = _Loop(Counted(f, y0), tableau, control, rtol, atol, max_steps, records, drawn.tolist())
    y = loop.run(y0, t.tolist(), first_step, step_sizes)  # (times, batch, ...)
    return Solution(
        t=t,
        y=y,
        trace=loop.trace(),
        f=f,
        tableau=tableau,
        rtol=rtol,
        atol=atol,
        sampled_t=drawn,
        sampled_y=torch.stack([loop.sampled_y[time] for time in drawn.tolist()]) if len(drawn) else None,
    )


class _Loop:
    """The loop of one solve: try a step, accept or reject it, write down what happened."""

    def __init__(
        self,
        f: Counted,
        tableau: Tableau,
        control: Controller,
        rtol: float,
        atol: float,
        max_steps: int,
        records: frozenset[str],
        sampled_t: list[float],
    ) -> None:
        self.f, self.tableau, self.control = f, tableau, control
        self.rtol, self.atol, self.max_steps, self.records = rtol, atol, max_steps, records
        self.sampled_t = sampled_t
        self.sampled_y: dict[float, Tensor] = {}
        self.accepted: list[tuple[float, float, Tensor]] = []  # not the Steps: without graph, stages are freed
        self.ratios: list[Tensor] = []
        self.stiffness: list[Tensor] = []
        self.rejected: list[tuple[float, float]] = []

    def run(
        self, y: Tensor, times: list[float], first_step: float | None, step_sizes: Sequence[float] | None
    ) -> Tensor:
        """Return the states at all times, (times, batch, ...)."""
        t, t_end = times[0], times[-1]
        direction = math.copysign(1.0, t_end - t)
        k1 = self.f(y.new_tensor(t), y)
        prescribed = iter(step_sizes) if step_sizes is not None else None
        dt = self._first(t, y, k1, direction, first_step) if prescribed is None else 0.0
        previous_ratio = 1.0
        done = sum(time == t for time in times)
        states = [y.expand(done, *y.shape)]
        while done < len(times):
            dt = self._next_prescribed(prescribed, t, t_end) if prescribed is not None else dt
            self._check_budget(t, dt, self.ratios)
            last = direction * (t + direction * dt - t_end) >= -1e-12 * abs(t_end - times[0])
            step = rk_step(self.f, t, y, t_end - t if last else direction * dt, self.tableau, k1=k1)
            ratio_tensor = self._ratio(step)
            ratio = ratio_tensor.item()
            if prescribed is None:
                dt = abs(step.dt) * self.control.factor(ratio, previous_ratio, order=self.tableau.order)
                if not self.control.accepts(ratio):
                    self._reject(step, ratio)
                    continue
            self._accept(step, ratio_tensor)
            previous_ratio = max(ratio, 1e-4)
            t, y, k1 = t_end if last else step.t + step.dt, step.y1, step.k[-1]
            reached = done
            while reached < len(times) and direction * (times[reached] - t) <= 0:
                reached += 1
            states += self._outputs(step, t, times[done:reached])
            self._sample(step, t)
            done = reached
        return torch.cat(states)

    def _first(self, t: float, y: Tensor, k1: Tensor, direction: float, first_step: float | None) -> float:
        if not torch.isfinite(k1).all():
            raise SolverError(f"f returned non-finite values at the initial state, t = {t:g}")
        if first_step is not None:
            return first_step
        order = self.tableau.order
        tolerances = {"rtol": self.rtol, "atol": self.atol}
        return initial_step(self.f, t, y, k1, direction=direction, order=order, **tolerances)

    @staticmethod
    def _next_prescribed(sizes: Iterator[float], t: float, t_end: float) -> float:
        dt = next(sizes, None)
        if dt is None or not dt > 0:
            found = "ran out" if dt is None else f"hold {dt}, which is not positive,"
            raise ValueError(f"step_sizes {found} at t = {t:g} before the end {t_end:g}")
        return float(dt)

    def _ratio(self, step: Step) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and "error_ratio" in self.records):
            return error_ratio(step.error, step.y, step.y1, rtol=self.rtol, atol=self.atol)

    def _accept(self, step: Step, ratio: Tensor) -> None:
        self.accepted.append((step.t, step.dt, step.y.detach()))
        self.ratios.append(ratio)
        if "stiffness" in self.records:
            self.stiffness.append(stiffness_ratio(step))

    def _reject(self, step: Step, ratio: float) -> None:
        self.rejected.append((step.t, step.dt))
        if abs(step.dt) <= 1e-14 * max(1.0, abs(step.t)):
            what = "non-finite values" if not math.isfinite(ratio) else f"an error ratio of {ratio:.3g}"
            raise SolverError(
                f"the step size fell to {abs(step.dt):.3g} at t = {step.t:g} with {what}: f is singular or "
                "non-finite there, or the tolerance is below the resolution of the state's dtype"
            )

    def _check_budget(self, t: float, dt: float, ratios: list[Tensor]) -> None:
        attempts = len(self.accepted) + len(self.rejected)
        if attempts >= self.max_steps:
            ratio = ratios[-1].item() if ratios else math.nan
            raise SolverError(
                f"{attempts} steps (max_steps) were not enough: stopped at t = {t:g} with step size {dt:.3g}, "
                f"last accepted error ratio {ratio:.3g}, {len(self.rejected)} rejected. Loosen rtol and atol, raise "
                "max_steps, or look for stiffness (the step size stays small though the solution is smooth)"
            )

    @staticmethod
    def _outputs(step: Step, t1: float, times: list[float]) -> list[Tensor]:
        """Return the states at output times inside one step: dense output, and y1 itself at its end."""
        inside = [time for time in times if time != t1]
        states = [step.at(inside)] if inside else []
        return states + [step.y1.unsqueeze(0)] * (len(times) - len(inside))

    @torch.no_grad()
    def _sample(self, step: Step, t1: float) -> None:
        """Note the states at the sampled times inside one step: without graph, which nobody would use."""
        low, high = sorted((step.t, t1))
        inside = [time for time in self.sampled_t if low <= time <= high]
        self.sampled_y.update(zip(inside, step.at(inside) if inside else (), strict=True))

    def trace(self) -> Trace:
        """Return the record of the solve."""
        t, dt, y = zip(*self.accepted, strict=True)
        rejected = torch.tensor(self.rejected, dtype=torch.float64).reshape(-1, 2)
        return Trace(
            t=torch.tensor(t, dtype=torch.float64),
            dt=torch.tensor(dt, dtype=torch.float64),
            y=y,
            error_ratio=torch.stack(self.ratios),
            stiffness=torch.stack(self.stiffness) if self.stiffness else None,
            rejected_t=rejected[:, 0],
            rejected_dt=rejected[:, 1],
            nfe=self.f.nfe,
            with_gradient=self.records if torch.is_grad_enabled() else frozenset(),
        )
