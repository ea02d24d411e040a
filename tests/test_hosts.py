"""The closed boxes: torchdiffeq is left exactly as it is, and its steps are written down."""

from __future__ import annotations

import pytest
import torch
import torchdiffeq
from conftest import Counting
from torch import Tensor
from torchdiffeq._impl.dopri5 import _DORMAND_PRINCE_SHAMPINE_TABLEAU

from regnde import SolverError, error_ratio, make_regularizer, odeint_solve, rk_step, sdeint_solve, solve_ode
from regnde.hosts.with_torchdiffeq import HOST_TABLEAUS
from regnde.penalties import menu as regularizers
from reproduce.models.fields import TimeMLP

T = torch.linspace(0.0, 1.5, 8, dtype=torch.float64)
TOLERANCES = {"rtol": 1e-6, "atol": 1e-6}
per_gradient = pytest.mark.parametrize("gradient", ["backprop", "adjoint"])
per_direction = pytest.mark.parametrize("t", [T, T.flip(0)], ids=["forward", "backward"])


def test_the_tableau_of_the_host_is_the_one_that_torchdiffeq_uses() -> None:
    theirs, ours = _DORMAND_PRINCE_SHAMPINE_TABLEAU, HOST_TABLEAUS["dopri5"]
    torch.testing.assert_close(torch.tensor(ours.b_error, dtype=torch.float64), theirs.c_error, rtol=1e-13, atol=1e-16)
    torch.testing.assert_close(torch.tensor(ours.b, dtype=torch.float64), theirs.c_sol, rtol=1e-14, atol=1e-16)


@pytest.mark.slow
@per_gradient
@per_direction
@pytest.mark.parametrize("method", HOST_TABLEAUS)
def test_a_recorded_solve_is_bit_identical_to_the_plain_one(
    gradient: str, t: Tensor, method: str, mlp: Counting, y0: Tensor
) -> None:
    plain = torchdiffeq.odeint(mlp.f, y0, t, method=method, **TOLERANCES)
    recorded = odeint_solve(mlp, y0, t, method=method, gradient=gradient, **TOLERANCES)
    assert torch.equal(recorded.y, plain)
    assert recorded.trace.nfe == mlp.calls


@per_gradient
@per_direction
def test_asking_for_a_sampled_time_changes_neither_steps_nor_states(
    gradient: str, t: Tensor, mlp: Counting, y0: Tensor
) -> None:
    plain = odeint_solve(mlp, y0, t, gradient=gradient, **TOLERANCES)
    for u in (0.7, t[0].item(), t[3].item(), t[-1].item()):
        sampled = odeint_solve(mlp, y0, t, gradient=gradient, sampled_t=torch.tensor([u]), **TOLERANCES)
        assert torch.equal(sampled.trace.dt, plain.trace.dt)
        assert torch.equal(sampled.y, plain.y)
        assert sampled.sampled_y is not None
        exact = solve_ode(mlp, y0, t, rtol=1e-10, atol=1e-10, sampled_t=torch.tensor([u]))
        torch.testing.assert_close(sampled.sampled_y, exact.sampled_y, rtol=1e-4, atol=1e-4)


@per_direction
@pytest.mark.parametrize("method", ["dopri5", "bosh3"])
def test_the_trace_agrees_with_replayed_steps_and_with_our_own_loop(
    t: Tensor, method: str, mlp: Counting, y0: Tensor
) -> None:
    host = odeint_solve(mlp, y0, t, method=method, **TOLERANCES)
    trace = host.trace
    for start, dt, y, ratio in zip(trace.t, trace.dt, trace.y, trace.error_ratio, strict=True):
        step = rk_step(mlp, start.item(), y, dt.item(), host.tableau)
        assert error_ratio(step.error, y, step.y1, **TOLERANCES).item() == pytest.approx(ratio.item(), rel=1e-7)
    own = solve_ode(mlp, y0, t, method=host.tableau, **TOLERANCES)
    n = own.trace.accepted  # the host's last step may end after the interval, and be tried again for that
    torch.testing.assert_close(own.trace.t, trace.t[:n], rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(own.trace.error_ratio[:-1], trace.error_ratio[: n - 1], rtol=1e-5, atol=1e-12)


@per_gradient
@pytest.mark.parametrize("name", ["local_unbiased", "local_biased"])
def test_local_penalties_work_with_any_gradient_method_and_train_the_field(gradient: str, name: str) -> None:
    torch.manual_seed(0)
    f, y0 = TimeMLP((3, 16, 3)).double(), torch.ones(2, 3, dtype=torch.float64)
    regularizer, rng = make_regularizer(name), torch.Generator().manual_seed(0)
    t, sampled_t = regularizer.times(T, rng)
    solution = odeint_solve(f, y0, t, gradient=gradient, sampled_t=sampled_t if len(sampled_t) else None, **TOLERANCES)
    assert regularizer.penalty is not None
    regularizer.penalty(solution, rng).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in f.layers[0].parameters())


