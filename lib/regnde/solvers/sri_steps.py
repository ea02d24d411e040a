"""One step of an SDE: its end, error and dense output, from four stages along a Brownian path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from regnde.solvers.fused import combine, sri_end, sri_stage
from regnde.solvers.sri_tableaus import SRITableau
from regnde.solvers.steps import Field, Start, beside, refuse_gradient, stage_times


@dataclass(frozen=True)
class SRIStep:
    """One step of a stochastic Runge-Kutta method from (t, y) to (t + dt, y1), along a given Brownian path.

    Raises nothing. Source: Roessler 2010, eq. 6.1; Rackauckas, Nie 2020.
    """

    tableau: SRITableau
    estimate: str
    """Name of the error estimate, one of ERROR_ESTIMATES."""
    t: float
    dt: float
    y: Tensor
    """State at the start, (batch, ...)."""
    y1: Tensor
    """State at the end, (batch, ...)."""
    k: tuple[Tensor, ...]
    """Drift stages, each (batch, ...)."""
    g: tuple[Tensor, ...]
    """Diffusion stages, each (batch, ...)."""
    h0: tuple[Tensor, ...]
    """States of the drift stages, each (batch, ...)."""
    w: Tensor
    """Increment of the Brownian path over the step, (batch, ...)."""
    noise_error: Tensor
    """The terms of the noise beyond strong order one, E2 of the source, (batch, ...)."""

    @property
    def error(self) -> Tensor:
        """The error estimate, unscaled, (batch, ...): see ERROR_ESTIMATES."""
        return ERROR_ESTIMATES[self.estimate](self)

    @property
    def start(self) -> Start:
        """The first drift and the first diffusion stage, which a smaller step from the same state can use again."""
        return self.k[0], self.g[0]

    @property
    def next_start(self) -> None:
        """Nothing: no stage lies at the end of the step."""
        return None

    @property
    def stages(self) -> tuple[Tensor, Tensor]:
        """Distance between the two stages of the stiffness pair, and between their drifts, each (batch, ...)."""
        assert self.tableau.stiffness_pair is not None
        i, j = self.tableau.stiffness_pair
        return self.h0[j] - self.h0[i], self.k[j] - self.k[i]

    def at(self, t: Sequence[float], w: Sequence[Tensor]) -> Tensor:
        """Return states inside the step, (times, batch, ...), from the path's increments w_i = W(t_i) - W(t).

        Linear in time, plus the first diffusion stage times what the path deviates from its chord there: so that the
        variance between two steps is that of the path.
        """
        out = []
        for ti, wi in zip(t, w, strict=True):
            theta = (ti - self.t) / self.dt
            out.append(torch.lerp(self.y, self.y1, theta) + self.g[0] * (wi - theta * self.w))
        return torch.stack(out)  # (times, batch, ...)


def _embedded(step: SRIStep) -> Tensor:
    """|dt (sum alpha_i k_i - k_1)| + |E2|: what the step has beyond the method of strong order one inside it."""
    first, *others = step.tableau.alpha
    return combine(None, step.dt, (first - 1.0, *others), step.k).abs() + step.noise_error.abs()


def _reference(step: SRIStep) -> Tensor:
    """dt sum k_i + E2, as in the published integrators: the first term is four times dt f and no error at all."""
    return combine(step.noise_error, step.dt, (1.0,) * len(step.k), step.k)


def _numbers(t: float, dt: float, tableau: SRITableau, y: Tensor) -> tuple[Any, Sequence[Tensor], Sequence[Tensor]]:
    """Return the weights beta and the times of drift and diffusion stages: in one transfer, where no graph is made."""
    stages, rows = len(tableau.c0), (tableau.beta1, tableau.beta2, tableau.beta3, tableau.beta4)
    if isinstance(dt, Tensor):
        times = stage_times(t, dt, (*tableau.c0, *tableau.c1), y)
        return rows, times[:stages], times[stages:]
    flat = [*sum(rows, ()), *(t + c * dt for c in (*tableau.c0, *tableau.c1))]
    beta, t0, t1 = beside(y, flat).split((4 * stages, stages, stages))
    return beta.view(4, stages), t0.unbind(), t1.unbind()


ERROR_ESTIMATES: dict[str, Callable[[SRIStep], Tensor]] = {"embedded": _embedded, "reference": _reference}


def sri_step(
    f: Field,
    g: Field,
    t: float,
    y: Tensor,
    dt: float,
    w: Tensor,
    u: Tensor,
    tableau: SRITableau,
    *,
    estimate: str = "embedded",
    start: Start | None = None,
) -> SRIStep:
    """Take one step of a stochastic Runge-Kutta method for the Ito SDE dy = f(t, y) dt + g(t, y) dW.

    Args:
        f, g: drift and diffusion; both get a 0-d time and a state (batch, ...) and return (batch, ...): the noise is
            diagonal, component i of y is driven by component i of W.
        t: time at the start.
        y: state at the start, (batch, ...).
        dt: step size, positive.
        w: W(t + dt) - W(t), (batch, ...).
        u: integral of W(s) - W(t) over the step, (batch, ...).
        tableau: the method.
        estimate: 'embedded' or 'reference', see ERROR_ESTIMATES.
        start: (f(t, y), g(t, y)) where they are known already; None evaluates them.

    Returns:
        The SRIStep; f and g were called once for each stage (one less with `start`).

    Raises:
        ValueError: an unknown estimate; t, dt, w or u requires a gradient, though they are constants.

    Source: Roessler 2010, eq. 6.1; Rackauckas, Nie 2020.
    """
    if estimate not in ERROR_ESTIMATES:
        raise ValueError(f"unknown estimate {estimate!r}; choose one of {sorted(ERROR_ESTIMATES)}")
    refuse_gradient(t=t, dt=dt, w=w, u=u)
    root, square = dt**0.5, w * w
    chi1, chi2 = (square - dt).mul_(0.5 / root), u / dt
    chi3 = square.sub_(3 * dt).mul_(w).mul_(1 / (6 * dt))
    beta, t0, t1 = _numbers(t, dt, tableau, y)
    h0 = [y]
    k, noise = ([f(t0[0], y)], [g(t1[0], y)]) if start is None else ([start[0]], [start[1]])
    for i, (a0, b0, a1, b1) in enumerate(zip(tableau.a0, tableau.b0, tableau.a1, tableau.b1, strict=True), start=1):
        weights = [dt * a for a in a0], b0, [dt * a for a in a1], [root * b for b in b1]
        of_drift, of_noise = sri_stage(y, chi2, weights, k, noise)
        h0.append(of_drift)
        k.append(f(t0[i], of_drift))
        noise.append(g(t1[i], of_noise))
    y1, error = sri_end(y, (w, chi1, chi2, chi3), [dt * a for a in tableau.alpha], beta, k, noise)
    return SRIStep(
        tableau=tableau,
        estimate=estimate,
        t=t,
        dt=dt,
        y=y,
        y1=y1,
        k=tuple(k),
        g=tuple(noise),
        h0=tuple(h0),
        w=w,
        noise_error=error,
    )
