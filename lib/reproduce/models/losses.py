"""Cross-entropy, squared errors, moments, likelihood of observed values, Kullback-Leibler divergence; accuracy."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy, 0-d, of logits (batch, classes) and labels (batch,) in nats."""
    return functional.cross_entropy(logits, labels)


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Return the share of right predictions, in [0, 1], of logits (batch, classes) and labels (batch,)."""
    return (logits.argmax(dim=1) == labels).cpu().to(torch.float64).mean().item()  # Metal has no float64


def mean_squared_error(y: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error, 0-d, of two tensors of the same shape; ValueError for different shapes."""
    if y.shape != target.shape:
        raise ValueError(f"prediction {tuple(y.shape)} and target {tuple(target.shape)} differ in shape")
    return functional.mse_loss(y, target)


def moments_error(y: Tensor, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Return the squared errors of mean and variance over trajectories, each (times, d).

    Args:
        y: trajectories, (times, trajectories, d), at least two.
        mean, variance: targets, (times, d).

    Raises:
        ValueError: the shapes do not fit.

    Source: the generalized method of moments of Pal et al. 2021, eq. 22.
    """
    if y.ndim != 3 or y.shape[1] < 2 or mean.shape != variance.shape or mean.shape != y[:, 0].shape:
        raise ValueError(
            "expected at least two trajectories (times, trajectories, d) and targets (times, d), found "
            f"{tuple(y.shape)}, mean {tuple(mean.shape)}, variance {tuple(variance.shape)}"
        )
    return (y.mean(1) - mean) ** 2, (y.var(1) - variance) ** 2


def observed_log_likelihood(y: Tensor, target: Tensor, mask: Tensor, *, std: float) -> Tensor:
    """Return the mean log density of each example's observed values under a normal distribution around y, (batch,).

    An example without any observation has 0: there is nothing that the prediction could get wrong.

    Args:
        y: predictions, (batch, times, variables).
        target: values; where nothing was observed any finite number.
        mask: 1 where something was observed, else 0.
        std: standard deviation of the observations around the prediction.

    Raises:
        ValueError: the shapes differ, or std is not positive.

    Source: Rubanova et al. 2019, section 3; std 0.01 and the mean over observations: Kelly et al. 2020.
    """
    if not std > 0:
        raise ValueError(f"std: expected a positive standard deviation, found {std}")
    squared = _squared_where_observed(y, target, mask).sum((1, 2))  # (batch,)
    n = mask.sum((1, 2))
    log_density = -squared / (2 * std**2) - n * (math.log(std) + 0.5 * math.log(2 * math.pi))
    return log_density / n.clamp_min(1)


def observed_squared_error(y: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Return the sum of squared errors over observed values, 0-d; arguments as in `observed_log_likelihood`."""
    return _squared_where_observed(y, target, mask).sum()


def _squared_where_observed(y: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    if not y.shape == target.shape == mask.shape:
        raise ValueError(
            f"prediction {tuple(y.shape)}, values {tuple(target.shape)} and mask {tuple(mask.shape)} differ in shape"
        )
    return (y - target).square() * mask


def kl_from_standard_normal(mean: Tensor, std: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence of N(mean, std^2) from N(0, 1), mean over batch and dimensions, 0-d.

    The divergence of the whole vector is the sum over dimensions; Kelly et al. 2020 and Pal et al. 2023 take the mean,
    beside a likelihood that is a mean over observations.
    """
    return 0.5 * (mean.square() + std.square() - 1 - 2 * std.log()).mean()


def standard_normal_log_density(z: Tensor) -> Tensor:
    """Return the log-density (batch,) of N(0, I) at z (batch, d), in nats."""
    return -0.5 * (z.square().sum(1) + z.shape[1] * math.log(2 * math.pi))
