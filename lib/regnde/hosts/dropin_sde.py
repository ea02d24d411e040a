"""The local penalty for your own torchsde call: a module around your SDE."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from regnde.hosts.dropin import ROUNDING, Around, check_tolerances, end_of, uniform
from regnde.solvers.checks import check_sde, choose
from regnde.solvers.sri_tableaus import SRI_TABLEAUS
from regnde.solvers.steps import ERROR_ESTIMATES, error_ratio, sri_step

DRIFTS = ("f", "f_and_g", "f_and_g_prod")
"""The methods of an SDE by which torchsde evaluates the drift."""
NOTHING = (
    "no solve was recorded: solve with this object first, with gradients enabled and at least two steps, and without "
    "replacing the drift f by `names`"
)


class _Points:
    """Where one solve evaluated the drift: chance keeps one point as they come."""

    def __init__(self, rng: torch.Generator) -> None:
        self.rng, self.n, self.with_grad = rng, 0, True
        self.start, self.latest = math.nan, math.nan
        self.kept: tuple[float, Tensor] | None = None

    def add(self, t: float, y: Tensor) -> bool:
        """Add a point; return whether these are the points of a solve: at two times or more, not of a single call."""
        if not torch.is_grad_enabled():
            self.with_grad = False  # the way forward of an adjoint
        if torch.is_grad_enabled() and not self.with_grad:
            return False  # its way back
        again = self.n == 1 and t == self.start  # torchsde evaluates at the start to check shapes
        self.n = 1 if again else self.n + 1
        self.start, self.latest = (t, t) if self.n == 1 else (self.start, max(self.latest, t))
        if uniform(self.rng) * self.n < 1.0:
            self.kept = t, y.detach()
        return self.n > 1


class LocalPenaltySDE(Around):
    """Your SDE for torchsde, which remembers one point of the last solve and can penalize the error of a step there.

        sde = LocalPenaltySDE(sde, rtol=1e-2, atol=1e-2, dt=0.05, rng=generator)  # once
        y = sdeint(sde, y0, ts, dt=0.05, method="milstein")                       # your call; or sdeint_adjoint
        loss = loss + weight * sde.penalty(ts)

    torchsde does not tell its steps, so the point is drawn from those where it evaluated the drift, each with the same
    probability. With fixed steps of 'euler' or 'milstein' these are the starts of the steps, uniform in time; 'srk'
    adds its stages, adaptive=True the rejected attempts. The solution stays the same to the bit, logqp=True works.
    Not recorded: solves under `torch.no_grad()`, and a drift that `names` replaces. For attributes and checkpoints
    see `LocalPenalty`.

    Args:
        sde: an nn.Module in torchsde's convention: methods f and g, noise_type 'diagonal', sde_type 'ito'.
        rtol, atol: tolerance that the penalty scales its step's error with.
        dt: size of the penalty's step; that of your call, if it is fixed there.
        method: of the penalty's step, 'sosri2' or 'sosri'.
        estimate: of its error, see `steps.ERROR_ESTIMATES`.
        rng: for the draw and for the noise of the penalty's step.

    Raises:
        ValueError: for arguments that cannot be.
    """

    def __init__(
        self,
        sde: nn.Module,
        *,
        rtol: float,
        atol: float,
        dt: float,
        method: str = "sosri2",
        estimate: str = "embedded",
        rng: torch.Generator,
    ) -> None:
        super().__init__(sde, rng)
        if not isinstance(sde, nn.Module):
            raise ValueError(f"sde must be an nn.Module, so that its parameters are known, found {type(sde).__name__}")
        if not (hasattr(sde, "f") and hasattr(sde, "g")):
            raise ValueError("sde must have the methods f (drift) and g (diffusion): the penalty's step calls both")
        check_sde(torch.zeros(1), getattr(sde, "noise_type", "unknown"), getattr(sde, "sde_type", "unknown"))
        check_tolerances(rtol, atol)
        if not (math.isfinite(dt) and dt > 0):
            raise ValueError(f"dt must be positive, found {dt}")
        self._rtol, self._atol, self._dt = rtol, atol, dt
        choose("estimate", ERROR_ESTIMATES, estimate)
        self._tableau, self._estimate = choose("method", SRI_TABLEAUS, method), estimate
        self._points: _Points | None = None

    def __getattr__(self, name: str) -> Any:
        found = super().__getattr__(name)
        return self._recorder(found) if name in DRIFTS and torch.is_grad_enabled() else found

    def _recorder(self, theirs: Callable[..., Any]) -> Callable[..., Any]:
        points = _Points(self._rng)  # torchsde looks the drift up before it solves: a new one for each solve

        def drift(t: Tensor, y: Tensor, *others: Tensor) -> Any:
            if points.add(float(t), y):
                self._points = points
            return theirs(t, y, *others)

        return drift

    def penalty(self, t: Tensor | float) -> Tensor:
        """Take one step with fresh noise from the remembered point of the last solve; return its error ratio, 0-d.

        Drift and diffusion get a gradient; time, size and state of the step are constants. Costs four evaluations of
        each. The step is cut off at the end of the interval; a point at the very end takes the step that leads there.

        Args:
            t: the times of that solve, or its end.

        Raises:
            ValueError: no solve was recorded, or t is not where it ended.
        """
        points, end = self._points, end_of(t)
        if points is None or points.kept is None:
            raise ValueError(NOTHING)
        start, y = points.kept
        rounding = ROUNDING * (abs(points.start) + abs(end))
        if not (points.start < end and points.latest <= end + rounding):
            raise ValueError(
                f"penalty(t) needs the times of the last solve, which evaluated the drift between {points.start:g} and "
                f"{points.latest:g}; found t ending at {end:g}"
            )
        h = min(self._dt, end - points.start)
        start, h = (start, min(h, end - start)) if end - start > rounding else (end - h, h)
        draw: dict[str, Any] = {"generator": self._rng, "device": self._rng.device, "dtype": y.dtype}
        w, xi = (torch.randn(y.shape, **draw).to(y.device) for _ in range(2))
        w = h**0.5 * w
        u = h / 2 * w + (h**3 / 12) ** 0.5 * xi  # the integral of W(s) - W(t), given W(t + h) - W(t) = w
        f, g = self.inner.f, self.inner.g
        step = sri_step(f, g, start, y, h, w, u, self._tableau, estimate=self._estimate)
        return error_ratio(step.error, y, step.y1, rtol=self._rtol, atol=self._atol)
