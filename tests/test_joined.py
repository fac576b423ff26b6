from __future__ import annotations

import io
import itertools
import struct

import numpy as np
import pytest
import soundfile

from semaphone.joined import parts


def written(format: str, rate: int = 16000, samples: int = 32000) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, 0.3 * np.sin(np.arange(samples) / 5), rate, format=format)
    return out.getvalue()


@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG", "AIFF", "AU", "MP3"])
@pytest.mark.parametrize("rates", [(16000, 16000, 16000), (16000, 44100)])
def test_joined_files_have_parts(tmp_path, format, rates) -> None:
    pieces = [written(format, rate) for rate in rates]
    (tmp_path / "a").write_bytes(b"".join(pieces))
    starts = np.cumsum([0, *(len(piece) for piece in pieces)]).tolist()
    assert [(part.start, part.end) for part in parts(str(tmp_path / "a"))] == list(itertools.pairwise(starts))
    (tmp_path / "a").write_bytes(pieces[0])
    assert parts(str(tmp_path / "a")) == []


def wav(data_size: int, samples: bytes, riff_size: int = 0) -> bytes:
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 16000, 32000, 2, 16)
    return b"RIFF" + struct.pack("<I", riff_size) + b"WAVE" + form + b"data" + struct.pack("<I", data_size) + samples


def test_a_wav_file_that_was_never_closed_is_one_part(tmp_path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(0, bytes(1000)))
    (part,) = parts(str(path))
    assert dict(part.patches) == {4: struct.pack("<I", 1036), 40: struct.pack("<I", 1000)}
    for closed in (wav(0, b""), wav(1000, bytes(1000)), wav(0, b"LIST\x04\0\0\0abcd"), wav(0, b"\0\0")[:44]):
        path.write_bytes(closed)
        assert parts(str(path)) == []


def test_hostile_files_end(tmp_path) -> None:
    path = tmp_path / "a"
    ogg = b"OggS\0\2" + bytes(20) + b"\0"
    for data in (b"\xff" * 300_000, b"ID3" + bytes(100_000), ogg * 5000, b"fLaC\0\0\0\x22" * 5000, b"RIFF" * 1000):
        path.write_bytes(data)
        parts(str(path))
