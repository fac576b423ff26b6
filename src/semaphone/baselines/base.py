"""One interface for every baseline: speech → packets with send times → some are lost → speech.

    baseline = Opus(bit_rate=6000, expected_loss=0.1)
    sampler = parse_channel("uniform:0.1").sampler(np.random.default_rng(7))
    arrived = transfer(baseline, speech, sampler)
    arrived.speech, arrived.payload_bps, arrived.packets_lost

The channel is asked at the send times, so that systems with other packet rates meet the same weather. Speech is mono
float32 at 16 kHz within ±1 on both sides, and what is decoded runs in step with what was encoded: each decoder
drops its own delay.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from semaphone.errors import InputError

Speech: TypeAlias = NDArray[np.float32]

SAMPLE_RATE = 16000  # Hz
HEADER_BYTES = 40  # IPv4 20, UDP 8, RTP 12: what a packet costs beside its payload

# What a codec carries from one call to the next. Libraries written in C change it in place: a state belongs to one
# stream and is used once.
State = Any


@dataclass(frozen=True)
class Packet:
    """What goes on the wire."""

    sequence: int  # counts packets from 0
    send_time: float  # s after the first sample was spoken
    payload: bytes
    bits: int  # of the payload that say something; what is left fills the last byte


@dataclass(frozen=True)
class BaselineInfo:
    """The facts of a baseline that tables and plots need."""

    name: str  # "opus"
    title: str  # "Opus 6 kbit/s, 20 ms"
    bit_rate: float  # bit/s of payload that it aims at
    packet_s: float  # s of speech a packet
    delay_s: float  # s from a sound to its reproduction, without network and computation
    same_timing: bool = True  # False: the words are spoken anew, not moment by moment


class Sampler(Protocol):
    """Whatever says if the next packet is lost; `channel.erasure` makes them."""

    def lost(self, send_time: float) -> bool: ...


class Baseline(ABC):
    """A way to send speech. `None` is the state of a fresh stream, `last` ends it."""

    @property
    @abstractmethod
    def info(self) -> BaselineInfo:
        """What it is and costs."""

    @abstractmethod
    def encode(self, speech: Speech, state: State = None, last: bool = False) -> tuple[list[Packet], State]:
        """Packets of any number of samples [N]; `last` fills the last packet up with silence."""

    @abstractmethod
    def decode(self, packets: Sequence[Packet | None], state: State = None, last: bool = False) -> tuple[Speech, State]:
        """Speech of consecutive packets, `None` for each that was lost; never shorter than what was encoded."""

    def calibrated(self, speech: Speech) -> Baseline:
        """The same baseline, set so that this speech costs on average what `info.bit_rate` says."""
        return self

    def details(self, packets: Sequence[Packet], arrived: Sequence[Packet | None]) -> Mapping[str, Any]:
        """What only this baseline has to tell of a transfer."""
        return {}


@dataclass(frozen=True)
class Transfer:
    """Speech that crossed a channel, and what that cost. Rates are averages over the speech, in bit/s."""

    speech: Speech  # as long as what was sent, if it runs in step with it
    seconds: float  # of what was sent
    codec_bps: float  # bits that say something
    payload_bps: float  # whole bytes
    gross_bps: float  # with 40 bytes of IPv4, UDP and RTP headers a packet
    packets_sent: int
    packets_lost: int
    lost: tuple[bool, ...]  # by packet
    details: Mapping[str, Any] = field(default_factory=dict)  # what only this baseline has to tell


def transfer(baseline: Baseline, speech: Speech, sampler: Sampler | None = None, calibrate: bool = True) -> Transfer:
    """Sends speech [N] through a baseline and a channel (`None` loses nothing).

    Codecs with a variable rate are first set to spend their rate on this speech (`calibrate`).
    Raises InputError for empty or non-finite speech.
    """
    speech = checked(speech)
    if calibrate:
        baseline = baseline.calibrated(speech)
    packets, _ = baseline.encode(speech, None, last=True)
    lost = tuple(sampler is not None and sampler.lost(packet.send_time) for packet in packets)
    arrived = [None if gone else packet for packet, gone in zip(packets, lost, strict=True)]
    heard, _ = baseline.decode(arrived, None, last=True)
    if baseline.info.same_timing:
        heard = fitted(heard, len(speech))
    return Transfer(
        heard,
        len(speech) / SAMPLE_RATE,
        *rates(packets, len(speech) / SAMPLE_RATE),
        packets_sent=len(packets),
        packets_lost=sum(lost),
        lost=lost,
        details=baseline.details(packets, arrived),
    )


def rates(packets: Sequence[Packet], seconds: float) -> tuple[float, float, float]:
    """Codec, payload and gross bit/s of packets that carry so many seconds of speech."""
    payload = 8 * sum(len(packet.payload) for packet in packets)
    return (
        sum(packet.bits for packet in packets) / seconds,
        payload / seconds,
        (payload + 8 * HEADER_BYTES * len(packets)) / seconds,
    )


def checked(speech: Speech) -> Speech:
    """Speech [N] as contiguous float32 within ±1. Raises InputError."""
    array = np.asarray(speech)
    if array.ndim != 1 or array.size == 0:
        raise InputError(f"Speech of the shape {array.shape} can't be sent; some samples of one channel are expected.")
    if not np.all(np.isfinite(array)):
        raise InputError("The speech holds samples that are not finite numbers.")
    return np.ascontiguousarray(np.clip(array, -1.0, 1.0), dtype=np.float32)


def fitted(speech: Speech, length: int) -> Speech:
    """Cut, or padded with silence, to `length` samples."""
    return np.ascontiguousarray(np.pad(speech[:length], (0, max(length - len(speech), 0))), dtype=np.float32)


class Frames:
    """Cuts a stream of samples into frames; keeps what doesn't fill one."""

    def __init__(self, samples: int) -> None:
        self._samples = samples
        self._rest = np.zeros(0, dtype=np.float32)

    def push(self, speech: Speech, last: bool = False, tail: int = 0) -> NDArray[np.float32]:
        """Whole frames [F, samples]; `last` adds `tail` samples of silence and fills the last frame up with more."""
        stream = np.concatenate([self._rest, speech, np.zeros(tail if last else 0, np.float32)])
        if last:
            stream = np.pad(stream, (0, -len(stream) % self._samples))
        whole = len(stream) // self._samples * self._samples
        self._rest = stream[whole:]
        return stream[:whole].reshape(-1, self._samples)


