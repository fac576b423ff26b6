"""SoundStream as the real one: the models of Lyra v2, 1.6 to 9.2 kbit/s, from a folder that the user names.

Three TensorFlow Lite files of Lyra v2 (Apache-2.0): `soundstream_encoder.tflite`, `quantizer.tflite` and
`lyragan.tflite`. Every 20 ms become 64 features, these up to 46 indices of 4 bits, the coarsest first. What is lost
is concealed among the features, before the decoder: by default repeated and faded; a trained model can take that
place (FD-PLC).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from semaphone.baselines.base import SAMPLE_RATE, Baseline, BaselineInfo, Frames, Packet, Speech, State
from semaphone.errors import InputError, MissingExtraError
from semaphone.native import quiet_native_log

FRAME = 320  # samples, 20 ms
FEATURES = 64
BITS = 4  # of an index
QUANTIZERS = {1600: 8, 3200: 16, 6000: 30, 9200: 46}  # bit/s → indices a frame
MODELS = ("soundstream_encoder.tflite", "quantizer.tflite", "lyragan.tflite")

Features = NDArray[np.float32]  # [64]


@dataclass(frozen=True)
class Concealed:
    """One frame for the decoder."""

    features: Features  # [64]
    gain: float  # loudness of the decoded frame, 0 to 1


class Concealment(Protocol):
    """Fills lost features, frame by frame and causally. `state` is `None` for a fresh stream."""

    def step(self, features: Features | None, state: Any) -> tuple[Concealed, Any]:
        """Features [64] of one frame, `None` if lost → what to decode, and the next state.

        Received features come out untouched with gain 1.
        """
        ...


class RepeatAndFade:
    """The last frame again, as it is for 60 ms and then quieter by 3 dB a frame."""

    def step(self, features: Features | None, state: Any) -> tuple[Concealed, Any]:
        """See `Concealment.step`."""
        if features is not None:
            return Concealed(features, 1.0), (features, 0)
        held, missing = state if state is not None else (None, 0)
        missing += 1
        if held is None:
            return Concealed(np.zeros(FEATURES, np.float32), 0.0), (None, missing)
        return Concealed(held, float(0.7 ** max(missing - 3, 0))), (held, missing)


@dataclass(frozen=True)
class SoundStream(Baseline):
    """SoundStream with Lyra v2's models. Raises InputError for a folder without them or another rate."""

    folder: Path
    bit_rate: int = 3200  # bit/s
    frames_per_packet: int = 1
    concealment: Concealment = field(default_factory=RepeatAndFade)

    def __post_init__(self) -> None:
        if self.bit_rate not in QUANTIZERS:
            raise InputError(f"Lyra v2 has no {self.bit_rate} bit/s; there are {', '.join(map(str, QUANTIZERS))}.")
        if not 1 <= self.frames_per_packet <= 50:
            raise InputError(f"{self.frames_per_packet} frames of 20 ms a packet are not 1 to 50.")
        missing = [name for name in MODELS if not (Path(self.folder) / name).is_file()]
        if missing:
            raise InputError(f"{self.folder} has no {missing[0]}; name the folder with Lyra v2's three tflite files.")

    @property
    def info(self) -> BaselineInfo:
        """See `Baseline.info`."""
        packet = self.frames_per_packet * FRAME / SAMPLE_RATE
        title = f"SoundStream (Lyra v2) {self.bit_rate / 1000:g} kbit/s"
        return BaselineInfo("soundstream", title, self.bit_rate, packet, packet)

    @property
    def _indices(self) -> int:
        return QUANTIZERS[self.bit_rate]

    def encode(self, speech: Speech, state: State = None, last: bool = False) -> tuple[list[Packet], State]:
        """See `Baseline.encode`."""
        state = state or _EncoderState(
            LyraNetwork(self.folder, MODELS[0]), LyraQuantizer(self.folder), Frames(FRAME * self.frames_per_packet)
        )
        packets = []
        bits = BITS * self._indices * self.frames_per_packet
        for part in state.frames.push(speech, last):
            indices = [
                state.quantizer.encode(state.network.run(frame), self._indices) for frame in part.reshape(-1, FRAME)
            ]
            payload = pack(np.concatenate(indices))
            sent = (state.sequence + 1) * self.info.packet_s
            packets.append(Packet(state.sequence, sent, payload, bits))
            state.sequence += 1
        return packets, state

    def decode(self, packets: Sequence[Packet | None], state: State = None, last: bool = False) -> tuple[Speech, State]:
        """See `Baseline.decode`."""
        state = state or _DecoderState(LyraNetwork(self.folder, MODELS[2]), LyraQuantizer(self.folder))
        out = [np.zeros(0, np.float32)]
        for packet in packets:
            for features in self._features(packet, state.quantizer):
                frame, state.concealment = self.concealment.step(features, state.concealment)
                before = frame.gain if state.gain is None else state.gain
                ramp = np.linspace(before, frame.gain, FRAME, dtype=np.float32)
                state.gain = frame.gain
                out.append(np.clip(state.network.run(frame.features), -1.0, 1.0) * ramp)
        return np.concatenate(out), state

    def _features(self, packet: Packet | None, quantizer: LyraQuantizer) -> list[Features | None]:
        if packet is None:
            return [None] * self.frames_per_packet
        indices = unpack(packet.payload, self._indices * self.frames_per_packet)
        return [quantizer.decode(part) for part in indices.reshape(self.frames_per_packet, -1)]


