"""One small element of each kind, for the tests of their values and of their pages."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import torch

from regnde import solve_ode
from reproduce import live
from reproduce.live import Element
from reproduce.models.latent import LatentODE


def stay() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A record of two variables over nine times: the second one is seen at every other time."""
    rng, mask = torch.Generator().manual_seed(0), torch.ones(9, 2)
    mask[1::2, 1] = 0.0
    return torch.rand(9, 2, generator=rng) * mask, mask, torch.linspace(0, 1, 9)


def latent_model() -> LatentODE:
    torch.manual_seed(0)
    return LatentODE(torch.tensor([0.4, 0.6]), hidden=8, recognition=6, state=4, initial_std=0.5)


def latent_paths() -> Element:
    def solve(f, y0, t):
        return solve_ode(f, y0, t, rtol=1e-4, atol=1e-4)

    columns = {"first": 0, "second": 1}
    return live.latent_paths(latent_model(), solve, stay(), columns, hours=(12, 48), components=2, shown=3, draws=10)


SMALL: dict[str, Callable[[], Element]] = {
    "one_step": lambda: live.one_step(sizes=(0.5, 1.5)),
    "tolerances": lambda: live.tolerances(methods=("tsit5", "bosh3"), at=(1e-2, 1e-3)),
    "draws": lambda: live.draws(at=(1e-2, 1e-4), numbers=(10, 1000)),
    "weights": lambda: live.weights(live.measured()[0]),
    "ways": lambda: live.ways(live.measured()[0]),
    "rejections": lambda: live.rejections(
        paths=3, ends={name: np.linspace(1, 5, 20) for name in ("path kept", "noise drawn anew")}
    ),
    "trajectories": lambda: live.trajectories(noises=(0.0, 0.2), numbers=(5, 20), shown=3),
    "memory": lambda: live.memory(steps=(2, 4)),
    "latent_paths": latent_paths,
}


@cache
def small(name: str) -> Element:
    """Return the small element of a name, made once."""
    return SMALL[name]()
