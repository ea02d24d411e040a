"""torchode on a case: the whole batch as one problem, so that one step size serves it, as with the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torchode
from _cases import Case
from torch import Tensor, nn


class Flat(nn.Module):
    """A field on one row that holds the batch."""

    def __init__(self, f: nn.Module, shape: tuple[int, int]) -> None:
        super().__init__()
        self.f, self.batch, self.d = f, shape[0], shape[1]

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """Map times (1,) and states (1, batch * d)."""
        return self.f(t[0], y.view(self.batch, self.d)).view(1, self.batch * self.d)


class Solver:
    """torchode's Dopri5 with its integral controller, through torch.compile as its README does."""

    def __init__(self, case: Case) -> None:
        self.case, (batch, d) = case, case.y0.shape
        term = torchode.ODETerm(Flat(case.f, (batch, d)))
        control = torchode.IntegralController(atol=case.tolerance, rtol=case.tolerance, term=term)
        self.solver = torchode.AutoDiffAdjoint(torchode.Dopri5(term=term), control)
        self.compiled = torch.compile(self.solver)
        self.t = case.t.to(case.y0.dtype)[None]

    def states(self) -> Tensor:
        """Solve, and return the states (times, batch, d)."""
        return self.ended(self.compiled.solve).ys[0].view(-1, *self.case.y0.shape)

    def ended(self, solve: Callable[..., Any]) -> Any:
        return solve(torchode.InitialValueProblem(y0=self.case.y0.reshape(1, -1), t_eval=self.t))

    def counts(self) -> tuple[int, int, int]:
        """Return evaluations, accepted and rejected steps."""
        with torch.no_grad():
            stats = self.ended(self.solver.solve).stats
        steps, accepted = int(stats["n_steps"][0]), int(stats["n_accepted"][0])
        return int(stats["n_f_evals"][0]), accepted, steps - accepted
