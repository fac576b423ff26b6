from __future__ import annotations

import io
import os
import sys

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from semaphone.audio import AudioWriter, Resampler, _open_av, chunks, probe, read_audio, read_blocks
from semaphone.errors import InputError, InputWarning


def tone(rate: int, seconds: float = 1.0, frequency: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate)).astype(np.float32)


def sentence(call) -> str:
    with pytest.raises(InputError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 24000, 44100, 48000])
@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_every_rate_keeps_time_and_pitch(tmp_path, rate, suffix) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, tone(rate, 1.3), rate)
    got = read_audio(path, 16000)
    assert got.dtype == np.float32
    assert len(got) == round(round(1.3 * rate) * 16000 / rate)
    # Away from the ends the resampled tone is the tone itself: no delay, no loss.
    np.testing.assert_allclose(got[2000:-2000], tone(16000, 1.3)[2000 : len(got) - 2000], atol=1e-3)


@pytest.mark.parametrize("suffix", ["ogg", "mp3"])
def test_compressed_files(tmp_path, suffix) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, tone(16000), 16000)
    got = read_audio(path, 16000)
    assert abs(len(got) - 16000) < 2500
    assert 0.3 < np.sqrt(np.mean(got[4000:12000] ** 2)) < 0.4


def test_formats_that_soundfile_does_not_know(tmp_path) -> None:
    av = pytest.importorskip("av")
    path = str(tmp_path / "a.m4a")
    with av.open(path, "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone(16000)[None], format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux([*stream.encode(frame), *stream.encode(None)])
    got = read_audio(path, 8000)
    assert abs(len(got) - 8000) < 1500
    assert 0.3 < np.sqrt(np.mean(got[2000:6000] ** 2)) < 0.4
    assert probe(path).sample_rate == 16000


def test_stereo_is_averaged(tmp_path) -> None:
    left, right = tone(16000), tone(16000, frequency=300)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], 1), 16000, "FLOAT")
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav", 16000), (left + right) / 2, atol=1e-6)
    info = probe(tmp_path / "a.wav")
    assert (info.sample_rate, info.channels, info.frames, info.seconds, info.format) == (
        16000,
        2,
        16000,
        1,
        "WAV FLOAT",
    )


def test_beyond_full_scale_is_clipped(tmp_path) -> None:
    soundfile.write(tmp_path / "a.wav", 3 * tone(16000), 16000, "FLOAT")
    assert np.abs(read_audio(tmp_path / "a.wav", 16000)).max() == 1.0


def test_in_blocks_equals_at_once(rng) -> None:
    signal = rng.standard_normal(50_001).astype(np.float32)
    whole = Resampler(44100, 16000).push(signal, last=True)
    parts = Resampler(44100, 16000)
    pieces = [parts.push(piece) for piece in np.array_split(signal, 97)]
    np.testing.assert_array_equal(np.concatenate([*pieces, parts.flush()]), whole)
    assert len(whole) == round(50_001 * 16000 / 44100)


def test_same_rate_is_untouched(tmp_path, rng) -> None:
    pcm = rng.integers(-32768, 32768, 40_000, dtype=np.int16)
    soundfile.write(tmp_path / "a.wav", pcm, 16000)
    with AudioWriter(tmp_path / "b.wav", 16000) as out:
        for block in read_blocks(tmp_path / "a.wav", 16000):
            out.write(block)
    np.testing.assert_array_equal(soundfile.read(tmp_path / "b.wav", dtype="int16")[0], pcm)


@given(st.lists(st.integers(0, 40)), st.integers(1, 17))
def test_chunks_lose_nothing(lengths, size) -> None:
    signal = np.arange(sum(lengths), dtype=np.float32) + 1
    blocks = np.split(signal, np.cumsum(lengths)[:-1]) if lengths else []
    got = list(chunks(blocks, size))
    assert all(len(samples) == size for samples, _ in got)
    assert all(length == size for _, length in got[:-1])
    np.testing.assert_array_equal(np.concatenate([s[:n] for s, n in got]) if got else signal[:0], signal)
    assert not got or not got[-1][0][got[-1][1] :].any()


def write_float(path, samples) -> str:
    soundfile.write(path, samples, 16000, "FLOAT")
    return str(path)


