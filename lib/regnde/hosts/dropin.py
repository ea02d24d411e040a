"""The local penalty for your own torchdiffeq call: a module around your field."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from regnde.hosts.with_torchdiffeq import HOST_TABLEAUS
from regnde.solvers.checks import choose
from regnde.solvers.steps import Field, error_ratio, rk_step
from regnde.solvers.tableaus import BOSH3

State = Tensor | tuple[Tensor, ...]
FIXED_STEP = ("euler", "midpoint", "heun2", "heun3", "rk4", "explicit_adams", "implicit_adams", "fixed_adams")
METHODS = {**HOST_TABLEAUS, **dict.fromkeys(FIXED_STEP, BOSH3)}
"""torchdiffeq's methods, and the pair that the penalty takes its step with: their own where this library has it."""
CALLBACKS = ("callback_step", "callback_accept_step", "callback_reject_step")
ROUNDING = 1e-6
"""Times that agree to this share of their size are the same."""
NOTHING = (
    "no solve was recorded: solve with this object first, with gradients enabled. torchdiffeq tells no steps of "
    "'scipy_solver', of fixed steps with event_fn, and where t has only one time; and the method given to LocalPenalty "
    "must be of the same kind, adaptive or fixed-step, as that of the solve"
)


def _alike(dt: Tensor) -> float:
    return 1.0


SAMPLING: dict[str, Callable[[Tensor], float]] = {"biased": _alike, "unbiased": float}
"""Weight of an accepted step in the draw, from its size."""


class Around(nn.Module):
    """A module that stands where the user's object stood: same attributes, same keys in a checkpoint."""

    inner: Any
    """The user's own field or SDE."""

    def __init__(self, inner: Any, rng: torch.Generator) -> None:
        super().__init__()
        if isinstance(inner, Around):
            raise ValueError("this is wrapped already; to change its settings wrap its `inner`")
        if not isinstance(rng, torch.Generator):
            raise ValueError(f"rng must be a torch.Generator, found {type(rng).__name__}")
        self.inner = inner  # registered as a submodule when it is one, so that the adjoint finds its parameters
        self._rng = rng

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "inner" or name.startswith("__"):
                raise
            return getattr(self.inner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        own = name in self.__dict__ or name == "inner" or name.startswith("_")
        if own or not hasattr(self.inner, name):
            super().__setattr__(name, value)
        else:
            setattr(self.inner, name, value)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the user's object."""
        return self.inner(*args, **kwargs)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return the state of the user's module, with its own keys."""
        inner: Any = self.inner if isinstance(self.inner, nn.Module) else super()
        return inner.state_dict(*args, **kwargs)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        for key in [key for key in state_dict if key.startswith(prefix)]:
            state_dict[f"{prefix}inner.{key.removeprefix(prefix)}"] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args)


class _Steps:
    """The accepted steps of one solve: chance keeps one of them as they come, so that memory stays flat.

    The last one waits. How much of it lies inside the interval is known only when the penalty is asked for.
    """

    def __init__(self, rng: torch.Generator, weight: Callable[[Tensor], float]) -> None:
        self.rng, self.weight = rng, weight
        self.start: Tensor | None = None  # time at which the solve began
        self.kept: tuple[Tensor, Tensor, State] | None = None
        self.last: tuple[Tensor, Tensor, State] | None = None
        self.total, self.u = 0.0, 0.0  # weight of all steps before the last one; the chance of the last one

    def add(self, t: Tensor, y: State, dt: Tensor) -> None:
        """Add an accepted step by its start and its size, which is positive in both directions of time."""
        t = t.detach().clone()  # of fixed steps it is a view of the whole grid of times
        if self.last is None:
            self.start = t
        else:
            weight = self.weight(self.last[1])
            self.kept = self._draw(weight)
            self.total += weight
        detached = tuple(part.detach() for part in y) if isinstance(y, tuple) else y.detach()
        self.last = t, dt.detach(), detached
        self.u = uniform(self.rng)

    def drawn(self, end: float) -> tuple[float, float, State]:
        """Return (t, signed dt, y) of one step, cut off at the end of the interval."""
        if self.last is None or self.start is None:
            raise ValueError(NOTHING)
        start, last = float(self.start), float(self.last[0])
        direction = math.copysign(1.0, end - start)
        rest, rounding = direction * (end - last), ROUNDING * (abs(start) + abs(end))
        if not -rounding <= rest <= float(self.last[1]) + rounding:
            raise ValueError(
                f"penalty(t) needs the times of the last solve, which began at {start:g} and whose last step began at "
                f"{last:g} with size {float(self.last[1]):g}; found t ending at {end:g} (with event_fn, give event_t)"
            )
        t, dt, y = self._draw(self.weight(self.last[1].clamp(max=max(rest, 0.0))))
        return float(t), direction * min(float(dt), abs(end - float(t))), y

    def _draw(self, weight: float) -> tuple[Tensor, Tensor, State]:
        """Return the last step with probability weight / (weight of all), else the one that was kept before."""
        last = self.kept is None or self.u * (self.total + weight) < weight
        chosen = self.last if last else self.kept
        assert chosen is not None
        return chosen


