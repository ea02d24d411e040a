"""Right-hand sides: fields of ODEs, and SDEs made of two of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


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


class CubicMLP(nn.Module):
    """The field of the spiral: an MLP 2-hidden-2 with tanh on the cubes of the state (Chen et al. 2018)."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, hidden), nn.Tanh(), nn.Linear(hidden, 2))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """Map a 0-d time and a state (batch, 2) to its derivative (batch, 2)."""
        return self.net(y**3)


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
