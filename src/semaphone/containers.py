"""What a file of sound is by its bytes, and where in it recordings begin and end.

Two questions that libraries answer wrongly or not at all: what is this that claims to be raw samples, and is there
more behind the end of the first recording (chained Ogg, files that were joined, a recorder that never closed its file)?
"""

from __future__ import annotations

import io
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

HEAD = 16384  # bytes that are enough to know any container
STREAM = "packets of Semaphone (.sph)"

# offset, bytes, what they begin
_MAGICS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"SPHN", STREAM),
    (0, b"RIFF", "a WAV recording"),
    (0, b"RIFX", "a WAV recording"),
    (0, b"RF64", "an RF64 recording"),
    (0, b"BW64", "a BW64 recording"),
    (0, b"riff\x2e\x91\xcf\x11", "a W64 recording"),
    (0, b"FORM", "an AIFF recording"),
    (0, b"fLaC", "a FLAC recording"),
    (0, b"OggS", "an Ogg recording"),
    (0, b"ID3", "an MP3 recording"),
    (4, b"ftyp", "an MP4 or m4a recording"),
    (4, b"moov", "a QuickTime recording"),
    (4, b"mdat", "a QuickTime recording"),
    (4, b"wide", "a QuickTime recording"),
    (4, b"free", "a QuickTime recording"),
    (4, b"skip", "a QuickTime recording"),
    (0, b"\x1a\x45\xdf\xa3", "a WebM or Matroska recording"),
    (0, b".snd", "an AU recording"),
    (0, b"dns.", "an AU recording"),
    (0, b"NIST_1A", "a NIST SPHERE recording"),
    (0, b"caff", "a CAF recording"),
    (0, b"#!AMR", "an AMR recording"),
    (0, b"#!SILK", "a SILK recording"),
    (0, b"ADIF", "an AAC recording"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "a WMA recording"),
    (0, b"wvpk", "a WavPack recording"),
    (0, b"MAC ", "a Monkey's Audio recording"),
    (0, b"TTA1", "a TTA recording"),
    (0, b"MPCK", "a Musepack recording"),
    (0, b"MP+", "a Musepack recording"),
    (0, b"FLV\x01", "an FLV recording"),
    (0, b".RMF", "a RealAudio recording"),
    (0, b"Creative Voice File", "a VOC recording"),
    (0, b"\x64\xa3\x01\x00", "an IRCAM recording"),
    (0, b"\x64\xa3\x02\x00", "an IRCAM recording"),
    (0, b"\x64\xa3\x03\x00", "an IRCAM recording"),
    (0, b"\x64\xa3\x04\x00", "an IRCAM recording"),
    (0, b"\x00\x01\xa3\x64", "an IRCAM recording"),
    (0, b"\x00\x02\xa3\x64", "an IRCAM recording"),
    (0, b"\x00\x03\xa3\x64", "an IRCAM recording"),
    (0, b"\x00\x04\xa3\x64", "an IRCAM recording"),
    (0, b" paf", "a PAF recording"),
    (0, b"fap ", "a PAF recording"),
    (0, b"PVF1", "a PVF recording"),
    (0, b"2BIT", "an AVR recording"),
    (0, b"Extended Instrument: ", "an XI recording"),
    (0, b"ALawSoundFile**", "a WVE recording"),
    (0, b"MATLAB 5.0 MAT-file", "a MATLAB file"),
    (0, b"\xf0\x7e\x00\x01", "an SDS recording"),
    (0, b"MThd", "a MIDI file"),
    (0, b"\x00\x00\x01\xba", "an MPEG recording"),
    (0, b"\x7f\xfe\x80\x01", "a DTS recording"),
)
# Begin other files, and no recordings.
_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"\x1f\x8b\x08", "a gzip file"),
    (b"PK\x03\x04", "a zip file"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ\x00", "an xz file"),
    (b"\x28\xb5\x2f\xfd", "a zstd file"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff\xe0", "a JPEG picture"),
    (b"\xff\xd8\xff\xe1", "a JPEG picture"),
    (b"\x7fELF", "a program"),
)
_SURE = 4  # bytes of a magic that no other data begin with by chance
_MOST_PASSED = 1 << 20  # places in an MP3 file that are no frame
_TEXT = bytes(range(0x20, 0x7F)) + b"\t\n\r\f"
_SHORTEST_TEXT = 32  # bytes
_FEW = 64  # bytes that show every magic
_FRAMES = 3  # of MPEG that have to follow each other
_AC3, _LONGEST_AC3 = b"\x0b\x77", 4096  # bytes
_PACKET = 188  # bytes of an MPEG transport stream's packets


def container_of(head: bytes) -> str | None:
    """What recording begins with these bytes, as "a WAV recording"; only if that cannot be chance."""
    for offset, magic, name in _MAGICS:
        if (len(magic) >= _SURE or magic == b"ID3") and head.startswith(magic, offset):
            return name
    return None


def not_raw(head: bytes) -> str | None:
    """What the bytes begin, if they are no raw samples: a recording in a container, a compressed file, a text."""
    for offset, magic, name in _MAGICS:
        if head.startswith(magic, offset):
            return name
    for magic, name in _OTHERS:
        if head.startswith(magic):
            return name
    if _frames_follow(head):
        return "an MP3 or AAC recording"
    if _syncs_follow(head):
        return "an AC-3 recording"
    if len(head) > 3 * _PACKET and all(head[i * _PACKET] == 0x47 for i in range(4)):
        return "an MPEG recording"
    if len(head) >= _SHORTEST_TEXT and not head[:512].translate(None, _TEXT):
        return "a text"
    return None


def enough(head: bytes) -> bool:
    """Whether `not_raw` would say the same if more bytes were known."""
    if len(head) < _FEW:
        return False
    if head[0] == 0x47:
        return len(head) > 3 * _PACKET
    return len(head) >= HEAD or (_frame(head, 0) is None and not head.startswith(_AC3))


# Frames of MPEG audio

_LAYER1, _LAYER2, _LAYER3, _LATM = range(1, 5)
_KBITS = {
    (True, _LAYER1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, _LAYER2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, _LAYER3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, _LAYER1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, _LAYER2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, _LAYER3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = (44100, 48000, 32000)
_AAC_RATES = 13  # indices that mean something


@dataclass(frozen=True)
class _Frame:
    size: int  # bytes
    kind: tuple[
        int, int, int
    ]  # layer (0: AAC, 4: AAC in LATM), rate or its index, channels: the same all through a recording
    side: int = 0  # bytes between the header and where an encoder writes "Xing"


def _frame(data: bytes | mmap.mmap, at: int) -> _Frame | None:
    """The frame of MPEG audio that begins at a place, if one does."""
    head = data[at : at + 7]
    if len(head) == 7 and head[0] == 0x56 and head[1] & 0xE0 == 0xE0:  # AAC in LATM
        return _Frame(((head[1] & 0x1F) << 8 | head[2]) + 3, (_LATM, 0, 0))
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    if layer == 4:
        return _aac_frame(head)
    rate, kbits = head[2] >> 2 & 3, head[2] >> 4
    if version == 1 or rate == 3 or kbits in (0, 15):
        return None
    first = version == 3  # MPEG 1; the later ones halve the rates
    hertz = _RATES[rate] >> (0 if first else 1 if version == 2 else 2)
    bits, padding = _KBITS[first, layer][kbits] * 1000, head[2] >> 1 & 1
    if layer == _LAYER1:
        size = (12 * bits // hertz + padding) * 4
    else:
        size = (144 if first or layer == _LAYER2 else 72) * bits // hertz + padding
    mono = head[3] >> 6 == 3
    side = (17 if mono else 32) if first else (9 if mono else 17)
    return _Frame(size, (layer, hertz, 1 if mono else 2), side)


def _aac_frame(head: bytes) -> _Frame | None:
    size = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    rate = head[2] >> 2 & 15
    if head[1] & 0xF0 != 0xF0 or rate >= _AAC_RATES or size < 7:
        return None
    return _Frame(size, (0, rate, (head[2] & 1) << 2 | head[3] >> 6))


def _frames_follow(head: bytes) -> bool:
    """Whether several frames of one kind follow each other from the beginning on."""
    at, kind = 0, None
    for _ in range(_FRAMES):
        frame = _frame(head, at)
        if frame is None or kind not in (None, frame.kind):
            return False
        at, kind = at + frame.size, frame.kind
    return True


def _syncs_follow(head: bytes) -> bool:
    """Whether the mark of AC-3 is there, and again twice at the same distance (frames may differ by two bytes)."""
    if not head.startswith(_AC3):
        return False
    at = head.find(_AC3, 2, _LONGEST_AC3)
    while at > 0:
        if any(head[2 * at + more : 2 * at + more + 2] == _AC3 for more in (-2, 0, 2)):
            return True
        at = head.find(_AC3, at + 2, _LONGEST_AC3)
    return False


# Parts of a file


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
    elif head[:3] == b"ID3" or ((frame := _frame(data, 0)) is not None and frame.kind[0] in (1, 2, 3)):
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
        if kind is not None and (tells or frame.kind != kind):
            yield at
        kind = frame.kind


def _frames(data: mmap.mmap, size: int) -> Iterator[tuple[int, _Frame]]:
    """The frames of an MP3 file and their places; what lies between is passed over, up to a bound."""
    at, passed = 0, 0
    while at < size and passed < _MOST_PASSED:
        frame, after = _frame(data, at), _after_tag(data, at)
        if frame is not None and frame.kind[0] in (1, 2, 3) and (not passed or _believed(data, at, frame, size)):
            yield at, frame
            at += frame.size
        elif after is not None:
            at = after
        else:
            passed += 1
            found = data.find(b"\xff", at + 1)
            at = size if found < 0 else found


def _believed(data: mmap.mmap, at: int, frame: _Frame, size: int) -> bool:
    """Whether another frame, a tag or the end follows: once there was something else, a mark may be chance."""
    after = at + frame.size
    return after >= size - 7 or _frame(data, after) is not None or _after_tag(data, after) is not None


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