class LocalPenalty(Around):
    """Your field for torchdiffeq, which remembers one accepted step of the last solve and can penalize its error.

        f = LocalPenalty(f, rtol=1e-5, atol=1e-5, rng=generator)  # once
        y = odeint(f, y0, t, rtol=1e-5, atol=1e-5)                # your call, as it was; or odeint_adjoint
        loss = loss + weight * f.penalty(t)                       # the weight is the loss paid per e-fold of steps

    The solution and its gradients stay the same to the bit, since torchdiffeq only tells what it does (its callbacks;
    those of your own f are called, too). State tuples, events, options and both directions of time work. Not recorded:
    solves under `torch.no_grad()`, and what torchdiffeq does not tell (fixed steps with event_fn). Each solve forgets
    the one before. Attributes are read and set on your f (`f.nfe`), and a checkpoint keeps its keys; only the names of
    `named_parameters` begin with 'inner.'.

    Args:
        f: your field, called as f(t, y).
        rtol, atol: as in your call; a tuple for a state tuple. With an own options['norm'] in your call, the penalty
            still measures by torchdiffeq's default norm.
        method: as in your call. dopri5 and bosh3 take the penalty's step by the same pair, other adaptive methods by
            Tsit5, fixed-step methods by Bogacki-Shampine 3.
        sampling: 'biased' draws each accepted step with equal probability; 'unbiased' with a probability proportional
            to its size: the step that contains a uniformly drawn time. Either is taken again from its start.
        rng: for the draw; used once for each accepted step.

    Raises:
        ValueError: for arguments that cannot be.
    """

    def __init__(
        self,
        f: Callable[..., Any],
        *,
        rtol: float | tuple[float, ...],
        atol: float | tuple[float, ...],
        method: str = "dopri5",
        sampling: str = "biased",
        rng: torch.Generator,
    ) -> None:
        super().__init__(f, rng)
        if not callable(f):
            raise ValueError(f"f must be callable as f(t, y), found {type(f).__name__}; for torchsde: LocalPenaltySDE")
        if method == "scipy_solver":
            raise ValueError("method 'scipy_solver' tells no steps and gives no gradient: use 'dopri5'")
        check_tolerances(rtol, atol)
        self._rtol, self._atol = rtol, atol
        self._tableau, self._weight = choose("method", METHODS, method), choose("sampling", SAMPLING, sampling)
        self._told_by = "callback_step" if method in FIXED_STEP else "callback_accept_step"
        self._steps: _Steps | None = None

    def __getattr__(self, name: str) -> Any:
        if name not in CALLBACKS:
            return super().__getattr__(name)
        theirs = getattr(self.inner, name, None)
        if name == self._told_by and torch.is_grad_enabled():  # outside of the adjoint's no_grad: once for each solve
            return self._recorder(theirs)
        if theirs is None:
            raise AttributeError(name)
        return theirs

    def parameters(self, recurse: bool = True) -> Any:
        """Return the parameters of your f."""
        if not isinstance(self.inner, nn.Module):
            raise ValueError("f is no nn.Module, so its parameters are not known: for odeint_adjoint, make it one")
        return super().parameters(recurse)

    def _recorder(self, theirs: Callable[..., None] | None) -> Callable[..., None]:
        steps = _Steps(self._rng, self._weight)

        def callback(t: Tensor, y: State, dt: Tensor) -> None:
            self._steps = steps  # here, since torchdiffeq may ask for callbacks that it never calls
            steps.add(t, y, dt)
            if theirs is not None:
                theirs(t, y, dt)

        return callback

    def penalty(self, t: Tensor | float) -> Tensor:
        """Take the remembered step of the last solve once more, and return its error ratio with gradient, 0-d.

        Only f gets a gradient: time, size and state of the step are constants. Costs one evaluation of f per stage:
        seven with dopri5, four with bosh3 and fixed-step methods. Until the next solve the step stays the same.

        Args:
            t: the times of that solve, or its end: the last step is cut off there, as torchdiffeq steps beyond it. For
                a solve that an event ended: the time of the event.

        Raises:
            ValueError: no solve was recorded, or t is not where it ended.
        """
        if self._steps is None:
            raise ValueError(NOTHING)
        start, dt, y = self._steps.drawn(end_of(t))
        parts = y if isinstance(y, tuple) else (y,)
        if any(part.is_complex() for part in parts):
            raise ValueError("the penalty needs a real state: solve for torch.view_as_real(y)")
        f = joined_field(self.inner, parts, is_tuple=isinstance(y, tuple))
        step = rk_step(f, start, join(parts), dt, self._tableau)
        of_parts = zip(
            *(split(x, parts) for x in (step.error, step.y, step.y1)),
            *(of_each(tolerance, len(parts)) for tolerance in (self._rtol, self._atol)),
            strict=True,
        )
        ratios = [error_ratio(error, y0, y1, rtol=rtol, atol=atol) for error, y0, y1, rtol, atol in of_parts]
        return torch.stack(ratios).max()  # over the parts of a tuple, as torchdiffeq does


