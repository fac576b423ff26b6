"""transmit, encode, decode and models as a person would call them, with good input and bad."""

import json

import numpy as np
import pytest
import soundfile
from tests.codec.tiny import tiny_model

from semaphone.cli import main
from semaphone.codec.nano_weights import save_nano


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_nano(tiny_model(), path, {})
    return str(path)


@pytest.fixture
def wav(tmp_path, rng):
    path = tmp_path / "in put.wav"
    soundfile.write(path, 0.1 * rng.standard_normal(20_000), 16000)
    return str(path)


def fails(capsys, arguments):
    """Runs a command that must end with exit code 2 and one sentence; gives the sentence."""
    capsys.readouterr()
    code: object
    try:
        code = main(arguments)
    except SystemExit as stop:  # argparse
        code = stop.code
    text = capsys.readouterr().err
    assert code == 2, text
    assert "Traceback" not in text
    return text


def test_transmit_writes_speech_report_and_picture(tmp_path, wav, weights, capsys):
    out, report, plot = tmp_path / "out.wav", tmp_path / "report.json", tmp_path / "link.png"
    arguments = ["transmit", wav, str(out), "--codec", weights, "--channel", "gilbert-elliott:loss=0.2,burst=240ms"]
    arguments += ["--controller", "fixed", "--codebooks", "8", "--copies", "4", "--recovery", "hold", "--seed", "7"]
    assert main([*arguments, "--report", str(report), "--plot", str(plot)]) == 0
    assert soundfile.info(out).frames == 20_000
    found = json.loads(report.read_text())
    assert found["controller"] == "fixed, 8 codebooks, 4 copies"
    assert found["seed"] == 7
    assert found["packets_sent"] == 16
    assert set(found["latency_ms"]) >= {"context", "lookahead", "encoder", "recovery", "decoder", "total"}
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "of payload" in capsys.readouterr().out


def test_transmit_without_loss_is_encode_and_decode(tmp_path, wav, weights):
    direct, stored, back = tmp_path / "a.wav", tmp_path / "b.sph", tmp_path / "c.wav"
    for schedule in ("split", "block", "bundle:320ms"):
        options = ["--codec", weights, "--schedule", schedule]
        assert main(["transmit", wav, str(direct), *options]) == 0
        assert main(["encode", wav, str(stored), *options]) == 0
        assert main(["decode", str(stored), str(back), "--codec", weights]) == 0
        assert direct.read_bytes() == back.read_bytes()


@pytest.mark.parametrize("samples", [5, 100, 1280])
@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_short_recordings_of_any_rate(tmp_path, weights, samples, rate):
    source, out = tmp_path / "in.flac", tmp_path / "out.flac"
    soundfile.write(source, np.full((samples, 2), 0.99), rate)
    assert main(["transmit", str(source), str(out), "--codec", weights, "--channel", "uniform:1.0"]) == 0
    assert abs(soundfile.info(out).frames - samples * 16000 / rate) <= 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--channel", "uniform:1.5"], "1.5"),
        (["--channel", "fog"], "fog"),
        (["--codec", "opus"], "Unknown codec 'opus'"),
        (["--codebooks", "17"], "1 to 16 codebooks"),
        (["--codebooks", "0"], "1 to 16 codebooks"),
        (["--codebooks", "4", "--copies", "5"], "copies"),
        (["--copies", "-1"], "whole number"),
        (["--schedule", "later"], "later"),
        (["--plot", "picture.gif"], ".png"),
        (["--recovery", "magic"], "magic"),
        (["--seed", "x"], "whole number"),
        (["--report", "/nowhere/report.json"], "cannot be written"),
    ],
)
def test_wrong_options(tmp_path, wav, weights, capsys, options, sentence):
    out = tmp_path / "out.wav"
    arguments = ["transmit", wav, str(out)]
    if "--codec" not in options:
        arguments += ["--codec", weights]
    assert sentence in fails(capsys, [*arguments, *options])
    if "--report" not in options:
        assert not out.exists()


def test_bad_recordings(tmp_path, weights, capsys):
    out = tmp_path / "out.wav"
    (tmp_path / "text.wav").write_text("this is no recording")
    (tmp_path / "empty.wav").write_bytes(b"")
    soundfile.write(tmp_path / "nan.wav", np.array([0.1, np.nan, 0.2] * 100), 16000, "FLOAT")
    for name in ("text.wav", "empty.wav", "nan.wav", "missing.wav", "."):
        assert fails(capsys, ["transmit", str(tmp_path / name), str(out), "--codec", weights])
        assert not out.exists()
        assert fails(capsys, ["encode", str(tmp_path / name), str(tmp_path / "out.sph"), "--codec", weights])
        assert not (tmp_path / "out.sph").exists()
    assert [f.name for f in tmp_path.iterdir() if f.name.endswith(".part")] == []


def test_input_and_output_must_differ(wav, weights, capsys):
    assert "named twice" in fails(capsys, ["transmit", wav, wav, "--codec", weights])


def test_damaged_files(tmp_path, wav, weights, capsys, rng):
    stored, out = tmp_path / "a.sph", tmp_path / "out.wav"
    assert main(["encode", wav, str(stored), "--codec", weights]) == 0
    good = stored.read_bytes()
    broken = tmp_path / "broken.sph"
    for _ in range(30):
        data = bytearray(good)
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        broken.write_bytes(bytes(data))
        fails(capsys, ["decode", str(broken), str(out), "--codec", weights])
        broken.write_bytes(good[: rng.integers(len(good))])
        fails(capsys, ["decode", str(broken), str(out), "--codec", weights])
        assert not out.exists()


def test_a_file_of_another_codec_is_refused(tmp_path, wav, weights, capsys):
    other = tmp_path / "other.safetensors"
    save_nano(tiny_model(9), other, {})
    stored = tmp_path / "a.sph"
    assert main(["encode", wav, str(stored), "--codec", weights]) == 0
    text = fails(capsys, ["decode", str(stored), str(tmp_path / "out.wav"), "--codec", str(other)])
    assert "mean nothing to each other" in text


def test_models_are_listed(capsys):
    assert main(["models", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"nano", "mimi"} <= {row["name"] for row in rows}
    # What lies in the package is known to be there.
    assert [row["here"] for row in rows if row["part"] in ("channel code", "compressor")] == ["yes", "yes"]
    assert main(["models"]) == 0


def test_settings_of_a_training(tmp_path, capsys):
    base = ["train", "codec", "--data", str(tmp_path / "none"), "--out", str(tmp_path / "run"), "--no-teacher"]
    assert "not a folder" in fails(capsys, base)
    assert "--start" in fails(capsys, [*base, "--stage", "2"])