class Skip:
    """Drops the first samples of a stream: the delay of a codec."""

    def __init__(self, samples: int) -> None:
        self._left = samples

    def push(self, speech: Speech) -> Speech:
        """What remains of these samples."""
        drop = min(self._left, len(speech))
        self._left -= drop
        return speech[drop:]


def nearest_rate(spent_at: Callable[[int], float], wanted: float, lowest: int, highest: int) -> int:
    """The encoder setting in bit/s whose spending is nearest to `wanted`, without exceeding it by more than 1 %.

    `spent_at(setting)` encodes at a setting and says what it spent in bit/s; spending must grow with it.
    """
    best, best_distance = lowest, float("inf")
    low, high = lowest - 1, highest + 1  # known to be too low and too high
    setting = round(min(max(wanted, lowest), highest))
    for _ in range(6):
        spent = spent_at(setting)
        distance = abs(spent - wanted) if spent <= 1.01 * wanted else 10 * abs(spent - wanted)
        if distance < best_distance:
            best, best_distance = setting, distance
        if abs(spent - wanted) <= 0.005 * wanted:
            break
        if spent > wanted:
            high = setting
        else:
            low = setting
        if high - low < 2:
            break
        guess = round(setting * wanted / max(spent, 1.0))
        setting = guess if low < guess < high else (low + high) // 2
    return best