def uniform(rng: torch.Generator) -> float:
    """Draw a number in [0, 1)."""
    return float(torch.rand((), generator=rng, device=rng.device, dtype=torch.float64))


def end_of(t: Tensor | float) -> float:
    """Return the last of some times, or a time itself."""
    times = torch.as_tensor(t, dtype=torch.float64).detach().reshape(-1)
    if not len(times) or not torch.isfinite(times[-1]):
        raise ValueError(f"t must hold the times of the solve, found {times.tolist()}")
    return float(times[-1])


def check_tolerances(rtol: float | tuple[float, ...], atol: float | tuple[float, ...]) -> None:
    """Raise ValueError for tolerances that are not numbers >= 0, or both 0."""
    of_parts = [value if isinstance(value, tuple) else (value,) for value in (rtol, atol)]
    for name, values in zip(("rtol", "atol"), of_parts, strict=True):
        if not all(isinstance(value, int | float) and math.isfinite(value) and value >= 0 for value in values):
            raise ValueError(f"{name} must be a number >= 0, or a tuple of them for a state tuple, found {values}")
    if not any(map(any, of_parts)):
        raise ValueError("rtol and atol are both 0: make one of them positive")


def of_each(tolerance: float | tuple[float, ...], n: int) -> tuple[float, ...]:
    """Return a tolerance for each of the n parts of a state."""
    if isinstance(tolerance, tuple) and len(tolerance) != n:
        raise ValueError(f"{len(tolerance)} tolerances were given for a state of {n} parts; give one or {n}")
    return tolerance if isinstance(tolerance, tuple) else (tolerance,) * n


def join(parts: tuple[Tensor, ...]) -> Tensor:
    """Return the parts of a state as one vector."""
    return torch.cat([part.reshape(-1) for part in parts]) if len(parts) > 1 else parts[0].reshape(-1)


def split(vector: Tensor, like: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return the parts that `join` made a vector of."""
    pieces = vector.split([part.numel() for part in like])
    return tuple(piece.view(part.shape) for piece, part in zip(pieces, like, strict=True))


def joined_field(f: Callable[..., Any], like: tuple[Tensor, ...], *, is_tuple: bool) -> Field:
    """Return a field on a state of these parts (a tuple, or one tensor) as a field on one vector."""
    if is_tuple:
        return lambda t, y: join(f(t, split(y, like)))
    return lambda t, y: f(t, y.view(like[0].shape)).reshape(-1)
