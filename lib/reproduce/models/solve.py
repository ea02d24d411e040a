"""What a model is handed to solve its equation with, and the control's way to solve nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from regnde import TSIT5, Field, RungeKutta, Solution, Trace

Solve = Callable[[Any, Tensor, Tensor], Solution]
"""What a model gets from outside: (f, y0, t) -> Solution; it holds solver, tolerance and regularizer.

For an SDE, f is a module with the methods f and g (torchsde's convention), and the solve draws its Brownian path.
A model gets beside it a generator for noise of its own.
"""


def hold_still(f: Field, y0: Tensor, t: Tensor) -> Solution:
    """Return the solve of dy/dt = 0 without evaluating f, y(t) = y(t0): the control of every experiment."""
    nothing = torch.empty(0, dtype=torch.float64)
    trace = Trace(nothing, nothing, (), nothing, None, nothing, nothing, nfe=0)
    y = y0.expand(len(t), *y0.shape)
    return Solution(t=t, y=y, trace=trace, method=RungeKutta(f, TSIT5, rtol=1.0, atol=1.0))
