"""Any equation that can be thought of: the right result, or an error of ours, within the limit of steps.

`FUZZ_EXAMPLES=2000 pytest tests/test_fuzz.py` tries more than the 200 examples of each run.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from regnde import CONTROLLERS, SRI_TABLEAUS, Solution, SolverError, solve_ode, solve_sde
from regnde.solvers.solve import METHODS

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "200"))
MAX_STEPS = 60
SLACK = 3.0
"""Estimates are estimates."""
PER_STEP = 7
"""No method here evaluates more stages in one attempt; two more evaluations choose the first step."""
often = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)

shapes = st.sampled_from([(2, 2), (3,), (), (1,), (2, 1, 2), (0,), (0, 2), (2, 0)])
values = st.sampled_from([1.0, -1.0, 0.3, -2.5, 1.0, 0.7, -0.2, 1e-3, 0.0])
dtypes = st.sampled_from([torch.float32, torch.float64])
powers = st.integers(-30, 30).map(lambda power: 10.0**power)
tolerances = st.integers(-12, 0).map(lambda power: 10.0**power)
lengths = st.integers(-14, 10).map(lambda power: 10.0**power)
starts = st.sampled_from([0.0, 0.0, 0.0, 0.0, 0.0, 1.0, -0.37, -1.0, 1.7e9, 1e10])
rates = st.integers(-80, 80).map(lambda tenths: tenths / 10)
"""Rates times the length of the interval: the solution changes by a factor of at most e^8."""


@dataclass(frozen=True)
class Problem:
    """dy/dt = rate y, whose solution is known, written in one way or another."""

    y0: Tensor
    t: Tensor
    rate: float
    rtol: float
    atol: float

    @property
    def exact(self) -> Tensor:
        """The solution at the output times in float64, (times, ...)."""
        grown = torch.exp(self.rate * (self.t - self.t[0]))
        return self.y0.double() * grown.reshape(-1, *[1] * self.y0.ndim)

    def allowed(self, solution: Solution) -> Tensor:
        """What a result may be off, (times, ...): tolerance and rounding of every step, grown."""
        grown = math.exp(abs(self.rate) * self.length)
        one = torch.finfo(self.y0.dtype)
        size = torch.maximum(self.exact.abs(), self.y0.double().abs())
        one_step = self.atol + (self.rtol + 10 * one.eps) * size + 10 * one.tiny
        return SLACK * max(1, self.y0.numel()) ** 0.5 * solution.trace.accepted * grown * one_step

    @property
    def largest(self) -> float:
        """The largest entry that the solution can have anywhere."""
        return float(self.y0.double().abs().max()) * math.exp(abs(self.rate) * self.length)

    @property
    def length(self) -> float:
        """Length of the interval."""
        return float((self.t[-1] - self.t[0]).abs())


@st.composite
def problems(draw: Any, *, backward: bool = True) -> Problem:
    """Draw a linear equation with its tolerance."""
    shape, dtype, scale, rtol = draw(shapes), draw(dtypes), draw(powers), draw(tolerances)
    n, length, start = math.prod(shape), draw(lengths), draw(starts)
    inner = sorted(draw(st.sets(st.sampled_from([0.1, 0.5, 1 / 3, 0.9999]), max_size=2)))
    t = torch.tensor([start + length * part for part in (0.0, *inner, 1.0)], dtype=torch.float64)
    t = -t if backward and draw(st.booleans()) else t
    y0 = scale * torch.tensor(draw(st.lists(values, min_size=n, max_size=n)), dtype=torch.float64)
    atol = draw(st.sampled_from([rtol * scale, rtol * scale, rtol * scale, rtol, 1e-3 * scale, 0.0, 1e-60]))
    rtol = draw(st.sampled_from([rtol, rtol, rtol, rtol, rtol, 0.0]))
    whole = float(t[-1] - t[0]) or length
    return Problem(y0.reshape(shape).to(dtype), t, draw(rates) / whole, rtol=rtol, atol=atol)


def plain(rate: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Rate y as a new tensor."""
    return lambda t, y: rate * y


