"""The closed box around torchdiffeq: the same Solution from its untouched odeint or odeint_adjoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torchdiffeq
from torch import Tensor, nn

from regnde.hosts.arguments import merge_times, refuse_others, times_for
from regnde.solvers.checks import Counted, SolverError, check_problem, check_sampled, choose
from regnde.solvers.methods import RungeKutta
from regnde.solvers.solution import Solution, Trace
from regnde.solvers.steps import Field
from regnde.solvers.tableaus import BOSH3, DOPRI5, TSIT5

GRADIENTS: dict[str, Callable[..., Any]] = {
    "backprop": torchdiffeq.odeint,
    "adjoint": torchdiffeq.odeint_adjoint,
}
HOST_TABLEAUS = {
    # torchdiffeq's dopri5 takes two thirds of the classical embedded difference as its error.
    "dopri5": replace(DOPRI5, name="dopri5 (torchdiffeq)", b_error=tuple(2 / 3 * w for w in DOPRI5.b_error)),
    "bosh3": BOSH3,
    # Methods whose own step is not in this library: the local penalty takes a step of Tsit5.
    "adaptive_heun": TSIT5,
    "fehlberg2": TSIT5,
    "dopri8": TSIT5,
}
FIXED_STEP = ("euler", "midpoint", "heun2", "heun3", "rk4", "explicit_adams", "implicit_adams", "fixed_adams")
ADJOINT = ("adjoint_rtol", "adjoint_atol", "adjoint_method", "adjoint_options", "adjoint_params")
OWN_CALL = "LocalPenalty, which leaves the call and what it returns to torchdiffeq: local.odeint"
INSTEAD = {
    "event_fn": f"a Solution has no event: use {OWN_CALL}_event(...)",
    **dict.fromkeys(ADJOINT, "it belongs to gradient='adjoint'"),
}
"""What to use where a keyword of torchdiffeq is refused."""


class _Recorder(nn.Module):
    """torchdiffeq's view of the field: calls it, and writes down what torchdiffeq tells through its hooks.

    The hooks: `callback_step` announces an attempt, `options["norm"]` is then called with the scaled error,
    and `callback_accept_step` or `callback_reject_step` says what became of it. The norm is called for other
    purposes too (first step size, adjoint), so that it is armed only by `callback_step`.
    """

    def __init__(self, f: Field, y0: Tensor) -> None:
        super().__init__()
        self.f = f  # registered as a submodule when it is one, so that the adjoint finds its parameters
        self.counted = Counted(f, y0)
        self.armed, self.recording = False, True
        self.ratio: Tensor | None = None
        self.accepted: list[tuple[float, float, Tensor, Tensor]] = []
        self.rejected: list[tuple[float, float]] = []

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.counted(t, y)

    def norm(self, x: Tensor) -> Tensor:
        value = x.abs().pow(2).mean().sqrt() if x.numel() else x.sum()  # torchdiffeq's default; of nothing zero
        if self.armed:
            self.ratio, self.armed = value, False
        return value

    def callback_step(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
        self.armed = self.recording

    def callback_accept_step(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
        assert self.ratio is not None
        kept = y.detach() if self.accepted else y.detach().clone()  # the first state is the caller's y0
        start, size = torch.stack([t, dt]).tolist()  # one transfer
        self.accepted.append((start, size, kept, self.ratio))

    def callback_reject_step(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
        start, size = torch.stack([t, dt]).tolist()
        self.rejected.append((start, size))

    def trace(self, *, with_gradient: bool, direction: float) -> Trace:
        self.recording = False
        t, dt, y, ratio = zip(*self.accepted, strict=True)
        rejected = torch.tensor(self.rejected, dtype=torch.float64).reshape(-1, 2)
        return Trace(
            t=torch.tensor(t, dtype=torch.float64),
            dt=direction * torch.tensor(dt, dtype=torch.float64),
            y=y,
            error_ratio=torch.stack(ratio),
            stiffness=None,
            rejected_t=rejected[:, 0],
            rejected_dt=direction * rejected[:, 1],
            nfe=self.counted.nfe,
            with_gradient=frozenset({"error_ratio"}) if with_gradient else frozenset(),
        )


def odeint_solve(
    f: Field,
    y0: Tensor,
    t: Tensor,
    *,
    rtol: float,
    atol: float,
    method: str = "dopri5",
    gradient: str = "backprop",
    sampled_t: Tensor | None = None,
    records: frozenset[str] = frozenset(),
    options: dict[str, Any] | None = None,
    **adjoint: Any,
) -> Solution:
    """Solve dy/dt = f(t, y) with torchdiffeq, unmodified, and record its steps through its public hooks.

    Args:
        f, y0, t, rtol, atol: as for `solve.solve_ode`.
        method: an adaptive method of torchdiffeq: 'dopri5', 'bosh3', 'adaptive_heun', 'fehlberg2', 'dopri8'.
            The local penalty's step is of the same method for the first two, of Tsit5 for the others.
        gradient: 'backprop' (torchdiffeq.odeint) or 'adjoint' (torchdiffeq.odeint_adjoint; f must be an nn.Module
            unless `adjoint_params` is given).
        sampled_t: further times where a regularizer wants the state, (sampled,).
        records: what a penalty wants with gradient; 'stiffness' is not told by torchdiffeq.
        options: torchdiffeq's solver options; its 'norm' is taken by the recorder.
        **adjoint: torchdiffeq's `adjoint_*` arguments, with gradient='adjoint'.

    Returns:
        The Solution; its trace carries the gradient of the error ratios with gradient='backprop' only.
        Note that torchdiffeq's last step may end after t[-1].

    Raises:
        ValueError: for arguments that cannot be, before f is evaluated.
        SolverError: torchdiffeq gave up.
        RuntimeError: in the backward pass, for create_graph=True with gradient='adjoint'.

    Source: torchdiffeq's `odeint` and `odeint_adjoint` (Chen et al. 2018); y0 and states are (batch, ...).
    """
    odeint = choose("gradient", GRADIENTS, gradient)
    refuse_others(adjoint, ADJOINT if gradient == "adjoint" else (), INSTEAD)
    if isinstance(y0, tuple):
        raise ValueError(f"y0 is a state tuple: join its parts in one tensor, or use {OWN_CALL}(...)")
    if method in FIXED_STEP:
        raise ValueError(
            f"'{method}' takes fixed steps, which have no error to record: use 'dopri5', or {OWN_CALL}(...)"
        )
    tableau = choose("method", HOST_TABLEAUS, method)
    asked = t if isinstance(t, Tensor) and t.requires_grad else None  # torchdiffeq gives times their gradient
    t = check_problem(y0, t, rtol, atol)
    if "stiffness" in records:
        raise ValueError("torchdiffeq does not tell its stages, so there is no stiffness to record: use solve_ode")
    if "error_ratio" in records and gradient == "adjoint":
        raise ValueError(
            "a global penalty needs the gradient of the recorded error ratios, which the continuous adjoint does not "
            "give: use gradient='backprop', or local_unbiased or local_biased, which work with the adjoint"
        )
    if gradient == "adjoint" and not isinstance(f, nn.Module) and "adjoint_params" not in adjoint:
        raise ValueError("gradient='adjoint' needs f to be an nn.Module (to find its parameters), or adjoint_params")
    if "norm" in (options or {}):
        raise ValueError("options['norm'] is taken by the recorder; leave it out")
    times, place, sampled_place = merge_times(t if asked is None else asked.to(t), check_sampled(t, sampled_t))
    back = torch.unique_consecutive(times, return_inverse=True)[1]
    unique = times[
        torch.searchsorted(back, torch.arange(int(back[-1]) + 1))
    ]  # with the gradient of the first of equals
    recorder = _Recorder(f, y0)
    options = {**(options or {}), "norm": recorder.norm}
    try:
        states = odeint(
            recorder,
            y0,
            times_for(unique, y0),
            rtol=rtol,
            atol=atol,
            method=method,
            options=options,
            **adjoint,
        )
    except AssertionError as error:
        raise SolverError(f"torchdiffeq gave up: {error}") from error
    if gradient == "adjoint" and states.requires_grad:
        states.register_hook(_refuse_second_derivative)
    direction = 1.0 if t[-1] > t[0] else -1.0
    return Solution(
        t=t,
        y=states[back[place]],
        trace=recorder.trace(with_gradient=gradient == "backprop" and torch.is_grad_enabled(), direction=direction),
        method=RungeKutta(recorder.counted.plain, tableau, rtol, atol),
        sampled_t=times[sampled_place].detach(),
        sampled_y=states[back[sampled_place]].detach() if len(sampled_place) else None,
    )


def _refuse_second_derivative(grad: Tensor) -> None:
    if torch.is_grad_enabled():
        raise RuntimeError(
            "torchdiffeq's adjoint has no second derivative, but this backward pass has create_graph=True: use "
            "gradient='backprop', or solve_ode with gradient='checkpoint'"
        )
