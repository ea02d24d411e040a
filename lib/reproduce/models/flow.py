"""Continuous normalizing flows: the log-density of data is a solution of an ODE (FFJORD, Grathwohl et al. 2019)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from regnde import Rate, Solution
from reproduce.models.fields import TimeLinear, TimeMLP
from reproduce.models.losses import standard_normal_log_density
from reproduce.models.solve import Solve

TRACES = ("exact", "hutchinson")
DATA_TO_BASE = torch.tensor([0.0, 1.0], dtype=torch.float64)
"""Data lie at t = 0, the standard normal base at t = 1."""


def velocity_and_tangent(mlp: TimeMLP, t: Tensor, z: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
    """Return v(t, z) and its derivative along e, J e, both (batch, d), J = dv/dz, in one pass through the layers.

    The pass carries value and tangent side by side (forward mode written out), so that the product costs about one
    further evaluation and is differentiated by the ordinary backward pass.
    """
    last = len(mlp.layers) - 1
    for i, layer in enumerate(mlp.layers):
        z, e = layer(t, z), functional.linear(e, weight_of(layer))  # (batch, width)
        if i < last:
            z = torch.tanh(z)
            e = (1 - z * z) * e
    return z, e


def velocity_and_trace(mlp: TimeMLP, t: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Return v(t, z), (batch, d), and the exact trace of its Jacobian, (batch, 1), in closed form.

    With slopes s = 1 - tanh^2 of the hidden layers: tr(W2 diag(s) W1) for one hidden layer, and
    tr(W3 diag(s2) W2 diag(s1) W1) for two. The parts that hold weights alone are formed first, so that no Jacobian is.
    """
    slopes = []
    for layer in mlp.layers[:-1]:
        z = torch.tanh(layer(t, z))
        slopes.append(1 - z * z)  # (batch, hidden)
    first, *between, out = (weight_of(layer) for layer in mlp.layers)
    if not between:
        trace = slopes[0] @ (first * out.T).sum(1, keepdim=True)
    else:
        trace = ((slopes[1] @ (between[0] * (first @ out).T)) * slopes[0]).sum(1, keepdim=True)
    return mlp.layers[-1](t, z), trace


def weight_of(layer: nn.Module) -> Tensor:
    """Return what a layer of a TimeMLP does to its input, (d_out, d_in), without its column for the time."""
    assert isinstance(layer, TimeLinear)
    return layer.linear.weight[:, :-1]


class Augmented(nn.Module):
    """The field of a flow with its log-density: d/dt (z, l) = (v(t, z), tr dv/dz), a state (batch, d + 1).

    l is the logarithm of the volume that the flow has gained since the start. One such field is made for one solve:
    its noise is the same in all evaluations, so that the solver sees one smooth equation.

    Args:
        velocity: v, tanh between its layers; one or two hidden layers.
        eps: noise (batch, d) with mean 0 and covariance I for Hutchinson's estimate eps^T J eps; None: exact trace.

    Raises:
        ValueError: a velocity of another depth, with a last tanh, or with other widths at its ends.
    """

    def __init__(self, velocity: TimeMLP, eps: Tensor | None = None) -> None:
        super().__init__()
        check_velocity(velocity)
        self.velocity, self.eps = velocity, eps

    def forward(self, t: Tensor, state: Tensor) -> Tensor:
        """Map a 0-d time and a state (batch, d + 1) to its derivative (batch, d + 1)."""
        z = state[:, :-1]
        if self.eps is None:
            return torch.cat(velocity_and_trace(self.velocity, t, z), 1)
        v, tangent = velocity_and_tangent(self.velocity, t, z, self.eps)
        return torch.cat([v, (self.eps * tangent).sum(1, keepdim=True)], 1)

    def rate_of(self, rate: Rate) -> Rate:
        """Return the rate of the path of z alone, as Finlay et al. 2020 define it: the log-density is no part of it."""

        def of_path(f: Callable[[Tensor, Tensor], Tensor], t: Tensor, state: Tensor, derivative: Tensor) -> Tensor:
            return rate(self.velocity, t, state[:, :-1], derivative[:, :-1])

        return of_path


def check_velocity(velocity: TimeMLP) -> None:
    """Raise ValueError if a flow cannot be made of this field (see `Augmented`)."""
    layers = velocity.layers
    if len(layers) not in (2, 3) or velocity.output_tanh:
        raise ValueError(
            "the trace is known in closed form for one or two hidden layers without a last tanh: expected 2 or 3 "
            f"layers, found {len(layers)}, output_tanh={velocity.output_tanh}"
        )
    d_in, d_out = weight_of(layers[0]).shape[1], weight_of(layers[-1]).shape[0]
    if d_in != d_out:
        raise ValueError(f"a velocity has the shape of the state: expected {d_in} outputs, found {d_out}")


