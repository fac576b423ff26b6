"""Two halves become one model, whatever the home looks like."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from semaphone.errors import InputError, MissingExtraError
from semaphone.metrics import whisper


@pytest.fixture
def halves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two small packages' data folders in place of the real ones."""
    folders = [tmp_path / "one", tmp_path / "two"]
    for number, folder in enumerate(folders, start=1):
        folder.mkdir()
        (folder / f"model.bin.part{number}").write_bytes(bytes([number]) * 1000)
    (folders[0] / "config.json").write_text("{}")
    monkeypatch.setattr(whisper, "_sources", lambda extra: folders)
    return folders


def test_the_halves_are_joined_once(halves: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "my cache"))
    folder = whisper.weights_folder()
    assert folder == tmp_path / "my cache" / "semaphone" / "whisper-base"
    assert (folder / "model.bin").read_bytes() == b"\x01" * 1000 + b"\x02" * 1000
    assert (folder / "config.json").read_text() == "{}"
    made = (folder / "model.bin").stat().st_mtime_ns
    assert whisper.weights_folder() == folder
    assert (folder / "model.bin").stat().st_mtime_ns == made
    assert [path.name for path in folder.parent.iterdir()] == ["whisper-base"]  # nothing half-built stays


def test_a_broken_copy_is_made_anew(halves: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = whisper.weights_folder()
    (folder / "model.bin").write_bytes(b"short")
    assert (whisper.weights_folder() / "model.bin").stat().st_size == 2000


def test_without_a_home_the_temporary_folder_serves(
    halves: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "a file"
    blocked.write_text("")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    assert temporary in whisper.weights_folder().parents
    monkeypatch.setattr(tempfile, "tempdir", str(blocked))
    with pytest.raises(InputError, match="150 MB"):
        whisper.weights_folder()


def test_a_temporary_folder_that_others_can_fill_is_not_trusted(
    halves: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = whisper._private_temporary_folder()
    assert folder is not None
    folder.chmod(0o777)
    assert whisper._private_temporary_folder() is None


def test_missing_weights_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whisper, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"semaphone\[translation\]"):
        whisper.weights_folder("translation")
