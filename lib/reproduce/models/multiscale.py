"""Images to logits through an ODE on several resolutions at once, into which the image is injected."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional

from regnde import Solution
from reproduce.models.solve import Solve

Scales = Sequence[Tensor]
"""One tensor for each resolution, the finest first: (batch, channels, side / 2^i, side / 2^i)."""


class Branch(nn.Module):
    """What happens at one resolution: relu(norm(conv(relu(conv(y))) + y + x)), with the injected image x."""

    def __init__(self, channels: int, *, expand: int, groups: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, expand * channels, 3, padding=1)
        self.second = nn.Conv2d(expand * channels, channels, 3, padding=1)
        self.norm = nn.GroupNorm(groups, channels)

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        """Map state and injected image, each (batch, channels, side, side), to features of the same shape."""
        return functional.relu(self.norm(self.second(functional.relu(self.first(y))) + y + x))


class Rescale(nn.Module):
    """Features of one resolution for another one: convolutions of stride 2 down, copies of pixels up."""

    def __init__(self, channels: int, *, levels: int) -> None:
        super().__init__()
        down = [nn.Conv2d(channels, channels, 3, stride=2, padding=1) for _ in range(levels)]
        up = [nn.Conv2d(channels, channels, 1), nn.Upsample(scale_factor=2**-levels)] if levels < 0 else []
        self.layers = nn.Sequential(*down, *up)

    def forward(self, z: Tensor) -> Tensor:
        """Map (batch, channels, side, side) to the side divided by 2^levels (multiplied, where levels < 0)."""
        out: Tensor = self.layers(z)
        return out


class MultiscaleField(nn.Module):
    """The dynamics dy/dt = F(y; x): branches, every one fused with all others, a convolution and a norm.

    Norms are those of groups of channels of one image (Wu, He 2018): they mix no images, and evaluating is as training.
    They come behind the injection only, so that no norm sees zeros, near which it is steep, where a state starts at 0.

    Args:
        channels: of each branch; a multiple of `groups`.
        branches: number of resolutions.
        expand: factor of channels inside a branch.
        groups: of channels in a norm.
    """

    def __init__(self, channels: int, *, branches: int, expand: int, groups: int) -> None:
        super().__init__()
        scales = range(branches)
        self.branches = nn.ModuleList(Branch(channels, expand=expand, groups=groups) for _ in scales)
        self.fuse = nn.ModuleList(
            nn.ModuleList(nn.Identity() if i == j else Rescale(channels, levels=i - j) for j in scales) for i in scales
        )
        self.post = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, channels, 1), nn.GroupNorm(groups, channels)) for _ in scales
        )

    def forward(self, y: Scales, x: Scales) -> list[Tensor]:
        """Map states and injected images of all resolutions to the derivatives of the states."""
        z = [branch(yi, xi) for branch, yi, xi in zip(self.branches, y, x, strict=True)]
        fused = [reduce(torch.add, [to(zj) for to, zj in zip(row, z, strict=True)]) for row in self.fuse]  # type: ignore[call-overload]
        return [post(both) for post, both in zip(self.post, fused, strict=True)]


class Injected(nn.Module):
    """The field of one solve: f(t, y) = F(y; x) on a flattened state, with the images of one batch injected.

    Backpropagation gives the images their gradient; a method that knows a field by its parameters would not.
    """

    def __init__(self, field: nn.Module, x: Scales) -> None:
        super().__init__()
        self.field, self.x = field, tuple(x)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """Map a 0-d time and a state (batch, d) to its derivative (batch, d); it does not depend on the time."""
        return flat(self.field(self.unflat(y), self.x))

    def unflat(self, y: Tensor) -> list[Tensor]:
        """Cut a flattened state (batch, d) into that of each resolution."""
        parts = y.split([xi[0].numel() for xi in self.x], dim=1)
        return [part.reshape(xi.shape) for part, xi in zip(parts, self.x, strict=True)]


def flat(scales: Scales) -> Tensor:
    """Join all resolutions into one vector for each image, (batch, d)."""
    return torch.cat([zi.flatten(1) for zi in scales], dim=1)


class MultiscaleODEClassifier(nn.Module):
    """A multiscale neural ODE with input injection: after Bai et al. 2020 and Pal et al. 2023, section 4.1, and tiny.

    The image is encoded by a convolution, norm and relu. The ODE over [0, 1] starts from the encoded image at the
    finest resolution and from zeros at the others, and the encoded image, pooled to each resolution, is injected at
    every evaluation. A convolution, relu and the mean over pixels make features of each branch, a linear layer logits.

    Interval, start, and dy/dt = F(y; x) without a decay -y are those of the papers' released code. Left out of its
    architecture: batch norm with the statistics of the batch at hand even in a prediction (here norms of groups),
    dropout, further norms in a branch, a second encoding convolution, and the residual heads (here one convolution
    each). It injects the image at the finest resolution only.

    Args:
        side: height and width of the images, a multiple of 2^(branches - 1).
        n_classes: number of classes.
        channels, branches, expand, groups: see MultiscaleField.

    Raises:
        ValueError: sizes that do not fit.
    """

    def __init__(self, *, side: int, n_classes: int, channels: int, branches: int, expand: int, groups: int) -> None:
        super().__init__()
        if side % 2 ** (branches - 1) or channels % groups:
            raise ValueError(
                f"side must be a multiple of 2^(branches - 1) = {2 ** (branches - 1)} and channels one of groups = "
                f"{groups}, found side = {side}, channels = {channels}"
            )
        self.encoder = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.GroupNorm(groups, channels), nn.ReLU())
        self.dynamics = MultiscaleField(channels, branches=branches, expand=expand, groups=groups)
        self.features = nn.ModuleList(nn.Conv2d(channels, 2 * channels, 3, padding=1) for _ in range(branches))
        self.head = nn.Linear(branches * 2 * channels, n_classes)
        self.t = torch.tensor([0.0, 1.0], dtype=torch.float64)

    def forward(self, x: Tensor, solve: Solve, noise: torch.Generator | None = None) -> tuple[Tensor, Solution]:
        """Map images (batch, 3, side, side) to logits (batch, n_classes) and the solve behind them."""
        encoded: Tensor = self.encoder(x)
        scales = [functional.avg_pool2d(encoded, 2**i) for i in range(len(self.features))]
        field = Injected(self.dynamics, scales)
        solution = solve(field, flat([encoded, *map(torch.zeros_like, scales[1:])]), self.t)
        ends = field.unflat(solution.y[-1])
        pooled = [functional.relu(conv(end)).mean((2, 3)) for conv, end in zip(self.features, ends, strict=True)]
        return self.head(torch.cat(pooled, dim=1)), solution
