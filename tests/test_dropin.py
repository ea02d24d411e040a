"""The drop-in and ODEs: the solve is left as it is to the bit, one step of it is heard, its penalty is what it says."""

from __future__ import annotations

import threading
import warnings
from collections import Counter
from functools import partial
from typing import Any

import pytest
import torch
import torchdiffeq
from conftest import Counting
from programs import PLAIN, cdeint
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from regnde import Cost, LocalPenalty, error_ratio, odeint_solve, rk_step
from regnde.dropin import hear_solves
from regnde.dropin.draw_step import Draw, Hearing
from regnde.hosts.with_torchdiffeq import FIXED_STEP, HOST_TABLEAUS

TOLERANCES = {"rtol": 1e-4, "atol": 1e-5}
FORWARD = torch.tensor([0.0, 0.3, 1.0, 1.7], dtype=torch.float64)

per_interface = pytest.mark.parametrize("name", ["odeint", "odeint_adjoint"])
per_direction = pytest.mark.parametrize("t", [FORWARD, FORWARD.flip(0)], ids=["forward", "backward"])


def ear(seed: int = 0, **settings: Any) -> LocalPenalty:
    return LocalPenalty(rng=torch.Generator().manual_seed(seed), **settings)


class Pair(nn.Module):
    """A field of a state tuple: y (4, 3) moves by the MLP, the second part integrates its square, 0-d."""

    def __init__(self, f: nn.Module) -> None:
        super().__init__()
        self.f = f

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        dy = self.f(t, state[0])
        return dy, dy.square().mean()


def solved(solve: Any, f: nn.Module, y0: Any, t: Any, **how: Any) -> list[Tensor]:
    """Return the solution, the gradient of its mean square, and the next random number."""
    torch.manual_seed(0)
    found = solve(f, y0, t, **{**TOLERANCES, **how})
    outputs = list(found) if isinstance(found, tuple) else [found]
    loss = sum(
        torch.cat([x.reshape(-1) for x in (y if isinstance(y, tuple) else (y,))]).square().mean() for y in outputs
    )
    flat = [x for y in outputs for x in (y if isinstance(y, tuple) else (y,))]
    return [*flat, *torch.autograd.grad(loss, list(f.parameters())), torch.rand(())]


def assert_same(name: str, f: nn.Module, y0: Any, t: Any, **how: Any) -> LocalPenalty:
    """Compare a solve with and without the ear, bit by bit; the ear heard a step that has a gradient."""
    local = ear()
    plain, heard = solved(getattr(PLAIN, name), f, y0, t, **how), solved(getattr(local, name), f, y0, t, **how)
    assert all(torch.equal(a, b) for a, b in zip(plain, heard, strict=True))
    torch.autograd.grad(local.penalty(), list(f.parameters()))
    return local


# The solve stays as it is


@pytest.mark.slow
@per_interface
@per_direction
@pytest.mark.parametrize("method", HOST_TABLEAUS)
def test_an_adaptive_solve_stays_the_same_to_the_bit(
    name: str, t: Tensor, method: str, mlp: Counting, y0: Tensor
) -> None:
    assert_same(name, mlp, y0, t, method=method)


@pytest.mark.slow
@per_interface
@per_direction
@pytest.mark.parametrize("method", FIXED_STEP)
@pytest.mark.parametrize("perturb", [False, True])
def test_fixed_steps_stay_the_same_to_the_bit_and_nothing_new_is_warned_of(
    name: str, t: Tensor, method: str, perturb: bool, mlp: Counting, y0: Tensor
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="Functional iteration did not converge")  # torchdiffeq's own
        assert_same(name, mlp, y0, t, method=method, options={"step_size": 0.1, "perturb": perturb})


@per_interface
@per_direction
@pytest.mark.parametrize("how", [{}, {"method": "rk4"}, {"rtol": [1e-3, 1e-2], "atol": (1e-3, 1e-4)}], ids=str)
def test_a_state_tuple_stays_the_same_to_the_bit(name: str, t: Tensor, how: Any, mlp: Counting, y0: Tensor) -> None:
    adjoint = {"adjoint_rtol": 1e-3, "adjoint_atol": 1e-3} if name == "odeint_adjoint" else {}
    assert_same(name, Pair(mlp), (y0, torch.zeros((), dtype=torch.float64)), t, **how, **adjoint)


