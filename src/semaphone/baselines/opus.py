"""Opus (RFC 6716) as a call would use it: VoIP mode, in-band FEC (LBRR), concealment of what is lost.

Packet n is recovered from packet n + 1 where that carries a second, coarser copy of it. libopus decides by itself if
there is room for such copies: under about 12 kbit/s there hardly ever is, whatever loss it is told, and what remains
is concealment. `details["lbrr_packets"]` says how many packets had one.

DRED (deep redundancy, libopus 1.5 and later) needs a libopus with its model. The one in the package has none; set
OPUSLIB_NEXT_USE_SYSTEM_LIB=1 to load one of the system, built with `--enable-dred`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from semaphone.baselines.base import (
    SAMPLE_RATE,
    Baseline,
    BaselineInfo,
    Frames,
    Packet,
    Skip,
    Speech,
    State,
    nearest_rate,
    rates,
)
from semaphone.errors import InputError, MissingExtraError

FRAME_MS = (20, 40, 60)
LOOKAHEAD = 104  # samples at 16 kHz, 6.5 ms, in VoIP mode (OPUS_GET_LOOKAHEAD)
_SIGNAL_VOICE = 3001
_SET_DRED_DURATION = 4050  # in units of 2.5 ms; opus_defines.h of libopus 1.5
_LARGEST = 1275  # bytes of a packet with one frame


@dataclass(frozen=True)
class Opus(Baseline):
    """Opus, 16 kHz mono. Raises InputError for settings that Opus doesn't have."""

    bit_rate: int = 6000  # bit/s of payload
    frame_ms: int = 20
    expected_loss: float = 0.0  # what the encoder is told of the channel, 0 to 1
    vbr: bool = True  # constrained variable rate, as calls use it; False: constant
    complexity: int = 10
    dred_ms: int = 0  # how much of the past each packet describes again; 0: no DRED
    encoder_rate: int | None = None  # what the encoder is set to so that it spends `bit_rate`; see `calibrated`

    def __post_init__(self) -> None:
        if self.frame_ms not in FRAME_MS:
            raise InputError(f"Opus frames of {self.frame_ms} ms are not offered; choose from {FRAME_MS}.")
        if not 5000 <= self.bit_rate <= 510000:
            raise InputError(f"Opus can't be asked for {self.bit_rate} bit/s; it takes 5000 to 510000.")
        if not 0 <= self.expected_loss <= 1:
            raise InputError(f"An expected loss of {self.expected_loss} is not between 0 and 1.")
        if not 0 <= self.complexity <= 10:
            raise InputError(f"Opus has no complexity {self.complexity}; it takes 0 to 10.")
        if not 0 <= self.dred_ms <= 1040:
            raise InputError(f"DRED describes 0 to 1040 ms of the past, not {self.dred_ms}.")

    @property
    def info(self) -> BaselineInfo:
        """See `Baseline.info`."""
        frame = self.frame_ms / 1000
        waits = frame if self.expected_loss > 0 else 0.0  # for the packet with the copy
        title = f"Opus {self.bit_rate / 1000:g} kbit/s, {self.frame_ms} ms" + (", DRED" if self.dred_ms else "")
        return BaselineInfo("opus", title, self.bit_rate, frame, frame + LOOKAHEAD / SAMPLE_RATE + waits)

    @property
    def _samples(self) -> int:
        return self.frame_ms * SAMPLE_RATE // 1000

    def calibrated(self, speech: Speech) -> Opus:
        """See `Baseline.calibrated`: Opus with variable rate spends less on some voices and more on others."""
        if not self.vbr:
            return self

        def spent(setting: int) -> float:
            packets, _ = replace(self, encoder_rate=setting).encode(speech, None, last=True)
            return rates(packets, len(packets) * self.frame_ms / 1000)[1]

        return replace(self, encoder_rate=nearest_rate(spent, self.bit_rate, 5000, 2 * self.bit_rate))

    def encode(self, speech: Speech, state: State = None, last: bool = False) -> tuple[list[Packet], State]:
        """See `Baseline.encode`."""
        state = state or _EncoderState(self._encoder(), Frames(self._samples))
        packets = []
        for frame in state.frames.push(speech, last, tail=LOOKAHEAD):
            payload = state.encoder.encode_float(np.ascontiguousarray(frame).tobytes(), self._samples)
            sent = (state.sequence + 1) * self.frame_ms / 1000
            packets.append(Packet(state.sequence, sent, bytes(payload), 8 * len(payload)))
            state.sequence += 1
        return packets, state

    def decode(self, packets: Sequence[Packet | None], state: State = None, last: bool = False) -> tuple[Speech, State]:
        """See `Baseline.decode`. After a loss nothing comes until the next packet: it may hold a copy."""
        state = state or _DecoderState(_opus().Decoder(SAMPLE_RATE, 1), Skip(LOOKAHEAD))
        out: list[Speech] = []
        for packet in packets:
            if packet is None:
                state.missing += 1
                continue
            out += self._fill(state, packet)
            out.append(self._frame(state, packet.payload))
        if last:
            out += self._fill(state, None)
        return np.concatenate([np.zeros(0, np.float32), *(state.skip.push(part) for part in out)]), state

    def details(self, packets: Sequence[Packet], arrived: Sequence[Packet | None]) -> Mapping[str, Any]:
        """See `Baseline.details`: how many packets hold a copy of the one before, and what the encoder was set to."""
        return {
            "lbrr_packets": sum(has_lbrr(packet.payload) for packet in packets),
            "encoder_rate": self.encoder_rate or self.bit_rate,
        }

    def _fill(self, state: _DecoderState, packet: Packet | None) -> list[Speech]:
        """What was lost before `packet`: its redundancy where there is some, concealment where not."""
        missing, state.missing = state.missing, 0
        if packet is not None and missing and self.dred_ms:
            if state.dred is None:
                state.dred = _Dred(state.decoder)
            return state.dred.fill(packet.payload, missing, self._samples, lambda: self._frame(state, b""))
        concealed = missing if packet is None else missing - 1
        out = [self._frame(state, b"") for _ in range(concealed)]
        if packet is not None and missing:
            # Without a copy in the packet libopus conceals here, too.
            out.append(self._frame(state, packet.payload, fec=True))
        return out

    def _frame(self, state: _DecoderState, payload: bytes, fec: bool = False) -> Speech:
        opus = _opus()
        try:
            pcm = state.decoder.decode_float(payload, self._samples, decode_fec=fec)
        except opus.OpusError as error:
            raise InputError(f"This is not an Opus packet of {self.frame_ms} ms ({error}).") from error
        return np.frombuffer(pcm, dtype=np.float32)[: self._samples]

    def _encoder(self) -> Any:
        encoder = _opus().Encoder(SAMPLE_RATE, 1, "voip")
        encoder.bitrate = self.encoder_rate or self.bit_rate
        encoder.vbr = int(self.vbr)
        encoder.vbr_constraint = 1
        encoder.complexity = self.complexity
        encoder.signal = _SIGNAL_VOICE
        encoder.dtx = 0
        encoder.inband_fec = int(self.expected_loss > 0)
        encoder.packet_loss_perc = min(round(100 * self.expected_loss), 100)
        if self.dred_ms:
            _set_dred(encoder, self.dred_ms)
        return encoder


