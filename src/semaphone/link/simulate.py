"""A talk over a simulated channel: transmitter → packets → loss → receiver (LargeSC Fig 1).

link = Link(codec, FixedController(8, 2), form, HoldRecovery(), parse_channel("uniform:0.1"))
for heard in simulate(read_blocks("in.wav", 16000), link, seed=7, record=record): ...
report = record.report(link, seed=7)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from semaphone.channel.erasure import ErasureChannel, ErasureSampler
from semaphone.codec.base import Codec
from semaphone.controller.base import Controller, Mask
from semaphone.link.feedback import Feedback, Reports
from semaphone.link.receiver import Heard, Receiver, ReceiverState
from semaphone.link.report import HEADER_BYTES, LinkReport, latency, versions
from semaphone.link.talk import Length, aligned, steps
from semaphone.link.transmitter import Sent, Transmitter, TransmitterState
from semaphone.packet.format import PacketFormat
from semaphone.packet.packetizer import Packet, ReceivedChunk
from semaphone.packet.status import TokenStatus
from semaphone.recovery.base import Recovery

if TYPE_CHECKING:
    from semaphone.audio import Samples


@dataclass(frozen=True)
class Link:
    """Everything between the two ends of a talk."""

    codec: Codec
    controller: Controller
    form: PacketFormat
    recovery: Recovery
    channel: ErasureChannel
    feedback: Feedback | None = None  # how the sender learns the loss rate; None: it does not
    dtx: bool = False  # pauses are not sent


@dataclass
class Record:
    """What happened, chunk by chunk and packet by packet; grows by a few hundred bytes a second of speech."""

    length: Length = field(default_factory=Length)
    masks: list[Mask] = field(default_factory=list)  # one a chunk
    status: list[NDArray[np.int8]] = field(default_factory=list)  # [N_Q] one a chunk
    told: list[float] = field(default_factory=list)  # one a chunk: the loss rate as its sender knew it
    packets: list[tuple[float, int, int, bool]] = field(default_factory=list)  # send time, bytes, token bits, lost
    parts: dict[str, list[float]] = field(default_factory=dict)  # s of computation, one a block
    bad_packets: int = 0
    feedback_bps: float = 0.0  # of reports in the other direction

    def add(self, sent_seconds: dict[str, float], heard: Heard, masks: Sequence[Mask]) -> None:
        """One block: what its computation took and what came of its chunks."""
        self.masks.extend(masks)
        self.status.extend(row.astype(np.int8) for row in heard.status)
        self.bad_packets += heard.bad_packets
        seconds = dict(sent_seconds)
        for name, value in heard.seconds.items():
            seconds[name] = seconds.get(name, 0.0) + value
        for name, value in seconds.items():
            self.parts.setdefault(name, []).append(value)

    def report(self, link: Link, seed: int, recovery: str = "", controller: str = "") -> LinkReport:
        """The figures of the talk."""
        info = link.codec.info
        seconds = (self.length.samples or info.chunk_samples) / info.sample_rate
        wire = sum(8 * size for _, size, _, _ in self.packets)
        headers = 8 * HEADER_BYTES * len(self.packets)
        lost = sum(gone for *_, gone in self.packets)
        status = np.array(self.status).reshape(-1, info.num_codebooks)
        sent = sum(mask.sent for mask in self.masks)
        arrived = int((status == TokenStatus.RECEIVED).sum())
        return LinkReport(
            codec=info.name,
            codec_fingerprint=info.fingerprint,
            controller=controller or str(link.controller),
            schedule=link.form.name,
            channel=str(link.channel),
            recovery=recovery or type(link.recovery).__name__,
            seed=seed,
            seconds=round(seconds, 4),
            token_bps=round(sum(bits for _, _, bits, _ in self.packets) / seconds, 1),
            payload_bps=round(wire / seconds, 1),
            gross_bps=round((wire + headers) / seconds + self.feedback_bps, 1),
            feedback_bps=round(self.feedback_bps, 1),
            packets_sent=len(self.packets),
            packets_lost=lost,
            packets_bad=self.bad_packets,
            packet_loss_rate=round(lost / max(len(self.packets), 1), 5),
            token_loss_rate=round(1.0 - arrived / sent, 5) if sent else 0.0,
            latency_ms=latency(
                link.form.send_time(link.form.sequences_of(0)[-1]), info.delay / info.sample_rate, self.parts
            ),
            real_time_factor=round(sum(map(sum, self.parts.values())) / seconds, 4),
            versions=versions(),
        )


class _Waiting:
    """Blocks on their way: what was sent of each, and which of its packets arrived."""

    def __init__(self, link: Link, sampler: ErasureSampler, record: Record, reports: Reports) -> None:
        self.link, self.sampler, self.record, self.reports = link, sampler, record, reports
        self.arrived: dict[int, bytes | None] = {}
        self.sent: list[tuple[dict[str, float], list[Mask]]] = []
        self.block = 0
        self.whole = 0  # blocks whose time is over; the last one of a talk may not be full

    def send(self, packets: list[Packet]) -> None:
        """Packets leave, and some of them are lost."""
        for packet in packets:
            gone = self.link.channel.per != "token" and self.sampler.lost(packet.send_time)
            self.reports.observe(packet.sequence, packet.send_time, gone)
            self.arrived[packet.sequence] = None if gone else packet.payload
            self.record.packets.append((packet.send_time, len(packet.payload), packet.token_bits, gone))

    def complete(self, last: bool) -> Iterator[list[bytes | None]]:
        """The payloads of each block whose last packet has left."""
        form = self.link.form
        while self.block < len(self.sent):
            numbers = form.sequences_of(self.block)
            if form.block_of(numbers[-1]) >= self.whole and not last:
                return
            yield [self.arrived.get(number) for number in numbers]
            self.block += 1
            for number in [n for n in self.arrived if n < self.link.form.sequences_of(self.block)[0]]:
                del self.arrived[number]


def _lose_tokens(chunks: list[ReceivedChunk], masks: list[Mask], sampler: ErasureSampler) -> list[ReceivedChunk]:
    """Each transmission of a token is lost on its own: the paper's channel in training."""
    for chunk, mask in zip(chunks, masks, strict=True):
        gone = sampler.lost_tokens(mask.sent)
        gone[: mask.twice] &= sampler.lost_tokens(mask.twice)
        chunk.status[: mask.sent][gone] = TokenStatus.LOST
    return chunks


