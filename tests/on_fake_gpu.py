"""Everything that meets a state, on a GPU that is not there: run by test_device.py in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
import torchsde
from fake_gpu import GPU, FakeGPU, moved
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorDeviceMismatchError
from torch.nn import functional

from regnde import (
    REGULARIZERS,
    SRI_TABLEAUS,
    TABLEAUS,
    BrownianPath,
    LocalPenalty,
    Solution,
    StochasticRungeKutta,
    Tableau,
    error_ratio,
    initial_step,
    local_error,
    make_regularizer,
    rk_step,
    solve_ode,
    solve_sde,
    sri_step,
    stiffness_ratio,
)
from regnde.dropin.kept_step import KeptODE, KeptSDE
from regnde.hosts.with_torchdiffeq import HOST_TABLEAUS
from regnde.penalties.jets import RULES
from regnde.penalties.rates import total_derivative
from regnde.solvers import compiled, graphs
from regnde.solvers.sri_steps import ERROR_ESTIMATES
from reproduce import experiments
from reproduce.models.fields import SDE, TimeMLP
from reproduce.models.solve import hold_still
from reproduce.runs import evaluation, train
from reproduce.runs.run import Run, needed
from reproduce.runs.store import CONTROL, VANILLA

BOTH = frozenset({"error_ratio", "stiffness"})
UNIT = torch.tensor([0.0, 1.0], dtype=torch.float64)
TOLERANCE = {"rtol": 1e-3, "atol": 1e-3}
ONCE = 5
"""What a solve reads before its first attempt: are state and derivative finite; three sizes for the first step."""


@pytest.fixture
def gpu() -> Iterator[FakeGPU]:
    with FakeGPU() as mode:
        yield mode


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def field() -> nn.Module:
    return moved(TimeMLP((3, 8, 3)))


def state() -> Tensor:
    return torch.ones(4, 3).to(GPU).requires_grad_()


def check_gradients(loss: Tensor, *modules: nn.Module) -> None:
    """All parameters that get a gradient get it where they are; there are some."""
    assert loss.device == GPU
    parameters = [p for module in modules for p in module.parameters()]
    found = [g for g in torch.autograd.grad(loss, parameters, allow_unused=True) if g is not None]
    assert found
    assert all(g.device == GPU for g in found)


class Path(torchsde.BrownianInterval):
    """A path whose increments are new every time: there are no values on this GPU that could disagree."""

    shape = dtype = device = levy_area_approximation = None  # properties there

    def __init__(self, y0: Tensor, t: Tensor = UNIT, seed: int = 0) -> None:
        self.y0, self._start, self._end = y0.detach(), float(t[0]), float(t[-1])
        self.shape, self.dtype, self.device = y0.shape, y0.dtype, y0.device
        self.levy_area_approximation = "space-time"

    def __call__(self, ta: Any, tb: Any = None, return_U: bool = False, return_A: bool = False) -> Any:
        found = (torch.zeros_like(self.y0), *[torch.zeros_like(self.y0)] * return_U, *[None] * return_A)
        return found if len(found) > 1 else found[0]


def test_tensors_of_two_devices_are_refused_here(gpu: FakeGPU) -> None:
    with pytest.raises(FakeTensorDeviceMismatchError):
        state() + torch.ones(3)


# Steps


@pytest.mark.parametrize("tableau", {**TABLEAUS, **HOST_TABLEAUS}.values(), ids=lambda tableau: tableau.name)
def test_a_step_copies_its_times_once_and_reads_nothing(gpu: FakeGPU, tableau: Tableau) -> None:
    f, y = field(), state()
    before = gpu.count.copy()
    step = rk_step(f, 0.0, y, 0.1, tableau)
    ratio = error_ratio(step.error, step.y, step.y1, **TOLERANCE)
    loss = step.y1.sum() + ratio
    if tableau.stiffness_pair is not None:
        loss = loss + stiffness_ratio(step)
    check_gradients(loss, f)
    assert gpu.since(before) == {"written": 1}
    assert step.at([0.02, 0.05, 0.1]).shape == (3, 4, 3)
    assert gpu.since(before) == {"written": 2}


@pytest.mark.parametrize("estimate", ERROR_ESTIMATES)
@pytest.mark.parametrize("name", SRI_TABLEAUS)
def test_a_stochastic_step_copies_its_numbers_once_and_reads_nothing(gpu: FakeGPU, name: str, estimate: str) -> None:
    f, g, y, tableau = field(), field(), state(), SRI_TABLEAUS[name]
    w, u = torch.zeros_like(y.detach()), torch.zeros_like(y.detach())
    before = gpu.count.copy()
    step = sri_step(f, g, 0.0, y, 0.1, w, u, tableau, estimate=estimate)
    loss = step.y1.sum() + error_ratio(step.error, step.y, step.y1, **TOLERANCE) + step.at([0.05], [w]).sum()
    if tableau.stiffness_pair is not None:
        loss = loss + stiffness_ratio(step)
    check_gradients(loss, f, g)
    assert gpu.since(before) == {"written": 1}


def test_a_local_step_of_either_kind_stays_there(gpu: FakeGPU) -> None:
    f, y = field(), state()
    ode = solve_ode(f, y, UNIT, **TOLERANCE)
    check_gradients(local_error(ode, 0.3, y.detach(), 0.1, times_dt=True, detach_k1=True), f)
    method = StochasticRungeKutta(f, field(), Path(y), 1.0, SRI_TABLEAUS["sosri2"], **TOLERANCE)
    assert method.first_step(0.0, y.detach(), None, 1.0, 1.0) > 0
    assert method.ratio(method.take(0.3, y, 0.1)).device == GPU


def test_an_overflowing_first_size_is_computed_where_there_is_float64() -> None:
    with FakeGPU(numbers=(float("inf"), 1.0)):
        y = state().detach()
        assert initial_step(field(), 0.0, y, y, direction=1.0, order=5, **TOLERANCE) > 0


# Solves


def solved(gpu: FakeGPU, f: nn.Module, t: Tensor = UNIT, **how: Any) -> tuple[Solution, dict[str, int]]:
    before = gpu.count.copy()
    y = state()
    gpu.count["written"], gpu.count["waited"] = before["written"], before["waited"]  # the state itself
    solution = solve_ode(f, y, t, **TOLERANCE, **how)
    assert all(x.device == GPU for x in (solution.y, *solution.trace.y, solution.trace.error_ratio))
    assert all(x.device.type == "cpu" for x in (solution.t, solution.trace.t, solution.trace.dt))
    return solution, gpu.since(before)


@pytest.mark.parametrize("method", TABLEAUS)
def test_an_attempt_is_one_copy_and_one_reading(method: str) -> None:
    with FakeGPU(numbers=(1e-3, 1e-3, 1e-3, 1.5)) as gpu:
        solution, crossed = solved(gpu, field(), method=method)
    attempts = solution.trace.accepted + solution.trace.rejected
    assert solution.trace.rejected
    assert crossed == {"written": attempts, "read": attempts + ONCE}


def test_an_attempt_of_a_step_from_memory_is_one_reading_and_no_copy() -> None:
    with FakeGPU(numbers=(0.5, 0.5, 0.5, 1.5)) as gpu:
        f = field()
        solution, crossed = solved(gpu, f, method="vcab3", first_step=0.1, records=frozenset({"error_ratio"}))
        trace = solution.trace
        assert trace.rejected
        assert crossed == {"written": 2, "read": trace.accepted + trace.rejected + 2}, "the copies are those to start"
        i = trace.accepted - 1
        check_gradients(solution.y.sum() + trace.error_ratio.sum(), f)
        check_gradients(local_error(solution, float(trace.t[i]), trace.y[i], float(trace.dt[i])), f)


def test_a_step_with_output_times_or_sampled_ones_is_one_copy_more_for_either(gpu: FakeGPU) -> None:
    t = torch.linspace(0, 1, 41, dtype=torch.float64)
    how = {"step_sizes": [0.11] * 8 + [0.5]}
    steps = len(how["step_sizes"]) + 1
    solution, crossed = solved(gpu, field(), t, **how)
    assert solution.trace.accepted <= steps
    assert crossed == {"written": 2 * solution.trace.accepted, "read": solution.trace.accepted + 2}
    sampled, crossed = solved(gpu, field(), sampled_t=t[1:-1], **how)
    assert sampled.sampled_y is not None
    assert sampled.sampled_y.device == GPU
    assert crossed == {"written": 2 * sampled.trace.accepted, "read": sampled.trace.accepted + 2}


def test_stiffness_and_rates_cross_nothing(gpu: FakeGPU) -> None:
    rate = make_regularizer("taynode").rate
    assert rate is not None
    solution, crossed = solved(gpu, field(), records=BOTH, rate=rate(rng()), step_sizes=[0.25] * 4)
    assert crossed == {"written": 4 + 1, "waited": 1, "read": 4 + 2}, "the weights of the integral come at the end"
    assert solution.trace.stiffness is not None


@pytest.mark.parametrize("gradient", ["backprop", "checkpoint"])
def test_a_backward_pass_reads_at_most_once_for_each_step(gpu: FakeGPU, gradient: str) -> None:
    f = field()
    solution, _ = solved(gpu, f, gradient=gradient, records=BOTH, step_sizes=[0.25] * 4)
    assert solution.trace.stiffness is not None
    before = gpu.count.copy()
    check_gradients(solution.y.sum() + solution.trace.error_ratio.sum() + solution.trace.stiffness.sum(), f)
    assert gpu.since(before) == ({} if gradient == "backprop" else {"written": 4, "read": 4})


def test_times_with_a_gradient_are_moved_once(gpu: FakeGPU) -> None:
    t = torch.linspace(0, 1, 3, dtype=torch.float64, requires_grad=True)
    solution, crossed = solved(gpu, field(), t, step_sizes=[0.5] * 2)
    assert solution.y.requires_grad  # backward passes from device to device need streams, which no fake has
    assert crossed["written"] == 1 + 2 * 2, "the first time; of each step its stages and the moves of its output times"


def test_a_second_derivative_stays_there(gpu: FakeGPU) -> None:
    f, y = field(), state()
    for gradient in ("backprop", "checkpoint"):
        solution = solve_ode(f, y, UNIT, **TOLERANCE, gradient=gradient, records=frozenset({"error_ratio"}))
        (of_y,) = torch.autograd.grad(solution.y[-1].sum() + solution.trace.error_ratio.sum(), y, create_graph=True)
        check_gradients(of_y.square().sum(), f)


def test_states_in_float64_are_solved_there_too() -> None:
    with FakeGPU(double=True):
        y = torch.ones(4, 3, dtype=torch.float64).to(GPU)
        f = moved(TimeMLP((3, 8, 3)).double())
        solution = solve_ode(f, y, torch.linspace(0, 1, 5, dtype=torch.float64), **TOLERANCE)
        assert (solution.y.dtype, solution.y.device) == (torch.float64, GPU)


@pytest.mark.parametrize("gradient", ["backprop", "checkpoint"])
@pytest.mark.parametrize("method", SRI_TABLEAUS)
def test_an_attempt_of_an_sde_is_one_copy_and_one_reading(method: str, gradient: str) -> None:
    records = BOTH if method == "sosri2" else frozenset({"error_ratio"})
    with FakeGPU(numbers=(1e-3, 1e-3, 1e-3, 1.5)) as gpu:
        sde, y = SDE(field(), field()), state()
        before = gpu.count.copy()
        solution = solve_sde(
            *(sde.f, sde.g, y, UNIT),
            **TOLERANCE,
            bm=Path(y),
            method=method,
            records=records,
            gradient=gradient,
            parameters=tuple(sde.parameters()),
        )
        attempts = solution.trace.accepted + solution.trace.rejected
        assert solution.trace.rejected
        assert gpu.since(before) == {"written": attempts, "read": attempts + ONCE + 1}
        check_gradients(solution.y.sum() + solution.trace.error_ratio.sum(), sde)


def as_written(program: Any) -> Any:
    """Take a program for compiled: there is no compiler for this GPU."""
    return program


@pytest.mark.parametrize("t", [UNIT, torch.linspace(0, 1, 21, dtype=torch.float64)], ids=["one time", "many times"])
def test_programs_for_the_compiler_cross_as_little(t: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "_compiled", as_written)
    monkeypatch.setattr(compiled, "SMALL_STATE", 0)
    with FakeGPU(numbers=(1e-3, 1e-3, 1e-3, 1.5), double=True) as gpu:  # times are float64 in a graph
        f, many = field(), len(t) > 2
        solution, crossed = solved(gpu, f, t, records=BOTH, compile=True)
        attempts, dense = solution.trace.accepted + solution.trace.rejected, solution.trace.accepted if many else 0
        assert solution.trace.rejected
        assert crossed["read"] == attempts + ONCE
        assert crossed["written"] <= attempts + dense
        check_gradients(solution.y.sum() + solution.trace.error_ratio.sum(), f)
        check_gradients(make_regularizer("local_biased").penalty(solution, rng()), f)  # type: ignore[misc]
        sde, y = SDE(field(), field()), state()
        path = solve_sde(sde.f, sde.g, y, t, **TOLERANCE, bm=Path(y), records=BOTH, compile=True)
        check_gradients(path.y.sum() + path.trace.error_ratio.sum(), sde)
        check_gradients(make_regularizer("local_biased").penalty(path, rng()), sde)  # type: ignore[misc]


# Penalties

VARIANTS: dict[str, list[dict[str, Any]]] = {
    "local_unbiased": [{}, {"step": "initial", "times_dt": True}, {"reuse": True}, {"detach_k1": True}],
    "local_biased": [{}, {"step": "initial", "times_dt": True}, {"reuse": True, "times_dt": True}],
    "global_error": [{}, {"times_dt": False}],
    "taynode": [{"order": 2}, {"order": 4}, {"mode": "nested", "order": 2}],
}


@pytest.mark.parametrize("gradient", ["backprop", "checkpoint"])
@pytest.mark.parametrize("name", [*REGULARIZERS, "global_error+steer", "local_biased+taynode"])
def test_every_penalty_of_the_menu_and_its_gradient(gpu: FakeGPU, name: str, gradient: str) -> None:
    budget = experiments.get("mnist_ode").budget("smoke", gradient=gradient)
    for settings in VARIANTS.get(name, [{}])[: None if gradient == "backprop" else 1]:
        regularizer, f = make_regularizer(name, **settings), field()
        solution = evaluation.solver(budget, regularizer, rng())(f, state(), UNIT)
        terms = [part.penalty(solution, rng()) for part in regularizer.simple if part.penalty is not None]
        check_gradients(sum(terms, start=solution.y.sum()), f)


def spelled(name: str, c: Tensor) -> Callable[[Tensor, Tensor], Any] | None:
    """A field that applies an operation of Taylor mode, where it is one of those that compute with a state's values."""
    unary = ["tanh", "sigmoid", "exp", "sin", "cos", "square", "softplus", "silu", "gelu", "relu", "abs", "neg", "sign"]
    known: dict[str, Callable[[Tensor, Tensor], Any]] = {
        **{op: partial(lambda op, t, y: op(y), getattr(functional, op, None) or getattr(torch, op)) for op in unary},
        "log": lambda t, y: torch.log(y),
        "sqrt": lambda t, y: torch.sqrt(y),
        "reciprocal": lambda t, y: torch.reciprocal(y),
        "pow": lambda t, y: y**3 + y**0.5,
        "add": lambda t, y: torch.add(y, t, alpha=2) + 1.0 + c,
        "sub": lambda t, y: 1.0 - y - t,
        "mul": lambda t, y: y * t * c * 2.0,
        "div": lambda t, y: y / c / 2.0 + 1.0 / y,
        "addcmul": lambda t, y: torch.addcmul(c, y, t.expand(3)),
        "matmul": lambda t, y: y @ torch.diag(c),
        "linear": lambda t, y: functional.linear(y, torch.diag(c), c * t),
        "cat": lambda t, y: torch.cat([y[:, :1], t.expand(4, 1), torch.ones_like(y[:, :1])], 1),
        "stack": lambda t, y: torch.stack([y[:, 0], y[:, 1], t.expand(4)], 1),
        "where": lambda t, y: torch.where(y.at(0) > 0, y, 0.0) if hasattr(y, "at") else torch.where(y > 0, y, 0.0),
        "zeros_like": lambda t, y: y * torch.zeros_like(y) + y.new_ones(3),
        "new_full": lambda t, y: y + y.new_full((3,), 2.0) + y.new_tensor([1.0, 2.0, 3.0]),
    }
    return known.get(name)


