"""Other people's programs in a few lines each, after the public examples that they are named for.

Each is a model with `loss(by, step)`. `by` is whose functions it calls: torchdiffeq's and torchsde's own, or those of a
LocalPenalty. So what a user adds is counted: one line makes it, `by.` prefixes the calls, one term joins the loss.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import torch
import torchdiffeq
import torchsde
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchdiffeq import odeint_adjoint as imported_by_name  # as another library would

PLAIN = SimpleNamespace(
    odeint=torchdiffeq.odeint,
    odeint_adjoint=torchdiffeq.odeint_adjoint,
    odeint_event=torchdiffeq.odeint_event,
    sdeint=torchsde.sdeint,
    sdeint_adjoint=torchsde.sdeint_adjoint,
    hears=nullcontext,
)
UNIT = torch.tensor([0.0, 1.0])
FIFTHS = torch.linspace(0, 1, 5)
TOLERANCES = {"rtol": 1e-4, "atol": 1e-4}


def data(step: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(step))


def mlp(n_in: int, n_out: int, width: int = 16) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_in, width), nn.Tanh(), nn.Linear(width, n_out))


class Ode(nn.Module):
    """torchdiffeq's ode_demo: a field that is fitted to a trajectory of y' = A y^3."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.nfe = mlp(2, 2, 50), 0

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        self.nfe += 1
        return 3 * self.net(y**3)

    def loss(self, by: Any, step: int) -> Tensor:
        y = by.odeint(self, data(step, 8, 2), FIFTHS, **TOLERANCES)
        return (y - torch.exp(-FIFTHS)[:, None, None] * y[0]).abs().mean()


class OdeNet(nn.Module):
    """odenet_mnist: convolutions with normalization and the time as a channel, by a bound method."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(5, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Linear(4, 10)

    def field(self, t: Tensor, y: Tensor) -> Tensor:
        return 2 * self.norm(torch.relu(self.conv(torch.cat([y, t.expand_as(y[:, :1])], 1))))

    def loss(self, by: Any, step: int) -> Tensor:
        y = by.odeint_adjoint(
            self.field, data(step, 6, 4, 7, 7), UNIT, rtol=1e-3, atol=1e-3, adjoint_params=tuple(self.parameters())
        )[-1]
        return nn.functional.cross_entropy(self.head(y.mean((2, 3))), torch.arange(6))


class LatentOde(nn.Module):
    """latent_ode: a recurrent encoder, the field `odeint(self, ...)` of its own module, a decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.net, self.decoder = nn.GRU(1, 8, batch_first=True), mlp(4, 4), nn.Linear(4, 1)

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        return 3 * self.net(z)

    def loss(self, by: Any, step: int) -> Tensor:
        x = torch.sin(6 * FIFTHS + data(step, 8, 1))[..., None]  # (batch, times, 1)
        mean, std = self.encoder(x)[1][0].chunk(2, 1)
        z = by.odeint(self, mean + data(step, 8, 4) * std, FIFTHS, **TOLERANCES)
        return (self.decoder(z).transpose(0, 1) - x).square().mean()


class OdeRnn(nn.Module):
    """ODE-RNN: one solve between two observations, and a jump at each."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.cell = mlp(4, 4), nn.GRUCell(1, 4)

    def loss(self, by: Any, step: int) -> Tensor:
        h = torch.zeros(8, 4)
        for i in range(4):
            h = by.odeint(lambda t, y: 3 * self.net(y), h, FIFTHS[i : i + 2], **TOLERANCES)[-1]
            h = self.cell(data(step + i, 8, 1), h)
        return h.square().mean()


class Cnf(nn.Module):
    """cnf: a state tuple of points and log density, backward in time, the trace by automatic differentiation."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp(3, 2, 32)

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        z = state[0]
        with torch.set_grad_enabled(True):
            z.requires_grad_(True)
            dz = 2 * self.net(torch.cat([z, t.expand(len(z), 1)], 1))
            trace = sum(torch.autograd.grad(dz[:, i].sum(), z, create_graph=True)[0][:, i] for i in range(2))
        return dz, -trace.view(-1, 1)  # type: ignore[union-attr]

    def loss(self, by: Any, step: int) -> Tensor:
        x = data(step, 16, 2).sign() + 0.1 * data(step + 1, 16, 2)
        z, change = by.odeint_adjoint(self, (x, torch.zeros(16, 1)), UNIT.flip(0), method="dopri5", **TOLERANCES)
        return (0.5 * z[-1].square().sum(1) + change[-1, :, 0]).mean()


