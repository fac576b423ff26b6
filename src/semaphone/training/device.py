"""Where a training computes, and in which precision: `--device` and `--precision` of every trainer.

    device = find_device("auto")            # the first CUDA device if there is one, otherwise the CPU
    with autocast(device, bf16=True):
        loss = model(batch)
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from semaphone.errors import InputError

PRECISIONS = ("float32", "bf16")


def find_device(name: str = "auto") -> torch.device:
    """The device of a name: `auto`, `cpu`, `cuda` or `cuda:N`. Raises InputError if it does not exist here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and (kind == "cpu" or not (number.isascii() and number.isdigit()))):
        raise InputError(f"A device is auto, cpu, cuda or cuda:N, not {name!r}.")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(number or 0) >= count:
            raise InputError(f"There is no device {name} here; PyTorch sees {count} CUDA devices.")
    return torch.device(name)


def autocast(device: torch.device, bf16: bool) -> contextlib.AbstractContextManager[Any]:
    """bfloat16 for matrix products and convolutions on `device`, if `bf16`; otherwise a context that does nothing."""
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16)


def prepare_device(device: torch.device) -> None:
    """Sets what makes training quick on a device: denormals count as zero on a CPU, TF32 products on a GPU."""
    if device.type == "cpu":
        torch.set_flush_denormal(True)
    else:
        torch.set_float32_matmul_precision("high")
