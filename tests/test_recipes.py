"""What the recipes for a GPU take along: a packed corpus and the recogniser's encoder (docs/training.md)."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from semaphone.training.packed import is_packed

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
def test_what_a_recipe_takes_along(tmp_path):
    pytest.importorskip("ctranslate2")
    pytest.importorskip("pyworld")
    (tmp_path / "speech" / "asterisk").mkdir(parents=True)
    time = np.arange(60_000) / 16_000
    for i in range(2):
        wave = 0.1 * sum(np.cos(2 * np.pi * (110 + 40 * i) * k * time) / k for k in range(1, 20)) * (time % 0.7 < 0.5)
        soundfile.write(tmp_path / "speech" / "asterisk" / f"{i}.flac", wave, 16_000)
    packed, teacher = tmp_path / "packed", tmp_path / "teacher.safetensors"
    run("-m", "semaphone", "train", "prepare", "--data", tmp_path / "speech", "--out", packed)
    run("teacher.py", teacher)
    assert is_packed(packed)
    assert teacher.stat().st_size < 30e6
