"""Shared by the benchmarks: the three problems that are timed."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from reproduce.models.fields import CubicMLP, TimeMLP


@dataclass(frozen=True)
class Case:
    """One problem to solve: dy/dt = f(t, y) from y0, asked for at times t, rtol = atol = tolerance, float32."""

    name: str
    f: nn.Module
    y0: Tensor  # (batch, d); requires a gradient where a model would have made it
    t: Tensor  # (times,), float64
    tolerance: float

    @property
    def inputs(self) -> list[Tensor]:
        """What a training step differentiates for."""
        return [*self.f.parameters(), *([self.y0] if self.y0.requires_grad else [])]


class Autonomous(nn.Module):
    """A field that does not look at the time."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.net(y)


@torch.no_grad()
def scaled(f: nn.Module, factor: float) -> nn.Module:
    """Multiply all parameters, so that the field is as lively as a trained one."""
    for p in f.parameters():
        p.mul_(factor)
    return f


def mnist() -> Case:
    """Batch 512 in R^784, an MLP 784-100-784 with time, scaled so that it takes 10-12 steps; one output time."""
    torch.manual_seed(0)
    f = scaled(TimeMLP((784, 100, 784)), 5.0)
    return Case("MNIST-sized", f, torch.rand(512, 784), torch.tensor([0.0, 1.0], dtype=torch.float64), 1e-5)


def latent() -> Case:
    """Batch 512 in R^20, eight tanh layers 20-40-20 (four times), 49 output times; y0 comes from an encoder."""
    torch.manual_seed(0)
    widths = (20, 40, 20, 40, 20, 40, 20, 40, 20)
    layers = [m for a, b in pairwise(widths) for m in (nn.Linear(a, b), nn.Tanh())]
    f = scaled(Autonomous(nn.Sequential(*layers)), 2.0)
    y0 = torch.randn(512, 20).requires_grad_()
    return Case("latent-ODE-sized", f, y0, torch.linspace(0, 1, 49, dtype=torch.float64), 1e-7)


def spiral() -> Case:
    """One cubic spiral, 1,000 output times; an MLP 2-50-2 whose last layer is fitted by least squares, not trained."""
    torch.manual_seed(0)
    f = CubicMLP(50)
    hidden, last = f.net[0], f.net[2]
    y = 4 * torch.rand(4000, 2) - 2
    wanted = y**3 @ torch.tensor([[-0.1, 2.0], [-2.0, -0.1]])
    with torch.no_grad():
        hidden.weight.mul_(0.2)  # the cubes reach 8: stay where tanh bends, not where it is flat
        features = torch.tanh(hidden(y**3))
        solved = torch.linalg.lstsq(torch.cat([features, torch.ones(len(y), 1)], 1), wanted).solution
        last.weight.copy_(solved[:-1].T)
        last.bias.copy_(solved[-1])
    y0, t = torch.tensor([[2.0, 0.0]]), torch.linspace(0, 25, 1000, dtype=torch.float64)
    return Case("spiral, 1,000 times", f, y0, t, 1e-7)
