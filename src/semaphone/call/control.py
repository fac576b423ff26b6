"""RTCP of a call: a report every second of what was sent and heard, and what the other end's reports say."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from semaphone.call.jitter_buffer import Arrival
from semaphone.call.listener import Listener
from semaphone.call.speaker import Speaker
from semaphone.packet.rtcp import (
    Bye,
    ReceiverReport,
    ReportBlock,
    RtcpPacket,
    SenderReport,
    SourceDescription,
    VoipMetrics,
    serialize_rtcp,
)

DEAF = 8  # packets that were sent between reports of DEAF_REPORTS and did not come: one way does not work
DEAF_REPORTS = 3
NTP_EPOCH = 2_208_988_800  # s from 1900 to 1970
CNAME = "semaphone"  # RFC 7022 allows no personal name; there is one stream an end, so nothing has to be bound


def ntp(wall: float) -> int:
    """s since 1970 → NTP time, 64 bits."""
    return round((wall + NTP_EPOCH) * 2**32) % 2**64


WAYS = {
    "out": ("The other side hears what is said here again.", "The other side hears nothing of what is said here."),
    "in": ("What the other side says is heard again.", "The other side speaks, but nothing of it arrives here."),
}


@dataclass(frozen=True)
class Balance:
    """Packets of one direction since both ends met."""

    sent: int
    arrived: int

    @property
    def loss_rate(self) -> float:
        """Share of the packets that did not arrive."""
        return (self.sent - self.arrived) / self.sent if self.sent else 0.0


class _Way:
    """Does anything arrive of what is sent in one direction?"""

    def __init__(self) -> None:
        self.deaf = False
        self._told = False
        self._last: deque[Balance] = deque([Balance(0, 0)], maxlen=DEAF_REPORTS + 1)

    def add(self, balance: Balance) -> None:
        """One more report."""
        self._last.append(balance)
        first, last = self._last[0], self._last[-1]
        if last.arrived > self._last[-2].arrived:
            self.deaf = False
        elif last.arrived == first.arrived and last.sent - first.sent >= DEAF and len(self._last) > DEAF_REPORTS:
            self.deaf = True

    def changed(self) -> bool:
        """Has it changed since it was asked last?"""
        changed, self._told = self.deaf != self._told, self.deaf
        return changed


class Reports:
    """Writes our reports, reads those of the other end. Times come in, in s of the loop's clock."""

    def __init__(self, ssrc: int, speaker: Speaker, listener: Listener) -> None:
        self.ssrc, self.speaker, self.listener = ssrc, speaker, listener
        self.round_trip_ms: float | None = None
        self.metrics: VoipMetrics | None = None  # the last of the other end
        self.begin()

    def begin(self) -> None:
        """The other end starts anew: both ends count from here on."""
        self._start = self._packets_before = self.speaker.traffic.packets
        self._first_sequence = self.speaker.sequence
        self._told = 0  # packets that were sent before our report before the last one
        self._telling = 0  # ... and before the last one
        self.outgoing: Balance | None = None  # of what we send, as the other end says; None: it has said nothing
        self.incoming = Balance(0, 0)  # of what it sends, as it says
        self._ways = {"out": _Way(), "in": _Way()}
        self._expected = self._received = 0
        self._last_sr: tuple[int, float] | None = None  # middle of its NTP time, and when it came
        self._quiet = 0
        self.speaker.again = None

    @property
    def far_side_quiet(self) -> bool:
        """Has the other end had nothing to say for three reports?"""
        return self._quiet >= 3

    # --- out

    def compound(self, now: float) -> bytes:
        """SR (RR if nothing was sent since the last one), SDES and XR."""
        packets: list[RtcpPacket] = [self._first(now), SourceDescription(self.ssrc, CNAME)]
        metrics = self._metrics()
        return serialize_rtcp(packets if metrics is None else [*packets, metrics])

    def goodbye(self, now: float) -> bytes:
        """The last packet of a call."""
        return serialize_rtcp([self._first(now, last=True), SourceDescription(self.ssrc, CNAME), Bye((self.ssrc,))])

    def _first(self, now: float, last: bool = False) -> SenderReport | ReceiverReport:
        blocks = self._blocks(now)
        traffic = self.speaker.traffic
        self._told, self._telling = self._telling, traffic.packets - self._start
        if traffic.packets == self._packets_before and not (last and self._telling):
            return ReceiverReport(self.ssrc, blocks)
        self._packets_before = traffic.packets
        octets = traffic.payload_bytes % 2**32
        return SenderReport(
            self.ssrc, ntp(time.time()), self.speaker.rtp_time(now), self._telling % 2**32, octets, blocks
        )

    def _blocks(self, now: float) -> tuple[ReportBlock, ...]:
        buffer = self.listener.buffer
        if buffer is None or buffer.highest_sequence < 0:
            return ()
        expected = buffer.highest_sequence - buffer.first_sequence + 1
        since, came = expected - self._expected, buffer.received - self._received
        self._expected, self._received = expected, buffer.received
        fraction = round(256 * (since - came) / since) if since > 0 else 0
        lsr, dlsr = 0, 0
        if self._last_sr is not None:
            lsr, dlsr = self._last_sr[0], min(round((now - self._last_sr[1]) * 65536), 2**32 - 1)
        jitter = round(buffer.jitter.jitter * buffer.config.sample_rate)
        lost = expected - buffer.received
        block = ReportBlock(
            buffer.ssrc, max(0, min(fraction, 255)), lost, buffer.highest_sequence % 2**32, jitter, lsr, dlsr
        )
        return (block,)

    def _metrics(self) -> VoipMetrics | None:
        buffer = self.listener.buffer
        if buffer is None or not buffer.losses.packets:
            return None
        losses, config = buffer.losses.report(), buffer.config
        late = buffer.counts[Arrival.LATE]
        gap = 1000 / config.form.packet_rate  # ms between packets
        delay = 1000 * buffer.delay
        return VoipMetrics(
            self.ssrc,
            buffer.ssrc,
            loss_rate=_of_256(max(losses.lost - late, 0) / losses.packets),
            discard_rate=_of_256(late / losses.packets),
            burst_density=_of_256(losses.burst_density),
            gap_density=_of_256(losses.gap_density),
            burst_duration=_short(losses.burst_packets * gap),
            gap_duration=_short(losses.gap_packets * gap),
            round_trip_delay=_short(self.round_trip_ms or 0),
            end_system_delay=_short(1000 * config.form.block_duration + delay),
            jb_nominal=_short(delay),
            jb_maximum=_short(delay),
            jb_abs_max=_short(1000 * config.max_delay),
        )

    # --- in

    def receive(self, packets: Sequence[RtcpPacket], now: float) -> None:
        """A compound packet of the other end."""
        for packet in packets:
            if isinstance(packet, SenderReport):
                self._quiet = 0
                self._last_sr = (packet.ntp_time >> 16 & 0xFFFFFFFF, now)
                # When the talk's timestamps were spoken, on our clock, as far as both clocks agree.
                wall = packet.ntp_time / 2**32 - NTP_EPOCH
                self.listener.captured = (packet.rtp_time, wall - time.time() + now)
                self._round_trip(packet.reports)
                self._balance(packet.reports, packet.packet_count)
            elif isinstance(packet, ReceiverReport):
                self._quiet += 1
                self._round_trip(packet.reports)
                self._balance(packet.reports, self.incoming.sent)
            elif isinstance(packet, VoipMetrics) and packet.source == self.ssrc:
                self.metrics = packet
                # Within a burst, losses follow one another as often as its density says.
                self.speaker.again = packet.burst_density / 256

    def _balance(self, reports: Sequence[ReportBlock], sent: int) -> None:
        """What was sent and what has arrived, both ways, up to a report of the other end."""
        arrived = 0
        for block in reports:
            if block.ssrc == self.ssrc:
                # Numbers of packets wrap around in 32 bits; the first ones may be lost without it knowing.
                expected = (block.highest_sequence - self._first_sequence + 1) % 2**32
                arrived = expected - block.packets_lost if expected < 2**31 else 0
        # What has left since our report before the last one may still be on its way.
        arrived = max(0, min(arrived, self.speaker.traffic.packets - self._start))
        self.outgoing = Balance(max(self._told, arrived), arrived)
        buffer = self.listener.buffer
        received = 0 if buffer is None else buffer.received
        self.incoming = Balance(max(self.incoming.sent, sent, received), received)
        self._ways["out"].add(self.outgoing)
        self._ways["in"].add(self.incoming)

    def expected(self) -> int:
        """Packets of the other end that should have come, as far as is known."""
        buffer = self.listener.buffer
        known = (
            0 if buffer is None or buffer.highest_sequence < 0 else buffer.highest_sequence - buffer.first_sequence + 1
        )
        return max(known, self.incoming.sent)

    @property
    def hears_nothing(self) -> bool:
        """Does the other end send, and nothing of it arrives?"""
        return self._ways["in"].deaf

    def warnings(self) -> list[str]:
        """Sentences about ways that have stopped to work, or work again, since the last time."""
        found = []
        for name, sentence in WAYS.items():
            if self._ways[name].changed():
                found.append(sentence[self._ways[name].deaf])
        return found

    def _round_trip(self, reports: Sequence[ReportBlock]) -> None:
        """RFC 3550 §6.4.1: what has passed since our report, less what it lay at the other end."""
        for block in reports:
            if block.ssrc == self.ssrc and block.lsr:
                passed = (ntp(time.time()) >> 16 & 0xFFFFFFFF) - block.lsr - block.dlsr
                passed = (passed + 2**31) % 2**32 - 2**31
                self.round_trip_ms = round(max(passed, 0) / 65.536, 1)


def _of_256(share: float) -> int:
    return max(0, min(round(256 * share), 255))


def _short(value: float) -> int:
    return max(0, min(round(value), 65535))
