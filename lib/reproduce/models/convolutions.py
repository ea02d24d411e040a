"""Images to logits through an ODE whose field is a small convolutional network."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from regnde import Solution
from reproduce.models.solve import Solve

IN, AUGMENTED = 3, 5
"""Channels of an image, and those that a convolution adds to it: the state has eight."""


class TimeConv(nn.Module):
    """A 3 x 3 convolution, no bias, with the time as one more input channel: W * [y, t], without copying y.

    The time's channel is the same everywhere but for the zeros around the image, so its part of the result is t times
    a map that the weights alone fix.
    """

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(d_in + 1, d_out, 3, padding=1, bias=False)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """Map a 0-d time and y (batch, d_in, height, width) to (batch, d_out, height, width)."""
        weight = self.conv.weight  # (d_out, d_in + 1, 3, 3)
        ones = y.new_ones(1, 1, *y.shape[2:])
        of_time = functional.conv2d(ones, weight[:, -1:], padding=1)  # (1, d_out, height, width)
        return torch.addcmul(functional.conv2d(y, weight[:, :-1], padding=1), of_time, t)


class ConvField(nn.Module):
    """The dynamics f(t, y) on images of eight channels: three TimeConv, two of them with batch norm and gelu behind.

    While training, batch norm takes mean and deviation of the batch at hand, anew at every evaluation, those of a local
    penalty's step among them; so f is a function of the states of a whole batch, and a solve is that of one large
    equation. Every evaluation also moves the running averages, which are all that an evaluating model uses: its field
    is a function of t and one image alone. The averages mix all times of a solve, the last ones most.

    Args:
        hidden: channels between the convolutions.
        momentum: of the running averages, per evaluation of f.
    """

    def __init__(self, hidden: int, *, momentum: float = 0.1) -> None:
        super().__init__()
        d = IN + AUGMENTED
        self.layers = nn.ModuleList([TimeConv(d, hidden), TimeConv(hidden, hidden), TimeConv(hidden, d)])
        self.norms = nn.ModuleList(nn.BatchNorm2d(hidden, momentum=momentum) for _ in range(2))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """Map a 0-d time and a state (batch, 8, height, width) to its derivative, of the same shape."""
        for layer, norm in zip(self.layers, self.norms, strict=False):
            y = functional.gelu(norm(layer(t, y)), approximate="tanh")
        out: Tensor = self.layers[-1](t, y)
        return out


class ConvODEClassifier(nn.Module):
    """The CNN of Pal et al. 2023, section 4.1, after Poli et al. 2020: augment, solve an ODE over [0, 1], classify.

    Five more channels by a convolution, batch norm, the ODE, a convolution to one channel, gelu, a linear layer. Sizes
    of kernels, paddings, which layers have a bias, and gelu's form (by tanh) are those of the papers' released code.

    Args:
        side: height and width of the images.
        hidden: see ConvField.
        n_classes: number of classes.
        momentum: see ConvField.
    """

    def __init__(self, *, side: int, hidden: int, n_classes: int, momentum: float = 0.1) -> None:
        super().__init__()
        d = IN + AUGMENTED
        self.side = side
        self.augment = nn.Conv2d(IN, AUGMENTED, 3, padding=1)
        self.norm = nn.BatchNorm2d(d)
        self.dynamics = ConvField(hidden, momentum=momentum)
        self.reduce = nn.Conv2d(d, 1, 3, padding=1)
        self.head = nn.Linear(side**2, n_classes)
        self.t = torch.tensor([0.0, 1.0], dtype=torch.float64)

    def forward(self, x: Tensor, solve: Solve, noise: torch.Generator | None = None) -> tuple[Tensor, Solution]:
        """Map images (batch, 3, side, side) to logits (batch, n_classes) and the solve behind them.

        Raises:
            ValueError: images of another shape.
        """
        if x.shape[1:] != (IN, self.side, self.side):
            raise ValueError(f"expected images (batch, {IN}, {self.side}, {self.side}), found {tuple(x.shape)}")
        y0 = self.norm(torch.cat([x, self.augment(x)], dim=1))  # (batch, 8, side, side)
        solution = solve(self.dynamics, y0, self.t)
        features = functional.gelu(self.reduce(solution.y[-1]), approximate="tanh")  # (batch, 1, side, side)
        return self.head(features.flatten(1)), solution
