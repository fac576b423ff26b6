"""The recipes for a GPU, in seconds on a CPU: from recordings to weights, as docs/training.md has it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from semaphone.codec.nano_weights import read_nano
from semaphone.codec.registry import WEIGHTS, load_codec
from semaphone.recovery.registry import load_recovery

ROOT = Path(__file__).resolve().parent.parent


def run(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT / "recipes",
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_from_recordings_to_a_codec_and_its_recovery(tmp_path):
    pytest.importorskip("ctranslate2")
    pytest.importorskip("pyworld")
    (tmp_path / "speech" / "asterisk").mkdir(parents=True)
    time = np.arange(60_000) / 16_000
    for i in range(2):
        wave = 0.1 * sum(np.cos(2 * np.pi * (110 + 40 * i) * k * time) / k for k in range(1, 20)) * (time % 0.7 < 0.5)
        soundfile.write(tmp_path / "speech" / "asterisk" / f"{i}.flac", wave, 16_000)
    packed, teacher, out = tmp_path / "packed", tmp_path / "teacher.safetensors", tmp_path / "run"
    run("-m", "semaphone", "train", "prepare", "--data", tmp_path / "speech", "--out", packed)
    run("teacher.py", teacher)
    assert teacher.stat().st_size < 30e6
    start = WEIGHTS / "nano-codec.safetensors"
    small = ["--batch", "2", "--judged", "1", "--channels", "2", "--workers", "1", "--device", "cpu"]
    said = run(
        "nano2.py", "--packed", packed, "--teacher", teacher, "--start", start, "--out", out, "--minutes", "0.1,0.1",
        "--share", tmp_path / "share", *small,
    )  # fmt: skip
    assert "2 recordings" in said
    assert said.count("steps in") == 2
    model, met = read_nano(out / "voice" / "nano-codec.safetensors")
    assert met
    parts = sorted((tmp_path / "share").glob("nano-codec.part*"))
    assert b"".join(part.read_bytes() for part in parts) == (out / "voice" / "nano-codec.safetensors").read_bytes()
    assert model.config == read_nano(start)[0].config
    codec, rec = out / "voice" / "nano-codec.safetensors", tmp_path / "rec"
    small = ["--batch", "2", "--crop", "8", "--rows", "8", "--versions", "2", "--workers", "1", "--device", "cpu"]
    said = run("recovery_gpu.py", "--codec", codec, "--corpus", out / "cache", "--out", rec, "--minutes", "0.5", *small)
    assert "tokens: 2 utterances" in said  # one recording in two versions; the other one is the dev set
    load_recovery(str(rec / "recovery.safetensors"), load_codec(str(codec)).info)
