"""The Brownian path: its law, its sums, what its seed fixes, and torchsde's solvers along it.

Statistical tests have fixed seeds and hold each moment to 4.5 standard errors: a correct path fails one of the 60 or so
with a probability below 0.001.
"""

from __future__ import annotations

import copy
import math
from itertools import pairwise
from typing import Any

import pytest
import torch
import torchsde
from torch import Tensor, nn

from regnde import BrownianPath, solve_sde
from regnde.solvers import path as module

SIGMAS, N = 4.5, 100_000
DOUBLE = torch.float64
per_dtype = pytest.mark.parametrize("dtype", [torch.float32, DOUBLE], ids=str)


def path(*size: int, t0: float = 0.0, t1: float = 1.0, dtype: torch.dtype = DOUBLE, **more: Any) -> BrownianPath:
    return BrownianPath(torch.empty(size, dtype=dtype), t0, t1, **{"seed": 7, **more})


def holds(samples: Tensor, mean: float) -> bool:
    """Whether the mean of independent samples (n,) is what it shall be."""
    return abs(float(samples.mean()) - mean) < SIGMAS * float(samples.std()) / math.sqrt(len(samples))


def queries(n: int, t0: float, t1: float) -> list[list[float]]:
    """Intervals of many lengths: both ends random, or the second one near the first; most at coarse fractions."""
    rng = torch.Generator().manual_seed(0)
    a, b, near = torch.rand(3, n, generator=rng, dtype=DOUBLE)
    ends = torch.stack([a, torch.where(near < 0.5, b, (a + 10.0 ** (-6 * b)).clamp(max=1.0))], 1).sort(1).values
    coarse = torch.arange(n) % 20 > 0
    ends[coarse] = (ends[coarse] * 2**10).round() / 2**10
    return (t0 + (t1 - t0) * ends).clamp(t0, t1).tolist()


# ------------------------------------------------------------------ the law


@per_dtype
@pytest.mark.parametrize(("a", "b"), [(2.0, 5.0), (2.3, 3.1), (2.75, 3.125), (4.999, 5.0)])
def test_increment_and_integral_have_the_law_of_brownian_motion(dtype: torch.dtype, a: float, b: float) -> None:
    w, u = path(N, t0=2.0, t1=5.0, dtype=dtype)(a, b, return_U=True)
    h = b - a
    w, u = w.double() / h**0.5, u.double() / h**1.5
    for samples, mean in ((w, 0.0), (u, 0.0), (w * w, 1.0), (u * u, 1 / 3), (w * u, 1 / 2), (w**4, 3.0)):
        assert holds(samples, mean)


@pytest.mark.parametrize("dt", [None, 0.3])
def test_disjoint_intervals_are_independent(dt: float | None) -> None:
    bm, edges = path(N, dt=dt), [0.0, 0.1, 0.25, 0.5, 0.77, 1.0]
    found = [x / x.std() for a, b in pairwise(edges) for x in bm(a, b, return_U=True)]
    for i, x in enumerate(found):
        assert all(holds(x * y, 0.0) for y in found[i - i % 2 + 2 :])


def test_two_components_two_seeds_and_two_nodes_are_independent() -> None:
    one, other = path(N, 2)(0.0, 0.5), path(N, 2, seed=8)(0.0, 0.5)
    assert holds(2 * one[:, 0] * one[:, 1], 0.0)
    assert holds(2 * one[:, 0] * other[:, 0], 0.0)
    assert holds((one[:, 0] * path(N, 2)(0.5, 1.0)[:, 0]) * 2, 0.0)


@per_dtype
def test_increments_add_up_and_integrals_obey_chens_relation_to_rounding(dtype: torch.dtype) -> None:
    bm, eps = path(50, dtype=dtype), torch.finfo(dtype).eps
    for (a, c), share in zip(
        queries(100, 0.0, 1.0), torch.linspace(0.01, 0.99, 100, dtype=DOUBLE).tolist(), strict=True
    ):
        b, tick = a + share * (c - a), 2.0**-40
        (w, u), (w1, u1), (w2, u2) = (bm(*ends, return_U=True) for ends in ((a, c), (a, b), (b, c)))
        scale = float(w.abs().max() + w1.abs().max())
        torch.testing.assert_close(w1 + w2, w, rtol=0, atol=20 * eps * scale)
        torch.testing.assert_close(u1 + u2 + (c - b) * w1, u, rtol=0, atol=(20 * eps * (c - a) + tick) * scale)


def test_back_in_time_a_path_returns_on_the_way_it_came() -> None:
    (w, u), (v, x) = (path(3)(*ends, return_U=True) for ends in ((0.2, 0.7), (0.7, 0.2)))
    assert torch.equal(v, -w)
    torch.testing.assert_close(u + x + (0.2 - 0.7) * w, torch.zeros(3, dtype=DOUBLE), rtol=0, atol=1e-15)


