"""`semaphone train` as a person would call it, with good settings and bad."""

import numpy as np
import pytest
import soundfile
import torch
from tests.codec.tiny import tiny_model

from semaphone.cli import main
from semaphone.codec.nano_weights import save_nano
from semaphone.codec.ranges import met_ranges
from semaphone.codec.registry import load_codec
from semaphone.recovery.registry import load_recovery


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("speech")
    rng = np.random.default_rng(1)
    for i in range(4):
        soundfile.write(root / f"{i}.wav", 0.1 * rng.standard_normal(40_000), 16000)
    model = tiny_model()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        met = met_ranges(model, [0.1 * torch.randn(2, 10 * 1280)])
    save_nano(model, root / "tiny.safetensors", {}, met)
    return root


def arguments(folder, out, *more):
    codec = str(folder / "tiny.safetensors")
    return ["train", "recovery", "--data", str(folder), "--out", str(out), "--codec", codec, *more]


@pytest.mark.slow
def test_recovery_is_trained_and_can_be_named(folder, tmp_path, capsys):
    small = ["--set", "batch=2", "--set", "crop=10", "--set", "rows=10", "--set", "dev_every=100"]
    assert main([*arguments(folder, tmp_path, "--steps", "2"), *small]) == 0
    weights = tmp_path / "recovery.safetensors"
    load_recovery(str(weights), load_codec(str(folder / "tiny.safetensors")).info)
    codec, source, out = str(folder / "tiny.safetensors"), str(folder / "0.wav"), str(tmp_path / "out.wav")
    options = ["--codec", codec, "--channel", "uniform:0.3"]
    assert main(["transmit", source, out, *options, "--recovery", str(weights)]) == 0
    assert soundfile.info(out).frames == 40_000


@pytest.mark.slow
def test_a_controller_is_trained_and_can_be_named(folder, tmp_path, capsys):
    small = ["--set", "batch=2", "--set", "crop=10", "--set", "rows=10", "--set", "dev_every=100"]
    assert main([*arguments(folder, tmp_path / "r", "--steps", "1"), *small]) == 0
    recovery = str(tmp_path / "r" / "recovery.safetensors")
    codec = str(folder / "tiny.safetensors")
    common = ["train", "controller", "--data", str(folder), "--codec", codec, "--recovery", recovery, "--steps", "2"]
    small = ["--set", "batch=2", "--set", "crop=6", "--set", "window=4", "--set", "heard=1"]
    assert main([*common, "--out", str(tmp_path / "c"), *small, "--gamma", "0.1", "0.4"]) == 0
    weights = tmp_path / "c" / "gamma-0.4" / "nano-controller.safetensors"
    assert weights.is_file()
    assert (tmp_path / "c" / "gamma-0.1" / "log.jsonl").is_file()
    assert main([*common, "--out", str(tmp_path / "x"), "--recovery", "hold"]) == 2
    assert "trained through a recovery model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--set", "batch=x"], "NAME=VALUE"),
        (["--set", "taste=1"], "no setting 'taste'"),
        (["--set", "batch=0"], "at least 1"),
        (["--set", "batch=1.5"], "of the kind"),
        (["--model", "moshi"], "--moshi"),
        (["--model", "moshi", "--align"], "for nano"),
    ],
)
def test_wrong_settings(folder, tmp_path, capsys, more, sentence):
    assert main(arguments(folder, tmp_path, *more)) == 2
    assert sentence in capsys.readouterr().err


def test_weights_that_are_not_there(folder, tmp_path, capsys):
    codec, source, out = str(folder / "tiny.safetensors"), str(folder / "0.wav"), str(tmp_path / "out.wav")
    assert main(["transmit", source, out, "--codec", codec, "--recovery", "no.safetensors"]) == 2
    assert "no weights" in capsys.readouterr().err


def test_recordings_are_packed_and_trained_from(folder, tmp_path, capsys):
    packed, run = str(tmp_path / "packed"), tmp_path / "run"
    assert main(["train", "prepare", "--data", str(folder), "--out", packed, "--cache", str(tmp_path / "c")]) == 0
    assert "4 recordings" in capsys.readouterr().out
    small = ["--set", "batch=2", "--set", "crop=6", "--set", "settle_on=2", "--set", "range_batches=1"]
    here = ["--device", "cpu", "--precision", "float32", "--no-teacher", "--steps", "1"]
    assert main(["train", "codec", "--data", packed, "--out", str(run), *small, *here]) == 0
    weights, out = str(run / "nano-codec.safetensors"), str(tmp_path / "eight.safetensors")
    ranges = ["train", "ranges", "--data", packed, "--cache", str(run / "cache"), "--weights", weights]
    assert main([*ranges, "--out", out]) == 0
    assert "ranges of" in capsys.readouterr().out
    assert main([*ranges, "--out", str(tmp_path / "x.wav")]) == 2
    assert main(["train", "codec", "--data", packed, "--out", str(run), "--device", "tpu"]) == 2
    assert main(["train", "prepare", "--data", packed, "--out", packed, "--megabytes", "0"]) == 2


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--steps", "2", "--minutes", "1"], "--steps or --minutes"),
        (["--precision", "int8"], "bf16 or float32"),
        (["--model", "moshi", "--moshi", "m", "--device", "cpu"], "for nano"),
        (["--model", "moshi", "--moshi", "m", "--precision", "bf16"], "bfloat16 or int8"),
    ],
)
def test_options_of_recovery_that_do_not_go_together(more, message, tmp_path, capsys):
    assert main(["train", "recovery", "--data", str(tmp_path), "--out", str(tmp_path / "out"), *more]) == 2
    assert message in capsys.readouterr().err
