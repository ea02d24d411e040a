"""The convolutional field of CIFAR-10: time as a channel, batch norm inside a solve, what an evaluating model is."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from regnde import make_regularizer, solve_ode
from reproduce.models.convolutions import AUGMENTED, IN, ConvField, ConvODEClassifier, TimeConv

D = IN + AUGMENTED


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def field(hidden: int = 6, *, momentum: float = 0.1) -> ConvField:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return ConvField(hidden, momentum=momentum).double()


def states(n: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, D, 6, 7, generator=seeded(seed), dtype=torch.float64)


def test_the_time_is_one_more_channel_zeros_around_the_image_included() -> None:
    layer, y, t = TimeConv(4, 3).double(), states()[:, :4], torch.tensor(0.7, dtype=torch.float64)
    concatenated = torch.cat([y, t.expand(len(y), 1, 6, 7)], dim=1)
    expected = functional.conv2d(concatenated, layer.conv.weight, padding=1)
    torch.testing.assert_close(layer(t, y), expected)
    grads = [torch.autograd.grad(out.square().sum(), layer.conv.weight)[0] for out in (layer(t, y), expected)]
    torch.testing.assert_close(*grads)


def test_while_training_every_evaluation_uses_its_batch_and_moves_the_running_averages() -> None:
    f, y, t = field(momentum=0.25), states(), torch.tensor(0.5, dtype=torch.float64)
    before = f.layers[0](t, y).detach()
    f(t, y)
    [norm, _] = f.norms
    torch.testing.assert_close(norm.running_mean, 0.25 * before.mean((0, 2, 3)))
    assert norm.num_batches_tracked == 1
    alone, together = f(t, y[:1]), f(t, y)[:1]
    assert not torch.allclose(alone, together)


def test_the_penalty_of_a_local_step_moves_the_running_averages_too() -> None:
    f, local = field(), make_regularizer("local_biased")
    t = torch.tensor([0.0, 1.0], dtype=torch.float64)
    solution = solve_ode(f, states(), t, rtol=1e-3, atol=1e-3, parameters=tuple(f.parameters()))
    in_the_solve = int(f.norms[0].num_batches_tracked)
    assert in_the_solve == solution.trace.nfe
    assert local.penalty is not None
    local.penalty(solution, seeded())
    assert f.norms[0].num_batches_tracked > in_the_solve


def test_an_evaluating_field_is_a_function_of_the_time_and_one_image_and_changes_nothing() -> None:
    f, y, t = field(), states(), torch.tensor(0.5, dtype=torch.float64)
    f(t, y)
    f.eval()
    before = {name: value.clone() for name, value in f.state_dict().items()}
    torch.testing.assert_close(f(t, y)[:2], f(t, y[:2]))
    assert torch.equal(f(t, y), f(t, y))
    assert all(torch.equal(value, before[name]) for name, value in f.state_dict().items())


def test_gradients_through_a_training_solve_are_right_batch_norm_included() -> None:
    f, y0, t = field(3), states(3)[..., :3, :3], torch.tensor([0.0, 1.0], dtype=torch.float64)

    def end(weight: torch.Tensor) -> torch.Tensor:
        values = dict(f.named_parameters()) | {"layers.0.conv.weight": weight}

        def g(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return torch.func.functional_call(f, values, (t, y))

        return solve_ode(g, y0, t, rtol=1e-3, atol=1e-3, step_sizes=[0.4, 0.6]).y[-1]

    weight = f.layers[0].conv.weight.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(end, (weight,), fast_mode=True)


def test_the_published_sizes_are_those_of_the_table() -> None:
    model = ConvODEClassifier(side=32, hidden=64, n_classes=10)
    shapes = [tuple(m.weight.shape) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    conv = [(5, 3, 3, 3), (64, 9, 3, 3), (64, 65, 3, 3), (8, 65, 3, 3), (1, 8, 3, 3)]
    assert shapes == [*conv, (10, 1024)]
    assert [layer.conv.bias for layer in model.dynamics.layers] == [None] * 3


def test_the_state_is_the_image_with_five_more_channels_normalized() -> None:
    model = ConvODEClassifier(side=8, hidden=4, n_classes=10)
    x, seen = torch.randn(6, 3, 8, 8, generator=seeded()), []

    def solve(f, y0, t):
        seen.append(y0)
        return solve_ode(f, y0, t, rtol=1e-2, atol=1e-2, parameters=tuple(f.parameters()))

    logits, _ = model(x, solve)
    assert logits.shape == (6, 10)
    assert seen[0].shape == (6, D, 8, 8)
    torch.testing.assert_close(seen[0].mean((0, 2, 3)), torch.zeros(D), atol=1e-5, rtol=0)
    scaled = (x - x.mean((0, 2, 3), keepdim=True)) / x.var((0, 2, 3), unbiased=False, keepdim=True).sqrt()
    torch.testing.assert_close(seen[0][:, :3], scaled, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("side", [8, 16])
def test_images_of_another_size_are_an_error_that_names_both(side: int) -> None:
    model = ConvODEClassifier(side=12, hidden=4, n_classes=10)
    with pytest.raises(ValueError, match=rf"expected images \(batch, 3, 12, 12\), found \(2, 3, {side}, {side}\)"):
        model(torch.zeros(2, 3, side, side), lambda f, y0, t: None)
