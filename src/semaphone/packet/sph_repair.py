"""Where an .sph file goes on behind a damaged record.

A record's checksum continues that of the record before. Behind damage it therefore continues what is written there
as the damaged record's checksum, or, if just that is damaged, what the record's bytes give. And wherever a record
begins, the four bytes before it are the checksum that its own continues: so a place where the stream goes on can be
told from others, even if the damage is in the size of a record.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

from semaphone.packet.sph_header import CRC

FARTHEST = 1 << 20  # bytes behind the damage that are searched
STEP = 4096  # bytes searched at a time

Look = Callable[[int], bytes]  # the next bytes of the file, without taking them


@dataclass(frozen=True)
class Passed:
    """What lies between the damage and where the file goes on."""

    bytes: int
    packets: int  # sequence numbers that it takes: packets that are missing before it, and those in it
    seeds: tuple[int, ...]  # checksums that the next record may continue; none: there is no next record


@dataclass(frozen=True)
class _Shape:
    """A record as it is written, sound or not."""

    size: int  # all of its bytes
    gap: int


@dataclass(frozen=True)
class Bounds:
    """What records can be."""

    max_payload: int  # bytes
    end: int  # bytes of the end behind its first one, without the checksum
    max_gap: int  # packets missing in a row that a damaged record is believed

    @property
    def longest(self) -> int:
        """Bytes that are enough for a record and for the end."""
        return 2 + 4 + max(self.max_payload, self.end) + CRC.size


def find_next(look: Look, seeds: tuple[int, ...], bounds: Bounds) -> Passed:
    """Passes the damaged record at the beginning of `look`; at the end of the file, all that is left."""
    data = look(2 * bounds.longest)
    shape = _mended(data, seeds, bounds)
    if shape is None:
        shape = _shape(data, bounds)
        if shape is None or not _begins(data[shape.size :], _seeds_behind(data[: shape.size], seeds), bounds):
            return _search(look, bounds)
        shape = _Shape(shape.size, shape.gap if shape.gap <= bounds.max_gap else 0)
    return Passed(shape.size, shape.gap + 1, _seeds_behind(data[: shape.size], seeds))


def _mended(data: bytes, seeds: tuple[int, ...], bounds: Bounds) -> _Shape | None:
    """The shape of the record, if one wrong bit in its first bytes, where size and gap are, is all its damage."""
    for bit in range(8 * min(6, len(data))):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        shape = _shape(changed, bounds)
        if shape is not None and any(_sound(changed, shape, seed) for seed in seeds):
            return shape
    return None


def _shape(data: bytes | bytearray, bounds: Bounds) -> _Shape | None:
    """The record that these bytes claim to begin, if it can be one and is there as a whole."""
    size, at = _varint(data, 0, 2)
    gap, at = _varint(data, at, 4) if at else (0, 0)
    whole = at + size + CRC.size
    return _Shape(whole, gap) if at and 0 < size <= bounds.max_payload and whole <= len(data) else None


def _varint(data: bytes | bytearray, at: int, longest: int) -> tuple[int, int]:
    """A number and where it ends; 0, 0 if there is none."""
    value = 0
    for i, byte in enumerate(data[at : at + longest]):
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return (0, 0) if byte == 0 and i else (value, at + i + 1)
    return 0, 0


def _sound(data: bytes | bytearray, shape: _Shape, seed: int) -> bool:
    body = shape.size - CRC.size
    return data[body : shape.size] == CRC.pack(zlib.crc32(data[:body], seed))


def _seeds_behind(record: bytes, seeds: tuple[int, ...]) -> tuple[int, ...]:
    body = len(record) - CRC.size
    return (CRC.unpack_from(record, body)[0], *(zlib.crc32(record[:body], seed) for seed in seeds[:2]))


def _begins(data: bytes, seeds: tuple[int, ...], bounds: Bounds) -> bool:
    """Whether these bytes begin with a sound record, or with the end."""
    shape = _shape(data, bounds)
    if data[:1] == b"\0" and len(data) >= 1 + bounds.end + CRC.size:
        shape = _Shape(1 + bounds.end + CRC.size, 0)
    return shape is not None and any(_sound(data, shape, seed) for seed in seeds)


def _search(look: Look, bounds: Bounds) -> Passed:
    """The first place behind the damage at which a sound record begins."""
    at = 1
    while at < FARTHEST:
        block = look(at + STEP + bounds.longest)[at - 1 :]
        for i in range(1 + CRC.size, min(STEP, len(block))):
            seed = CRC.unpack_from(block, i - CRC.size)[0]
            data = block[i : i + bounds.longest]
            if _begins(data, (seed,), bounds):
                place, usual = at - 1 + i, _shape(data, bounds)
                lost = 1 if usual is None else max(1, round(place / usual.size))  # as if they had all been as long
                return Passed(place, lost, (seed,))
        if len(block) <= STEP:
            break
        at += STEP - 1 - CRC.size
    return Passed(len(look(FARTHEST)), 0, ())
