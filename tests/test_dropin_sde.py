"""The drop-in and SDEs: torchsde's solve is left as it is, its steps are heard, the penalty is one step of SOSRI2."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
import torchsde
from programs import PLAIN
from torch import Tensor, nn

from regnde import SOSRI2, LocalPenalty, error_ratio, sri_step
from regnde.dropin.kept_step import KeptSDE
from reproduce.models.fields import TimeMLP

TS = torch.linspace(0, 1, 5, dtype=torch.float64)
STATE = torch.ones(6, 2, dtype=torch.float64)
METHODS = {"ito": ("euler", "milstein", "srk"), "stratonovich": ("midpoint", "reversible_heun", "milstein", "heun")}

per_interface = pytest.mark.parametrize("name", ["sdeint", "sdeint_adjoint"])
per_noise = pytest.mark.parametrize("noise_type", ["diagonal", "scalar", "additive"])
per_calculus = pytest.mark.parametrize("sde_type", METHODS)


def ear(seed: int = 0, **settings: Any) -> LocalPenalty:
    return LocalPenalty(rng=torch.Generator().manual_seed(seed), **settings)


class Sde(nn.Module):
    """A small neural SDE in R^2 of any noise and calculus; which methods it has is for its subclasses."""

    def __init__(self, noise_type: str = "diagonal", sde_type: str = "ito") -> None:
        super().__init__()
        self.noise_type, self.sde_type = noise_type, sde_type
        torch.manual_seed(0)
        self.net, self.scale = TimeMLP((2, 8, 2)).double(), nn.Parameter(torch.tensor([0.3, 0.5], dtype=torch.float64))
        self.calls: Counter[str] = Counter()

    def drift(self, t: Tensor, y: Tensor) -> Tensor:
        self.calls["f"] += 1
        return 3 * self.net(t.to(y.dtype), y)

    def diffusion(self, t: Tensor, y: Tensor) -> Tensor:
        self.calls["g"] += 1
        if self.noise_type == "diagonal":
            return self.scale * y.sigmoid()  # (batch, d)
        if self.noise_type == "scalar":
            return (self.scale * y.flip(1).sigmoid())[..., None]  # (batch, d, 1)
        rows = torch.stack([self.scale, self.scale.flip(0) * torch.cos(t), self.scale**2], 1)  # (d, 3)
        return rows.expand(len(y), 2, 3) * (1 if self.noise_type == "additive" else y[..., None].sigmoid())

    def product(self, t: Tensor, y: Tensor, v: Tensor) -> Tensor:
        g = self.diffusion(t, y)
        return g * v if g.dim() == 2 else (g @ v[..., None])[..., 0]


class FG(Sde):
    f, g = Sde.drift, Sde.diffusion

    def h(self, t: Tensor, y: Tensor) -> Tensor:
        return -y


class Joint(Sde):
    def f_and_g(self, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.drift(t, y), self.diffusion(t, y)


class Product(Sde):
    f, g_prod = Sde.drift, Sde.product


class JointProduct(Sde):
    def f_and_g_prod(self, t: Tensor, y: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return self.drift(t, y), self.product(t, y, v)


def path(sde: Sde, extra: int = 0) -> torchsde.BrownianInterval:
    size = 6, {"diagonal": 2 + extra, "scalar": 1}.get(sde.noise_type, 3)
    levy = "space-time"
    return torchsde.BrownianInterval(0.0, 1.0, size=size, dtype=torch.float64, entropy=7, levy_area_approximation=levy)


def solved(solve: Any, sde: Sde, **how: Any) -> list[Tensor]:
    """Return outputs, gradients, and the next random number of torch and of numpy, which draws torchsde's paths."""
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchsde's own: adaptive Euler, minimal step
        found = solve(sde, STATE, TS, **{"bm": path(sde, bool(how.get("logqp"))), "dt": 0.125, **how})
    outputs = list(found) if isinstance(found, tuple) else [found]
    loss = sum(output.square().mean() for output in outputs)
    assert isinstance(loss, Tensor)
    grads = torch.autograd.grad(loss, list(sde.parameters()))
    return [*outputs, *grads, torch.rand(()), torch.tensor(np.random.rand())]  # noqa: NPY002


