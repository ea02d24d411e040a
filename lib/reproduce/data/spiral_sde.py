"""The spiral SDE: mean and variance over time of a noisy cubic spiral."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from reproduce.data.spiral import Y0, check_known, cubic_field

NOISE = 0.2
STEP = 2e-3  # of the simulation, at most
RECIPE = f"splitting, steps of at most {STEP:g}, float64, one torch.Generator with the seed, from {Y0}"
"""How trajectories are made: what identifies them in a row's key. Their last digits are those of the processor."""
KNOWN = (  # the states of simulate(n_times=2, t1=0.02, trajectories=3, seed=0) at the end
    (1.9289927314169324, 0.3127409778707421),
    (1.8885228187870666, 0.29247617262595255),
    (1.9375617715206024, 0.3068239902978907),
)


@dataclass(frozen=True, eq=False)
class SpiralMoments:
    """Mean and variance of simulated trajectories at evenly spaced times."""

    name: str  # for tables and captions
    key: str  # for file names and rows
    t: Tensor  # (n_times,) float64
    y0: Tensor  # (2,)
    mean: Tensor  # (n_times, 2)
    variance: Tensor  # (n_times, 2)


class SpiralSDE:
    """The equation of the data, in torchsde's convention: dy = f(t, y) dt + 0.2 y dW, f the cubic spiral.

    Source: Pal et al. 2021, section 4.2.1.
    """

    noise_type, sde_type = "diagonal", "ito"

    def f(self, t: Tensor | float, y: Tensor) -> Tensor:
        """The drift at states (..., 2)."""
        return cubic_field(t, y)

    def g(self, t: Tensor | float, y: Tensor) -> Tensor:
        """The diffusion at states (..., 2): component i depends on component i alone."""
        return NOISE * y


def simulate(*, n_times: int, t1: float = 1.0, trajectories: int, seed: int) -> tuple[Tensor, Tensor]:
    """Simulate the spiral SDE from (2, 0) by splitting, with steps of at most 0.002.

    Each step lets the noise act alone for its first half, which has an exact solution (a factor on y), then the drift
    alone (one step of the classical Runge-Kutta method), then the noise for its second half. Euler's and Milstein's
    methods would need far smaller steps here: they let the fast rotation drift outwards.

    Returns:
        Times (n_times,) and states (n_times, trajectories, 2), float64.

    Raises:
        ValueError: an argument out of its range.
    """
    for name, value, least in (("n_times", n_times, 2), ("trajectories", trajectories, 2)):
        if not isinstance(value, int) or value < least:
            raise ValueError(f"{name}: expected a whole number of at least {least}, found {value!r}")
    if not (math.isfinite(t1) and t1 > 0):
        raise ValueError(f"t1: expected a finite time above 0, found {t1!r}")
    rng = torch.Generator().manual_seed(seed)
    t = torch.linspace(0.0, t1, n_times, dtype=torch.float64)
    steps = math.ceil(t1 / (n_times - 1) / STEP)
    dt = t1 / (n_times - 1) / steps
    y = torch.tensor(Y0, dtype=torch.float64).expand(trajectories, 2)
    states = [y]
    for _ in range(n_times - 1):
        for _ in range(steps):
            y = _noise(_drift(_noise(y, dt / 2, rng), dt), dt / 2, rng)
        states.append(y)
    return t, torch.stack(states)  # (n_times, trajectories, 2)


def _noise(y: Tensor, dt: float, rng: torch.Generator) -> Tensor:
    """Solve dy = 0.2 y dW over dt, exactly."""
    dw = math.sqrt(dt) * torch.randn(y.shape, generator=rng, dtype=y.dtype)
    return y * torch.exp(NOISE * dw - NOISE**2 / 2 * dt)


def _drift(y: Tensor, dt: float) -> Tensor:
    """Take one classical Runge-Kutta step of the cubic spiral."""
    k1 = cubic_field(0.0, y)
    k2 = cubic_field(0.0, y + dt / 2 * k1)
    k3 = cubic_field(0.0, y + dt / 2 * k2)
    k4 = cubic_field(0.0, y + dt * k3)
    return y + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def load_spiral_moments(
    *, n_times: int = 30, t1: float = 1.0, trajectories: int = 10_000, seed: int = 0
) -> SpiralMoments:
    """Simulate the spiral SDE, and return its mean and its variance over trajectories.

    Raises:
        ValueError: as `simulate`.
        RuntimeError: this machine's generator draws other trajectories than the known ones.
    """
    _check_machine()
    t, y = simulate(n_times=n_times, t1=t1, trajectories=trajectories, seed=seed)
    name = f"spiral SDE, {trajectories:,} simulated trajectories, {n_times} times in [0, {t1:g}]"
    key = f"spiral-sde-{n_times}-{t1:g}-{trajectories}-seed-{seed}"
    return SpiralMoments(name, key, t, torch.tensor(Y0, dtype=torch.float64), y.mean(1), y.var(1))


@functools.cache  # once for each process
def _check_machine() -> None:
    found = simulate(n_times=2, t1=0.02, trajectories=len(KNOWN), seed=0)[1][-1]
    check_known(found, KNOWN, "simulated trajectories of seed 0")
