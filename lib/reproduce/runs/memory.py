"""Bytes of tensors alive at once in a computation: counted at every operation, so exact and the same in every run."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

from torch import Tensor, UntypedStorage
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Memory(TorchDispatchMode):
    """Count the bytes of the tensors that are made while this context is open, until they are freed.

    It sees the output of every operation, those of the backward pass and of libraries such as torchdiffeq among them,
    and notes when its memory is given back. Tensors that existed before are not counted, nor are buffers inside one
    operation. The resident set of the process, which an operating system reports, also holds what the allocator keeps
    for later, differs from run to run, and is therefore no basis for a test.

    Example:
        with Memory() as memory:
            loss = model(x).sum()
            held = memory.now  # kept for the backward pass
            loss.backward()
        print(held, memory.peak)
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        """Bytes alive at present."""
        self.peak = 0
        """The largest `now` so far."""
        self.history: list[int] = []
        """`now` after each operation."""
        self._alive: dict[int, weakref.ref[UntypedStorage]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do the operation, and count the memory that is new in its outputs."""
        out = func(*args, **(kwargs or {}))
        given = {storage._cdata for storage in _storages((args, kwargs))}
        for storage in _storages(out):
            if storage._cdata not in given and storage._cdata not in self._alive:
                self._count(storage)
        self.history.append(self.now)
        return out

    def _count(self, storage: UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()

        def freed(_: object) -> None:
            del self._alive[key]
            self.now -= size

        self._alive[key] = weakref.ref(storage, freed)
        self.now += size
        self.peak = max(self.peak, self.now)


def _storages(tree: Any) -> Iterator[UntypedStorage]:
    return (leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))
