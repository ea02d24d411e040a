"""The drop-in: a user's own torchdiffeq or torchsde call is left as it is, and its local penalty is what it says."""

from __future__ import annotations

import copy
import io
import warnings
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
import torchdiffeq
import torchsde
from conftest import Counting
from torch import Tensor, nn

from regnde import SOSRI2, LocalPenalty, LocalPenaltySDE, error_ratio, odeint_solve, rk_step, sri_step
from regnde.hosts.dropin import FIXED_STEP, METHODS
from reproduce.models.fields import TimeMLP

TOLERANCES = {"rtol": 1e-4, "atol": 1e-5}
FORWARD = torch.tensor([0.0, 0.3, 1.0, 1.7], dtype=torch.float64)
ADAPTIVE = [method for method in METHODS if method not in FIXED_STEP]
INTERFACES = {"odeint": torchdiffeq.odeint, "odeint_adjoint": torchdiffeq.odeint_adjoint}

per_interface = pytest.mark.parametrize("odeint", INTERFACES.values(), ids=INTERFACES)
per_direction = pytest.mark.parametrize("t", [FORWARD, FORWARD.flip(0)], ids=["forward", "backward"])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def around(f: Any, **settings: Any) -> LocalPenalty:
    return LocalPenalty(f, **{**TOLERANCES, "rng": generator(), **settings})


class Pair(nn.Module):
    """A field of a state tuple: y (4, 3) moves by the MLP, the second part integrates its square, 0-d."""

    def __init__(self, f: nn.Module) -> None:
        super().__init__()
        self.f = f

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        y, _ = state
        dy = self.f(t, y)
        return dy, dy.square().mean()


def flat(state: Any) -> Tensor:
    return torch.cat([part.reshape(-1) for part in state]) if isinstance(state, tuple) else state.reshape(-1)


def solved(odeint: Any, f: Any, y0: Any, t: Tensor, parameters: Any, **options: Any) -> tuple[list[Tensor], int]:
    """Return the solution with the gradient of its mean square, and how often the random numbers were used."""
    torch.manual_seed(0)
    found = odeint(f, y0, t, **{**TOLERANCES, **options})
    outputs = list(found) if isinstance(found, tuple) else [found]
    loss = sum(output.square().mean() for output in outputs)
    grads = torch.autograd.grad(loss, parameters)
    return [*outputs, *grads], int(torch.randint(2**60, ()))


def assert_same(odeint: Any, f: nn.Module, wrapped: nn.Module, y0: Any, t: Tensor, **options: Any) -> None:
    plain, after = solved(odeint, f, y0, t, list(f.parameters()), **options)
    with_penalty, after_penalty = solved(odeint, wrapped, y0, t, list(f.parameters()), **options)
    assert all(torch.equal(a, b) for a, b in zip(plain, with_penalty, strict=True))
    assert after == after_penalty, "the global random numbers were used"


@per_interface
@per_direction
@pytest.mark.parametrize("method", ADAPTIVE)
def test_an_adaptive_solve_and_its_gradient_stay_the_same_to_the_bit(
    odeint: Any, t: Tensor, method: str, mlp: Counting, y0: Tensor
) -> None:
    f = around(mlp, method=method)
    assert_same(odeint, mlp, f, y0, t, method=method)
    assert f.penalty(t).item() > 0


@per_interface
@pytest.mark.parametrize("method", FIXED_STEP)
def test_a_solve_of_fixed_steps_stays_the_same_to_the_bit_and_warns_of_nothing(
    odeint: Any, method: str, mlp: Counting, y0: Tensor
) -> None:
    f = around(mlp, method=method)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(odeint, mlp, f, y0, FORWARD, method=method, options={"step_size": 0.1})
    assert f.penalty(FORWARD).item() > 0


@per_interface
@per_direction
def test_a_state_tuple_stays_the_same_to_the_bit(odeint: Any, t: Tensor, mlp: Counting, y0: Tensor) -> None:
    pair, state = Pair(mlp), (y0, torch.zeros((), dtype=torch.float64))
    f = around(pair)
    assert_same(odeint, pair, f, state, t)
    assert f.penalty(t).item() > 0