def test_bad_input_gets_one_sentence(tmp_path) -> None:
    def read(path) -> str:
        return sentence(lambda: read_audio(path, 16000)).replace(str(tmp_path), "")

    assert read(tmp_path / "no.wav") == "/no.wav does not exist."
    assert read(tmp_path).endswith(" is a folder, not an audio file.")
    (tmp_path / "empty.wav").touch()
    assert read(tmp_path / "empty.wav") == "/empty.wav is empty."
    (tmp_path / "text.wav").write_text("These are words, not sounds.\n" * 50)
    assert read(tmp_path / "text.wav").startswith("/text.wav ")
    (tmp_path / "text.raw").write_text("These are words, not sounds.\n" * 50)
    assert read(tmp_path / "text.raw").startswith("/text.raw ")
    (tmp_path / "noise.mp3").write_bytes(np.random.default_rng(1).bytes(5000))
    assert read(tmp_path / "noise.mp3").startswith("/noise.mp3 ")
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 16000)
    assert read(tmp_path / "none.wav") == "/none.wav holds no samples."
    soundfile.write(tmp_path / "slow.wav", np.zeros(10), 1000)
    assert read(tmp_path / "slow.wav").startswith("/slow.wav has a sample rate of 1000 Hz")
    samples = tone(16000, 3)
    samples[32000] = np.nan
    nan = write_float(tmp_path / "nan.wav", samples)
    assert read(nan) == "/nan.wav has a sample that is not a finite number at 2.000 s."
    samples[32000] = 1e30
    loud = write_float(tmp_path / "loud.wav", samples)
    assert read(loud) == "/loud.wav has a sample beyond 16 times full scale at 2.000 s."


def test_a_file_cut_short_gives_what_is_there_or_a_sentence(tmp_path, rng) -> None:
    signal = 0.1 * rng.standard_normal(64000)
    sentences = []
    for suffix in ("wav", "flac", "ogg", "mp3"):
        soundfile.write(tmp_path / f"a.{suffix}", signal, 16000)
        whole = (tmp_path / f"a.{suffix}").read_bytes()
        for size in (1, 20, 100, len(whole) // 2):
            (tmp_path / f"b.{suffix}").write_bytes(whole[:size])
            try:
                assert 0 < len(read_audio(tmp_path / f"b.{suffix}", 16000)) <= 64000
            except InputError as error:
                sentences.append(str(error))
    assert sentences
    assert all(text.count("\n") == 0 for text in sentences)


def stdin(monkeypatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(data))))


def test_standard_input_is_raw_pcm(monkeypatch) -> None:
    pcm = np.arange(-3000, 3000, dtype="<i2")
    stdin(monkeypatch, pcm.tobytes() + b"\x01")
    np.testing.assert_array_equal(read_audio("-", 8000, stdin_rate=8000), pcm.astype(np.float32) / 32768)
    stdin(monkeypatch, b"RIFF0000WAVE")
    assert sentence(lambda: read_audio("-", 16000)).startswith("Standard input is an audio file (a WAV recording)")
    stdin(monkeypatch, b"{} words ".replace(b"{}", b"many") * 20)
    assert sentence(lambda: read_audio("-", 16000)).startswith("Standard input is a text; it should be raw 16-bit PCM")
    stdin(monkeypatch, b"")
    assert sentence(lambda: read_audio("-", 16000)) == "standard input holds no samples."
    stdin(monkeypatch, pcm.tobytes())
    assert "sample rate of 99 Hz" in sentence(lambda: read_audio("-", 16000, stdin_rate=99))
    monkeypatch.setattr(sys, "stdin", None)
    assert sentence(lambda: read_audio("-", 16000)).startswith("Standard input is closed")
    monkeypatch.setattr(sys, "stdin", io.StringIO("a notebook's"))
    assert sentence(lambda: read_audio("-", 16000)).startswith("Standard input is closed, or is no stream of bytes")


def test_standard_output_without_bytes_is_one_sentence(monkeypatch) -> None:
    for stream in (None, io.StringIO()):
        monkeypatch.setattr(sys, "stdout", stream)
        assert sentence(AudioWriter("-", 16000).__enter__).startswith("Standard output is closed")


def test_standard_output_is_raw_pcm(capfdbinary) -> None:
    with AudioWriter("-", 16000) as out:
        out.write(np.array([0.0, 0.5, -2.0, 2.0], np.float32))
    assert capfdbinary.readouterr().out == np.array([0, 16384, -32768, 32767], "<i2").tobytes()
    assert (out.samples_written, out.samples_clipped) == (4, 2)


def test_a_failure_leaves_what_was_there(tmp_path) -> None:
    target = tmp_path / "out.wav"
    target.write_text("before")

    def stop_half_way() -> None:
        with AudioWriter(target, 16000) as out:
            out.write(tone(16000))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stop_half_way()
    assert target.read_text() == "before"
    assert os.listdir(tmp_path) == ["out.wav"]


