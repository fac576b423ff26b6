"""The .sph file: the packets of a stream in a row, behind a header that names the codec they belong to.

    header  "SPHN" | version | size of the rest | fields | CRC-32
    record  size (varint) | packets missing before it (varint) | payload | CRC-32
    end     0 (varint) | number of samples (8 bytes) | CRC-32

docs/wire-format.md has the tables. Each record's CRC-32 continues that of the record before, so a record
that is damaged, left out or moved is noticed. Reading and writing stream; `-` is standard input or output.
"""

from __future__ import annotations

import os
import struct
import sys
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING

from semaphone.errors import InputError
from semaphone.files import replacing
from semaphone.packet.bitstream import PacketError
from semaphone.packet.sph_header import (
    CRC,
    MAGIC,
    PREFIX,
    UNKNOWN_LENGTH,
    parse_header,
    serialize_header,
)
from semaphone.packet.sph_header import SphHeader as SphHeader

if TYPE_CHECKING:
    from typing_extensions import Self

_SAMPLES = struct.Struct(">Q")
_LARGEST_GAP = 2**28 - 1  # packets missing in a row, what four bytes of varint hold: most of a year


@dataclass(frozen=True)
class SphRecord:
    """One packet of a file."""

    sequence: int  # packets that were lost before the file was written leave gaps
    payload: bytes


class SphWriter:
    """Writes a file: a context manager that leaves a whole file, or none if the block fails.

    Raises InputError if the file cannot be written.
    """

    def __init__(self, path: str | Path, header: SphHeader) -> None:
        self.path = str(path)
        self.header = header
        self.records = 0
        self._stack = ExitStack()
        self._next = 0
        self._crc = 0
        self._finished = False

    def __enter__(self) -> Self:
        self._out: IO[bytes] = sys.stdout.buffer
        if self.path != "-":
            part = self._stack.enter_context(replacing(self.path))
            self._out = self._stack.enter_context(open(part, "wb"))
        try:
            self._write(serialize_header(self.header))
        except BaseException as error:
            self._stack.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def write(self, sequence: int, payload: bytes) -> None:
        """Appends a packet. ValueError if it comes out of order or is no payload of the header's format."""
        gap = sequence - self._next
        if not 0 <= gap <= _LARGEST_GAP or not 0 < len(payload) <= self.header.format.max_payload:
            raise ValueError(f"packet {sequence} of {len(payload)} bytes cannot follow {self._next - 1}")
        self._write_checked(_varint(len(payload)) + _varint(gap) + payload)
        self._next = sequence + 1
        self.records += 1

    def finish(self, num_samples: int | None) -> None:
        """Ends the stream and says how many samples of speech it holds; the header learns it, too."""
        if num_samples is not None and not 0 <= num_samples < UNKNOWN_LENGTH:
            raise ValueError(f"a stream cannot have {num_samples} samples")
        self._write_checked(_varint(0) + _SAMPLES.pack(UNKNOWN_LENGTH if num_samples is None else num_samples))
        self._finished = True
        if self.path != "-" and self._out.seekable():
            self.header = replace(self.header, num_samples=num_samples)
            self._out.seek(0)
            self._write(serialize_header(self.header))

    def _write_checked(self, data: bytes) -> None:
        self._crc = zlib.crc32(data, self._crc)
        self._write(data + CRC.pack(self._crc))

    def _write(self, data: bytes) -> None:
        try:
            self._out.write(data)
            if self.path == "-":
                self._out.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise InputError(f"{self.path} cannot be written: {error.strerror}.") from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None and not self._finished:
                self.finish(None)
        except BaseException as failed:
            self._stack.__exit__(type(failed), failed, failed.__traceback__)
            raise
        self._stack.__exit__(kind, error, traceback)


class SphReader:
    """Reads a file: a context manager, and an iterator over its records.

    `header` is there at once; `num_samples` when the header knows it, and after the last record in any case
    (None if even the end does not say). Raises PacketError for a file that is damaged, cut short or foreign.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._in: IO[bytes] = sys.stdin.buffer
        if self.path != "-":
            if os.path.isdir(self.path):
                raise InputError(f"{self.path} is a folder, not an .sph file.")
            try:
                self._in = self._stack.enter_context(open(self.path, "rb"))
            except OSError as error:
                raise InputError(f"{self.path} cannot be read: {error.strerror}.") from error
        try:
            self.header = self._read_header()
        except BaseException:
            self._stack.close()
            raise
        self.num_samples = self.header.num_samples
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def __iter__(self) -> Iterator[SphRecord]:
        number = 0  # of the record, for people
        sequence = 0
        crc = 0
        while True:
            number += 1
            where = f"record {number}"
            size, data = self._varint(2, where)
            if size == 0:
                self._end(data, crc)
                return
            if size > self.header.format.max_payload:
                raise PacketError(f"{self._name} is damaged: {where} claims {size} bytes, more than a packet has.")
            gap, gap_data = self._varint(4, where)
            payload = self._exactly(size, where)
            crc = self._check(data + gap_data + payload, crc, where)
            sequence += gap
            yield SphRecord(sequence, payload)
            sequence += 1

    @property
    def _name(self) -> str:
        return "Standard input" if self.path == "-" else self.path

    def _read_header(self) -> SphHeader:
        data = self._in.read(PREFIX.size)
        if not data:
            raise PacketError(f"{self._name} is empty.")
        if data.startswith(b"NIST"):
            raise PacketError(f"{self._name} is a NIST SPHERE recording, not a stream of Semaphone.")
        if len(data) == PREFIX.size and data.startswith(MAGIC):
            data += self._in.read(PREFIX.unpack(data)[2] + CRC.size)
        try:
            return parse_header(data)
        except InputError as error:
            raise PacketError(f"{self._name} cannot be read: {_uncapitalised(str(error))}") from error

    def _end(self, data: bytes, crc: int) -> None:
        packed = self._exactly(_SAMPLES.size, "the end")
        self._check(data + packed, crc, "the end")
        if self._in.read(1):
            raise PacketError(f"{self._name} goes on after its end.")
        (samples,) = _SAMPLES.unpack(packed)
        known = None if samples == UNKNOWN_LENGTH else samples
        if self.header.num_samples not in (None, known):
            raise PacketError(f"{self._name} says in two places how long it is, and they differ.")
        self.num_samples = known

    def _check(self, data: bytes, crc: int, where: str) -> int:
        crc = zlib.crc32(data, crc)
        if self._exactly(CRC.size, where) != CRC.pack(crc):
            raise PacketError(f"{self._name} is damaged: the checksum of {where} is wrong.")
        return crc

    def _exactly(self, size: int, where: str) -> bytes:
        data = self._in.read(size)
        if len(data) < size:
            raise PacketError(f"{self._name} is cut short: it ends within {where}.")
        return data

    def _varint(self, longest: int, where: str) -> tuple[int, bytes]:
        """A number in groups of seven bits, lowest first, and its bytes."""
        data = b""
        value = 0
        while len(data) < longest:
            byte = self._exactly(1, where)
            value |= (byte[0] & 0x7F) << 7 * len(data)
            data += byte
            if byte[0] < 0x80:
                if byte[0] == 0 and len(data) > 1:
                    break  # a shorter way to write it exists
                return value, data
        raise PacketError(f"{self._name} is damaged: {where} has a number that is written wrongly.")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _uncapitalised(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:]