@pytest.mark.parametrize("name", sorted(RULES))
def test_every_rule_of_taylor_mode(gpu: FakeGPU, name: str) -> None:
    y, c = state(), torch.ones(3).to(GPU)
    f = spelled(name, c)
    if f is None:
        pytest.skip("moves values, or tells of their shape")
    t = y.new_full((), 0.3)
    found = total_derivative(f, t, y, f(t, y), order=3)
    assert (found.device, found.shape) == (GPU, y.shape)


# Drop-ins and hosts


def test_the_step_that_a_drop_in_kept_of_torchdiffeq_is_taken_there(gpu: FakeGPU) -> None:
    from torchdiffeq._impl.bosh3 import Bosh3Solver
    from torchdiffeq._impl.dopri5 import Dopri5Solver
    from torchdiffeq._impl.misc import _PerturbFunc, _rms_norm

    f, y = field(), state().detach()
    for solver in (Dopri5Solver, Bosh3Solver):
        local = LocalPenalty(rng=rng(), weight=0.1)
        kept = KeptODE(_PerturbFunc(f), solver.tableau, 1e-3, 1e-3, _rms_norm, torch.float32, 0.1, 0.2, y)
        local._ear.draw.put(lambda kept=kept: kept, 1.0, quiet=False)
        check_gradients(local.loss(), f)


