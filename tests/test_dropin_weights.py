"""The drop-in in training: weights, what is refused, and that a trained model needs fewer evaluations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchdiffeq
from conftest import Counting
from programs import Cnf
from torch import Tensor, nn

from regnde import LocalPenalty

TOLERANCES = {"rtol": 1e-4, "atol": 1e-5}
FORWARD = torch.tensor([0.0, 0.3, 1.0, 1.7], dtype=torch.float64)


def ear(**settings: Any) -> LocalPenalty:
    return LocalPenalty(rng=torch.Generator().manual_seed(0), **settings)


def test_the_weight_follows_its_schedule_or_leads_to_the_evaluations_asked_for(mlp: Counting, y0: Tensor) -> None:
    def losses(local: LocalPenalty, n: int) -> list[float]:
        out = []
        for i in range(n):
            local.odeint(mlp, y0, FORWARD, **TOLERANCES)
            local.loss(i / max(n - 1, 1))
            out.append(local.weight)
        return out

    assert losses(ear(weight=0.5), 2) == [0.5, 0.5]
    assert losses(ear(weight=1.0, weight_end=0.01), 3) == pytest.approx([1.0, 0.1, 0.01])
    assert losses(ear(weight=1.0, target_nfe=10.0), 3) == pytest.approx([1.0513, 1.1052, 1.1618], rel=1e-4)
    assert losses(ear(weight=1.0, target_nfe=1e9), 1)[0] < 1
    local = ear(weight=0.5)
    local.odeint(mlp, y0, FORWARD, **TOLERANCES)
    kept = local._ear.draw.item
    assert kept is not None
    assert local.loss().item() == pytest.approx(0.5 * kept.ratio(kept.y).item())


# What is refused, and what there is


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"rng": 0}, r"rng must be a torch\.Generator, found int"),
    ({"sampling": "random"}, "unknown sampling 'random'"),
    ({"floor": 1.0}, r"floor must be an error ratio in \[0, 1\)"),
    ({"tolerance": 0.0}, "tolerance must be a positive number"),
    ({"weight": -1.0}, "a weight must be positive"),
    ({"target_nfe": 30.0}, "give weight, too"),
    ({"weight": 1.0, "target_nfe": 0.0}, "target_nfe must be a positive number"),
    ({"weight": 1.0, "weight_end": 0.1, "target_nfe": 30.0}, "give one of them"),
]


@pytest.mark.parametrize(("given", "message"), WRONG, ids=[message for _, message in WRONG])
def test_what_cannot_be_is_refused_by_name(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LocalPenalty(**{"rng": torch.Generator(), **given})


def test_a_loss_without_a_weight_says_what_to_do(mlp: Counting, y0: Tensor) -> None:
    local = ear()
    local.odeint(mlp, y0, FORWARD, **TOLERANCES)
    with pytest.raises(ValueError, match=r"loss needs a weight: LocalPenalty\(weight=0\.1"):
        local.loss()
    with pytest.raises(ValueError, match=r"progress is the share of training that is done, in \[0, 1\], found 37"):
        ear(weight=1.0, weight_end=0.1).loss(37)


def test_d13_a_class_and_an_sde_are_no_fields_and_own_names_are_few(y0: Tensor) -> None:
    local, sde = ear(), nn.Module()
    sde.noise_type = "diagonal"  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"found the class Cnf where its object belongs: write Cnf\(\.\.\.\)"):
        local.odeint(Cnf, y0, FORWARD)
    with pytest.raises(ValueError, match=r"found an SDE .* call local\.sdeint"):
        local.odeint_adjoint(sde, y0, FORWARD)
    with pytest.raises(ValueError, match="found the class Cnf"):
        local.sdeint(Cnf, y0, FORWARD)
    calls = {"odeint", "odeint_adjoint", "odeint_event", "sdeint", "sdeint_adjoint"}
    assert {name for name in dir(local) if name[0] != "_"} == calls | {"hears", "penalty", "loss", "cost", "weight"}


class Wiggle(nn.Module):
    """Decay with a fast oscillation that costs steps and hardly moves the end of the solve."""

    def __init__(self) -> None:
        super().__init__()
        self.rate, self.amplitude = (nn.Parameter(torch.tensor(a, dtype=torch.float64)) for a in (0.5, 1.0))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return -self.rate * y + self.amplitude * torch.cos(25 * t)


def trained(weight: float, name: str) -> tuple[int, float]:
    """Fit the end of a decay; return evaluations and error of a solve afterwards."""
    field, local, t = Counting(Wiggle()), ear(), torch.tensor([0.0, 1.0], dtype=torch.float64)
    y0 = torch.tensor([[2.0], [1.0], [0.0]], dtype=torch.float64)
    optimizer = torch.optim.Adam(field.parameters(), lr=0.05)
    for _ in range(18):
        optimizer.zero_grad()
        y = getattr(local, name)(field, y0, t, **TOLERANCES)[-1]
        loss = (y - y0 * torch.exp(-t[-1])).square().mean()
        (loss + weight * local.penalty()).backward()
        optimizer.step()
    field.calls = 0
    with torch.no_grad():
        y = torchdiffeq.odeint(field, y0, t, **TOLERANCES)[-1]
    return field.calls, (y - y0 * torch.exp(-t[-1])).square().mean().item()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["odeint", "odeint_adjoint"])
def test_training_with_the_penalty_lowers_the_number_of_evaluations_and_not_the_fit(name: str) -> None:
    plain, plain_error = trained(0.0, name)
    cheap, error = trained(0.1, name)
    assert cheap <= 0.7 * plain
    assert error < max(2 * plain_error, 0.01)
