"""What the evaluations of a solve met and changed beside parameters, time and state: a replay meets the same."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from regnde.solvers.methods import Method
from regnde.solvers.sri_steps import SRIStep
from regnde.solvers.steps import Field, Step

Generators = list[Tensor]
"""Where torch's global generators stand: that of the CPU, and that of the state's device."""


class Conditions:
    """Where the random generators stood at each evaluation of an accepted step; autocast; the modules in the fields.

    Modules: a field that is one, the object whose method a field is, those in the variables of a function.
    """

    def __init__(self, method: Method, y0: Tensor) -> None:
        kind = y0.device.type
        self.devices: list[tuple[Any, tuple[torch.device, ...]]] = [(torch, ())]
        if kind != "cpu":
            self.devices.append((torch.get_device_module(kind), () if kind == "mps" else (y0.device,)))
        self.last, self.random = self._generators(), False
        self.noted: dict[int, Generators] = {}  # by the id of what an evaluation returned, while a step holds it
        self.steps: list[list[list[Generators]]] = []  # of f and of g, one for each stage
        enabled, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
        self.autocast: dict[str, Any] = {"device_type": kind, "enabled": enabled, "dtype": dtype}
        self.modules = [module for f in (method.f, getattr(method, "g", None)) for module in _modules(f)]

    def _generators(self) -> Generators:
        return [device.get_rng_state(*index) for device, index in self.devices]

    def _set_generators(self, states: Generators) -> None:
        for (device, index), state in zip(self.devices, states, strict=True):
            device.set_rng_state(state, *index)

    def noting(self, method: Method) -> Method:
        """Return the method with fields that note where the generators stand; once only, while nothing is drawn."""

        def noted(f: Field, t: Tensor, y: Tensor) -> Tensor:
            now = self._generators()
            if not all(map(torch.equal, now, self.last)):
                self.last, self.random = now, True
            before, dy = self.last, f(t, y)
            self.noted[id(dy)] = before
            return dy

        return with_fields(method, lambda f: partial(noted, f))

    def keep(self, step: Step | SRIStep) -> None:
        """Keep what was noted of the stages of an accepted step."""
        stages = (step.k, step.g) if isinstance(step, SRIStep) else (step.k,)
        self.steps.append([[self.noted[id(k)] for k in each] for each in stages])

    def of_step(self, method: Method, i: int) -> Method:
        """Return the method with fields that draw in accepted step i what they drew in the solve."""
        stages = iter(self.steps[i])

        def rewound(f: Field, states: Iterator[Generators], t: Tensor, y: Tensor) -> Tensor:
            self._set_generators(next(states))
            return f(t, y)

        return with_fields(method, lambda f: partial(rewound, f, iter(next(stages)))) if self.random else method

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Give a replay the autocast of the solve and copies of all buffers; leave generators and buffers alone."""
        with ExitStack() as stack, torch.autocast(**self.autocast):
            stack.callback(self._set_generators, self._generators())
            for module in {inner for outer in self.modules for inner in outer.modules()}:
                for name, value in list(module.named_buffers(recurse=False)):
                    stack.callback(setattr, module, name, value)
                    setattr(module, name, value.clone())
            yield


def _modules(f: Field | None) -> list[nn.Module]:
    used = inspect.getclosurevars(f) if inspect.isfunction(f) else None
    inside = [] if used is None else [*used.nonlocals.values(), *used.globals.values()]
    return [value for value in (f, getattr(f, "__self__", None), *inside) if isinstance(value, nn.Module)]


def with_fields(method: Method, change: Callable[[Field], Field]) -> Method:
    """Return the method with its fields changed."""
    fields: dict[str, Any] = {name: change(getattr(method, name)) for name in ("f", "g") if hasattr(method, name)}
    return replace(method, **fields)  # type: ignore[type-var]
