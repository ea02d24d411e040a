"""A density in two dimensions, small enough to be integrated on a grid: two moons, and a flow trained on them."""

from __future__ import annotations

import torch
from sklearn.datasets import make_moons
from torch import Tensor

from regnde import solve_ode
from reproduce.models.fields import TimeMLP
from reproduce.models.flow import Flow
from reproduce.models.solve import Solve


def two_moons(n: int, *, noise: float = 0.1, seed: int = 0) -> Tensor:
    """Return n points (n, 2), float64, on two half circles with normal noise (scikit-learn's make_moons)."""
    points, _ = make_moons(n, noise=noise, random_state=seed)
    return torch.from_numpy(points)


def fit_flow(
    points: Tensor, *, solve: Solve, hidden: int = 64, steps: int = 200, batch: int = 256, lr: float = 5e-2, seed: int
) -> Flow:
    """Train a flow on points (n, 2) with Hutchinson's estimate, Adam, and a learning rate that falls along a cosine.

    Args:
        points: data, (n, d).
        solve: solver and tolerance, in training.
        hidden: width of the one hidden layer.
        steps, batch, lr: of the training.
        seed: of the first weights, the batches and the noise of the estimate.
    """
    rng = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        velocity = TimeMLP((points.shape[1], hidden, points.shape[1])).to(points.dtype)
    flow = Flow(velocity, center=points.mean(0), scale=points.std(0))
    optimizer = torch.optim.Adam(flow.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        chosen = points[torch.randint(len(points), (batch,), generator=rng)]
        optimizer.zero_grad()
        (-flow(chosen, solve, rng)[0].mean()).backward()
        optimizer.step()
        schedule.step()
    return flow.eval()


def at(tolerance: float) -> Solve:
    """Return the solve with Tsit5 at one tolerance, relative and absolute."""
    return lambda f, y0, t: solve_ode(f, y0, t, rtol=tolerance, atol=tolerance)


def density_on_grid(flow: Flow, solve: Solve, *, low: float, high: float, n: int) -> tuple[Tensor, Tensor, float]:
    """Return a density in two dimensions on a grid, and the mass that it has there.

    Args:
        flow: of points (batch, 2).
        solve: solver and tolerance.
        low, high: ends of the square, in both directions.
        n: number of points in each direction, in the middles of n cells.

    Returns:
        The middles (n,), the densities (n, n) with the second coordinate along the rows, and the sum of densities times
        the area of a cell.

    Raises:
        ValueError: ends in the wrong order, fewer than two cells, or a flow of another dimension.
    """
    if not low < high or n < 2 or len(flow.center) != 2:
        raise ValueError(
            f"expected low < high, n of at least 2 and a flow on R^2, found {low}, {high}, {n}, R^{len(flow.center)}"
        )
    cell = (high - low) / n
    middles = low + cell * (torch.arange(n, dtype=flow.center.dtype) + 0.5)
    points = torch.stack(torch.meshgrid(middles, middles, indexing="xy"), -1).reshape(-1, 2)  # (n * n, 2)
    with torch.no_grad():
        density = flow(points, solve)[0].exp().view(n, n)
    return middles, density, float(density.sum()) * cell**2
