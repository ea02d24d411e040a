"""One way to solve, put in the place of a program's own call: for torchdiffeq, torchsde and the solvers here."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
import torchdiffeq
import torchsde
from torch import Tensor

from regnde.dropin.hear_solves import SDE_METHODS
from regnde.hosts.with_torchdiffeq import FIXED_STEP, HOST_TABLEAUS
from regnde.solvers.checks import SolverError
from regnde.solvers.path import BrownianPath
from regnde.solvers.solution import Solution
from regnde.solvers.solve import METHODS, solve_ode, solve_sde
from regnde.solvers.sri_tableaus import SRI_TABLEAUS

_SDE = ("srk", "milstein", "euler", "midpoint", "heun", "euler_heun", "reversible_heun")
KNOWN: dict[str, tuple[Collection[str], Collection[str]]] = {
    "torchdiffeq": (tuple(HOST_TABLEAUS), FIXED_STEP),
    "torchsde": (_SDE, _SDE),
    "own": (tuple(name for name in METHODS if name != "euler"), tuple(METHODS)),
    "own_sde": (tuple(SRI_TABLEAUS), tuple(SRI_TABLEAUS)),
}
"""Methods of each host: at a tolerance, with fixed steps."""
RENAMED = {
    "drift": "f",
    "diffusion": "g",
    "drift_and_diffusion": "f_and_g",
    "drift_and_diffusion_prod": "f_and_g_prod",
}
"""torchsde's `names`: which of its methods an SDE may call otherwise."""
MAX_STEPS = 10_000
"""Of an adaptive solve by torchdiffeq, which would go on for ever; the solvers here have the same bound."""


@dataclass(frozen=True)
class Way:
    """A way to solve: a method with either a tolerance or a number of equal steps.

    Raises:
        ValueError: both or neither are given; a tolerance that is not positive, fewer than one step.

    Source: this project.
    """

    method: str
    tolerance: float | None = None
    """Relative and absolute tolerance of adaptive steps."""
    steps: int | None = None
    """Number of equal steps over the interval of each solve, from its first to its last time."""

    def __post_init__(self) -> None:
        if (self.tolerance is None) == (self.steps is None):
            raise ValueError(
                f"a way has a tolerance or a number of steps, found tolerance={self.tolerance}, steps={self.steps}: "
                f"write Way({self.method!r}, tolerance=1e-3) or Way({self.method!r}, steps=4)"
            )
        if self.tolerance is not None and not (math.isfinite(self.tolerance) and self.tolerance > 0):
            raise ValueError(f"tolerance must be a positive number, found {self.tolerance}")
        if self.steps is not None and (not isinstance(self.steps, int) or self.steps < 1):
            raise ValueError(f"steps must be a whole number of at least 1, found {self.steps!r}")

    @property
    def name(self) -> str:
        """In words: 'dopri5 at 0.001', 'midpoint, 2 steps'."""
        if self.steps is None:
            return f"{self.method} at {self.tolerance:g}"
        return f"{self.method}, {self.steps} step{'s' if self.steps > 1 else ''}"


class Paid:
    """What the solves of one prediction cost, and the seed of their Brownian paths."""

    def __init__(self, seed: int) -> None:
        self.seed, self.solves, self.nfe, self.nfe_diffusion = seed, 0, 0, 0

    def add(self, nfe: int, nfe_diffusion: int = 0) -> None:
        """Add evaluations of f and of g."""
        self.nfe, self.nfe_diffusion = self.nfe + nfe, self.nfe_diffusion + nfe_diffusion

    def path(self, like: Tensor, t: Tensor) -> BrownianPath:
        """Return the path of the solve that comes now: the same whatever the way, another for each solve."""
        return BrownianPath(like, float(t[0]), float(t[-1]), seed=(self.seed << 32) + self.solves)


class _Counting:
    """A field or an SDE whose calls are counted; whatever else is asked of it is the program's own."""

    def __init__(self, inner: Any, paid: Paid, methods: dict[str, tuple[int, int]]) -> None:
        self._inner, self._paid, self._methods = inner, paid, methods

    def __call__(self, t: Tensor, y: Any) -> Any:
        self._paid.add(1)
        return self._inner(t, y)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in self._methods:
            return found

        def counted(*args: Any) -> Any:
            self._paid.add(*self._methods[name])
            return found(*args)

        return counted


def solving(host: str, way: Way, paid: Paid) -> Callable[..., Any]:
    """Return a function to be called as the host's own; what method, steps and tolerances it is given, it ignores."""

    def solve(*equation: Any, **how: Any) -> Any:
        found = _SOLVES[host](way, paid, *equation, **{k: v for k, v in how.items() if not k.startswith("adjoint_")})
        paid.solves += 1
        if not _finite(found):
            raise SolverError("the solve has non-finite states")
        return found

    return solve


