"""Small programs with real work for a solver, after public examples: what bench_weight trains."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from torchdiffeq import odeint

UNIT = torch.tensor([0.0, 1.0])


class Solver:
    """Whose `odeint` a program calls; counts its solves and their evaluations."""

    def __init__(self, odeint: Callable[..., Any]) -> None:
        self.odeint, self.nfe, self.solves = odeint, 0, 0

    def __call__(self, f: Callable[..., Any], y0: Any, t: Tensor, tolerance: float) -> Any:
        def counted(t: Tensor, y: Any) -> Any:
            self.nfe += 1
            return f(t, y)

        self.solves += 1
        return self.odeint(counted, y0, t, rtol=tolerance, atol=tolerance)


class Program(nn.Module):
    """A model with `loss(solve, rng, n)` on n fresh samples; `helps`: does one expect anything of a penalty?"""

    steps, lr, helps = 200, 0.01, True

    def loss(self, solve: Solver, rng: Generator, n: int) -> Tensor:
        """Return the loss, 0-d; each program has its own."""
        raise TypeError(f"{type(self).__name__} has no loss")


def mlp(n_in: int, n_out: int, width: int = 32) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_in, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, n_out))


class Classifier(Program):
    """Points on two rings, told apart by a linear layer after the solve."""

    def __init__(self, tolerance: float = 1e-5, *, helps: bool = True) -> None:
        super().__init__()
        self.net, self.head, self.tolerance, self.helps = mlp(3, 2), nn.Linear(2, 2), tolerance, helps

    def field(self, t: Tensor, y: Tensor) -> Tensor:
        return self.net(torch.cat([y, t.expand(len(y), 1)], 1))

    def loss(self, solve: Solver, rng: Generator, n: int) -> Tensor:
        label = torch.randint(2, (n,), generator=rng)
        radius = 0.5 + label + 0.15 * torch.randn(n, generator=rng)
        angle = 2 * math.pi * torch.rand(n, generator=rng)
        x = torch.stack([radius * angle.cos(), radius * angle.sin()], 1)
        return cross_entropy(self.head(solve(self.field, x, UNIT, self.tolerance)[-1]), label)


class Flow(Program):
    """A continuous normalizing flow with the exact trace, on eight Gaussians."""

    lr = 0.02

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp(3, 2)

    def field(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        x = state[0]
        with torch.enable_grad():
            x = x if x.requires_grad else x.requires_grad_()
            dx = self.net(torch.cat([x, t.expand(len(x), 1)], 1))
            rows = [torch.autograd.grad(dx[:, i].sum(), x, create_graph=True)[0][:, i] for i in range(2)]
        return dx, -(rows[0] + rows[1])

    def loss(self, solve: Solver, rng: Generator, n: int) -> Tensor:
        angle = math.pi / 4 * torch.randint(8, (n,), generator=rng)
        x = 1.8 * torch.stack([angle.cos(), angle.sin()], 1) + 0.2 * torch.randn(n, 2, generator=rng)
        z, change = solve(self.field, (x, torch.zeros(n)), UNIT.flip(0), 1e-5)
        return (0.5 * z[-1].square().sum(1) + math.log(2 * math.pi) + change[-1]).mean()


class LatentOde(Program):
    """Damped oscillations, encoded from their first half; all of them is decoded."""

    lr = 0.02

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.net, self.decoder = nn.GRU(1, 16, batch_first=True), mlp(6, 6), nn.Linear(6, 1)
        self.to_latent, self.t = nn.Linear(16, 12), torch.linspace(0, 2, 20)

    def loss(self, solve: Solver, rng: Generator, n: int) -> Tensor:
        rate, phase = 3 + 2 * torch.rand(n, 1, generator=rng), 2 * math.pi * torch.rand(n, 1, generator=rng)
        x = ((-0.3 * self.t).exp() * torch.sin(rate * self.t + phase))[..., None]  # (batch, times, 1)
        mean, log_std = self.to_latent(self.encoder(x[:, :10].flip(1))[1][0]).chunk(2, 1)
        z0 = mean + log_std.exp() * torch.randn(n, 6, generator=rng)
        z = solve(lambda t, z: self.net(z), z0, self.t, 1e-4)
        divergence = 0.5 * (mean.square() + (2 * log_std).exp() - 1 - 2 * log_std).sum(1).mean()
        return (self.decoder(z).transpose(0, 1) - x).square().mean() + 0.001 * divergence


class Cde(Program):
    """A neural CDE that tells which way round a smooth path in the plane encloses its area."""

    lr = 0.02

    def __init__(self) -> None:
        super().__init__()
        self.start, self.net, self.head = nn.Linear(2, 8), mlp(8, 24), nn.Linear(8, 1)

    def loss(self, solve: Solver, rng: Generator, n: int) -> Tensor:
        rate = 2 * math.pi * torch.tensor([1.0, 2.0])
        size, phase = torch.rand(n, 2, 2, generator=rng), 2 * math.pi * torch.rand(n, 2, 2, generator=rng)

        def speed(t: Tensor) -> Tensor:
            dx = (size * rate * torch.cos(rate * t + phase)).sum(2)  # (batch, 2)
            return torch.cat([torch.ones(n, 1), dx], 1)

        x0 = (size * phase.sin()).sum(2)
        area = (size[:, 0] * size[:, 1] * rate * torch.sin(phase[:, 0] - phase[:, 1])).sum(1)

        def field(t: Tensor, z: Tensor) -> Tensor:
            return (self.net(z).tanh().view(n, 8, 3) @ speed(t)[..., None])[..., 0]

        logit = self.head(solve(field, self.start(x0), UNIT, 1e-3)[-1])[:, 0]
        return binary_cross_entropy_with_logits(logit, (area > 0).float())


class OdeRnn(Program):
    """Oscillations seen at uneven times: one solve between two observations, a jump at each, the next is forecast."""

    lr = 0.02

    def __init__(self) -> None:
        super().__init__()
        self.net, self.cell, self.readout = mlp(12, 12), nn.GRUCell(1, 12), nn.Linear(12, 1)

    def loss(self, solve: Solver, rng: Generator, n: int) -> Tensor:
        t = torch.cumsum(0.2 + 0.8 * torch.rand(6, generator=rng), 0)
        phase = 2 * math.pi * torch.rand(n, 1, generator=rng)
        x, h, errors = torch.sin(2.5 * t + phase), torch.zeros(n, 12), []
        for i in range(5):
            h = self.cell(x[:, i : i + 1], h)
            h = solve(lambda t, y: self.net(y), h, t[i : i + 2], 1e-5)[-1]
            errors.append(self.readout(h)[:, 0] - x[:, i + 1])
        return torch.stack(errors[1:]).square().mean()  # one observation alone does not tell the phase


class Fit(Program):
    """A field that is fitted to trajectories of a known one."""

    lr = 0.02

    def __init__(
        self, net: nn.Module, truth: Callable[[Tensor, Tensor], Tensor], until: float, *, helps: bool = True
    ) -> None:
        super().__init__()
        self.net, self.truth, self.helps, self.t = net, truth, helps, torch.linspace(0, until, 12)

    def loss(self, solve: Solver, rng: Generator, n: int) -> Tensor:
        angle = 2 * math.pi * torch.rand(n, 1, generator=rng)
        y0 = (1 + 0.5 * torch.rand(n, 1, generator=rng)) * torch.cat([angle.cos(), angle.sin()], 1)
        with torch.no_grad():
            y = odeint(self.truth, y0, self.t, method="rk4", options={"step_size": self.t[-1].item() / 66})
        return (solve(lambda t, y: self.net(y), y0, self.t, 1e-4) - y).square().mean()


def pendulum(t: Tensor, y: Tensor) -> Tensor:
    return torch.stack([3 * y[:, 1], -3 * y[:, 0].sin() - 0.1 * y[:, 1]], 1)


def turning(t: Tensor, y: Tensor, *, power: int = 1) -> Tensor:
    return y**power @ torch.tensor([[-0.3, 6.0], [-6.0, -0.3]])


PROGRAMS: dict[str, Callable[[], Program]] = {
    "classifier, 1e-5": Classifier,
    "classifier, 1e-3": partial(Classifier, 1e-3, helps=False),
    "linear field": lambda: Fit(nn.Linear(2, 2, bias=False), turning, 1.0, helps=False),
    "flow, exact trace": Flow,
    "latent ODE": LatentOde,
    "fast spiral": lambda: Fit(mlp(2, 2), partial(turning, power=3), 1.0, helps=False),
    "ODE-RNN": OdeRnn,
    "pendulum": lambda: Fit(mlp(2, 2), pendulum, 1.5),
    "neural CDE": Cde,
}
"""Each by its name. Of those with `helps=False` one solve is near the floor of steps, of two the data set the price."""