@pytest.mark.parametrize("kind", ["diagonal", "additive"])
@pytest.mark.parametrize("type_", ["ito", "stratonovich"])
def test_the_step_that_a_drop_in_kept_of_torchsde_is_taken_there(gpu: FakeGPU, kind: str, type_: str) -> None:
    from torchsde._core.base_sde import ForwardSDE

    class Noise(nn.Module):
        noise_type, sde_type = kind, type_

        def __init__(self) -> None:
            super().__init__()
            self.drift, self.scale = field(), nn.Parameter(torch.ones(3, 2).to(GPU))

        def f(self, t: Tensor, y: Tensor) -> Tensor:
            return self.drift(t, y)

        def g(self, t: Tensor, y: Tensor) -> Tensor:
            return y.sin() * self.scale[:, 0] if kind == "diagonal" else self.scale.expand(len(y), 3, 2)

    sde = Noise()
    local = LocalPenalty(rng=rng())
    channels = 3 if kind == "diagonal" else 2
    kept = KeptSDE(ForwardSDE(sde), channels, 1e-3, 1e-3, local._ear.rng, 0.1, 0.2, state().detach())
    local._ear.draw.put(lambda: kept, 1.0, quiet=False)
    check_gradients(local.penalty(), sde)


# The laboratory


def smoke() -> list[Run]:
    """One run of every regularizer that some profile lists, of the control, and of every experiment."""
    runs = [run for profile in ("smoke", "quick") for run in needed(profile)]
    all_of_them = {(run.experiment, run.regularizer): run for run in reversed(runs)}
    cheap_last = sorted(all_of_them.items(), key=lambda item: item[0][0] == "spiral_ode")
    once = {run.regularizer: key for key, run in cheap_last}.values()
    return [run for key, run in all_of_them.items() if key in once or run.regularizer == VANILLA]