@per_interface
@pytest.mark.parametrize(
    "options",
    [
        {"first_step": 0.01},
        {"jump_t": torch.tensor([0.5, 0.9])},
        {"step_t": torch.tensor([0.4])},
        {"max_step": 0.2},
        {"dtype": torch.float32},
        {"norm": lambda y: y.abs().max()},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_stay_the_same_to_the_bit(name: str, options: dict[str, Any], mlp: Counting, y0: Tensor) -> None:
    assert_same(name, mlp, y0, FORWARD, method="dopri5", options=options)
    assert_same(name, mlp, y0, FORWARD.float(), method="dopri5", options=options)


@per_interface
@pytest.mark.parametrize("reverse_time", [False, True])
@pytest.mark.parametrize("how", [{}, {"method": "rk4", "options": {"step_size": 0.1}}], ids=["adaptive", "fixed"])
def test_an_event_stays_the_same_to_the_bit_and_its_time_ends_the_penalty(
    name: str, reverse_time: bool, how: Any, mlp: Counting, y0: Tensor
) -> None:
    def to_the_event(by: Any, f: nn.Module, y0: Tensor, t: Tensor, **others: Any) -> Any:
        def event(t: Tensor, y: Tensor) -> Tensor:
            return (t.abs() - 1.3).sum() + 0.01 * y[0, 0]

        settings = {"event_fn": event, "reverse_time": reverse_time, "odeint_interface": getattr(by, name)}
        return by.odeint_event(f, y0, t, **settings, **others)

    t0, local = torch.tensor(0.0, dtype=torch.float64), ear()
    runs = [solved(partial(to_the_event, by), mlp, y0, t0, **how) for by in (PLAIN, local)]
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
    for _ in range(10):
        end = to_the_event(local, mlp, y0, t0, **TOLERANCES, **how)[0]
        seen = times_seen(mlp)
        assert local.penalty().item() > 0
        assert max(abs(t) for t in seen) <= abs(end.item()) + 1e-12


def times_seen(f: nn.Module) -> list[float]:
    """Return a list that fills with the times at which a module is called."""
    seen: list[float] = []
    f.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].item()))
    return seen


def test_a_complex_state_and_times_with_a_gradient_work_as_before(y0: Tensor) -> None:
    rate = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    t, local = FORWARD.clone().requires_grad_(), ear()

    def solve(by: Any) -> list[Tensor]:
        y = by.odeint(lambda t, y: (1j - rate) * y * y.abs(), y0.to(torch.complex128), t, **TOLERANCES)
        return [y, *torch.autograd.grad(y[-1].abs().sum(), (rate, t))]

    assert all(torch.equal(a, b) for a, b in zip(solve(PLAIN), solve(local), strict=True))
    (slope,) = torch.autograd.grad(local.penalty(), rate)
    assert slope.isfinite()
    assert slope != 0


