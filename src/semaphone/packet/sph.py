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
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING

from semaphone import stopping
from semaphone.errors import InputError
from semaphone.files import replacing
from semaphone.packet import sph_repair
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
from semaphone.streams import ByteReader, standard_input, standard_output

if TYPE_CHECKING:
    from typing_extensions import Self

_SAMPLES = struct.Struct(">Q")
_BLOCK = 8192  # bytes read at once
LONGEST_GAP = 60.0  # seconds of missing packets in a row that a file may claim when it is decoded
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
        self._out: IO[bytes]
        if self.path == "-":
            self._out = standard_output()
        else:
            part = self._stack.enter_context(replacing(self.path, "stream"))
            self._out = self._stack.enter_context(open(part, "wb"))
        try:
            self._write(serialize_header(self.header))
        except BaseException as error:
            self._stack.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def write(self, sequence: int, payload: bytes) -> None:
        """Appends a packet. ValueError if it comes out of order or is no payload of the header's format."""
        stopping.check()
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

    With `mend`, what is damaged behind the header is left out and counted in `damaged`, as if the packets had been
    lost, and `cut` says that the end is missing. PacketError is then left for a file of which nothing can be used.
    """

    def __init__(self, path: str | Path, mend: bool = False) -> None:
        self.path = str(path)
        self.damaged = 0  # places at which records were left out
        self.cut = False
        self._mend = mend
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        if self.path == "-":
            self._in = _Ahead(standard_input())
        else:
            if os.path.isdir(self.path):
                raise InputError(f"{self.path} is a folder, not an .sph file.")
            try:
                self._in = _Ahead(ByteReader(self._stack.enter_context(open(self.path, "rb"))))
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
        seeds: tuple[int, ...] = (0,)  # what the next record's checksum may continue: one, or after damage two
        while True:
            number += 1
            stopping.check()
            try:
                record = self._record(seeds, f"record {number}")
            except PacketError:
                if not self._mend:
                    raise
                missing, seeds = self._pass_damage(seeds)
                if not seeds:
                    self._known_so_far(number)
                    return
                sequence += missing
                continue
            if record is None:
                return
            gap, payload, crc = record
            sequence += gap
            seeds = (crc,)
            yield SphRecord(sequence, payload)
            sequence += 1

    @property
    def _name(self) -> str:
        return "Standard input" if self.path == "-" else self.path

    def _read_header(self) -> SphHeader:
        data = self._in.take(PREFIX.size)
        if not data:
            raise PacketError(f"{self._name} is empty.")
        if data.startswith(b"NIST"):
            raise PacketError(f"{self._name} is a NIST SPHERE recording, not a stream of Semaphone.")
        if len(data) == PREFIX.size and data.startswith(MAGIC):
            data += self._in.take(PREFIX.unpack(data)[2] + CRC.size)
        try:
            return parse_header(data)
        except InputError as error:
            raise PacketError(f"{self._name} cannot be read: {_uncapitalised(str(error))}") from error

    def _record(self, seeds: tuple[int, ...], where: str) -> tuple[int, bytes, int] | None:
        """The next record as (gap, payload, checksum), None for the end. Nothing is taken if it is damaged."""
        size, first = self._varint(0, 2, where)
        if size == 0:
            self._end(first, seeds)
            return None
        if size > self.header.format.max_payload:
            raise PacketError(f"{self._name} is damaged: {where} claims {size} bytes, more than a packet has.")
        gap, second = self._varint(first, 4, where)
        data, crc = self._checked(second + size, seeds, where)
        self._in.take(len(data) + CRC.size)
        return gap, data[second:], crc

    def _end(self, first: int, seeds: tuple[int, ...]) -> None:
        data, _ = self._checked(first + _SAMPLES.size, seeds, "the end")
        if len(self._in.look(len(data) + CRC.size + 1)) > len(data) + CRC.size:
            raise PacketError(f"{self._name} goes on after its end.")
        (samples,) = _SAMPLES.unpack(data[first:])
        known = None if samples == UNKNOWN_LENGTH else samples
        if self.header.num_samples not in (None, known):
            raise PacketError(f"{self._name} says in two places how long it is, and they differ.")
        self.num_samples = known

    def _checked(self, size: int, seeds: tuple[int, ...], where: str) -> tuple[bytes, int]:
        """The next bytes, if the checksum behind them continues one of `seeds`, and that checksum."""
        data = self._exactly(0, size, where)
        stored = self._exactly(size, CRC.size, where)
        for seed in seeds:
            crc = zlib.crc32(data, seed)
            if stored == CRC.pack(crc):
                return data, crc
        raise PacketError(f"{self._name} is damaged: the checksum of {where} is wrong.")

    def _exactly(self, start: int, size: int, where: str) -> bytes:
        data = self._in.look(start + size)[start:]
        if len(data) < size:
            raise PacketError(f"{self._name} is cut short: it ends within {where}.")
        return data

    def _varint(self, start: int, longest: int, where: str) -> tuple[int, int]:
        """A number in groups of seven bits, lowest first, and where it ends."""
        value = 0
        for i in range(longest):
            byte = self._exactly(start + i, 1, where)[0]
            value |= (byte & 0x7F) << 7 * i
            if byte < 0x80:
                if byte == 0 and i:
                    break  # a shorter way to write it exists
                return value, start + i + 1
        raise PacketError(f"{self._name} is damaged: {where} has a number that is written wrongly.")

    def _pass_damage(self, seeds: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
        """Goes past what is damaged: how many packets that takes, and the seeds behind it, none at the end."""
        self.damaged += 1
        form = self.header.format
        bounds = sph_repair.Bounds(form.max_payload, _SAMPLES.size, int(LONGEST_GAP * form.packet_rate))
        passed = sph_repair.find_next(self._in.look, seeds, bounds)
        self._in.take(passed.bytes)
        return passed.packets, passed.seeds

    def _known_so_far(self, number: int) -> None:
        """The end was not found."""
        if number == 1:
            raise PacketError(f"{self._name} is damaged: nothing behind its header is sound.")
        self.cut = True


class _Ahead:
    """Bytes of a stream that can be looked at before they are taken."""

    def __init__(self, source: ByteReader) -> None:
        self._source = source
        self._held = bytearray()

    def look(self, size: int) -> bytes:
        """The next bytes, fewer only if the stream ends before."""
        while len(self._held) < size and (more := self._source.read(max(size - len(self._held), _BLOCK))):
            self._held += more
        return bytes(self._held[:size])

    def take(self, size: int) -> bytes:
        """The next bytes, which are gone then."""
        data = self.look(size)
        del self._held[: len(data)]
        return data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _uncapitalised(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:]
