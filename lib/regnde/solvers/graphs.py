"""torch.compile for steps: one graph for each kind of step and field, and clear words where there is none."""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

SMALL_PRODUCT = 4096
"""Products of matrices with at most so many multiplications are written as sums, which the compiler fuses."""
ROUNDS = 2
"""So many times torch's limit of graphs for one function (8) may be reached, by models of one code that differ."""
MISSING_COMPILER = (
    "compile=True needs a compiler, and none was found: on a CPU a C++ one (Debian, Ubuntu: `apt install g++`; macOS: "
    "`xcode-select --install`; or name yours in the environment variable CXX), on a GPU Triton (`pip install triton`)"
)


class Untraceable(RuntimeError):
    """A field cannot be turned into one graph."""


class Graph:
    """One program on fields of one kind, compiled the first time that it runs; torch.compile keeps kernels on disk."""

    def __init__(self, program: Callable[..., Any]) -> None:
        self.program, self.compiled, self.refused, self.rounds = program, _compiled(program), "", 0

    def __call__(self, *inputs: Any) -> Any:
        """Return program(*fields, *tensors), taken as one graph.

        Raises:
            Untraceable: with the reason, of which a warning told once; from then on without a try.
            RuntimeError: there is no compiler.
        """
        while not self.refused:
            try:
                return self.compiled(*inputs)
            except torch._dynamo.exc.FailOnRecompileLimitHit as error:
                self.rounds += 1
                if self.rounds < ROUNDS:
                    self.compiled = _compiled(self.program)
                    continue
                self.refused = str(error.__cause__ or error)
            except torch._dynamo.exc.TorchDynamoException as error:
                if "InvalidCxxCompiler" in repr(error) or "TritonMissing" in repr(error):
                    raise RuntimeError(MISSING_COMPILER) from error
                self.refused = str(error).strip() or type(error).__name__
            warnings.warn(_sentence(self.refused), stacklevel=2)
        raise Untraceable(self.refused)


def counting_fields() -> AbstractContextManager[None]:
    """Let modules count their evaluations in Python (self.nfe += 1) without a new graph for each number."""
    return torch._dynamo.config.patch(allow_unspec_int_on_nn_module=True)


GRAPHS: dict[Hashable, Graph] = {}
"""Of this process: by what they do, the code of their fields, and the shapes of parameters. So a model made anew, or a
lambda around it, uses the graph of the last one."""


def graph_of(program: Callable[..., Any], *fields: Any) -> Callable[..., Any]:
    """Return a program (hashable, equal to another that does the same) on fields as a function of its tensors."""
    key = (program, *map(_identity, fields))
    if key not in GRAPHS:
        GRAPHS[key] = Graph(program)
    return partial(GRAPHS[key], *fields)


def _sentence(reason: str) -> str:
    reason = "; ".join(line.strip() for line in reason.splitlines()[:4] if line.strip())
    return (
        "compile=True: the field cannot be turned into one graph, so its steps are taken without compiling. Usual "
        "reasons: an `if` or a loop that depends on the values of t or y, .item(), a print, a number in Python that "
        f"changes with each call. The compiler says: {reason}"
    )


def _identity(f: Any) -> Hashable:
    """Return the code of a field, and the shapes of its parameters where it is a module."""
    if isinstance(f, partial):
        return _identity(f.func)
    if isinstance(f, nn.Module):
        return type(f), tuple(tuple(p.shape) for p in f.parameters())
    if isinstance(f, types.MethodType):
        return f.__func__, _identity(f.__self__) if isinstance(f.__self__, nn.Module) else type(f.__self__)
    kind: Any = f.__code__ if isinstance(f, types.FunctionType) else type(f)
    return kind


def _compiled(program: Callable[..., Any]) -> Callable[..., Any]:
    """Return the compiled program: a function of its own, since torch.compile counts graphs by function."""

    def run(*inputs: Any) -> Any:
        return program(*inputs)

    alone = types.FunctionType(run.__code__.replace(), run.__globals__, closure=run.__closure__)
    return torch.compile(alone, backend=_backend, fullgraph=True)


def _backend(graph: torch.fx.GraphModule, inputs: Sequence[Any]) -> Any:
    """Compile with inductor; small products as sums; a backward pass that may be asked for twice."""
    from torch._inductor.compile_fx import compile_fx
    from torch._inductor.decomposition import select_decomp_table

    rules = select_decomp_table()  # not as an argument of compile_fx, which then keeps nothing on disk
    with torch._functorch.config.patch(donated_buffer=False), patch.dict(rules, _small_products(rules)):
        return compile_fx(graph, list(inputs))


def _small_products(rules: dict[Any, Callable[..., Any]]) -> dict[Any, Callable[..., Any]]:
    """Return the compiler's rules for products of matrices, but for small ones."""
    aten = torch.ops.aten
    mm, addmm = rules[aten.mm.default], rules[aten.addmm.default]

    def small(a: Tensor, b: Tensor) -> bool:
        sizes = (*a.shape, b.shape[1])
        return all(isinstance(size, int) for size in sizes) and sizes[0] * sizes[1] * sizes[2] <= SMALL_PRODUCT

    def product(a: Tensor, b: Tensor) -> Tensor:
        return (a.unsqueeze(2) * b.unsqueeze(0)).sum(1)

    def small_mm(a: Tensor, b: Tensor, **how: Any) -> Any:
        return product(a, b) if small(a, b) and not how else mm(a, b, **how)

    def small_addmm(c: Tensor, a: Tensor, b: Tensor, **how: Any) -> Any:
        return c + product(a, b) if small(a, b) and not how else addmm(c, a, b, **how)

    return {aten.mm.default: small_mm, aten.addmm.default: small_addmm}