def assert_same(name: str, sde: Sde, **how: Any) -> LocalPenalty:
    local = ear()
    plain, heard = solved(getattr(PLAIN, name), sde, **how), solved(getattr(local, name), sde, **how)
    assert all(torch.equal(a, b) for a, b in zip(plain, heard, strict=True))
    return local


@pytest.mark.slow
@per_interface
@per_noise
@per_calculus
@pytest.mark.parametrize("cls", [FG, Joint, Product, JointProduct])
def test_d8_every_noise_calculus_and_way_to_write_an_sde_is_heard_and_stays_the_same_to_the_bit(
    name: str, noise_type: str, sde_type: str, cls: type[Sde]
) -> None:
    heard = 0
    for method in METHODS[sde_type]:
        for adaptive in (False, True):
            how = {"method": method, "adaptive": adaptive, "rtol": 1e-2, "atol": 1e-2}
            try:
                solved(getattr(PLAIN, name), cls(noise_type, sde_type), **how)
            except (RuntimeError, ValueError, AttributeError):
                continue  # torchsde has no such method for it
            sde = cls(noise_type, sde_type)
            penalty = assert_same(name, sde, **how).penalty()
            assert penalty.item() > 0
            assert any(grad.abs().sum() > 0 for grad in torch.autograd.grad(penalty, list(sde.parameters())))
            heard += 1
    without = name == "sdeint_adjoint" and sde_type == "ito" and cls is not FG  # torchsde itself has nothing for some
    assert heard > 0 or without


@per_interface
@pytest.mark.parametrize(
    "how",
    [
        {"logqp": True, "method": "euler"},
        {"logqp": True, "method": "srk", "adaptive": True, "names": {"prior_drift": "f", "drift": "drift"}},
        {"method": "milstein", "options": {"grad_free": True}},
        {"method": "srk", "bm": None},
    ],
    ids=str,
)
def test_d8_names_logqp_and_options_stay_the_same_to_the_bit(name: str, how: dict[str, Any]) -> None:
    assert assert_same(name, FG(), **how).penalty().item() > 0


@per_interface
def test_d8_an_sde_whose_methods_have_other_names_is_heard_by_names(name: str) -> None:
    names = {"drift": "drift", "diffusion": "diffusion"}
    assert assert_same(name, Sde(), names=names, method="milstein").penalty().item() > 0


def test_d8_the_state_of_a_solver_is_returned_and_taken_as_before() -> None:
    sde, local = FG("diagonal", "stratonovich"), ear()
    wholes = []
    for by in (PLAIN, local):
        how = {"dt": 0.125, "method": "reversible_heun", "extra": True}
        half, extra = by.sdeint(sde, STATE, TS[:3], bm=path(sde), **how)
        wholes.append(by.sdeint(sde, half[-1], TS[2:], bm=path(sde), extra_solver_state=extra, **how)[0])
    assert torch.equal(*wholes)
    assert local.cost.solves == 2
    assert local.penalty().requires_grad


@per_interface
def test_d8_general_noise_is_solved_as_before_and_the_penalty_says_why_it_was_not_heard(name: str) -> None:
    local = assert_same(name, FG("general", "stratonovich"), method="midpoint")
    with pytest.raises(ValueError, match=r"noise_type 'general', whose error lies in iterated integrals"):
        local.penalty()