# ------------------------------------------------------------------ what the seed fixes


@pytest.mark.parametrize(("dtype", "dt"), [(torch.float32, None), (DOUBLE, 0.1)])
def test_a_thousand_questions_in_any_order_have_the_same_answers_to_the_bit(
    dtype: torch.dtype, dt: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = queries(1000, -1.0, 2.0)
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(1)).tolist()
    one, other = (path(3, 1, t0=-1.0, t1=2.0, dtype=dtype, dt=dt) for _ in range(2))
    first = [torch.stack(one(*ends, return_U=True)) for ends in asked]
    monkeypatch.setattr(module, "NODES", 16)  # nearly everything is made again
    for i in order:
        assert torch.equal(torch.stack(other(*asked[i], return_U=True)), first[i])
    fresh = path(3, 1, t0=-1.0, t1=2.0, dtype=dtype, dt=dt)
    assert torch.equal(torch.stack(fresh(*asked[7], return_U=True)), first[7])


def test_the_memory_of_a_path_is_bounded_and_its_answers_are_the_callers_own() -> None:
    bm = path(3)
    for a, b in queries(200, 0.0, 1.0):
        bm(a, b)
    assert len(bm._nodes) <= module.NODES
    w = bm(0.25, 0.5)
    kept = w.clone()
    w.zero_()
    assert torch.equal(bm(0.25, 0.5), kept)


def test_the_paths_of_both_dtypes_are_the_same_but_for_rounding() -> None:
    single, double = path(40, dtype=torch.float32), path(40)
    for a, b in queries(20, 0.0, 1.0):
        torch.testing.assert_close(single(a, b).double(), double(a, b), rtol=1e-4, atol=1e-6)


def test_a_path_without_seed_comes_from_the_global_generator_and_says_its_seed() -> None:
    torch.manual_seed(0)
    first, second = path(3, seed=None), path(3, seed=None)
    torch.manual_seed(0)
    again = path(3, seed=None)
    assert torch.equal(first(0.0, 1.0), again(0.0, 1.0))
    assert not torch.equal(first(0.0, 1.0), second(0.0, 1.0))
    assert torch.equal(path(3, seed=second.seed)(0.0, 1.0), second(0.0, 1.0))


def test_a_path_leaves_the_global_generator_alone_and_can_be_copied() -> None:
    state = torch.get_rng_state()
    bm = path(3)
    expected = bm(0.1, 0.2)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(copy.deepcopy(bm)(0.1, 0.2), expected)


def test_a_path_that_was_asked_in_inference_mode_serves_training_too() -> None:
    bm = path(3)
    with torch.inference_mode():
        bm(0.0, 1.0)
    theta = torch.ones(3, dtype=DOUBLE, requires_grad=True)
    (theta * bm(0.0, 0.3)).sum().backward()
    assert torch.equal(theta.grad, path(3)(0.0, 0.3))  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(), (0,), (0, 4), (2, 3, 5)])
def test_a_path_has_any_shape(size: tuple[int, ...]) -> None:
    w, u = path(*size)(0.2, 0.9, return_U=True)
    assert w.shape == u.shape == size
    assert torch.equal(path(*size)(0.2, 0.2), torch.zeros(size, dtype=DOUBLE))


@pytest.mark.parametrize("length", [1e-30, 1e12])
def test_a_path_has_any_length(length: float) -> None:
    w, u = path(20_000, t1=length)(0.25 * length, 0.9 * length, return_U=True)
    assert holds(w * w / length, 0.65)
    assert holds(u / length * u / length**2, 0.65**3 / 3)


# ------------------------------------------------------------------ the steps of a solve


def test_a_step_ends_near_its_proposal_at_a_coarse_fraction_and_never_beyond_the_end() -> None:
    bm = path(1, t0=2.0, t1=5.0)
    for a, b in queries(300, 2.0, 4.9):
        dt = max(b - a, 1e-9)
        for again, longest in ((False, 1.25), (True, 1.0)):
            step = bm.coarse_step(a, dt, 4.9, again=again)
            assert a + step <= 4.9 + 1e-15
            assert step <= longest * dt * (1 + 1e-3)
            assert step >= 0.8 * dt * (1 - 1e-3) or a + step == pytest.approx(4.9)
            if a + step < 4.89:
                assert round((a + step - 2) / 3 * 2**40) % 2 ** math.floor(math.log2(0.19 * dt / 3 * 2**40)) == 0


