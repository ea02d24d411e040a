"""What a solve returns: Solution with its Trace."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from regnde.solvers.methods import Method
from regnde.solvers.sri_tableaus import SRITableau
from regnde.solvers.steps import Field
from regnde.solvers.tableaus import Tableau


@dataclass(frozen=True)
class Trace:
    """What the solver did: one entry for each accepted step, and a count of everything it paid for.

    Raises nothing. Source: this project.
    """

    t: Tensor
    """Times at which the accepted steps start, (steps,), float64."""
    dt: Tensor
    """Signed sizes of the accepted steps, (steps,), float64; they carry no gradient."""
    y: tuple[Tensor, ...]
    """States at which the accepted steps start, each (batch, ...), detached."""
    error_ratio: Tensor
    """Scaled errors of the accepted steps, (steps,)."""
    stiffness: Tensor | None
    """Stiffness estimates of the accepted steps, (steps,); None where the method gives none."""
    rejected_t: Tensor
    rejected_dt: Tensor
    """Times and sizes of the rejected steps, (rejected,), float64."""
    nfe: int
    """Evaluations of f in this solve."""
    nfe_diffusion: int = 0
    """Evaluations of g in this solve, 0 for an ODE."""
    with_gradient: frozenset[str] = frozenset()
    """Which of 'error_ratio' and 'stiffness' carry a gradient."""

    @property
    def accepted(self) -> int:
        """Number of accepted steps."""
        return len(self.t)

    @property
    def rejected(self) -> int:
        """Number of rejected steps."""
        return len(self.rejected_t)


@dataclass(frozen=True)
class Solution:
    """States at the times asked for, the trace of the solve, and how it was solved.

    Raises nothing. Source: this project.
    """

    t: Tensor
    """(times,), float64."""
    y: Tensor
    """(times, batch, ...)."""
    trace: Trace
    method: Method
    """The method, equation and tolerance: a local penalty takes one step of it."""
    sampled_t: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.float64))
    """Further times, asked for by a regularizer only, (sampled,), float64."""
    sampled_y: Tensor | None = None
    """States there, detached, (sampled, batch, ...)."""
    rate_integral: Tensor | None = None
    """Integral of the rate that rode along, 0-d; None: there was none."""

    @property
    def f(self) -> Field:
        """The right-hand side; of an SDE the drift."""
        return self.method.f

    @property
    def tableau(self) -> Tableau | SRITableau:
        """The coefficients of the method."""
        return self.method.tableau
