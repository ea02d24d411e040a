"""The latent ODE: a recognition network, dynamics of a small state, and a decoder for irregularly observed series."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from regnde import Solution
from reproduce.models.fields import Autonomous
from reproduce.models.solve import Solve


class Prediction(NamedTuple):
    """What a latent ODE says about a batch of series."""

    values: Tensor
    """Predicted values at all times, (batch, times, variables)."""
    mean: Tensor
    """Mean of the initial state given the observations, (batch, d)."""
    std: Tensor
    """Its standard deviation, (batch, d)."""


class Recognition(nn.Module):
    """Read a series of observations cell by cell into a mean and a standard deviation, gated together (GRU).

    In each cell, with the observations x (values, mask, time step) and the state (m, s):

        renew, reset = sigmoid of two networks of (m, s, x)
        (m', s')     = a network of (reset m, reset s, x); |s'| is taken
        m <- m + renew (m' - m),  s <- s + renew (s' - s)

    Each network has one hidden layer with tanh. A cell without any observation leaves the state as it is. The state
    starts as the prior of the latent variable, m = 0 and s = 1. Fused for speed: one product projects the inputs of all
    cells, and the networks of both gates are evaluated as one.

    Args:
        n_variables: of the series.
        hidden: width of the hidden layers.
        size: of m, and of s.

    Source: the GRU unit of Rubanova et al. 2019, appendix; Pal et al. 2023, whose code renews m with s' (not repeated).
    """

    def __init__(self, n_variables: int, *, hidden: int, size: int) -> None:
        super().__init__()
        self.size = size
        n_inputs = 2 * n_variables + 1
        self.gates_of_input, self.gates_of_state = nn.Linear(n_inputs, 2 * hidden), _product(2 * size, 2 * hidden)
        self.renew, self.reset = nn.Linear(hidden, size), nn.Linear(hidden, size)
        self.new_of_input, self.new_of_state = nn.Linear(n_inputs, hidden), _product(2 * size, hidden)
        self.new = nn.Linear(hidden, 2 * size)

    def forward(self, values: Tensor, mask: Tensor, t: Tensor) -> Tensor:
        """Read cells in the order given: values and mask (batch, times, variables), t (times,) to (batch, 2, size)."""
        x, seen = cell_inputs(values, mask, t)  # (times, batch, 2 variables + 1), (times, batch, 1, 1)
        n, size = len(values), self.size
        gates, new = self.gates_of_state.weight.t(), self.new_of_state.weight.t()
        both = torch.block_diag(self.renew.weight, self.reset.weight).t()  # (2 hidden, 2 size)
        both_bias = torch.cat([self.renew.bias, self.reset.bias])
        out, out_bias = self.new.weight.t(), self.new.bias
        state = torch.stack([x.new_zeros(n, size), x.new_ones(n, size)], 1)  # (batch, 2, size): m and s
        cells = zip(self.gates_of_input(x).unbind(), self.new_of_input(x).unbind(), seen.unbind(), strict=True)
        for of_gates, of_new, observed in cells:
            hidden = torch.addmm(of_gates, state.view(n, -1), gates).tanh()
            renew, reset = torch.addmm(both_bias, hidden, both).sigmoid().view(n, 2, 1, size).unbind(1)
            hidden = torch.addmm(of_new, (reset * state).view(n, -1), new).tanh()
            mean, std = torch.addmm(out_bias, hidden, out).view(n, 2, size).unbind(1)
            state = torch.lerp(state, torch.stack([mean, std.abs()], 1), observed * renew)
        return state


def _product(n_in: int, n_out: int) -> nn.Linear:
    return nn.Linear(n_in, n_out, bias=False)


def cell_inputs(values: Tensor, mask: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return what the cells of a recognition network read, and which of them hold an observation.

    The time step of a cell is the time since the last cell before it with an observation, 0 if there is none.

    Args:
        values, mask: (batch, times, variables), in the order of reading.
        t: times, (times,), increasing or decreasing.

    Returns:
        values, mask and time step, (times, batch, 2 variables + 1); 1 or 0, (times, batch, 1, 1).
    """
    seen = mask.amax(2).t()  # (times, batch)
    gone = (t - t[0]).abs().to(values)[:, None]  # (times, 1), since the first cell
    last = torch.where(seen > 0, gone, -1.0).cummax(0).values  # (times, batch), of the last observation so far
    before = torch.cat([torch.full_like(last[:1], -1.0), last[:-1]])
    step = torch.where(before < 0, 0.0, gone - before)
    x = torch.cat([values.transpose(0, 1), mask.transpose(0, 1), step[..., None]], dim=2)
    return x, seen[..., None, None]


