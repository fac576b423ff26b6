from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tests.codec.tiny import tiny_model

from semaphone.channel.erasure import parse_channel
from semaphone.cli import main
from semaphone.codec.nano_weights import save_nano
from semaphone.controller.registry import ControllerSpec
from semaphone.experiments.rivals import BaselineSystem
from semaphone.experiments.systems import LinkSystem
from semaphone.experiments.timeline import send
from semaphone.experiments.timeline_page import by_phase
from semaphone.link.feedback import EXPECTED


@pytest.fixture
def speech(rng: np.random.Generator) -> np.ndarray:
    time = np.arange(64_000) / 16_000
    return (0.2 * np.sin(900 * time) * np.clip(np.sin(9 * time), 0, 1) + 0.01 * rng.standard_normal(64_000)).astype(
        np.float32
    )


@pytest.fixture
def codec(tmp_path: Path) -> str:
    save_nano(tiny_model(), tmp_path / "tiny.safetensors", {})
    return str(tmp_path / "tiny.safetensors")


def test_the_sender_hears_of_losses(speech: np.ndarray, codec: str) -> None:
    channel = parse_channel("schedule:0-1s=0,1-4s=0.4")
    system = LinkSystem("x", "ours", codec, "hold", ControllerSpec("budget", bitrate=1000))
    passed = send(system, speech, channel, 3)
    assert len(passed.speech) == len(speech)
    assert not any(gone for time, _, gone in passed.packets if time < 1)
    assert passed.told[0] == EXPECTED
    assert passed.told[12] < 0.07  # a second without loss
    assert max(passed.told) > 0.2
    calm = passed.masks[12][1]
    assert any(twice > calm for _, twice in passed.masks[20:])  # more copies, once it is known
    assert len(passed.status) == len(passed.masks)
    assert passed.chunk == 0.08


def test_a_baseline_meets_the_same_weather(speech: np.ndarray) -> None:
    pytest.importorskip("pycodec2")
    channel = parse_channel("schedule:0-2s=0,2-4s=0.99")
    passed = send(BaselineSystem("x", "codec2", "codec2:1200"), speech, channel, 1)
    assert len(passed.speech) == len(speech)
    assert not any(gone for time, _, gone in passed.packets if time < 2)
    assert np.mean([gone for time, _, gone in passed.packets if time > 2]) > 0.8
    assert passed.masks == ()


def test_means_by_phase() -> None:
    row = {"times": [0.5, 1.5, 2.5], "visqol": [2.0, 4.0, None]}
    assert by_phase(row, "visqol", [0.0, 0.1], 2.0) == [3.0, None]


def test_it_is_measured_once_and_drawn(tmp_path: Path, speech: np.ndarray, codec: str, monkeypatch) -> None:
    for package in ("visqol", "speechmos"):
        pytest.importorskip(package)
    soundfile.write(tmp_path / "talk.wav", speech, 16_000)
    out = tmp_path / "out"
    arguments = ["experiment", "timeline", "--data", str(tmp_path / "talk.wav"), "--out", str(out), "--codec", codec]
    arguments += ["--recovery", "hold", "--rivals", "", "--controllers", "fixed", "--phases", "0,0.3", "--hop", "1"]
    assert main(arguments) == 0
    text = (out / "results.jsonl").read_text()
    row = json.loads(text)
    assert row["times"] == [1.25, 2.25]
    assert len(row["plcmos"]) == 2
    assert "speechmos" in row["scorers"]
    assert (out / "timeline.png").is_file()
    assert (out / "index.html").read_text().count("<audio") == 2
    monkeypatch.setattr("semaphone.experiments.timeline.send", lambda *_: pytest.fail("sent again"))
    assert main(arguments) == 0
    assert (out / "results.jsonl").read_text() == text


@pytest.mark.parametrize("wrong", [["--phases", "0,2"], ["--phases", "x"], ["--controllers", "nobody"]])
def test_wrong_options(tmp_path: Path, speech: np.ndarray, codec: str, wrong: list[str]) -> None:
    soundfile.write(tmp_path / "talk.wav", speech, 16_000)
    arguments = ["experiment", "timeline", "--data", str(tmp_path / "talk.wav"), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--codec", codec, "--recovery", "hold", "--rivals", "", *wrong]) == 2
