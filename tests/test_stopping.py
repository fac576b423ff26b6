"""Signals, as a process meets them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tests.codec.tiny import tiny_model

from semaphone import stopping
from semaphone.cli import main
from semaphone.codec.nano_weights import save_nano

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends signals")
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_nano(tiny_model(), path, {})
    return str(path)


def start(*arguments: str) -> subprocess.Popen[bytes]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-m", "semaphone", *arguments], **pipes)  # type: ignore[call-overload]


def wait_for(condition) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def parts(folder: Path) -> list[Path]:
    return list(folder.glob(".semaphone-*.part"))


def pcm(samples: int) -> bytes:
    return (3000 * np.sin(np.arange(samples) * 0.1)).astype("<i2").tobytes()


@pytest.mark.parametrize("number", SIGNALS)
def test_live_input_ends_with_a_signal_and_its_file_is_finished(tmp_path, weights, number) -> None:
    process = start("encode", "-", str(tmp_path / "live.sph"), "--codec", weights)
    assert process.stdin is not None
    process.stdin.write(pcm(16000))
    process.stdin.flush()
    wait_for(lambda: parts(tmp_path))
    time.sleep(0.3)  # what waits in the pipe counts whether it has been read or not
    process.send_signal(number)
    process.send_signal(number)  # twice, as from a terminal and from what started us: still one end
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out.startswith(b"1.0 s of speech")
    assert main(["decode", str(tmp_path / "live.sph"), str(tmp_path / "a.wav"), "--codec", weights]) == 0
    assert soundfile.info(tmp_path / "a.wav").frames == 16000
    assert parts(tmp_path) == []


def test_a_signal_before_anything_was_read_keeps_what_waits(tmp_path, weights) -> None:
    process = start("transmit", "-", str(tmp_path / "a.wav"), "--codec", weights, "--report", str(tmp_path / "r.json"))
    assert process.stdin is not None
    process.stdin.write(pcm(8000))
    process.stdin.flush()
    # Standard input is looked at before any model is loaded.
    wait_for(lambda: "torch" in Path(f"/proc/{process.pid}/maps").read_text() if Path("/proc").is_dir() else True)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert soundfile.info(tmp_path / "a.wav").frames == 8000
    assert (tmp_path / "r.json").is_file()


@pytest.mark.parametrize("number", SIGNALS)
def test_elsewhere_a_signal_leaves_nothing_half_written(tmp_path, weights, number) -> None:
    soundfile.write(tmp_path / "long.flac", np.zeros(16000 * 3600), 16000)
    process = start("encode", str(tmp_path / "long.flac"), str(tmp_path / "a.sph"), "--codec", weights)
    wait_for(lambda: parts(tmp_path))
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    assert err == b"semaphone: stopped\n"
    assert sorted(os.listdir(tmp_path)) == ["long.flac"]


def test_handlers_of_others_are_left_alone() -> None:
    def mine(number: int, frame: object) -> None:
        pass

    before = signal.signal(signal.SIGTERM, mine)
    hangup = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping.handled():
            assert signal.getsignal(signal.SIGTERM) is mine
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGHUP, hangup)


def test_a_signal_stops_once_and_live_input_ends_once(monkeypatch) -> None:
    with stopping.handled():
        signal.raise_signal(signal.SIGTERM)
        assert stopping.wanted() == signal.SIGTERM
        with pytest.raises(stopping.Stopped):
            stopping.check()
    with stopping.handled():
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(stopping.Stopped):  # it comes by itself
            time.sleep(60)
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
    stopping.check()
    with stopping.handled():
        stopping.live_input()
        assert not stopping.ended()
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert stopping.ended()
        monkeypatch.setattr(stopping, "INSIST", 0.0)
        signal.raise_signal(signal.SIGHUP)
        with pytest.raises(stopping.Stopped):  # somebody insists
            signal.raise_signal(signal.SIGINT)
    assert not stopping.ended()
    stopping.live_input()  # outside of the command line nothing changes
    assert not stopping.ended()


def test_other_threads_do_without() -> None:
    found = []

    def run() -> None:
        with stopping.handled():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]
