"""Gradients for the output times; what is a constant of a solve refuses to be differentiated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import Counting
from test_second_derivatives import DOUBLE, THETA, TOLERANCES, Y0, T, diffusion, drift, per_gradient
from torch import Tensor, nn
from torch.autograd import grad
from torch.autograd.functional import hessian

from regnde import SRI_TABLEAUS, TABLEAUS, Solution, odeint_solve, sdeint_solve, solve_ode, solve_sde
from regnde import make_regularizer as make
from regnde.solvers.sri_steps import sri_step
from regnde.solvers.steps import rk_step


def times(*t: float) -> Tensor:
    return torch.tensor(t, dtype=DOUBLE, requires_grad=True)


class Decay(nn.Module):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return -y


HOWS: dict[str, Callable[..., Solution]] = {
    "backprop": solve_ode,
    "checkpoint": lambda *args, **more: solve_ode(*args, gradient="checkpoint", parameters=[], **more),
    "torchdiffeq": odeint_solve,
}


@pytest.mark.parametrize("how", [*HOWS, "adjoint"])
def test_the_gradient_for_start_and_end_of_a_decay_is_its_speed_at_the_end(how: str) -> None:
    t, solve = times(0.0, 1.0), HOWS.get(how, odeint_solve)
    more = {"gradient": "adjoint"} if how == "adjoint" else {}
    y = solve(Decay(), torch.ones(1, 1, dtype=DOUBLE), t, rtol=1e-9, atol=1e-9, **more).y
    (found,) = grad(y[-1].sum(), t)
    speed = torch.tensor(-1.0, dtype=DOUBLE).exp()
    torch.testing.assert_close(found, torch.stack([speed, -speed]), rtol=1e-7, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("method", list(TABLEAUS))
@pytest.mark.parametrize("how", list(HOWS))
def test_the_gradient_for_all_output_times_agrees_with_that_of_other_times(
    how: str, method: str, backward: bool
) -> None:
    if how == "torchdiffeq" and method != "dopri5":
        pytest.skip("torchdiffeq has no tsit5, and its dense output of bosh3 is too coarse for this tolerance")
    at, weights = (
        (0.0, 0.31, 0.35, 0.9, 1.4),
        torch.randn(5, 1, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)),
    )
    at = at[::-1] if backward else at
    tight = {"rtol": 1e-9, "atol": 1e-9}

    def value(t: Tensor, solve: Callable[..., Solution] = solve_ode, **more: Any) -> Tensor:
        return (solve(drift(THETA), Y0, t, **tight, **more).y * weights).sum()

    t = times(*at)
    (found,) = grad(value(t, HOWS[how], method=method), t)
    around = 1e-4 * torch.eye(5, dtype=DOUBLE)
    differences = torch.stack([(value(t.detach() + e) - value(t.detach() - e)) / 2e-4 for e in around])
    torch.testing.assert_close(found, differences, rtol=1e-4, atol=1e-4)


@per_gradient
def test_the_hessian_for_times_and_state_together_is_symmetric_and_right(gradient: str) -> None:
    named = {} if gradient == "backprop" else {"parameters": []}

    def slope(z: Tensor) -> Tensor:
        """The logistic equation, whose solution at t1 from (t0, y0) is known."""
        f = lambda t, y: y * (1 - y)  # noqa: E731
        y = solve_ode(f, z[2:].view(1, 1), z[:2], rtol=1e-10, atol=1e-10, gradient=gradient, **named).y
        return y[-1].square().sum()

    def exact(z: Tensor) -> Tensor:
        return (z[2] / (z[2] + (1 - z[2]) * torch.exp(z[0] - z[1]))).square()

    z = torch.tensor([0.2, 1.1, 0.3], dtype=DOUBLE)
    found = hessian(slope, z)
    torch.testing.assert_close(found, found.T, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found, hessian(exact, z), rtol=1e-5, atol=1e-5)


def test_times_with_a_gradient_change_no_value_and_no_count(mlp: Counting, y0: Tensor) -> None:
    plain, asked = (solve_ode(mlp, y0, t, **TOLERANCES) for t in (T, T.clone().requires_grad_()))
    assert torch.equal(plain.y, asked.y)
    assert plain.trace.nfe == asked.trace.nfe


@pytest.mark.parametrize("name", ["steer", "local_unbiased"])
def test_regularizers_that_draw_times_leave_the_gradient_of_the_output_times(name: str) -> None:
    t, rng = times(0.0, 1.0), torch.Generator().manual_seed(0)
    moved, sampled_t = make(name).times(t, rng)
    y = solve_ode(Decay(), torch.ones(1, 1, dtype=DOUBLE), moved, sampled_t=sampled_t, **TOLERANCES).y
    (found,) = grad(y[-1].sum(), t)
    assert found.sum().item() == pytest.approx(0.0, abs=1e-6)  # a decay does not know when it begins
    assert found[0] > 0.1


ONE = torch.tensor([0.5], dtype=DOUBLE, requires_grad=True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sampled_t", ONE),
        ("step_sizes", ONE.expand(2)),
        ("step_sizes", [ONE[0], 0.5]),
        ("first_step", ONE[0]),
        ("t", [0.0, ONE[0]]),
        ("rtol", ONE[0]),
        ("atol", ONE[0]),
    ],
)
def test_a_constant_of_the_solve_that_requires_a_gradient_is_refused_by_name(
    name: str, value: Any, mlp: Counting, y0: Tensor
) -> None:
    for solve in (solve_ode,) if name in ("step_sizes", "first_step") else (solve_ode, odeint_solve):
        with pytest.raises(ValueError, match=rf"{name} requires a gradient.*pass {name}\.detach"):
            solve(mlp, y0, **{"t": T, **TOLERANCES, name: value})
    assert mlp.calls == 0


def test_times_with_a_gradient_are_refused_where_they_would_get_none(mlp: Counting, y0: Tensor) -> None:
    class Noisy:
        noise_type, sde_type = "diagonal", "ito"
        f = g = staticmethod(mlp)

    t = T.clone().requires_grad_()
    with pytest.raises(ValueError, match="t requires a gradient"):
        solve_sde(mlp, mlp, y0, t, **TOLERANCES)
    with pytest.raises(ValueError, match="t requires a gradient"):
        sdeint_solve(Noisy(), y0, t, dt=0.1, **TOLERANCES)
    with pytest.raises(ValueError, match="the integral of a rate has none"):
        solve_ode(mlp, y0, t, rate=lambda f, t, y, dy: dy.sum(), **TOLERANCES)
    assert mlp.calls == 0


@pytest.mark.parametrize("name", ["dt", "w", "u"])
def test_one_step_refuses_a_gradient_for_its_size_and_its_noise_by_name(name: str) -> None:
    given = {"dt": 0.1, "w": Y0, "u": Y0, name: ONE}
    with pytest.raises(ValueError, match=rf"{name} requires a gradient"):
        sri_step(drift(THETA), diffusion(THETA), 0.0, Y0, tableau=SRI_TABLEAUS["sosri"], **given)
    if name == "dt":
        with pytest.raises(ValueError, match="dt requires a gradient"):
            rk_step(drift(THETA), 0.0, Y0, ONE, TABLEAUS["tsit5"])  # type: ignore[arg-type]
