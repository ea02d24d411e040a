"""A normal distribution fitted to grey levels: the density that a flow has to beat."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

SHRINKAGES = (0.0, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)


@dataclass(frozen=True, eq=False)
class Gaussian:
    """A normal density on R^d, in float64."""

    mean: Tensor
    """(d,)"""
    covariance: Tensor
    """(d, d)"""
    shrinkage: float
    """Part of the way from the sample's covariance to its diagonal."""

    def log_density(self, x: Tensor) -> Tensor:
        """Return the log-density (batch,), in nats, at points (batch, d)."""
        root = torch.linalg.cholesky(self.covariance)
        z = torch.linalg.solve_triangular(root, (x.double() - self.mean).T, upper=False)  # (d, batch)
        return -0.5 * z.square().sum(0) - root.diagonal().log().sum() - 0.5 * len(root) * math.log(2 * math.pi)


def moments(levels: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean (d,) and covariance (d, d), float64, of levels + u, u uniform in [0, 1)^d, without drawing u.

    Args:
        levels: (n, d), at least two rows.

    Raises:
        ValueError: another shape, or fewer rows.
    """
    if levels.ndim != 2 or len(levels) < 2:
        raise ValueError(f"levels: expected (n, d) with n of at least 2, found {tuple(levels.shape)}")
    x = levels.double()
    noise = torch.eye(x.shape[1], dtype=x.dtype, device=x.device) / 12
    return x.mean(0) + 0.5, torch.cov(x.T, correction=0) + noise


def fit_gaussian(levels: Tensor, *, shrinkage: float) -> Gaussian:
    """Fit a normal density to levels + u (see `moments`), its covariance drawn towards its diagonal.

    Args:
        levels: (n, d).
        shrinkage: 0 for the sample's covariance, 1 for its diagonal alone (the flow's start without correlations).

    Raises:
        ValueError: as for `moments`, or a shrinkage outside [0, 1].
    """
    if not 0.0 <= shrinkage <= 1.0:
        raise ValueError(f"shrinkage: expected a number from 0 to 1, found {shrinkage!r}")
    mean, covariance = moments(levels)
    return Gaussian(mean, torch.lerp(covariance, covariance.diagonal().diag(), shrinkage), shrinkage)


def choose_gaussian(levels: Tensor, u: Tensor, *, n_validation: int, seed: int) -> Gaussian:
    """Fit a normal density with the shrinkage of SHRINKAGES that is best on held-out rows; then fit to all rows.

    Args:
        levels, u: (n, d), training data and their noise.
        n_validation: number of rows to hold out.
        seed: of the permutation whose last rows are held out.

    Raises:
        ValueError: as for `fit_gaussian`; n_validation leaves fewer than two rows or holds out none.
    """
    if not 0 < n_validation <= len(levels) - 2:
        raise ValueError(f"n_validation: expected a number from 1 to {len(levels) - 2}, found {n_validation!r}")
    order = torch.randperm(len(levels), generator=torch.Generator().manual_seed(seed)).to(levels.device)
    kept, held = order[:-n_validation], order[-n_validation:]

    def score(shrinkage: float) -> float:
        fitted = fit_gaussian(levels[kept], shrinkage=shrinkage)
        return fitted.log_density(levels[held] + u[held]).mean().item()

    return fit_gaussian(levels, shrinkage=max(SHRINKAGES, key=score))
