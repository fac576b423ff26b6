"""A device that is no CPU, for tests on machines without a GPU: tensors without numbers take the place of its own.

    with FakeTensorMode() as mode:
        net, x = moved(mode, net), there(mode, x)
        with Alone():
            net(x)

refuses operations that mix devices, those that would have to wait for numbers, and tensors on the CPU.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

DEVICE = torch.device("meta")
Net = TypeVar("Net", bound=nn.Module)


class Alone(TorchDispatchMode):
    """Nothing but single numbers may be made on another device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for x in tree_leaves(made):
            assert not isinstance(x, torch.Tensor) or not x.dim() or x.device == DEVICE, f"{func} made {x}"
        return made


def there(mode: FakeTensorMode, x: torch.Tensor) -> torch.Tensor:
    """A tensor of the same shape, without numbers."""
    with unset_fake_temporarily(), torch.no_grad():
        numberless = torch.empty_like(x, device="meta")
    return FakeTensor(mode, numberless, DEVICE)


def moved(mode: FakeTensorMode, net: Net) -> Net:
    """A module whose weights are without numbers."""
    for part in net.modules():
        for name, value in part._parameters.items():
            if value is not None:
                part._parameters[name] = nn.Parameter(there(mode, value))
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = there(mode, buffer)
    return net
