from __future__ import annotations

import asyncio
import fcntl
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
from tests.call.ends import end
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


@pytest.fixture
def common(tmp_path) -> list[str]:
    """Options of both ends of a call."""
    save_nano(tiny_model(), tmp_path / "tiny.safetensors", {})
    assert main(["call", "--new-key", str(tmp_path / "k")]) == 0
    soundfile.write(tmp_path / "a.wav", 0.1 * np.sin(np.arange(16000 * 60) * 0.1), 16000)
    return ["--key-file", str(tmp_path / "k"), "--codec", str(tmp_path / "tiny.safetensors"), "--recovery", "hold"]


def line_of(process: subprocess.Popen[str], text: str) -> str:
    """Reads standard error up to a line with that text."""
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return line
    raise AssertionError(f"{text!r} never came")


def listening(port: int, *options: str) -> subprocess.Popen[str]:
    return start("call", "--listen", f"127.0.0.1:{port}", *options)


def calling(port: int, *options: str) -> subprocess.Popen[str]:
    return start("call", "--connect", f"127.0.0.1:{port}", *options)


INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


@pytest.mark.parametrize("signals", [(INT, INT), (INT, TERM, INT), (HUP,)])
def test_signals_end_a_call_and_what_was_heard_is_kept(tmp_path, common, signals) -> None:
    port, heard, report = free_port(), tmp_path / "b.wav", tmp_path / "r.json"
    one = listening(port, "--in", "none", "--out", str(heard), "--report", str(report), *common)
    other = calling(port, "--in", str(tmp_path / "a.wav"), "--out", "none", *common)
    line_of(one, "met 127.0.0.1")
    time.sleep(1.0)
    for number in signals:
        one.send_signal(number)
        time.sleep(0.02)
    _, err = one.communicate(timeout=60)
    assert one.returncode == 0, err
    assert soundfile.info(heard).frames > 8000
    assert json.loads(report.read_text())["packets_received"] > 5
    _, err = other.communicate(timeout=60)
    assert other.returncode == 0
    assert "the other side has hung up" in err
    assert not list(tmp_path.glob(".semaphone*"))


def test_a_terminal_that_closes_ends_a_call_and_what_was_heard_is_kept(tmp_path, common) -> None:
    port, heard = free_port(), tmp_path / "b.wav"
    terminal, inside = os.openpty()
    command = [sys.executable, "-m", "semaphone", "call", "--listen", f"127.0.0.1:{port}"]
    one = subprocess.Popen(
        [*command, "--in", "none", "--out", str(heard), *common], stdout=inside, stderr=inside, stdin=inside
    )
    os.close(inside)
    other = calling(port, "--in", str(tmp_path / "a.wav"), "--out", "none", *common)
    line_of(other, "met 127.0.0.1")
    time.sleep(1.0)
    os.close(terminal)
    one.send_signal(HUP)
    assert one.wait(60) == 0
    assert soundfile.info(heard).frames > 8000
    _, err = other.communicate(timeout=60)
    assert "the other side has hung up" in err


def test_nobody_there_is_a_sentence_and_exit_code_2(tmp_path, common) -> None:
    port = free_port()
    quiet = ("--in", "none", "--out", "none", "--give-up", "1s")
    report = tmp_path / "r.json"
    alone = listening(port, *quiet, *common)
    calls = calling(free_port(), *quiet, "--report", str(report), *common)
    for process, sentence in ((alone, "Nobody called within 1 s."), (calls, "Nobody answered within 1 s;")):
        _, err = process.communicate(timeout=60)
        assert process.returncode == 2
        assert f"semaphone: {sentence}" in err
    assert json.loads(report.read_text())["meetings"] == 0


def test_localhost_is_each_of_its_addresses(tmp_path, common) -> None:
    port = free_port()
    one = listening(port, "--in", "none", "--out", "none", *common)
    other = start("call", "--connect", f"localhost:{port}", "--in", "none", "--out", "none", *common)
    line_of(one, "met 127.0.0.1")
    other.send_signal(INT)
    for process in (one, other):
        process.communicate(timeout=60)
        assert process.returncode == 0


def test_pipes_neither_hold_up_the_end_nor_hurry(tmp_path, common) -> None:
    port = free_port()
    one = listening(port, "--in", "none", "--out", "-", *common)  # nobody reads what it writes
    fcntl.fcntl(one.stdout, fcntl.F_SETPIPE_SZ, 4096)  # type: ignore[arg-type]
    command = [
        sys.executable,
        "-m",
        "semaphone",
        "call",
        "--connect",
        f"127.0.0.1:{port}",
        "--in",
        "-",
        "--out",
        "none",
    ]
    other = subprocess.Popen(
        [*command, *common], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    )
    assert other.stdin is not None
    line_of(one, "met 127.0.0.1")
    os.set_blocking(other.stdin.fileno(), False)
    other.stdin.write(bytes(60_000))
    time.sleep(1.5)
    for process in (one, other):
        process.send_signal(TERM)
        process.send_signal(INT)
    assert one.wait(20) == 0
    assert other.wait(20) == 0
    assert b"Fatal" not in other.stderr.read()  # type: ignore[union-attr]
    other.stdin.close()
    for process in (one, other):
        process.stdout.close()  # type: ignore[union-attr]
        process.stderr.close()  # type: ignore[union-attr]


def test_a_line_with_markup_is_shown_as_it_is() -> None:
    from rich.console import Console

    from semaphone.commands import call as command

    async def scenario() -> str:
        session = end(1, key=None, listen=("127.0.0.1", 0))
        console = Console(width=120, record=True, file=io.StringIO())
        console.print(command._table(session, ["The other side speaks [/x] with weights [bold]"]))
        session.speaker.close()
        session.listener.close()
        return console.export_text()

    shown = asyncio.run(scenario())
    assert "[/x]" in shown
    assert "[bold]" in shown


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
