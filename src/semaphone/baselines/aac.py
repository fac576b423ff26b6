"""AAC-LC through FFmpeg's encoder, 4.7 to 20.5 kbit/s, lost frames interpolated between their neighbours.

An AAC frame has 1024 samples. The paper speaks of frames of 80 ms, which no sample rate of AAC gives: at 12 kHz
(the default) they last 85.3 ms, at 16 kHz 64 ms. FFmpeg's encoder by itself can't go under about 9 kbit/s; for lower
rates its bandwidth is narrowed until it can, which serves speech better than its other, faster quantiser does.

Interpolation: a gap is decoded twice, with the last frame before it repeated and with the first one after it, and
the sound glides from the one to the other. Frames far from both ends of a long gap fade out. The receiver waits for
the next packet, and at the end of a stream the last frame is repeated alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from semaphone.audio import Resampler
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

FRAME = 1024  # samples
PRIMING = 1024  # samples that the decoder puts before the first: the first half of the overlap
_RATE_INDEX = {8000: 11, 11025: 10, 12000: 9, 16000: 8}  # Hz → its number in the standard
SAMPLE_RATES = tuple(_RATE_INDEX)
# Bandwidth in Hz that a rate (bit/s, from) can usually pay for; 0 leaves it to the encoder.
_BANDWIDTHS = ((9500, 0), (9000, 3000), (8300, 2500), (7000, 2000), (5800, 1500), (0, 1000))
_LOWEST_SETTING = 1000  # bit/s
_FADE = 0.5  # loudness of each further frame from the nearest one that came


@dataclass(frozen=True)
class Aac(Baseline):
    """AAC-LC, mono, constant-ish rate. Raises InputError for rates that it doesn't have."""

    bit_rate: int = 8000  # bit/s of payload
    sample_rate: int = 12000  # Hz: 85.3 ms a frame
    encoder_rate: int | None = None  # what the encoder is set to so that it spends `bit_rate`; see `calibrated`
    bandwidth: int | None = None  # Hz; 0: the encoder's own; None: by the rate

    def __post_init__(self) -> None:
        if self.sample_rate not in SAMPLE_RATES:
            raise InputError(f"AAC at {self.sample_rate} Hz is not offered; choose from {SAMPLE_RATES}.")
        if not 4000 <= self.bit_rate <= 64000:
            raise InputError(f"AAC at {self.bit_rate} bit/s is not offered; choose from 4000 to 64000.")

    @property
    def info(self) -> BaselineInfo:
        """See `Baseline.info`."""
        frame = FRAME / self.sample_rate
        # A frame is complete when its last sample is spoken, can be heard when the next one overlaps with it, and
        # waits for one more in case that was lost.
        return BaselineInfo("aac", f"AAC {self.bit_rate / 1000:g} kbit/s", self.bit_rate, frame, 3 * frame)

    def calibrated(self, speech: Speech) -> Aac:
        """See `Baseline.calibrated`: some voices need less bandwidth than most to fit a low rate."""
        usual = self._usual_bandwidth
        order = [bandwidth for _, bandwidth in _BANDWIDTHS]
        fitting = self
        for bandwidth in order[order.index(usual) :] if self.bandwidth is None else [self.bandwidth]:
            fitting = replace(self, bandwidth=bandwidth)
            if fitting._spent(speech, _LOWEST_SETTING) <= self.bit_rate:
                break
        setting = nearest_rate(
            lambda rate: fitting._spent(speech, rate), self.bit_rate, _LOWEST_SETTING, 2 * self.bit_rate
        )
        return replace(fitting, encoder_rate=setting)

    @property
    def _usual_bandwidth(self) -> int:
        return next(bandwidth for rate, bandwidth in _BANDWIDTHS if self.bit_rate >= rate)

    def _spent(self, speech: Speech, setting: int) -> float:
        packets, _ = replace(self, encoder_rate=setting).encode(speech, None, last=True)
        return rates(packets, len(packets) * self.info.packet_s)[1]

    def encode(self, speech: Speech, state: State = None, last: bool = False) -> tuple[list[Packet], State]:
        """See `Baseline.encode`."""
        state = state or _EncoderState(self._encoder(), Resampler(SAMPLE_RATE, self.sample_rate), Frames(FRAME))
        av = _av()
        coded: list[Any] = []
        for part in state.frames.push(state.resampler.push(speech, last=last), last):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(part)[None], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = self.sample_rate, state.samples
            state.samples += FRAME
            coded += state.encoder.encode(frame)
        if last:
            coded += state.encoder.encode(None)
        packets = []
        for payload in map(bytes, coded):
            sent = (state.sequence + 1) * FRAME / self.sample_rate
            packets.append(Packet(state.sequence, sent, payload, 8 * len(payload)))
            state.sequence += 1
        return packets, state

    def decode(self, packets: Sequence[Packet | None], state: State = None, last: bool = False) -> tuple[Speech, State]:
        """See `Baseline.decode`. After a loss nothing comes until the next packet, which says where to glide to."""
        state = state or _DecoderState(self._decoder(), Resampler(self.sample_rate, SAMPLE_RATE), Skip(PRIMING))
        frames = [frame for packet in packets for frame in self._next(packet, state)]
        if last:
            frames += self._bridge(state, None)
        narrow = np.concatenate([np.zeros(0, np.float32), *(state.skip.push(frame) for frame in frames)])
        return state.resampler.push(narrow, last=last), state

    def details(self, packets: Sequence[Packet], arrived: Sequence[Packet | None]) -> Mapping[str, Any]:
        """See `Baseline.details`: what the encoder was set to."""
        bandwidth = self._usual_bandwidth if self.bandwidth is None else self.bandwidth
        return {"encoder_rate": self.encoder_rate or self.bit_rate, "bandwidth": bandwidth}

    def _next(self, packet: Packet | None, state: _DecoderState) -> list[Speech]:
        if packet is None:
            state.missing += 1
            return []
        frames = self._bridge(state, packet.payload)
        state.last_payload = packet.payload
        return [*frames, _run(state.decoder, packet.payload)]

    def _bridge(self, state: _DecoderState, following: bytes | None) -> list[Speech]:
        """Frames in place of those that were lost before `following`."""
        missing, state.missing = state.missing, 0
        before = state.last_payload
        if not missing:
            return []
        if before is None:
            return [np.zeros(FRAME, np.float32)] * missing
        from_before = np.concatenate([_run(state.decoder, before) for _ in range(missing)])
        times = np.arange(len(from_before), dtype=np.float32) / FRAME
        if following is None:
            return [(from_before * _FADE**times).astype(np.float32)]
        # The overlap of a decoder is that of its last frame alone: one packet brings a second one to the same place.
        state.decoder = self._decoder()
        _run(state.decoder, before)
        from_after = np.concatenate([_run(state.decoder, following) for _ in range(missing)])
        weight = times / np.float32(missing)
        fade = _FADE ** np.maximum(np.minimum(times, missing - times) - 1, 0)
        return [(((1 - weight) * from_before + weight * from_after) * fade).astype(np.float32)]

    def _encoder(self) -> Any:
        rate = self.encoder_rate or self.bit_rate
        encoder = _av().CodecContext.create("aac", "w")
        encoder.sample_rate, encoder.layout, encoder.format = self.sample_rate, "mono", "fltp"
        encoder.bit_rate = rate
        bandwidth = self._usual_bandwidth if self.bandwidth is None else self.bandwidth
        encoder.options = {"aac_coder": "twoloop"} | ({"cutoff": str(bandwidth)} if bandwidth else {})
        encoder.open()
        return encoder

    def _decoder(self) -> Any:
        decoder = _av().CodecContext.create("aac", "r")
        # AudioSpecificConfig (ISO 14496-3): object type AAC-LC, index of the sample rate, one channel.
        config = 2 << 11 | _RATE_INDEX[self.sample_rate] << 7 | 1 << 3
        decoder.extradata, decoder.sample_rate, decoder.layout = config.to_bytes(2, "big"), self.sample_rate, "mono"
        return decoder


def _run(decoder: Any, payload: bytes) -> Speech:
    """The 1024 samples that one packet completes."""
    av = _av()
    try:
        frames = decoder.decode(av.Packet(payload))
    except av.error.FFmpegError as error:
        raise InputError(f"This is not an AAC packet ({error.strerror}).") from error
    if len(frames) != 1 or frames[0].samples != FRAME:
        raise InputError("This is not an AAC packet of one frame.")
    return np.asarray(frames[0].to_ndarray()[0], np.float32)


@dataclass
class _EncoderState:
    encoder: Any
    resampler: Resampler
    frames: Frames
    samples: int = 0
    sequence: int = 0


@dataclass
class _DecoderState:
    decoder: Any
    resampler: Resampler
    skip: Skip
    last_payload: bytes | None = None
    missing: int = field(default=0)


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("AAC", "baselines") from error
    return av
