"""Timing a talk through our link, a baseline, the text link: every part of the computing where it happens."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from semaphone.errors import InputError

if TYPE_CHECKING:
    from semaphone.audio import Samples
    from semaphone.baselines.base import Baseline
    from semaphone.codec.base import Codec
    from semaphone.controller.base import Controller
    from semaphone.packet.format import PacketFormat
    from semaphone.recovery.base import Recovery

SKIPPED = 2  # first blocks, in which everything is touched for the first time

# Parts in the order in which they come. Waiting (T_context) first, then computing (T_coder, T_RA, T_LM).
WAITING = {"block": "block of speech", "copies": "copies in later packets", "lookahead": "look-ahead, overlap"}
COMPUTING = {
    "encoder": "encoder",
    "controller": "controller",
    "packetise": "packets, written",
    "depacketise": "packets, read",
    "recovery": "recovery",
    "decoder": "decoder",
}


@dataclass(frozen=True)
class Timed:
    """What was timed of one method; all in s, one entry a block, packet or phrase."""

    waiting: dict[str, list[float]]  # by names of WAITING; a single entry holds for all
    computing: dict[str, list[float]]  # by names of COMPUTING
    seconds: float  # of speech
    payload_bps: float
    sample_rate: int
    busy: float  # s of computing for all of the speech
    share: float  # of a core that this process had meanwhile: less than 1 where others compute, too
    lost_tokens: float = 0.0  # a chunk, on average: N of eq 23

    def row(self) -> dict[str, Any]:
        """As it stands in the file of results, in ms."""
        count = max(map(len, [*self.computing.values(), *self.waiting.values()]))
        context = _sums(self.waiting, count)
        coder = _sums(self.computing, count)
        return {
            "parts_ms": {name: _quantiles(v) for name, v in (self.waiting | self.computing).items()},
            "context_ms": _quantiles(context),
            "coder_ms": _quantiles(coder),
            "total_ms": _quantiles(context + coder),
            "real_time_factor": round(self.busy / self.seconds, 4),
            "payload_bps": round(self.payload_bps, 1),
            "core_share": round(self.share, 3),
            "sample_rate": self.sample_rate,
            "seconds": round(self.seconds, 2),
            "lost_tokens": round(self.lost_tokens, 3),
            "count": count,
        }


def _sums(parts: dict[str, list[float]], count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    total = np.zeros(count)
    for values in parts.values():
        total += np.asarray(values if len(values) > 1 else values * count)
    return total


def _quantiles(values: Sequence[float] | np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, float]:
    p50, p99 = np.percentile(np.asarray(values) * 1000.0, [50, 99])
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3)}


def time_link(
    speech: Samples,
    codec: Codec,
    controller: Controller,
    form: PacketFormat,
    recovery: Recovery,
    loss: float,
    seed: int,
) -> Timed:
    """A talk at the codec's sample rate through transmitter and receiver."""
    from semaphone.channel.erasure import parse_channel
    from semaphone.controller.base import LinkLoss
    from semaphone.link.receiver import Receiver, ReceiverState
    from semaphone.link.talk import Length, steps
    from semaphone.link.transmitter import Transmitter, TransmitterState
    from semaphone.packet.status import TokenStatus

    info = codec.info
    transmitter, receiver = Transmitter(codec, controller, form), Receiver(codec, recovery, form)
    sampler = parse_channel(f"uniform:{loss:g}").sampler(np.random.default_rng(seed))
    sending: TransmitterState | None = None
    hearing: ReceiverState | None = None
    computing: dict[str, list[float]] = {name: [] for name in COMPUTING}
    arrived: dict[int, bytes | None] = {}
    sent_seconds: list[dict[str, float]] = []
    going: list[int] = []  # tokens that were sent, by block
    bits = block = 0
    gone: list[int] = []
    clock = _Clock()
    for step in steps([speech], info, form.chunks_per_block, Length()):
        if len(step) < form.chunks_per_block * info.chunk_samples:
            break  # a part of a block would be another thing to time
        sent, sending = transmitter.step(step, sending, LinkLoss(loss))
        sent_seconds.append(sent.seconds)
        going.append(sum(mask.sent for mask in sent.masks))
        for packet in sent.packets:
            bits += 8 * len(packet.payload)
            arrived[packet.sequence] = None if sampler.lost(packet.send_time) else packet.payload
        while form.sequences_of(block)[-1] in arrived:
            numbers = form.sequences_of(block)
            heard, hearing = receiver.step([arrived.get(number) for number in numbers], hearing)
            _note(computing, sent_seconds[block], heard.seconds)
            gone.append(going[block] - int((heard.status == TokenStatus.RECEIVED).sum()))
            block += 1
    if block <= SKIPPED + 1:
        raise InputError(f"The talk is too short for {form.chunks_per_block}-chunk blocks; give more --seconds.")
    first, last = form.sequences_of(0)[0], form.sequences_of(0)[-1]
    waiting = {
        "block": [form.send_time(first)],
        "copies": [form.send_time(last) - form.send_time(first)],
        "lookahead": [info.delay / info.sample_rate],
    }
    seconds = (block - SKIPPED) * form.block_duration
    kept = {name: values[SKIPPED:] for name, values in computing.items()}
    busy = sum(map(sum, kept.values()))
    chunks = len(sent_seconds) * form.chunks_per_block
    lost_tokens = sum(gone[SKIPPED:]) / (len(gone[SKIPPED:]) * form.chunks_per_block)
    return Timed(
        waiting, kept, seconds, bits / chunks * info.frame_rate, info.sample_rate, busy, clock.share(), lost_tokens
    )


