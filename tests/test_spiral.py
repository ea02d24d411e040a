"""The spiral: its data fix a trajectory, and not what a field on it costs (lesson 05)."""

from __future__ import annotations

import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

from regnde import solve_ode
from reproduce import experiments
from reproduce.data.spiral import cubic_field


def test_a_field_with_the_trajectory_of_the_spiral_can_cost_less_than_its_equation() -> None:
    budget = experiments.get("spiral_ode").budget("quick")
    y0, t, _ = experiments.get("spiral_ode").problem(budget, "test").test_batches("train")[0]
    grid = torch.linspace(0, float(t[-1]), 2001, dtype=torch.float64)
    trajectory = CubicSpline(grid, solve_ode(cubic_field, y0.double(), grid, rtol=1e-11, atol=1e-11).y[:, 0])

    def by_time(t: Tensor, y: Tensor) -> Tensor:
        return torch.as_tensor(trajectory(float(t), 1)).expand_as(y)

    true, other = (
        solve_ode(f, y0.double(), t, rtol=budget.rtol, atol=budget.atol, method=budget.method)
        for f in (cubic_field, by_time)
    )
    assert (true.y - other.y).abs().max() < 1e-4
    assert other.trace.nfe < 0.9 * true.trace.nfe
