import pytest

from semaphone.errors import InputError
from semaphone.files import replacing, write_whole


def break_off(path):
    with replacing(path) as part:
        part.write_text("half")
        raise RuntimeError


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.txt"
    write_whole(path, "ä\n")
    assert path.read_bytes() == "ä\n".encode()
    with pytest.raises(RuntimeError):
        break_off(path)
    assert path.read_bytes() == "ä\n".encode()
    assert [f.name for f in tmp_path.iterdir()] == ["a.txt"]


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        write_whole(tmp_path / "no" / "a.txt", "")
    with pytest.raises(InputError, match="is a folder"):
        write_whole(tmp_path, b"")
