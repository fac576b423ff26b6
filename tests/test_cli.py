from __future__ import annotations

import argparse
import subprocess
import sys

import pytest

from semaphone import cli
from semaphone.errors import InputError, MissingExtraError


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
