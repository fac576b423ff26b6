"""The speech compressor on the device and the expander on the edge (LSSC-ST eq 1, Table I).

    compress   log-mel [T, 80] → 1-D CNN, 128 channels, ReLU, stride 2 → 1-D CNN, 64 channels, ReLU, stride 2
               → 8 bits a number: 64 bytes every 40 ms, 12.8 kbit/s
    expand     64 numbers with the four before them → two dense layers → four frames of log-mel

Both look only backwards and carry their state, so a segment is coded the moment it ends. They run in NumPy: a
device needs no deep learning library. Training is in `training/compressor.py`; the loss there is the change of
Whisper's features, so that what Whisper needs survives.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from semaphone.errors import InputError
from semaphone.translation.features import BANDS, SILENCE
from semaphone.translation.models.base import State

Array = NDArray[np.float32]
CHANNELS = (128, 64)  # Table I
STRIDE = 4  # frames of one compressed row
HISTORY = 4  # earlier compressed rows that the expander sees
WEIGHTS_FILE = "compressor-whisper-base.safetensors"
_LOWEST, _SHIFT, _SCALE = -10.0, 4.0, 4.0  # log10 energies −10 … 4 become −1.5 … 2


class Compressor(Protocol):
    """Log-mel frames ⇄ bytes, with explicit state."""

    def compress(self, mel: Array, state: State, last: bool) -> tuple[bytes, State]: ...

    def expand(self, payload: bytes, state: State) -> tuple[Array, State]: ...


class PlainCompressor:
    """No learning: each number in 16 bits (128 kbit/s)."""

    def compress(self, mel: Array, state: State, last: bool) -> tuple[bytes, State]:
        """Frames [T, 80] → 160 T bytes."""
        return mel.astype("<f2").tobytes(), None

    def expand(self, payload: bytes, state: State) -> tuple[Array, State]:
        """160 T bytes → frames [T, 80]."""
        if len(payload) % (2 * BANDS):
            raise InputError(f"A payload of {len(payload)} bytes is not a whole number of log-mel frames.")
        mel = np.frombuffer(payload, "<f2").reshape(-1, BANDS).astype(np.float32)
        if not np.isfinite(mel).all():
            raise InputError("The uploaded features are not finite numbers.")
        return mel, None


def scale_mel(mel: Array) -> Array:
    """log10 energies → about −1.5 to 2, what the networks see."""
    scaled: Array = ((np.maximum(mel, _LOWEST) + _SHIFT) / _SCALE).astype(np.float32)
    return scaled


def unscale_mel(scaled: Array) -> Array:
    """The inverse of `scale_mel`."""
    mel: Array = np.maximum(scaled * _SCALE - _SHIFT, _LOWEST).astype(np.float32)
    return mel


def _convolve(x: Array, weight: Array, bias: Array) -> Array:
    """Kernel 3, stride 2 over x [2 n + 1, in] → [n, out]; weight [out, in, 3]."""
    n = (len(x) - 1) // 2
    if n < 1:
        return np.zeros((0, len(weight)), np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(x, 3, axis=0)[: 2 * n : 2]  # [n, in, 3]
    out: Array = windows.reshape(n, -1) @ weight.reshape(len(weight), -1).T + bias
    return out


@dataclass(frozen=True)
class _CompressState:
    frames: Array  # frames that wait, the first of them context only
    hidden: Array  # the same one layer up


@dataclass(frozen=True)
class _ExpandState:
    rows: Array = field(default_factory=lambda: np.zeros((HISTORY, CHANNELS[1]), np.float32))


class CnnCompressor:
    """The learned compressor and expander over given weights (names as in `training/compressor.py`)."""

    def __init__(self, weights: dict[str, Array]) -> None:
        shapes = {"conv1.weight": (CHANNELS[0], BANDS, 3), "conv2.weight": (CHANNELS[1], CHANNELS[0], 3)}
        for name, shape in shapes.items():
            if name not in weights or weights[name].shape != shape:
                raise InputError(f"The compressor's weights lack {name} of shape {shape}.")
        self._w = {name: value.astype(np.float32) for name, value in weights.items()}

    def compress(self, mel: Array, state: State, last: bool) -> tuple[bytes, State]:
        """Frames [T, 80] → 64 bytes for every four of them; the rest waits, or is filled with silence at the end."""
        w = self._w
        quiet = scale_mel(np.full((1, BANDS), SILENCE, np.float32))
        now: _CompressState = state or _CompressState(quiet, np.zeros((1, CHANNELS[0]), np.float32))
        frames = np.concatenate([now.frames, scale_mel(mel)])
        if last:
            waiting = len(frames) - 1 + 2 * (len(now.hidden) - 1)
            frames = np.concatenate([frames, np.repeat(quiet, -waiting % STRIDE, axis=0)])
        first = np.maximum(_convolve(frames, w["conv1.weight"], w["conv1.bias"]), 0.0)
        hidden = np.concatenate([now.hidden, first])
        second = np.maximum(_convolve(hidden, w["conv2.weight"], w["conv2.bias"]), 0.0)
        codes = np.round(np.minimum(second, 1.0) * 255.0).astype(np.uint8)
        left = _CompressState(frames[2 * len(first) :].copy(), hidden[2 * len(second) :].copy())
        return codes.tobytes(), left

    def expand(self, payload: bytes, state: State) -> tuple[Array, State]:
        """64 n bytes → frames [4 n, 80]."""
        if len(payload) % CHANNELS[1]:
            raise InputError(f"A payload of {len(payload)} bytes is not a whole number of compressed rows.")
        now: _ExpandState = state or _ExpandState()
        w = self._w
        rows = np.frombuffer(payload, np.uint8).reshape(-1, CHANNELS[1]).astype(np.float32) / 255.0
        if not len(rows):
            return np.zeros((0, BANDS), np.float32), now
        seen = np.concatenate([now.rows, rows])
        windows = np.lib.stride_tricks.sliding_window_view(seen, HISTORY + 1, axis=0)[: len(rows)]
        x = windows.reshape(len(rows), -1)
        x = np.maximum(x @ w["dense1.weight"].T + w["dense1.bias"], 0.0)
        x = np.maximum(x @ w["dense2.weight"].T + w["dense2.bias"], 0.0)
        frames = x @ w["dense3.weight"].T + w["dense3.bias"]
        return unscale_mel(frames.reshape(-1, BANDS)), _ExpandState(seen[-HISTORY:].copy())


@functools.lru_cache(maxsize=4)
def load_compressor(name: str = "cnn") -> Compressor:
    """ "cnn" (the weights that come with Semaphone), "none" (16-bit log-mel), or a file of weights."""
    from safetensors.numpy import load, load_file

    if name == "none":
        return PlainCompressor()
    if name == "cnn":
        packed = resources.files("semaphone") / "weights" / WEIGHTS_FILE
        return CnnCompressor(load(packed.read_bytes()))
    path = Path(name)
    if not path.is_file():
        raise InputError(f"The compressor is cnn, none or a file of weights; there is no file {name}.")
    try:
        return CnnCompressor(load_file(path))
    except InputError:
        raise
    except Exception as error:  # safetensors raises a class of its own
        raise InputError(f"{name} does not hold a compressor's weights ({error}).") from None
