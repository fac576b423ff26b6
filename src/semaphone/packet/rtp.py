"""RTP (RFC 3550 §5.1) ⇄ bytes, and the arithmetic of its numbers that wrap around.

What Semaphone puts into a packet, and what its timestamps mean, stands in docs/rtp-payload.md.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from semaphone.packet.bitstream import PacketError

RTP_VERSION = 2
RTP_HEADER = struct.Struct(">BBHII")
_EXTENSION = struct.Struct(">HH")


@dataclass(frozen=True)
class HeaderExtension:
    """A header extension (§5.3.1): what it means depends on the profile."""

    profile: int  # 16 bits, "defined by profile"
    data: bytes  # whole 32-bit words


@dataclass(frozen=True)
class RtpPacket:
    """One packet; the names are those of RFC 3550."""

    payload_type: int  # 7 bits
    sequence_number: int  # 16 bits
    timestamp: int  # 32 bits
    ssrc: int  # 32 bits
    payload: bytes = b""
    marker: bool = False
    csrc: tuple[int, ...] = ()  # up to 15
    extension: HeaderExtension | None = None
    padding_size: int = 0  # bytes after the payload, the count itself included


def is_rtcp(data: bytes) -> bool:
    """Is a datagram of a port that RTP and RTCP share an RTCP packet (RFC 5761 §4)?"""
    return len(data) > 1 and 192 <= data[1] <= 223


def serialize_rtp(packet: RtpPacket) -> bytes:
    """The bytes of a packet. Raises ValueError if a field does not fit its bits."""
    if not (0 <= packet.payload_type < 128 and len(packet.csrc) < 16 and 0 <= packet.padding_size < 256):
        raise ValueError("payload type, CSRC count or padding do not fit an RTP header")
    first = RTP_VERSION << 6 | (packet.padding_size > 0) << 5 | (packet.extension is not None) << 4 | len(packet.csrc)
    second = packet.marker << 7 | packet.payload_type
    try:
        data = RTP_HEADER.pack(first, second, packet.sequence_number, packet.timestamp, packet.ssrc)
        data += struct.pack(f">{len(packet.csrc)}I", *packet.csrc)
        if packet.extension is not None:
            words, rest = divmod(len(packet.extension.data), 4)
            if rest:
                raise ValueError("a header extension has whole 32-bit words")
            data += _EXTENSION.pack(packet.extension.profile, words) + packet.extension.data
    except struct.error as error:
        raise ValueError(f"a field does not fit an RTP header: {error}") from error
    data += packet.payload
    if packet.padding_size:
        data += bytes(packet.padding_size - 1) + bytes([packet.padding_size])
    return data


def parse_rtp(data: bytes) -> RtpPacket:
    """What the bytes say. Raises PacketError, with one sentence, for anything that is no RTP packet."""
    if len(data) < RTP_HEADER.size:
        raise PacketError(f"The RTP packet ends in the middle of its header, after {len(data)} bytes.")
    first, second, sequence_number, timestamp, ssrc = RTP_HEADER.unpack_from(data)
    if first >> 6 != RTP_VERSION:
        raise PacketError(f"The RTP packet has version {first >> 6}, not {RTP_VERSION}.")
    position = RTP_HEADER.size + 4 * (first & 15)
    if len(data) < position:
        raise PacketError("The RTP packet ends in the middle of its list of contributing sources.")
    csrc = struct.unpack_from(f">{first & 15}I", data, RTP_HEADER.size)
    extension = None
    if first & 0x10:
        extension, position = _parse_extension(data, position)
    end = len(data)
    padding_size = 0
    if first & 0x20:
        padding_size = data[-1]
        end -= padding_size
        if padding_size == 0 or end < position:
            raise PacketError(f"The RTP packet claims a padding of {padding_size} bytes, which cannot be.")
    payload = data[position:end]
    return RtpPacket(
        second & 0x7F, sequence_number, timestamp, ssrc, payload, bool(second >> 7), csrc, extension, padding_size
    )


def _parse_extension(data: bytes, position: int) -> tuple[HeaderExtension, int]:
    start = position + _EXTENSION.size
    if len(data) >= start:
        profile, words = _EXTENSION.unpack_from(data, position)
        if len(data) >= start + 4 * words:
            return HeaderExtension(profile, data[start : start + 4 * words]), start + 4 * words
    raise PacketError("The RTP packet ends in the middle of its header extension.")


def unwrap(value: int, near: int, bits: int) -> int:
    """The number closest to `near` whose last `bits` bits are `value`: undoes the wrapping of a counter."""
    size = 1 << bits
    ahead = (value - near) % size
    return near + (ahead if ahead < size // 2 else ahead - size)