@per_interface
@pytest.mark.parametrize(
    "options",
    [
        {"first_step": 0.01},
        {"jump_t": torch.tensor([0.5, 0.9])},
        {"step_t": torch.tensor([0.4])},
        {"max_step": 0.2},
        {"norm": lambda y: y.abs().max()},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_stay_the_same_to_the_bit(odeint: Any, options: dict[str, Any], mlp: Counting, y0: Tensor) -> None:
    f = around(mlp)
    assert_same(odeint, mlp, f, y0, FORWARD, method="dopri5", options=options)
    assert f.penalty(FORWARD).item() > 0


@per_interface
@pytest.mark.parametrize("reverse_time", [False, True])
def test_an_event_stays_the_same_to_the_bit_and_its_time_ends_the_penalty(
    odeint: Any, reverse_time: bool, mlp: Counting, y0: Tensor
) -> None:
    def to_the_event(f: nn.Module, y0: Tensor, t: Tensor, **tolerances: float) -> tuple[Tensor, Tensor]:
        return torchdiffeq.odeint_event(
            f,
            y0,
            t,
            event_fn=lambda t, y: (t.abs() - 1.3).sum() + 0.01 * y[0, 0],
            reverse_time=reverse_time,
            odeint_interface=odeint,
            **tolerances,
        )

    f, t0 = around(mlp), torch.tensor(0.0, dtype=torch.float64)
    assert_same(to_the_event, mlp, f, y0, t0)
    event_t, _ = to_the_event(f, y0, t0, **TOLERANCES)
    seen = times_seen(mlp)
    assert f.penalty(event_t).item() > 0
    assert max(abs(t) for t in seen) <= abs(event_t.item()) + 1e-12


def times_seen(f: nn.Module) -> list[float]:
    """Return a list that fills with the times at which a module is called."""
    seen: list[float] = []
    f.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].item()))
    return seen


@per_interface
@pytest.mark.parametrize("method", ["dopri5", "bosh3", "dopri8", "rk4"])
def test_a_penalty_costs_one_evaluation_for_each_stage_and_the_solve_not_one_more(
    odeint: Any, method: str, mlp: Counting, y0: Tensor
) -> None:
    options = {"step_size": 0.05} if method == "rk4" else None
    odeint(mlp, y0, FORWARD, method=method, options=options, **TOLERANCES)
    plain, mlp.calls = mlp.calls, 0
    f = around(mlp, method=method)
    odeint(f, y0, FORWARD, method=method, options=options, **TOLERANCES)
    assert mlp.calls == plain
    f.penalty(FORWARD)
    assert mlp.calls - plain == {"dopri5": 7, "bosh3": 4, "dopri8": 7, "rk4": 4}[method]


def by_hand(f: nn.Module, y0: Tensor, t: Tensor, method: str) -> list[Tensor]:
    """Return the error ratio of every accepted step of a solve, each taken again by hand, the last one cut off."""
    trace = odeint_solve(f, y0, t, method=method, **TOLERANCES).trace
    ratios = []
    for start, dt, y in zip(trace.t.tolist(), trace.dt.tolist(), trace.y, strict=True):
        rest = t[-1].item() - start
        step = rk_step(f, start, y, dt if abs(dt) < abs(rest) else rest, METHODS[method])
        ratios.append(error_ratio(step.error, y, step.y1, **TOLERANCES))
    return ratios


def nearest(value: Tensor, among: list[Tensor]) -> int:
    return min(range(len(among)), key=lambda i: abs(among[i].item() - value.item()))


@per_interface
@per_direction
@pytest.mark.parametrize("method", ["dopri5", "bosh3", "dopri8"])
def test_value_and_gradient_are_those_of_one_accepted_step_taken_by_hand(
    odeint: Any, t: Tensor, method: str, mlp: Counting, y0: Tensor
) -> None:
    parameters, candidates, drawn = list(mlp.parameters()), by_hand(mlp, y0, t, method), set()
    for seed in range(6):
        f = around(mlp, method=method, rng=generator(seed))
        y = odeint(f, y0, t, method=method, **TOLERANCES)
        penalty = f.penalty(t)
        i = nearest(penalty, candidates)
        torch.testing.assert_close(penalty, candidates[i], rtol=1e-12, atol=0)
        expected = torch.autograd.grad(candidates[i], parameters, retain_graph=True)
        torch.testing.assert_close(torch.autograd.grad(penalty, parameters), expected, rtol=1e-10, atol=1e-14)
        drawn.add(i)
        del y
    assert len(drawn) > 1


