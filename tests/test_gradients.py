"""Gradient methods: checkpoint, backpropagation and adjoint agree; what each keeps in memory; what each refuses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import pytest
import torch
from conftest import Counting
from torch import Tensor, nn

from regnde import TABLEAUS, Regularizer, Solution, odeint_solve, solve_ode, solve_sde
from regnde import make_regularizer as make
from reproduce.models.fields import SDE, Autonomous, TimeMLP
from reproduce.runs.memory import Memory

T = torch.linspace(0.0, 1.5, 12, dtype=torch.float64)
TOLERANCES = {"rtol": 1e-6, "atol": 1e-6}
GRADIENTS = ("backprop", "checkpoint")
LOCAL = ("local_biased", "local_unbiased", "local_stiffness")
STIFFNESS = ("global_stiffness", "local_stiffness")
SOLUTION = "states at all times"

per_direction = pytest.mark.parametrize("t", [T, T.flip(0)], ids=["forward", "backward"])


def value_of(name: str, solution: Solution, rng: torch.Generator) -> Tensor:
    """A number that a solve was made for: a weighted sum of all its states, or a penalty."""
    if name == SOLUTION:
        weights = torch.randn(solution.y.shape, generator=rng, dtype=torch.float64)
        return (weights * solution.y).sum()
    penalty = make(name).penalty
    assert penalty is not None
    return penalty(solution, rng)


def ode_gradients(
    name: str, f: nn.Module, y0: Tensor, t: Tensor, *, gradient: str, inputs: Sequence[Tensor], method: str = "tsit5"
) -> list[Tensor | None]:
    """Solve with one gradient method, and differentiate the value of this name for the inputs."""
    rng = torch.Generator().manual_seed(0)
    regularizer = Regularizer(SOLUTION) if name == SOLUTION else make(name)
    t, sampled_t = regularizer.times(t, rng)
    solution = solve_ode(
        f,
        y0,
        t,
        method=method,
        sampled_t=sampled_t,
        records=regularizer.records,
        rate=None if regularizer.rate is None else regularizer.rate(rng),
        gradient=gradient,
        **TOLERANCES,
    )
    return list(torch.autograd.grad(value_of(name, solution, rng), inputs, allow_unused=True))


def distance(found: Sequence[Tensor | None], expected: Sequence[Tensor | None]) -> float:
    """The largest distance between two gradients, relative to the expected one; they must be None alike."""
    assert [a is None for a in found] == [b is None for b in expected]
    pairs = [(a, b) for a, b in zip(found, expected, strict=True) if a is not None and b is not None]
    assert all(b.norm() > 0 for _, b in pairs)
    return max(((a - b).norm() / b.norm()).item() for a, b in pairs)


VALUES = (SOLUTION, "global_error", "global_stiffness", "taynode", "kinetic_jacobian", *LOCAL)
PAIRS = [(m, name) for m in TABLEAUS for name in VALUES if not (m == "bosh3" and name in STIFFNESS)]


@pytest.mark.slow
@per_direction
@pytest.mark.parametrize(("method", "name"), PAIRS)
def test_checkpointed_gradients_equal_those_of_backpropagation(
    method: str, name: str, t: Tensor, mlp: Counting, y0: Tensor
) -> None:
    inputs = [y0.requires_grad_(), *mlp.parameters()]
    expected, found = (
        ode_gradients(name, mlp, y0, t, gradient=gradient, inputs=inputs, method=method) for gradient in GRADIENTS
    )
    assert (found[0] is None) == (name in LOCAL)  # a local penalty never reaches the initial state
    assert distance(found, expected) < 1e-10


def small_sde() -> SDE:
    torch.manual_seed(0)
    drift, diffusion = TimeMLP((3, 16, 3)), nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    return SDE(drift, Autonomous(diffusion)).double()


OF_SDES = [(m, name) for m, name in product(("sosri", "sosri2"), VALUES) if name not in ("taynode", "kinetic_jacobian")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "name"), [(m, name) for m, name in OF_SDES if not (m == "sosri" and name in STIFFNESS)]
)
def test_checkpointed_gradients_of_sdes_equal_those_of_backpropagation(method: str, name: str, y0: Tensor) -> None:
    sde = small_sde()
    inputs = [y0.requires_grad_(), *sde.parameters()]

    def gradients(gradient: str) -> list[Tensor | None]:
        rng = torch.Generator().manual_seed(0)
        regularizer = Regularizer(SOLUTION) if name == SOLUTION else make(name)
        t, sampled_t = regularizer.times(T, rng)
        solution = solve_sde(
            sde.f,
            sde.g,
            y0,
            t,
            rtol=1e-2,
            atol=1e-2,
            method=method,
            seed=1,
            sampled_t=sampled_t,
            records=regularizer.records,
            gradient=gradient,
        )
        assert solution.trace.accepted > 5
        return list(torch.autograd.grad(value_of(name, solution, rng), inputs, allow_unused=True))

    assert distance(gradients("checkpoint"), gradients("backprop")) < 1e-10


def test_everything_that_a_solve_returns_can_be_in_one_loss(mlp: Counting, y0: Tensor) -> None:
    """States, error ratios, stiffness, a rate and a local step together, as with a sum of regularizers."""
    inputs = [y0.requires_grad_(), *mlp.parameters()]
    both = make("global_error") + make("global_stiffness") + make("taynode", order=2) + make("local_biased")
    assert both.rate is not None

    def gradients(gradient: str) -> list[Tensor | None]:
        rng = torch.Generator().manual_seed(0)
        asked = {"records": both.records, "rate": both.rate(rng)}  # type: ignore[misc]
        solution = solve_ode(mlp, y0, T, gradient=gradient, **asked, **TOLERANCES)  # type: ignore[arg-type]
        terms = [part.penalty(solution, rng) for part in both.simple if part.penalty is not None]
        return list(torch.autograd.grad(sum(terms, start=solution.y.square().sum()), inputs))

    assert distance(gradients("checkpoint"), gradients("backprop")) < 1e-10


def test_checkpointing_changes_no_state_no_step_and_no_count(mlp: Counting, y0: Tensor) -> None:
    records = frozenset({"error_ratio", "stiffness"})
    plain, kept = (solve_ode(mlp, y0, T, gradient=g, records=records, **TOLERANCES) for g in GRADIENTS)
    assert torch.equal(kept.y, plain.y)
    for what in ("t", "dt", "error_ratio", "stiffness", "rejected_t"):
        assert torch.equal(getattr(kept.trace, what), getattr(plain.trace, what))
    assert (kept.trace.nfe, kept.trace.with_gradient) == (plain.trace.nfe, plain.trace.with_gradient)


def test_the_backward_pass_takes_each_accepted_step_once_more(mlp: Counting, y0: Tensor) -> None:
    solution = solve_ode(mlp, y0, T, gradient="checkpoint", **TOLERANCES)
    mlp.calls = 0
    solution.y.square().sum().backward()
    assert mlp.calls == 7 * solution.trace.accepted


def test_a_closure_needs_its_parameters_named() -> None:
    a = torch.tensor(-1.0, dtype=torch.float64, requires_grad=True)
    with pytest.raises(ValueError, match=r"make f an nn\.Module, or pass `parameters`"):
        solve_ode(lambda t, y: a * y, torch.ones(1, 1).double(), T, gradient="checkpoint", **TOLERANCES)


def test_only_the_parameters_that_are_named_get_a_gradient() -> None:
    a, b = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (-1.0, 0.5))
    y0 = torch.ones(2, 1, dtype=torch.float64)

    def grads(gradient: str, named: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
        f = lambda t, y: a * y + b * torch.cos(t)  # noqa: E731
        solution = solve_ode(f, y0, T, gradient=gradient, parameters=named, **TOLERANCES)
        return torch.autograd.grad(solution.y.sum(), (a, b), allow_unused=True)

    of_a, of_b = grads("checkpoint", (a,))
    assert of_b is None
    assert distance([of_a], grads("backprop", ())[:1]) < 1e-10
    assert distance(grads("checkpoint", (a, b)), grads("backprop", ())) < 1e-10


def test_frozen_parameters_stay_frozen_and_the_others_get_their_gradient(mlp: Counting, y0: Tensor) -> None:
    frozen, *others = mlp.parameters()
    frozen.requires_grad_(False)
    expected, found = (ode_gradients(SOLUTION, mlp, y0, T, gradient=g, inputs=others) for g in GRADIENTS)
    assert distance(found, expected) < 1e-10
    solve_ode(mlp, y0, T, gradient="checkpoint", **TOLERANCES).y.sum().backward()
    assert frozen.grad is None


def test_without_gradients_nothing_is_kept_for_a_backward_pass(mlp: Counting, y0: Tensor) -> None:
    with torch.no_grad():
        solution = solve_ode(mlp, y0, T, gradient="checkpoint", records=frozenset({"error_ratio"}), **TOLERANCES)
    assert not solution.y.requires_grad
    assert not solution.trace.with_gradient


def test_a_second_backward_pass_gives_the_same_and_create_graph_the_same_up_to_rounding(
    mlp: Counting, y0: Tensor
) -> None:
    y = solve_ode(mlp, y0, T, gradient="checkpoint", **TOLERANCES).y
    parameters = list(mlp.parameters())
    first, again, with_graph = (
        torch.autograd.grad(y.square().sum(), parameters, retain_graph=True, create_graph=create)
        for create in (False, False, True)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert distance(with_graph, first) < 1e-12


@pytest.mark.parametrize(("gradient", "message"), [("adjoint", "hosts.odeint_solve"), ("magic", "choose 'backprop'")])
def test_an_unknown_gradient_method_is_refused_with_what_there_is(
    gradient: str, message: str, mlp: Counting, y0: Tensor
) -> None:
    with pytest.raises(ValueError, match=message):
        solve_ode(mlp, y0, T, gradient=gradient, **TOLERANCES)
    assert mlp.calls == 0


# What changes between the solve and its backward pass


def loss(f: nn.Module, y0: Tensor, gradient: str, **more: object) -> Tensor:
    """A value of states and error ratios; f draws from torch's generator with a fixed seed."""
    torch.manual_seed(5)
    records = frozenset({"error_ratio"})
    solution = solve_ode(f, y0, T, gradient=gradient, records=records, **{**TOLERANCES, **more})  # type: ignore[arg-type]
    return solution.y.square().sum() + solution.trace.error_ratio.sum()


