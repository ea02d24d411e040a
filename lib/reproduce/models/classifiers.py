"""Images to logits through an ODE or an SDE."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from regnde import Solution
from reproduce.models.fields import SDE, Autonomous
from reproduce.models.solve import Solve


class ODEClassifier(nn.Module):
    """Flatten, solve an ODE over [0, 1], classify its end: Pal et al. 2023, section 4.1.

    Args:
        dynamics: the field on R^d.
        d, n_classes: size of the flattened image, number of classes.
    """

    def __init__(self, dynamics: nn.Module, *, d: int, n_classes: int) -> None:
        super().__init__()
        self.dynamics = dynamics
        self.head = nn.Linear(d, n_classes)
        self.t = torch.tensor([0.0, 1.0], dtype=torch.float64)

    def forward(self, x: Tensor, solve: Solve, noise: torch.Generator | None = None) -> tuple[Tensor, Solution]:
        """Map images (batch, ...) to logits (batch, n_classes) and the solve behind them."""
        solution = solve(self.dynamics, x.flatten(1), self.t)
        return self.head(solution.y[-1]), solution


class NeuralSDE(nn.Module):
    """Flatten, encode, solve an SDE over [0, 1], classify its end: Pal et al. 2023, section 4.1.

    Drift d - hidden - d with tanh between, diffusion linear (which couples the components, see SDE).

    Args:
        d_in: size of the flattened image.
        d, hidden: size of the state and of the drift's hidden layer.
        n_classes: number of classes.
        trajectories: how many a prediction averages the logits of; training takes one.
    """

    def __init__(self, *, d_in: int, d: int, hidden: int, n_classes: int, trajectories: int) -> None:
        super().__init__()
        self.encoder = nn.Linear(d_in, d)
        drift = nn.Sequential(nn.Linear(d, hidden), nn.Tanh(), nn.Linear(hidden, d))
        self.dynamics = SDE(Autonomous(drift), Autonomous(nn.Linear(d, d)))
        self.head = nn.Linear(d, n_classes)
        self.trajectories = trajectories
        self.t = torch.tensor([0.0, 1.0], dtype=torch.float64)

    def forward(self, x: Tensor, solve: Solve, noise: torch.Generator | None = None) -> tuple[Tensor, Solution]:
        """Map images (batch, ...) to logits (batch, n_classes) and the solve behind them."""
        n = 1 if self.training else self.trajectories
        y0 = self.encoder(x.flatten(1)).repeat(n, 1)  # (n * batch, d)
        solution = solve(self.dynamics, y0, self.t)
        logits = self.head(solution.y[-1])  # (n * batch, n_classes)
        return logits.view(n, len(x), -1).mean(0), solution