@dataclass
class _EncoderState:
    encoder: Any
    frames: Frames
    sequence: int = 0


@dataclass
class _DecoderState:
    decoder: Any
    skip: Skip
    missing: int = 0  # packets lost since the last one that came
    dred: _Dred | None = field(default=None)


def _opus() -> Any:
    try:
        import opuslib_next
    except ImportError as error:
        raise MissingExtraError("Opus", "baselines") from error
    return opuslib_next


def _library() -> Any:
    _opus()
    from opuslib_next.api import libopus

    return libopus


def has_lbrr(payload: bytes) -> bool:
    """True if an Opus packet holds a copy of the one before it."""
    return bool(_library().opus_packet_has_lbrr(payload, len(payload)) == 1)


def has_dred() -> bool:
    """True if the loaded libopus can make deep redundancy. Raises MissingExtraError."""
    encoder = _opus().Encoder(SAMPLE_RATE, 1, "voip")
    return bool(_library().opus_encoder_ctl(encoder.encoder_state, _SET_DRED_DURATION, 4) == 0)


def _set_dred(encoder: Any, milliseconds: int) -> None:
    if _library().opus_encoder_ctl(encoder.encoder_state, _SET_DRED_DURATION, round(milliseconds / 2.5 / 4) * 4) != 0:
        raise InputError(
            "The loaded libopus has no DRED model; build libopus 1.5 or later with --enable-dred "
            "and set OPUSLIB_NEXT_USE_SYSTEM_LIB=1."
        )


class _Dred:
    """The receiving side of deep redundancy, after opus.h of libopus 1.5."""

    def __init__(self, decoder: Any) -> None:
        self._library = _library()
        self._decoder = decoder
        error = ctypes.c_int(0)
        for name in ("opus_dred_decoder_create", "opus_dred_alloc"):
            getattr(self._library, name).restype = ctypes.c_void_p
        self._dred_decoder = ctypes.c_void_p(self._library.opus_dred_decoder_create(ctypes.byref(error)))
        self._dred = ctypes.c_void_p(self._library.opus_dred_alloc(ctypes.byref(error)))
        if error.value != 0 or not self._dred_decoder or not self._dred:
            raise InputError("The loaded libopus has no DRED decoder; build it with --enable-dred.")

    def fill(self, payload: bytes, missing: int, samples: int, conceal: Callable[[], Speech]) -> list[Speech]:
        """Frames that the redundancy in `payload` describes; earlier ones are concealed."""
        end = ctypes.c_int(0)
        reach = self._library.opus_dred_parse(
            self._dred_decoder, self._dred, payload, len(payload), missing * samples, SAMPLE_RATE, ctypes.byref(end), 0
        )
        out: list[Speech] = []
        for back in range(missing, 0, -1):
            if reach < back * samples:
                out.append(conceal())
                continue
            pcm = np.zeros(samples, dtype=np.float32)
            made = self._library.opus_decoder_dred_decode_float(
                self._decoder.decoder_state,
                self._dred,
                back * samples,
                pcm.ctypes.data_as(ctypes.POINTER(ctypes.c_float)),
                samples,
            )
            out.append(pcm if made == samples else conceal())
        return out

    def __del__(self) -> None:
        if getattr(self, "_dred", None):
            self._library.opus_dred_free(self._dred)
        if getattr(self, "_dred_decoder", None):
            self._library.opus_dred_decoder_destroy(self._dred_decoder)