def _note(computing: dict[str, list[float]], sent: dict[str, float], heard: dict[str, float]) -> None:
    found = {"packetise": sent["packets"], "depacketise": heard["packets"]}
    for name, values in computing.items():
        values.append(found.get(name, sent.get(name, heard.get(name, 0.0))))


def time_baseline(speech: Samples, baseline: Baseline) -> Timed:
    """A talk through a baseline, packet by packet."""
    info = baseline.info
    size = round(info.packet_s * 16_000)
    computing: dict[str, list[float]] = {"encoder": [], "decoder": []}
    encoding = decoding = None
    bits = 0
    clock = _Clock()
    for first in range(0, len(speech) - size + 1, size):
        began = time.perf_counter()
        packets, encoding = baseline.encode(speech[first : first + size], encoding)
        encoded = time.perf_counter()
        _, decoding = baseline.decode(packets, decoding)
        computing["encoder"].append(encoded - began)
        computing["decoder"].append(time.perf_counter() - encoded)
        bits += sum(8 * len(packet.payload) for packet in packets)
    if len(computing["encoder"]) <= SKIPPED + 1:
        raise InputError(f"The talk is too short for packets of {1000 * info.packet_s:.0f} ms; give more --seconds.")
    copies = info.packet_s if getattr(baseline, "expected_loss", 0.0) > 0 else 0.0  # Opus: in the next packet
    waiting = {"block": [info.packet_s], "copies": [copies], "lookahead": [info.delay_s - info.packet_s - copies]}
    rate = bits / (len(computing["encoder"]) * info.packet_s)
    kept = {name: values[SKIPPED:] for name, values in computing.items()}
    seconds = len(kept["encoder"]) * info.packet_s
    return Timed(waiting, kept, seconds, rate, 16_000, sum(map(sum, kept.values())), clock.share())


def time_text(speech: Samples) -> Timed:
    """A talk through the text link, phrase by phrase: each is heard, sent and spoken when its last word is out."""
    from semaphone.baselines.textlink import TextLink, listen, speak
    from semaphone.metrics.text import transcribe

    link = TextLink()
    phrases = listen(speech, link.language, link.words_per_packet)
    if not phrases:
        raise InputError("No words were heard in the talk.")
    speak("Good evening.")
    context: list[float] = []
    computing: dict[str, list[float]] = {"encoder": [], "decoder": []}
    before = 0.0
    clock = _Clock()
    for phrase in phrases:
        piece = speech[round(before * 16_000) : round(phrase.end_s * 16_000)]
        context.append(phrase.end_s - before)
        before = phrase.end_s
        began = time.perf_counter()
        transcribe(piece, link.language)
        heard = time.perf_counter()
        speak(phrase.text)
        computing["encoder"].append(heard - began)
        computing["decoder"].append(time.perf_counter() - heard)
    seconds = len(speech) / 16_000
    bits = sum(packet.bits for packet in link.packets(phrases))
    busy = sum(map(sum, computing.values()))
    return Timed({"block": context}, computing, seconds, bits / seconds, 16_000, busy, clock.share())


class _Clock:
    """How much of a core a process has had since."""

    def __init__(self) -> None:
        self._wall, self._used = time.perf_counter(), time.process_time()

    def share(self) -> float:
        """1: all of one."""
        return (time.process_time() - self._used) / max(time.perf_counter() - self._wall, 1e-9)