def tanh_layers(widths: tuple[int, ...]) -> nn.Sequential:
    """Return linear layers of the given widths with tanh after each of them."""
    return nn.Sequential(*(layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.Tanh())))


class LatentODE(nn.Module):
    """Encode a series into a small state at its first time, let it follow an ODE, decode the state at every time.

    The recognition network reads backwards, so that it reads last what is nearest to the initial state. While training
    (`model.train()`) the initial state is drawn from its distribution, for predictions it is the mean.

    Two choices let training start well, and matter much (notebook 07): the decoder predicts `center` before it has
    learned anything, and the distribution of the initial state starts narrow, with about `initial_std`; with 1, the
    prior's, the signal drowns in noise for the first hundreds of steps.

    Args:
        center: what to predict for each variable at first, (variables,), for example its mean; not trained.
        hidden: width of the hidden layers of recognition and dynamics.
        recognition: size of mean and standard deviation in the recognition network.
        state: dimension d of the ODE's state.
        initial_std: standard deviation of the initial state before training, about.
        first_tanh: begin the dynamics with a tanh of the state, as the released code does and the paper does not say.

    Source: Rubanova et al. 2019, Latent ODEs for irregularly-sampled time series; Kelly et al. 2020 and Pal et al. 2023
    for the sizes.
    """

    def __init__(
        self, center: Tensor, *, hidden: int, recognition: int, state: int, initial_std: float, first_tanh: bool = False
    ) -> None:
        super().__init__()
        self.center: Tensor
        self.register_buffer("center", center.clone())
        self.initial_std = initial_std
        self.recognition = Recognition(len(center), hidden=hidden, size=recognition)
        self.to_state = nn.Sequential(*tanh_layers((2 * recognition, recognition)), nn.Linear(recognition, 2 * state))
        layers = tanh_layers((state, hidden) * 4 + (state,))
        self.dynamics = Autonomous(nn.Sequential(nn.Tanh(), *layers) if first_tanh else layers)
        self.decoder = nn.Linear(state, len(center))

    def encode(self, values: Tensor, mask: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the initial state, each (batch, d).

        Args:
            values: (batch, times, variables), 0 where nothing was observed.
            mask: 1 where something was observed, else 0, in the same shape.
            t: times, (times,), increasing.

        Raises:
            ValueError: shapes that do not fit.
        """
        _check(values, mask, t, len(self.center))
        read = self.recognition(values.flip(1), mask.flip(1), t.flip(0))  # (batch, 2, recognition)
        mean, log_std = self.to_state(read.flatten(1)).chunk(2, dim=1)
        return mean, self.initial_std * log_std.exp()

    def decode(self, y: Tensor) -> Tensor:
        """Map states (times, batch, d) to values (batch, times, variables)."""
        return (self.center + self.decoder(y)).transpose(0, 1)

    def forward(
        self, inputs: tuple[Tensor, Tensor, Tensor], solve: Solve, noise: torch.Generator | None = None
    ) -> tuple[Prediction, Solution]:
        """Map (values, mask, t), see `encode`, to predictions at all times and the solve behind them.

        `noise` draws the initial states while training; predictions use none.
        """
        values, mask, t = inputs
        mean, std = self.encode(values, mask, t)
        y0 = draw(mean, std, noise) if self.training else mean
        solution = solve(self.dynamics, y0, t)
        return Prediction(self.decode(solution.y), mean, std), solution


def draw(mean: Tensor, std: Tensor, noise: torch.Generator | None) -> Tensor:
    """Draw from independent normal distributions so that the gradient reaches both parameters (reparameterization).

    The noise is drawn on the device of its generator, and moved.
    """
    place = mean.device if noise is None else noise.device
    return mean + std * torch.randn(mean.shape, generator=noise, dtype=mean.dtype, device=place).to(mean.device)


def _check(values: Tensor, mask: Tensor, t: Tensor, n_variables: int) -> None:
    if values.ndim != 3 or values.shape[2] != n_variables:
        raise ValueError(f"values: expected (batch, times, {n_variables}), found {tuple(values.shape)}")
    if mask.shape != values.shape:
        raise ValueError(f"mask: expected the shape of the values, {tuple(values.shape)}, found {tuple(mask.shape)}")
    if t.shape != values.shape[1:2]:
        raise ValueError(f"t: expected one time for each of {values.shape[1]} cells, (times,), found {tuple(t.shape)}")
