"""Compiled steps: same steps, states, gradients and penalties to rounding; few graphs; clear words without one.

Most tests trace and differentiate the graphs and run them without a C++ compiler (`aot_eager`), which takes a tenth of
the time; those with `inductor` in their name compile.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.backends.debugging import aot_eager
from torch._dynamo.utils import counters

from regnde import (
    Controller,
    Solution,
    global_error,
    local_biased,
    local_stiffness,
    local_unbiased,
    solve_ode,
    solve_sde,
)
from regnde.solvers import compiled, graphs

T = torch.linspace(0, 1, 7, dtype=torch.float64)


@pytest.fixture(autouse=True)
def traced(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test begins without graphs, and runs them by torch's own operations unless it is named after inductor."""
    torch._dynamo.reset()
    graphs.GRAPHS.clear()
    counters.clear()
    if "inductor" not in request.node.name:
        monkeypatch.setattr(graphs, "_backend", aot_eager)
    monkeypatch.setattr(compiled, "AHEAD", 2)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="compile=True")
        yield
    graphs.GRAPHS.clear()


class Field(nn.Module):
    def __init__(self, d: int = 3, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(d, 8), nn.Tanh(), nn.Linear(8, d)).to(dtype)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return 3 * self.net(y) * torch.cos(4 * t)


class Noise(Field):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return 0.3 + 0.1 * torch.sin(y)


def start(n: int = 4, d: int = 3) -> Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def both(f: Any, y0: Tensor, t: Tensor = T, **how: Any) -> tuple[Solution, Solution]:
    how = {"rtol": 1e-4, "atol": 1e-4, "method": "bosh3", **how}
    return solve_ode(f, y0, t, **how), solve_ode(f, y0, t, compile=True, **how)