def test_flac_is_written(tmp_path) -> None:
    with AudioWriter(tmp_path / "a.FLAC", 24000) as out:
        out.write(tone(24000))
    assert probe(tmp_path / "a.FLAC").format == "FLAC PCM_16"
    assert os.listdir(tmp_path) == ["a.FLAC"]
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "a.FLAC").stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_target_that_cannot_be_written(tmp_path) -> None:
    def write(name) -> str:
        def call() -> None:
            with AudioWriter(tmp_path / name, 16000) as out:
                out.write(tone(16000))

        return sentence(call).replace(str(tmp_path), "")

    (tmp_path / "folder.wav").mkdir()
    assert write("folder.wav") == "/folder.wav is a folder, so nothing can be written there under that name."
    assert write("no/out.wav") == "/no/out.wav cannot be written: No such file or directory."
    assert write("out.mp3") == "/out.mp3 should end in .wav or .flac, the formats that are written."
    assert write("x" * 300 + ".wav").endswith("cannot be written: File name too long.")
    assert os.listdir(tmp_path) == ["folder.wav"]


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "aiff", "au", "mp3"])
def test_joined_recordings_of_any_rate_are_read_to_the_end(tmp_path, suffix) -> None:
    pieces = []
    for rate, channels in ((16000, 1), (44100, 2), (16000, 1)):
        soundfile.write(tmp_path / f"a.{suffix}", np.repeat(tone(rate)[:, None], channels, 1), rate)
        pieces.append((tmp_path / f"a.{suffix}").read_bytes())
    (tmp_path / f"b.{suffix}").write_bytes(b"".join(pieces))
    got = read_audio(tmp_path / f"b.{suffix}", 16000)
    assert abs(len(got) - 48000) < 200
    assert probe(tmp_path / f"b.{suffix}").seconds is None
    for second in range(3):  # the right pitch everywhere
        part = got[16000 * second + 4000 : 16000 * second + 12000]
        assert abs(np.argmax(np.abs(np.fft.rfft(part))) * 2 - 440) <= 2


def adts(rate: int) -> bytes:
    av = pytest.importorskip("av")
    out = io.BytesIO()
    with av.open(out, "w", format="adts") as container:
        stream = container.add_stream("aac", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone(rate)[None], format="fltp", layout="mono")
        frame.sample_rate = rate
        for given in (frame, None):
            container.mux(stream.encode(given))
    return out.getvalue()


def test_a_rate_that_changes_in_a_stream_keeps_time_and_pitch(tmp_path) -> None:
    (tmp_path / "a.aac").write_bytes(adts(16000) + adts(44100))
    got = read_audio(tmp_path / "a.aac", 16000)
    assert abs(len(got) - 32000) < 4000
    for part in (got[4000:12000], got[-12000:-4000]):
        assert abs(np.argmax(np.abs(np.fft.rfft(part))) * 2 - 440) <= 2


def test_a_recording_that_was_never_closed_is_read(tmp_path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(16000), 16000)
    data = bytearray((tmp_path / "a.wav").read_bytes())
    place = data.index(b"data") + 4
    data[4:8] = data[place : place + 4] = bytes(4)
    (tmp_path / "b.wav").write_bytes(data)
    np.testing.assert_array_equal(read_audio(tmp_path / "b.wav", 16000), read_audio(tmp_path / "a.wav", 16000))
    soundfile.write(tmp_path / "a.flac", tone(16000), 16000)
    data = bytearray((tmp_path / "a.flac").read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)  # the number of samples: unknown, as an encoder leaves it that writes to a pipe
    (tmp_path / "b.flac").write_bytes(data)
    assert len(read_audio(tmp_path / "b.flac", 16000)) == 16000


def test_tracks_that_cannot_be_decoded(tmp_path) -> None:
    av = pytest.importorskip("av")
    soundfile.write(tmp_path / "a.wav", tone(16000), 16000)
    data = bytearray((tmp_path / "a.wav").read_bytes())
    data[20:22] = b"\x34\x12"  # a codec that nobody knows
    (tmp_path / "a.wav").write_bytes(data)
    text = sentence(lambda: read_audio(tmp_path / "a.wav", 16000))
    assert text.endswith("a.wav holds audio of a kind that cannot be decoded here.")
    with av.open(str(tmp_path / "two.mka"), "w", format="matroska") as container:
        streams = [container.add_stream("pcm_s16le", rate=rate, layout="mono") for rate in (16000, 8000)]
        for stream in streams:
            frame = av.AudioFrame.from_ndarray((tone(stream.rate) * 32767).astype(np.int16)[None], "s16", "mono")
            frame.sample_rate = stream.rate
            for given in (frame, None):
                container.mux(stream.encode(given))
    whole = (tmp_path / "two.mka").read_bytes()
    assert probe(tmp_path / "two.mka").sample_rate == 16000
    (tmp_path / "two.mka").write_bytes(whole.replace(b"A_PCM", b"A_PCX", 1))
    assert probe(tmp_path / "two.mka").sample_rate == 8000
    assert len(read_audio(tmp_path / "two.mka", 8000)) == 8000