def simulate(blocks: Iterable[Samples], link: Link, seed: int, record: Record | None = None) -> Iterator[Samples]:
    """Speech blocks at the codec's rate → what is heard, in blocks, aligned with the input and as long.

    The same seed gives the same lost packets. `record` is filled on the way.
    """
    record = record if record is not None else Record()
    return aligned(_heard(blocks, link, seed, record), link.codec.info.delay, record.length)


def _heard(blocks: Iterable[Samples], link: Link, seed: int, record: Record) -> Iterator[Samples]:
    transmitter = Transmitter(link.codec, link.controller, link.form, link.dtx)
    receiver = Receiver(link.codec, link.recovery, link.form)
    reports = Reports(link.feedback, link.channel, link.form)
    record.feedback_bps = reports.bit_rate
    waiting = _Waiting(link, link.channel.sampler(np.random.default_rng(seed)), record, reports)
    sending: TransmitterState | None = None
    hearing: ReceiverState | None = None
    size = link.form.chunks_per_block
    for step in chain(steps(blocks, link.codec.info, size, record.length), [None]):
        if step is not None:
            told = reports.at((len(waiting.sent) + 1) * link.form.block_duration)
            record.told.extend([told.rate] * size)
            sent, sending = transmitter.step(step, sending, told)
            waiting.sent.append((sent.seconds, _filled(sent, size)))
            waiting.whole += len(sent.masks) == size
            waiting.send(sent.packets)
        else:
            waiting.send(transmitter.finish(sending))
        for payloads in waiting.complete(step is None):
            seconds, masks = waiting.sent[waiting.block]
            if link.channel.per == "token":
                chunks, bad = receiver.read(payloads)
                heard, hearing = receiver.render(_lose_tokens(chunks, masks, waiting.sampler), hearing)
                heard = replace(heard, bad_packets=bad)
            else:
                heard, hearing = receiver.step(payloads, hearing)
            record.add(seconds, heard, masks)
            yield heard.speech


def _filled(sent: Sent, size: int) -> list[Mask]:
    """The masks of a block; what is missing of a last one was sent empty."""
    return [*sent.masks, *[Mask(0, 0)] * (size - len(sent.masks))]