@per_interface
def test_loss_and_penalty_add_up_in_one_backward_pass(odeint: Any, mlp: Counting, y0: Tensor) -> None:
    f, parameters = around(mlp), list(mlp.parameters())
    loss = odeint(f, y0, FORWARD, **TOLERANCES)[-1].square().mean()
    penalty = f.penalty(FORWARD)
    of_loss = torch.autograd.grad(loss, parameters, retain_graph=True)
    of_penalty = torch.autograd.grad(penalty, parameters, retain_graph=True)
    (loss + 0.3 * penalty).backward()
    for parameter, a, b in zip(parameters, of_loss, of_penalty, strict=True):
        torch.testing.assert_close(parameter.grad, a + 0.3 * b)
    assert any(grad.abs().max() > 0 for grad in of_penalty)


@pytest.mark.parametrize("decides", [0, 1], ids=["first part decides", "second part decides"])
def test_of_a_state_tuple_the_part_with_the_largest_ratio_counts_as_torchdiffeq_measures(
    decides: int, mlp: Counting, y0: Tensor
) -> None:
    told: list[Tensor] = []

    def norm(scaled: tuple[Tensor, ...]) -> Tensor:
        told.append(torch.stack([part.square().mean().sqrt() for part in scaled]))
        return told[-1].max()

    of_parts = (1e-6, 1e-2) if decides == 0 else (1e-2, 1e-6)
    state, end = (y0, torch.zeros((), dtype=torch.float64)), torch.tensor([0.0, 0.05], dtype=torch.float64)
    f = around(Pair(mlp), rtol=of_parts, atol=of_parts)
    options = {"norm": norm, "first_step": 0.05}
    torchdiffeq.odeint(f, state, end, method="dopri5", options=options, rtol=of_parts, atol=of_parts)
    (ratios,) = told  # one step, which was accepted
    assert int(ratios.argmax()) == decides
    assert f.penalty(end).item() == pytest.approx(ratios.max().item(), rel=1e-6)


SIZES = (0.1, 0.2, 0.3, 0.9)
"""Of accepted steps from 0 on; the last one reaches beyond the end of the interval, 1."""


@pytest.mark.parametrize(
    ("sampling", "expected"), [("biased", (0.25, 0.25, 0.25, 0.25)), ("unbiased", (0.1, 0.2, 0.3, 0.4))]
)
@pytest.mark.parametrize("direction", [1.0, -1.0])
def test_the_draw_is_uniform_over_steps_if_biased_and_over_the_time_inside_the_interval_if_unbiased(
    sampling: str, expected: tuple[float, ...], direction: float
) -> None:
    calls: list[float] = []

    def field(t: Tensor, y: Tensor) -> Tensor:
        calls.append(t.item())
        return -y

    f, n = around(field, sampling=sampling, method="bosh3"), 3000
    starts = [direction * sum(SIZES[:i]) for i in range(4)]
    counts: Counter[int] = Counter()
    for _ in range(n):
        tell = f.callback_accept_step
        for start, size in zip(starts, SIZES, strict=True):
            tell(torch.tensor(start), torch.ones(1), torch.tensor(size))
        calls.clear()
        with torch.no_grad():
            f.penalty(direction)
        counts[min(range(4), key=lambda i: abs(starts[i] - calls[0]))] += 1
    for i, p in enumerate(expected):
        assert abs(counts[i] / n - p) < 3 * (p * (1 - p) / n) ** 0.5


@per_direction
def test_the_last_step_is_cut_off_at_the_end_of_the_interval(t: Tensor, mlp: Counting, y0: Tensor) -> None:
    f, beyond = around(mlp), []
    seen = times_seen(mlp)
    low, high = min(t[0], t[-1]).item(), max(t[0], t[-1]).item()
    for _ in range(20):
        torchdiffeq.odeint(f, y0, t, **TOLERANCES)
        beyond.append(any(not low <= time <= high for time in seen))
        seen.clear()
        f.penalty(t)
        assert all(low - 1e-12 <= time <= high + 1e-12 for time in seen)
        seen.clear()
    assert any(beyond), "torchdiffeq itself should step beyond the end here, or this test shows nothing"


