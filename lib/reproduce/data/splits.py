"""Part of a training set held out in the place of the test set, to choose settings on."""

from __future__ import annotations

import torch
from torch import Tensor


def hold_out(n_train: int, n: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Return the indices of what is kept for training and of what is held out, (n_train - n,) and (n,).

    Args:
        n_train: number of training examples.
        n: number to hold out.
        seed: of the permutation whose last ``n`` are held out.

    Raises:
        ValueError: ``n`` leaves nothing to train or to validate on, or the seed is no whole number.
    """
    if not isinstance(n, int) or not 0 < n < n_train:
        raise ValueError(f"n: expected a whole number from 1 to {n_train - 1} to hold out, found {n!r}")
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise ValueError(f"seed: expected a whole number, found {seed!r}")
    order = torch.randperm(n_train, generator=torch.Generator().manual_seed(seed))
    return order[:-n], order[-n:]