def test_the_recorded_error_ratio_carries_a_gradient_with_backpropagation(mlp: Counting, y0: Tensor) -> None:
    solution = odeint_solve(mlp, y0, T, records=frozenset({"error_ratio"}), **TOLERANCES)
    penalty = regularizers.global_error().penalty
    assert penalty is not None
    penalty(solution, torch.Generator()).backward()
    own = solve_ode(mlp, y0, T, method=solution.tableau, records=frozenset({"error_ratio"}), **TOLERANCES)
    assert own.trace.error_ratio.requires_grad
    assert mlp.f.layers[0].linear.weight.grad.abs().sum() > 0  # type: ignore[union-attr, operator]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "tsit5"}, "unknown method 'tsit5'.*dopri5"),
        ({"method": "rk4"}, "'rk4' takes fixed steps.*'dopri5', or LocalPenalty"),
        ({"event_fn": lambda t, y: y.sum()}, r"unknown argument 'event_fn'.*local\.odeint_event"),
        ({"adjoint_rtol": 1e-3}, "unknown argument 'adjoint_rtol': it belongs to gradient='adjoint'"),
        ({"tol": 1e-3}, r"unknown argument 'tol': known are \[\]"),
        ({"gradient": "magic"}, "unknown gradient 'magic'.*adjoint.*backprop"),
        ({"gradient": "adjoint", "records": frozenset({"error_ratio"})}, "global.*local_unbiased or local_biased"),
        ({"records": frozenset({"stiffness"})}, "use solve_ode"),
        ({"options": {"norm": torch.linalg.vector_norm}}, "taken by the recorder"),
        ({"rtol": -1.0}, "rtol"),
        ({"f": lambda t, y: y, "gradient": "adjoint"}, "nn.Module"),
    ],
)
def test_bad_input_is_refused_before_any_evaluation(
    changes: dict[str, object], message: str, mlp: Counting, y0: Tensor
) -> None:
    arguments = {"f": mlp, **TOLERANCES, **changes}
    with pytest.raises(ValueError, match=message):
        odeint_solve(arguments.pop("f"), y0, T, **arguments)  # type: ignore[arg-type]
    assert mlp.calls == 0


def test_a_state_tuple_is_refused_with_what_takes_it(mlp: Counting, y0: Tensor) -> None:
    with pytest.raises(ValueError, match=r"state tuple: join its parts in one tensor, or use LocalPenalty"):
        odeint_solve(mlp, (y0, y0), T, **TOLERANCES)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"logqp": True}, r"unknown argument 'logqp'.*local\.sdeint"),
        ({"extra": True}, "unknown argument 'extra'"),
        ({"names": {"drift": "h"}}, "unknown argument 'names': give an SDE whose methods are called f and g"),
        ({"adjoint_method": "euler"}, "it belongs to gradient='adjoint'"),
        ({"dt": float("inf")}, "dt must be positive and finite, found inf"),
    ],
)
def test_what_sdeint_solve_has_no_place_for_is_refused_by_name(changes: dict[str, object], message: str) -> None:
    sde, arguments = torch.nn.Module(), {"dt": 0.1, **TOLERANCES, **changes}
    sde.f = sde.g = lambda t, y: y  # type: ignore[assignment]
    sde.noise_type, sde.sde_type = "diagonal", "ito"  # type: ignore[assignment]
    with pytest.raises(ValueError, match=message):
        sdeint_solve(sde, torch.ones(2, 2), T, **arguments)  # type: ignore[arg-type]


def test_when_torchdiffeq_gives_up_the_error_says_so() -> None:
    y0 = torch.ones(1, 1, dtype=torch.float64)
    with pytest.raises(SolverError, match="torchdiffeq gave up"):
        odeint_solve(lambda t, y: y**2, y0, torch.tensor([0.0, 2.0]), **TOLERANCES)