def test_until_the_next_solve_the_step_stays_the_same(mlp: Counting, y0: Tensor) -> None:
    f = around(mlp)
    torchdiffeq.odeint(f, y0, FORWARD, **TOLERANCES)
    assert f.penalty(FORWARD).item() == f.penalty(FORWARD).item()


def test_the_penalty_is_of_the_last_solve_with_gradients(mlp: Counting, y0: Tensor) -> None:
    short = torch.tensor([0.0, 0.4], dtype=torch.float64)
    f = around(mlp)
    torchdiffeq.odeint(f, y0, FORWARD, **TOLERANCES)
    torchdiffeq.odeint(f, y0, short, **TOLERANCES)
    value = f.penalty(short).item()
    with pytest.raises(ValueError, match=r"times of the last solve.*found t ending at 1.7"):
        f.penalty(FORWARD)
    with torch.no_grad():
        torchdiffeq.odeint(f, 2 * y0, FORWARD, **TOLERANCES)
    assert f.penalty(short).item() == value


def test_a_solve_in_two_pieces_is_two_solves(mlp: Counting, y0: Tensor) -> None:
    f = around(mlp, method="rk4")
    for t in (torch.tensor([0.0, 0.5]), torch.tensor([0.5, 1.0])):
        torchdiffeq.odeint(f, y0, t, method="rk4", options={"step_size": 0.1})
    seen = times_seen(mlp)
    f.penalty(1.0)
    assert min(seen) >= 0.5 - 1e-6


def test_fields_that_solve_inside_are_recorded_each_by_its_own(mlp: Counting, y0: Tensor) -> None:
    inner, short = around(mlp), torch.tensor([0.0, 0.2], dtype=torch.float64)
    outer = around(lambda t, y: torchdiffeq.odeint(inner, y, short, **TOLERANCES)[-1] - y)
    torchdiffeq.odeint(outer, y0, FORWARD, **TOLERANCES)
    assert inner.penalty(short).item() > 0
    assert outer.penalty(FORWARD).item() > 0


def test_an_adjoint_does_not_record_its_way_back(mlp: Counting, y0: Tensor) -> None:
    f = around(mlp)
    y = torchdiffeq.odeint_adjoint(f, y0, FORWARD, **TOLERANCES)
    value = f.penalty(FORWARD).item()
    y.square().mean().backward()
    assert f.penalty(FORWARD).item() == value


def saved_bytes(f: nn.Module) -> int:
    buffer = io.BytesIO()
    torch.save(f, buffer)
    return len(buffer.getvalue())


@per_interface
@pytest.mark.parametrize("sampling", ["biased", "unbiased"])
def test_what_is_remembered_does_not_grow_with_the_number_of_steps(odeint: Any, sampling: str) -> None:
    f = around(TimeMLP((50, 4, 50)), method="rk4", sampling=sampling)
    empty, y0 = saved_bytes(f), torch.ones(100, 50)
    sizes = []
    for n in (10, 200):
        odeint(f, y0, torch.linspace(0, 1, n + 1), method="rk4")
        sizes.append(saved_bytes(f) - empty)
    assert abs(sizes[1] - sizes[0]) < 1000  # bytes; one state has 20,000
    assert sizes[1] < 2.2 * y0.nbytes


