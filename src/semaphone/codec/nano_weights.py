"""Nano codecs at rest: safetensors that carry their configuration.

Layers that compute in 8 bits are stored in the very steps they compute in, codebooks in 8 bits with a scale an entry,
everything else in float16. Files without ranges are float16 throughout.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from semaphone.codec.nano import TRAINING_ONLY, NanoCodec, NanoConfig, NanoModel
from semaphone.codec.products import Range, rounded
from semaphone.errors import InputError
from semaphone.files import write_whole

SIZE = "/size"  # what is added to the name of an 8-bit tensor for the sizes of its steps


def save_nano(model: NanoModel, path: Path, notes: Mapping[str, str], met: Mapping[str, Range] | None = None) -> None:
    """Write weights and configuration; `notes` (training steps and the like) go along as metadata.

    With the ranges `met` of what layers meet (codec/ranges.py) the codec computes in 8 bits, and is stored in them.
    """
    tensors: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        if name.endswith(TRAINING_ONLY):
            continue
        found = None if met is None else _eight_bits(name, value.detach(), met)
        if found is None:
            tensors[name] = value.detach().to(torch.float16).contiguous()
        else:
            tensors[name], tensors[name + SIZE] = found
    metadata = {"kind": "nano-codec", "config": json.dumps(asdict(model.config)), **notes}
    if met:
        metadata["met"] = json.dumps({name: [float(f"{x:.4g}") for x in found] for name, found in met.items()})
    write_whole(path, save(tensors, metadata))


def _eight_bits(name: str, value: Tensor, met: Mapping[str, Range]) -> tuple[Tensor, Tensor] | None:
    """Whole numbers of 8 bits and the size of a step of each row, of what is kept so."""
    if name.endswith(".entries"):
        size = (value.abs().amax(1) / 127).clamp(min=1e-8)
        return (value / size[:, None]).round().to(torch.int8), size
    layer, _, kind = name.rpartition(".")
    if kind == "weight" and (layer in met or layer.removesuffix(".conv") in met):
        whole, size = rounded(value.flatten(1))
        return whole.reshape(value.shape), size
    return None


def _whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a file in single precision."""
    found: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if name.endswith(SIZE):
            continue
        found[name] = value.float()
        if value.dtype == torch.int8:
            found[name] *= tensors[name + SIZE].reshape(-1, *[1] * (value.ndim - 1))
    return found


def _config(text: str) -> NanoConfig:
    found = json.loads(text)
    known = {field.name for field in fields(NanoConfig)}
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in found.items() if k in known}
    return NanoConfig(**values)


def _met(text: str) -> dict[str, Range]:
    found = {str(name): (float(low), float(high)) for name, (low, high) in json.loads(text).items()}
    if not all(-1e6 < low <= high < 1e6 for low, high in found.values()):
        raise ValueError("a range of its layers makes no sense")
    return found


def read_nano(path: Path) -> tuple[NanoModel, dict[str, Range]]:
    """The model in a file and the ranges of what its layers meet. Raises InputError if it is none."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("kind") != "nano-codec":
                raise InputError(f"{path} holds no nano codec.")
            model, met = NanoModel(_config(metadata["config"])), _met(metadata.get("met", "{}"))
            tensors = _whole({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        missing, unexpected = model.load_state_dict(tensors, strict=False)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise InputError(f"{path} holds no nano codec: {str(error).splitlines()[0]}") from None
    if unexpected or any(not name.endswith(TRAINING_ONLY) for name in missing):
        raise InputError(f"{path} holds a nano codec of another shape.")
    return model, met


def load_nano(path: Path) -> NanoCodec:
    """Read a nano codec. Raises InputError if the file is not one."""
    model, met = read_nano(path)
    return NanoCodec(model, met=met)
