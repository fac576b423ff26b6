from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tests.codec.tiny import tiny_model

from semaphone import cli
from semaphone.codec.nano_weights import save_nano
from semaphone.errors import InputError, InputWarning, MissingExtraError


def run_with(monkeypatch, error: BaseException | None) -> int:
    def run(args: argparse.Namespace) -> int:
        if error:
            raise error
        return 0

    parser = argparse.ArgumentParser()
    parser.set_defaults(run=run)
    monkeypatch.setattr(cli, "build_parser", lambda: parser)
    return cli.main([])


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (None, 0, ""),
        (InputError("a.wav is empty."), 2, "semaphone: a.wav is empty.\n"),
        (MissingExtraError("PESQ", "metrics"), 2, "semaphone: PESQ needs an optional part: "),
        (FileNotFoundError(2, "No such file or directory", "x"), 2, "semaphone: x: No such file or directory\n"),
        (KeyboardInterrupt(), 130, "semaphone: stopped\n"),
    ],
)
def test_exit_codes_and_sentences(monkeypatch, capsys, error, code, text) -> None:
    assert run_with(monkeypatch, error) == code
    assert capsys.readouterr().err.startswith(text)


def test_a_wrong_option_exits_with_2() -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["--no-such-option"])


def test_the_help_loads_nothing_heavy() -> None:
    heavy = "torch,transformers,scipy,soundfile,soxr,matplotlib,onnxruntime,rich"
    script = (
        "import sys; from semaphone.cli import build_parser; build_parser().format_help();"
        f"sys.exit(' '.join(m for m in '{heavy}'.split(',') if m in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_reader_that_went_away_is_no_error() -> None:
    script = "import os, semaphone.cli as c, argparse\n"
    script += "p = argparse.ArgumentParser(); p.set_defaults(run=lambda a: print('x' * 10**6) or 0)\n"
    script += "c.build_parser = lambda: p\nraise SystemExit(c.main([]))"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 141
    process.stderr.close()


def shell(command: str, **more: object) -> subprocess.CompletedProcess[bytes]:
    """Runs a line of a shell; `semaphone` is the command of this checkout."""
    whole = f'semaphone() {{ "{sys.executable}" -m semaphone "$@"; }}; {command}'
    return subprocess.run(["/bin/sh", "-c", whole], capture_output=True, check=False, **more)  # type: ignore[call-overload]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a recording, a codec and a stream."""
    save_nano(tiny_model(), tmp_path / "tiny.safetensors", {})
    soundfile.write(tmp_path / "a.wav", 0.1 * np.sin(np.arange(8000)), 16000)
    assert cli.main(["encode", str(tmp_path / "a.wav"), str(tmp_path / "a.sph"), *codec(tmp_path)]) == 0
    return tmp_path


def codec(folder: Path) -> list[str]:
    return ["--codec", str(folder / "tiny.safetensors")]


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
@pytest.mark.parametrize("closed", ["2>&-", ">&- <&- 2>&-"])
def test_closed_standard_streams_are_not_missed_where_files_are_named(files, closed) -> None:
    done = shell(
        f"semaphone encode a.wav b.sph --codec tiny.safetensors {closed} && "
        f"semaphone decode b.sph b.wav --codec tiny.safetensors {closed}",
        cwd=files,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert (files / "b.sph").read_bytes() == (files / "a.sph").read_bytes()
    assert soundfile.info(files / "b.wav").frames == 8000


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("decode a.sph - >&-", b"semaphone: Standard output is closed"),
        ("decode - b.wav <&-", b"semaphone: Standard input is closed"),
    ],
)
def test_closed_standard_streams_that_are_named_are_one_sentence(files, command, sentence) -> None:
    done = shell(f"semaphone {command} --codec tiny.safetensors", cwd=files)
    assert done.returncode == 2
    assert done.stderr.startswith(sentence)
    assert done.stderr.count(b"\n") == 1
    assert sorted(os.listdir(files)) == ["a.sph", "a.wav", "tiny.safetensors"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full device")
def test_a_full_disk_behind_standard_output_is_one_sentence(files) -> None:
    for command in ("decode a.sph -", "models", "--help"):
        done = shell(f"semaphone {command} {'--codec tiny.safetensors' * ('dec' in command)} >/dev/full", cwd=files)
        assert b"Traceback" not in done.stderr
        assert done.stderr.count(b"\n") == (0 if command == "--help" else 1), done.stderr


class NotebookStream(io.TextIOBase):
    """What a notebook has for standard output: text, and no bytes beneath."""

    def write(self, text: str) -> int:
        return len(text)


def test_a_notebook_has_no_bytes(files, monkeypatch) -> None:
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, NotebookStream())
    assert cli.main(["encode", str(files / "a.wav"), str(files / "b.sph"), *codec(files)]) == 0
    assert cli.main(["decode", str(files / "b.sph"), str(files / "b.wav"), *codec(files)]) == 0
    assert cli.main(["decode", str(files / "b.sph"), "-", *codec(files)]) == 2
    assert isinstance(sys.stdout, NotebookStream)


@pytest.mark.skipif(sys.platform != "linux", reason="needs names that are no text")
def test_names_in_no_encoding_and_terminals_that_know_only_ascii(files) -> None:
    os.rename(os.fsencode(files / "a.wav"), os.fsencode(files) + b"/na\xff\xc3\xa9.wav")
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    done = shell(
        "semaphone transmit na*.wav o.wav --report r.json --codec tiny.safetensors && "
        "semaphone transmit na*.wav na*.wav --codec tiny.safetensors; semaphone relay --help",
        cwd=files,
        env=os.environ | plain,
    )
    assert b"Traceback" not in done.stderr
    assert b"is named twice" in done.stderr
    assert done.returncode == 0, done.stderr
    assert b"bit/s of tokens" in done.stdout
    assert rb"\xb1" in done.stdout


def test_our_warnings_are_a_line_each(monkeypatch, capsys) -> None:
    def run(args: argparse.Namespace) -> int:
        for _ in range(2):
            warnings.warn("a.wav is odd.", InputWarning, stacklevel=1)
        return 0

    parser = argparse.ArgumentParser()
    parser.set_defaults(run=run)
    monkeypatch.setattr(cli, "build_parser", lambda: parser)
    assert cli.main([]) == 0
    assert capsys.readouterr().err == "semaphone: warning: a.wav is odd.\n" * 2
