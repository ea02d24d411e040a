"""diffrax and JAX on one thread: the same fields with the same weights, solved as torchdiffeq's users would."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"  # before JAX is imported

if hasattr(os, "sched_setaffinity"):  # the flags leave XLA's pool as wide as the cores that it sees when it starts
    CORES = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(CORES)})

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from _cases import Case
from torch import Tensor, nn

from reproduce.models.fields import TimeMLP

jax.devices()  # starts the pool
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, CORES)

Field = Callable[[Any, Any, Any], Any]
"""(t, y, parameters) -> dy/dt, as diffrax wants it."""


def array(tensor: Tensor) -> Any:
    return jnp.asarray(tensor.detach().numpy())


def linear(layer: nn.Linear) -> tuple[Any, Any]:
    return array(layer.weight), array(layer.bias)


def field(module: Any) -> tuple[Any, Field]:
    """Return the parameters of a field of torch, and the field in JAX."""
    if isinstance(module, TimeMLP):
        return [linear(layer.linear) for layer in module.layers], with_time  # type: ignore[union-attr,arg-type]
    power = 3 if type(module).__name__ == "CubicMLP" else 1
    parameters = [linear(layer) for layer in module.net if isinstance(layer, nn.Linear)]
    tanh_at_the_end = isinstance(module.net[-1], nn.Tanh)

    def autonomous(t: Any, y: Any, parameters: Any) -> Any:
        y = y * y * y if power == 3 else y
        for i, (weight, bias) in enumerate(parameters):
            y = y @ weight.T + bias
            y = jnp.tanh(y) if tanh_at_the_end or i + 1 < len(parameters) else y
        return y

    return parameters, autonomous


def with_time(t: Any, y: Any, parameters: Any) -> Any:
    for i, (weight, bias) in enumerate(parameters):
        y = y @ weight[:, :-1].T + (bias + t * weight[:, -1])
        y = jnp.tanh(y) if i + 1 < len(parameters) else y
    return y


class Solver:
    """diffrax's Dopri5 with its default controller (integral) on one case."""

    def __init__(self, case: Case) -> None:
        self.case, (self.parameters, self.f) = case, field(case.f)
        self.y0, self.ts = array(case.y0), jnp.asarray(case.t.numpy(), dtype=jnp.float32)
        self.also_y0 = case.y0.requires_grad
        stats = jax.jit(lambda p, y0: self.solve(p, y0).stats)(self.parameters, self.y0)
        self.steps, self.accepted, self.rejected = (
            int(stats[f"num_{what}steps"]) for what in ("", "accepted_", "rejected_")
        )

    def solve(self, parameters: Any, y0: Any, **how: Any) -> Any:
        tolerance = self.case.tolerance
        return diffrax.diffeqsolve(
            diffrax.ODETerm(self.f),
            diffrax.Dopri5(),
            self.ts[0],
            self.ts[-1],
            None,
            y0,
            parameters,
            saveat=diffrax.SaveAt(ts=self.ts),
            stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
            **how,
        )

    def states(self) -> np.ndarray:
        return np.asarray(jax.jit(lambda p, y0: self.solve(p, y0).ys)(self.parameters, self.y0))

    def forward(self) -> Callable[[], None]:
        run = jax.jit(lambda p, y0: self.solve(p, y0).ys)
        return lambda: jax.block_until_ready(run(self.parameters, self.y0))

    def both(self, **how: Any) -> Callable[[], None]:
        def loss(parameters: Any, y0: Any) -> Any:
            return jnp.square(self.solve(parameters, y0, **how).ys).mean()

        run = jax.jit(jax.grad(loss, argnums=(0, 1) if self.also_y0 else 0))
        return lambda: jax.block_until_ready(run(self.parameters, self.y0))

    def adjoints(self) -> dict[str, Callable[[], None]]:
        """Return the ways to a gradient: diffrax's default, the same with room for every step, direct."""
        room = self.steps + 8
        kept = diffrax.RecursiveCheckpointAdjoint(checkpoints=room)
        return {
            "checkpoints, default": self.both(),
            "checkpoints, one a step": self.both(adjoint=kept, max_steps=room),
            "direct": self.both(adjoint=diffrax.DirectAdjoint(), max_steps=room),
        }
