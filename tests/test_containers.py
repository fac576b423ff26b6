from __future__ import annotations

import numpy as np
import pytest
import soundfile

from semaphone.containers import HEAD, STREAM, container_of, enough, not_raw

# Headers without a mark of their own: a reader has to be told what they are.
WITHOUT_A_MARK = {"RAW", "SD2", "HTK", "MAT4", "MPC2K"}


def hum(samples: int = 32000, rate: int = 16000) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * 440 * np.arange(samples) / rate)).astype(np.float32)


@pytest.mark.parametrize("format", sorted(set(soundfile.available_formats()) - WITHOUT_A_MARK))
def test_no_format_that_can_be_read_passes_as_raw_samples(tmp_path, format) -> None:
    for subtype in soundfile.available_subtypes(format):
        try:
            soundfile.write(tmp_path / "a", hum(), 16000, subtype, format=format)
            break
        except (soundfile.LibsndfileError, ValueError):
            continue
    head = (tmp_path / "a").read_bytes()[:HEAD]
    assert enough(head) or len(head) < HEAD
    assert not_raw(head) is not None


@pytest.mark.parametrize(
    ("kind", "codec"),
    [
        *(("adts", "aac"), ("mp4", "aac"), ("mpegts", "aac"), ("latm", "aac"), ("mp3", "mp3"), ("mp2", "mp2")),
        *(("webm", "libopus"), ("ac3", "ac3"), ("matroska", "aac"), ("mov", "aac"), ("wv", "wavpack")),
    ],
)
def test_formats_of_pyav_do_not_pass_either(tmp_path, kind, codec) -> None:
    av = pytest.importorskip("av")
    path = str(tmp_path / "a")
    rate = 48000
    with av.open(path, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray((hum() * 32767).astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate = rate
        for given in (frame, None):
            container.mux(stream.encode(given))
    assert not_raw((tmp_path / "a").read_bytes()[:HEAD]) is not None


def test_raw_samples_pass(rng) -> None:
    for level in np.geomspace(0.3, 30000, 400):
        data = (level * rng.standard_normal(4096)).clip(-32768, 32767).astype("<i2").tobytes()
        assert not_raw(data) is None
        assert container_of(data) is None
    # Quiet samples can look like the mark of an MPEG frame; three frames in a row they are not.
    for beginning in ([-1, 16], [-1, -2], [-1025, 0], [-1, 1]):
        assert not_raw(np.array([*beginning, *[0] * 8000], "<i2").tobytes()) is None
    assert not_raw(bytes(64)) is None


def test_what_else_is_no_sound() -> None:
    assert not_raw(b"SPHN\x01") == STREAM
    assert not_raw(b"<!DOCTYPE html><html><body>no sound here") == "a text"
    assert not_raw(b"PK\x03\x04" + bytes(60)) == "a zip file"
    assert not enough(b"RI")
