"""The open box: solve_ode, solve_sde -> Solution with its Trace (one small, readable, fast loop)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
import torchsde
from torch import Tensor

from regnde.checks import (
    Counted,
    SolverError,
    brownian_path,
    check_options,
    check_problem,
    check_sampled,
    check_sde,
    choose,
)
from regnde.control import CONTROLLERS, Controller
from regnde.methods import Method, RungeKutta, StochasticRungeKutta
from regnde.solution import Solution, Trace
from regnde.sri_tableaus import SRI_TABLEAUS, SRITableau
from regnde.steps import ERROR_ESTIMATES, Field, SRIStep, Start, Step, stiffness_ratio
from regnde.tableaus import TABLEAUS, Tableau

RECORDS = ("error_ratio", "stiffness")


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
    check_options(records, RECORDS, first_step, max_steps)
    drawn = check_sampled(t, sampled_t)
    counted = Counted(f, y0)
    loop = _Loop(RungeKutta(counted, tableau, rtol, atol), control, max_steps, records, drawn.tolist())
    y = loop.run(y0, t.tolist(), first_step, step_sizes)  # (times, batch, ...)
    return Solution(
        t=t,
        y=y,
        trace=loop.trace(nfe=counted.nfe),
        method=RungeKutta(f, tableau, rtol, atol),
        sampled_t=drawn,
        sampled_y=loop.sampled(drawn.tolist()),
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
    bm: torchsde.BrownianInterval | None = None,
    seed: int | None = None,
    noise_type: str = "diagonal",
    sde_type: str = "ito",
    first_step: float | None = None,
    step_sizes: Sequence[float] | None = None,
    max_steps: int = 10_000,
    sampled_t: Tensor | None = None,
    records: frozenset[str] = frozenset(),
) -> Solution:
    """Solve the Ito SDE dy = f(t, y) dt + g(t, y) dW with adaptive steps along one Brownian path.

    Args:
        f, g: drift and diffusion; both get a 0-d time of y0's dtype and a state (batch, ...) and return (batch, ...):
            component i of y is driven by component i of W (diagonal noise). Strong order 3/2 needs g_i to depend on
            y_i alone; a diffusion that couples the components is solved with strong order 1/2, by any method here.
        y0: initial state, (batch, ...), float32 or float64; one step size serves the whole batch.
        t: output times, (times,), at least two, increasing; the state at t[0] is y0.
        rtol, atol: relative and absolute tolerance of one step.
        method: 'sosri2', 'sosri', or an SRITableau.
        controller: 'sde' (growth up to 3), 'sde_reference' (growth up to 1.125), 'pi', 'integral', or a Controller.
        estimate: 'embedded', or 'reference' for that of the published integrators (see steps.ERROR_ESTIMATES).
        bm: the Brownian path: torchsde's BrownianInterval with levy_area_approximation='space-time', of y0's shape,
            that covers t. Rejected steps never change it.
        seed: of a path made here, when bm is None; None: drawn from torch's global generator.
        noise_type, sde_type: what f and g are, in torchsde's words; only 'diagonal' and 'ito' are solved here.
        first_step, step_sizes, max_steps, sampled_t, records: as for `solve_ode`; 'stiffness' with 'sosri2' only.

    Raises:
        ValueError: for arguments that cannot be, before f and g are evaluated; for a wrong output of f or g, at its
            first evaluation.
        SolverError: too many steps, or non-finite values that smaller steps do not cure.
    """
    tableau = choose("method", SRI_TABLEAUS, method) if isinstance(method, str) else method
    control = choose("controller", CONTROLLERS, controller) if isinstance(controller, str) else controller
    choose("estimate", ERROR_ESTIMATES, estimate)
    t = check_problem(y0, t, rtol, atol)
    check_options(records, RECORDS, first_step, max_steps)
    check_sde(t, noise_type, sde_type)
    drawn = check_sampled(t, sampled_t)
    bm = brownian_path(bm, y0, t, seed)
    drift = Counted(f, y0, what="the drift")
    diffusion = Counted(g, y0, name="g", what="the diffusion of diagonal noise")
    stepping = StochasticRungeKutta(drift, diffusion, bm, float(t[-1]), tableau, rtol, atol, estimate)
    loop = _Loop(stepping, control, max_steps, records, drawn.tolist())
    y = loop.run(y0, t.tolist(), first_step, step_sizes)  # (times, batch, ...)
    return Solution(
        t=t,
        y=y,
        trace=loop.trace(nfe=drift.nfe, nfe_diffusion=diffusion.nfe),
        method=replace(stepping, f=f, g=g),
        sampled_t=drawn,
        sampled_y=loop.sampled(drawn.tolist()),
    )


class _Loop:
    """The loop of one solve: try a step, accept or reject it, write down what happened."""

    def __init__(
        self, method: Method, control: Controller, max_steps: int, records: frozenset[str], sampled_t: list[float]
    ) -> None:
        self.method, self.control = method, control
        self.max_steps, self.records, self.sampled_t = max_steps, records, sampled_t
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
        prescribed = iter(step_sizes) if step_sizes is not None else None
        start, dt = self._first(t, y, direction, first_step if prescribed is None else math.nan)
        previous_ratio = 1.0
        done = sum(time == t for time in times)
        states = [y.expand(done, *y.shape)]
        while done < len(times):
            dt = self._next_prescribed(prescribed, t, t_end) if prescribed is not None else dt
            self._check_budget(t, dt, self.ratios)
            last = direction * (t + direction * dt - t_end) >= -1e-12 * abs(t_end - times[0])
            step = self.method.take(t, y, t_end - t if last else direction * dt, start)
            ratio_tensor = self._ratio(step)
            ratio = ratio_tensor.item()
            if prescribed is None:
                dt = abs(step.dt) * self.control.factor(ratio, previous_ratio, order=self.method.order)
                if not self.control.accepts(ratio):
                    self._reject(step, ratio)
                    start = step.start
                    continue
            self._accept(step, ratio_tensor)
            previous_ratio = max(ratio, 1e-4)
            t, y, start = t_end if last else step.t + step.dt, step.y1, step.next_start
            reached = done
            while reached < len(times) and direction * (times[reached] - t) <= 0:
                reached += 1
            states += self._outputs(step, t, times[done:reached])
            self._sample(step, t)
            done = reached
        return torch.cat(states)

    def _first(self, t: float, y: Tensor, direction: float, first_step: float | None) -> tuple[Start | None, float]:
        """Return what is evaluated at the start, and the size of the first step."""
        start = self.method.evaluate(t, y)
        if not all(torch.isfinite(value).all() for value in start):
            raise SolverError(f"the equation has non-finite values at the initial state, t = {t:g}")
        return start, self.method.first_step(t, y, start, direction) if first_step is None else first_step

    @staticmethod
    def _next_prescribed(sizes: Iterator[float], t: float, t_end: float) -> float:
        dt = next(sizes, None)
        if dt is None or not dt > 0:
            found = "ran out" if dt is None else f"hold {dt}, which is not positive,"
            raise ValueError(f"step_sizes {found} at t = {t:g} before the end {t_end:g}")
        return float(dt)

    def _ratio(self, step: Step | SRIStep) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and "error_ratio" in self.records):
            return self.method.ratio(step)

    def _accept(self, step: Step | SRIStep, ratio: Tensor) -> None:
        self.accepted.append((step.t, step.dt, step.y.detach()))
        self.ratios.append(ratio)
        if "stiffness" in self.records:
            self.stiffness.append(stiffness_ratio(step))

    def _reject(self, step: Step | SRIStep, ratio: float) -> None:
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

    def _outputs(self, step: Step | SRIStep, t1: float, times: list[float]) -> list[Tensor]:
        """Return the states at output times inside one step: dense output, and y1 itself at its end."""
        inside = [time for time in times if time != t1]
        states = [self.method.at(step, inside)] if inside else []
        return states + [step.y1.unsqueeze(0)] * (len(times) - len(inside))

    @torch.no_grad()
    def _sample(self, step: Step | SRIStep, t1: float) -> None:
        """Note the states at the sampled times inside one step: without graph, which nobody would use."""
        low, high = sorted((step.t, t1))
        inside = [time for time in self.sampled_t if low <= time <= high]
        self.sampled_y.update(zip(inside, self.method.at(step, inside) if inside else (), strict=True))

    def sampled(self, times: list[float]) -> Tensor | None:
        """Return the states at the sampled times, (sampled, batch, ...), or None when there are none."""
        return torch.stack([self.sampled_y[time] for time in times]) if times else None

    def trace(self, *, nfe: int, nfe_diffusion: int = 0) -> Trace:
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
            nfe=nfe,
            nfe_diffusion=nfe_diffusion,
            with_gradient=self.records if torch.is_grad_enabled() else frozenset(),
        )
