"""Dynamics, classifiers (ODE and SDE), fits of trajectories and of moments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from regnde.methods import RungeKutta
from regnde.solution import Solution, Trace
from regnde.steps import Field
from regnde.tableaus import TSIT5

Solve = Callable[[Any, Tensor, Tensor], Solution]
"""What a model gets from outside: (f, y0, t) -> Solution; it holds solver, tolerance and regularizer.

For an SDE, f is a module with the methods f and g (torchsde's convention), and the solve draws its Brownian path.
A model gets beside it a generator for noise of its own.
"""


def hold_still(f: Field, y0: Tensor, t: Tensor) -> Solution:
    """Return the solve of dy/dt = 0 without evaluating f, y(t) = y(t0): the control of every experiment."""
    nothing = torch.empty(0, dtype=torch.float64)
    trace = Trace(nothing, nothing, (), nothing, None, nothing, nothing, nfe=0)
    y = y0.expand(len(t), *y0.shape)
    return Solution(t=t, y=y, trace=trace, method=RungeKutta(f, TSIT5, rtol=1.0, atol=1.0))


class TimeLinear(nn.Module):
    """A linear layer with the time appended to its input: W [y, t] + b, without copying y."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(d_in + 1, d_out)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """Map a 0-d time and y (batch, d_in) to (batch, d_out)."""
        weight, bias = self.linear.weight, self.linear.bias
        return functional.linear(y, weight[:, :-1], torch.addcmul(bias, weight[:, -1], t))


class TimeMLP(nn.Module):
    """The dynamics f(t, y): layers with the time appended to every input and tanh between them.

    Args:
        sizes: widths from input to output; first and last agree for a field.
        output_tanh: tanh after the last layer too (Kelly et al. 2020 and Pal et al. 2021; not Pal et al. 2023).
    """

    def __init__(self, sizes: Sequence[int], *, output_tanh: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TimeLinear(a, b) for a, b in pairwise(sizes))
        self.output_tanh = output_tanh

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """Map a 0-d time and a state (batch, d) to its derivative (batch, d)."""
        for i, layer in enumerate(self.layers):
            y = layer(t, y)
            if self.output_tanh or i + 1 < len(self.layers):
                y = torch.tanh(y)
        return y


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


class CubicMLP(nn.Module):
    """The field of the spiral: an MLP 2-hidden-2 with tanh on the cubes of the state (Chen et al. 2018)."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, hidden), nn.Tanh(), nn.Linear(hidden, 2))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """Map a 0-d time and a state (batch, 2) to its derivative (batch, 2)."""
        return self.net(y**3)


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


class Autonomous(nn.Module):
    """A field that does not see the time: f(t, y) = net(y)."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """Map a 0-d time and a state (batch, d) to net(y)."""
        return self.net(y)


class SDE(nn.Module):
    """An Ito SDE dy = f(t, y) dt + g(t, y) dW with diagonal noise, in torchsde's convention.

    Args:
        drift, diffusion: fields (t, y) -> (batch, d). A diffusion that mixes components, such as a linear layer, is
            allowed as diagonal noise; but its noise does not commute, and every solver here then has strong order 1/2.
    """

    noise_type, sde_type = "diagonal", "ito"

    def __init__(self, drift: nn.Module, diffusion: nn.Module) -> None:
        super().__init__()
        self.drift, self.diffusion = drift, diffusion

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        """The drift, (batch, d)."""
        out: Tensor = self.drift(t, y)
        return out

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        """The diffusion, (batch, d)."""
        out: Tensor = self.diffusion(t, y)
        return out


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