def pack(indices: NDArray[np.integer]) -> bytes:
    """Indices of 4 bits [N], the first in the upper half of the first byte."""
    padded = np.append(indices, np.zeros(len(indices) % 2, indices.dtype)).astype(np.uint8)
    return bytes(padded[0::2] << 4 | padded[1::2])


def unpack(payload: bytes, count: int) -> NDArray[np.int32]:
    """The `count` indices of a payload. Raises InputError if it has another length."""
    if len(payload) != (count + 1) // 2:
        raise InputError(f"A SoundStream packet has {len(payload)} bytes instead of {(count + 1) // 2}.")
    data = np.frombuffer(payload, np.uint8)
    return np.stack([data >> 4, data & 15], axis=1).reshape(-1)[:count].astype(np.int32)


@dataclass
class _EncoderState:
    network: LyraNetwork
    quantizer: LyraQuantizer
    frames: Frames
    sequence: int = 0


@dataclass
class _DecoderState:
    network: LyraNetwork
    quantizer: LyraQuantizer
    concealment: Any = None
    gain: float | None = None  # at the end of the last frame


class LyraNetwork:
    """A stateful model with one input and one output. Its state can't be reset: each stream has its own."""

    def __init__(self, folder: Path, name: str) -> None:
        self._interpreter = _interpreter(Path(folder) / name)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]
        self._output = self._interpreter.get_output_details()[0]["index"]

    def run(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        shaped = np.ascontiguousarray(values, np.float32).reshape(self._input["shape"])
        self._interpreter.set_tensor(self._input["index"], shaped)
        self._interpreter.invoke()
        return np.asarray(self._interpreter.get_tensor(self._output), np.float32).reshape(-1).copy()


class LyraQuantizer:
    """64 features ⇄ up to 46 indices."""

    def __init__(self, folder: Path) -> None:
        interpreter = _interpreter(Path(folder) / MODELS[1])
        self._encode = interpreter.get_signature_runner("encode")
        self._decode = interpreter.get_signature_runner("decode")

    def encode(self, features: Features, count: int) -> NDArray[np.int32]:
        found = self._encode(input_frames=features.reshape(1, 1, -1), num_quantizers=np.int32(count))
        return np.asarray(found["output_0"], np.int32).reshape(-1)[:count].copy()

    def decode(self, indices: NDArray[np.int32]) -> Features:
        padded = np.full((46, 1, 1), -1, np.int32)  # -1: an index that was not sent
        padded[: len(indices), 0, 0] = indices
        return np.asarray(self._decode(encoding_indices=padded)["output_0"], np.float32).reshape(-1).copy()


def _interpreter(path: Path) -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise MissingExtraError("SoundStream", "baselines") from error
    try:
        with quiet_native_log():
            return Interpreter(model_path=str(path), num_threads=1)
    except (ValueError, RuntimeError) as error:
        raise InputError(f"{path} is not a TensorFlow Lite model.") from error
