"""A talk over a simulated channel: transmitter → packets → loss → receiver (LargeSC Fig 1).

link = Link(codec, FixedController(8, 2), form, HoldRecovery(), parse_channel("uniform:0.1"))
for heard in simulate(read_blocks("in.wav", 16000), link, seed=7, record=record): ...
report = record.report(link, seed=7)
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from semaphone.channel.erasure import ErasureChannel, ErasureSampler
from semaphone.codec.base import Codec
from semaphone.controller.base import NOTHING, Controller, Mask
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
    wait: float | None = None  # s that a block waits for packets after its first; None: for all that carry some of it

    def awaited(self, block: int) -> tuple[int, ...]:
        """The packets that a block waits for. Between two of them nothing comes: it is played with the last one."""
        numbers = self.form.sequences_of(block)
        if self.wait is None:
            return numbers
        latest = self.form.send_time(numbers[0]) + self.wait + 1e-9
        return tuple(number for number in numbers if self.form.send_time(number) <= latest)

    @property
    def late(self) -> int:
        """After a chunk was played, something of it may still come with so many packets (of one chunk each)."""
        return self.form.sequences_of(0)[-1] - self.awaited(0)[-1] if self.form.chunks_per_block == 1 else 0

    @property
    def context(self) -> float:
        """s from the first sample of a block until it is played, without computation and the codec's delay."""
        return self.form.send_time(self.awaited(0)[-1])


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

    def add(
        self, seconds: dict[str, float], status: Sequence[NDArray[np.int64]], masks: Sequence[Mask], bad_packets: int
    ) -> None:
        """Blocks that were computed together: what that took, and what came of their chunks."""
        self.masks.extend(masks)
        self.status.extend(row.astype(np.int8) for row in status)
        self.bad_packets += bad_packets
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
            latency_ms=latency(link.context, info.delay / info.sample_rate, self.parts),
            real_time_factor=round(sum(map(sum, self.parts.values())) / seconds, 4),
            versions=versions(),
            chunk_loss_rate=self._wholly_lost(status),
        )

    def _wholly_lost(self, status: NDArray[np.int8]) -> float:
        """Of the chunks that sent anything, the share of those of which nothing arrived."""
        spoke = np.array([mask.sent > 0 for mask in self.masks], bool)
        gone = spoke & ~(status == TokenStatus.RECEIVED).any(1)
        return round(float(gone.sum() / max(spoke.sum(), 1)), 5)


@dataclass(frozen=True)
class _Block:
    """A block on its way."""

    seconds: dict[str, float]  # that its sender computed
    masks: list[Mask]  # one a chunk; what is missing of a last block was sent empty
    payloads: list[bytes | None] = field(default_factory=list)  # that arrived, in the order of `sequences_of`
    # the same of the blocks before that were played, oldest first, as far as it has come since
    played: list[list[bytes | None]] = field(default_factory=list)


class _Waiting:
    """Blocks on their way: what was sent of each, and which of its packets arrived."""

    def __init__(self, link: Link, sampler: ErasureSampler, record: Record, reports: Reports) -> None:
        self.link, self.sampler, self.record, self.reports = link, sampler, record, reports
        self.arrived: dict[int, bytes | None] = {}
        self.sent: list[_Block] = []
        self.block = 0
        self.whole = 0  # blocks whose time is over; the last one of a talk may not be full

    def add(self, sent: Sent) -> int:
        """What the sender made of a step; returns how many blocks that were."""
        size = self.link.form.chunks_per_block
        masks = [sent.masks[i : i + size] for i in range(0, len(sent.masks), size)]
        share = {name: value / len(masks) for name, value in sent.seconds.items()}
        self.sent.extend(_Block(share, [*part, *[NOTHING] * (size - len(part))]) for part in masks)
        self.whole += len(sent.masks) // size
        return len(masks)

    def send(self, packets: list[Packet]) -> None:
        """Packets leave, and some of them are lost."""
        for packet in packets:
            gone = self.link.channel.per != "token" and self.sampler.lost(packet.send_time)
            self.reports.observe(packet.sequence, packet.send_time, gone)
            self.arrived[packet.sequence] = None if gone else packet.payload
            self.record.packets.append((packet.send_time, len(packet.payload), packet.token_bits, gone))

    def complete(self, last: bool) -> Iterator[_Block]:
        """Each block for which there is nothing more to wait, with its payloads."""
        form = self.link.form
        while self.block < len(self.sent):
            numbers = self.link.awaited(self.block)
            if form.block_of(numbers[-1]) >= self.whole and not last:
                return
            came, *played = (
                [self.arrived.get(n) if n <= numbers[-1] else None for n in form.sequences_of(block)]
                for block in (self.block, *range(max(0, self.block - self.link.late), self.block))
            )
            new = self.arrived.get(numbers[-1]) is not None
            yield replace(self.sent[self.block], payloads=came, played=played if new else [])
            self.block += 1
            first = form.sequences_of(max(0, self.block - self.link.late))[0]
            for number in [n for n in self.arrived if n < first]:
                del self.arrived[number]