def reused(rate: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Rate y in one buffer, again and again."""
    buffers: list[Tensor] = []

    def f(t: Tensor, y: Tensor) -> Tensor:
        buffers.extend([torch.empty_like(y)] if not buffers else [])
        return torch.mul(y, rate, out=buffers[0])

    return f


def halves(rate: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Rate y in two buffers by turns: to be refused."""
    buffers: list[Tensor] = []

    def f(t: Tensor, y: Tensor) -> Tensor:
        buffers.extend([torch.empty_like(y), torch.empty_like(y)] if not buffers else [])
        buffers.reverse()
        return torch.mul(y, rate, out=buffers[0])

    return f


def within(low: float, high: float, f: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """The field, which is NaN at times outside [low, high] (in the dtype of the time)."""

    def g(t: Tensor, y: Tensor) -> Tensor:
        inside = torch.tensor(low, dtype=t.dtype) <= t <= torch.tensor(high, dtype=t.dtype)
        return f(t, y) if inside else f(t, y) * math.nan

    return g


def solved(solve: Callable[[], Solution]) -> Solution | None:
    """The solution, or None where the library refuses or gives up in its own words."""
    try:
        return solve()
    except (ValueError, SolverError):
        return None


def check(problem: Problem, solution: Solution) -> None:
    """A solution has the right shape and dtype, finite steps within their limit, and the right values."""
    trace = solution.trace
    assert solution.y.shape == (len(problem.t), *problem.y0.shape)
    assert solution.y.dtype == problem.y0.dtype
    assert trace.accepted + trace.rejected <= MAX_STEPS
    assert trace.nfe <= 2 + PER_STEP * MAX_STEPS
    assert torch.isfinite(trace.dt).all()
    assert torch.equal(solution.y[0], problem.y0)
    error = (solution.y.double() - problem.exact).abs()
    assert bool((error <= problem.allowed(solution)).all()), (error.max(), problem.allowed(solution).min())


@often
@given(
    problem=problems(),
    field=st.sampled_from([plain, reused, halves]),
    method=st.sampled_from(list(METHODS)),
    controller=st.sampled_from(list(CONTROLLERS)),
    first=st.one_of(st.none(), powers),
    grad=st.booleans(),
)
def test_a_linear_ode_is_solved_right_or_refused(
    problem: Problem, field: Any, method: str, controller: str, first: float | None, grad: bool
) -> None:
    low, high = sorted((float(problem.t[0]), float(problem.t[-1])))
    f = within(low, high, field(problem.rate))
    how = {"method": method, "controller": controller, "first_step": first, "max_steps": MAX_STEPS}
    with torch.set_grad_enabled(grad):
        solution = solved(lambda: solve_ode(f, problem.y0, problem.t, rtol=problem.rtol, atol=problem.atol, **how))
    if solution is not None:
        check(problem, solution)


NOISE = 0.4


@pytest.mark.slow
@often
@given(
    problem=problems(backward=False),
    method=st.sampled_from(list(SRI_TABLEAUS)),
    estimate=st.sampled_from(["embedded", "reference"]),
    seed=st.one_of(st.none(), st.integers(0, 2**70)),
    first=st.one_of(st.none(), powers),
)
def test_a_linear_sde_is_solved_right_or_refused(
    problem: Problem, method: str, estimate: str, seed: int | None, first: float | None
) -> None:
    noise = NOISE / math.sqrt(problem.length or 1.0)
    how: dict[str, Any] = {"method": method, "estimate": estimate, "seed": seed, "first_step": first}
    solution = solved(
        lambda: solve_sde(
            reused(problem.rate),
            lambda t, y: noise * y,
            *(problem.y0, problem.t),
            **{"rtol": problem.rtol, "atol": problem.atol, "max_steps": MAX_STEPS, **how},
        )
    )
    if solution is None:
        return
    trace, t0, t1 = solution.trace, float(problem.t[0]), float(problem.t[-1])
    assert trace.accepted + trace.rejected <= MAX_STEPS
    assert trace.nfe <= 2 + 4 * MAX_STEPS
    assert solution.y.shape == (len(problem.t), *problem.y0.shape)
    assert solution.y.dtype == problem.y0.dtype
    w = solution.method.bm(t0, t1).double()  # type: ignore[attr-defined]
    exact = problem.exact[-1] * torch.exp(-(NOISE**2) / 2 + noise * w)
    error = (solution.y[-1].double() - exact).abs()
    allowed = problem.allowed(solution)[-1] * float(torch.exp(noise * w.abs()).max() if w.numel() else 1.0) ** 3
    assert bool((error <= allowed).all()), (error.max(), allowed.min())


@pytest.mark.slow
@often
@given(
    problem=problems(),
    kind=st.sampled_from(["nan", "inf", "jump", "explodes", "pole", "noise", "nan start"]),
    method=st.sampled_from(list(METHODS)),
    where=st.floats(0.0, 1.0),
)
def test_a_field_with_holes_jumps_and_poles_ends_within_its_steps(
    problem: Problem, kind: str, method: str, where: float
) -> None:
    t0, t1 = float(problem.t[0]), float(problem.t[-1])
    at, sign = t0 + where * (t1 - t0), math.copysign(1.0, t1 - t0)
    rng = torch.Generator().manual_seed(0)

    def f(t: Tensor, y: Tensor) -> Tensor:
        after, dy = sign * (float(t) - at) > 0, problem.rate * y
        if kind == "noise":  # no smooth function at all
            return dy * (1 + torch.randn((), generator=rng, dtype=y.dtype))
        if kind == "explodes":
            return problem.rate * y * y
        if kind == "pole":
            return dy / (abs(float(t) - at) / abs(t1 - t0)) if float(t) != at else dy * math.inf
        if kind == "nan start":
            return torch.full_like(y, math.nan)
        return {"nan": dy * math.nan, "inf": dy * math.inf, "jump": -dy}[kind] if after else dy

    how = {"rtol": problem.rtol, "atol": problem.atol, "method": method, "max_steps": MAX_STEPS}
    solution = solved(lambda: solve_ode(f, problem.y0, problem.t, **how))
    if solution is None:
        return
    assert solution.trace.accepted + solution.trace.rejected <= MAX_STEPS
    assert torch.isfinite(solution.y).all()
    if kind == "jump" and problem.y0.numel() and method != "vcab3":  # which looks at f only behind a step
        # a step over the jump may take it to lie anywhere inside
        turned = problem.y0.double() * math.exp(problem.rate * (2 * (at - t0) - (t1 - t0)))
        blind = math.expm1(2 * abs(problem.rate) * float(solution.trace.dt.abs().max())) * problem.largest
        late = (solution.y[-1].double() - turned).abs()
        assert bool((late <= problem.allowed(solution)[-1] + blind).all()), (late.max(), blind)


@pytest.mark.slow
@often
@given(problem=problems(), method=st.sampled_from(list(METHODS)))
def test_a_tighter_solve_of_a_nonlinear_equation_agrees(problem: Problem, method: str) -> None:
    scale = float(problem.y0.abs().max()) or 1.0 if problem.y0.numel() else 1.0

    def f(t: Tensor, y: Tensor) -> Tensor:
        return problem.rate * scale * torch.sin(y / scale) if scale > 0 else y

    tight = solved(lambda: solve_ode(f, problem.y0.double(), problem.t, rtol=1e-10, atol=1e-10 * scale, max_steps=400))
    how = {"rtol": problem.rtol, "atol": problem.atol, "method": method, "max_steps": MAX_STEPS}
    loose = solved(lambda: solve_ode(f, problem.y0, problem.t, **how))
    if tight is not None and loose is not None:
        error = (loose.y.double() - tight.y).abs()
        assert bool((error <= problem.allowed(loose) + 1e-7 * scale).all()), (error.max(), problem.allowed(loose).min())


@pytest.mark.parametrize("name", ["test_a_linear_ode_is_solved_right_or_refused"])
def test_the_examples_are_not_all_refused(name: str) -> None:
    kept: list[bool] = []

    @often
    @given(problem=problems(), method=st.sampled_from(list(METHODS)))
    def count(problem: Problem, method: str) -> None:
        how = {"rtol": problem.rtol, "atol": problem.atol, "method": method, "max_steps": MAX_STEPS}
        kept.append(solved(lambda: solve_ode(plain(problem.rate), problem.y0, problem.t, **how)) is not None)

    count()
    assert sum(kept) > 0.3 * len(kept)
