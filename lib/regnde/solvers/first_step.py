"""How long the first step of a solve shall be, for ODEs and SDEs."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from regnde.solvers.checks import SolverError
from regnde.solvers.error_ratio import rms
from regnde.solvers.steps import Field, Start


def _size(x: Tensor, scale: Tensor) -> float:
    """Return the root mean square of x / scale; in float64 and by its largest entry where that overflows."""
    size = float(rms(x / scale))
    if not math.isinf(size):
        return size
    x = x.cpu().double() / scale.cpu().double()  # Metal has no float64
    largest = x.abs().max()
    return float(largest * rms(x / largest))


def _probe(t: float, d0: float, d1: float, limit: float) -> float:
    """Return how far ahead the field is looked at, from the scaled sizes of the state and of its derivative."""
    if not math.isfinite(d0 + d1):
        raise SolverError(
            f"no first step could be chosen at t = {t:g}: the derivative, scaled by the tolerance, is not finite "
            "(f is singular there, or an entry of y has no scale: atol = 0); give first_step, or a larger atol"
        )
    return max(min(1e-6 if d0 < 1e-5 or d1 < 1e-5 else 0.01 * d0 / d1, limit), math.ulp(0.0))


@torch.no_grad()
def initial_step(
    f: Field,
    t: float,
    y: Tensor,
    k1: Tensor,
    *,
    direction: float,
    order: int,
    rtol: float,
    atol: float,
    limit: float = math.inf,
) -> float:
    """Guess a first step size (positive), with one evaluation of f.

    Args:
        f: field.
        t, y: start; y is (batch, ...).
        k1: f(t, y).
        direction: +1 forward in time, -1 backward.
        order: order of the method.
        limit: distance to the end of the interval (positive), beyond which f is not evaluated.

    Raises:
        SolverError: the derivative is not finite.

    Source: Hairer, Norsett, Wanner, Solving ODEs I, section II.4, "Starting step size".
    """
    scale = y.abs().mul(rtol).add(atol)
    d0, d1 = _size(y, scale), _size(k1, scale)
    h0 = _probe(t, d0, d1, limit)
    k2 = f(y.new_full((), t + direction * h0), y + direction * h0 * k1)
    return _first(h0, max(d1, _size(k2 - k1, scale) / h0), order, limit)


def _first(h0: float, curvature: float, order: float, limit: float) -> float:
    h1 = max(1e-6, 1e-3 * h0) if curvature <= 1e-15 else (0.01 / curvature) ** (1 / order)
    return min(100 * h0, h1 or h0, limit)  # an infinite curvature says nothing: the loop tries and rejects


@torch.no_grad()
def initial_step_sde(
    f: Field, g: Field, t: float, y: Tensor, start: Start, *, order: float, rtol: float, atol: float, limit: float
) -> float:
    """Guess a first step size (positive) for dy = f dt + g dW, with one evaluation of f and one of g.

    As for an ODE, with |f| + 3 |g| in place of the speed: three standard deviations of the noise in a unit of time.

    Args:
        f, g: drift and diffusion.
        t, y: start; y is (batch, ...).
        start: (f(t, y), g(t, y)).
        order: strong order of the method.
        limit: distance to the end of the interval (positive), beyond which f and g are not evaluated.

    Raises:
        SolverError: drift or diffusion are not finite.

    Source: `initial_step`; the factor 3 after Rackauckas, Nie 2017 (adaptive methods for SDEs).
    """
    scale = y.abs().mul(rtol).add(atol)
    drift, noise = start
    d0, d1 = _size(y, scale), _size(drift.abs() + 3 * noise.abs(), scale)
    h0 = _probe(t, d0, d1, limit)
    ahead, time = y + h0 * drift, y.new_full((), t + h0)
    change = (f(time, ahead) - drift).abs() + 3 * (g(time, ahead) - noise).abs()
    return _first(h0, max(d1, _size(change, scale) / h0), order + 0.5, limit)
