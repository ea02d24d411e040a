"""Linear combinations of stages in one pass over memory each, with their gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def _accumulate(base: Tensor | None, weights: Sequence[float], k: Sequence[Tensor]) -> Tensor:
    """Return base + sum_i weights_i k_i, accumulated in one buffer: one pass over memory for each term."""
    terms = [(ki, w) for ki, w in zip(k, weights, strict=True) if w != 0.0]
    if base is None:
        out = terms[0][0] * terms[0][1] if terms else torch.zeros_like(k[0])
    else:
        out = torch.add(base, terms[0][0], alpha=terms[0][1]) if terms else base.clone()
    for ki, w in terms[1:]:
        out.add_(ki, alpha=w)
    return out


class _LinearCombination(torch.autograd.Function):
    """`_accumulate` with its gradient, so that the graph holds one node instead of one for each term."""

    @staticmethod
    def forward(ctx: Any, base: Tensor | None, weights: Sequence[float], *k: Tensor) -> Tensor:
        ctx.weights = weights
        return _accumulate(base, weights, k)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        of_base = grad if ctx.needs_input_grad[0] else None
        of_k = (
            grad * w if needed and w != 0.0 else None
            for needed, w in zip(ctx.needs_input_grad[2:], ctx.weights, strict=True)
        )
        return of_base, None, *of_k


def combine(base: Tensor | None, dt: float, weights: Sequence[float], k: Sequence[Tensor]) -> Tensor:
    """Return base + dt * sum_i weights_i k_i (base None: zero); differentiable in base and k, not in dt."""
    weights = [dt * w for w in weights]
    if not torch.is_grad_enabled():
        return _accumulate(base, weights, k)
    return _LinearCombination.apply(base, weights, *k)