@per_interface
def test_callbacks_of_the_users_own_are_called_as_before(odeint: Any, mlp: Counting, y0: Tensor) -> None:
    class Talkative(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.f, self.told = mlp, Counter()

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return self.f(t, y)

        def callback_step(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
            self.told["step"] += 1

        def callback_accept_step(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
            self.told["accepted", t.item(), dt.item()] += 1

        def callback_step_adjoint(self, t: Tensor, y: Any, dt: Tensor) -> None:
            self.told["adjoint"] += 1

    plain, wrapped = Talkative(), Talkative()
    for f in (plain, around(wrapped)):
        odeint(f, y0, FORWARD, **TOLERANCES).square().mean().backward()
    assert wrapped.told == plain.told
    assert sum(plain.told.values()) > 2
    assert bool(plain.told["adjoint"]) == (odeint is torchdiffeq.odeint_adjoint)


def test_counters_of_the_users_own_are_read_and_set_where_they_are(y0: Tensor) -> None:
    class Counter_(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.nfe = 0

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            self.nfe += 1
            return -y

    inner = Counter_()
    f = around(inner)
    torchdiffeq.odeint(f, y0, FORWARD, **TOLERANCES)
    assert f.nfe == inner.nfe > 0
    f.nfe = 0
    assert inner.nfe == 0
    f.eval()
    assert not inner.training
    with pytest.raises(AttributeError, match="no_such"):
        _ = f.no_such


def test_a_checkpoint_has_the_same_keys_with_and_without_the_penalty() -> None:
    def model() -> nn.Sequential:
        return nn.Sequential(nn.Linear(3, 3), TimeMLP((3, 4, 3)))

    plain, wrapped = model(), model()
    wrapped[1] = around(wrapped[1])
    assert list(wrapped.state_dict()) == list(plain.state_dict())
    assert list(wrapped[1].state_dict()) == list(plain[1].state_dict())
    wrapped.load_state_dict(plain.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(wrapped.parameters(), plain.parameters(), strict=True))
    other = model()
    other.load_state_dict(wrapped.state_dict())
    wrapped[1].load_state_dict(model()[1].state_dict())
    assert not torch.equal(wrapped[1].inner.layers[0].linear.weight, other[1].layers[0].linear.weight)
    with pytest.raises(RuntimeError, match="Unexpected key"):
        wrapped.load_state_dict({**plain.state_dict(), "1.layers.7.weight": torch.ones(1)})


def test_a_copy_and_a_saved_one_work_on_their_own(mlp: Counting, y0: Tensor) -> None:
    f = around(mlp)
    torchdiffeq.odeint(f, y0, FORWARD, **TOLERANCES)
    value = f.penalty(FORWARD)
    buffer = io.BytesIO()
    torch.save(f, buffer)
    buffer.seek(0)
    for other in (copy.deepcopy(f), torch.load(buffer, weights_only=False)):
        assert other.inner is not f.inner
        assert other.penalty(FORWARD).item() == value.item()
        torchdiffeq.odeint(other, 2 * y0, FORWARD[:2], **TOLERANCES)
        assert other.penalty(FORWARD[:2]).item() != value.item()
    assert f.penalty(FORWARD).item() == value.item()


def test_a_plain_function_works_with_odeint_and_is_refused_by_the_adjoint_as_before(y0: Tensor) -> None:
    rate = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    f = around(lambda t, y: -rate * y.sin())
    torchdiffeq.odeint(f, y0, FORWARD, **TOLERANCES)
    f.penalty(FORWARD).backward()
    assert rate.grad is not None
    with pytest.raises(ValueError, match=r"no nn\.Module"):
        torchdiffeq.odeint_adjoint(f, y0, FORWARD, **TOLERANCES)
    torchdiffeq.odeint_adjoint(f, y0, FORWARD, adjoint_params=(rate,), **TOLERANCES)
    assert f.penalty(FORWARD).item() > 0


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"method": "scipy_solver"}, "tells no steps and gives no gradient: use 'dopri5'"),
    ({"method": "symplectic"}, "unknown method 'symplectic'; choose one of"),
    ({"sampling": "random"}, "unknown sampling 'random'"),
    ({"rtol": -1.0}, "rtol must be a number >= 0"),
    ({"atol": torch.ones(3)}, "atol must be a number >= 0"),
    ({"rtol": 0.0, "atol": (0.0, 0.0)}, "both 0"),
    ({"rng": 0}, r"rng must be a torch\.Generator, found int"),
    ({"f": 3.0}, "f must be callable"),
    ({"f": LocalPenalty(nn.Linear(1, 1), rtol=1.0, atol=1.0, rng=torch.Generator())}, "wrapped already"),
]


@pytest.mark.parametrize(("given", "message"), WRONG, ids=[message for _, message in WRONG])
def test_what_cannot_work_is_refused_by_name(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LocalPenalty(**{"f": nn.Linear(1, 1), **TOLERANCES, "rng": generator(), **given})


def test_a_penalty_without_a_recorded_solve_says_what_to_do(mlp: Counting, y0: Tensor) -> None:
    f = around(mlp)
    with pytest.raises(ValueError, match="no solve was recorded: solve with this object first, with gradients"):
        f.penalty(FORWARD)
    with torch.no_grad():
        torchdiffeq.odeint(f, y0, FORWARD, **TOLERANCES)
    with pytest.raises(ValueError, match="no solve was recorded"):
        f.penalty(FORWARD)
    with pytest.warns(UserWarning, match="does not support callbacks"):
        torchdiffeq.odeint(f, y0, FORWARD, method="rk4")
    with pytest.raises(ValueError, match="of the same kind, adaptive or fixed-step"):
        f.penalty(FORWARD)


def test_a_penalty_for_the_wrong_times_tolerances_or_states_says_what_to_do(mlp: Counting, y0: Tensor) -> None:
    f = around(mlp, rtol=(1e-3, 1e-3))
    torchdiffeq.odeint(f, y0, FORWARD, **TOLERANCES)
    with pytest.raises(ValueError, match="2 tolerances were given for a state of 1 parts"):
        f.penalty(FORWARD)
    with pytest.raises(ValueError, match=r"last solve, which began at 0 .* found t ending at 0\.3"):
        f.penalty(FORWARD[:2])
    with pytest.raises(ValueError, match="t must hold the times of the solve"):
        f.penalty(FORWARD[:0])
    rotate = around(lambda t, y: 1j * y)
    torchdiffeq.odeint(rotate, y0.to(torch.complex128), FORWARD, **TOLERANCES)
    with pytest.raises(ValueError, match="view_as_real"):
        rotate.penalty(FORWARD)


class Wiggle(nn.Module):
    """Decay with a fast oscillation that costs steps and hardly moves the end of the solve."""

    def __init__(self) -> None:
        super().__init__()
        self.rate, self.amplitude = (nn.Parameter(torch.tensor(a, dtype=torch.float64)) for a in (0.5, 1.0))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return -self.rate * y + self.amplitude * torch.cos(25 * t)


def trained(weight: float, odeint: Any) -> tuple[int, float]:
    """Fit the end of a decay; return evaluations and error of a solve afterwards."""
    field = Counting(Wiggle())
    f, t = around(field), torch.tensor([0.0, 1.0], dtype=torch.float64)
    y0 = torch.tensor([[2.0], [1.0], [0.0]], dtype=torch.float64)
    optimizer = torch.optim.Adam(f.parameters(), lr=0.05)
    for _ in range(25):
        optimizer.zero_grad()
        y = odeint(f, y0, t, **TOLERANCES)[-1]
        loss = (y - y0 * torch.exp(-t[-1])).square().mean()
        (loss + weight * f.penalty(t)).backward()
        optimizer.step()
    field.calls = 0
    with torch.no_grad():
        y = torchdiffeq.odeint(field, y0, t, **TOLERANCES)[-1]
    return field.calls, (y - y0 * torch.exp(-t[-1])).square().mean().item()


@per_interface
def test_training_with_the_penalty_lowers_the_number_of_evaluations_and_not_the_fit(odeint: Any) -> None:
    plain, plain_error = trained(0.0, odeint)
    cheap, error = trained(0.1, odeint)
    assert cheap <= 0.7 * plain
    assert error < max(2 * plain_error, 0.01)


class Spiral(nn.Module):
    """A small neural SDE with diagonal noise in R^2, in torchsde's convention, with a prior drift h."""

    noise_type, sde_type = "diagonal", "ito"

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.drift, self.diffusion = TimeMLP((2, 8, 2)).double(), nn.Linear(2, 2).double()
        self.calls: Counter[str] = Counter()

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        self.calls["f"] += 1
        return 3 * self.drift(t.to(y.dtype), y)

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        self.calls["g"] += 1
        return 0.3 * self.diffusion(y).sigmoid()

    def h(self, t: Tensor, y: Tensor) -> Tensor:
        return -y


TS = torch.linspace(0, 1, 5, dtype=torch.float64)
STATE = torch.ones(6, 2, dtype=torch.float64)
SDE_INTERFACES = {"sdeint": torchsde.sdeint, "sdeint_adjoint": torchsde.sdeint_adjoint}

per_sde_interface = pytest.mark.parametrize("sdeint", SDE_INTERFACES.values(), ids=SDE_INTERFACES)


def around_sde(sde: Any, **settings: Any) -> LocalPenaltySDE:
    return LocalPenaltySDE(sde, **{"rtol": 1e-2, "atol": 1e-2, "dt": 0.1, "rng": generator(), **settings})


def solved_sde(sdeint: Any, sde: Any, parameters: list[Tensor], **options: Any) -> list[Tensor]:
    brownian = torchsde.BrownianInterval(
        t0=0.0, t1=1.0, size=(6, 2 + bool(options.get("logqp"))), dtype=torch.float64, entropy=7,
        levy_area_approximation="space-time",
    )  # fmt: skip
    found = sdeint(sde, STATE, TS, **{"bm": brownian, "dt": 0.125, **options})
    outputs = list(found) if isinstance(found, tuple) else [found]
    loss = sum(output.square().mean() for output in outputs)
    return [*outputs, *torch.autograd.grad(loss, parameters)]


@per_sde_interface
@pytest.mark.parametrize(
    "options",
    [
        {"method": "euler"},
        {"method": "milstein"},
        {"method": "milstein", "options": {"grad_free": True}},
        {"method": "srk"},
        {"method": "milstein", "adaptive": True, "rtol": 1e-2, "atol": 1e-2},
        {"method": "euler", "logqp": True},
        {"method": "srk", "bm": None},
    ],
    ids=str,
)
def test_an_sde_solve_and_its_gradient_stay_the_same_to_the_bit(sdeint: Any, options: dict[str, Any]) -> None:
    sde = Spiral()
    wrapped, parameters = around_sde(sde), list(sde.parameters())
    found = []
    for solver in (sde, wrapped):
        torch.manual_seed(3)
        np.random.seed(3)  # noqa: NPY002 - of torchsde's own Brownian paths
        found.append((solved_sde(sdeint, solver, parameters, **options), (torch.rand(()).item(), np.random.rand())))  # noqa: NPY002
    (plain, after), (with_penalty, after_penalty) = found
    assert all(torch.equal(a, b) for a, b in zip(plain, with_penalty, strict=True))
    assert after == after_penalty, "the global random numbers were used"
    assert wrapped.penalty(TS).item() > 0


@per_sde_interface
def test_the_penalty_of_an_sde_is_one_step_by_hand_with_w_and_u_of_the_brownian_law(sdeint: Any) -> None:
    sde = Spiral()
    wrapped, parameters = around_sde(sde), list(sde.parameters())
    points: list[tuple[float, Tensor]] = []
    sde.drift.register_forward_pre_hook(lambda module, inputs: points.append((inputs[0].item(), inputs[1].detach())))
    sdeint(wrapped, STATE, TS, dt=0.1, method="milstein")
    copied = torch.Generator()
    copied.set_state(wrapped._rng.get_state())
    points.clear()
    sde.calls.clear()
    penalty = wrapped.penalty(TS)
    assert sde.calls == {"f": 4, "g": 4}
    t, y = points[0]
    normal = torch.stack([torch.randn(6, 2, dtype=torch.float64, generator=copied) for _ in range(2)], -1)
    h = min(0.1, 1.0 - t)
    covariance = torch.tensor([[h, h**2 / 2], [h**2 / 2, h**3 / 3]], dtype=torch.float64)  # of W(h) and its integral
    w, u = (normal @ torch.linalg.cholesky(covariance).T).unbind(-1)
    step = sri_step(sde.f, sde.g, t, y, h, w, u, SOSRI2)
    expected = error_ratio(step.error, y, step.y1, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(penalty, expected, rtol=1e-9, atol=0)
    gradients = (torch.autograd.grad(value, parameters) for value in (penalty, expected))
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-12)


def test_the_starts_of_fixed_steps_are_drawn_uniformly_though_torchsde_checks_shapes_at_the_first() -> None:
    class Still(nn.Module):
        noise_type, sde_type = "diagonal", "ito"

        def f(self, t: Tensor, y: Tensor) -> Tensor:
            return torch.zeros_like(y)

        g = f

    sde, n = around_sde(Still(), dt=0.25), 3000
    y, starts = torch.ones(1, 1), torch.arange(4) / 4
    counts: Counter[float] = Counter()
    for _ in range(n):
        drift = sde.f
        for t in (starts[0], starts[0], *starts):
            drift(t, y)
        counts[sde._points.kept[0]] += 1
    for t in starts.tolist():
        assert abs(counts[t] / n - 0.25) < 3 * (0.25 * 0.75 / n) ** 0.5


def test_the_points_of_a_real_solve_are_the_starts_of_its_steps() -> None:
    sde, drawn, ts = around_sde(Spiral()), set(), torch.linspace(0, 1, 9, dtype=torch.float64)
    for _ in range(30):
        ys = torchsde.sdeint(sde, STATE, ts, dt=0.125, method="euler")
        t, y = sde._points.kept
        assert torch.equal(y, ys[round(8 * t)])
        drawn.add(round(8 * t))
    assert drawn <= set(range(8))
    assert len(drawn) > 4


@pytest.mark.parametrize("options", [{}, {"logqp": True}], ids=str)
def test_an_sde_adjoint_does_not_record_its_way_back(options: dict[str, Any]) -> None:
    sde = around_sde(Spiral())
    ys = torchsde.sdeint_adjoint(sde, STATE, TS, dt=0.125, method="milstein", **options)
    kept, n = sde._points.kept, sde._points.n
    (ys[0] if options else ys).square().mean().backward()
    assert sde._points.kept is kept
    assert sde._points.n == n == 8


@pytest.mark.parametrize("method", ["srk", "euler"])
def test_a_step_of_an_sde_stays_inside_the_interval(method: str) -> None:
    sde = Spiral()
    wrapped, seen = around_sde(sde, dt=0.15), times_seen(sde.drift)
    for _ in range(15):
        torchsde.sdeint(wrapped, STATE, TS, dt=0.15, method=method)
        seen.clear()
        assert wrapped.penalty(TS).item() > 0
        assert all(-1e-12 <= t <= 1.0 + 1e-12 for t in seen)


def test_a_single_call_of_the_drift_is_no_solve() -> None:
    sde = around_sde(Spiral())
    torchsde.sdeint(sde, STATE, TS, dt=0.1, method="euler")
    points = sde._points
    sde.f(TS[0], STATE)
    assert sde._points is points


def sde_of(noise_type: str, sde_type: str) -> Spiral:
    sde = Spiral()
    sde.noise_type, sde.sde_type = noise_type, sde_type
    return sde


class Plain:
    """An SDE that is no nn.Module."""

    noise_type, sde_type, f, g = "diagonal", "ito", Spiral.f, Spiral.g


WRONG_SDE: list[tuple[Any, dict[str, Any], str]] = [
    (sde_of("general", "ito"), {}, "noise_type 'general' is not supported"),
    (sde_of("diagonal", "stratonovich"), {}, "sde_type 'stratonovich' is not supported"),
    (nn.Linear(1, 1), {}, "methods f .drift. and g"),
    (Plain(), {}, r"must be an nn\.Module"),
    (Spiral(), {"dt": 0.0}, "dt must be positive"),
    (Spiral(), {"method": "srk"}, "unknown method 'srk'; choose one of"),
    (Spiral(), {"estimate": "none"}, "unknown estimate"),
    (Spiral(), {"rtol": -1.0}, "rtol must be a number"),
]


@pytest.mark.parametrize(("sde", "settings", "message"), WRONG_SDE, ids=[message for *_, message in WRONG_SDE])
def test_what_cannot_work_for_an_sde_is_refused_by_name(sde: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        around_sde(sde, **settings)


def test_an_sde_penalty_without_its_solve_says_what_to_do() -> None:
    sde = around_sde(Spiral())
    with pytest.raises(ValueError, match="no solve was recorded"):
        sde.penalty(TS)
    torchsde.sdeint(sde, STATE, TS, dt=0.125, method="euler", names={"drift": "h"})
    with pytest.raises(ValueError, match="without replacing the drift f by `names`"):
        sde.penalty(TS)
    with torch.no_grad():
        torchsde.sdeint(sde, STATE, TS, dt=0.125, method="euler")
    with pytest.raises(ValueError, match="no solve was recorded"):
        sde.penalty(TS)
    torchsde.sdeint(sde, STATE, TS, dt=0.125, method="euler")
    with pytest.raises(ValueError, match=r"between 0 and 0\.875; found t ending at 0\.5"):
        sde.penalty(0.5)
    assert list(sde.state_dict()) == list(Spiral().state_dict())
