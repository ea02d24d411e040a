"""The cubic spiral: the trajectory that every introduction to neural ODEs learns."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

A = ((-0.1, 2.0), (-2.0, -0.1))
Y0 = (2.0, 0.0)
TOLERANCE = 1e-12  # of the reference solution, relative and absolute
RECIPE = f"SciPy's DOP853 at tolerance {TOLERANCE:g}, from {Y0}"
"""How the trajectory is made: what identifies it in a row's key. Its last digits are those of the processor."""
KNOWN_END = (1.291991562978947, 0.9725860744290733)  # the state at t = 1.5
AGREES = 1e-9  # with which the data of two machines agree, at least


@dataclass(frozen=True, eq=False)
class Spiral:
    """One trajectory of the cubic spiral, and the field that it follows."""

    name: str  # for tables and captions
    key: str  # for file names and rows
    t: Tensor  # (n_times,) float64
    y: Tensor  # (n_times, 2); noise included, if any was asked for
    y0: Tensor  # (2,); never noisy
    f: Callable[[Tensor | float, Tensor], Tensor]  # f(t, y), y of shape (..., 2)


def cubic_field(t: Tensor | float, y: Tensor) -> Tensor:
    """The true field dy/dt = A^T y^3 (componentwise cube) at states y of shape (..., 2), whatever the time.

    Source: Chen et al. 2018, `examples/ode_demo.py` of torchdiffeq (rows times A, which is the same).

    Raises:
        ValueError: y does not hold pairs.
    """
    if y.ndim == 0 or y.shape[-1] != 2:
        raise ValueError(f"y: expected shape (..., 2), the two coordinates last, found {tuple(y.shape)}")
    return y**3 @ torch.tensor(A, dtype=y.dtype, device=y.device)


def load_spiral(
    *,
    n_times: int = 30,
    t1: float = 1.5,
    noise: float = 0.0,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Spiral:
    """Solve the cubic spiral from (2, 0) at evenly spaced times.

    The defaults, 30 times in [0, 1.5], are those of the neural ODE example of DiffEqFlux, which shares an
    author with the 2021 paper. The demonstration of torchdiffeq is ``load_spiral(n_times=1000, t1=25.0)``.

    Args:
        n_times: number of times, both ends included.
        t1: last time; the first is 0.
        noise: standard deviation of normal noise added to every observation.
        seed: of the noise.
        dtype: of the states, torch.float32 or torch.float64; times are float64 always.

    Raises:
        ValueError: an argument out of its range.
        RuntimeError: this machine's SciPy solves to other numbers than the known ones.
    """
    if not isinstance(n_times, int) or n_times < 2:
        raise ValueError(f"n_times: expected a whole number of at least 2, found {n_times!r}")
    if not (math.isfinite(t1) and t1 > 0):
        raise ValueError(f"t1: expected a finite time above 0, found {t1!r}")
    if not (math.isfinite(noise) and noise >= 0):
        raise ValueError(f"noise: expected a finite standard deviation of at least 0, found {noise!r}")
    if not isinstance(seed, int):
        raise ValueError(f"seed: expected a whole number, found {seed!r}")
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype: expected torch.float32 or torch.float64, found {dtype!r}")

    _check_machine()
    t = torch.linspace(0.0, t1, n_times, dtype=torch.float64)
    y = torch.from_numpy(_reference(t.numpy()))  # (n_times, 2)
    name, key = f"cubic spiral, {n_times:,} times in [0, {t1:g}]", f"spiral-{n_times}-{float(t1)}"
    if noise > 0:
        generator = torch.Generator().manual_seed(seed)
        y = y + noise * torch.randn(y.shape, generator=generator, dtype=y.dtype)
        name, key = f"{name}, noise {noise:g}", f"{key}-noise-{float(noise)}-seed-{seed}"
    return Spiral(name=name, key=key, t=t, y=y.to(dtype), y0=torch.tensor(Y0, dtype=dtype), f=cubic_field)


def check_known(found: np.ndarray | Tensor, known: object, what: str) -> None:
    """Raise RuntimeError if this machine makes other numbers than those known, beyond AGREES."""
    gap = float(np.abs(np.asarray(found) - np.asarray(known)).max())
    if not gap <= AGREES:
        raise RuntimeError(
            f"{what} differ by {gap:.2g} from the known ones: rows made here would have the key of rows made from "
            f"other data. Report it with your versions of torch {torch.__version__}, NumPy {np.__version__} and SciPy"
        )


@functools.cache  # once for each process
def _check_machine() -> None:
    check_known(_reference(np.array([0.0, 1.5]))[-1], KNOWN_END, "the spiral's states at t = 1.5")


def _reference(t: np.ndarray) -> np.ndarray:
    """The noiseless trajectory (T, 2) at times t (T,), by SciPy's DOP853."""
    transposed = np.array(A).T
    solution = solve_ivp(
        lambda _, y: transposed @ y**3,
        (t[0], t[-1]),
        Y0,
        method="DOP853",
        t_eval=t,
        rtol=TOLERANCE,
        atol=TOLERANCE,
    )
    if not solution.success:
        raise RuntimeError(f"the reference solution of the spiral failed: {solution.message}")
    return solution.y.T.copy()
