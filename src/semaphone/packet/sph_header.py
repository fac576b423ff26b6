"""The header of an .sph file ⇄ bytes: what a stream is, before its first packet."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from semaphone.errors import InputError
from semaphone.packet.bitstream import PacketError
from semaphone.packet.format import PacketFormat, Schedule

MAGIC = b"SPHN"
VERSION = 1
UNKNOWN_LENGTH = 2**64 - 1
PREFIX = struct.Struct(">4sBH")  # magic, version, size of what follows up to the CRC-32
# sample rate, number of samples, frame rate in mHz, codebooks, codebook size, schedule, chunks a packet,
# copy distance (of a history: horizon), spacing in ms, flags, constant size
_FIELDS = struct.Struct(">IQIBIBBBHBH")
_SCHEDULES: tuple[Schedule, ...] = ("split", "bundle", "sliding", "history")  # by their number
CRC = struct.Struct(">I")
_LOSS_REPORT = 1  # flag
_LONGEST_TEXT = 64  # characters of codec name and fingerprint


@dataclass(frozen=True)
class SphHeader:
    """What a stream is, before its first packet."""

    codec: str  # name, such as "nano"
    fingerprint: str  # of the codec's weights
    sample_rate: int  # Hz
    format: PacketFormat
    num_samples: int | None = None  # of the speech; None: not known when the header was written

    def __post_init__(self) -> None:
        for what, text in (("codec name", self.codec), ("fingerprint", self.fingerprint)):
            if not (1 <= len(text) <= _LONGEST_TEXT and text.isascii() and text.isprintable()):
                raise InputError(f"A {what} has 1 to {_LONGEST_TEXT} printable ASCII characters, not {text!r}.")
        if not 1000 <= self.sample_rate <= 384_000:
            raise InputError(f"A sample rate lies between 1000 and 384000 Hz, not at {self.sample_rate}.")
        if self.num_samples is not None and not 0 <= self.num_samples < UNKNOWN_LENGTH:
            raise InputError(f"A stream cannot have {self.num_samples} samples.")


def serialize_header(header: SphHeader) -> bytes:
    """The header's bytes, from magic to CRC-32. Their number does not depend on `num_samples`."""
    form = header.format
    fields = _FIELDS.pack(
        header.sample_rate,
        UNKNOWN_LENGTH if header.num_samples is None else header.num_samples,
        round(form.frame_rate * 1000),
        form.num_codebooks,
        form.codebook_size,
        _SCHEDULES.index(form.schedule),
        form.chunks_per_packet,
        form.copy_distance,
        round(form.spacing * 1000),
        _LOSS_REPORT if form.loss_report else 0,
        form.constant_size,
    )
    texts = b"".join(bytes([len(text)]) + text.encode() for text in (header.codec, header.fingerprint))
    data = PREFIX.pack(MAGIC, VERSION, len(fields) + len(texts)) + fields + texts
    return data + CRC.pack(zlib.crc32(data))


def parse_header(data: bytes) -> SphHeader:
    """The header at the start of `data`. Raises PacketError, with one sentence, if there is none."""
    header, rest = _split_header(data)
    if rest:
        raise PacketError("The header goes on after its checksum.")
    return header


def _split_header(data: bytes) -> tuple[SphHeader, bytes]:
    if len(data) < PREFIX.size or data[: len(MAGIC)] != MAGIC:
        raise PacketError("It is not a stream of Semaphone.")
    _, version, size = PREFIX.unpack_from(data)
    if version != VERSION:
        raise PacketError(f"It has version {version} of the format, and only version {VERSION} is known here.")
    end = PREFIX.size + size
    if len(data) < end + CRC.size:
        raise PacketError("It is cut short within its header.")
    if zlib.crc32(data[:end]) != CRC.unpack_from(data, end)[0]:
        raise PacketError("It is damaged: the checksum of its header is wrong.")
    try:
        return _parse_fields(data[PREFIX.size : end]), data[end + CRC.size :]
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise PacketError("Its header is malformed.") from error


def _parse_fields(data: bytes) -> SphHeader:
    (rate, samples, frame_mhz, codebooks, size, schedule, chunks, copies, spacing_ms, flags, constant) = (
        _FIELDS.unpack_from(data)
    )
    texts = []
    rest = data[_FIELDS.size :]
    for _ in range(2):
        texts.append(rest[1 : 1 + rest[0]].decode("ascii"))
        rest = rest[1 + rest[0] :]
    if rest or schedule >= len(_SCHEDULES) or flags & ~_LOSS_REPORT:
        raise PacketError("Its header has fields that are not known here.")
    form = PacketFormat(
        codebooks,
        size,
        frame_mhz / 1000,
        _SCHEDULES[schedule],
        chunks,
        copies,
        spacing_ms / 1000,
        bool(flags & _LOSS_REPORT),
        constant,
    )
    return SphHeader(texts[0], texts[1], rate, form, None if samples == UNKNOWN_LENGTH else samples)
