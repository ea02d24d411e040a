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
from regnde.solvers.steps import Field, SRIStep, Step

Generators = list[Tensor]
"""Where torch's global generators stand: that of the CPU, and that of the state's device."""


class Conditions:
    """Where the random generators stood at each evaluation of an accepted step; autocast; the buffers of the fields.

    Buffers: those of a field that is a module, of the object whose method it is, of modules in a function's variables.
    """

    def __init__(self, method: Method, y0: Tensor) -> None:
        kind = y0.device.type
        self.devices: list[Any] = [torch, *([] if kind == "cpu" else [torch.get_device_module(kind)])]
        self.last, self.random = self._generators(), False
        self.noted: dict[int, Generators] = {}  # by the id of what an evaluation returned, while a step holds it
        self.steps: list[tuple[list[Generators], list[Generators]]] = []  # of f and of g, one for each stage
        enabled, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
        self.autocast: dict[str, Any] = {"device_type": kind, "enabled": enabled, "dtype": dtype}
        self.roots = [root for f in (method.f, getattr(method, "g", None)) for root in _modules(f)]
        modules = dict.fromkeys(module for root in self.roots for module in root.modules())
        named = [(module, *pair) for module in modules for pair in module.named_buffers(recurse=False)]
        self.buffers = [(module, name, value, value._version) for module, name, value in named]

    def _generators(self) -> Generators:
        return [device.get_rng_state() for device in self.devices]

    def _set_generators(self, states: Generators) -> None:
        for device, state in zip(self.devices, states, strict=True):
            device.set_rng_state(state)

    def noting(self, method: Method) -> Method:
        """Return the method with fields that note where the generators stand; once only, while nothing is drawn."""

        def noted(f: Field, t: Tensor, y: Tensor) -> Tensor:
            now = self._generators()
            if not all(map(torch.equal, now, self.last)):
                self.last, self.random = now, True
            before, dy = self.last, f(t, y)
            self.noted[id(dy)] = before
            return dy

        return with_fields(method, lambda f: lambda t, y: noted(f, t, y))

    def keep(self, step: Step | SRIStep) -> None:
        """Keep what was noted of the stages of an accepted step."""
        noise = step.g if isinstance(step, SRIStep) else ()
        self.steps.append(([self.noted[id(k)] for k in step.k], [self.noted[id(g)] for g in noise]))

    def constants(self) -> list[Tensor]:
        """Sort out, after the solve, the buffers that it changed; return the other ones, and all parameters."""
        constants: list[Tensor] = [value for root in self.roots for value in root.parameters()]
        known, self.buffers = self.buffers, []
        for module, name, value, version in known:  # normalizations change their statistics without a new version
            if value._version != version or hasattr(module, "running_mean"):
                self.buffers.append((module, name, value, version))
            else:
                constants.append(value)
        return constants

    def of_step(self, method: Method, i: int) -> Method:
        """Return the method with fields that draw in accepted step i what they drew in the solve."""
        stages = iter(self.steps[i])

        def rewound(f: Field, states: Iterator[Generators], t: Tensor, y: Tensor) -> Tensor:
            self._set_generators(next(states))
            return f(t, y)

        return with_fields(method, lambda f: partial(rewound, f, iter(next(stages)))) if self.random else method

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Give a replay the autocast of the solve and copies of the changing buffers; leave generators as they are."""
        with ExitStack() as stack, torch.autocast(**self.autocast):
            stack.callback(self._set_generators, self._generators())
            for module, name, value, _ in self.buffers:
                stack.callback(setattr, module, name, getattr(module, name))
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
