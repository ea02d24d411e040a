"""What a solve refuses before it starts: states, times, tolerances, names; and fields that count and are checked."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from regnde.solvers.steps import Field, refuse_gradient
from regnde.solvers.tableaus import Tableau

RESOLVED = 64
"""The dtype of the state must tell at least so many times apart in the interval of a solve."""


class SolverError(RuntimeError):
    """A solve that could not be finished: too many steps, a step size of nothing, non-finite values.

    Source: this project; where a host gave up, its own error is the cause. It raises nothing itself.
    """


def version_of(x: Tensor) -> int:
    """Return how often a tensor was written into, 0 where nobody counts."""
    return 0 if x.is_inference() else x._version


class Counted:
    """A field that counts its evaluations, checks the first one, and gives copies where f writes into one buffer.

    The first derivative is given as a copy and itself kept, so that its memory comes back only if f returns it again.
    """

    def __init__(self, f: Field, y0: Tensor, *, name: str = "f", what: str = "dy/dt") -> None:
        self.f, self.nfe, self.name, self.what = f, 0, name, what
        self.shape, self.dtype = y0.shape, y0.dtype
        self.copies = False
        self.recent: tuple[tuple[Tensor, int], ...] = ()  # the last outputs

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        self.nfe += 1
        if self.nfe == 1:
            return self._begin(t, y)
        dy = self.f(t, y)
        if self.copies or dy.data_ptr() == self.address:
            return self._copy(dy)
        if any(dy.data_ptr() == older.data_ptr() and version_of(dy) != version for older, version in self.recent):
            self._refuse_buffer()
        self.recent = (self.recent[-1], (dy, version_of(dy)))  # held, so that no new tensor can have their memory
        return dy

    def _begin(self, t: Tensor, y: Tensor) -> Tensor:
        version = version_of(y)
        dy = self.f(t, y)
        self._check(dy)
        if version_of(y) != version:
            raise ValueError(f"{self.name}(t, y) changes the state y in place: compute with a copy, y.clone()")
        self.first, self.given, self.address = dy, dy.clone(), dy.data_ptr()
        self.recent = ((dy, version_of(dy)),)
        return self.given

    def _copy(self, dy: Tensor) -> Tensor:
        if self.nfe > 2 and not self.copies and not torch.equal(self.first, self.given):
            self._refuse_buffer()
        self.copies = True
        return dy.clone()

    def _refuse_buffer(self) -> None:
        raise ValueError(
            f"{self.name}(t, y) writes into memory that it returned before, after {self.nfe - 1} evaluations: return a "
            "new tensor each time, for example buffer.clone()"
        )

    @property
    def plain(self) -> Field:
        """The field without counting; still with copies where it needs them."""
        return (lambda t, y: self.f(t, y).clone()) if self.copies else self.f

    def _check(self, dy: Tensor) -> None:
        if not isinstance(dy, Tensor):
            raise ValueError(f"{self.name}(t, y) must return a tensor, but it returned {type(dy).__name__}")
        if dy.shape != self.shape or dy.dtype != self.dtype:
            raise ValueError(
                f"{self.name}(t, y) must return {self.what} with the shape and dtype of the state y: expected "
                f"{tuple(self.shape)} {self.dtype} (those of y0), found {tuple(dy.shape)} {dy.dtype} "
                f"(those of {self.name}'s output)"
            )


def check_problem(y0: Tensor, t: Tensor, rtol: float, atol: float) -> Tensor:
    """Return t as float64 on the CPU, or raise ValueError for a state, times or tolerances that cannot be."""
    if not isinstance(y0, Tensor) or not y0.is_floating_point():
        found = y0.dtype if isinstance(y0, Tensor) else type(y0).__name__
        raise ValueError(f"y0 must be a floating-point tensor (batch, ...), found {found}")
    if not torch.isfinite(y0).all():
        raise ValueError("y0 holds NaN or infinite values; check what produced the initial state")
    refuse_gradient(rtol=rtol, atol=atol, t=None if isinstance(t, Tensor) else t)
    t = times_of(t)
    if t.ndim != 1 or len(t) < 2:
        raise ValueError(f"t must be one-dimensional with at least two times, found shape {tuple(t.shape)}")
    steps = t.diff()
    if not torch.isfinite(t).all() or not ((steps > 0).all() or (steps < 0).all()):
        raise ValueError(f"t must be finite and strictly increasing or strictly decreasing, found {t.tolist()[:8]}")
    for name, value in (("rtol", rtol), ("atol", atol)):
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be a finite number >= 0, found {value}")
    if rtol == 0 and atol == 0:
        raise ValueError("rtol and atol are both 0: no step could ever be accepted; make one of them positive")
    _check_scales(y0, t, rtol, atol)
    return t


def times_of(t: Tensor | Sequence[float]) -> Tensor:
    """Return a copy of times as a float64 tensor on the CPU, where the control of a solve computes, without graph."""
    return torch.as_tensor(t.detach().cpu() if isinstance(t, Tensor) else t, dtype=torch.float64).clone()


def _check_scales(y0: Tensor, t: Tensor, rtol: float, atol: float) -> None:
    """Raise ValueError where the dtype of the state cannot tell its errors or its times apart."""
    one, (t0, *_, t1) = torch.finfo(y0.dtype), t.tolist()
    if atol < one.tiny and not (scaled := y0.detach().abs().mul(rtol).add(atol) > 0).all():
        without = (~scaled).nonzero()
        raise ValueError(
            f"atol + rtol |y0| is 0 in {len(without)} of {y0.numel()} entries of y0 (the first at index "
            f"{tuple(without[0].tolist())}, {y0.dtype}), so that no error is small there: give a larger atol"
        )
    spacing = one.eps * max(abs(t0), abs(t1))
    if abs(t1 - t0) < RESOLVED * spacing:
        raise ValueError(
            f"f gets its time in the dtype of y0, and {y0.dtype} has a spacing of about {spacing:.3g} at these times, "
            f"too coarse for [{t0}, {t1}]: count time from the start (t - t[0]), or use float64"
        )


T = TypeVar("T")


def choose(name: str, options: Mapping[str, T], value: str) -> T:
    """Return options[value], or raise ValueError naming what there is."""
    if value not in options:
        raise ValueError(f"unknown {name} {value!r}; choose one of {sorted(options)}")
    return options[value]


def check_sampled(t: Tensor, sampled_t: Tensor | None) -> Tensor:
    """Return the sampled times as float64 (None: empty), or raise ValueError when one leaves the interval of t."""
    refuse_gradient(sampled_t=sampled_t)
    sampled_t = times_of([] if sampled_t is None else sampled_t)
    low, high = min(t[0], t[-1]), max(t[0], t[-1])
    if len(sampled_t) and not bool(((sampled_t >= low) & (sampled_t <= high)).all()):
        raise ValueError(f"sampled times {sampled_t.tolist()} leave the interval [{float(low)}, {float(high)}]")
    return sampled_t


def check_options(records: frozenset[str], known: Collection[str], first_step: float | None, max_steps: int) -> None:
    """Raise ValueError for records that do not exist, a first step or a number of steps that cannot be."""
    if not records <= set(known):
        raise ValueError(f"unknown records {sorted(records - set(known))}; choose from {tuple(known)}")
    refuse_gradient(first_step=first_step)
    if first_step is not None and not (math.isfinite(first_step) and first_step > 0):
        raise ValueError(f"first_step must be positive, found {first_step}")
    if max_steps < 1:
        raise ValueError(f"max_steps must be at least 1, found {max_steps}")


def choose_gradient(gradient: str, f: object, parameters: Sequence[Tensor] | None) -> tuple[Tensor, ...] | None:
    """Return the parameters for checkpointed gradients, or None for backpropagation.

    Raises:
        ValueError: an unknown gradient; checkpointing without knowing the parameters.
    """
    if gradient not in ("backprop", "checkpoint"):
        raise ValueError(
            f"unknown gradient {gradient!r}; choose 'backprop' or 'checkpoint' (the continuous adjoint is that of "
            "torchdiffeq: hosts.odeint_solve with gradient='adjoint')"
        )
    if gradient == "backprop":
        return None
    if parameters is None and not isinstance(f, nn.Module):
        raise ValueError(
            "gradient='checkpoint' needs to know what gets a gradient: make f an nn.Module, or pass `parameters`"
        )
    found = f.parameters() if parameters is None and isinstance(f, nn.Module) else parameters or ()
    return tuple(parameter for parameter in found if parameter.requires_grad)


def check_tableau(tableau: Tableau, *, compile: bool, rate: bool, fixed: bool) -> None:
    """Raise ValueError for what a solve with a method does not offer that is not FSAL, or that knows no error."""
    if not tableau.fsal and (compile or rate):
        what = "is not compiled" if compile else "integrates no rate"
        raise ValueError(f"method '{tableau.name}', which is for a few fixed steps, {what}: use 'tsit5' or 'bosh3'")
    if not (tableau.estimates or fixed):
        raise ValueError(
            f"method '{tableau.name}' does not estimate its error, so it cannot choose steps: give step_sizes"
        )


def check_sde(t: Tensor, noise_type: str, sde_type: str) -> None:
    """Raise ValueError for times that run backwards, noise that is not diagonal, SDEs that are not Ito's."""
    if t[-1] < t[0]:
        raise ValueError("t must be increasing: an SDE is solved forward in time")
    if noise_type != "diagonal":
        raise ValueError(
            f"noise_type {noise_type!r} is not supported: only 'diagonal' noise is, where g(t, y) has the shape of y "
            "and component i of y is driven by component i of the Brownian motion; for others use torchsde's methods"
        )
    if sde_type != "ito":
        raise ValueError(
            f"sde_type {sde_type!r} is not supported: SOSRI and SOSRI2 solve 'ito' equations; convert the drift first "
            "(with component-wise noise f + g dg/dy / 2), or use torchsde's Stratonovich methods"
        )