def same(a: Solution, b: Solution, *, tolerance: float = 1e-9) -> None:
    """The same attempts, and states to rounding."""
    assert a.trace.accepted == b.trace.accepted
    for name in ("t", "dt", "rejected_t", "rejected_dt", "error_ratio"):
        torch.testing.assert_close(getattr(a.trace, name), getattr(b.trace, name), rtol=1e-6, atol=1e-9)
    assert a.trace.nfe == b.trace.nfe
    torch.testing.assert_close(a.y, b.y, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(torch.stack(a.trace.y), torch.stack(b.trace.y), rtol=tolerance, atol=tolerance)


def gradients(f: nn.Module, loss: Tensor, *more: Tensor) -> list[Tensor]:
    found = torch.autograd.grad(loss, [*f.parameters(), *more], allow_unused=True)
    return [torch.zeros(()) if grad is None else grad for grad in found]


@pytest.mark.parametrize("method", ["tsit5", "bosh3"])
@pytest.mark.parametrize("ahead", [True, False])
def test_same_steps_states_and_gradients(method: str, ahead: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "SMALL_STATE", 10**6 if ahead else 0)
    f, y0 = Field(), start().requires_grad_()
    a, b = both(f, y0, method=method, records=frozenset({"error_ratio"}))
    same(a, b)
    found = [gradients(f, x.y.square().sum() + x.trace.error_ratio.sum(), y0) for x in (a, b)]
    torch.testing.assert_close(*found, rtol=1e-8, atol=1e-10)


def test_backward_in_time_and_few_output_times() -> None:
    f = Field()
    for t in (T.flip(0), T[[0, -1]], T[[0, 1]]):
        same(*both(f, start(), t))


@pytest.mark.parametrize("controller", ["integral", "pi"])
def test_rejections_and_both_controllers_keep_the_steps(controller: str) -> None:
    def f(t: Tensor, y: Tensor) -> Tensor:
        return y * torch.cos(30 * t**3)

    a, b = both(f, start(), controller=controller, first_step=0.9, rtol=1e-5, atol=1e-5)
    assert a.trace.rejected > 3
    same(a, b)


@pytest.mark.parametrize("controller", ["integral", "pi", Controller(beta1=0.6, beta2=0.2, max_factor=2.0)])
def test_steps_taken_ahead_are_used(controller: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    run = graphs.Graph.__call__

    def noted(self: graphs.Graph, *inputs: Any) -> Any:
        calls.append(inputs)
        return run(self, *inputs)

    monkeypatch.setattr(graphs.Graph, "__call__", noted)
    _, b = both(lambda t, y: -y, start(), controller=controller)
    assert b.trace.rejected == 0
    assert len(calls) == -(-b.trace.accepted // compiled.AHEAD)


def test_prescribed_steps_and_long_times() -> None:
    f = Field()
    sizes = [0.3, 0.05, 0.25, 0.4]
    same(*both(f, start(), step_sizes=sizes))
    a, b = both(f, start(), T + 2.0**26)
    assert a.trace.accepted == b.trace.accepted
    torch.testing.assert_close(a.y, b.y, rtol=1e-5, atol=1e-5)  # time has a spacing of 1e-8 there


def test_records_rates_and_sampled_times() -> None:
    f = Field()

    def rate(f: Any, t: Tensor, y: Tensor, dy: Tensor) -> Tensor:
        return dy.square().mean()

    how = {
        "method": "dopri5",
        "records": frozenset({"error_ratio", "stiffness"}),
        "rate": rate,
        "sampled_t": torch.tensor([0.33, 0.5]),
    }
    a, b = both(f, start(), **how)
    same(a, b)
    assert a.trace.stiffness is not None
    assert b.trace.stiffness is not None
    torch.testing.assert_close(a.trace.stiffness, b.trace.stiffness)
    torch.testing.assert_close(a.sampled_y, b.sampled_y)
    found = [gradients(f, x.trace.stiffness.sum() + x.rate_integral) for x in (a, b)]  # type: ignore[union-attr,operator]
    torch.testing.assert_close(*found, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("ahead", [True, False])
def test_sampled_times_at_the_ends_of_steps(ahead: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "SMALL_STATE", 10**6 if ahead else 0)
    for sampled in ([0.0], [1.0], [0.0, 0.25, 1.0]):
        for sizes in (None, [0.25] * 4):
            a, b = both(lambda t, y: -y, start(), T[[0, 6]], sampled_t=torch.tensor(sampled), step_sizes=sizes)
            torch.testing.assert_close(a.sampled_y, b.sampled_y, rtol=1e-9, atol=1e-12)
        how: dict[str, Any] = {"rtol": 1e-2, "atol": 1e-2, "seed": 5, "sampled_t": torch.tensor(sampled)}
        of_sde = [solve_sde(lambda t, y: -y, lambda t, y: 0.1 * y, start(), T, compile=on, **how) for on in (0, 1)]
        torch.testing.assert_close(*[solution.sampled_y for solution in of_sde], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "regularizer",
    [local_unbiased(weight=1.0), local_biased(weight=1.0), local_stiffness(weight=1.0), global_error(weight=1.0)],
    ids=lambda r: r.name,
)
def test_penalties_are_the_same(regularizer: Any) -> None:
    f = Field()
    solved = both(
        f, start(), method="dopri5", records=regularizer.records, sampled_t=torch.tensor([0.4], dtype=torch.float64)
    )
    penalties = [regularizer.penalty(solution, torch.Generator().manual_seed(3)) for solution in solved]
    torch.testing.assert_close(*penalties, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(*[gradients(f, penalty) for penalty in penalties], rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("estimate", ["embedded", "reference"])
def test_an_sde_has_the_same_steps_and_gradients(estimate: str) -> None:
    f, g, y0 = Field(), Noise(), start(32)
    how: dict[str, Any] = {"rtol": 1e-2, "atol": 1e-2, "seed": 5, "estimate": estimate}
    how["records"] = frozenset({"error_ratio", "stiffness"})
    a, b = (solve_sde(f, g, y0, T, compile=on, **how) for on in (False, True))
    for name in ("t", "dt", "error_ratio", "stiffness"):
        torch.testing.assert_close(getattr(a.trace, name), getattr(b.trace, name), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(a.y, b.y, rtol=1e-9, atol=1e-12)
    assert a.trace.nfe <= b.trace.nfe <= a.trace.nfe + 1 + a.trace.rejected
    losses = [x.y.square().sum() + x.trace.error_ratio.sum() + x.trace.stiffness.sum() for x in (a, b)]  # type: ignore[union-attr]
    torch.testing.assert_close(*[gradients(f, loss) for loss in losses], rtol=1e-7, atol=1e-9)
    regularizer = local_biased(weight=1.0)
    penalties = [regularizer.penalty(solution, torch.Generator().manual_seed(3)) for solution in (a, b)]
    torch.testing.assert_close(*[gradients(f, penalty) for penalty in penalties], rtol=1e-7, atol=1e-9)


def test_rejected_steps_of_an_sde_see_the_same_path() -> None:
    def pulse(t: Tensor, y: Tensor) -> Tensor:
        return -200 * y * torch.exp(-((8 * (t - 0.6)) ** 4))

    def noise(t: Tensor, y: Tensor) -> Tensor:
        return 0.2 * y

    how: dict[str, Any] = {"rtol": 1e-2, "atol": 1e-2, "seed": 2}
    a, b = (solve_sde(pulse, noise, start(64), T, compile=on, **how) for on in (False, True))
    assert a.trace.rejected > 0
    torch.testing.assert_close(a.trace.rejected_dt, b.trace.rejected_dt)
    torch.testing.assert_close(a.y, b.y, rtol=1e-9, atol=1e-12)


def test_gradcheck_of_states_and_error_ratios() -> None:
    f, y0 = Field(2), start(2, 2).requires_grad_()
    sizes = [0.3, 0.2, 0.5]

    def solved(y0: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            for own, given in zip(f.parameters(), parameters, strict=True):
                own.copy_(given)
        return replaced(f, y0, parameters, sizes)

    def replaced(f: Field, y0: Tensor, parameters: Any, sizes: list[float]) -> tuple[Tensor, Tensor]:
        w1, b1, w2, b2 = parameters

        def field(t: Tensor, y: Tensor) -> Tensor:
            return 3 * (torch.tanh(y @ w1.T + b1) @ w2.T + b2) * torch.cos(4 * t)

        how: dict[str, Any] = {"rtol": 1e-3, "atol": 1e-3, "step_sizes": sizes, "method": "bosh3"}
        solution = solve_ode(field, y0, T[[0, 3, 6]], compile=True, records=frozenset({"error_ratio"}), **how)
        return solution.y, solution.trace.error_ratio

    inputs = (y0, *(p.detach().clone().requires_grad_() for p in f.parameters()))
    assert torch.autograd.gradcheck(solved, inputs, fast_mode=True)


def training(steps: int, *, batch: int = 4, fresh: bool = False, regularizer: Any = None) -> list[int]:
    """Train with compiled steps; return the number of graphs after each training step."""
    f, counts = Field(), []
    optimizer = torch.optim.Adam(f.parameters(), lr=0.01)
    for i in range(steps):
        field = (lambda t, y: f(t, y)) if fresh else f
        solution = solve_ode(field, start(batch), T, rtol=1e-4, atol=1e-4, method="bosh3", compile=True)
        loss = solution.y.square().sum()
        if regularizer is not None:
            loss = loss + regularizer.penalty(solution, torch.Generator().manual_seed(i))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        counts.append(counters["stats"]["unique_graphs"])
    return counts


@pytest.mark.parametrize("fresh", [False, True], ids=["a module", "a lambda made anew"])
def test_nothing_is_compiled_after_the_second_training_step(fresh: bool) -> None:
    counts = training(12, fresh=fresh, regularizer=local_biased(weight=0.1))
    assert 2 <= counts[1] <= 3
    assert counts[1:] == counts[1:2] * 11


def test_a_second_model_of_the_same_kind_uses_the_graphs_of_the_first() -> None:
    first = training(3)[-1]
    assert training(3)[-1] == first


def test_graphs_are_kept_on_disk_and_may_be_differentiated_twice_inductor() -> None:
    f = Field(2)
    a, b = both(f, start(2, 2), T[[0, 2, 6]], method="bosh3", rtol=1e-3, atol=1e-3)
    same(a, b)
    expected = gradients(f, a.y.square().sum())
    for _ in range(2):
        found = torch.autograd.grad(b.y.square().sum(), list(f.parameters()), retain_graph=True)
        torch.testing.assert_close(list(found), expected, rtol=1e-9, atol=1e-11)
    told = {**counters["inductor"], **counters["aot_autograd"]}
    assert told.get("fxgraph_cache_bypass", 0) == told.get("autograd_cache_bypass", 0) == 0  # they are kept on disk
    assert told.get("autograd_cache_saved", 0) + told.get("autograd_cache_hit", 0) > 0


class Counting(Field):
    """A field as many public programs have it: it counts its evaluations."""

    nfe = 0

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        self.nfe += 1
        return super().forward(t, y)


def test_a_field_that_counts_gets_no_new_graph_for_each_number() -> None:
    f, counts = Counting(), []
    for _ in range(4):
        f.nfe = 0
        solution = solve_ode(f, start(), T, rtol=1e-4, atol=1e-4, method="bosh3", compile=True)
        assert f.nfe >= solution.trace.nfe  # what was taken ahead was evaluated, too
        counts.append(counters["stats"]["unique_graphs"])
    assert counts[1:] == counts[1:2] * 3


def test_many_models_of_one_code_have_their_graphs() -> None:
    for d in range(1, 11):
        net = Field(d)

        def f(t: Tensor, y: Tensor, net: Field = net) -> Tensor:
            return net(t, y)

        a, b = both(f, start(2, d), T[[0, 6]], step_sizes=[0.5, 0.5])
        torch.testing.assert_close(a.y, b.y, rtol=1e-9, atol=1e-9)


def test_an_untraceable_field_is_told_and_stepped_as_usual() -> None:
    def f(t: Tensor, y: Tensor) -> Tensor:
        return -y if float(y.sum()) > 0 else -2 * y

    with pytest.warns(
        UserWarning, match="compile=True: the field cannot be turned into one graph.*depends on the values"
    ):
        b = solve_ode(f, start(), T, rtol=1e-5, atol=1e-5, compile=True)
    a = solve_ode(f, start(), T, rtol=1e-5, atol=1e-5)
    assert torch.equal(a.y, b.y)
    assert a.trace.nfe == b.trace.nfe
    solve_ode(f, start(), T, rtol=1e-5, atol=1e-5, compile=True)  # said once


def test_a_missing_compiler_says_what_to_install_inductor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (None, "no-such-compiler"))
    monkeypatch.setattr("torch._inductor.config.fx_graph_cache", False)
    monkeypatch.setattr("torch._functorch.config.enable_autograd_cache", False)
    with pytest.raises(RuntimeError, match=r"needs a compiler.*apt install g\+\+"):
        solve_ode(lambda t, y: -y * 3, start(), T, rtol=1e-5, atol=1e-5, compile=True)


def test_what_a_compiled_solve_does_not_take_is_named_before_any_evaluation() -> None:
    def never(t: Tensor, y: Tensor) -> Tensor:
        raise AssertionError("f was evaluated")

    how: dict[str, Any] = {"rtol": 1e-3, "atol": 1e-3, "compile": True}
    with pytest.raises(ValueError, match="gradient='backprop'"):
        solve_ode(never, start(), T, gradient="checkpoint", parameters=[], **how)
    with pytest.raises(ValueError, match="without a gradient"):
        solve_ode(never, start(), T.clone().requires_grad_(), **how)


def test_nothing_gets_a_gradient_that_had_none() -> None:
    _, b = both(lambda t, y: -y * torch.cos(t), start())
    assert not b.y.requires_grad
    with torch.no_grad():
        _, b = both(Field(), start())
    assert not b.y.requires_grad


def test_the_controller_in_the_graph_is_that_of_the_loop() -> None:
    for control in (Controller(), Controller(beta1=0.7, beta2=0.4, min_factor_accepted=0.2, max_factor=3.0)):
        for ratio in (0.0, 1e-6, 0.03, 0.5, 1.0):
            for previous in (1e-4, 0.2, 1.0):
                now, before = torch.tensor(ratio, dtype=torch.float64), torch.tensor(previous, dtype=torch.float64)
                found = float(control.growth(now, before, order=5))
                assert found == pytest.approx(control.factor(ratio, previous, order=5), rel=1e-12)
