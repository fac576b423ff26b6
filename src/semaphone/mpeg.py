"""Frames of MPEG audio (MP3, its older layers, AAC as a stream): where one begins, how long it is, what it is."""

from __future__ import annotations

import mmap
from dataclasses import dataclass

MP3_LAYERS = (1, 2, 3)
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
class Frame:
    """What a frame's header says."""

    size: int  # bytes
    # layer (0: AAC, 4: AAC in LATM), rate or its index, channels: the same all through a recording
    kind: tuple[int, int, int]
    side: int = 0  # bytes between the header and where an encoder writes "Xing"


def frame_at(data: bytes | mmap.mmap, at: int) -> Frame | None:
    """The frame of MPEG audio that begins at a place, if one does."""
    head = data[at : at + 7]
    if len(head) == 7 and head[0] == 0x56 and head[1] & 0xE0 == 0xE0:  # AAC in LATM
        return Frame(((head[1] & 0x1F) << 8 | head[2]) + 3, (_LATM, 0, 0))
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
    return Frame(size, (layer, hertz, 1 if mono else 2), side)


def _aac_frame(head: bytes) -> Frame | None:
    size = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    rate = head[2] >> 2 & 15
    if head[1] & 0xF0 != 0xF0 or rate >= _AAC_RATES or size < 7:
        return None
    return Frame(size, (0, rate, (head[2] & 1) << 2 | head[3] >> 6))