def test_channels_that_cancel_are_told_and_one_can_be_taken(tmp_path, recwarn) -> None:
    left = tone(16000)
    soundfile.write(tmp_path / "a.wav", np.stack([left, -left], 1), 16000, "FLOAT")
    with pytest.warns(InputWarning, match="cancel each other"):
        assert not read_audio(tmp_path / "a.wav", 16000).any()
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav", 16000, channel=1), left)
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav", 16000, channel=2), -left)
    text = sentence(lambda: read_audio(tmp_path / "a.wav", 16000, channel=3))
    assert text.endswith("a.wav has 2 channels; there is no channel 3.")
    recwarn.clear()
    for other in (left, 0 * left, tone(16000, frequency=700)):
        soundfile.write(tmp_path / "b.wav", np.stack([left, other], 1), 16000)
        read_audio(tmp_path / "b.wav", 16000)
    soundfile.write(tmp_path / "b.wav", np.zeros((1000, 2)), 16000)
    read_audio(tmp_path / "b.wav", 16000)
    assert not recwarn.list


def test_names_that_are_no_text(tmp_path) -> None:
    pytest.importorskip("av")
    for suffix, data in ((b"wav", None), (b"aac", adts(16000))):
        name = os.fsdecode(os.fsencode(tmp_path) + b"/na\xffme." + suffix)
        try:
            open(name, "wb").close()
        except OSError:
            pytest.skip("this file system takes only text as names")
        if data is None:
            with AudioWriter(name, 16000) as out:
                out.write(tone(16000))
        else:
            with open(name, "wb") as file:
                file.write(data)
        assert abs(len(read_audio(name, 16000)) - 16000) < 3000
    os.symlink("loop.wav", tmp_path / "loop.wav")
    assert "loop.wav cannot be read: " in sentence(lambda: read_audio(tmp_path / "loop.wav", 16000))


def test_the_decoder_of_mp3_says_nothing(tmp_path, capfd) -> None:
    soundfile.write(tmp_path / "a.mp3", tone(16000), 16000)
    data = (tmp_path / "a.mp3").read_bytes()
    (tmp_path / "a.mp3").write_bytes(b"ID3\x03\0\0\0\0\0\x14TIT2\0\0\0\x63\0\0" + bytes(10) + data[:-200] + bytes(600))
    read_audio(tmp_path / "a.mp3", 16000)
    assert capfd.readouterr().err == ""


def test_packets_are_no_recording(tmp_path) -> None:
    (tmp_path / "a.wav").write_bytes(b"SPHN" + bytes(100))
    assert "semaphone decode" in sentence(lambda: read_audio(tmp_path / "a.wav", 16000))
    text = sentence(AudioWriter(tmp_path / "a.wav", 16000).__enter__)
    assert "is not replaced by something else" in text


def test_without_pyav_the_extra_that_brings_it_is_named(tmp_path, monkeypatch) -> None:
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0 ftypM4A " + bytes(100))
    monkeypatch.setitem(sys.modules, "av", None)
    assert "pip install 'semaphone[formats]'" in sentence(lambda: read_audio(tmp_path / "a.m4a", 16000))


def test_inputs_that_went_wrong_for_others(shared_data) -> None:
    pytest.importorskip("av")
    folder = shared_data / "trials"
    if not folder.is_dir():
        pytest.skip("no such inputs")
    assert len(read_audio(folder / "never-closed.wav", 16000)) == 16000
    assert "cannot be decoded here" in sentence(lambda: read_audio(folder / "unknown-codec.wav", 16000))
    assert abs(len(read_audio(folder / "rate-changes.aac", 16000)) / 16000 - 2.1) < 0.1
    with pytest.warns(InputWarning, match="cancel each other"):
        read_audio(folder / "opposite-polarity.wav", 16000)


def test_many_channels(tmp_path) -> None:
    pytest.importorskip("av")
    samples = np.repeat(tone(16000)[:, None], 12, 1)
    soundfile.write(tmp_path / "a.caf", samples, 16000, "FLOAT", format="CAF")
    blocks = [block for block, _ in _open_av(str(tmp_path / "a.caf")).blocks]
    np.testing.assert_array_equal(np.concatenate(blocks), samples)
