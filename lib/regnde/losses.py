"""Cross-entropy, mean squared error; accuracy."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy, 0-d, of logits (batch, classes) and labels (batch,) in nats."""
    return functional.cross_entropy(logits, labels)


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Return the share of right predictions, in [0, 1], of logits (batch, classes) and labels (batch,)."""
    return (logits.argmax(dim=1) == labels).to(torch.float64).mean().item()


def mean_squared_error(y: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error, 0-d, of two tensors of the same shape; ValueError for different shapes."""
    if y.shape != target.shape:
        raise ValueError(f"prediction {tuple(y.shape)} and target {tuple(target.shape)} differ in shape")
    return functional.mse_loss(y, target)
