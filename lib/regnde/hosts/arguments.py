"""What a host is asked for: all times as one list for its solver; keywords that it has no place for."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor


def merge_times(t: Tensor, sampled_t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Merge further times into the output times, in the direction of t.

    Args:
        t: output times, (times,), monotone.
        sampled_t: further times, (sampled,), between t[0] and t[-1].

    Returns:
        All times in order (times + sampled,), and where t and sampled_t ended up in them.
    """
    direction = 1.0 if t[-1] > t[0] else -1.0
    merged, order = torch.sort(direction * torch.cat([t, sampled_t]), stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    return direction * merged, place[: len(t)], place[len(t) :]


def times_for(t: Tensor, y0: Tensor) -> Tensor:
    """Return times, (times,), on the device of the state for a host: in float64 where the device has it."""
    return t.to(y0.device, y0.dtype if y0.device.type == "mps" else t.dtype)


def refuse_others(given: Collection[str], known: Collection[str], instead: Mapping[str, str]) -> None:
    """Raise ValueError for a keyword that is not known, with what to use instead."""
    for name in given:
        if name not in known:
            raise ValueError(f"unknown argument {name!r}: {instead.get(name, f'known are {sorted(known)}')}")
