"""Recordings to measure on: any folder, with texts and groups where a metadata.csv names them."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from semaphone.errors import InputError
from semaphone.training.data import AUDIO_SUFFIXES


@dataclass(frozen=True)
class Utterance:
    """One recording."""

    file: Path
    name: str  # relative to the folder: the same on every machine
    text: str | None = None
    set: str = ""  # the corpus it is from
    speaker: str = ""
    language: str | None = None


def _metadata(root: Path) -> tuple[Path, dict[str, dict[str, str]]]:
    """The rows of a metadata.csv in the folder or the one above, by file; its column `file` is relative to it."""
    for folder in (root, root.parent):
        path = folder / "metadata.csv"
        if path.is_file():
            try:
                with open(path, newline="", encoding="utf-8") as file:
                    rows = {row["file"]: row for row in csv.DictReader(file)}
            except (KeyError, UnicodeDecodeError, csv.Error) as error:
                raise InputError(f"{path} is not a table of recordings with a column `file`: {error}.") from None
            return folder, rows
    return root, {}


def load_corpus(root: Path, limit: int | None = None) -> list[Utterance]:
    """All recordings below a folder in a fixed order; with a limit, evenly spaced over them.

    Raises InputError if it is not a folder or holds none.
    """
    if not root.is_dir():
        raise InputError(f"{root} is not a folder of recordings.")
    files = sorted(f for f in root.rglob("*") if f.suffix.lower() in AUDIO_SUFFIXES and f.is_file())
    if not files:
        raise InputError(f"No recordings ({', '.join(sorted(AUDIO_SUFFIXES))}) below {root}.")
    if limit is not None and limit < 1:
        raise InputError(f"A limit of {limit} leaves no recording.")
    if limit is not None and limit < len(files):
        files = [files[i * len(files) // limit] for i in range(limit)]
    folder, rows = _metadata(root)
    found = []
    for file in files:
        row = rows.get(file.relative_to(folder).as_posix(), {})
        found.append(
            Utterance(
                file,
                file.relative_to(root).as_posix(),
                row.get("text") or None,
                row.get("set", ""),
                row.get("speaker", ""),
                row.get("language") or None,
            )
        )
    return found
