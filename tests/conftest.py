"""What all tests share: one thread, no hub, a seeded generator, and the path of the speech that some tests need."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# Before anything imports torch or matplotlib: tests are small, and threads would only get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

# A shell that runs the tests in the background has them ignore these, and every process that they start.
for _name, _usual in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
    if hasattr(signal, _name) and signal.getsignal(getattr(signal, _name)) == signal.SIG_IGN:
        signal.signal(getattr(signal, _name), _usual)

# A busy machine is no reason to fail.
settings.register_profile("semaphone", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("semaphone")


@pytest.fixture
def rng() -> np.random.Generator:
    """The same draws in every run."""
    return np.random.default_rng(20240607)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of recordings and network traces: ../shared/data, or what SEMAPHONE_SHARED_DATA names."""
    default = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
    path = Path(os.environ.get("SEMAPHONE_SHARED_DATA", default))
    if not path.is_dir():
        pytest.skip(f"no recordings at {path}")
    return path


@pytest.fixture(autouse=True)
def _ordinary_floats() -> Iterator[None]:
    """Commands and trainings tell the processor to flush denormal numbers; other tests want all of them back."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)
