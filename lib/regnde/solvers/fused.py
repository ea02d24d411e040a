"""Linear combinations of stages in one pass over memory each, and the error ratio, with their gradients by hand.

Every backward pass here can be differentiated again: it uses nothing but its inputs and operations with a gradient.
Where the step size is a tensor, a step is being compiled (see `graphs`): then the formulas stand as they are written
in books, and the compiler fuses them.
"""

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


def _sum(base: Tensor | None, weights: Sequence[float | Tensor], k: Sequence[Tensor]) -> Tensor:
    """Return base + sum_i weights_i k_i as a graph wants it."""
    total = torch.zeros_like(k[0]) if base is None else base
    for weight, ki in zip(weights, k, strict=True):
        if isinstance(weight, Tensor) or weight != 0.0:
            total = total + (weight.to(ki.dtype) if isinstance(weight, Tensor) else weight) * ki
    return total


def combine(base: Tensor | None, dt: float | Tensor, weights: Sequence[float], k: Sequence[Tensor]) -> Tensor:
    """Return base + dt * sum_i weights_i k_i (base None: zero); differentiable in base and k, not in dt."""
    if isinstance(dt, Tensor):
        return _sum(base, [dt * w if w else 0.0 for w in weights], k)
    weights = [dt * w for w in weights]
    if not torch.is_grad_enabled():
        return _accumulate(base, weights, k)
    return _LinearCombination.apply(base, weights, *k)


Weights = Sequence[Sequence[float]]


