import json
import stat

import pytest

from semaphone.errors import InputError
from semaphone.files import check_target, files_below, replacing, write_whole


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


FRAME = b"\xff\xf3\x88\xc4".ljust(288, b"\0")  # of an MP3 file without a tag


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_replaced_file_keeps_its_permissions(tmp_path):
    path = tmp_path / "a.txt"
    for wanted in (0o600, 0o640, 0o755, 0o666):
        path.write_text("before")
        path.chmod(wanted)
        with replacing(path) as part:
            assert mode(part) == wanted
            part.write_text("after")
        assert (mode(path), path.read_text()) == (wanted, "after")
    (tmp_path / "link").symlink_to(path)
    path.chmod(0o600)
    write_whole(tmp_path / "link", "by the link")
    assert (tmp_path / "link").is_symlink()
    assert (mode(path), path.read_text()) == (0o600, "by the link")


def test_what_is_write_protected_stays(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    path.chmod(0o444)
    for call in (lambda: write_whole(path, "after"), lambda: check_target(path)):
        with pytest.raises(InputError, match=r"a\.txt is write-protected\.$"):
            call()
    assert path.read_text() == "before"


def test_a_link_to_itself_is_one_sentence(tmp_path):
    (tmp_path / "a").symlink_to("a")
    with pytest.raises(InputError, match="cannot be written"):
        write_whole(tmp_path / "a", "")
    assert (tmp_path / "a").is_symlink()


@pytest.mark.parametrize(
    "data", [b"RIFF....WAVE", b"fLaC....", b"OggS....", b"NIST_1A\n   1024\n", b"\0\0\0 ftypM4A ", 3 * FRAME]
)
def test_a_recording_is_replaced_by_recordings_only(tmp_path, data):
    path = tmp_path / "a"
    path.write_bytes(data)
    for holds in ("other", "stream"):
        with pytest.raises(InputError, match="is not replaced by something else"):
            check_target(path, holds)
        with pytest.raises(InputError, match="is not replaced by something else"), replacing(path, holds):
            pass
    check_target(path, "audio")
    path.write_bytes(b"SPHN....")
    check_target(path, "stream")
    with pytest.raises(InputError, match="is not replaced by something else"):
        check_target(path, "audio")


def test_a_target_is_checked_without_a_trace(tmp_path):
    check_target(tmp_path / "new")
    (tmp_path / "old").write_text("before")
    check_target(tmp_path / "old")
    check_target("/dev/null")
    assert [f.name for f in tmp_path.iterdir()] == ["old"]
    assert (tmp_path / "old").read_text() == "before"
    for path in (tmp_path / "no" / "a", tmp_path, tmp_path / ("x" * 300), tmp_path / "a\0b"):
        with pytest.raises(InputError):
            check_target(path)


def test_names_that_are_no_text_can_be_written_of(tmp_path):
    write_whole(tmp_path / "a.json", json.dumps({"file": "na\udcffme"}, ensure_ascii=False))
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"file": "na\udcffme"}


def test_linked_folders_are_followed_and_loops_end(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "a").mkdir(parents=True)
    (outside / "deep").mkdir(parents=True)
    for file in (root / "a" / "1", outside / "2", outside / "deep" / "3"):
        file.touch()
    (root / "0-same").symlink_to(root / "a")  # is there under its own name
    (root / "loop").symlink_to(root)
    (root / "linked").symlink_to(outside)
    (outside / "back").symlink_to(root)
    (outside / "deep" / "up").symlink_to("..")
    (root / "broken").symlink_to(tmp_path / "none")
    (root / "4").symlink_to(outside / "2")
    found = sorted(str(file.relative_to(root)) for file in files_below(root))
    assert found == ["4", "a/1", "linked/2", "linked/deep/3"]
    (tmp_path / "root2").symlink_to(root)
    assert len(list(files_below(tmp_path / "root2"))) == 4