@per_interface
def test_the_penalty_is_one_step_by_hand_with_w_and_u_of_the_brownian_law(name: str) -> None:
    sde, local = FG(), ear()
    getattr(local, name)(sde, STATE, TS, dt=0.125, method="milstein")
    kept, copied = local._ear.draw.item, torch.Generator()
    assert isinstance(kept, KeptSDE)
    copied.set_state(local._ear.rng.get_state())
    sde.calls.clear()
    penalty = local.penalty()
    assert sde.calls == {"f": 4, "g": 4}
    normal = torch.stack([torch.randn(6, 2, dtype=torch.float64, generator=copied) for _ in range(2)], -1)
    h = kept.t1 - kept.t0
    assert h == 0.125
    covariance = torch.tensor([[h, h**2 / 2], [h**2 / 2, h**3 / 3]], dtype=torch.float64)  # of W(h) and its integral
    w, u = (normal @ torch.linalg.cholesky(covariance).T).unbind(-1)
    step = sri_step(sde.f, sde.g, kept.t0, kept.y.detach(), h, w, u, SOSRI2)
    expected = error_ratio(step.error, kept.y.detach(), step.y1, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(penalty, expected, rtol=1e-9, atol=0)
    gradients = (torch.autograd.grad(value, list(sde.parameters())) for value in (penalty, expected))
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-12)


class Geometric(Sde):
    """dy = a y dt + b y dW, in either calculus; scalar: one noise drives y rotated."""

    turn = torch.tensor([[0.0, 1.0], [-2.0, 0.0]], dtype=torch.float64)

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        correction = 0.0
        if self.sde_type == "ito" and self.noise_type == "diagonal":
            correction = self.scale**2 * y / 2
        elif self.sde_type == "ito":
            correction = y @ self.turn @ self.turn / 2
        return self.drift(t, y) + correction

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        return self.scale * y if self.noise_type == "diagonal" else (y @ self.turn)[..., None]


