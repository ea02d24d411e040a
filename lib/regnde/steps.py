"""ONE step and its error: rk_step -> Step; error_ratio, stiffness_ratio."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from regnde.tableaus import Tableau

Field = Callable[[Tensor, Tensor], Tensor]
"""The right-hand side of dy/dt = f(t, y): a 0-d time and a state (batch, ...) to a derivative (batch, ...)."""


def _accumulate(base: Tensor | None, weights: Sequence[float], k: Sequence[Tensor]) -> Tensor:
    """Return base + sum_i weights_i k_i, accumulated in one buffer: one pass over memory for each term."""
    terms = [(ki, w) for ki, w in zip(k, weights, strict=True) if w != 0.0]
    if base is None:
        out = terms[0][0] * terms[0][1] if terms else torch.zeros_like(k[0])
    else:
        out = torch.add(base, terms[0][0], alpha=terms[0][1]) if terms else base.clone()
    for ki, w in terms[1:]:
        out.add_(ki, alpha=w)
    return out


class _LinearCombination(torch.autograd.Function):
    """`_accumulate` with its gradient, so that the graph holds one node instead of one for each term."""

    @staticmethod
    def forward(ctx: Any, base: Tensor | None, weights: Sequence[float], *k: Tensor) -> Tensor:
        ctx.weights = weights
        return _accumulate(base, weights, k)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        of_base = grad if ctx.needs_input_grad[0] else None
        of_k = (
            grad * w if needed and w != 0.0 else None
            for needed, w in zip(ctx.needs_input_grad[2:], ctx.weights, strict=True)
        )
        return of_base, None, *of_k


def combine(base: Tensor | None, dt: float, weights: Sequence[float], k: Sequence[Tensor]) -> Tensor:
    """Return base + dt * sum_i weights_i k_i (base None: zero); differentiable in base and k, not in dt."""
    weights = [dt * w for w in weights]
    if not torch.is_grad_enabled():
        return _accumulate(base, weights, k)
    return _LinearCombination.apply(base, weights, *k)


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
    def error(self) -> Tensor:
        """The embedded error estimate, unscaled: dt * sum_i b_error_i k_i, (batch, ...)."""
        return combine(None, self.dt, self.tableau.b_error, self.k)

    def at(self, t: Sequence[float]) -> Tensor:
        """Return the dense output at times inside the step, all in one product: (times,) -> (times, batch, ...)."""
        theta = (np.asarray(t, dtype=np.float64) - self.t) / self.dt
        weights = torch.as_tensor(self.dt * self.tableau.weights(theta))
        weights = weights.to(dtype=self.y.dtype, device=self.y.device)  # (times, stages)
        return self.y + torch.tensordot(weights, torch.stack(self.k), dims=1)  # (times, batch, ...)


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

    Source: Hairer, Norsett, Wanner, Solving ODEs I, eq. II.4.2; k_i = f(t + c_i dt, y + dt sum_j a_ij k_j).
    """
    times = torch.tensor([t + ci * dt for ci in tableau.c], dtype=y.dtype, device=y.device).unbind()
    k = [f(times[0], y) if k1 is None else k1]
    yi = y
    for ti, ai in zip(times[1:], tableau.a, strict=True):
        yi = combine(y, dt, ai, k)
        k.append(f(ti, yi))
    return Step(tableau=tableau, t=t, dt=dt, y=y, y1=yi, k=tuple(k))


def rms(x: Tensor) -> Tensor:
    """Return the root mean square over all entries, 0-d; its gradient at exactly zero is zero, not NaN."""
    return torch.linalg.vector_norm(x) / x.numel() ** 0.5


class _ErrorRatio(torch.autograd.Function):
    """`error_ratio` with its gradient by hand: a third of the passes over memory that the recorded one takes."""

    @staticmethod
    def forward(ctx: Any, error: Tensor, y0: Tensor, y1: Tensor, rtol: float, atol: float) -> Tensor:
        scale = torch.maximum(y0.abs(), y1.abs()).mul_(rtol).add_(atol)
        scaled = error / scale
        ratio = rms(scaled)
        ctx.rtol = rtol
        ctx.save_for_backward(y0, y1, scale, scaled, ratio)
        return ratio

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        y0, y1, scale, scaled, ratio = ctx.saved_tensors
        tiny = torch.finfo(ratio.dtype).tiny  # an error of exactly zero has the gradient zero, not NaN
        of_error = (scaled / scale).mul_(grad / (ratio * scaled.numel()).clamp_min(tiny))
        of_larger = (of_error * scaled).mul_(-ctx.rtol)
        at_y1 = y1.abs() >= y0.abs()
        of_y0 = y0.sign().mul_(of_larger).mul_(~at_y1) if ctx.needs_input_grad[1] else None
        of_y1 = y1.sign().mul_(of_larger).mul_(at_y1) if ctx.needs_input_grad[2] else None
        return of_error, of_y0, of_y1, None, None


def error_ratio(error: Tensor, y0: Tensor, y1: Tensor, *, rtol: float, atol: float) -> Tensor:
    """Scale an error by the tolerance: rms(error / (atol + rtol max(|y0|, |y1|))), 0-d; at most 1 is accepted.

    Source: Hairer, Norsett, Wanner, Solving ODEs I, eq. II.4.11, over all entries of the batch.
    """
    return _ErrorRatio.apply(error, y0, y1, rtol, atol)


def stiffness_ratio(step: Step) -> Tensor:
    """Estimate the stiffness of one step: |k_i - k_j| / |y_i - y_j| for two stages at the same time, 0-d.

    For a linear field it is a lower bound of the norm of the Jacobian along the direction between the stages.

    Raises:
        ValueError: the method has no two different stages at one time (bosh3).

    Source: Shampine 1977; Hairer, Wanner, Solving ODEs II, eq. IV.2.24; Pal et al. 2021, eq. 10.
    """
    if step.tableau.stiffness_pair is None:
        raise ValueError(
            f"method '{step.tableau.name}' has no two stages at the same time, so it gives no stiffness "
            "estimate; use 'tsit5' or 'dopri5'"
        )
    i, j = step.tableau.stiffness_pair
    rows = ((), *step.tableau.a)
    padded = [(*rows[s], *([0.0] * (len(step.k) - len(rows[s])))) for s in (i, j)]
    between = [wj - wi for wi, wj in zip(*padded, strict=True)]
    distance = torch.linalg.vector_norm(combine(None, step.dt, between, step.k))
    tiny = torch.finfo(distance.dtype).tiny
    return torch.linalg.vector_norm(step.k[j] - step.k[i]) / distance.clamp_min(tiny)
