"""Checkpointed discrete gradients: the backward pass takes the accepted steps again, one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from regnde.solvers.loop import Loop, states_in
from regnde.solvers.methods import Method
from regnde.solvers.solution import Trace
from regnde.solvers.steps import SRIStep, Step, stiffness_ratio


def replay(
    loop: Loop,
    method: Method,
    y0: Tensor,
    times: Sequence[float],
    parameters: tuple[Tensor, ...],
    y: Tensor,
    trace: Trace,
    integral: Tensor | None,
) -> tuple[Tensor, Trace, Tensor | None]:
    """Give the results of a finished solve the gradient that backpropagation through its steps would give them.

    Memory: the states where the accepted steps start, plus the graph of one step. Time: one more forward pass.

    Args:
        loop: the finished loop, run without graph.
        method: to take the steps with.
        y0: initial state, (batch, ...).
        times: output times.
        parameters: what else shall get a gradient.
        y, trace, integral: states, trace and integral of the rate that the loop found.

    Returns:
        The same, with gradient.
    """
    empty = y.new_empty(0)
    stiffness = empty if trace.stiffness is None else trace.stiffness
    values = y, trace.error_ratio, stiffness, empty if integral is None else integral
    y, ratio, stiffness, rate = _Replay.apply(_Kept(loop, method, list(times)), values, y0, *parameters)
    trace = replace(
        trace,
        error_ratio=ratio if "error_ratio" in loop.records else trace.error_ratio,
        stiffness=None if trace.stiffness is None else stiffness,
        with_gradient=loop.records,
    )
    return y, trace, None if integral is None else rate


@dataclass(frozen=True)
class _Kept:
    """What the backward pass needs: no graph, the accepted steps, and the times."""

    loop: Loop
    method: Method
    times: list[float]

    def outputs(self, i: int, y: Tensor) -> tuple[Step | SRIStep, list[Tensor]]:
        """Take step i again from y; return it, and all that the solve returned of it, with graph.

        These are: the states at the output times inside, the error ratio, the stiffness, and the weighted rate.
        """
        loop, (t, dt, _) = self.loop, self.loop.accepted[i]
        last = i + 1 == len(loop.accepted)
        t1 = self.times[-1] if last else t + dt
        step = self.method.take(t, y, dt)
        inside = states_in(self.method, step, t1, self.times[self.first(i) : loop.reached[i]])
        found = [torch.cat(inside) if inside else y.new_empty(0)]
        found.append(self.method.ratio(step) if "error_ratio" in loop.records else y.new_empty(0))
        found.append(stiffness_ratio(step) if "stiffness" in loop.records else y.new_empty(0))
        if loop.rate is not None:
            weights = loop.rate_weights()
            rate = float(weights[i]) * loop.rate(t, y, step.k[0])
            found.append(rate + float(weights[-1]) * loop.rate(t1, step.y1, step.k[-1]) if last else rate)
        return step, found

    def first(self, i: int) -> int:
        """Index of the first output time inside step i."""
        return self.loop.reached[i - 1] if i else sum(time == self.times[0] for time in self.times)


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kept: _Kept, values: tuple[Tensor, ...], y0: Tensor, *parameters: Tensor) -> Any:
        ctx.kept, ctx.parameters = kept, parameters
        return tuple(value.clone() for value in values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_y: Tensor, of_ratio: Tensor, of_stiffness: Tensor, of_rate: Tensor) -> Any:
        kept: _Kept = ctx.kept
        of_state = torch.zeros_like(of_y[0])  # the gradient of the loss for the state at the end of the present step
        of_parameters: list[Tensor | None] = [None] * len(ctx.parameters)
        for i in reversed(range(len(kept.loop.accepted))):
            with torch.enable_grad():
                y = kept.loop.accepted[i][2].detach().requires_grad_()
                step, found = kept.outputs(i, y)
            inside = of_y[kept.first(i) : kept.loop.reached[i]]
            of_records = [each[i] if len(each) else of_rate for each in (of_ratio, of_stiffness)]
            grads = [inside, *of_records, of_rate]
            pairs = [(step.y1, of_state)]
            pairs += [(value, grad) for value, grad in zip(found, grads, strict=False) if value.requires_grad]
            outputs, of_outputs = zip(*pairs, strict=True)
            of_state, *more = torch.autograd.grad(outputs, (y, *ctx.parameters), of_outputs, allow_unused=True)
            of_parameters = [_add(old, new) for old, new in zip(of_parameters, more, strict=True)]
        of_y0 = of_state + of_y[: kept.first(0)].sum(0)
        return None, None, of_y0, *of_parameters


def _add(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b
