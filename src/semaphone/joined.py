"""Where in a file recordings begin and end: in chained Ogg, in files that were joined, in one that was never closed.

Libraries read the first of several recordings, and nothing of one whose recorder never wrote how long it is.
"""

from __future__ import annotations

import io
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from semaphone.mpeg import MP3_LAYERS, Frame, frame_at

MOST_PASSED = 1 << 20  # places in an MP3 file that are no frame


@dataclass(frozen=True)
class Part:
    """Bytes of a file that are a recording of their own; `patches` are (place in the file, bytes to read there)."""

    start: int
    end: int
    patches: tuple[tuple[int, bytes], ...] = ()


def parts(path: str) -> list[Part]:
    """The recordings that follow each other in a file; empty if it is one and can be read as it is."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError):
            return []
        with data:
            return _parts(data, size)


def _parts(data: mmap.mmap, size: int) -> list[Part]:
    head = data[:12]
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":
        unclosed = _unclosed(data, size)
        if unclosed is not None:
            return [unclosed]
        starts = list(_chunks(data, size, b"RIFF", "little"))
    elif head[:4] == b"FORM":
        starts = list(_chunks(data, size, b"FORM", "big"))
    elif head[:4] == b".snd":
        starts = list(_aus(data, size))
    elif head[:4] == b"OggS":
        starts = list(_ogg_links(data, size))
    elif head[:4] == b"fLaC":
        starts = list(_flacs(data))
    elif head[:3] == b"ID3" or ((frame := frame_at(data, 0)) is not None and frame.kind[0] in MP3_LAYERS):
        starts = list(_mpegs(data, size))
    else:
        return []
    if len(starts) < 2:
        return []
    return [Part(start, end) for start, end in zip(starts, [*starts[1:], size], strict=True)]


def _unclosed(data: mmap.mmap, size: int) -> Part | None:
    """A WAV file whose recorder never wrote how long it is: its samples reach to the end of the file."""
    at = 12
    while at + 8 <= size:
        claimed = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] == b"data":
            begin = at + 8
            if claimed or begin == size or _are_chunks(data, begin, size):
                return None
            whole = min(size - begin, 0xFFFFFFFF - begin)
            riff, samples = begin + whole - 8, whole
            return Part(0, size, ((4, riff.to_bytes(4, "little")), (at + 4, samples.to_bytes(4, "little"))))
        at += 8 + claimed + claimed % 2
    return None


def _are_chunks(data: mmap.mmap, at: int, size: int) -> bool:
    """Whether chunks of a WAV file fill the rest of it."""
    while at + 8 <= size:
        if not all(0x20 <= byte < 0x7F for byte in data[at : at + 4]):
            return False
        claimed = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + claimed + claimed % 2
    return at >= size - 1 and at <= size + 1


def _chunks(data: mmap.mmap, size: int, magic: bytes, order: Literal["little", "big"]) -> Iterator[int]:
    """Where files of this kind begin that were joined."""
    at, form = 0, data[8:12]
    while at + 12 <= size and data[at : at + 4] == magic and data[at + 8 : at + 12] == form:
        yield at
        claimed = int.from_bytes(data[at + 4 : at + 8], order)
        at += 8 + claimed + claimed % 2


def _aus(data: mmap.mmap, size: int) -> Iterator[int]:
    """Where AU files begin that were joined; one that does not say how long it is reaches to the end."""
    at = 0
    while at + 24 <= size and data[at : at + 4] == b".snd":
        yield at
        header, claimed = (int.from_bytes(data[at + i : at + i + 4], "big") for i in (4, 8))
        at += max(header, 24) + claimed


def _ogg_links(data: mmap.mmap, size: int) -> Iterator[int]:
    """Where the links of a chained Ogg file begin: pages that begin a stream, after pages that do not."""
    at, beginning = 0, False
    while 0 <= at <= size - 27:
        if data[at : at + 4] != b"OggS":
            at = data.find(b"OggS", at)
            continue
        begins = bool(data[at + 5] & 2)
        if begins and not beginning:
            yield at
        beginning = begins
        segments = data[at + 26]
        at += 27 + segments + sum(data[at + 27 : at + 27 + segments])


def _flacs(data: mmap.mmap) -> Iterator[int]:
    """Where FLAC files begin that were joined: their mark, and a first block of 34 bytes."""
    at = 0
    while at >= 0:
        if data[at + 4 : at + 8] in (b"\x00\x00\x00\x22", b"\x80\x00\x00\x22"):
            yield at
        at = data.find(b"fLaC", at + 4)


def _mpegs(data: mmap.mmap, size: int) -> Iterator[int]:
    """Where MP3 recordings begin: at a new kind of frame, and at a frame that tells how long a recording is."""
    yield 0
    kind = None
    for at, frame in _frames(data, size):
        tells = frame.side and data[at + 4 + frame.side : at + 8 + frame.side] in (b"Xing", b"Info")
        following = frame_at(data, at + frame.size)
        changed = frame.kind != kind and following is not None and following.kind == frame.kind  # one alone is damaged
        if kind is not None and (tells or changed):
            yield at
        if kind is None or tells or changed:
            kind = frame.kind


def _frames(data: mmap.mmap, size: int) -> Iterator[tuple[int, Frame]]:
    """The frames of an MP3 file and their places; what lies between is passed over, up to a bound."""
    at, passed = 0, 0
    while at < size and passed < MOST_PASSED:
        frame, after = frame_at(data, at), _after_tag(data, at)
        if frame is not None and frame.kind[0] in MP3_LAYERS and (not passed or _believed(data, at, frame, size)):
            yield at, frame
            at += frame.size
        elif after is not None:
            at = after
        else:
            passed += 1
            found = data.find(b"\xff", at + 1)
            at = size if found < 0 else found


def _believed(data: mmap.mmap, at: int, frame: Frame, size: int) -> bool:
    """Whether another frame, a tag or the end follows: once there was something else, a mark may be chance."""
    after = at + frame.size
    return after >= size - 7 or frame_at(data, after) is not None or _after_tag(data, after) is not None


def _after_tag(data: mmap.mmap, at: int) -> int | None:
    """The place after a tag of an MP3 file, if one begins here."""
    head = data[at : at + 32]
    if head[:3] == b"ID3" and len(head) >= 10:
        a, b, c, d = (byte & 0x7F for byte in head[6:10])
        return at + 10 + (a << 21 | b << 14 | c << 7 | d)
    if head[:3] == b"TAG":
        return at + 128
    if head[:8] == b"APETAGEX" and len(head) == 32:
        return at + 32 + (int.from_bytes(head[12:16], "little") if head[23] & 0x20 else 0)
    return None


class Excerpt(io.RawIOBase):
    """One part of a file as a file of its own."""

    def __init__(self, path: str, part: Part) -> None:
        super().__init__()
        self._file, self._part = open(path, "rb"), part  # noqa: SIM115 (closed with this)
        self._at = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Goes to a place, counted from where the part begins."""
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._part.end - self._part.start}[whence]
        self._at = max(origin + offset, 0)
        return self._at

    def tell(self) -> int:
        """The place, counted from where the part begins."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Reads up to the end of the part."""
        place = self._part.start + self._at
        self._file.seek(place)
        data = bytearray(self._file.read(max(min(len(buffer), self._part.end - place), 0)))
        for where, patch in self._part.patches:
            for i, byte in enumerate(patch):
                if 0 <= where + i - place < len(data):
                    data[where + i - place] = byte
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        """Closes the file, too."""
        self._file.close()
        super().close()
