"""Accept or reject, and the next step size: one controller for ODE and SDE; steps that end where clocks can."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Controller:
    """Choose the next step size from the error ratio: dt * safety * ratio^-beta1 * previous_ratio^beta2.

    Exponents are given for order 1 and divided by the order, so that one controller serves every method.
    All numbers are Python floats: step sizes carry no gradient. Raises nothing: a ratio that is not finite shrinks.

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

    def growth(self, ratio: Tensor, previous_ratio: Tensor, *, order: float) -> Tensor:
        """Return `factor` after an accepted step as a tensor, for steps that are taken ahead in one graph."""
        factor = self.safety * ratio ** (-self.beta1 / order) * previous_ratio ** (self.beta2 / order)
        return factor.clamp(self.min_factor_accepted, self.max_factor)


CONTROLLERS = {
    "integral": Controller(),
    "pi": Controller(beta1=0.7, beta2=0.4, min_factor_accepted=0.2),
    "sde": Controller(beta1=0.7, beta2=0.4, min_factor_accepted=0.2, max_factor=3.0),
    "sde_reference": Controller(beta1=0.7, beta2=0.4, min_factor_accepted=0.2, max_factor=1.125),
}
"""Name -> Controller. The last is that of the published integrators: a step grows by at most an eighth.

Source: Hairer, Norsett, Wanner, Solving ODEs I, section II.4; those of SDEs: Rackauckas, Nie 2020."""


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