class Ffjord(Cnf):
    """FFJORD with regularization states: kinetic and Jacobian energy ride along in the tuple."""

    def forward(self, t: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:  # type: ignore[override]
        dz, change = super().forward(t, state[:2])  # type: ignore[arg-type]
        return dz, change, dz.square().mean(1, keepdim=True), change.square()

    def loss(self, by: Any, step: int) -> Tensor:
        x, zeros = data(step, 16, 2), torch.zeros(16, 1)
        z, change, kinetic, jacobian = by.odeint(self, (x, zeros, zeros, zeros), UNIT, **TOLERANCES)
        return (0.5 * z[-1].square().sum(1) - change[-1, :, 0]).mean() + 0.01 * (kinetic + jacobian)[-1].mean()


class BouncingBall(nn.Module):
    """bouncing_ball and learn_physics: fall until an event, bounce, fall again; gravity is learned."""

    def __init__(self) -> None:
        super().__init__()
        self.gravity, self.push = nn.Parameter(torch.tensor([9.8])), mlp(2, 1)

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        height, speed = state
        return speed, -self.gravity + self.push(torch.cat([height, speed]))

    def loss(self, by: Any, step: int) -> Tensor:
        t, state = torch.tensor(0.0), (torch.tensor([1.0 + 0.1 * step]), torch.tensor([0.0]))
        for _ in range(2):
            t, states = by.odeint_event(self, state, t, event_fn=lambda t, y: y[0], atol=1e-6, rtol=1e-6)
            state = states[0][-1].clamp_min(1e-3), -0.9 * states[1][-1]
        return (t - 1.1).square().sum()


class GraphOde(nn.Module):
    """A graph ODE, whose graph is set on the field before each solve."""

    def __init__(self) -> None:
        super().__init__()
        self.field = mlp(3, 3)
        self.ode = GraphField(self.field)

    def loss(self, by: Any, step: int) -> Tensor:
        self.ode.graph = torch.softmax(data(step, 6, 6), 1)  # an attribute that the field did not declare
        return by.odeint(self.ode, data(step, 6, 3), UNIT, method="rk4", options={"step_size": 0.2})[-1].square().mean()


class GraphField(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.graph @ self.net(y) - y


class Checkpointed(Ode):
    """A field that checkpoints inside, the reentrant way."""

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return checkpoint(super().forward, t, y, use_reentrant=True)

    def loss(self, by: Any, step: int) -> Tensor:
        return by.odeint(self, data(step, 8, 2).requires_grad_(), UNIT, **TOLERANCES)[-1].square().mean()


def cdeint(x: Tensor, func: nn.Module, z0: Tensor, t: Tensor, **how: Any) -> Tensor:
    """A stand-in for torchcde: a library that wraps the field, passes parameters on, and calls what it imported."""

    class VectorField(nn.Module):
        def forward(self, t: Tensor, z: Tensor) -> Tensor:
            return (func(z) @ (x * torch.cos(3 * t))[..., None])[..., 0]

    return imported_by_name(VectorField(), z0, t, adjoint_params=tuple(func.parameters()), **how)


class Cde(nn.Module):
    """torchcde's classifier: the solve is started by the library. Adds five lines, not three."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.head = nn.Sequential(mlp(4, 12), nn.Tanh(), nn.Unflatten(1, (4, 3))), nn.Linear(4, 1)

    def loss(self, by: Any, step: int) -> Tensor:
        with by.hears():
            z = cdeint(4 * data(step, 8, 3), self.net, torch.zeros(8, 4), UNIT, **TOLERANCES)
        return nn.functional.softplus(-self.head(z[-1])).mean()


class LatentSde(nn.Module):
    """torchsde's latent_sde: posterior drift and prior drift by `names`, the divergence of paths by `logqp`."""

    noise_type, sde_type = "diagonal", "ito"

    def __init__(self) -> None:
        super().__init__()
        self.net, self.scale = mlp(1, 1), nn.Parameter(torch.tensor(0.3))

    def posterior(self, t: Tensor, y: Tensor) -> Tensor:
        return 3 * self.net(y)

    def prior(self, t: Tensor, y: Tensor) -> Tensor:
        return -y

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        return self.scale.expand_as(y)

    def loss(self, by: Any, step: int) -> Tensor:
        torch.manual_seed(step)
        names = {"drift": "posterior", "prior_drift": "prior"}
        y, kl = by.sdeint(self, data(step, 8, 1), FIFTHS, dt=0.1, method="srk", names=names, logqp=True, bm=path(8, 2))
        return y.square().mean() + 0.01 * kl.sum(0).mean()


class LatentSdeLorenz(LatentSde):
    """latent_sde_lorenz: a context for the posterior drift, adaptive steps, the adjoint."""

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        return self.posterior(t, y) + self.context

    h = LatentSde.prior

    def loss(self, by: Any, step: int) -> Tensor:
        self.context = data(step, 8, 1)
        adjoint = tuple(self.parameters())
        how = {"dt": 0.05, "method": "milstein", "adaptive": True, "rtol": 1e-2, "atol": 1e-2, "logqp": True}
        y, kl = by.sdeint_adjoint(self, data(step, 8, 1), FIFTHS, adjoint_params=adjoint, bm=path(8, 2), **how)
        return y.square().mean() + 0.01 * kl.sum(0).mean()


class SdeGan(nn.Module):
    """sde_gan's generator: a Stratonovich equation by f_and_g, the reversible Heun method and its adjoint."""

    noise_type, sde_type = "diagonal", "stratonovich"

    def __init__(self) -> None:
        super().__init__()
        self.drift, self.diffusion, self.readout = mlp(4, 3), mlp(1, 3), nn.Linear(3, 1)

    def f_and_g(self, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        noise = self.diffusion(t.expand(len(y), 1)) * (0.5 + y.sigmoid())
        return self.drift(torch.cat([t.expand(len(y), 1), y], 1)), noise

    def loss(self, by: Any, step: int) -> Tensor:
        y = by.sdeint_adjoint(self, data(step, 8, 3), FIFTHS, dt=0.25, method="reversible_heun", bm=path(8, 3))
        return (self.readout(y[-1]).mean() - math.pi).square()


def path(*size: int) -> torchsde.BrownianInterval:
    return torchsde.BrownianInterval(0.0, 1.0, size=size, entropy=1, levy_area_approximation="space-time")


ODES = (Ode, OdeNet, LatentOde, OdeRnn, Cnf, Ffjord, BouncingBall, GraphOde, Checkpointed, Cde)
SDES = (LatentSde, LatentSdeLorenz, SdeGan)