@per_interface
def test_callbacks_of_the_users_own_are_called_as_before(name: str, mlp: Counting, y0: Tensor) -> None:
    class Talkative(Pair):
        told: Counter[Any]

        def forward(self, t: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
            return self.f(t, y)

        def callback_step(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
            self.told["step"] += 1

        def callback_accept_step(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
            self.told["accepted", t.item(), dt.item()] += 1

        def callback_step_adjoint(self, t: Tensor, y: Any, dt: Tensor) -> None:
            self.told["adjoint"] += 1

    told = []
    for by in (PLAIN, ear()):
        f = Talkative(mlp)
        f.told = Counter()
        getattr(by, name)(f, y0, FORWARD, **TOLERANCES).square().mean().backward()
        told.append(f.told)
    assert told[0] == told[1]
    assert sum(told[0].values()) > 2
    assert bool(told[0]["adjoint"]) == (name == "odeint_adjoint")


def seams() -> list[Any]:
    return [vars(cls).get(name) for cls, name, _ in hear_solves.SEAMS]


def test_torchdiffeq_and_torchsde_are_as_they_were_afterwards_also_after_an_exception(y0: Tensor) -> None:
    before, local = seams(), ear()

    def fails(t: Tensor, y: Tensor) -> Tensor:
        assert seams() != before
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        local.odeint(fails, y0, FORWARD)
    with local.hears(), local.hears():
        torchdiffeq.odeint(lambda t, y: -y, y0, FORWARD)
    assert seams() == before
    assert local.cost.solves == 1


def test_each_thread_hears_its_own_solves_and_others_go_on_unheard(mlp: Counting, y0: Tensor) -> None:
    local, other, unheard = ear(), ear(1), torchdiffeq.odeint

    def solve(odeint: Any) -> None:
        for _ in range(5):
            odeint(mlp, y0, FORWARD, **TOLERANCES)

    before, who = seams(), (local.odeint, other.odeint, unheard, local.odeint)
    threads = [threading.Thread(target=solve, args=(odeint,)) for odeint in who]
    with local.hears():  # hears this thread only
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (local.cost.solves, other.cost.solves) == (10, 5)
    assert seams() == before


# What is heard


def test_d1_whatever_is_handed_to_the_solver_is_heard(mlp: Counting, y0: Tensor) -> None:
    class Self(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.f = mlp

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return self.f(t, y)

        def solve(self, by: Any) -> Tensor:
            return by.odeint(self, y0, FORWARD, **TOLERANCES)

    own = Self()
    handed = [own, lambda t, y: mlp(t, y), own.forward, nn.DataParallel(mlp), partial(mlp)]
    handed += [torch.compile(mlp.f, backend="eager")]
    for f in handed:
        local = ear()
        local.odeint(f, y0, FORWARD, **TOLERANCES)
        assert local.penalty().requires_grad
    local = ear()
    own.solve(local)
    assert local.penalty().requires_grad
    with local.hears():
        cdeint(y0, nn.Sequential(nn.Linear(2, 6), nn.Unflatten(1, (2, 3))).double(), y0[:, :2], FORWARD)
    assert local.penalty().requires_grad


def test_d1_a_penalty_without_a_solve_names_the_cause(mlp: Counting, y0: Tensor) -> None:
    local = ear()
    with pytest.raises(ValueError, match=r"no solve was heard since the last penalty: call local\.odeint\(\.\.\.\) in"):
        local.penalty()
    with torch.no_grad():
        local.odeint(mlp, y0, FORWARD, **TOLERANCES)
    with pytest.raises(ValueError, match=r"Not heard: a solve under torch\.no_grad\(\)"):
        local.penalty()
    local.odeint_adjoint(mlp, y0, FORWARD, method="scipy_solver", **TOLERANCES)
    with pytest.raises(ValueError, match="'scipy_solver', which tells no steps: use 'dopri5'"):
        local.penalty()
    local.odeint(mlp, y0, FORWARD, **TOLERANCES)
    local.penalty()
    with pytest.raises(ValueError, match="since the last penalty"):
        local.penalty()


def test_d5_a_solve_inside_a_checkpoint_is_heard_once_or_named(mlp: Counting, y0: Tensor) -> None:
    local, y0 = ear(), y0.requires_grad_()

    def solve(y: Tensor) -> Tensor:
        return local.odeint(mlp, y, FORWARD, **TOLERANCES)[-1]

    with set_checkpoint_early_stop(False):
        y = checkpoint(solve, y0, use_reentrant=False)
    local.penalty()
    y.square().sum().backward()  # solves again
    with pytest.raises(ValueError, match="no solve was heard since the last penalty"):
        local.penalty()
    checkpoint(solve, y0, use_reentrant=True)
    with pytest.raises(ValueError, match=r"a solve under torch\.no_grad\(\)"):
        local.penalty()


@pytest.mark.parametrize("method", ["dopri5", "rk4"])
def test_the_way_back_of_an_adjoint_is_not_heard(method: str, mlp: Counting, y0: Tensor) -> None:
    local = ear()
    with local.hears():
        torchdiffeq.odeint_adjoint(mlp, y0, FORWARD, method=method, **TOLERANCES)[-1].square().mean().backward()
    assert local.cost.solves == 1
    assert local.penalty().item() > 0


def test_what_a_field_solves_inside_is_heard_only_if_it_asks_for_it(mlp: Counting, y0: Tensor) -> None:
    short = torch.tensor([0.0, 0.2], dtype=torch.float64)
    outer, inner = ear(), ear(1)
    fields = [lambda t, y, by=by: by.odeint(mlp, y, short, **TOLERANCES)[-1] - y for by in (PLAIN, inner)]
    for f in fields:
        outer.odeint(f, y0, short, **TOLERANCES)
        assert outer.cost.solves == 1
        outer.penalty()
    solves = inner.cost.solves
    assert solves > 1
    outer.odeint(fields[1], y0, short, **TOLERANCES)
    solves = inner.cost.solves
    outer.penalty()  # asks the field, and is no solve
    assert inner.cost.solves == solves


def test_a_solve_without_a_step_is_named(mlp: Counting, y0: Tensor) -> None:
    local = ear()
    local.odeint(mlp, y0, FORWARD[:1], **TOLERANCES)
    with pytest.raises(ValueError, match="Not heard: a solve without any step inside its interval"):
        local.penalty()


def test_a_norm_that_returns_one_number_in_a_vector_works_as_before(mlp: Counting, y0: Tensor) -> None:
    local = assert_same("odeint", mlp, y0, FORWARD, method="dopri5", options={"norm": lambda y: y.abs().max()[None]})
    local.odeint(mlp, y0, FORWARD, method="dopri5", options={"norm": lambda y: y.abs().max()[None]})
    assert local.penalty().shape == ()


def test_a_solve_that_fails_leaves_nothing(y0: Tensor) -> None:
    local = ear()
    with pytest.raises(AssertionError, match="underflow"):
        local.odeint(lambda t, y: y.abs() ** 2 + 1, y0, torch.tensor([0.0, 9.0]), **TOLERANCES)
    with pytest.raises(ValueError, match="no solve was heard"):
        local.penalty()


# What the penalty is


def by_hand(f: nn.Module, y0: Tensor, t: Tensor, method: str) -> list[Tensor]:
    """Return the error ratio of every accepted step of a solve, each taken again by hand, the last one cut off."""
    trace = odeint_solve(f, y0, t, method=method, **TOLERANCES).trace
    ratios = []
    for start, dt, y in zip(trace.t.tolist(), trace.dt.tolist(), trace.y, strict=True):
        rest = t[-1].item() - start
        step = rk_step(f, start, y, dt if abs(dt) < abs(rest) else rest, HOST_TABLEAUS[method])
        ratios.append(error_ratio(step.error, y, step.y1, **TOLERANCES))
    return ratios


@per_interface
@per_direction
@pytest.mark.parametrize("method", ["dopri5", "bosh3"])
def test_value_and_gradient_are_those_of_one_accepted_step_taken_by_hand(
    name: str, t: Tensor, method: str, mlp: Counting, y0: Tensor
) -> None:
    parameters, candidates, drawn = list(mlp.parameters()), by_hand(mlp, y0, t, method), set()
    local = ear(floor=0.0)
    for _ in range(6):
        getattr(local, name)(mlp, y0, t, method=method, **TOLERANCES)
        penalty = local.penalty()
        i = min(range(len(candidates)), key=lambda i: abs(candidates[i].item() - penalty.item()))
        torch.testing.assert_close(penalty, candidates[i], rtol=1e-7, atol=0)
        expected = torch.autograd.grad(candidates[i], parameters, retain_graph=True)
        torch.testing.assert_close(torch.autograd.grad(penalty, parameters), expected, rtol=1e-6, atol=1e-12)
        drawn.add(i)
    assert len(drawn) > 1


@pytest.mark.slow
@pytest.mark.parametrize("method", HOST_TABLEAUS)
@pytest.mark.parametrize("is_tuple", [False, True])
def test_d11_method_tolerances_and_norm_are_those_of_the_call(
    method: str, is_tuple: bool, mlp: Counting, y0: Tensor
) -> None:
    """The value is, to the bit, what the user's own norm found in the solve; also after method=None."""
    told: list[float] = []

    def norm(scaled: Any) -> Tensor:
        value = max(part.abs().max() for part in scaled) if is_tuple else scaled.abs().mean()
        told.append(value.item())
        return value

    f, state = (Pair(mlp), (y0, y0.sum())) if is_tuple else (mlp, y0)
    tolerances: dict[str, Any] = {"rtol": [1e-3, 1e-2], "atol": torch.tensor([1e-4, 1e-3])} if is_tuple else TOLERANCES
    for _ in range(5):
        local, told = ear(floor=0.1), []
        local.odeint(f, state, torch.tensor([0.0, 9.0]), method=method, options={"norm": norm}, **tolerances)
        assert local.penalty().item() in [pytest.approx(value, rel=1e-9) for value in told[2:]]
    local.odeint(mlp, y0, FORWARD, method=None, rtol=torch.tensor(1e-3), atol=torch.full((3,), 1e-4))
    assert 0 < local.penalty().item() <= 1


@per_interface
@pytest.mark.parametrize(
    ("method", "n"), [("dopri5", 7), ("bosh3", 4), ("dopri8", 14), ("adaptive_heun", 2), ("rk4", 4)]
)
def test_a_penalty_costs_one_evaluation_for_each_stage_and_the_solve_not_one_more(
    name: str, method: str, n: int, mlp: Counting, y0: Tensor
) -> None:
    how = {"method": method, "options": {"step_size": 0.05} if method == "rk4" else None, **TOLERANCES}
    getattr(PLAIN, name)(mlp, y0, FORWARD, **how)
    plain, mlp.calls, local = mlp.calls, 0, ear()
    getattr(local, name)(mlp, y0, FORWARD, **how)
    assert mlp.calls == plain == local.cost.nfe
    local.penalty()
    assert mlp.calls - plain == n


def test_the_cost_is_that_of_all_solves_since_the_last_penalty(mlp: Counting, y0: Tensor) -> None:
    local, trace = ear(), odeint_solve(mlp, y0, FORWARD, **TOLERANCES).trace
    one = Cost(solves=1, accepted=trace.accepted, rejected=trace.rejected, nfe=trace.nfe)
    local.odeint(mlp, y0, FORWARD, **TOLERANCES)
    assert local.cost == one
    local.odeint(mlp, y0, FORWARD, **TOLERANCES)
    assert local.cost.nfe == 2 * one.nfe
    local.penalty()
    assert local.cost.solves == 2  # still to be read
    local.odeint(mlp, y0, FORWARD, **TOLERANCES)
    assert local.cost == one


SIZES = (0.1, 0.2, 0.3, 0.9)
"""Of accepted steps from 0 on; the last one reaches beyond the end of the interval, 1."""


@pytest.mark.parametrize(
    ("sampling", "expected"), [("biased", (0.25, 0.25, 0.25, 0.25)), ("unbiased", (0.1, 0.2, 0.3, 0.4))]
)
@pytest.mark.parametrize("pieces", [1, 2], ids=["one solve", "two solves"])
def test_d10_the_draw_is_over_the_steps_of_all_solves_alike_or_by_their_size(
    sampling: str, expected: tuple[float, ...], pieces: int
) -> None:
    local, n, starts = ear(sampling=sampling), 3000, [sum(SIZES[:i]) for i in range(4)]
    counts: Counter[float] = Counter()
    for _ in range(n):
        for steps in (range(4),) if pieces == 1 else (range(1), range(1, 4)):
            hearing = Hearing(local._ear, lambda t0, t1, y: t0, 5)  # type: ignore[arg-type, return-value]
            for i in steps:
                hearing.accept(starts[i], starts[i] + SIZES[i], torch.ones(1))
            local._ear.end(hearing, 1.0)
        counts[local._ear.take()] += 1  # type: ignore[index]
    for start, p in zip(starts, expected, strict=True):
        assert abs(counts[start] / n - p) < 3 * (p * (1 - p) / n) ** 0.5


def test_d9_quiet_steps_are_drawn_only_where_there_is_no_other(mlp: Counting, y0: Tensor) -> None:
    for floor, low in ((0.0, True), (0.01, False)):
        local, values = ear(floor=floor), []
        for _ in range(40):
            local.odeint(mlp, y0, FORWARD, **TOLERANCES)
            values.append(local.penalty().item())
        assert (min(values) < 0.01) == low
    local.odeint(lambda t, y: 0 * y + t, y0, FORWARD, **TOLERANCES)  # without any error
    assert 0 <= local.penalty().item() < 0.01
    draw = Draw(torch.Generator())
    draw.put(lambda: "quiet", 1.0, quiet=True)  # type: ignore[arg-type, return-value]
    draw.put(lambda: "loud", 1e-9, quiet=False)  # type: ignore[arg-type, return-value]
    draw.put(lambda: "quiet", 1e9, quiet=True)  # type: ignore[arg-type, return-value]
    assert draw.item == "loud"  # type: ignore[comparison-overlap]


def test_an_error_of_exactly_zero_has_the_gradient_zero(y0: Tensor) -> None:
    local, constant = ear(), torch.ones(3, dtype=torch.float64, requires_grad=True)
    local.odeint(lambda t, y: constant.expand(4, 3) * 0, y0, FORWARD, **TOLERANCES)
    (grad,) = torch.autograd.grad(local.penalty(), constant)
    assert torch.equal(grad, torch.zeros(3, dtype=torch.float64))


@per_direction
def test_a_step_beyond_the_end_of_the_interval_is_cut_off(t: Tensor, mlp: Counting, y0: Tensor) -> None:
    local, beyond, seen = ear(floor=0.0), [], times_seen(mlp)
    low, high = min(t[0], t[-1]).item(), max(t[0], t[-1]).item()
    for _ in range(20):
        local.odeint(mlp, y0, t, **TOLERANCES)
        beyond.append(any(not low <= time <= high for time in seen))
        seen.clear()
        local.penalty()
        assert all(low - 1e-12 <= time <= high + 1e-12 for time in seen)
        seen.clear()
    assert any(beyond), "torchdiffeq itself should step beyond the end here, or this test shows nothing"


@pytest.mark.parametrize("t", [FORWARD, -FORWARD], ids=["forward", "backward"])
@pytest.mark.parametrize("before", [torch.lt, torch.le])
def test_a_step_to_a_jump_or_from_it_does_not_see_the_other_side(t: Tensor, before: Any, y0: Tensor) -> None:
    def jumps(t: Tensor, y: Tensor) -> Tensor:
        return torch.where(before(t.abs(), 0.5), -y, 9 * y.cos())

    local = ear(floor=0.0)
    options = {"jump_t": torch.tensor([0.5]).copysign(t[-1])}
    for _ in range(15):
        local.odeint(jumps, y0, t, method="dopri5", options=options, rtol=1e-3, atol=1e-3)
        assert local.penalty().item() <= 1


def test_what_is_kept_is_no_alias_of_the_users_tensors(mlp: Counting, y0: Tensor) -> None:
    values = []
    for change in (0.0, 5.0):
        local, y = ear(floor=0.0), y0.clone()
        with torch.no_grad():
            first = local._ear
        local.odeint(mlp, y, torch.tensor([0.0, 1e-3]), **TOLERANCES)
        y += change
        assert first.draw.item is not None
        values.append(local.penalty().item())
    assert values[0] == values[1]


@pytest.mark.parametrize("sampling", ["biased", "unbiased"])
def test_what_is_remembered_does_not_grow_with_the_number_of_steps(sampling: str) -> None:
    local, copies = ear(sampling=sampling), []
    hearing = Hearing(local._ear, lambda t0, t1, y: copies.append(y.clone()), 5)  # type: ignore[arg-type, func-returns-value]
    for i in range(1000):
        hearing.accept(i, i + 1.0, torch.ones(1))
    local._ear.end(hearing, 1000.0)
    assert len(copies) < 30  # of which one is alive: about ln(1000) copies are made


def test_f15_the_penalty_is_the_same_under_autocast() -> None:
    torch.manual_seed(0)
    f, y0, values = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 3)), torch.ones(4, 3), []
    for enabled in (False, True):
        local = ear()
        local.odeint(lambda t, y: f(y), y0, FORWARD, **TOLERANCES)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            values.append(local.penalty().item())
    assert values[0] == values[1]


@pytest.mark.parametrize("how", ["module", "method", "lambda"])
def test_d12_the_penalty_does_not_reach_batchnorm_and_its_evaluations_not_the_cost(how: str) -> None:
    class Normalized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.nfe = nn.Linear(3, 3), 0
            self.norms = nn.ModuleList([nn.BatchNorm1d(3), nn.BatchNorm1d(3, momentum=None)])

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            self.nfe += 1
            for norm in self.norms:
                y = norm(self.linear(y))
            return y

    f, local = Normalized(), ear()
    given = {"module": f, "method": f.forward, "lambda": lambda t, y: f(t, y)}[how]
    local.odeint(given, torch.randn(8, 3), UNIT, rtol=1e-2, atol=1e-2)
    buffers, nfe = [buffer.clone() for buffer in f.buffers()], f.nfe
    local.penalty().backward()
    assert all(torch.equal(a, b) for a, b in zip(buffers, f.buffers(), strict=True))
    assert (f.nfe, local.cost.nfe) == (nfe + 7, nfe)


UNIT = torch.tensor([0.0, 1.0])
