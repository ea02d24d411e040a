"""The drop-in in other people's programs: training stays the same to the bit, and so does what they save and copy."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
from functools import partial
from typing import Any

import pytest
import torch
from programs import (
    ODES,
    PLAIN,
    SDES,
    TOLERANCES,
    UNIT,
    BouncingBall,
    Checkpointed,
    GraphOde,
    LatentOde,
    Ode,
    OdeNet,
    data,
)
from torch import Tensor, nn

from regnde import LocalPenalty

per_program = pytest.mark.parametrize("program", [*ODES, *SDES], ids=lambda program: program.__name__)


def ear(**settings: Any) -> LocalPenalty:
    return LocalPenalty(rng=torch.Generator().manual_seed(0), **settings)


def made(program: Any) -> Any:
    torch.manual_seed(0)
    return program()


def trained(model: Any, by: Any, weight: float | None = None, n: int = 10) -> dict[str, Tensor]:
    """Train for some steps, with the penalty where there is a weight; return parameters, buffers and gradients."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(n):
        optimizer.zero_grad()
        torch.manual_seed(step)
        loss = model.loss(by, step)
        if weight is not None:
            loss = loss + weight * by.penalty()
        loss.backward()
        optimizer.step()
    return {**model.state_dict(), "random": torch.rand(())}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return list(a) == list(b) and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.slow
@per_program
def test_ten_steps_with_weight_zero_end_in_the_same_bits_and_a_weight_makes_a_difference(program: Any) -> None:
    plain = trained(made(program), PLAIN)
    assert same(trained(made(program), ear(), 0.0), plain)
    assert not same(trained(made(program), ear(), 0.3, n=1), trained(made(program), PLAIN, n=1))


@per_program
def test_a_program_adds_three_lines_and_five_where_a_library_solves(program: Any) -> None:
    """One makes the LocalPenalty and one joins the loss; here are those that solve: prefixed, or in a `with`."""
    lines = inspect.getsource(program.loss).splitlines()
    touched = [line for line in lines if "by." in line]
    assert len(touched) == 1
    assert len(touched) + 2 <= (5 if "hears" in touched[0] else 3)


@pytest.mark.parametrize("program", [Ode, OdeNet, BouncingBall], ids=lambda program: program.__name__)
def test_a_model_that_holds_its_ear_is_copied_pickled_saved_and_loaded(program: Any) -> None:
    """D4, D6: the ear is no part of state_dict or named_parameters, though it holds a step of the model's own field."""
    model = made(program)
    keys, names = list(model.state_dict()), [name for name, _ in model.named_parameters()]
    model.local = ear()
    model.loss(model.local, 0)  # now it holds a step, whose field is the model
    assert list(model.state_dict()) == keys
    assert [name for name, _ in model.named_parameters()] == names
    model.load_state_dict(model.state_dict())
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    copies = copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(buffer, weights_only=False)
    value = model.local.penalty()
    for other in copies:
        with pytest.raises(ValueError, match="no solve was heard"):  # a copy has heard nothing
            other.local.penalty()
        other.loss(other.local, 0)
        other.local.penalty().backward()
        assert all(p.grad is None for p in model.parameters())
    assert value.isfinite()


def test_d2_what_is_set_on_a_field_after_the_ear_was_made_counts_as_before() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self._scale = 1.0

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return self._scale * y

    f, local, ends = Scaled(), ear(), []
    for scale in (1.0, -1.0):
        f._scale = scale
        ends.append(local.odeint(f, torch.ones(1), UNIT, **TOLERANCES)[-1].item())
    assert ends == pytest.approx([2.71828, 0.36788], rel=1e-3)


def test_d3_a_field_can_be_changed_in_every_way_between_two_solves() -> None:
    model, local = made(GraphOde), ear()
    for i in range(2):
        model.ode.register_buffer("bias", torch.full((1,), float(i)))
        model.loss(local, i)
        assert local.penalty().item() > 0
        del model.ode.bias
    layers = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    f = Sequence(layers)
    local.odeint(f, torch.ones(2, 3), UNIT, **TOLERANCES)
    f[1], before = nn.Softplus(), local.cost
    assert len(f) == 2
    local.odeint(f, torch.ones(2, 3), UNIT, **TOLERANCES)
    assert local.cost.nfe > before.nfe
    assert local.penalty().requires_grad


class Sequence(nn.Sequential):
    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__(*layers)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return super().forward(y)


