"""The closed box around torchsde: the same Solution from its untouched sdeint or sdeint_adjoint."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torchsde
from torch import Tensor, nn

from regnde.hosts.arguments import merge_times, refuse_others, times_for
from regnde.solvers.checks import Counted, SolverError, check_problem, check_sampled, check_sde, choose
from regnde.solvers.methods import StochasticRungeKutta
from regnde.solvers.path import Path, brownian_path
from regnde.solvers.solution import Solution, Trace
from regnde.solvers.sri_steps import ERROR_ESTIMATES
from regnde.solvers.sri_tableaus import SRI_TABLEAUS
from regnde.solvers.steps import refuse_gradient

SDE_GRADIENTS: dict[str, Callable[..., Any]] = {
    "backprop": torchsde.sdeint,
    "adjoint": torchsde.sdeint_adjoint,
}
ADJOINT = ("adjoint_method", "adjoint_adaptive", "adjoint_rtol", "adjoint_atol", "adjoint_options", "adjoint_params")
OWN_CALL = "use LocalPenalty, which leaves the call and what it returns to torchsde: local.sdeint(...)"
INSTEAD = {
    "logqp": f"a Solution has one state: {OWN_CALL}",
    "extra": f"a Solution has no state of torchsde's solver: {OWN_CALL}",
    "extra_solver_state": f"a Solution has no state of torchsde's solver: {OWN_CALL}",
    "names": "give an SDE whose methods are called f and g",
    **dict.fromkeys(ADJOINT, "it belongs to gradient='adjoint'"),
}
"""What to use where a keyword of torchsde is refused."""


class _CountedSDE(nn.Module):
    """torchsde's view of an SDE: drift and diffusion that count their evaluations, time in the dtype of the state."""

    def __init__(self, sde: Any, y0: Tensor) -> None:
        super().__init__()
        self.sde = sde  # registered as a submodule when it is one, so that the adjoint finds its parameters
        self.noise_type, self.sde_type = sde.noise_type, sde.sde_type
        self.drift = Counted(sde.f, y0, what="the drift")
        self.diffusion = Counted(sde.g, y0, name="g", what="the diffusion of diagonal noise")

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        return self.drift(t.to(y.dtype), y)

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        return self.diffusion(t.to(y.dtype), y)


class _Heard:
    """A Brownian path as torchsde sees it, which writes down between which times it is asked: these are the steps."""

    def __init__(self, bm: Path) -> None:
        self.bm, self.steps = bm, {}  # type: Path, dict[tuple[float, float], None]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.bm, name)

    def __call__(self, ta: Tensor, tb: Tensor, **others: Any) -> Any:
        self.steps[float(ta), float(tb)] = None
        return self.bm(ta, tb, **others)


def sdeint_solve(
    sde: Any,
    y0: Tensor,
    t: Tensor,
    *,
    rtol: float,
    atol: float,
    dt: float,
    method: str = "milstein",
    adaptive: bool = False,
    gradient: str = "backprop",
    own_method: str = "sosri2",
    estimate: str = "embedded",
    bm: Path | None = None,
    seed: int | None = None,
    sampled_t: Tensor | None = None,
    records: frozenset[str] = frozenset(),
    **others: Any,
) -> Solution:
    """Solve the Ito SDE dy = f(t, y) dt + g(t, y) dW with torchsde, unmodified; penalties take one step of our own.

    Args:
        sde: torchsde's convention: methods f(t, y) and g(t, y), noise_type 'diagonal', sde_type 'ito'.
        y0, t, bm, seed, sampled_t: as for `solve.solve_sde`.
        rtol, atol: tolerance that a local penalty scales its step's error with; torchsde's, too, when adaptive.
        dt: torchsde's step, or its first one when adaptive; the size of the local penalty's step (step='solver').
        method: torchsde's method: 'milstein', 'srk', 'euler'.
        adaptive: let torchsde control its steps (by step doubling; it does not tell them, so that a local penalty has
            to choose step='initial').
        gradient: 'backprop' (torchsde.sdeint) or 'adjoint' (torchsde.sdeint_adjoint; sde must be an nn.Module).
        own_method: method of the local penalty's step, 'sosri2' or 'sosri'.
        estimate: its error estimate, see sri_steps.ERROR_ESTIMATES.
        records: must be empty: torchsde's error estimate has no gradient.
        **others: torchsde's options and dt_min; with gradient='adjoint' its `adjoint_*` arguments.

    Returns:
        The Solution. Its trace has the times of fixed steps, but neither states nor error ratios: local_unbiased works,
        local_biased, which starts from recorded states, does not.

    Raises:
        ValueError: for arguments that cannot be, before f and g are evaluated.
        SolverError: torchsde gave up.

    Source: torchsde's `sdeint` and `sdeint_adjoint` (Li et al. 2020); y0 and states are (batch, ...).
    """
    sdeint = choose("gradient", SDE_GRADIENTS, gradient)
    refuse_others(others, ("options", "dt_min", *(ADJOINT if gradient == "adjoint" else ())), INSTEAD)
    tableau = choose("own_method", SRI_TABLEAUS, own_method)
    choose("estimate", ERROR_ESTIMATES, estimate)
    refuse_gradient(t=t, dt=dt)
    t = check_problem(y0, t, rtol, atol)
    check_sde(t, getattr(sde, "noise_type", "unknown"), getattr(sde, "sde_type", "unknown"))
    if not y0.numel():
        raise ValueError(f"torchsde takes no empty batch, found y0 of shape {tuple(y0.shape)}: use solve_sde")
    if not (math.isfinite(dt) and dt > 0):
        raise ValueError(f"dt must be positive and finite, found {dt}")
    shortest, spacing = min(dt, others.get("dt_min", 1e-5)) if adaptive else dt, math.ulp(float(t.abs().max()))
    if shortest <= spacing:  # torchsde would not end
        raise ValueError(f"dt and dt_min must lie above the spacing {spacing:.3g} of floats at t, found {shortest:.3g}")
    if records:
        raise ValueError(
            f"torchsde computes its error estimate without gradient, so there is no {' or '.join(sorted(records))} to "
            "record: use local_unbiased, or solve_sde for global penalties"
        )
    times, place, sampled_place = merge_times(t, check_sampled(t, sampled_t))
    unique, back = torch.unique_consecutive(times, return_inverse=True)
    bm = brownian_path(bm, y0, t, seed, None if adaptive else dt)
    counted, heard = _CountedSDE(sde, y0), _Heard(bm)
    settings = {"method": method, "dt": dt, "adaptive": adaptive, "rtol": rtol, "atol": atol, **others}
    try:
        states = sdeint(counted, y0, times_for(unique, y0), bm=heard, **settings)
    except AssertionError as error:
        raise SolverError(f"torchsde gave up: {error}") from error
    steps = torch.tensor([] if adaptive else list(heard.steps), dtype=torch.float64).reshape(-1, 2)
    none = torch.empty(0, dtype=torch.float64)
    trace = Trace(
        t=steps[:, 0],
        dt=steps.diff(dim=1)[:, 0],
        y=(),
        error_ratio=none,
        stiffness=None,
        rejected_t=none,
        rejected_dt=none,
        nfe=counted.drift.nfe,
        nfe_diffusion=counted.diffusion.nfe,
    )
    return Solution(
        t=t,
        y=states[back[place]],
        trace=trace,
        method=StochasticRungeKutta(
            counted.drift.plain, counted.diffusion.plain, bm, float(t[-1]), tableau, rtol, atol, estimate
        ),
        sampled_t=times[sampled_place],
        sampled_y=states[back[sampled_place]].detach() if len(sampled_place) else None,
    )