def test_rejected_steps_get_shorter_along_a_path() -> None:
    def f(t: Tensor, y: Tensor) -> Tensor:
        return torch.where(t > 0.37, 1e3, 1.0) * torch.ones_like(y)

    y0, t = torch.zeros(2, 1, dtype=DOUBLE), torch.tensor([0.0, 1.0])
    for controller in ("sde", "integral"):
        settings = {"rtol": 0.0, "atol": 1e-3, "first_step": 0.4, "controller": controller}
        trace = solve_sde(f, lambda t, y: 0.1 + 0 * y, y0, t, seed=1, **settings).trace
        assert trace.rejected > 3
        same = trace.rejected_t[1:] == trace.rejected_t[:-1]
        assert (trace.rejected_dt[1:] < trace.rejected_dt[:-1])[same].all()


# ------------------------------------------------------------------ in an untouched torchsde


class Sde(nn.Module):
    """A linear SDE of diagonal noise."""

    noise_type = "diagonal"

    def __init__(self, sde_type: str) -> None:
        super().__init__()
        self.sde_type, self.b = sde_type, nn.Parameter(torch.tensor(0.8, dtype=DOUBLE))

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        return (1.0 - (self.b**2 / 2 if self.sde_type == "stratonovich" else 0.0)) * y

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        return self.b * y


@pytest.mark.parametrize(
    ("method", "dt", "tolerance", "error"),
    [("srk", 0.1, 1e-2, 0.03), ("milstein", 1 / 64, 0.0, 0.1), ("reversible_heun", 1 / 64, 0.0, 0.15)],
)
@pytest.mark.parametrize("solve", ["sdeint", "sdeint_adjoint"])
def test_torchsdes_own_solvers_go_along_a_path_forth_and_back(
    solve: str, method: str, dt: float, tolerance: float, error: float
) -> None:
    sde = Sde("stratonovich" if method == "reversible_heun" else "ito")
    y0, bm = torch.ones(50, 1, dtype=DOUBLE), path(50, 1)
    settings: dict[str, Any] = {
        "method": method,
        "dt": dt,
        "adaptive": tolerance > 0,
        "rtol": tolerance,
        "atol": tolerance,
    }
    if solve == "sdeint_adjoint":
        back = {"srk": "milstein", "milstein": "milstein", "reversible_heun": "adjoint_reversible_heun"}[method]
        settings["adjoint_method"] = back
    y = getattr(torchsde, solve)(sde, y0, torch.tensor([0.0, 0.5, 1.0], dtype=DOUBLE), bm=bm, **settings)[-1]
    exact = torch.exp(1.0 - sde.b**2 / 2 + sde.b * bm(0.0, 1.0))
    assert float((y - exact).detach().square().mean().sqrt()) < error
    (found,) = torch.autograd.grad(y.sum(), sde.b)
    (expected,) = torch.autograd.grad(exact.sum(), sde.b)
    assert float((found - expected).abs()) < 0.1 * float(exact.detach().sum())


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"t1": 0.0}, r"t0 < t1, found \(0.0, 0.0\)"),
        ({"t1": math.inf}, "finite times"),
        ({"t0": math.nan}, "finite times"),
        ({"dtype": torch.float16}, "float32 or float64, found y0 of torch.float16"),
        ({"seed": -1}, "seed must be a whole number >= 0, found -1"),
        ({"seed": 0.5}, "seed must be a whole number >= 0, found 0.5"),
        ({"dt": 0.0}, "dt must be at least"),
        ({"dt": math.nan}, "dt must be at least"),
    ],
)
def test_a_path_that_cannot_be_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        path(3, **wrong)


@pytest.mark.parametrize("times", [(-0.1, 0.5), (0.5, 1.1), (1.1,), (math.nan, 0.5), (0.5, math.nan)])
def test_times_outside_of_a_path_are_refused(times: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"the path is defined on \[0.0, 1.0\], asked was"):
        path(3)(*times)


def test_the_area_between_components_is_refused() -> None:
    with pytest.raises(ValueError, match="return_A"):
        path(3)(0.0, 1.0, return_A=True)


@pytest.mark.parametrize(
    ("size", "settings", "message"),
    [
        ((3, 2), {}, r"expected \(2, 2\).*found \(3, 2\)"),
        ((2, 2), {"dtype": torch.float32}, "float64.*float32"),
        ((2, 2), {"t1": 0.5}, r"must cover the times \[0.0, 1.0\].*\[0.0, 0.5\]"),
    ],
)
def test_a_solve_refuses_a_path_that_does_not_fit_before_any_evaluation(
    size: tuple[int, ...], settings: dict[str, Any], message: str
) -> None:
    def forbidden(t: Tensor, y: Tensor) -> Tensor:
        raise AssertionError("evaluated")

    y0, t = torch.zeros(2, 2, dtype=DOUBLE), torch.tensor([0.0, 1.0])
    with pytest.raises(ValueError, match=message):
        solve_sde(forbidden, forbidden, y0, t, rtol=1e-2, atol=1e-2, bm=path(*size, **settings))
