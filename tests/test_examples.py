"""The programs in examples/ and the README's Python, run as somebody would run them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("speech")
    time = np.arange(24_000) / 16_000
    wave = 0.1 * sum(np.cos(2 * np.pi * 120 * k * time) / k for k in range(1, 20)) * (time % 0.5 < 0.4)
    soundfile.write(root / "in.wav", wave, 16_000)
    return root


def run(folder, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "outputs", "says"),
    [
        ("file.py", ["out.wav", "link.png"], "of the packets lost"),
        ("stream.py", ["out.wav"], ""),
        ("own_parts.py", ["out.wav"], "packets lost in the tunnel"),
    ],
)
def test_an_example_runs(folder, program, outputs, says):
    assert says in run(folder, str(ROOT / "examples" / program), "in.wav", *outputs)
    assert all((folder / name).stat().st_size > 10_000 for name in outputs)


@pytest.mark.slow
def test_the_readme_runs(folder):
    pytest.importorskip("speechmos")
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    gross = run(folder, "-c", example).split()[0]
    assert 5_000 < float(gross) < 20_000
    assert (folder / "link.png").stat().st_size > 10_000
