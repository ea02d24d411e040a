"""What the drop-in penalty costs beside one step of torchdiffeq or torchsde itself, with one thread; and bit-identity.

One step is a solve of torchdiffeq's dopri5 over an interval that takes exactly one accepted step: seven evaluations of
f, forward and backward. The penalty is `LocalPenalty.penalty` and its backward pass: seven evaluations as well.
Listening is what the ear adds to a solve (forward only): one draw for each accepted step. For an SDE: one step of
torchsde's srk, and of milstein, beside the penalty of a solve by milstein.

Before anything is timed, states and gradients of solves with and without the ear are compared bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from _cases import Case, latent, mnist, scaled
from _timing import alternate, median, options, quartiles, report, speedup, table
from torch import Tensor, nn
from torchdiffeq import odeint, odeint_adjoint
from torchsde import BrownianInterval, sdeint, sdeint_adjoint

from regnde import LocalPenalty
from reproduce.models.fields import TimeMLP

ONE_STEP, PENALTY, SOLVE, LISTENING = "one step of the solver", "penalty", "plain solve", "solve while listening"
MILSTEIN = "one step of milstein"
DT = 0.1


def ear() -> LocalPenalty:
    return LocalPenalty(rng=torch.Generator().manual_seed(0))


def penalty(local: LocalPenalty, kept: Any, parameters: list[Tensor]) -> None:
    """Take the penalty of the same step again and again."""
    local._ear.draw.item = kept
    torch.autograd.grad(local.penalty(), parameters)


def compared(plain: Callable[[], list[Tensor]], wrapped: Callable[[], list[Tensor]]) -> bool:
    """Return whether two computations give the same bits."""
    return all(torch.equal(a, b) for a, b in zip(plain(), wrapped(), strict=True))


def with_gradient(y: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    return [y, *torch.autograd.grad(y.square().mean(), parameters)]


def identical(case: Case) -> dict[str, bool]:
    """Compare states and gradients of both interfaces with and without the ear, at three output times."""
    tolerances = {"rtol": case.tolerance, "atol": case.tolerance}
    local = ear()
    t, parameters = case.t[[0, len(case.t) // 2, -1]].unique(), case.inputs

    def solve(interface: Callable[..., Tensor]) -> list[Tensor]:
        return with_gradient(interface(case.f, case.y0, t, **tolerances), parameters)

    pairs = (odeint, local.odeint), (odeint_adjoint, local.odeint_adjoint)
    return {a.__name__: compared(lambda a=a: solve(a), lambda b=b: solve(b)) for a, b in pairs}


def ode(case: Case, seconds: float) -> dict[str, Any]:
    """Time one step, the penalty, and listening."""
    tolerances, parameters = {"rtol": case.tolerance, "atol": case.tolerance}, list(case.f.parameters())
    local = ear()
    local.odeint(case.f, case.y0.detach(), case.t, **tolerances)
    kept = local._ear.draw.item
    y, dt, ends = kept.y, kept.t1 - kept.t0, torch.tensor([kept.t0, kept.t1], dtype=torch.float64)

    def one_step() -> None:
        end = odeint(case.f, y, ends, method="dopri5", options={"first_step": dt}, **tolerances)[-1]
        torch.autograd.grad(end, parameters, torch.ones_like(end))

    def solve(interface: Callable[..., Tensor]) -> None:
        interface(case.f, case.y0, case.t, **tolerances)

    part = alternate({ONE_STEP: one_step, PENALTY: lambda: penalty(local, kept, parameters)}, seconds=seconds / 2)
    whole = alternate({SOLVE: lambda: solve(odeint), LISTENING: lambda: solve(local.odeint)}, seconds=seconds / 2)
    return summary(case.name, {**part, **whole}, {PENALTY: ONE_STEP, LISTENING: SOLVE}, identical(case))


class SDE(nn.Module):
    """Drift and diffusion of a neural SDE in R^32 with diagonal noise."""

    noise_type, sde_type = "diagonal", "ito"

    def __init__(self) -> None:
        super().__init__()
        self.drift, self.diffusion = scaled(TimeMLP((32, 64, 32)), 2.0), nn.Linear(32, 32)

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        return self.drift(t, y)

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        return 0.1 * self.diffusion(y).sigmoid()


def sde(seconds: float) -> dict[str, Any]:
    """Time one step of torchsde's methods and the penalty, and compare solves bit by bit."""
    torch.manual_seed(0)
    equation, y0, ts, local = SDE(), torch.randn(512, 32), torch.linspace(0, 1, 3), ear()
    parameters = list(equation.parameters())

    def solve(interface: Callable[..., Tensor], times: Tensor, method: str) -> list[Tensor]:
        path = BrownianInterval(0.0, 1.0, size=(512, 32), entropy=1, levy_area_approximation="space-time")
        return with_gradient(interface(equation, y0, times, bm=path, dt=DT, method=method), parameters)

    pairs = (sdeint_adjoint, local.sdeint_adjoint), (sdeint, local.sdeint)
    same = {
        a.__name__: compared(lambda a=a: solve(a, ts, "milstein"), lambda b=b: solve(b, ts, "milstein"))
        for a, b in pairs
    }
    one, kept = torch.tensor([0.0, DT]), local._ear.draw.item
    times = alternate(
        {
            ONE_STEP: lambda: solve(sdeint, one, "srk"),
            MILSTEIN: lambda: solve(sdeint, one, "milstein"),
            PENALTY: lambda: penalty(local, kept, parameters),
        },
        seconds=seconds,
    )
    return summary("SDE in R^32, batch 512 (srk)", times, {PENALTY: ONE_STEP, MILSTEIN: ONE_STEP}, same)


def summary(name: str, times: dict[str, list[float]], beside: dict[str, str], same: dict[str, bool]) -> dict[str, Any]:
    """Return medians, ratios of neighbours in time, and what was compared."""
    return {
        "case": name,
        "ms": {key: median(values) for key, values in times.items()},
        "quartiles_ms": {key: quartiles(values) for key, values in times.items()},
        "ratio": {key: speedup(times[key], times[other]) for key, other in beside.items()},
        "beside": beside,
        "bit_identical": same,
    }


def rows(result: dict[str, Any]) -> list[list[str]]:
    """Return the lines of one case."""
    lines = []
    for key, ms in result["ms"].items():
        low, high = result["quartiles_ms"][key]
        beside = f"{result['ratio'][key]:.2f} of {result['beside'][key]}" if key in result["ratio"] else ""
        lines.append([result["case"], key, f"{ms:.2f}", f"{low:.2f} to {high:.2f}", beside])
    return lines


def main() -> None:
    seconds = options(__doc__ or "", seconds=12).seconds
    results = [ode(mnist(), seconds), ode(latent(), seconds), sde(seconds / 2)]
    text = table(["case", "what", "ms", "quartiles", "ratio"], [line for result in results for line in rows(result)])
    same = "; ".join(f"{result['case']}: {result['bit_identical']}" for result in results)
    report("dropin", f"{text}\n\nSame bits with and without the ear: {same}.", {"results": results})
    if not all(value for result in results for value in result["bit_identical"].values()):
        raise SystemExit("the ear changed a solve")


if __name__ == "__main__":
    main()
