"""RTCP (RFC 3550 §6) and its extended reports (RFC 3611) ⇄ bytes.

packets = parse_rtcp(datagram)          # a compound packet: SR or RR first, then SDES, XR, BYE ...
datagram = serialize_rtcp(packets)

The report blocks of XR that are not the VoIP metrics (RFC 3611 §4.7) are skipped, as are packet types that are
not known here; both must have sound lengths.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from semaphone.packet.bitstream import PacketError

RTCP_VERSION = 2
SR, RR, SDES, BYE, APP, XR = 200, 201, 202, 203, 204, 207
VOIP_METRICS = 7  # block type of RFC 3611 §4.7
UNAVAILABLE = 127  # a VoIP metric that is not measured
_HEADER = struct.Struct(">BBH")
_SENDER = struct.Struct(">QIII")
_BLOCK = struct.Struct(">IIIIII")
_VOIP = struct.Struct(">I4B4H4B4BHHHH")


@dataclass(frozen=True)
class ReportBlock:
    """What a receiver says of one source (§6.4.1)."""

    ssrc: int
    fraction_lost: int  # of 256, since the report before
    packets_lost: int  # since the beginning, 24 bits with sign
    highest_sequence: int  # extended to 32 bits
    jitter: int  # interarrival, in units of the timestamp
    lsr: int  # the middle 32 bits of the last SR's NTP time; 0: none yet
    dlsr: int  # since then, in 1/65536 s


@dataclass(frozen=True)
class SenderReport:
    """SR (§6.4.1)."""

    ssrc: int
    ntp_time: int  # 64 bits: s since 1900 in 1/2^32
    rtp_time: int  # the same moment on the stream's clock
    packet_count: int
    octet_count: int
    reports: tuple[ReportBlock, ...] = ()


@dataclass(frozen=True)
class ReceiverReport:
    """RR (§6.4.2)."""

    ssrc: int
    reports: tuple[ReportBlock, ...] = ()


@dataclass(frozen=True)
class SourceDescription:
    """SDES (§6.5) with the one item that must be there, the canonical name."""

    ssrc: int
    cname: str


@dataclass(frozen=True)
class Bye:
    """BYE (§6.6)."""

    sources: tuple[int, ...]
    reason: str = ""


@dataclass(frozen=True)
class App:
    """APP (§6.7): bytes for one application."""

    ssrc: int
    name: bytes  # four ASCII characters
    data: bytes  # whole 32-bit words
    subtype: int = 0


@dataclass(frozen=True)
class VoipMetrics:
    """The VoIP metrics block of an XR packet (RFC 3611 §4.7). Rates and densities are of 256, delays in ms."""

    ssrc: int  # of the packet's sender
    source: int  # of the stream that it is about
    loss_rate: int
    discard_rate: int  # came too late or too early
    burst_density: int
    gap_density: int
    burst_duration: int
    gap_duration: int
    round_trip_delay: int
    end_system_delay: int
    gmin: int = 16  # packets that must arrive in a row to end a burst
    jb_adaptive: bool = True
    jb_nominal: int = 0
    jb_maximum: int = 0
    jb_abs_max: int = 0


RtcpPacket = SenderReport | ReceiverReport | SourceDescription | Bye | App | VoipMetrics


def serialize_rtcp(packets: Sequence[RtcpPacket]) -> bytes:
    """One compound packet. Raises ValueError if a field does not fit its bits."""
    try:
        return b"".join(_serialize(packet) for packet in packets)
    except struct.error as error:
        raise ValueError(f"a field does not fit an RTCP packet: {error}") from error


def parse_rtcp(data: bytes) -> list[RtcpPacket]:
    """The packets of a datagram. Raises PacketError, with one sentence, for anything that is no RTCP."""
    if not data:
        raise PacketError("The RTCP packet is empty.")
    found: list[RtcpPacket] = []
    position = 0
    while position < len(data):
        if len(data) - position < _HEADER.size:
            raise PacketError("The RTCP packet ends in the middle of a header.")
        first, kind, words = _HEADER.unpack_from(data, position)
        if first >> 6 != RTCP_VERSION:
            raise PacketError(f"The RTCP packet has version {first >> 6}, not {RTCP_VERSION}.")
        end = position + 4 + 4 * words
        if end > len(data):
            raise PacketError(f"The RTCP packet of type {kind} ends before its {4 + 4 * words} bytes.")
        body = data[position + 4 : end]
        if first & 0x20:
            body = _without_padding(body, last=end == len(data))
        if kind in _PARSERS:
            try:
                found += _PARSERS[kind](body, first & 31)
            except (struct.error, IndexError, UnicodeDecodeError) as error:
                raise PacketError(f"The RTCP packet of type {kind} is shorter than what it claims to hold.") from error
        position = end
    return found


def _without_padding(body: bytes, last: bool) -> bytes:
    size = body[-1] if body else 0
    if not last or size == 0 or size % 4 or size > len(body):
        raise PacketError(f"The RTCP packet claims a padding of {size} bytes, which cannot be.")
    return body[:-size]


def _packet(kind: int, count: int, body: bytes) -> bytes:
    if len(body) % 4 or not 0 <= count < 32:
        raise ValueError("an RTCP packet has whole 32-bit words and counts up to 31")
    return _HEADER.pack(RTCP_VERSION << 6 | count, kind, len(body) // 4) + body


def _serialize(packet: RtcpPacket) -> bytes:
    if isinstance(packet, SenderReport):
        times = _SENDER.pack(packet.ntp_time, packet.rtp_time, packet.packet_count, packet.octet_count)
        body = struct.pack(">I", packet.ssrc) + times + _blocks(packet.reports)
        return _packet(SR, len(packet.reports), body)
    if isinstance(packet, ReceiverReport):
        return _packet(RR, len(packet.reports), struct.pack(">I", packet.ssrc) + _blocks(packet.reports))
    if isinstance(packet, SourceDescription):
        return _packet(SDES, 1, _padded(struct.pack(">IB", packet.ssrc, 1) + _text(packet.cname) + b"\0"))
    if isinstance(packet, Bye):
        body = struct.pack(f">{len(packet.sources)}I", *packet.sources)
        return _packet(BYE, len(packet.sources), _padded(body + (_text(packet.reason) if packet.reason else b"")))
    if isinstance(packet, App):
        if len(packet.name) != 4:
            raise ValueError("the name of an APP packet has four characters")
        return _packet(APP, packet.subtype, struct.pack(">I", packet.ssrc) + packet.name + packet.data)
    return _packet(XR, 0, struct.pack(">IBBH", packet.ssrc, VOIP_METRICS, 0, 8) + _voip(packet))


def _padded(body: bytes) -> bytes:
    return body + bytes(-len(body) % 4)


def _text(text: str) -> bytes:
    data = text.encode()
    if len(data) > 255:
        raise ValueError("a text in RTCP has up to 255 bytes")
    return bytes([len(data)]) + data


def _blocks(reports: Sequence[ReportBlock]) -> bytes:
    data = b""
    for block in reports:
        lost = max(-(1 << 23), min(block.packets_lost, (1 << 23) - 1)) & 0xFFFFFF
        if not 0 <= block.fraction_lost < 256:
            raise ValueError("the fraction lost is of 256")
        data += _BLOCK.pack(
            block.ssrc, block.fraction_lost << 24 | lost, block.highest_sequence, block.jitter, block.lsr, block.dlsr
        )
    return data


def _voip(m: VoipMetrics) -> bytes:
    adaptive = (3 if m.jb_adaptive else 2) << 4  # RX config: PLC unspecified, then adaptive or not
    return _VOIP.pack(
        m.source,
        *(m.loss_rate, m.discard_rate, m.burst_density, m.gap_density),
        *(m.burst_duration, m.gap_duration, m.round_trip_delay, m.end_system_delay),
        *(UNAVAILABLE, UNAVAILABLE, UNAVAILABLE, m.gmin),  # signal, noise and echo are not measured
        *(UNAVAILABLE, UNAVAILABLE, UNAVAILABLE, UNAVAILABLE),  # nor are R factors and MOS scores
        *(adaptive << 8, m.jb_nominal, m.jb_maximum, m.jb_abs_max),
    )


def _parse_blocks(body: bytes, count: int, start: int) -> tuple[ReportBlock, ...]:
    found = []
    for i in range(count):
        ssrc, losses, highest, jitter, lsr, dlsr = _BLOCK.unpack_from(body, start + i * _BLOCK.size)
        lost = losses & 0xFFFFFF
        lost -= (lost >> 23) << 24
        found.append(ReportBlock(ssrc, losses >> 24, lost, highest, jitter, lsr, dlsr))
    return tuple(found)


def _parse_sr(body: bytes, count: int) -> list[RtcpPacket]:
    (ssrc,) = struct.unpack_from(">I", body)
    reports = _parse_blocks(body, count, 4 + _SENDER.size)
    ntp_time, rtp_time, packet_count, octet_count = _SENDER.unpack_from(body, 4)
    return [SenderReport(ssrc, ntp_time, rtp_time, packet_count, octet_count, reports)]


def _parse_rr(body: bytes, count: int) -> list[RtcpPacket]:
    (ssrc,) = struct.unpack_from(">I", body)
    return [ReceiverReport(ssrc, _parse_blocks(body, count, 4))]


def _parse_sdes(body: bytes, count: int) -> list[RtcpPacket]:
    found: list[RtcpPacket] = []
    position = 0
    for _ in range(count):
        (ssrc,) = struct.unpack_from(">I", body, position)
        position += 4
        while body[position]:
            item, size = body[position], body[position + 1]
            if position + 2 + size > len(body):
                raise IndexError
            if item == 1:
                found.append(SourceDescription(ssrc, body[position + 2 : position + 2 + size].decode()))
            position += 2 + size
        position += 4 - position % 4
    return found


def _parse_bye(body: bytes, count: int) -> list[RtcpPacket]:
    sources = struct.unpack_from(f">{count}I", body)
    rest = body[4 * count :]
    if rest and len(rest) < 1 + rest[0]:
        raise IndexError
    return [Bye(sources, rest[1 : 1 + rest[0]].decode() if rest else "")]


def _parse_app(body: bytes, count: int) -> list[RtcpPacket]:
    ssrc, name = struct.unpack_from(">I4s", body)
    return [App(ssrc, name, body[8:], count)]


def _parse_xr(body: bytes, count: int) -> list[RtcpPacket]:
    (ssrc,) = struct.unpack_from(">I", body)
    found: list[RtcpPacket] = []
    position = 4
    while position < len(body):
        kind, _, words = _HEADER.unpack_from(body, position)
        position += 4
        if position + 4 * words > len(body):
            raise IndexError
        if kind == VOIP_METRICS:
            if words != 8:
                raise IndexError
            found.append(_parse_voip(ssrc, _VOIP.unpack_from(body, position)))
        position += 4 * words
    return found


def _parse_voip(ssrc: int, values: tuple[Any, ...]) -> VoipMetrics:
    source, loss, discard, burst, gap, burst_ms, gap_ms, round_trip, end_system = values[:9]
    nominal, maximum, absolute = values[18:]
    return VoipMetrics(
        *(ssrc, source, loss, discard, burst, gap, burst_ms, gap_ms, round_trip, end_system),
        gmin=values[12],
        jb_adaptive=values[17] >> 12 & 3 == 3,
        jb_nominal=nominal,
        jb_maximum=maximum,
        jb_abs_max=absolute,
    )


_PARSERS = {SR: _parse_sr, RR: _parse_rr, SDES: _parse_sdes, BYE: _parse_bye, APP: _parse_app, XR: _parse_xr}
