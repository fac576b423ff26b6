from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from tests.codec.tiny import tiny_model

from semaphone.cli import main
from semaphone.codec.nano_weights import save_nano

pytest.importorskip("pylibsrtp")


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "semaphone", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_two_processes_talk_through_a_relay(tmp_path) -> None:
    save_nano(tiny_model(), tmp_path / "tiny.safetensors", {})
    key, heard, report = tmp_path / "k", tmp_path / "b.wav", tmp_path / "r.json"
    assert main(["call", "--new-key", str(key)]) == 0
    hum = 0.1 * np.sin(np.arange(32000) * 0.1)
    soundfile.write(tmp_path / "a.wav", hum, 16000)
    port, door = free_port(), free_port()
    common = ["--key-file", str(key), "--codec", str(tmp_path / "tiny.safetensors")]
    relay = start("relay", "--listen", f"127.0.0.1:{door}", "--to", f"127.0.0.1:{port}", "--loss", "0.1")
    listening = start(
        *("call", "--listen", f"127.0.0.1:{port}", "--in", "none", "--out", str(heard), "--report", str(report)),
        *common,
    )
    calling = start(
        *("call", "--connect", f"127.0.0.1:{door}", "--in", str(tmp_path / "a.wav"), "--out", "none"),
        *(*common, "--bitrate", "1000", "--dashboard"),
    )
    out, err = calling.communicate(timeout=300)
    assert calling.returncode == 0, err
    assert "encrypted: sent " in out
    out, err = listening.communicate(timeout=300)
    assert listening.returncode == 0, err
    assert "met 127.0.0.1:" in err
    assert soundfile.info(heard).samplerate == 16000
    assert json.loads(report.read_text())["meetings"] == 1
    relay.send_signal(signal.SIGINT)
    out, _ = relay.communicate(timeout=60)
    assert out.startswith("relaying from 127.0.0.1")
    assert "up: " in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "Say --listen :5004 to be called, or --connect HOST:5004 to call."),
        (["--listen", ":1"], "A call is encrypted with --key-file FILE"),
        (["--listen", ":1", "--key-file", "k", "--plain"], "A call is encrypted with --key-file FILE"),
        (["--listen", "nonsense", "--plain"], "An address is written like host:5004, not 'nonsense'."),
        (["--listen", ":1", "--key-file", "/no/such/key"], "The key file /no/such/key cannot be read"),
        (["--listen", ":1", "--plain", "--in", "x.wav", "--out", "x.wav"], "x.wav is named twice"),
    ],
)
def test_what_a_user_can_mend(capsys, arguments, sentence) -> None:
    assert main(["call", *arguments]) == 2
    assert sentence in capsys.readouterr().err


def test_missing_recordings_and_devices_are_named(tmp_path, capsys) -> None:
    save_nano(tiny_model(), tmp_path / "tiny.safetensors", {})
    common = ["call", "--listen", ":1", "--plain", "--codec", str(tmp_path / "tiny.safetensors")]
    assert main([*common, "--in", "missing.wav", "--out", "none"]) == 2
    assert "missing.wav does not exist." in capsys.readouterr().err
    assert main([*common, "--in", "none", "--out", "none", "--bitrate", "10"]) == 2
    assert "so 10 bit/s are too few" in capsys.readouterr().err
    assert main([*common, "--in", "none", "--out", "none", "--schedule", "history"]) == 2
    assert "A call cannot send a history yet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--burst", "1s"], "--burst goes with --loss."),
        (["--loss", "2"], "loss must lie between 0 and 1"),
        (["--jitter", "fast"], "A duration is written like 30ms or 2s, not 'fast'."),
        (["--channel", "trace:/no/such/trace"], "/no/such/trace cannot be read"),
    ],
)
def test_weather_that_cannot_be(capsys, arguments, sentence) -> None:
    assert main(["relay", "--listen", ":1", "--to", "127.0.0.1:2", *arguments]) == 2
    assert sentence in capsys.readouterr().err
