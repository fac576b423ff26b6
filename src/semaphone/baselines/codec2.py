"""Codec 2: the open vocoder of amateur radio, 0.7 to 3.2 kbit/s at 8 kHz.

It has no concealment of its own: the last frame is repeated and fades away, as its users' modems do.

Its decoder draws the phases of unvoiced sounds from a generator that the whole process shares, so that what it says
would depend on all that was decoded before. Each stream therefore gets a copy of the library to itself.
"""

from __future__ import annotations

import ctypes
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from semaphone.audio import Resampler
from semaphone.baselines.base import SAMPLE_RATE, Baseline, BaselineInfo, Frames, Packet, Skip, Speech, State
from semaphone.errors import InputError, MissingExtraError

RATE = 8000  # Hz
FRAME_MS = {3200: 20, 2400: 20, 1600: 40, 1400: 40, 1300: 40, 1200: 40, 700: 40}
# Samples at 8 kHz by which decoded speech lags behind: measured as the peak of the envelopes' correlation.
DELAY = {3200: 160, 2400: 160, 1600: 160, 1400: 160, 1300: 160, 1200: 160, 700: 240}
_FADE = 0.7  # loudness of each repeated 20 ms, against the one before


@dataclass(frozen=True)
class Codec2(Baseline):
    """Codec 2 in one of its modes. Raises InputError for another rate or a packet that isn't whole frames."""

    bit_rate: int = 1200  # bit/s, the mode
    packet_ms: int = 40

    def __post_init__(self) -> None:
        if self.bit_rate not in FRAME_MS:
            raise InputError(
                f"Codec 2 has no mode of {self.bit_rate} bit/s; there are {', '.join(map(str, FRAME_MS))}."
            )
        if self.packet_ms <= 0 or self.packet_ms % FRAME_MS[self.bit_rate] or self.packet_ms > 1000:
            raise InputError(f"A packet of {self.packet_ms} ms is not up to a second of {self._frame_ms} ms frames.")

    @property
    def info(self) -> BaselineInfo:
        """See `Baseline.info`."""
        packet = self.packet_ms / 1000
        title = f"Codec 2 {self.bit_rate / 1000:g} kbit/s"
        return BaselineInfo("codec2", title, self.bit_rate, packet, packet + DELAY[self.bit_rate] / RATE)

    @property
    def _frame_ms(self) -> int:
        return FRAME_MS[self.bit_rate]

    @property
    def _frame_samples(self) -> int:
        return self._frame_ms * RATE // 1000

    @property
    def _frames(self) -> int:
        return self.packet_ms // self._frame_ms

    @property
    def _bits(self) -> int:
        return self.bit_rate * self._frame_ms // 1000

    def encode(self, speech: Speech, state: State = None, last: bool = False) -> tuple[list[Packet], State]:
        """See `Baseline.encode`. Each frame takes whole bytes; `bits` counts what the mode needs."""
        samples = self._frame_samples * self._frames
        state = state or _EncoderState(_codec(self.bit_rate), Resampler(SAMPLE_RATE, RATE), Frames(samples))
        packets = []
        narrow = state.resampler.push(speech, last=last)
        for part in state.frames.push(narrow, last, tail=DELAY[self.bit_rate]):
            pcm = np.clip(np.rint(part * 32767), -32768, 32767).astype(np.int16).reshape(self._frames, -1)
            payload = b"".join(state.codec.encode(frame) for frame in pcm)
            sent = (state.sequence + 1) * self.packet_ms / 1000
            packets.append(Packet(state.sequence, sent, payload, self._bits * self._frames))
            state.sequence += 1
        return packets, state

    def decode(self, packets: Sequence[Packet | None], state: State = None, last: bool = False) -> tuple[Speech, State]:
        """See `Baseline.decode`."""
        state = state or _DecoderState(
            _Speaker(self.bit_rate, self._frame_samples), Resampler(RATE, SAMPLE_RATE), Skip(DELAY[self.bit_rate])
        )
        out = [np.zeros(0, np.float32)]
        for packet in packets:
            out += self._packet(packet, state)
        narrow: Speech = state.skip.push(np.concatenate(out))
        return state.resampler.push(narrow, last=last), state

    def _packet(self, packet: Packet | None, state: _DecoderState) -> list[Speech]:
        size = -(-self._bits // 8)
        if packet is not None:
            if len(packet.payload) != size * self._frames:
                raise InputError(f"A Codec 2 packet has {len(packet.payload)} bytes instead of {size * self._frames}.")
            frames = [packet.payload[size * i : size * (i + 1)] for i in range(self._frames)]
            state.last_frame, state.gain = frames[-1], 1.0
            return [state.speaker.say(frame) for frame in frames]
        if not state.last_frame:
            return [np.zeros(self._frame_samples, np.float32)] * self._frames
        out = []
        for _ in range(self._frames):
            before, state.gain = state.gain, state.gain * _FADE ** (self._frame_ms / 20)
            ramp = np.linspace(before, state.gain, self._frame_samples, endpoint=False, dtype=np.float32)
            out.append(state.speaker.say(state.last_frame) * ramp)
        return out


@dataclass
class _EncoderState:
    codec: Any
    resampler: Resampler
    frames: Frames
    sequence: int = 0


@dataclass
class _DecoderState:
    speaker: _Speaker
    resampler: Resampler
    skip: Skip
    last_frame: bytes = field(default=b"")
    gain: float = 1.0


def _codec(bit_rate: int) -> Any:
    try:
        import pycodec2
    except ImportError as error:
        raise MissingExtraError("Codec 2", "baselines") from error
    return pycodec2.Codec2(bit_rate)


class _Speaker:
    """A decoder whose random generator is its own, in a private copy of the library, if there is one to copy."""

    def __init__(self, bit_rate: int, frame_samples: int) -> None:
        self._codec = _codec(bit_rate)
        self._samples = frame_samples
        self._library = _private_library()
        self._decoder: ctypes.c_void_p | None = None
        if self._library is not None:
            self._library.codec2_create.restype = ctypes.c_void_p
            mode = {3200: 0, 2400: 1, 1600: 2, 1400: 3, 1300: 4, 1200: 5, 700: 8}[bit_rate]  # codec2.h
            self._decoder = ctypes.c_void_p(self._library.codec2_create(mode))

    def say(self, frame: bytes) -> Speech:
        """The samples of a frame, within ±1."""
        if self._library is None:
            pcm = np.asarray(self._codec.decode(frame), dtype=np.int16)
        else:
            pcm = np.zeros(self._samples, dtype=np.int16)
            self._library.codec2_decode(self._decoder, pcm.ctypes.data_as(ctypes.c_void_p), frame)
        return pcm.astype(np.float32) / np.float32(32768)

    def __del__(self) -> None:
        if getattr(self, "_library", None) is not None and self._decoder:
            self._library.codec2_destroy(self._decoder)
            _unload(self._library)


def _private_library() -> Any:
    """The package's libcodec2 loaded once more from a copy; `None` where the package has none of its own."""
    spec = find_spec("pycodec2")
    if spec is None or spec.origin is None:
        return None
    found = sorted((Path(spec.origin).parent.parent / "pycodec2.libs").glob("libcodec2*.so*"))
    if not found:
        return None
    # A name of its own: the loader would give the library that is there already.
    with tempfile.NamedTemporaryFile(prefix="libcodec2-", suffix=".so") as copy:
        with open(found[0], "rb") as library:
            shutil.copyfileobj(library, copy)
        copy.flush()
        try:
            return ctypes.CDLL(copy.name)
        except OSError:  # a temporary folder without the right to execute
            return None


def _unload(library: Any) -> None:
    """Gives the memory of a private copy back."""
    import _ctypes

    close = getattr(_ctypes, "dlclose", None)
    if close is not None:
        close(library._handle)
