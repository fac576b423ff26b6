"""Nano codecs at rest: float16 safetensors that carry their configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from semaphone.codec.nano import TRAINING_ONLY, NanoCodec, NanoConfig, NanoModel
from semaphone.codec.products import Range
from semaphone.errors import InputError
from semaphone.files import write_whole


def save_nano(model: NanoModel, path: Path, notes: Mapping[str, str], met: Mapping[str, Range] | None = None) -> None:
    """Write weights and configuration; `notes` (training steps and the like) go along as metadata.

    With the ranges `met` of what layers meet (codec/ranges.py) the codec computes in 8 bits.
    """
    tensors = {
        name: value.detach().to(torch.float16).contiguous()
        for name, value in model.state_dict().items()
        if not name.endswith(TRAINING_ONLY)
    }
    metadata = {"kind": "nano-codec", "config": json.dumps(asdict(model.config)), **notes}
    if met:
        metadata["met"] = json.dumps({name: [float(f"{x:.4g}") for x in found] for name, found in met.items()})
    write_whole(path, save(tensors, metadata))


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
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
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
