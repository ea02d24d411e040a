"""Element: what a gradient method keeps in memory over one training step (lesson 03)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torchdiffeq import odeint_adjoint

from regnde import solve_ode
from reproduce.live.colors import DASHES, MUTED
from reproduce.live.element import Element
from reproduce.live.parts import Axis, Control, Index, Panel, Series, around, each
from reproduce.models.fields import TimeMLP
from reproduce.runs.memory import Memory

METHODS = ("backprop", "checkpoint", "adjoint")
POINTS = 150
"""Of a curve over one training step: each is the largest value of its stretch."""


def weigh(f: nn.Module, y0: Tensor, method: str, steps: int) -> np.ndarray:
    """Return the memory alive after each operation of a training step, in states: (operations,).

    Args:
        f: field with parameters.
        y0: state, (batch, ...).
        method: 'backprop', 'checkpoint', or 'adjoint', which is torchdiffeq's, stopped at equal times.
        steps: equal steps of the solver.
    """
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    with Memory() as memory:
        if method == "adjoint":
            at = {"step_t": torch.linspace(0, 1, steps + 1)[1:-1]}
            y = odeint_adjoint(f, y0, ends, method="dopri5", options=at, rtol=1e-5, atol=1e-5)[-1]
        else:
            sizes = [1 / steps] * steps
            y = solve_ode(f, y0, ends, rtol=1.0, atol=1.0, gradient=method, step_sizes=sizes).y[-1]
        torch.autograd.grad(y.square().mean(), list(f.parameters()))
    return np.array(memory.history) / y0.nbytes


def memory(f: nn.Module | None = None, y0: Tensor | None = None, *, steps: Sequence[int] = (2, 4, 8, 16)) -> Element:
    """Return the element of memory: choose gradient method and number of steps, see what a training step keeps.

    Args:
        f: field with parameters, called as f(t, y); None: a small network, with its own y0.
        y0: state, (batch, ...).
        steps: of the solver, in rising order.

    Raises:
        ValueError: a field without a state.
    """
    if f is None:
        f, y0 = TimeMLP((64, 16, 64)), torch.rand(16, 64, generator=torch.Generator().manual_seed(0))
    if y0 is None:
        raise ValueError("expected a field with its state y0 of shape (batch, ...), found y0 None")
    field, state = f, y0
    shape = len(METHODS), len(steps)
    found = each(lambda i, k: weigh(field, state, METHODS[i], steps[k]), *shape)
    peaks = {index: float(held.max()) for index, held in found.items()}
    texts = each(lambda i, k: _words(METHODS[i], steps[k], peaks[i, k], _slope(peaks, i, steps)), *shape)
    start, told = (0, len(steps) - 1), ", ".join(f"{m} {_slope(peaks, i, steps):.2f}" for i, m in enumerate(METHODS))
    return Element(
        "What a training step keeps",
        (
            Control("method", "gradient", METHODS, start[0], "menu"),
            Control("steps", "steps of the solver", tuple(map(str, steps)), start[1]),
        ),
        (_over_panel(found), _peak_panel(peaks, steps)),
        texts,
        "Memory in states: that of one y for the whole batch. Counted at every operation, so it is exact.",
        "Left: memory alive over one training step. Right: its peak against the number of solver steps, a line for "
        f"each gradient method. States added by each further step: {told}. Shown: {texts[start]}",
    )


def _words(method: str, steps: int, peak: float, slope: float) -> str:
    return (
        f"{method}, {steps} steps: {peak:.0f} states alive at the peak; each further step adds {slope:.2f}, from the "
        "fewest to the most steps."
    )


def _slope(peaks: dict[Index, float], i: int, steps: Sequence[int]) -> float:
    last = len(steps) - 1
    return (peaks[i, last] - peaks[i, 0]) / (steps[last] - steps[0])


def _over_panel(found: dict[Index, np.ndarray]) -> Panel:
    def series(held: np.ndarray) -> tuple[Series, ...]:
        parts = np.array_split(held, min(POINTS, len(held)))
        return (Series("line", np.linspace(0, 1, len(parts)), [p.max() for p in parts], MUTED[0], "memory alive"),)

    top = max(held.max() for held in found.values())
    x, y = Axis("share of the training step's operations", *around([0, 1])), Axis("states alive", 0.0, 1.06 * top)
    frames = {index: series(held) for index, held in found.items()}
    return Panel(x, y, "Over one training step", (), ("method", "steps"), frames)


def _peak_panel(peaks: dict[Index, float], steps: Sequence[int]) -> Panel:
    stays = tuple(
        Series("line", steps, [peaks[i, k] for k in range(len(steps))], MUTED[i], name, DASHES[i])
        for i, name in enumerate(METHODS)
    )
    frames: dict[Index, tuple[Series, ...]] = {
        (i, k): (Series("squares", [steps[k]], [peak], MUTED[6], "chosen", width=9),) for (i, k), peak in peaks.items()
    }
    x, y = Axis("steps of the solver", *around(steps)), Axis("peak, states", 0.0, 1.1 * max(peaks.values()))
    return Panel(x, y, "The peak", stays, ("method", "steps"), frames)
