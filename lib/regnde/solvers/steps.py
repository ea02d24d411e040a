"""ONE step and its error: rk_step -> Step, sri_step -> SRIStep; error_ratio, stiffness_ratio."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from regnde.solvers.fused import ErrorRatio, combine, sri_end, sri_stage
from regnde.solvers.sri_tableaus import SRITableau
from regnde.solvers.tableaus import Tableau

Field = Callable[[Tensor, Tensor], Tensor]
"""The right-hand side of dy/dt = f(t, y): a 0-d time and a state (batch, ...) to a derivative (batch, ...)."""
Start = tuple[Tensor, ...]
"""What was evaluated at the start of a step, for the next attempt or step: (f,) for an ODE, (f, g) for an SDE."""


def refuse_gradient(**constants: object) -> None:
    """Raise ValueError for a value that requires a gradient but is taken as a constant."""
    for name, value in constants.items():
        values = value if isinstance(value, list | tuple) else (value,)
        if torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in values):
            raise ValueError(f"{name} requires a gradient, but is a constant here and gets none: pass {name}.detach()")


@dataclass(frozen=True)
class Step:
    """One step of an embedded Runge-Kutta pair from (t, y) to (t + dt, y1).

    The error, the dense output and the stiffness follow from the stages and are computed when asked for, in
    the gradient mode of the moment: a solver reads the error under `torch.no_grad()` for its control, a
    penalty reads it with gradient.
    """

    tableau: Tableau
    t: float
    dt: float
    """The signed step size: a Python float, so that it carries no gradient."""
    y: Tensor
    """State at the start, (batch, ...)."""
    y1: Tensor
    """State at the end, (batch, ...)."""
    k: tuple[Tensor, ...]
    """The stages, each (batch, ...); the last one is the derivative at the end."""

    @property
    def start(self) -> Start:
        """The first stage, which a smaller step from the same state can use again."""
        return self.k[:1]

    @property
    def next_start(self) -> Start | None:
        """The last stage, which is the first one of the next step (FSAL)."""
        return self.k[-1:]

    @property
    def stages(self) -> tuple[Tensor, Tensor]:
        """Distance between the two stages of the stiffness pair, and between their derivatives, each (batch, ...)."""
        assert self.tableau.stiffness_pair is not None
        i, j = self.tableau.stiffness_pair
        rows = ((), *self.tableau.a)
        padded = [(*rows[s], *([0.0] * (len(self.k) - len(rows[s])))) for s in (i, j)]
        between = [wj - wi for wi, wj in zip(*padded, strict=True)]
        return combine(None, self.dt, between, self.k), self.k[j] - self.k[i]

    @property
    def error(self) -> Tensor:
        """The embedded error estimate, unscaled: dt * sum_i b_error_i k_i, (batch, ...)."""
        return combine(None, self.dt, self.tableau.b_error, self.k)

    def at(self, t: Sequence[float]) -> Tensor:
        """Return the dense output at times inside the step, all in one product: (times,) -> (times, batch, ...)."""
        theta = (np.asarray(t, dtype=np.float64) - self.t) / self.dt
        weights = torch.as_tensor(self.dt * self.tableau.weights(theta))
        weights = weights.to(dtype=self.y.dtype, device=self.y.device)  # (times, stages)
        return self.y + torch.tensordot(weights, torch.stack(self.k), dims=1)  # (times, batch, ...)

    def moved(self, t: Sequence[float], by: Tensor) -> Tensor:
        """Return how the dense output at times t changes when these move, `by` (times,): zero, with its derivatives."""
        theta = (torch.tensor(t, dtype=torch.float64) - self.t + by) / self.dt
        powers = theta[:, None] ** torch.arange(1, len(self.tableau.dense[0]) + 1)
        weights = self.dt * powers @ torch.tensor(self.tableau.dense, dtype=torch.float64).T  # (times, stages)
        change = (weights - weights.detach()).to(dtype=self.y.dtype, device=self.y.device)
        return torch.tensordot(change, torch.stack(self.k), dims=1)  # (times, batch, ...)


def rk_step(f: Field, t: float, y: Tensor, dt: float, tableau: Tableau, *, k1: Tensor | None = None) -> Step:
    """Take one step of an embedded Runge-Kutta pair.

    Args:
        f: field, called as f(t, y) with a 0-d tensor of y's dtype.
        t: time at the start.
        y: state at the start, (batch, ...).
        dt: signed step size.
        tableau: the pair.
        k1: f(t, y) where it is known already (FSAL); None evaluates it.

    Returns:
        The Step; f was called once for each stage (one less with k1).

    Raises:
        ValueError: t or dt requires a gradient; they are constants.

    Source: Hairer, Norsett, Wanner, Solving ODEs I, eq. II.4.2; k_i = f(t + c_i dt, y + dt sum_j a_ij k_j).
    """
    refuse_gradient(t=t, dt=dt)
    times = torch.tensor([t + ci * dt for ci in tableau.c], dtype=y.dtype, device=y.device).unbind()
    k = [f(times[0], y) if k1 is None else k1]
    yi = y
    for ti, ai in zip(times[1:], tableau.a, strict=True):
        yi = combine(y, dt, ai, k)
        k.append(f(ti, yi))
    return Step(tableau=tableau, t=t, dt=dt, y=y, y1=yi, k=tuple(k))


@dataclass(frozen=True)
class SRIStep:
    """One step of a stochastic Runge-Kutta method from (t, y) to (t + dt, y1), along a given Brownian path."""

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
    times = torch.tensor([t + c * dt for c in (*tableau.c0, *tableau.c1)], dtype=y.dtype, device=y.device).unbind()
    t0, t1 = times[: len(tableau.c0)], times[len(tableau.c0) :]
    h0 = [y]
    k, noise = ([f(t0[0], y)], [g(t1[0], y)]) if start is None else ([start[0]], [start[1]])
    for i, (a0, b0, a1, b1) in enumerate(zip(tableau.a0, tableau.b0, tableau.a1, tableau.b1, strict=True), start=1):
        weights = [dt * a for a in a0], b0, [dt * a for a in a1], [root * b for b in b1]
        of_drift, of_noise = sri_stage(y, chi2, weights, k, noise)
        h0.append(of_drift)
        k.append(f(t0[i], of_drift))
        noise.append(g(t1[i], of_noise))
    beta = (tableau.beta1, tableau.beta2, tableau.beta3, tableau.beta4)
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


def rms(x: Tensor) -> Tensor:
    """Return the root mean square over all entries, 0-d, 0 of none; its gradient at exactly zero is zero, not NaN."""
    return torch.linalg.vector_norm(x) / max(1, x.numel()) ** 0.5


def error_ratio(error: Tensor, y0: Tensor, y1: Tensor, *, rtol: float, atol: float) -> Tensor:
    """Scale an error by the tolerance: rms(error / (atol + rtol max(|y0|, |y1|))), 0-d; at most 1 is accepted.

    Source: Hairer, Norsett, Wanner, Solving ODEs I, eq. II.4.11, over all entries of the batch.
    """
    refuse_gradient(rtol=rtol, atol=atol)
    return ErrorRatio.apply(error, y0, y1, rtol, atol)


def stiffness_ratio(step: Step | SRIStep) -> Tensor:
    """Estimate the stiffness of one step: |k_i - k_j| / |y_i - y_j| for two stages at the same time, 0-d.

    For a linear field it is a lower bound of the norm of the Jacobian along the direction between the stages.

    Raises:
        ValueError: the method has no two different stages at one time (bosh3, sosri).

    Source: Shampine 1977; Hairer, Wanner, Solving ODEs II, eq. IV.2.24; Pal et al. 2021, eq. 10; for SDEs
        Rackauckas, Nie 2020 (the drift's stages of SOSRI2).
    """
    if step.tableau.stiffness_pair is None:
        raise ValueError(
            f"method '{step.tableau.name}' has no two stages at the same time, so it gives no stiffness "
            "estimate; use 'tsit5' or 'dopri5' (SDE: 'sosri2')"
        )
    between_states, between_slopes = step.stages
    distance = _norm(between_states)
    return _norm(between_slopes) / distance.clamp_min(torch.finfo(distance.dtype).tiny)


def _norm(x: Tensor) -> Tensor:
    """Return the 2-norm, 0-d; at exactly zero its first and second derivatives are zero, not NaN."""
    zero = (x == 0).all()
    return torch.linalg.vector_norm(x + zero) * ~zero
