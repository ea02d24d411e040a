"""What a regularizer is: a value that acts before, along or after one solve; and the sum of several."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from regnde.penalties.weights import Weight, towards
from regnde.solvers.solution import Solution
from regnde.solvers.solve import Rate

Setting = float | str | bool
Times = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor]]
Penalty = Callable[[Solution, torch.Generator], Tensor]


def uniform(n: int, rng: torch.Generator) -> Tensor:
    """Draw n numbers in [0, 1) on the generator's own device; return them where times are kept, (n,), float64, CPU."""
    dtype = torch.float32 if rng.device.type == "mps" else torch.float64  # Metal has no float64
    return torch.rand(n, generator=rng, device=rng.device, dtype=dtype).cpu().double()


def _times_as_they_are(t: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    return t, torch.empty(0, dtype=torch.float64)


@dataclass(frozen=True)
class Regularizer:
    """One way to make a differential equation cheap to solve; the values are in the menu `REGULARIZERS`.

    `a + b` is both at once; it raises ValueError where a name comes twice, or both integrate a rate.

    Source: this project; each regularizer of the menu says its own.
    """

    name: str
    settings: dict[str, Setting] = field(default_factory=dict)
    """Everything that distinguishes it from others of its name; part of a row's key."""
    weight: Callable[[float], float] = lambda progress: 0.0
    """Weight of the penalty as a function of the training's progress in [0, 1]."""
    times: Times = _times_as_they_are
    """Before the solve: (t, rng) -> (times of the output, further times where the penalty wants the state)."""
    records: frozenset[str] = frozenset()
    """What the trace must carry with gradient for the penalty: a subset of RECORDS."""
    rate: Callable[[torch.Generator], Rate] | None = None
    """Along the solve: rng -> (f, t, y, dy) -> 0-d rate, integrated as `solution.rate_integral`; ODEs only."""
    penalty: Penalty | None = None
    """After the solve: (solution, rng) -> 0-d penalty; None: there is nothing to add to the loss."""
    adapt: Callable[[float, float], float] | None = None
    """After a training step: (weight, NFE) -> next weight; None: `weight` alone decides."""
    parts: tuple[Regularizer, ...] = ()
    """The regularizers that this one is the sum of; empty for a simple one."""

    def __add__(self, other: Regularizer) -> Regularizer:
        """Return both together: the times of one after the other, everything that both record, both penalties."""
        return _sum(*self.simple, *other.simple)

    @property
    def simple(self) -> tuple[Regularizer, ...]:
        """The simple regularizers in it: its parts, or itself."""
        return self.parts or (self,)


def _sum(*parts: Regularizer) -> Regularizer:
    names = [part.name for part in parts]
    if len(set(names)) < len(names):
        raise ValueError(f"a sum holds each regularizer once, found {names}")
    if sum(part.rate is not None for part in parts) > 1:
        raise ValueError(f"a solve integrates one rate, but several of {names} have one")

    def times(t: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        sampled = []
        for part in parts:
            t, further = part.times(t, rng)
            sampled.append(further)
        return t, torch.cat(sampled)

    return Regularizer(
        name="+".join(names),
        settings={f"{part.name}.{key}": value for part in parts for key, value in part.settings.items()},
        weight=lambda progress: 1.0,
        times=times,
        records=frozenset().union(*(part.records for part in parts)),
        rate=next((part.rate for part in parts if part.rate is not None), None),
        parts=parts,
    )


def weighted(
    name: str,
    penalty: Penalty,
    weight: float,
    weight_end: float | None,
    target_nfe: float | None,
    **options: Setting,
) -> Regularizer:
    """Return a regularizer with its weight; settings that are not set are left out of its record."""
    if target_nfe is not None and weight_end is not None:
        raise ValueError("target_nfe adapts the weight, weight_end prescribes it: give one of them")
    optional = {"weight_end": weight_end, "target_nfe": target_nfe}
    return Regularizer(
        name=name,
        settings={"weight": weight, **{key: value for key, value in optional.items() if value is not None}, **options},
        weight=Weight(weight, weight_end),
        penalty=penalty,
        adapt=None if target_nfe is None else towards(target_nfe, weight),
    )