def test_d5_with_a_reentrant_checkpoint_inside_the_field_the_penalty_has_the_same_gradient() -> None:
    gradients = []
    for program in (Ode, Checkpointed):
        model, local = made(program), ear()
        local.odeint(model, data(0, 8, 2).requires_grad_(), UNIT, **TOLERANCES)
        local.penalty().backward()
        gradients.append([p.grad for p in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        assert a is not None
        torch.testing.assert_close(a, b)


class Wrapped(nn.Module):
    def __init__(self, wrap: Any) -> None:
        super().__init__()
        self.field = wrap(made(Ode))

    def loss(self, by: Any, step: int) -> Tensor:
        return by.odeint(self.field, data(step, 8, 2), UNIT, **TOLERANCES)[-1].square().mean()


@pytest.mark.parametrize(
    "wrap", [nn.DataParallel, partial(torch.compile, backend="eager")], ids=["parallel", "compiled"]
)
def test_a_wrapped_field_trains_to_the_same_bits(wrap: Any) -> None:
    plain = trained(Wrapped(wrap), PLAIN)
    assert same(trained(Wrapped(wrap), ear(), 0.0), plain)
    assert not same(trained(Wrapped(wrap), ear(), 0.3), plain)


def test_a_model_with_its_ear_can_be_wrapped_in_data_parallel_whole() -> None:
    class Model(LatentOde):
        def forward(self, *args: Any) -> Tensor:  # type: ignore[override]
            return super().forward(*args) if len(args) == 2 else self.loss(self.local, 0)

    model = made(Model)
    model.local = ear()
    loss = nn.DataParallel(model)(torch.zeros(1))
    (loss + 0.1 * model.local.penalty()).backward()
    assert model.net[0].weight.grad.abs().sum() > 0


def test_a_field_with_dropout_leaves_the_random_numbers_of_the_program_as_they_were() -> None:
    class Dropout(Ode):
        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return nn.functional.dropout(super().forward(t, y), 0.1)

        def loss(self, by: Any, step: int) -> Tensor:
            return by.odeint(self, data(step, 8, 2), UNIT, method="rk4", options={"step_size": 0.2})[-1].square().mean()

    ends = []
    for by, weight in ((PLAIN, None), (ear(), 0.0)):
        model = made(Dropout)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for step in range(5):  # nobody sets a seed in between
            optimizer.zero_grad()
            loss = model.loss(by, step)
            (loss if weight is None else loss + weight * by.penalty()).backward()
            optimizer.step()
        ends.append({**model.state_dict(), "random": torch.rand(())})
    assert same(*ends)


def test_d10_two_ears_in_one_model_hear_each_its_own_solves() -> None:
    encoder, decoder, f = ear(), ear(), made(Ode)
    z = encoder.odeint(f, data(0, 8, 2), UNIT, **TOLERANCES)[-1]
    for _ in range(2):
        z = decoder.odeint(f, z, UNIT, **TOLERANCES)[-1]
    assert (encoder.cost.solves, decoder.cost.solves) == (1, 2)
    (encoder.penalty() + decoder.penalty()).backward()


def test_d1_parameters_that_are_handed_to_a_functional_call_get_the_gradient() -> None:
    f, local = made(Ode), ear()
    fast = {name: p.detach().clone().requires_grad_() for name, p in f.named_parameters()}
    local.odeint(lambda t, y: torch.func.functional_call(f, fast, (t, y)), data(0, 8, 2), UNIT, **TOLERANCES)
    local.penalty().backward()
    assert all(p.grad is not None for p in fast.values())
    assert all(p.grad is None for p in f.parameters())


def test_d12_instance_norm_that_a_global_function_uses_is_left_alone_too() -> None:
    local = ear()
    local.odeint(normalized, data(0, 4, 3, 8), UNIT, rtol=1e-2, atol=1e-2)
    before = NORM.running_mean.clone()
    local.penalty()
    assert torch.equal(NORM.running_mean, before)


def test_d12_spectral_norm_and_a_counter_that_is_a_buffer_are_left_alone_too() -> None:
    class Normalized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3))
            self.register_buffer("evaluations", torch.zeros(()))

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            self.evaluations += 1
            return torch.tanh(self.linear(y))

    f, local = Normalized(), ear()
    local.odeint(f, data(0, 4, 3), UNIT, **TOLERANCES)
    before = {name: buffer.clone() for name, buffer in f.named_buffers()}
    local.penalty().backward()
    assert same(before, dict(f.named_buffers()))
    assert f.evaluations == local.cost.nfe


NORM = nn.InstanceNorm1d(3, track_running_stats=True)


def normalized(t: Tensor, y: Tensor) -> Tensor:
    return NORM(torch.tanh(3 * y) + y)
