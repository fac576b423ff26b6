"""What a file is by its first bytes: a recording in a container, something else, or perhaps raw samples."""

from __future__ import annotations

from semaphone.mpeg import frame_at

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
_MPEG = "an MP3 or AAC recording"
_SURE = 4  # bytes of a magic that no other data begin with by chance
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
    return _MPEG if _frames_follow(head) else None


def not_raw(head: bytes) -> str | None:
    """What the bytes begin, if they are no raw samples: a recording in a container, a compressed file, a text."""
    for offset, magic, name in _MAGICS:
        if head.startswith(magic, offset):
            return name
    for magic, name in _OTHERS:
        if head.startswith(magic):
            return name
    if _frames_follow(head):
        return _MPEG
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
    return len(head) >= HEAD or (frame_at(head, 0) is None and not head.startswith(_AC3))


def _frames_follow(head: bytes) -> bool:
    """Whether several frames of one kind follow each other from the beginning on."""
    at, kind = 0, None
    for _ in range(_FRAMES):
        if 0 < at == len(head):
            return True
        frame = frame_at(head, at)
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
