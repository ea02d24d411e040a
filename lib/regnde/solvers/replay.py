"""Checkpointed discrete gradients: the backward pass takes the accepted steps again, one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from regnde.solvers.error_ratio import stiffness_ratio
from regnde.solvers.loop import Loop, states_in
from regnde.solvers.methods import Method
from regnde.solvers.side_effects import Conditions
from regnde.solvers.solution import Trace
from regnde.solvers.sri_steps import SRIStep
from regnde.solvers.steps import Step


def replay(
    loop: Loop,
    method: Method,
    y0: Tensor,
    times: Sequence[float],
    parameters: tuple[Tensor, ...],
    conditions: Conditions,
    y: Tensor,
    trace: Trace,
    integral: Tensor | None,
) -> tuple[Tensor, Trace, Tensor | None]:
    """Give the results of a finished solve the gradient that backpropagation through its steps would give them.

    Memory: the states where the accepted steps start, plus the graph of one step. Time: one more forward pass. With
    create_graph=True, for second derivatives, the backward pass makes and keeps the graph of all steps.

    Args:
        loop: the finished loop, run without graph.
        method: to take the steps with.
        y0: initial state, (batch, ...).
        times: output times.
        parameters: what else shall get a gradient.
        conditions: under which the loop evaluated the fields.
        y, trace, integral: states, trace and integral of the rate that the loop found.

    Returns:
        The same, with gradient. Its backward pass raises RuntimeError, as backpropagation does, where y0 or a
        parameter was changed in place; and where it does not find the states of the solve again.
    """
    empty = y.new_empty(0)
    stiffness = empty if trace.stiffness is None else trace.stiffness
    values = y, trace.error_ratio, stiffness, empty if integral is None else integral
    kept = _Kept(loop, method, list(times), conditions, y[-1].clone())
    y, ratio, stiffness, rate = _Replay.apply(kept, values, y0, *parameters)
    trace = replace(
        trace,
        error_ratio=ratio if "error_ratio" in loop.records else trace.error_ratio,
        stiffness=None if trace.stiffness is None else stiffness,
        with_gradient=loop.records,
    )
    return y, trace, None if integral is None else rate


@dataclass(frozen=True)
class _Kept:
    """What the backward pass needs: no graph, the accepted steps, the times, the conditions, and the last state."""

    loop: Loop
    method: Method
    times: list[float]
    conditions: Conditions
    end: Tensor

    def pairs(
        self, i: int, y: Tensor, of_y: Tensor, of_ratio: Tensor, of_stiffness: Tensor, of_rate: Tensor
    ) -> tuple[Step | SRIStep, list[tuple[Tensor, Tensor]]]:
        """Take step i again from y; return it, and all that the solve returned of it, with its incoming gradient.

        These are: the states at the output times inside, the error ratio, the stiffness, and the weighted rate.
        """
        loop, (t, dt, _) = self.loop, self.loop.accepted[i]
        last = i + 1 == len(loop.accepted)
        t1 = self.times[-1] if last else t + dt
        step = self.conditions.of_step(self.method, i).take(t, y, dt)
        self.check(step.y1.detach(), self.end if last else loop.accepted[i + 1][2])
        inside = slice(self.first(i), loop.reached[i])
        states = states_in(self.method, step, t1, self.times, inside, loop.moves)
        found = [(torch.cat(states), of_y[inside])] if states else []
        if "error_ratio" in loop.records:
            found.append((self.method.ratio(step), of_ratio[i]))
        if "stiffness" in loop.records:
            found.append((stiffness_ratio(step), of_stiffness[i]))
        if loop.rate is not None:
            weights = loop.rate_weights()
            rate = float(weights[i]) * loop.rate(t, y, step.k[0])
            rate = rate + float(weights[-1]) * loop.rate(t1, step.y1, step.k[-1]) if last else rate
            found.append((rate, of_rate))
        return step, [(value, grad) for value, grad in found if value.requires_grad]

    @staticmethod
    def check(found: Tensor, expected: Tensor) -> None:
        """Raise RuntimeError when a step taken again ends somewhere else, beyond what rounding can explain."""
        tolerance = torch.finfo(found.dtype).eps ** 0.5
        size = expected.abs()
        if not ((found - expected).abs() <= tolerance * (size + size.max())).all():
            raise RuntimeError(
                "gradient='checkpoint' took a step of the solve again in the backward pass and found another state: "
                "what f depends on was changed before, or f draws from a generator of its own. Use gradient='backprop'"
            )

    def first(self, i: int) -> int:
        """Index of the first output time inside step i."""
        return self.loop.reached[i - 1] if i else sum(time == self.times[0] for time in self.times)


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kept: _Kept, values: tuple[Tensor, ...], y0: Tensor, *parameters: Tensor) -> Any:
        ctx.kept, ctx.parameters = kept, parameters
        frozen = [parameter for module in kept.conditions.modules for parameter in module.parameters()]
        ctx.save_for_backward(y0, *parameters, *frozen)  # so that changes in place are noticed
        return tuple(value.clone() for value in values)

    @staticmethod
    def backward(ctx: Any, of_y: Tensor, *of_others: Tensor) -> Any:
        y0, *_ = ctx.saved_tensors
        with ctx.kept.conditions.restored():
            if torch.is_grad_enabled():
                return None, None, *_with_graph(ctx.kept, y0, ctx.parameters, of_y, *of_others)
            return None, None, *_step_by_step(ctx.kept, ctx.parameters, of_y, *of_others)


def _step_by_step(kept: _Kept, parameters: tuple[Tensor, ...], of_y: Tensor, *of_others: Tensor) -> list[Tensor | None]:
    """Return the gradients for y0 and the parameters, with the graph of one step at a time."""
    of_state = torch.zeros_like(of_y[0])  # the gradient of the loss for the state at the end of the present step
    of_parameters: list[Tensor | None] = [None] * len(parameters)
    for i in reversed(range(len(kept.loop.accepted))):
        with torch.enable_grad():
            y = kept.loop.accepted[i][2].detach().requires_grad_()
            step, pairs = kept.pairs(i, y, of_y, *of_others)
        outputs, of_outputs = zip((step.y1, of_state), *pairs, strict=True)
        of_state, *more = torch.autograd.grad(outputs, (y, *parameters), of_outputs, allow_unused=True)
        of_parameters = [_add(old, new) for old, new in zip(of_parameters, more, strict=True)]
    return [of_state + of_y[: kept.first(0)].sum(0), *of_parameters]


def _with_graph(kept: _Kept, y0: Tensor, parameters: tuple[Tensor, ...], *grads: Tensor) -> tuple[Tensor | None, ...]:
    """Return the same as functions of y0, the parameters and the incoming gradients, for second derivatives."""
    y, first_part = y0.view_as(y0), True
    if y.requires_grad:  # y0 may depend on the parameters: not in this part of their gradient, but in derivatives of it
        y.register_hook(lambda grad: torch.zeros_like(grad) if first_part else grad)
    y = start = y.view_as(y) if y.requires_grad else y.detach().requires_grad_()
    pairs = [(start, grads[0][: kept.first(0)].sum(0))]
    for i in range(len(kept.loop.accepted)):
        step, more = kept.pairs(i, y, *grads)
        y, pairs = step.y1, pairs + more
    outputs, of_outputs = zip(*pairs, strict=True)
    found = torch.autograd.grad(outputs, (start, *parameters), of_outputs, create_graph=True, allow_unused=True)
    first_part = False
    return found


def _add(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b