def in_place(tensor: Tensor) -> None:
    with torch.no_grad():
        tensor.mul_(1.5)


CHANGES: dict[str, Callable[[Counting, Tensor], object]] = {
    "a parameter": lambda f, y0: in_place(next(f.parameters())),
    "a frozen parameter": lambda f, y0: in_place(next(p for p in f.parameters() if not p.requires_grad)),
    "all parameters, by load_state_dict": lambda f, y0: f.load_state_dict(
        {k: 2 * v for k, v in f.state_dict().items()}
    ),
    "the initial state": lambda f, y0: in_place(y0),
}


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("what", list(CHANGES))
def test_what_is_changed_in_place_before_the_backward_pass_is_an_error_as_everywhere_in_torch(
    what: str, gradient: str, mlp: Counting, y0: Tensor
) -> None:
    list(mlp.parameters())[2].requires_grad_(False)
    value = loss(mlp, y0.requires_grad_(), gradient)
    CHANGES[what](mlp, y0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


class Scaled(nn.Module):
    """A field that holds more than parameters."""

    def __init__(self, f: nn.Module) -> None:
        super().__init__()
        self.f, self.scale = f, torch.tensor(1.0, dtype=torch.float64)
        self.register_buffer("kept", torch.tensor(1.0, dtype=torch.float64))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.scale * self.kept * self.f(t, y)


@pytest.mark.parametrize("what", ["attribute", "buffer", "data of a parameter", "a new parameter", "numpy's draws"])
def test_a_replay_that_does_not_find_the_states_of_the_solve_says_so(what: str, mlp: Counting, y0: Tensor) -> None:
    f, rng = Scaled(mlp), np.random.default_rng(0)
    if what == "numpy's draws":
        mlp.register_forward_hook(lambda module, args, output: output * float(1 + 1e-3 * rng.random()))
    value = loss(f, y0, "checkpoint", rtol=1e-2, atol=1e-2)
    first = mlp.f.layers[0].linear  # type: ignore[union-attr, index]
    if what == "attribute":
        f.scale = 2 * f.scale
    elif what == "buffer":
        f.kept.mul_(2.0)
    elif what == "data of a parameter":
        first.weight.data = 2 * first.weight.data
    elif what == "a new parameter":
        first.weight = nn.Parameter(2 * first.weight.detach())
    with pytest.raises(RuntimeError, match="found another state"):
        value.backward()


def test_a_state_that_a_solve_keeps_is_no_alias_of_the_callers(mlp: Counting, y0: Tensor) -> None:
    t, kept = T.clone(), []
    for solve, more in ((solve_ode, {}), (odeint_solve, {}), (odeint_solve, {"gradient": "adjoint"})):
        for each in (T[3:4].clone(), None):
            kept.append(solve(mlp, y0, t, sampled_t=each, **more, **TOLERANCES))  # type: ignore[operator]
            if each is not None:
                each.zero_()
    before = y0.clone()
    y0.zero_()
    t.zero_()
    for solution in kept:
        assert torch.equal(solution.trace.y[0], before)
        assert torch.equal(solution.y[0], before)
        assert torch.equal(solution.t, T)
        assert solution.sampled_t.tolist() in ([], T[3:4].tolist())


class Dropout(nn.Module):
    """A field whose evaluations draw, weakly enough for an adaptive solver."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(9.0, dtype=torch.float64))
        self.dropout = nn.Dropout(0.5)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return torch.sin(self.rate * y) + 1e-3 * self.dropout(y)


def test_a_replay_draws_what_the_solve_drew_also_after_rejected_steps(y0: Tensor) -> None:
    f, expected = Dropout(), None
    for gradient in GRADIENTS:
        value = loss(f, y0.requires_grad_(), gradient, rtol=1e-2, atol=1e-2, first_step=1.0)
        state = torch.get_rng_state()
        found = torch.autograd.grad(value, [y0, f.rate])
        assert torch.equal(torch.get_rng_state(), state)  # and what comes next draws as it would have
        expected = found if expected is None else expected
    assert distance(found, expected) < 1e-12
    with torch.no_grad():
        torch.manual_seed(5)
        assert solve_ode(f, y0, T, rtol=1e-2, atol=1e-2, first_step=1.0).trace.rejected > 0


def test_a_replay_of_an_sde_draws_what_the_solve_drew_in_drift_and_diffusion(y0: Tensor) -> None:
    f, g, found = Dropout(), Dropout(), []
    for gradient in GRADIENTS:
        torch.manual_seed(5)
        solution = solve_sde(
            f, g, y0, T, rtol=0.3, atol=0.3, first_step=0.5, seed=1, gradient=gradient, parameters=[f.rate, g.rate]
        )
        assert solution.trace.rejected > 0
        found.append(torch.autograd.grad(solution.y.square().sum(), [f.rate, g.rate]))
    assert distance(found[1], found[0]) < 1e-12


@pytest.mark.parametrize("closure", [False, True])
def test_the_statistics_of_a_normalization_are_updated_by_the_solve_and_not_by_its_replay(
    closure: bool, y0: Tensor
) -> None:
    f = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)).double()
    norm = f[1]
    more = {"gradient": "checkpoint", "rtol": 1e-2, "atol": 1e-2, "parameters": list(f.parameters())}
    solution = solve_ode((lambda t, y: f(y)) if closure else Autonomous(f), y0, T, **more)  # type: ignore[arg-type]
    before = {name: buffer.clone() for name, buffer in norm.named_buffers()}
    buffers = dict(norm.named_buffers())
    solution.y.square().sum().backward()
    assert before["num_batches_tracked"] == solution.trace.nfe
    for name, buffer in norm.named_buffers():
        assert buffer is buffers[name]
        assert torch.equal(buffer, before[name])


def test_a_backward_pass_outside_of_autocast_replays_inside() -> None:
    class Half(nn.Linear):
        def forward(self, t: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
            seen.append((torch.is_autocast_enabled("cpu"), super().forward(y).dtype))
            return super().forward(y).float()

    seen: list[tuple[bool, torch.dtype]] = []
    f = Half(3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        y = solve_ode(f, torch.ones(2, 3), T, step_sizes=[0.5] * 3, gradient="checkpoint", **TOLERANCES).y
    y.sum().backward()
    assert set(seen) == {(True, torch.bfloat16)}
    assert not torch.is_autocast_enabled("cpu")


# The continuous adjoint


@per_direction
@pytest.mark.parametrize("name", [SOLUTION, *LOCAL[:2]])
def test_the_adjoint_agrees_with_backpropagation_at_a_tight_tolerance(
    name: str, t: Tensor, mlp: Counting, y0: Tensor
) -> None:
    tight = {"rtol": 1e-9, "atol": 1e-9}
    inputs = [y0.requires_grad_(), *mlp.parameters()]

    def gradients(solve: Callable[..., Solution], **more: str) -> list[Tensor | None]:
        rng = torch.Generator().manual_seed(0)
        times, sampled_t = (t, None) if name == SOLUTION else make(name).times(t, rng)
        solution = solve(mlp, y0, times, sampled_t=sampled_t, **tight, **more)
        return list(torch.autograd.grad(value_of(name, solution, rng), inputs, allow_unused=True))

    adjoint = gradients(odeint_solve, gradient="adjoint")
    assert distance(adjoint, gradients(odeint_solve, gradient="backprop")) < 1e-4
    if name == SOLUTION:  # another solver has other steps to draw from
        assert distance(adjoint, gradients(solve_ode)) < 1e-4


@pytest.mark.parametrize(
    ("name", "settings", "advice"),
    [
        ("global_error", {}, "local_unbiased or local_biased"),
        ("global_stiffness", {}, "use solve_ode"),
        ("local_biased", {"reuse": True}, "gradient='backprop', or local_unbiased or local_biased"),
        ("taynode", {}, "solve_ode and rate="),
        ("kinetic_jacobian", {}, "solve_ode and rate="),
    ],
)
def test_a_penalty_that_cannot_work_with_the_adjoint_is_refused_with_what_to_use_instead(
    name: str, settings: dict[str, bool], advice: str, mlp: Counting, y0: Tensor
) -> None:
    regularizer, rng = make(name, **settings), torch.Generator()
    assert regularizer.penalty is not None
    with pytest.raises(ValueError, match=advice):  # noqa: PT012
        solution = odeint_solve(mlp, y0, T, gradient="adjoint", records=regularizer.records, **TOLERANCES)
        regularizer.penalty(solution, rng)


# Memory


def test_memory_is_counted_while_tensors_live() -> None:
    before = torch.ones(100, dtype=torch.float64)
    with Memory() as memory:
        a = before * 2
        b = a.view(10, 10)[:5]  # shares the memory of a
        c = before.add_(1)[:10]  # shares that of a tensor from before
        assert (memory.now, memory.peak) == (800, 800)
        d = b.exp()
        assert (memory.now, memory.peak) == (1200, 1200)
        del a, b
        assert (memory.now, memory.peak) == (400, 1200)
        del c, d
        assert (memory.now, memory.peak) == (0, 1200)
    assert memory.history == [800] * 5 + [1200]  # after each of the six operations


def test_memory_sees_what_the_graph_holds_and_what_the_backward_pass_makes() -> None:
    x = torch.ones(100, dtype=torch.float64, requires_grad=True)
    with Memory() as memory:
        y = (x * 2).exp().exp().sum()  # the graph keeps two outputs of exp, and not the product
        assert memory.now == 2 * 800 + 8
        y.backward()
        assert memory.peak > 2 * 800 + 8
        del y
        assert memory.now == 800  # the gradient


class Sizes:
    """A field on R^d, and the memory that a solve of it with n equal steps needs, in states."""

    def __init__(self, batch: int, d: int, hidden: int) -> None:
        torch.manual_seed(0)
        self.f, self.y0 = TimeMLP((d, hidden, d)), torch.rand(batch, d)

    def peak(self, gradient: str, regularizer: str, n: int) -> tuple[float, float]:
        """States held when the backward pass begins, and at the worst moment."""
        made, rng = make(regularizer), torch.Generator().manual_seed(0)
        t, sampled_t = made.times(torch.tensor([0.0, 1.0], dtype=torch.float64), rng)
        settings = {"sampled_t": sampled_t, "records": made.records, "rtol": 1e-5, "atol": 1e-5}
        with Memory() as memory:
            if gradient == "adjoint":  # torchdiffeq stops at the times of step_t, and needs no other here
                at = torch.linspace(0, 1, n + 1)[1:-1]
                solution = odeint_solve(self.f, self.y0, t, gradient=gradient, options={"step_t": at}, **settings)
                assert n <= solution.trace.accepted <= n + 1
            else:
                solution = solve_ode(self.f, self.y0, t, gradient=gradient, step_sizes=[1 / n] * n, **settings)
            loss = solution.y[-1].square().mean()
            loss = loss if made.penalty is None else loss + made.penalty(solution, rng)
            del solution
            held = memory.now
            loss.backward()
        self.f.zero_grad()
        state = self.y0.nbytes
        return held / state, memory.peak / state


@pytest.mark.slow
@pytest.mark.parametrize("regularizer", ["none", "local_biased", "global_error"])
def test_checkpointing_needs_at_most_a_third_of_the_memory_at_the_size_of_mnist_and_forty_steps(
    regularizer: str,
) -> None:
    case = Sizes(batch=64, d=784, hidden=100)
    full, kept = (case.peak(gradient, regularizer, 40)[1] for gradient in GRADIENTS)
    assert kept < full / 3


@pytest.mark.slow
@pytest.mark.parametrize("regularizer", ["none", "local_biased", "local_unbiased", "global_error", "global_stiffness"])
def test_checkpointing_keeps_one_state_for_each_step_and_backpropagation_all_stages(regularizer: str) -> None:
    case = Sizes(batch=16, d=50, hidden=10)
    full, kept = ([case.peak(gradient, regularizer, n)[0] for n in (10, 20)] for gradient in GRADIENTS)
    assert kept[1] - kept[0] == pytest.approx(10.0, abs=0.1)
    assert full[1] - full[0] > 60.0  # the inputs of six new stages, and what f keeps of them


@pytest.mark.slow
@pytest.mark.parametrize("gradient", ["backprop", "checkpoint", "adjoint"])
@pytest.mark.parametrize("name", ["local_biased", "local_unbiased"])
def test_the_further_memory_of_a_local_penalty_does_not_grow_with_the_steps(gradient: str, name: str) -> None:
    case = Sizes(batch=16, d=50, hidden=10)
    further = [case.peak(gradient, name, n)[1] - case.peak(gradient, "none", n)[1] for n in (10, 20, 40)]
    assert max(further) - min(further) < 0.5
    assert max(further) < 25  # states: one step and its gradient
