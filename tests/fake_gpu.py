"""A GPU that is not there: its tensors have shape, dtype and device, but no values; what crosses its border is counted.

PyTorch's fake tensors refuse to mix devices, as a GPU does. Fake *CUDA* tensors know no backward pass in a build of
PyTorch without CUDA ("not linked with support for cuda devices"); those of a backend of one's own do, in every build.
Importing this module registers one with the process, as the device "gpu:0": for processes of their own only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import cycle
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

GENERATOR = torch.zeros(16, dtype=torch.uint8)
MODULE: Any = SimpleNamespace(
    is_available=lambda: True,
    is_initialized=lambda: True,
    _is_in_bad_fork=lambda: False,
    device_count=lambda: 1,
    current_device=lambda: 0,
    manual_seed_all=lambda seed: None,
    get_rng_state=lambda device: GENERATOR.clone(),
    set_rng_state=lambda state, device: None,
    get_amp_supported_dtype=lambda: [torch.float16],
    synchronize=lambda: None,
)
_setup_privateuseone_for_python_backend("gpu", backend_module=MODULE)
GPU = torch.device("gpu:0")
READ = torch.ops.aten._local_scalar_dense.default


def of_gpu(x: Any) -> bool:
    return isinstance(x, FakeTensor) or (isinstance(x, torch.device) and x.type == "gpu")


class FakeGPU(TorchDispatchMode):
    """Computations on the CPU go on as they are; those with a tensor of the GPU give another one, without values.

    What is read from the GPU is True, or the next of `numbers`, again and again. Counted are "read" (the program waits
    for the GPU), "written" (a copy from the CPU) and "waited" (such a copy, for which the program waits).
    """

    def __init__(self, *, numbers: Sequence[float] = (1e-3,), double: bool = False) -> None:
        super().__init__()
        self.fake, self.numbers, self.double = FakeTensorMode(allow_non_fake_inputs=False), cycle(numbers), double
        self.count: Counter[str] = Counter()

    def __enter__(self) -> FakeGPU:
        self.lifts = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=GPU) is made on the CPU, then moved
        super().__enter__()
        return self

    def __exit__(self, *ended: Any) -> None:
        super().__exit__(*ended)
        torch._C._set_only_lift_cpu_tensors(self.lifts)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        if not any(map(of_gpu, leaves)):
            return func(*args, **kwargs)
        if func is READ:
            self.count["read"] += args[0].device == GPU
            return True if args[0].dtype == torch.bool else next(self.numbers)
        if func is torch.ops.aten.equal.default:
            self.count["read"] += 1
            return True
        assert not (func._schema.is_mutable and isinstance(args[0], Tensor) and not of_gpu(args[0])), func
        args, kwargs = tree_map(self._faked, (args, kwargs))
        with self.fake:
            out = func(*args, **kwargs)
        self._look(func, args, kwargs, out)
        return out

    def _faked(self, x: Any) -> Any:
        return self.fake.from_tensor(x) if isinstance(x, Tensor) and not isinstance(x, FakeTensor) else x

    def _look(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        for made in tree_leaves(out):
            if isinstance(made, Tensor) and made.device == GPU:
                assert self.double or made.dtype != torch.float64, f"{func} made a float64 on the GPU"
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            source = args[1] if func is torch.ops.aten.copy_.default else args[0]
            crossing = source.device.type, out.device.type
            self.count["read"] += crossing == ("gpu", "cpu")
            self.count["written"] += crossing == ("cpu", "gpu")
            waits = not (kwargs.get("non_blocking") or True in args[2:])
            self.count["waited"] += crossing == ("cpu", "gpu") and waits
        self.count["read"] += func in (torch.ops.aten.nonzero.default, torch.ops.aten.masked_select.default)

    def since(self, before: Counter[str]) -> dict[str, int]:
        """Return what crossed the border since a copy of `count` was made."""
        return {name: n for name, n in (self.count - before).items() if n}


def moved(module: nn.Module, device: torch.device = GPU) -> nn.Module:
    """Do as `module.to(device)`, which PyTorch refuses for fake tensors."""
    for part in module.modules():
        for name, parameter in list(part._parameters.items()):
            if parameter is not None:
                part._parameters[name] = nn.Parameter(parameter.detach().to(device))
        for name, buffer in list(part._buffers.items()):
            if buffer is not None:
                part._buffers[name] = buffer.to(device)
    return module
