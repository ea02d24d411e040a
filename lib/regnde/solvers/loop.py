"""The loop of one solve: try a step, accept or reject it, write down what happened."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from regnde.solvers.checks import SolverError
from regnde.solvers.control import Controller, until
from regnde.solvers.error_ratio import stiffness_ratio
from regnde.solvers.methods import Method
from regnde.solvers.solution import Trace
from regnde.solvers.sri_steps import SRIStep
from regnde.solvers.steps import Start, Step


def states_in(
    method: Method, step: Step | SRIStep, t1: float, times: list[float], which: slice, moves: Tensor | None
) -> list[Tensor]:
    """Return the states at which times, inside one step that ends at t1: dense output, and y1 itself at its end.

    `moves` (times,) is zero, and carries the gradient of the times.
    """
    inside = [time for time in times[which] if time != t1]
    states = [method.later(step, inside)] if inside else []
    states += [step.y1.unsqueeze(0)] * (len(times[which]) - len(inside))
    if moves is None or not states or not isinstance(step, Step):
        return states
    return [torch.cat(states) + step.moved(times[which], moves[which] - moves[0])]


class Loop:
    """The loop of one solve: try a step, accept or reject it, write down what happened."""

    def __init__(
        self,
        method: Method,
        control: Controller,
        *,
        max_steps: int,
        records: frozenset[str],
        sampled_t: list[float],
        rate: Callable[[float, Tensor, Tensor], Tensor] | None = None,
        keep: Callable[[Step | SRIStep], None] | None = None,
        moves: Tensor | None = None,
    ) -> None:
        self.method, self.control, self.rate, self.keep, self.moves = method, control, rate, keep, moves
        self.max_steps, self.records, self.sampled_t = max_steps, records, sampled_t
        self.sampled_y: dict[float, Tensor] = {}
        self.accepted: list[tuple[float, float, Tensor]] = []  # not the Steps: without graph, stages are freed
        self.reached: list[int] = []  # after each accepted step: how many of the times are done
        self.rates: list[Tensor] = []  # at the start of each accepted step, and at the end
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
        start, dt = self._first(t, t_end, y, first_step if prescribed is None else math.nan)
        ratio, previous_ratio, accepted = 1.0, 1.0, True
        done = sum(time == t for time in times)
        states = [y.expand(done, *y.shape)]
        while done < len(times):
            dt = self._next_prescribed(prescribed, t, t_end) if prescribed is not None else dt
            self._check_budget(t, dt, self.ratios)
            self._check_size(t, dt, ratio)
            size = direction * dt
            if prescribed is None:
                size = self.method.fit(t, size, again=not accepted)
            last = direction * (t + size - t_end) >= -1e-12 * abs(t_end - times[0])
            size = until(t, t_end) if last else size
            step = self.method.take(t, y, size, start)
            ratio_tensor = self._ratio(step)
            ratio = ratio_tensor.item()
            if prescribed is None:
                accepted = self.control.accepts(ratio)
                dt = dt if accepted and not last else abs(step.dt)
                ratio *= (dt / abs(step.dt)) ** self.method.order  # of the size proposed, which `fit` may have moved
                dt *= self.control.factor(ratio, previous_ratio, order=self.method.order)
                if not accepted:
                    self.rejected.append((step.t, step.dt))
                    start = step.start
                    continue
            self._accept(step, ratio_tensor)
            previous_ratio = max(ratio, 1e-4)
            t, y, start = t_end if last else step.t + step.dt, step.y1, step.next_start
            reached = done
            while reached < len(times) and direction * (times[reached] - t) <= 0:
                reached += 1
            states += states_in(self.method, step, t, times, slice(done, reached), self.moves)
            self._sample(step, t)
            self.reached.append(reached)
            done = reached
        if self.rate is not None and start is not None:
            self.rates.append(self.rate(t, y, next(iter(start))))
        return self.method.join(states)

    def _first(self, t: float, t_end: float, y: Tensor, first_step: float | None) -> tuple[Start | None, float]:
        """Return what is evaluated at the start, and the size of the first step."""
        start = self.method.evaluate(t, y)
        if not all(torch.isfinite(value).all() for value in start):
            raise SolverError(f"the equation has non-finite values at the initial state, t = {t:g}")
        if first_step is None:
            whole = until(t, t_end)
            guess = self.method.first_step(t, y, start, math.copysign(1.0, whole), abs(whole))
            first_step = max(guess, self.method.shortest(t))
        return start, first_step

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
        kept = step.y.detach()
        self.accepted.append((step.t, step.dt, kept if self.accepted else kept.clone()))  # y0 is the caller's
        if self.keep is not None:
            self.keep(step)
        self.ratios.append(ratio)
        if "stiffness" in self.records:
            self.stiffness.append(stiffness_ratio(step))
        if self.rate is not None:
            self.rates.append(self.rate(step.t, step.y, step.k[0]))

    def _check_size(self, t: float, dt: float, ratio: float) -> None:
        if not dt >= self.method.shortest(t):
            what = "non-finite values" if not math.isfinite(ratio) else f"an error ratio of {ratio:.3g}"
            raise SolverError(
                f"the step size fell to {dt:.3g} at t = {t:g} with {what}: f is singular or non-finite there, the "
                "tolerance is below the resolution of the state's dtype, or time has too coarse a spacing so far from 0"
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

    @torch.no_grad()
    def _sample(self, step: Step | SRIStep, t1: float) -> None:
        """Note the states at the sampled times inside one step: without graph, which nobody would use."""
        if not self.sampled_t:
            return
        low, high = sorted((step.t, t1))
        inside = [time for time in self.sampled_t if low <= time <= high]
        self.sampled_y.update(zip(inside, self.method.at(step, inside) if inside else (), strict=True))

    def sampled(self, times: list[float]) -> Tensor | None:
        """Return the states at the sampled times, (sampled, batch, ...), or None when there are none."""
        return torch.stack([self.sampled_y[time] for time in times]) if times else None

    def rate_weights(self) -> Tensor:
        """Return the weights of the trapezoidal rule at the accepted steps' starts and the end, (steps + 1,)."""
        half = torch.tensor([abs(dt) / 2 for _, dt, _ in self.accepted], dtype=torch.float64)
        zero = torch.zeros(1, dtype=torch.float64)
        return torch.cat([half, zero]) + torch.cat([zero, half])

    def integral(self) -> Tensor | None:
        """Return the integral of the rate over the interval, 0-d, or None without a rate."""
        if self.rate is None:
            return None
        rates = torch.stack(self.rates)
        return (self.rate_weights().to(rates) * rates).sum()

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
