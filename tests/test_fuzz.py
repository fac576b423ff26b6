"""The campaign of hostile inputs, a short one; a long one is `python benchmarks/fuzz.py`."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_a_short_campaign():
    command = [sys.executable, str(ROOT / "benchmarks" / "fuzz.py"), "--count", "3800", "--seed", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "no error that is not documented" in done.stdout
