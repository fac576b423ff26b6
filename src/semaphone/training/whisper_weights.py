"""The weights of a CTranslate2 Whisper model as arrays, and its encoder in torch: teachers need gradients.

CTranslate2 keeps a model in one file: version, name of the specification, its revision, then every variable
(name, shape, type, bytes) and aliases. Names follow the modules: `encoder/layer_0/ffn/linear_0/weight`.
"""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from semaphone.errors import InputError

_TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def number(self, code: str) -> int:
        (value,) = struct.unpack_from("<" + code, self.data, self.at)
        self.at += struct.calcsize("<" + code)
        return int(value)

    def text(self) -> str:
        length = self.number("H")
        self.at += length
        return self.data[self.at - length : self.at - 1].decode()

    def array(self) -> NDArray[Any]:
        shape = [self.number("I") for _ in range(self.number("B"))]
        kind = np.dtype(_TYPES[self.number("B")])
        size = self.number("I")
        value = np.frombuffer(self.data, kind, size // kind.itemsize, self.at).reshape(shape)
        self.at += size
        return value


def read_variables(data: bytes) -> dict[str, NDArray[Any]]:
    """All variables of a CTranslate2 `model.bin`; InputError if it is cut short or of another kind."""
    reader = _Reader(data)
    try:
        version = reader.number("I")
        if version not in (5, 6):
            raise InputError(f"Version {version} of CTranslate2's model format is not known here.")
        name, _ = reader.text(), reader.number("I")
        if name != "WhisperSpec":
            raise InputError(f"This is a CTranslate2 model of kind {name}, not Whisper.")
        return {reader.text(): reader.array() for _ in range(reader.number("I"))}
    except (struct.error, ValueError, KeyError, UnicodeDecodeError) as error:
        raise InputError(f"This is not a whole CTranslate2 model file ({error}).") from None


def decoder_metric(variables: dict[str, NDArray[Any]]) -> Tensor:
    """How the decoder sees a row: the sum of WᵀW over its key and value projections [D, D], of mean eigenvalue 1."""
    total: NDArray[np.float64] | None = None
    layer = 0
    while (weight := variables.get(f"decoder/layer_{layer}/attention/linear_1/weight")) is not None:
        exact = weight.astype(np.float64)
        total = exact.T @ exact + (0.0 if total is None else total)
        layer += 1
    if total is None:
        raise InputError("This Whisper model has no attention from decoder to encoder.")
    return torch.from_numpy(total * (len(total) / np.trace(total)))


def seen_error(rows: Tensor, truth: Tensor, metric: Tensor) -> Tensor:
    """Error of rows [B, N, D] as the decoder sees them (`decoder_metric`), relative to the variance of true ones."""
    difference, spread = rows - truth, truth - truth.mean((0, 1))
    return ((difference @ metric) * difference).sum(-1).mean() / ((spread @ metric) * spread).sum(-1).mean()


class _Layer(nn.Module):
    """One pre-norm transformer layer over CTranslate2's fused weights."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.qkv(self.norm1(x)).chunk(3, -1))
        seen = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        after: Tensor = x + self.down(nn.functional.gelu(self.up(self.norm2(x))))
        return after


class WhisperEncoder(nn.Module):
    """Whisper's encoder: normalised log-mel [B, frames, 80] → rows [B, frames / 2, D]."""

    positions: Tensor

    def __init__(self, variables: dict[str, NDArray[Any]]) -> None:
        super().__init__()
        width, bands, _ = variables["encoder/conv1/weight"].shape
        heads = int(variables["encoder/num_heads"])
        layers = sum(name.startswith("encoder/layer_") and name.endswith("ffn/linear_0/weight") for name in variables)
        self.conv1 = nn.Conv1d(bands, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.layers = nn.ModuleList(_Layer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.register_buffer("positions", torch.zeros(1500, width))
        self._fill(variables)
        self.requires_grad_(False)

    def forward(self, mel: Tensor) -> Tensor:
        x = nn.functional.gelu(self.conv1(mel.transpose(1, 2)))
        x = nn.functional.gelu(self.conv2(x)).transpose(1, 2)
        x = x + self.positions[: x.shape[1]]
        for layer in self.layers:
            x = layer(x)
        rows: Tensor = self.norm(x)
        return rows

    def _fill(self, variables: dict[str, NDArray[Any]]) -> None:
        def put(module: nn.Module, place: str, names: tuple[str, str] = ("weight", "bias")) -> None:
            for own, theirs in zip(("weight", "bias"), names, strict=True):
                value = torch.from_numpy(variables[f"encoder/{place}/{theirs}"].astype(np.float32))
                getattr(module, own).data.copy_(value)

        norm = ("gamma", "beta")
        put(self.conv1, "conv1")
        put(self.conv2, "conv2")
        put(self.norm, "layer_norm", norm)
        positions = variables["encoder/position_encodings/encodings"].astype(np.float32)
        self.positions.copy_(torch.from_numpy(positions))
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, _Layer)
            at = f"layer_{i}"
            put(layer.norm1, f"{at}/self_attention/layer_norm", norm)
            put(layer.qkv, f"{at}/self_attention/linear_0")
            put(layer.out, f"{at}/self_attention/linear_1")
            put(layer.norm2, f"{at}/ffn/layer_norm", norm)
            put(layer.up, f"{at}/ffn/linear_0")
            put(layer.down, f"{at}/ffn/linear_1")
        if not math.isfinite(self.norm.weight.sum().item()):
            raise InputError("The weights of this Whisper model are not finite.")
