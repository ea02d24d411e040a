"""One step of an ODE: its end, error and dense output, from the stages of an embedded pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from regnde.solvers.fused import combine
from regnde.solvers.tableaus import AdamsWeights, Tableau

Field = Callable[[Tensor, Tensor], Tensor]
"""The right-hand side of dy/dt = f(t, y): a 0-d time and a state (batch, ...) to a derivative (batch, ...).

Source: the convention of torchdiffeq."""
Start = tuple[Tensor, ...]
"""What was evaluated at the start of a step, for the next attempt or step: (f,) for an ODE, (f, g) for an SDE."""


def refuse_gradient(**constants: object) -> None:
    """Raise ValueError for a value that requires a gradient but is taken as a constant."""
    for name, value in constants.items():
        values = value if isinstance(value, list | tuple) else (value,)
        if torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in values):
            raise ValueError(f"{name} requires a gradient, but is a constant here and gets none: pass {name}.detach()")


def beside(y: Tensor, numbers: Sequence[float] | np.ndarray) -> Tensor:
    """Return numbers in the dtype of a state, on its device: one copy, for which only Metal makes us wait."""
    return torch.tensor(numbers, dtype=y.dtype).to(y.device, non_blocking=y.device.type != "mps")


def stage_times(t: float | Tensor, dt: float | Tensor, c: Sequence[float], y: Tensor) -> Sequence[Tensor]:
    """Return t + c_i dt as 0-d tensors of y's dtype on its device: in one transfer; in graphs t, dt are tensors."""
    if isinstance(dt, Tensor):
        return [(t + ci * dt).to(y.dtype) for ci in c]
    return beside(y, [float(t) + ci * dt for ci in c]).unbind()


@dataclass(frozen=True)
class Step:
    """One step of an embedded Runge-Kutta pair from (t, y) to (t + dt, y1).

    The error, the dense output and the stiffness follow from the stages and are computed when asked for, in
    the gradient mode of the moment: a solver reads the error under `torch.no_grad()` for its control, a
    penalty reads it with gradient. Raises nothing.

    Source: Hairer, Norsett, Wanner, Solving ODEs I, eq. II.4.2.
    """

    tableau: Tableau | AdamsWeights
    t: float
    dt: float
    """The signed step size: a Python float, so that it carries no gradient."""
    y: Tensor
    """State at the start, (batch, ...)."""
    y1: Tensor
    """State at the end, (batch, ...)."""
    k: tuple[Tensor, ...]
    """The stages, each (batch, ...); of an FSAL method the last one is the derivative at the end."""

    @property
    def start(self) -> Start:
        """The first stage, which a smaller step from the same state can use again."""
        return self.k[:1]

    @property
    def next_start(self) -> Start | None:
        """The last stage, which is the first one of the next step (FSAL); None: it has to be evaluated."""
        return None if isinstance(self.tableau, Tableau) and not self.tableau.fsal else self.k[-1:]

    @property
    def stages(self) -> tuple[Tensor, Tensor]:
        """Distance between the two stages of the stiffness pair, and between their derivatives, each (batch, ...)."""
        assert isinstance(self.tableau, Tableau)
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

    @property
    def polynomial(self) -> Tensor:
        """Coefficients of the dense output y + sum_p theta^p C_p, p = 1, 2, ..., (powers, batch, ...)."""
        return torch.stack([combine(None, self.dt, column, self.k) for column in zip(*self.tableau.dense, strict=True)])

    def at(self, t: Sequence[float]) -> Tensor:
        """Return the dense output at times inside the step, all in one product: (times,) -> (times, batch, ...)."""
        theta = (np.asarray(t, dtype=np.float64) - self.t) / self.dt
        weights = beside(self.y, self.dt * self.tableau.weights(theta))  # (times, stages)
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
    times = stage_times(t, dt, tableau.c, y)
    k = [f(times[0], y) if k1 is None else k1]
    yi = y
    for ti, ai in zip(times[1:], tableau.a, strict=True):
        yi = combine(y, dt, ai, k)
        k.append(f(ti, yi))
    y1 = yi if tableau.final is None else combine(y, dt, tableau.final, k)
    return Step(tableau=tableau, t=t, dt=dt, y=y, y1=y1, k=tuple(k))
