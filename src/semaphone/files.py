"""Writing files so that nothing half-written is ever seen under the target's name."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from semaphone.errors import InputError


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to: renamed to `path` when the block ends, removed when it fails.

    A device or pipe (`/dev/null`) is written straight. Raises InputError if `path` cannot be written.
    """
    try:
        target = Path(path).resolve()  # a symbolic link stays one, and its target is replaced
        if target.is_dir():
            raise InputError(f"{path} is a folder, so nothing can be written there under that name.")
        if target.exists() and not target.is_file():
            yield target
            return
        part = target.parent / f".semaphone-{secrets.token_hex(6)}.part"
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}.") from error
    try:
        yield part
        os.replace(part, target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_whole(path: str | Path, data: str | bytes) -> None:
    """Writes a file at once or not at all; text as UTF-8. Raises InputError if `path` cannot be written."""
    with replacing(path) as part:
        part.write_bytes(data.encode() if isinstance(data, str) else data)
