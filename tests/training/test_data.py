import pytest

from semaphone.errors import InputError
from semaphone.training.sources import find_recordings


def test_recordings_of_linked_folders_are_found(tmp_path):
    root, outside = tmp_path / "corpus", tmp_path / "elsewhere"
    (root / "own").mkdir(parents=True)
    outside.mkdir()
    for file in (root / "own" / "a.wav", root / "b.WAV", root / "notes.txt", outside / "c.flac"):
        file.touch()
    (root / "linked").symlink_to(outside)
    (outside / "loop").symlink_to(root)
    found = [(file.relative_to(root).as_posix(), group) for file, group in find_recordings(root)]
    assert found == [("b.WAV", ""), ("linked/c.flac", "linked"), ("own/a.wav", "own")]


def test_a_folder_without_recordings_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="No recordings"):
        find_recordings(tmp_path)
    with pytest.raises(InputError, match="is not a folder"):
        find_recordings(tmp_path / "none")
