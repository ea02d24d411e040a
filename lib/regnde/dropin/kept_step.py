"""One accepted step of torchdiffeq or torchsde, kept as the solver saw it, to be taken once more with a gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchdiffeq._impl.misc import Perturb, _compute_error_ratio
from torchdiffeq._impl.rk_common import _ButcherTableau, _runge_kutta_step
from torchsde._core.base_sde import ForwardSDE
from torchsde._core.misc import jvp

from regnde.solvers.error_ratio import error_ratio
from regnde.solvers.sri_steps import sri_step
from regnde.solvers.sri_tableaus import SOSRI2


@dataclass(frozen=True)
class KeptODE:
    """A step of torchdiffeq, in the solver's own view: ascending time, a state tuple as one vector, its own norm."""

    field: nn.Module
    """torchdiffeq's wrapper of the user's field."""
    tableau: Any
    rtol: Tensor | float
    atol: Tensor | float
    norm: Callable[[Tensor], Tensor]
    dtype: torch.dtype
    """Of times."""
    t0: float
    t1: float
    y: Tensor

    def ratio(self, y: Tensor) -> Tensor:
        """Take the step by torchdiffeq's own arithmetic: to the bit what the solver found, unless it was cut off."""
        t0, t1, dt = torch.tensor([self.t0, self.t1, self.t1 - self.t0], dtype=self.dtype, device=y.device).unbind()
        alpha, beta, c_sol, c_error = self.tableau
        like = {"dtype": y.dtype, "device": y.device}
        tableau = _ButcherTableau(alpha.to(**like), [b.to(**like) for b in beta], c_sol.to(**like), c_error.to(**like))
        f0 = self.field(t0, y, perturb=Perturb.NEXT)  # a jump at t0 lies behind
        y1, _, error, _ = _runge_kutta_step(self.field, y, f0, t0, dt, t1, tableau)
        if not bool(error.detach().any()):
            return (0 * error).abs().sum()  # the root of an exact zero has no gradient
        ratio = _compute_error_ratio(error, self.rtol, self.atol, y, y1, self.norm)
        return ratio.reshape(()).to(y.abs().dtype)


@dataclass(frozen=True)
class KeptSDE:
    """A step of torchsde, to be taken again by SOSRI2 with fresh noise.

    SOSRI2 is for Ito equations with one noise for each component, or one for all. So Stratonovich drifts are
    corrected, and of additive noise with m channels each row of the batch gets one direction in R^m, uniform on the
    sphere of radius sqrt(m): the same covariance, on average over directions.
    """

    field: ForwardSDE
    """torchsde's view of the user's SDE, `names` and `logqp` included."""
    channels: int
    rtol: float
    atol: float
    rng: torch.Generator
    t0: float
    t1: float
    y: Tensor

    def ratio(self, y: Tensor) -> Tensor:
        """Take one step, (batch, d) -> 0-d; g dg/dy / 2 by automatic differentiation."""
        sde, h = self.field, self.t1 - self.t0
        diagonal = sde.noise_type == "diagonal"
        one = y.new_ones(y.shape) if diagonal else self._normal(len(y), self.channels, like=y)  # (batch, channels)
        if not diagonal:
            one = one * (self.channels**0.5 / one.norm(dim=1, keepdim=True))
        has = {name: hasattr(sde._base_sde, name) for name in ("f", "g", "g_prod")}

        def g(t: Tensor, y: Tensor) -> Tensor:
            by_itself = has["g"] or has["g_prod"]
            return sde.g_prod(t, y, one) if by_itself else sde.f_and_g_prod(t, y, one)[1]  # (batch, d)

        def f(t: Tensor, y: Tensor) -> Tensor:
            drift = sde.f(t, y) if has["f"] else sde.f_and_g_prod(t, y, one)[0]
            if sde.sde_type == "ito" or sde.noise_type == "additive":
                return drift
            with torch.enable_grad():
                y = y if y.requires_grad else y.detach().requires_grad_()
                noise = g(t, y)
                (along,) = jvp(noise, y, grad_inputs=noise, create_graph=True, retain_graph=True, allow_unused=True)
            return drift + along / 2

        size = y.shape if diagonal else (len(y), 1)
        w, xi = (self._normal(*size, like=y).expand(y.shape) for _ in range(2))
        w = h**0.5 * w
        u = h / 2 * w + (h**3 / 12) ** 0.5 * xi  # the integral of W(s) - W(t), given W(t + h) - W(t) = w
        step = sri_step(f, g, self.t0, y, h, w, u, SOSRI2)
        return error_ratio(step.error, y, step.y1, rtol=self.rtol, atol=self.atol)

    def _normal(self, *size: int, like: Tensor) -> Tensor:
        return torch.randn(size, generator=self.rng, device=self.rng.device, dtype=like.dtype).to(like.device)