def _stage(y: Tensor, chi: Tensor, weights: Weights, k: Sequence[Tensor], g: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    a0, b0, a1, b1 = weights
    of_drift, of_noise = torch.add(y, k[0], alpha=a0[0]), torch.add(y, k[0], alpha=a1[0]).add_(g[0], alpha=b1[0])
    noise = g[0] * b0[0]
    for j in range(1, len(k)):
        of_drift.add_(k[j], alpha=a0[j])
        noise.add_(g[j], alpha=b0[j])
        of_noise.add_(k[j], alpha=a1[j]).add_(g[j], alpha=b1[j])
    return of_drift.addcmul_(chi, noise), of_noise


class _Stage(torch.autograd.Function):
    """`_stage` with its gradient in y, k and g: one node of the graph instead of five."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, chi: Tensor, weights: Weights, *kg: Tensor) -> tuple[Tensor, Tensor]:
        ctx.weights = weights
        ctx.save_for_backward(chi)
        return _stage(y, chi, weights, kg[: len(kg) // 2], kg[len(kg) // 2 :])

    @staticmethod
    def backward(ctx: Any, of_drift: Tensor, of_noise: Tensor) -> tuple[Tensor | None, ...]:
        a0, b0, a1, b1 = ctx.weights
        through_chi = of_drift * ctx.saved_tensors[0]
        of_k = [(of_drift * a).add_(of_noise, alpha=b) for a, b in zip(a0, a1, strict=True)]
        of_g = [(through_chi * a).add_(of_noise, alpha=b) for a, b in zip(b0, b1, strict=True)]
        return of_drift + of_noise, None, None, *of_k, *of_g


def sri_stage(
    y: Tensor, chi: Tensor, weights: Weights, k: Sequence[Tensor], g: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Return where a stochastic Runge-Kutta method evaluates drift and diffusion next, each (batch, ...).

    That is y + sum a0_j k_j + chi sum b0_j g_j for the drift, y + sum a1_j k_j + sum b1_j g_j for the diffusion.

    Args:
        y: state at the start, (batch, ...).
        chi: what b0 is multiplied with, (batch, ...); it gets no gradient.
        weights: (a0, b0, a1, b1), step size included.
        k, g: stages so far, each (batch, ...).
    """
    if isinstance(weights[0][0], Tensor):
        a0, b0, a1, b1 = weights
        return _sum(y, a0, k) + chi * _sum(None, b0, g), _sum(_sum(y, a1, k), b1, g)
    return _Stage.apply(y, chi, weights, *k, *g) if torch.is_grad_enabled() else _stage(y, chi, weights, k, g)


def _mix(weights: Tensor, k: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return sum_j weights_ij k_j for each row i: one product of matrices, cheaper than many sums of four."""
    return (weights @ torch.stack(tuple(k)).view(len(k), k[0].numel())).view(len(weights), *k[0].shape).unbind()


def _end(
    y: Tensor, chi: Sequence[Tensor], alpha: Sequence[float], beta: Tensor, k: Sequence[Tensor], g: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    g1, g2, g3, g4 = _mix(beta, g)
    beyond = (chi[2] * g3).addcmul_(chi[3], g4)
    return _accumulate(y, alpha, k).addcmul_(chi[0], g1).addcmul_(chi[1], g2).add_(beyond), beyond


class _End(torch.autograd.Function):
    """`_end` with its gradient in y, k and g."""

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, chi: Sequence[Tensor], alpha: Sequence[float], beta: Tensor, *kg: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.chi, ctx.alpha, ctx.beta = chi, alpha, beta
        return _end(y, chi, alpha, beta, kg[: len(alpha)], kg[len(alpha) :])

    @staticmethod
    def backward(ctx: Any, of_y1: Tensor, of_beyond: Tensor) -> tuple[Tensor | None, ...]:
        both = of_y1 + of_beyond
        products = [chi * grad for chi, grad in zip(ctx.chi, (of_y1, of_y1, both, both), strict=True)]
        of_k = [of_y1 * weight for weight in ctx.alpha]
        of_g = _mix(ctx.beta.T, products)
        return of_y1, None, None, None, *of_k, *of_g


def sri_end(
    y: Tensor,
    chi: Sequence[Tensor],
    alpha: Sequence[float],
    beta: Tensor | Weights,
    k: Sequence[Tensor],
    g: Sequence[Tensor],
) -> tuple[Tensor, Tensor]:
    """Return the end of a stochastic Runge-Kutta step, and the two last terms of its noise, each (batch, ...).

    The end is y + sum alpha_i k_i + sum_j chi_j sum_i beta_ji g_i.

    Args:
        y: state at the start, (batch, ...).
        chi: the four integrals of the noise, each (batch, ...); they get no gradient.
        alpha: weights of the drift's stages, step size included.
        beta: four rows of weights of the diffusion's stages, (4, stages); in graphs rows of numbers.
        k, g: all stages, each (batch, ...).
    """
    if not isinstance(beta, Tensor):
        g1, g2, g3, g4 = (_sum(None, row, g) for row in beta)
        beyond = chi[2] * g3 + chi[3] * g4
        return _sum(y, alpha, k) + chi[0] * g1 + chi[1] * g2 + beyond, beyond
    return _End.apply(y, chi, alpha, beta, *k, *g) if torch.is_grad_enabled() else _end(y, chi, alpha, beta, k, g)


class ErrorRatio(torch.autograd.Function):
    """`error_ratio` with its gradient by hand: a third of the passes over memory that the recorded one takes."""

    @staticmethod
    def forward(ctx: Any, error: Tensor, y0: Tensor, y1: Tensor, rtol: float, atol: float) -> Tensor:
        scale = torch.maximum(y0.abs(), y1.abs()).mul_(rtol).add_(atol)
        ratio = torch.linalg.vector_norm(error / scale) / max(1, error.numel()) ** 0.5
        ctx.rtol, ctx.atol = rtol, atol
        ctx.save_for_backward(error, y0, y1, scale, ratio)
        return ratio

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        error, y0, y1, scale, ratio = ctx.saved_tensors
        at_y1 = y1.abs() >= y0.abs()
        if torch.is_grad_enabled():  # a second derivative is asked for: what lies between gets its graph again
            scale = torch.where(at_y1, y1, y0).abs() * ctx.rtol + ctx.atol
            ratio = torch.linalg.vector_norm(error / scale) / max(1, error.numel()) ** 0.5
            grad = grad * (ratio > 0)  # the second derivative, too, is zero at an error of exactly zero
        scaled = error / scale
        tiny = torch.finfo(ratio.dtype).tiny  # an error of exactly zero has the gradient zero, not NaN
        of_error = (scaled / scale).mul_(grad / (ratio * scaled.numel()).clamp_min(tiny))
        of_larger = (of_error * scaled).mul_(-ctx.rtol)
        of_y0 = y0.sign().mul_(of_larger).mul_(~at_y1) if ctx.needs_input_grad[1] else None
        of_y1 = y1.sign().mul_(of_larger).mul_(at_y1) if ctx.needs_input_grad[2] else None
        return of_error, of_y0, of_y1, None, None