class Flow(nn.Module):
    """A density on R^d: data, standardized, flow from t = 0 to a standard normal base at t = 1.

    log p(x) = log N(z(1); 0, I) + l(1) - sum log scale, with z(0) = (x - center) / scale and (z, l) from `Augmented`.
    Samples are made the other way: from the base at t = 1 back to t = 0.

    Args:
        velocity: the field v of the flow (see `Augmented`).
        center, scale: (d,), subtracted from the data, then divided by; scales are positive.
        trace: 'hutchinson' or 'exact' while training; an evaluation is always exact.

    Raises:
        ValueError: an unknown trace, or a center or scale that cannot be.
    """

    center: Tensor
    scale: Tensor

    def __init__(self, velocity: TimeMLP, *, center: Tensor, scale: Tensor, trace: str = "hutchinson") -> None:
        super().__init__()
        if trace not in TRACES:
            raise ValueError(f"unknown trace {trace!r}: expected one of {', '.join(TRACES)}")
        check_velocity(velocity)
        d = weight_of(velocity.layers[0]).shape[1]
        if center.shape != (d,) or scale.shape != (d,):
            raise ValueError(
                f"expected center and scale ({d},) for a velocity on R^{d}, found {tuple(center.shape)} and "
                f"{tuple(scale.shape)}"
            )
        if not (center.isfinite().all() and scale.isfinite().all() and (scale > 0).all()):
            raise ValueError(
                "expected a finite center and finite scales above 0 (a component that never varies has none)"
            )
        self.velocity, self.trace = velocity, trace
        self.register_buffer("center", center)
        self.register_buffer("scale", scale)
        self.t = DATA_TO_BASE

    @property
    def dynamics(self) -> Augmented:
        """The field with the exact trace, on states (batch, d + 1)."""
        return Augmented(self.velocity)

    def forward(self, x: Tensor, solve: Solve, noise: torch.Generator | None = None) -> tuple[Tensor, Solution]:
        """Map data (batch, d) to log-densities (batch,), in nats, and the solve behind them.

        Hutchinson's estimate, in training, draws its signs from `noise`: one vector for each image and solve.
        """
        z = (x - self.center) / self.scale  # (batch, d)
        estimated = self.training and self.trace == "hutchinson"
        field = Augmented(self.velocity, signs(z, noise) if estimated else None)
        solution = solve(field, torch.cat([z, z.new_zeros(len(z), 1)], 1), self.t)
        end = solution.y[-1]  # (batch, d + 1)
        return standard_normal_log_density(end[:, :-1]) + end[:, -1] - self.scale.log().sum(), solution

    def back(self, z: Tensor, solve: Solve) -> tuple[Tensor, Solution]:
        """Map points of the base (batch, d) to points of the data space (batch, d): the flow from t = 1 to t = 0."""
        solution = solve(self.dynamics, torch.cat([z, z.new_zeros(len(z), 1)], 1), self.t.flip(0))
        return solution.y[-1][:, :-1] * self.scale + self.center, solution


class Dequantized(nn.Module):
    """A flow of grey levels: levels (whole numbers) plus noise in [0, 1) are the points of its density.

    In training the noise is drawn anew for every batch; an evaluation takes the noise that comes with the images.
    """

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.flow = flow

    def forward(
        self, inputs: tuple[Tensor, Tensor], solve: Solve, noise: torch.Generator | None = None
    ) -> tuple[Tensor, Solution]:
        """Map (levels, u), both (batch, d), to log-densities (batch,) in nats, and the solve behind them."""
        levels, u = inputs
        if self.training:
            u = torch.rand(u.shape, generator=noise, dtype=u.dtype).to(u.device)
        return self.flow(levels + u, solve, noise)


def signs(z: Tensor, noise: torch.Generator | None) -> Tensor:
    """Return +1 and -1 with equal chances, of z's shape: the noise of Hutchinson's estimate with least variance."""
    return (2 * torch.randint(2, z.shape, generator=noise) - 1).to(z)


def sample(model: Flow, n: int, solve: Solve, *, noise: torch.Generator) -> Tensor:
    """Draw n points (n, d) from the density of a flow."""
    base = torch.randn(n, len(model.center), generator=noise, dtype=model.center.dtype)
    with torch.no_grad():
        return model.back(base.to(model.center.device), solve)[0]
