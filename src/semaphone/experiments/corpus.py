"""Recordings to measure on: any folder, with texts and groups where a metadata.csv names them."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from semaphone.errors import InputError
from semaphone.training.sources import find_recordings


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
    files = [file for file, _ in find_recordings(root)]
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


@dataclass(frozen=True)
class Recording:
    """A recording that could be read."""

    file: Path
    name: str  # relative to its folder
    digest: str  # of its samples
    seconds: float
    text: str | None = None  # what is said, if words are to be judged against it
    language: str | None = None  # ISO 639-1
    set: str = ""
    speaker: str = ""


def read_recordings(
    corpus: Sequence[Utterance], say: Callable[[str], None] = print, texts: bool = True
) -> list[Recording]:
    """Listens to every recording once; those that cannot be read are told and left out.

    Without `texts`, words will be judged against what is heard in the original. Raises InputError if none is left.
    """
    from semaphone.audio import read_audio

    found = []
    for utterance in corpus:
        try:
            speech = read_audio(utterance.file, 16_000)
        except InputError as error:
            say(f"left out: {error}")
            continue
        if len(speech) < 1600:
            say(f"left out: {utterance.name} is shorter than a tenth of a second.")
            continue
        found.append(
            Recording(
                utterance.file,
                utterance.name,
                hashlib.sha256(speech.tobytes()).hexdigest()[:20],
                len(speech) / 16_000,
                utterance.text if texts else None,
                None if utterance.language is None else utterance.language[:2],
                utterance.set,
                utterance.speaker,
            )
        )
    if not found:
        raise InputError(f"None of the {len(corpus)} recordings could be read.")
    return found
