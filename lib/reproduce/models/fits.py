"""Equations fitted to data: to trajectories, or to the moments of many."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from regnde import Solution
from reproduce.models.fields import SDE
from reproduce.models.solve import Solve


class Trajectory(nn.Module):
    """A field fitted to trajectories: initial states and times in, states at these times out."""

    def __init__(self, dynamics: nn.Module) -> None:
        super().__init__()
        self.dynamics = dynamics

    def forward(
        self, inputs: tuple[Tensor, Tensor], solve: Solve, noise: torch.Generator | None = None
    ) -> tuple[Tensor, Solution]:
        """Map initial states (batch, d) and times (times,) to states (times, batch, d) and the solve behind them."""
        y0, t = inputs
        solution = solve(self.dynamics, y0, t)
        return solution.y, solution


class MomentFit(nn.Module):
    """An SDE fitted to moments: an initial state and times in, many trajectories out.

    Args:
        dynamics: the SDE.
        trajectories: (in training, in a prediction).
    """

    def __init__(self, dynamics: SDE, *, trajectories: tuple[int, int]) -> None:
        super().__init__()
        self.dynamics, self.trajectories = dynamics, trajectories

    def forward(
        self, inputs: tuple[Tensor, Tensor], solve: Solve, noise: torch.Generator | None = None
    ) -> tuple[Tensor, Solution]:
        """Map an initial state (d,) and times (times,) to trajectories (times, trajectories, d) and their solve."""
        y0, t = inputs
        solution = solve(self.dynamics, y0.expand(self.trajectories[not self.training], -1), t)
        return solution.y, solution
