"""What a step says of itself: the error relative to the tolerance, and the stiffness."""

from __future__ import annotations

import torch
from torch import Tensor

from regnde.solvers.fused import ErrorRatio
from regnde.solvers.sri_steps import SRIStep
from regnde.solvers.steps import Step, refuse_gradient


def rms(x: Tensor) -> Tensor:
    """Return the root mean square over all entries, 0-d, 0 of none; its gradient at exactly zero is zero, not NaN."""
    return torch.linalg.vector_norm(x) / max(1, x.numel()) ** 0.5


def error_ratio(error: Tensor, y0: Tensor, y1: Tensor, *, rtol: float | Tensor, atol: float | Tensor) -> Tensor:
    """Scale an error by the tolerance: rms(error / (atol + rtol max(|y0|, |y1|))), 0-d; at most 1 is accepted.

    Error and states are (batch, ...). Raises ValueError where rtol or atol requires a gradient.

    Source: Hairer, Norsett, Wanner, Solving ODEs I, eq. II.4.11, over all entries of the batch.
    """
    refuse_gradient(rtol=rtol, atol=atol)
    if isinstance(rtol, Tensor):  # in a graph
        return rms(error / (atol + rtol * torch.maximum(y0.abs(), y1.abs())))
    return ErrorRatio.apply(error, y0, y1, rtol, atol)


def stiffness_ratio(step: Step | SRIStep) -> Tensor:
    """Estimate the stiffness of one step: |k_i - k_j| / |y_i - y_j| for two stages at the same time, 0-d.

    For a linear field it is a lower bound of the norm of the Jacobian along the direction between the stages.

    Raises:
        ValueError: the method has no two different stages at one time (bosh3, sosri).

    Source: Shampine 1977; Hairer, Wanner, Solving ODEs II, eq. IV.2.24; Pal et al. 2021, eq. 10; for SDEs
        Rackauckas, Nie 2020 (the drift's stages of SOSRI2).
    """
    if step.tableau.stiffness_pair is None:
        raise ValueError(
            f"method '{step.tableau.name}' has no two stages at the same time, so it gives no stiffness "
            "estimate; use 'tsit5' or 'dopri5' (SDE: 'sosri2')"
        )
    between_states, between_slopes = step.stages
    distance = _norm(between_states)
    return _norm(between_slopes) / distance.clamp_min(torch.finfo(distance.dtype).tiny)


def _norm(x: Tensor) -> Tensor:
    """Return the 2-norm, 0-d; at exactly zero its first and second derivatives are zero, not NaN."""
    zero = (x == 0).all()
    return torch.linalg.vector_norm(x + zero) * ~zero