@pytest.mark.parametrize("noise_type", ["diagonal", "scalar"])
def test_d8_a_stratonovich_penalty_is_that_of_the_same_equation_written_in_ito(noise_type: str) -> None:
    """The drift correction by automatic differentiation agrees with the one by hand, in value and gradient."""
    found = []
    for sde_type in METHODS:
        sde = Geometric(noise_type, sde_type)
        rng = torch.Generator().manual_seed(5)
        view = torchsde._core.base_sde.ForwardSDE(sde)
        kept = KeptSDE(view, 1 if noise_type == "scalar" else 2, 1e-2, 1e-2, rng, 0.0, 0.1, STATE.clone())
        penalty = kept.ratio(kept.y)
        found.append([penalty, *torch.autograd.grad(penalty, list(sde.parameters()), allow_unused=True)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_d8_additive_noise_has_its_covariance_on_average_over_directions() -> None:
    sde = FG("additive")
    increments: list[Tensor] = []

    class Still(FG):
        def drift(self, t: Tensor, y: Tensor) -> Tensor:
            increments.append(y.detach())
            return 0 * y

        f = drift

    still = Still("additive")
    y, h = torch.zeros(4000, 2, dtype=torch.float64), 0.1
    rng = torch.Generator().manual_seed(0)
    kept = KeptSDE(torchsde._core.base_sde.ForwardSDE(still), 3, 1e-2, 1e-2, rng, 0.0, h, y)
    kept.ratio(y)
    moved = max(increments, key=lambda x: x.abs().sum())  # a stage that lies away from the start
    g = sde.diffusion(torch.tensor(0.0), y)[0]
    expected, found = g @ g.T, moved.T @ moved
    torch.testing.assert_close(found / found.trace(), expected / expected.trace(), rtol=0.1, atol=0.03)


def test_the_steps_of_a_real_solve_are_drawn_alike_and_a_rest_that_rounding_leaves_is_not_one() -> None:
    class Still(Sde):
        def f(self, t: Tensor, y: Tensor) -> Tensor:
            return 0 * y

        g = f

    local, n, counts = ear(), 400, Counter[float]()
    for _ in range(n):
        local.sdeint(Still(), STATE[:1], TS[[0, -1]], dt=0.2, method="euler", bm=None)
        kept = local._ear.draw.item
        assert kept is not None
        counts[round(kept.t0, 6)] += 1
        local._ear.take()
    assert set(counts) == {0.0, 0.2, 0.4, 0.6, 0.8}
    assert all(abs(count / n - 0.2) < 3 * (0.2 * 0.8 / n) ** 0.5 for count in counts.values())
    sde = FG()
    for _ in range(30):
        local.sdeint(sde, STATE, TS[[0, -1]], dt=0.1, method="euler")  # which takes eleven steps
        kept = local._ear.draw.item
        assert kept is not None
        assert kept.t1 - kept.t0 > 0.09
        local._ear.take()


@per_interface
def test_rejected_attempts_are_counted_and_never_drawn(name: str) -> None:
    class Fast(FG):
        def drift(self, t: Tensor, y: Tensor) -> Tensor:
            return 3 * torch.cos(20 * t) * y

        f = drift

    sde, local, attempts = Fast(), ear(), []
    solver = torchsde._core.methods.MilsteinIto
    step = solver.step

    def noted(self: Any, t0: Any, t1: Any, y0: Tensor, extra: Any) -> Any:
        attempts.append((float(t0), float(t1)))
        return step(self, t0, t1, y0, extra)

    solver.step = noted
    try:
        how = {"dt": 0.3, "method": "milstein", "adaptive": True, "rtol": 1e-2, "atol": 1e-2}
        getattr(local, name)(sde, STATE, TS, bm=path(sde), **how)
    finally:
        solver.step = step
    full = attempts[::3]
    accepted = [
        attempt for attempt, after in zip(full, [*full[1:], (full[-1][1],)], strict=True) if after[0] != attempt[0]
    ]
    assert (local.cost.accepted, local.cost.rejected) == (len(accepted), len(full) - len(accepted))
    assert local.cost.rejected > 0
    kept = local._ear.draw.item
    assert kept is not None
    assert (kept.t0, kept.t1) in accepted
    assert local._ear.draw.total == len(accepted)  # each had the weight one


@per_interface
@pytest.mark.parametrize("how", [{}, {"logqp": True}], ids=str)
def test_the_way_back_of_an_adjoint_is_not_heard(name: str, how: dict[str, Any]) -> None:
    sde, local = FG("diagonal", "ito"), ear()
    with local.hears():
        found = getattr(PLAIN, name)(sde, STATE, TS, dt=0.125, method="milstein", bm=path(sde, bool(how)), **how)
        (found[0] if how else found).square().mean().backward()
    assert local.cost.solves == 1
    assert local.cost.accepted == 8
    assert local.penalty().item() > 0


def test_d8_an_sde_that_is_no_module_is_heard() -> None:
    class Plain:
        noise_type, sde_type = "scalar", "stratonovich"

        def __init__(self) -> None:
            self.rate = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)

        def f(self, t: Tensor, y: Tensor) -> Tensor:
            return -self.rate * y.sin()

        def g(self, t: Tensor, y: Tensor) -> Tensor:
            return 0.1 * y[..., None]

    sde, local = Plain(), ear()
    local.sdeint(sde, STATE, TS, dt=0.125, method="midpoint")
    local.penalty().backward()
    assert sde.rate.grad is not None


def test_the_cost_counts_drift_and_diffusion_of_the_solve() -> None:
    for cls, method, stages in ((FG, "euler", (1, 1)), (Joint, "euler", (1, 1)), (Joint, "heun", (2, 2))):
        sde, local = cls("diagonal", "stratonovich" if method == "heun" else "ito"), ear()
        local.sdeint(sde, STATE, TS, dt=0.125, method=method, bm=path(sde))
        assert (local.cost.nfe, local.cost.nfe_diffusion) == (8 * stages[0], 8 * stages[1])
        assert sde.calls["f"] - local.cost.nfe <= 2  # torchsde's check of shapes


def test_f15_an_sde_penalty_is_the_same_under_autocast() -> None:
    sde, values = FG().float(), []
    for enabled in (False, True):
        local = ear()
        local.sdeint(sde, STATE.float(), TS.float(), dt=0.125, method="euler", bm=quiet())
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            values.append(local.penalty().item())
    assert values[0] == values[1]


def quiet() -> torchsde.BrownianInterval:
    return torchsde.BrownianInterval(0.0, 1.0, size=(6, 2), dtype=torch.float32, entropy=7)
