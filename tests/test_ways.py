"""The ways to solve a trained model: counted, compared on the same noise, and the cheapest that keeps the metric."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from conftest import Counting
from scipy import stats
from torch import Tensor

from regnde import Way, Ways, cheapest_way, standard_ways
from regnde.dropin.ways import _line, _quantile, _Tried

UNIT = torch.tensor([0.0, 1.0], dtype=torch.float64)
HOSTS = ("torchdiffeq", "torchsde", "own", "own_sde")
BATCHES = [torch.randn(8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in range(3)]
TURN = torch.tensor([[0.0, 2.0], [-2.0, 0.0]], dtype=torch.float64)

of_errors = partial(cheapest_way, higher_is_better=False)
per_host = pytest.mark.parametrize("host", HOSTS)


def constant(t: Tensor, y: Tensor) -> Tensor:
    return torch.ones_like(y)


def rotation(t: Tensor, y: Tensor) -> Tensor:
    return y @ TURN


class Sde:
    """A drift with a little constant noise of any type, in two dimensions."""

    sde_type = "ito"

    def __init__(self, f: Callable[[Tensor, Tensor], Tensor], noise_type: str = "diagonal") -> None:
        self.drift, self.noise_type, self.calls = f, noise_type, {"f": 0, "g": 0}

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        self.calls["f"] += 1
        return self.drift(t, y)

    def h(self, t: Tensor, y: Tensor) -> Tensor:
        return -y

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        self.calls["g"] += 1
        shape = {"diagonal": y.shape, "scalar": (*y.shape, 1)}.get(self.noise_type, (*y.shape, 3))
        return y.new_full(shape, 0.1)


def predicting(host: str, f: Callable[[Tensor, Tensor], Tensor], t: Tensor = UNIT) -> Callable[..., Tensor]:
    """A model that returns the end of one solve, (batch, 2)."""
    sde = Sde(f)

    def predict(batch: Tensor, solve: Callable[..., Any]) -> Tensor:
        equation = {"torchsde": (sde,), "own_sde": (sde.f, sde.g)}.get(host, (f,))
        found = solve(*equation, batch, t)
        return found[-1] if isinstance(found, Tensor) else found.y[-1]

    return predict


def distance(prediction: Tensor, batch: Tensor) -> Tensor:
    return (prediction - torch.tensor([3.0, -1.0])).norm(dim=1)


def tried(host: str, f: Callable[[Tensor, Tensor], Tensor], t: Tensor = UNIT, **how: Any) -> Ways:
    how = {"margin": 1e-4, **how}
    return of_errors(predicting(host, f, t), BATCHES, distance, host=host, **how)


@per_host
def test_one_step_does_for_a_field_that_is_constant_along_the_path_and_not_for_a_rotation(host: str) -> None:
    first = "sosri2, 1 step" if host == "own_sde" else "euler, 1 step"
    straight, round_about = tried(host, constant), tried(host, rotation)
    assert straight.cheapest.way.name == first or host == "torchsde"  # there Milstein's step is the same one
    assert straight.cheapest.way.steps == 1
    assert abs(straight.cheapest.lost) < 1e-9  # the same noise
    assert round_about.cheapest.evaluations > straight.cheapest.evaluations
    assert not next(line for line in round_about.lines if line.way.name == first).keeps


@per_host
def test_more_steps_differ_less_from_the_reference_which_loses_nothing(host: str) -> None:
    found = tried(host, rotation)
    method = standard_ways(host)[-1].method
    steps = [line for line in found.lines if line.way.method == method and line.way.steps]
    assert [line.way.steps for line in steps] == [1, 2, 4, 8, 16]
    for coarse, fine in pairwise(steps):
        assert coarse.bound - coarse.lost > fine.bound - fine.lost  # the spread of the differences
    (reference,) = (line for line in found.lines if line.way == found.reference)
    assert (reference.lost, reference.bound, reference.keeps) == (0.0, 0.0, True)
    adaptive = [line for line in found.lines if line.way.tolerance is not None]
    assert found.reference.tolerance == min(line.way.tolerance for line in adaptive)  # type: ignore[type-var]
    assert {line.way for line in found.lines} == set(standard_ways(host))


def test_torchdiffeq_and_the_solvers_here_take_the_same_steps_by_the_same_formulas() -> None:
    ways = [*(Way(method, steps=n) for method in ("euler", "midpoint") for n in (1, 3)), Way("bosh3", tolerance=1e-6)]
    theirs, ours = (tried(host, rotation, ways=ways) for host in ("torchdiffeq", "own"))
    for line, other in zip(theirs.lines[:4], ours.lines[:4], strict=True):
        assert (line.way, line.nfe) == (other.way, other.nfe)
        assert line.metric == pytest.approx(other.metric, rel=1e-9)


@pytest.mark.parametrize("host", ["torchdiffeq", "own"])
@pytest.mark.parametrize("way", [Way("bosh3", tolerance=1e-4), Way("rk4", steps=3), Way("midpoint", steps=1)])
def test_evaluations_are_those_that_a_field_counts_by_itself(host: str, way: Way) -> None:
    field = Counting(rotation)  # type: ignore[arg-type]
    (line,) = tried(host, field, ways=[way], reference=way).lines
    assert line.nfe * len(BATCHES) == field.calls
    assert line.nfe_diffusion == 0


@pytest.mark.parametrize("names", [{}, {"drift": "mu", "diffusion": "sigma"}])
@pytest.mark.parametrize("way", [Way("srk", tolerance=0.1), Way("milstein", steps=4)])
def test_evaluations_of_drift_and_diffusion_are_counted_whatever_they_are_called(
    way: Way, names: dict[str, str]
) -> None:
    sde = Sde(rotation)
    sde.mu, sde.sigma = sde.f, sde.g  # type: ignore[attr-defined]
    found = of_errors(
        lambda batch, solve: solve(sde, batch, UNIT, names=names)[-1],
        BATCHES,
        distance,
        margin=1.0,
        host="torchsde",
        ways=[way],
        reference=way,
    )
    assert found.lines[0].nfe * len(BATCHES) == sde.calls["f"]
    assert found.lines[0].nfe_diffusion * len(BATCHES) == sde.calls["g"]


class Joint(Sde):
    """Drift and diffusion in one method, of which one learns how many noises there are."""

    f = g = property()

    def f_and_g(self, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.drift(t, y), y.new_full((*y.shape, 3), 0.1)


@pytest.mark.parametrize(
    ("sde", "logqp"),
    [
        *((Sde(constant, noise_type), False) for noise_type in ("diagonal", "scalar", "additive", "general")),
        (Sde(constant), True),
        (Joint(constant, "general"), False),
    ],
)
def test_every_way_sees_the_same_brownian_path(sde: Sde, logqp: bool) -> None:
    def predict(batch: Tensor, solve: Callable[..., Any]) -> Tensor:
        found = solve(sde, batch, UNIT, logqp=logqp)
        return (found[0] if logqp else found)[-1]

    ways = [Way("euler", steps=n) for n in (1, 3, 16)]
    found = of_errors(predict, BATCHES, distance, margin=0, host="torchsde", ways=ways, reference=ways[0])
    assert [line.note for line in found.lines] == ["", "", ""]
    assert max(abs(line.lost) for line in found.lines) < 1e-9
    without = torch.cat([distance(batch + 1, batch) for batch in BATCHES]).mean()
    assert abs(found.lines[0].metric - float(without)) > 1e-3  # there is noise


@pytest.mark.parametrize("host", ["torchsde", "own_sde"])
def test_two_solves_of_one_prediction_add_up_and_have_paths_of_their_own(host: str) -> None:
    predict, ends = predicting(host, constant), list[Tensor]()

    def twice(batch: Tensor, solve: Callable[..., Any]) -> Tensor:
        ends.extend(predict(batch, solve) for _ in range(2))
        return ends[-1]

    way = standard_ways(host)[-1]
    how: dict[str, Any] = {"margin": 1.0, "host": host, "ways": [way], "reference": way}
    once = of_errors(predict, BATCHES[:1], distance, **how)
    both = of_errors(twice, BATCHES[:1], distance, **how)
    assert both.lines[0].evaluations == 2 * once.lines[0].evaluations
    assert (ends[0] - ends[1]).abs().min() > 1e-6


@pytest.mark.parametrize("steps", [1, 3, 7, 16])
def test_torchsde_takes_as_many_steps_as_asked_whatever_rounding_says(steps: int) -> None:
    way, ts = Way("euler", steps=steps), torch.tensor([0.1, 0.7, 1.3])
    (line,) = tried("torchsde", constant, ts, ways=[way], reference=way).lines
    assert line.nfe == steps + 1  # torchsde checks the drift by one evaluation


def test_a_state_tuple_is_solved_as_the_tensor_of_its_parts() -> None:
    def parts(t: Tensor, y: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return 2 * -y[1], 2 * y[0]

    def predict(batch: Tensor, solve: Callable[..., Any]) -> Tensor:
        first, second = solve(parts, (batch[:, :1], batch[:, 1:]), UNIT, rtol=1e-3)
        return torch.cat([first[-1], second[-1]], 1)

    ways = [Way("euler", steps=2), Way("rk4", steps=2), Way("dopri5", tolerance=1e-7)]
    how: dict[str, Any] = {"margin": 0.1, "host": "torchdiffeq", "ways": ways}
    tuples, joined = of_errors(predict, BATCHES, distance, **how), tried("torchdiffeq", rotation, ways=ways)
    for line, other in zip(tuples.lines, joined.lines, strict=True):
        assert line.way == other.way
        assert line.metric == pytest.approx(other.metric, rel=1e-6)


@pytest.mark.parametrize("host", ["torchdiffeq", "own"])
def test_a_solve_backward_in_time_is_that_of_the_reversed_field(host: str) -> None:
    ways = [Way("euler", steps=3), Way("rk4", steps=2), Way("bosh3", tolerance=1e-5)]
    backward = tried(host, lambda t, y: t * rotation(t, y), UNIT.flip(0), ways=ways)
    forward = tried(host, lambda t, y: (t - 1) * rotation(t, y), ways=ways)
    for line, other in zip(backward.lines, forward.lines, strict=True):
        assert (line.way, line.nfe) == (other.way, other.nfe)
        assert line.metric == pytest.approx(other.metric, rel=1e-9)


@pytest.mark.parametrize("host", ["torchdiffeq", "own"])
def test_fixed_steps_reach_all_output_times_of_a_solve(host: str) -> None:
    t = torch.tensor([0.0, 0.3, 0.45, 1.0], dtype=torch.float64)

    def predict(batch: Tensor, solve: Callable[..., Any]) -> Tensor:
        found = solve(constant, batch, t)
        return found if isinstance(found, Tensor) else found.y

    def wrong(states: Tensor, batch: Tensor) -> Tensor:
        return (states - batch - t[:, None, None]).abs().amax(dim=(0, 2))

    way = Way("euler", steps=2)
    found = of_errors(predict, BATCHES, wrong, margin=0.0, host=host, ways=[way], reference=way)
    assert found.lines[0].metric < 1e-12


def test_margin_zero_keeps_only_what_is_no_worse_by_its_bound() -> None:
    found = tried("own", rotation, margin=0.0)
    assert [line.keeps for line in found.lines] == [line.bound <= 0 for line in found.lines]
    assert any(line.lost < 0 < line.bound for line in found.lines)  # better on average, and not kept
    generous = tried("own", rotation, margin=100.0)
    assert all(line.keeps for line in generous.lines)
    assert generous.cheapest.evaluations == 1


def test_what_is_lost_has_the_sign_of_the_metric() -> None:
    errors = tried("own", rotation)
    predict = predicting("own", rotation)
    scores = cheapest_way(
        predict, BATCHES, lambda *args: -distance(*args), margin=1e-4, host="own", higher_is_better=True
    )
    assert [line.lost for line in errors.lines] == [line.lost for line in scores.lines]
    assert errors.cheapest.way == scores.cheapest.way


def test_a_metric_may_be_one_number_for_each_batch() -> None:
    whole = of_errors(
        predicting("own", rotation), BATCHES, lambda *args: float(distance(*args).mean()), margin=1e-4, host="own"
    )  # fmt: skip
    each = tried("own", rotation)
    assert [line.lost for line in whole.lines] == pytest.approx([line.lost for line in each.lines])
    assert whole.cheapest.bound <= 1e-4


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 7, 30, 61, 1000])
def test_the_quantile_is_students(degrees: int) -> None:
    for level in (0.5, 0.8, 0.95, 0.999):
        assert _quantile(level, degrees) == pytest.approx(stats.t.ppf(level, degrees), rel=1e-9, abs=1e-9)
    assert stats.norm.ppf(0.95) < _quantile(0.95, 10**6) < 1.001 * stats.norm.ppf(0.95)


def test_a_way_that_loses_just_the_margin_passes_as_often_as_the_level_allows() -> None:
    way, rng, quantile = Way("euler", steps=1), torch.Generator().manual_seed(0), _quantile(0.95, 11)
    base, passed = _Tried(torch.zeros(12, dtype=torch.float64), 1, 0, 0.0), 0
    for _ in range(2000):
        numbers = torch.randn(12, generator=rng, dtype=torch.float64) - 0.3
        passed += _line(way, _Tried(numbers, 1, 0, 0.0), base, 1.0, 0.3, quantile).keeps
    assert abs(passed / 2000 - 0.05) < 3 * (0.05 * 0.95 / 2000) ** 0.5


def test_noise_of_the_model_is_the_same_in_every_way_and_the_generator_is_put_back() -> None:
    predict = predicting("own", constant)

    def noisy(batch: Tensor, solve: Callable[..., Any]) -> Tensor:
        return predict(batch + torch.randn(2), solve)

    before = torch.get_rng_state()
    found = of_errors(noisy, BATCHES, distance, margin=0.1, host="own")
    assert max(abs(line.lost) for line in found.lines) < 1e-9
    assert torch.equal(before, torch.get_rng_state())


def test_the_mode_of_the_model_stays_and_nothing_has_a_gradient(mlp: Counting, y0: Tensor) -> None:
    for training in (True, False):
        mlp.train(training)
        found = of_errors(
            lambda batch, solve: solve(mlp, batch, UNIT, adjoint_params=(), method="dopri8", options={"x": 1})[-1],
            [y0], lambda prediction, batch: prediction.norm(dim=1) + prediction.requires_grad, margin=1.0,
            host="torchdiffeq", ways=[Way("euler", steps=1)], reference=Way("rk4", steps=4),
        )  # fmt: skip
        assert mlp.training is training
        assert len(found.lines) == 2
        assert found.reference.name == "rk4, 4 steps"


def to_nothing(t: Tensor, y: Tensor) -> Tensor:
    """A field that is not a number below zero, where long steps lead from above."""
    return -3 * y.sqrt() * y


@pytest.mark.parametrize("host", ["torchdiffeq", "own"])
def test_a_way_that_fails_is_a_line_that_says_so(host: str) -> None:
    found = of_errors(
        predicting(host, to_nothing), [torch.ones(3, 2), torch.ones(2, 2)], distance, margin=1e-3, host=host,
        ways=[Way("euler", steps=2), Way("rk4", steps=16), Way("bosh3", tolerance=1e-3), Way("bosh3", tolerance=1e-30)],
    )  # fmt: skip
    failed = {line.way.name: line.note for line in found.lines if line.note}
    assert set(failed) == {"euler, 2 steps", "bosh3 at 1e-30"}
    assert failed["euler, 2 steps"] == "SolverError: the solve has non-finite states"
    assert found.reference == Way("bosh3", tolerance=1e-3)  # the tightest that works
    assert [line.keeps for line in found.lines[2:]] == [False, False]
    assert "failed: SolverError" in str(found)


def test_without_any_reference_that_works_its_error_is_raised() -> None:
    with pytest.raises(AssertionError, match="underflow"):
        of_errors(predicting("torchdiffeq", to_nothing), [-torch.ones(3, 2)], distance, margin=1e-3, host="torchdiffeq")


def test_the_table_has_a_row_for_each_way_and_a_mark_at_the_cheapest() -> None:
    found = tried("own", constant, margin=0.5, level=0.9)
    rows = str(found).splitlines()
    assert len(rows) == len(found.lines) + 3
    assert [row.split("  ")[0] for row in rows[1:-2]].count("*") == 1
    assert rows[1].startswith("*  euler, 1 step")
    assert rows[-2] == "* cheapest that keeps the metric: with 90% confidence at most 0.5 lost against tsit5 at 1e-07."


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"host": "jax"}, "unknown host 'jax'"),
        ({"margin": -0.1}, "margin must be a number >= 0"),
        ({"margin": float("nan")}, "margin must be a number >= 0"),
        ({"level": 1.0}, "level must lie in"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"batches": []}, "at least one batch"),
        ({"ways": ["euler"]}, "ways are Way"),
        ({"ways": [Way("tsit5", tolerance=0.1)]}, "'torchdiffeq' has no 'tsit5' at a tolerance"),
        ({"ways": [Way("dopri5", steps=2)]}, "'torchdiffeq' has no 'dopri5' with fixed steps"),
        ({"ways": [Way("euler", steps=2)]}, "give reference="),
        ({"reference": Way("srk", tolerance=0.1)}, "has no 'srk'"),
    ],
)
def test_bad_input_is_refused_before_anything_is_evaluated(wrong: dict[str, Any], says: str) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("evaluated")

    given: dict[str, Any] = {"batches": BATCHES, "margin": 0.1, "host": "torchdiffeq", "higher_is_better": True}
    with pytest.raises(ValueError, match=says):
        cheapest_way(never, metric=never, **(given | wrong))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({}, "tolerance or a number of steps"),
        ({"tolerance": 0.1, "steps": 1}, "tolerance or a number of steps"),
        ({"tolerance": 0.0}, "positive"),
        ({"steps": 0}, "at least 1"),
        ({"steps": 1.5}, "whole number"),
    ],
)
def test_a_way_that_cannot_be_is_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Way("euler", **wrong)


@pytest.mark.parametrize(
    ("predict", "metric", "says"),
    [
        (lambda batch, solve: batch, distance, "did not call solve"),
        (predicting("own", constant), lambda prediction, batch: prediction, "one number for each example"),
        (predicting("own", constant), lambda prediction, batch: prediction.sum(), "has no spread"),
        (predicting("own", constant), lambda prediction, batch: prediction[:, 0] / 0, "not finite"),
    ],
)
def test_a_prediction_without_a_solve_and_a_metric_of_another_shape_are_refused(
    predict: Callable[..., Any], metric: Callable[..., Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        of_errors(predict, BATCHES[:1], metric, margin=0.1, host="own")
