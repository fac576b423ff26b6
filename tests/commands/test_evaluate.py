"""`semaphone evaluate` on files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from semaphone.cli import main
from semaphone.errors import COMPILED, MissingExtraError
from semaphone.metrics import scores
from semaphone.metrics.pair import NotScorable

pytest.importorskip("pystoi")


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """Bursts of noise, and the same at another rate, shorter and in stereo."""
    rng = np.random.default_rng(0)
    envelope = np.repeat(rng.random(40) ** 2, 800)
    original = 0.3 * envelope * rng.standard_normal(len(envelope))
    from semaphone.audio import Resampler

    smaller = Resampler(16000, 8000).push(original.astype(np.float32), last=True)[:-500]
    soundfile.write(tmp_path / "ref.wav", original, 16000)
    soundfile.write(tmp_path / "deg.wav", np.stack([smaller, smaller], axis=1), 8000)
    return str(tmp_path / "ref.wav"), str(tmp_path / "deg.wav")


def test_a_table(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", *files, "--metrics", "stoi"]) == 0
    out = capsys.readouterr().out
    assert "STOI" in out
    assert "higher is better" in out


def test_json(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", *files, "--metrics", "stoi, pesq", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert 0 < row["stoi"] <= 1
    assert row["visqol"] is None
    assert row["seconds"] == 2.0
    assert row["versions"]["pystoi"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (["--metrics", "mos"], "no metric 'mos'"),
        (["--metrics", ","], "No metric"),
    ],
)
def test_wrong_options_are_one_sentence(
    change: list[str], sentence: str, files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", *files, *change]) == 2
    assert sentence in capsys.readouterr().err


def test_a_missing_file_is_one_sentence(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", files[0], files[1] + ".gone", "--metrics", "stoi"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "does not exist" in err


def test_without_any_scorer_there_is_nothing_to_print(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(*_: object) -> dict[str, object]:
        raise MissingExtraError("This metric", "metrics")

    def weightless(*_: object) -> dict[str, object]:
        raise NotScorable("its weights are not in the local hub cache")

    scorers = {name: weightless if name == "utmos" else absent for name in scores.METRICS}
    monkeypatch.setattr(scores, "_SCORERS", scorers)
    monkeypatch.setattr(scores, "_version", lambda package: "2" if package == "torch" else None)
    for options in ([], ["--json"]):
        assert main(["evaluate", *files, *options]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert "pip install 'semaphone[metrics]' (no scorer is installed; " in err
        assert err.count("\n") == 1


def test_what_has_to_be_compiled_is_said() -> None:
    text = str(MissingExtraError("PESQ", "metrics", COMPILED))
    assert text == (
        "PESQ needs an optional part: pip install 'semaphone[metrics]' "
        "(pesq and pyworld are compiled when they are installed, so a C++ compiler is needed)"
    )