def _finite(found: Any) -> bool:
    if isinstance(found, tuple):
        return all(_finite(part) for part in found)
    y = found.y if isinstance(found, Solution) else found
    return not isinstance(y, Tensor) or bool(y.isfinite().all())


def _without(how: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in how.items() if name not in names}


def _odeint(way: Way, paid: Paid, func: Any, y0: Any, t: Tensor, **how: Any) -> Any:
    def grid(_f: Any, _y0: Tensor, t: Tensor) -> Tensor:
        return torch.linspace(float(t[0]), float(t[-1]), (way.steps or 0) + 1, dtype=t.dtype, device=t.device)

    how = _without(how, "method", "rtol", "atol", "options")
    if way.tolerance is None:
        how |= {"options": {"grid_constructor": grid}}
    else:
        how |= {"rtol": way.tolerance, "atol": way.tolerance, "options": {"max_num_steps": MAX_STEPS}}
    return torchdiffeq.odeint(_Counting(func, paid, {}), y0, t, method=way.method, **how)


def _sdeint(way: Way, paid: Paid, sde: Any, y0: Tensor, ts: Any, **how: Any) -> Any:
    names = how.get("names") or {}
    ts = ts if isinstance(ts, Tensor) else torch.tensor(ts, dtype=y0.dtype, device=y0.device)  # as torchsde does
    like = _noise_like(sde, y0, ts, names, logqp=how.get("logqp", False))
    how = _without(how, "method", "rtol", "atol", "options", "dt", "adaptive")
    if like is not None:
        how["bm"] = paid.path(like, ts)
    if way.tolerance is None:
        how |= {"adaptive": False, "dt": _equal_step(ts, way.steps or 1)}
    else:  # the whole interval first: torchsde cuts a step that is too long at once, and lets a short one grow slowly
        how |= {"adaptive": True, "dt": float(ts[-1] - ts[0]), "rtol": way.tolerance, "atol": way.tolerance}
    methods = SDE_METHODS | {names[key]: SDE_METHODS[name] for key, name in RENAMED.items() if key in names}
    return torchsde.sdeint(_Counting(sde, paid, methods), y0, ts, method=way.method, **how)


def _noise_like(sde: Any, y0: Tensor, ts: Tensor, names: dict[str, str], *, logqp: bool) -> Tensor | None:
    """Return a tensor of the Brownian motion's shape (batch, noises), None where only the program's own bm tells it."""
    if sde.noise_type == "diagonal":
        return torch.cat([y0, y0[:, :1]], 1) if logqp else y0
    if sde.noise_type == "scalar":
        return y0[:, :1]
    if (g := getattr(sde, names.get("diffusion", "g"), None)) is not None:
        return g(ts[0], y0)[:, 0]
    both = getattr(sde, names.get("drift_and_diffusion", "f_and_g"), None)
    return None if both is None else both(ts[0], y0)[1][:, 0]


def _equal_step(ts: Tensor, steps: int) -> float:
    """Return a step of which so many reach the end in the rounding of ts: torchsde would take a rest as one more."""
    dt, slack = float(ts[-1] - ts[0]) / steps, 0.0
    while sum([dt * (1 + slack)] * steps, ts[0]) < ts[-1]:
        slack = 2 * slack or torch.finfo(ts.dtype).eps
    return dt * (1 + slack)


def _own_steps(way: Way, t: Tensor) -> dict[str, Any]:
    if way.tolerance is not None:
        return {"rtol": way.tolerance, "atol": way.tolerance}
    steps = way.steps or 1
    return {"rtol": 1e-2, "atol": 1e-2, "step_sizes": [abs(float(t[-1]) - float(t[0])) / steps] * steps}


def _own_ode(way: Way, paid: Paid, f: Any, y0: Tensor, t: Tensor, **how: Any) -> Solution:
    how = _without(how, "method", "rtol", "atol", "first_step", "step_sizes", "compile") | _own_steps(way, t)
    solution = solve_ode(f, y0, t, method=way.method, **how)
    paid.add(solution.trace.nfe)
    return solution


def _own_sde(way: Way, paid: Paid, f: Any, g: Any, y0: Tensor, t: Tensor, **how: Any) -> Solution:
    how = _without(how, "method", "rtol", "atol", "first_step", "step_sizes", "compile", "seed") | _own_steps(way, t)
    solution = solve_sde(f, g, y0, t, method=way.method, **(how | {"bm": paid.path(y0, t)}))
    paid.add(solution.trace.nfe, solution.trace.nfe_diffusion)
    return solution


_SOLVES: dict[str, Callable[..., Any]] = {
    "torchdiffeq": _odeint,
    "torchsde": _sdeint,
    "own": _own_ode,
    "own_sde": _own_sde,
}
