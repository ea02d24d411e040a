"""The multiscale classifier: shapes, injection, independent images, what it refuses; and its experiment."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from regnde import make_regularizer, solve_ode
from reproduce import experiments
from reproduce.models.multiscale import Injected, MultiscaleField, MultiscaleODEClassifier, flat
from reproduce.models.solve import hold_still
from reproduce.runs.train import train

SIZES: dict[str, int] = {"channels": 4, "branches": 2, "expand": 2, "groups": 2}
solve = partial(solve_ode, rtol=0.05, atol=0.05, method="vcab3")
EXPERIMENT = experiments.get("cifar10_multiscale_ode")


def model(side: int = 8, **sizes: int) -> MultiscaleODEClassifier:
    torch.manual_seed(0)
    return MultiscaleODEClassifier(side=side, n_classes=10, **{**SIZES, **sizes}).double()


def images(n: int = 3, side: int = 8) -> Tensor:
    return torch.randn(n, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def field(branches: int, n: int = 3) -> Injected:
    torch.manual_seed(0)
    x = [torch.randn(n, 4, 8 // 2**i, 8 // 2**i, dtype=torch.float64) for i in range(branches)]
    return Injected(MultiscaleField(4, branches=branches, expand=2, groups=2).double(), x)


@pytest.mark.parametrize(("branches", "side"), [(1, 5), (2, 8), (3, 16)])
def test_logits_come_from_one_state_that_holds_every_resolution(branches: int, side: int) -> None:
    logits, solution = model(side, branches=branches)(images(side=side), solve)
    assert logits.shape == (3, 10)
    assert solution.y.shape == (2, 3, sum(4 * (side // 2**i) ** 2 for i in range(branches)))
    assert solution.t.tolist() == [0.0, 1.0]


def test_the_state_starts_from_the_encoded_image_and_from_zeros_below() -> None:
    classifier, x = model(), images()
    _, solution = classifier(x, hold_still)
    torch.testing.assert_close(solution.y[0, :, : 4 * 64], classifier.encoder(x).flatten(1))
    assert torch.count_nonzero(solution.y[0, :, 4 * 64 :]) == 0


@pytest.mark.parametrize("branches", [1, 2, 3])
def test_cutting_a_state_is_the_inverse_of_joining_it(branches: int) -> None:
    f = field(branches)
    y = torch.randn(flat(f.x).shape, dtype=torch.float64)
    assert torch.equal(flat(f.unflat(y)), y)
    assert [part.shape for part in f.unflat(y)] == [xi.shape for xi in f.x]


@pytest.mark.parametrize("branches", [2, 3])
def test_every_resolution_moves_with_every_other_one_and_with_the_image(branches: int) -> None:
    f = field(branches)
    y, x = [[xi.clone().requires_grad_() for xi in f.x] for _ in range(2)]
    for out in f.field(y, x):
        for of in torch.autograd.grad(out.square().sum(), [*y, *x], retain_graph=True):
            assert of.norm() > 0


def test_every_parameter_and_the_image_get_their_gradient() -> None:
    classifier, x = model(), images().requires_grad_()
    logits, _ = classifier(x, solve)
    logits.square().sum().backward()
    assert x.grad is not None
    assert x.grad.norm() > 0
    assert [name for name, p in classifier.named_parameters() if p.grad is None or p.grad.norm() == 0] == []


def test_the_gradient_of_the_image_through_the_injection_agrees_with_finite_differences() -> None:
    f = field(2, n=1)
    t, y0 = torch.tensor([0.0, 1.0]), torch.zeros_like(flat(f.x))

    def end(*x: Tensor) -> Tensor:
        return solve_ode(Injected(f.field, x), y0, t, rtol=1, atol=1, method="vcab3", step_sizes=[0.3, 0.2, 0.5]).y[-1]

    assert torch.autograd.gradcheck(end, [xi.clone().requires_grad_() for xi in f.x], fast_mode=True)


def test_a_local_penalty_reaches_the_encoder_through_the_injected_image() -> None:
    classifier, penalty = model(), make_regularizer("local_biased").penalty
    assert penalty is not None
    _, solution = classifier(images(), solve)
    penalty(solution, torch.Generator().manual_seed(0)).backward()
    assert all(p.grad is not None and p.grad.norm() > 0 for p in classifier.encoder.parameters())


def test_evaluating_is_as_training_and_the_same_each_time() -> None:
    classifier, x = model(), images()
    training = classifier.train()(x, solve)[0]
    assert torch.equal(classifier.eval()(x, solve)[0], training)
    assert torch.equal(classifier(x, solve)[0], training)


def test_images_of_a_batch_know_nothing_of_each_other() -> None:
    """With prescribed steps: the control of a batch's steps looks at all of them."""
    classifier, x = model().eval(), images(5)
    held = partial(solve, step_sizes=[0.25] * 4)
    torch.testing.assert_close(classifier(x, held)[0][2:3], classifier(x[2:3], held)[0], rtol=1e-10, atol=1e-12)


def test_the_field_does_not_depend_on_the_time() -> None:
    f = field(2)
    y = torch.randn(flat(f.x).shape, dtype=torch.float64)
    assert torch.equal(f(torch.tensor(0.0), y), f(torch.tensor(0.7), y))


@pytest.mark.parametrize("wrong", [{"side": 6, "branches": 3}, {"channels": 5}])
def test_sizes_that_do_not_fit_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="multiple"):
        model(**wrong)


# The experiment


@pytest.mark.parametrize("wrong", [{"gradient": "checkpoint"}, {"host": "torchsde"}])
def test_what_would_give_the_image_no_gradient_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="gradient='backprop' and host='own'"):
        EXPERIMENT.problem(EXPERIMENT.budget("smoke", **wrong), "test")


@pytest.mark.usefixtures("no_ways")
@pytest.mark.parametrize("name", ["none", "global_error", "local_biased:released", None])
def test_a_smoke_run_trains_and_its_row_tells_evaluations(name: str | None) -> None:
    budget = EXPERIMENT.budget("smoke")
    regularizer = None if name is None else make_regularizer(name, **budget.regularizers.get(name, {}))
    row = train(EXPERIMENT, regularizer, 0, "smoke").row
    assert (row.nfe > 0) == (name is not None)
    assert 0 <= row.metrics["accuracy"] <= 1


def test_profile_paper_has_the_published_settings() -> None:
    paper = EXPERIMENT.budget("paper")
    assert (paper.batch, paper.method, paper.rtol, paper.atol) == (128, "vcab3", 0.05, 0.05)
    for name in ("local_unbiased:released", "local_biased:text"):
        assert (paper.regularizers[name]["weight"], paper.regularizers[name]["weight_end"]) == (0.1, 5.0)