def _lose_tokens(chunks: list[ReceivedChunk], masks: list[Mask], sampler: ErasureSampler) -> list[ReceivedChunk]:
    """Each transmission of a token is lost on its own: the paper's channel in training."""
    for chunk, mask in zip(chunks, masks, strict=True):
        gone = np.ones(mask.sent, bool)
        for length in mask:
            gone[:length] &= sampler.lost_tokens(length)
        chunk.status[: mask.sent][gone] = TokenStatus.LOST
    return [replace(chunk, coming=None) for chunk in chunks]  # what it holds of the next one is not lost by its packet


def simulate(
    blocks: Iterable[Samples], link: Link, seed: int, record: Record | None = None, together: int = 1
) -> Iterator[Samples]:
    """Speech blocks at the codec's rate → what is heard, in blocks, aligned with the input and as long.

    The same seed gives the same lost packets. `record` is filled on the way. Models take `together` blocks at once
    where that changes nothing but a codec's roundings: speech comes sooner, but times of computation are no call's.
    """
    record = record if record is not None else Record()
    return aligned(_heard(blocks, link, seed, record, together), link.codec.info.delay, record.length)


def _heard(blocks: Iterable[Samples], link: Link, seed: int, record: Record, together: int) -> Iterator[Samples]:
    transmitter = Transmitter(link.codec, link.controller, link.form, link.dtx)
    reports = Reports(link.feedback, link.channel, link.form)
    record.feedback_bps = reports.bit_rate
    waiting = _Waiting(link, link.channel.sampler(np.random.default_rng(seed)), record, reports)
    far = _FarSide(link, waiting.sampler, record)
    sending: TransmitterState | None = None
    # A sender that is told of losses decides block by block.
    size = link.form.chunks_per_block * (together if link.feedback is None else 1)
    ready: list[_Block] = []
    for step in chain(steps(blocks, link.codec.info, size, record.length), [None]):
        if step is not None:
            told = reports.at((len(waiting.sent) + 1) * link.form.block_duration)
            sent, sending = transmitter.step(step, sending, told)
            record.told.extend([told.rate] * (waiting.add(sent) * link.form.chunks_per_block))
            waiting.send(sent.packets)
        else:
            waiting.send(transmitter.finish(sending))
        ready += waiting.complete(step is None)
        while len(ready) >= together or (step is None and ready):
            yield far.hear(ready[:together])
            del ready[:together]


class _FarSide:
    """The receiver of a simulation."""

    def __init__(self, link: Link, sampler: ErasureSampler, record: Record) -> None:
        self.link, self.sampler, self.record = link, sampler, record
        self.receiver = Receiver(link.codec, link.recovery, link.form, link.late)
        self.state: ReceiverState | None = None

    def hear(self, blocks: list[_Block]) -> Samples:
        """The next blocks; all at once where none of them is a pause."""
        began = time.perf_counter()
        chunks, bad = self._read(blocks)
        seconds = {"packets": time.perf_counter() - began}
        speaks = not (self.state and self.state.silent) and not any(_is_pause(block) for block in chunks)
        parts = [list(chain(*chunks))] if speaks else chunks
        heard: list[Heard] = []
        for part in parts:
            one, self.state = self.receiver.render(part, self.state)
            heard.append(one)
        for computed in (*(block.seconds for block in blocks), *(one.seconds for one in heard)):
            for name, value in computed.items():
                seconds[name] = seconds.get(name, 0.0) + value
        status = [row for one in heard for row in one.status]
        self.record.add(seconds, status, [mask for block in blocks for mask in block.masks], bad)
        return np.concatenate([one.speech for one in heard])

    def _read(self, blocks: list[_Block]) -> tuple[list[list[ReceivedChunk]], int]:
        found, bad = [], 0
        for block in blocks:
            chunks, more = self.receiver.read(block.payloads)
            if self.link.channel.per == "token":
                chunks = _lose_tokens(chunks, block.masks, self.sampler)
            elif block.played:
                played = tuple(self.receiver.read(payloads)[0][0] for payloads in block.played)
                chunks = [replace(chunks[0], played=played)]
            found.append(chunks)
            bad += more
        return found, bad


def _is_pause(chunks: list[ReceivedChunk]) -> bool:
    """Does a block say that nobody talks?"""
    return all((chunk.status == TokenStatus.UNSENT).all() for chunk in chunks)
