import json

import numpy as np
import pytest
import soundfile
from tests.codec.tiny import tiny_model

from semaphone.baselines.textlink import speak
from semaphone.cli import main
from semaphone.codec.nano_weights import save_nano
from semaphone.experiments.demo import Row
from semaphone.experiments.listen import listening_page


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "tiny.safetensors"
    save_nano(tiny_model(), path, {})
    return str(path)


@pytest.mark.slow
def test_the_demonstration_leaves_what_it_promises(tmp_path, weights, capsys, monkeypatch):
    monkeypatch.setattr("semaphone.experiments.demo.LOSSES", (0.0, 0.3))
    wav = tmp_path / "my own.wav"
    soundfile.write(wav, speak("Good evening from the coast."), 16000)
    out = tmp_path / "de mo"
    assert main(["demo", "--input", str(wav), "--out", str(out), "--codec", weights]) == 0
    report = json.loads((out / "report.json").read_text())
    assert [row["loss"] for row in report["rows"][::3]] == [0.0, 0.3]
    assert [row["system"] for row in report["rows"][:3]] == ["Semaphone", "Opus 6 kbit/s", "text link"]
    for row in report["rows"]:
        assert (out / row["file"]).is_file()
    lost = [row["packets_lost"] for row in report["rows"] if row["system"] == "Semaphone"]
    assert lost[0] == 0 < lost[1]
    assert (out / "link.png").read_bytes().startswith(b"\x89PNG")
    assert "original.wav" in (out / "index.html").read_text()
    assert "Semaphone" in capsys.readouterr().out


def test_a_missing_recording_is_one_sentence(tmp_path, weights, capsys):
    assert main(["demo", "--input", str(tmp_path / "no.wav"), "--out", str(tmp_path / "out"), "--codec", weights]) == 2
    assert not (tmp_path / "out").exists()


def test_the_page_has_a_player_for_every_row():
    row = Row("A & B", 0.1, "a.wav", 1.0, 2.0, 3.0, 10, 1, None, 2.5, 0.1, 180.0)
    page = listening_page([row, row])
    assert page.count("<audio") == 3
    assert "A &amp; B" in page
    assert "–" in page


def test_its_own_recordings_are_no_input(tmp_path, capsys):
    for name in ("original.wav", "opus-30.wav"):
        soundfile.write(tmp_path / name, np.zeros(1600), 16000)
        before = (tmp_path / name).read_bytes()
        assert main(["demo", "--input", str(tmp_path / name), "--out", str(tmp_path / "." / "x" / "..")]) == 2
        assert "would be written anew" in capsys.readouterr().err
        assert (tmp_path / name).read_bytes() == before
