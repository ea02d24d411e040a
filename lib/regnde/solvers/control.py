"""Initial step, accept or reject, next step size: one controller for ODE and SDE."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from regnde.solvers.checks import SolverError
from regnde.solvers.steps import Field, Start, rms


@dataclass(frozen=True)
class Controller:
    """Choose the next step size from the error ratio: dt * safety * ratio^-beta1 * previous_ratio^beta2.

    Exponents are given for order 1 and divided by the order, so that one controller serves every method.
    All numbers are Python floats: step sizes carry no gradient.

    Source: Hairer, Norsett, Wanner, Solving ODEs I, eq. II.4.13; Gustafsson 1991 for the second factor.
    """

    beta1: float = 1.0
    beta2: float = 0.0
    safety: float = 0.9
    min_factor: float = 0.2
    max_factor: float = 10.0
    min_factor_accepted: float = 1.0
    """An accepted step never makes the next one smaller than this factor."""

    def accepts(self, ratio: float) -> bool:
        """Return whether a step with this error ratio is accepted; a NaN is not."""
        return ratio <= 1.0

    def factor(self, ratio: float, previous_ratio: float, *, order: float) -> float:
        """Return next step size / this step size.

        Args:
            ratio: error ratio of the step just tried; not finite means that the step failed altogether.
            previous_ratio: error ratio of the last accepted step (1 at the start).
            order: power of dt with which the error ratio falls.
        """
        if not math.isfinite(ratio):
            return self.min_factor
        lowest = self.min_factor_accepted if self.accepts(ratio) else self.min_factor
        if ratio == 0.0:
            return self.max_factor
        factor = self.safety * ratio ** (-self.beta1 / order) * previous_ratio ** (self.beta2 / order)
        if not self.accepts(ratio):
            factor = min(factor, self.safety)
        return min(self.max_factor, max(lowest, factor))


CONTROLLERS = {
    "integral": Controller(),
    "pi": Controller(beta1=0.7, beta2=0.4, min_factor_accepted=0.2),
    "sde": Controller(beta1=0.7, beta2=0.4, min_factor_accepted=0.2, max_factor=3.0),
    "sde_reference": Controller(beta1=0.7, beta2=0.4, min_factor_accepted=0.2, max_factor=1.125),
}
"""The last is that of the published integrators: a step grows by at most an eighth."""


def until(t: float, end: float) -> float:
    """Return the signed step from t to the end; t plus it never lies beyond the end, rounding included."""
    dt = end - t
    return math.nextafter(dt, 0.0) if (t + dt - end) * dt > 0 else dt


def on_clock(t: float, dt: float) -> float:
    """Return the signed step dt from t, shortened to one that floats at t can tell where they are coarse beside it."""
    if math.ulp(t) <= 1e-10 * abs(dt):
        return dt
    end = t + dt
    return (math.nextafter(end, t) if abs(end - t) > abs(dt) else end) - t


def _size(x: Tensor, scale: Tensor) -> float:
    """Return the root mean square of x / scale; in float64 and by its largest entry where that overflows."""
    size = float(rms(x / scale))
    if not math.isinf(size):
        return size
    x = x.double() / scale.double()
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
    k2 = f(y.new_tensor(t + direction * h0), y + direction * h0 * k1)
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
    ahead, time = y + h0 * drift, y.new_tensor(t + h0)
    change = (f(time, ahead) - drift).abs() + 3 * (g(time, ahead) - noise).abs()
    return _first(h0, max(d1, _size(change, scale) / h0), order + 0.5, limit)