def no_draw(path: BrownianPath, number: int, variance: float) -> tuple[Tensor, Tensor]:
    """What a path draws where there is no generator: nothing."""
    x1, x2 = torch.zeros((2, *path.shape), dtype=path.dtype, device=path.device).unbind()
    return x1, x2


@pytest.mark.parametrize("run", smoke(), ids=lambda run: f"{run.experiment}-{run.regularizer}")
def test_every_experiment_trains_and_is_measured_there(gpu: FakeGPU, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BrownianPath, "_draw", no_draw)
    monkeypatch.setattr(evaluation, "TIMINGS", 1)
    experiment, regularizer = experiments.get(run.experiment), run.make_regularizer()
    budget = experiment.budget("smoke", steps=1, batch=64)
    problem = experiment.problem(budget, "test", GPU)
    model = moved(problem.model())
    history, _ = train._fit(model, problem, budget, regularizer, 0, False, None, metric=experiment.metric)
    assert len(history) == 1
    before = gpu.count.copy()
    problem.train_batch(torch.arange(1))
    assert gpu.since(before).get("written", 0) <= 1, "the data are there: what is sent are the indices"
    if run.regularizer in (VANILLA, CONTROL):
        solve = hold_still if regularizer is None else evaluation.solver(budget, noise=rng())
        assert evaluation.evaluate(model, problem, "test", solve).n
