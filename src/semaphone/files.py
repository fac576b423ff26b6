"""Writing files so that nothing half-written is ever seen under the target's name, and nothing is lost there."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from semaphone.containers import HEAD, STREAM, container_of
from semaphone.errors import InputError

Holds = Literal["audio", "stream", "other"]  # what is written: a recording, packets (.sph), anything else


@contextlib.contextmanager
def replacing(path: str | Path, holds: Holds = "other") -> Iterator[Path]:
    """A temporary path beside `path` to write to: renamed to `path` when the block ends, removed when it fails.

    A file that is replaced hands on its permissions. A device or pipe (`/dev/null`) is written straight. Raises
    InputError if `path` cannot be written, is write-protected, or is a recording and `holds` says that this is none.
    """
    with _explained(path):
        target, before = _target(path, holds)
    if target is None:
        yield Path(path)
        return
    part = target.parent / f".semaphone-{secrets.token_hex(6)}.part"
    try:
        with _explained(path):
            _create(part, before)
        yield part
        os.replace(part, target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def check_target(path: str | Path, holds: Holds = "other") -> None:
    """Raises InputError where `replacing` would, and leaves no trace: to be asked before a long work."""
    with _explained(path):
        target, before = _target(path, holds)
        if target is not None:
            part = target.parent / f".semaphone-{secrets.token_hex(6)}.part"
            try:
                _create(part, before)
            finally:
                part.unlink(missing_ok=True)


def write_whole(path: str | Path, data: str | bytes) -> None:
    """Writes a file at once or not at all; text as UTF-8. Raises InputError if `path` cannot be written.

    What UTF-8 cannot write (a file name in another encoding) becomes an escape, which JSON reads.
    """
    with replacing(path) as part:
        part.write_bytes(data.encode(errors="backslashreplace") if isinstance(data, str) else data)


@contextlib.contextmanager
def _explained(path: str | Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise InputError(f"{path} cannot be written: {getattr(error, 'strerror', None) or error}.") from error


def _target(path: str | Path, holds: Holds) -> tuple[Path | None, os.stat_result | None]:
    """The file to be replaced and its status, if it exists; no file at all for a device or pipe."""
    try:
        before = os.stat(path)
    except FileNotFoundError:
        return Path(os.path.realpath(path)), None  # a symbolic link stays one, and its target is written
    if stat.S_ISDIR(before.st_mode):
        raise InputError(f"{path} is a folder, so nothing can be written there under that name.")
    if not stat.S_ISREG(before.st_mode):
        return None, None
    # Who may write everything (root) would not be stopped by the permissions, and still has protected the file.
    if not before.st_mode & 0o222 or not os.access(path, os.W_OK):
        raise InputError(f"{path} is write-protected.")
    _spare_recordings(path, holds)
    return Path(os.path.realpath(path)), before


def _spare_recordings(path: str | Path, holds: Holds) -> None:
    try:
        with open(path, "rb") as file:
            found = container_of(file.read(HEAD))
    except PermissionError:  # who may write but not read it
        return
    if found is None:
        return
    if holds == "other" or (holds == "stream") != (found == STREAM):
        raise InputError(f"{path} holds {found}, which is not replaced by something else; name another file.")


def _create(part: Path, before: os.stat_result | None) -> None:
    """An empty file with the permissions, and as far as possible the owner, of the one that it will replace."""
    descriptor = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666 if before is None else 0o600)
    try:
        if before is not None and hasattr(os, "fchown"):
            with contextlib.suppress(OSError):
                os.fchown(descriptor, before.st_uid, before.st_gid)
            with contextlib.suppress(OSError):
                os.fchmod(descriptor, stat.S_IMODE(before.st_mode))
    finally:
        os.close(descriptor)


def files_below(root: Path) -> Iterator[Path]:
    """All files below a folder, those of linked folders included; every folder once, so that loops of links end.

    Folders that lie there come before linked ones: what is there both ways has its own name.
    """
    seen: set[tuple[int, int]] = set()
    waiting = [root]
    while waiting:
        links: list[Path] = []
        for folder in waiting:
            yield from _files_in(folder, seen, links)
        waiting = sorted(links)


def _files_in(top: Path, seen: set[tuple[int, int]], links: list[Path]) -> Iterator[Path]:
    """Files below a folder by its own folders; linked ones are added to `links`."""
    for name, folders, files in os.walk(top):
        folder = Path(name)
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders.sort()
        links += [folder / inner for inner in folders if (folder / inner).is_symlink()]
        yield from (folder / file for file in sorted(files) if (folder / file).is_file())
