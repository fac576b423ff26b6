"""Where the recordings of a corpus come from: a folder, or a manifest of cuts as lhotse writes it.

A folder gives each of its recordings; the first folder below the root is the group. A manifest (CutSet, one JSON object
a line, .jsonl or .jsonl.gz) names files, pieces of them, and what is said; the speaker is the group, unless a cut
has a field `custom.group`. Relative paths in a manifest are relative to it.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semaphone.errors import InputError
from semaphone.files import files_below

AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3"})
MANIFEST_SUFFIXES = (".jsonl", ".jsonl.gz")
LONGEST_LINE = 1 << 20  # characters of a line of a manifest
SAMPLE_RATE = 16_000


@dataclass(frozen=True)
class Source:
    """One recording, or a piece of one."""

    name: str  # relative to the folder, or the cut's name
    group: str
    path: Path
    start: float = 0.0  # s
    duration: float | None = None  # s; None: to the end
    text: str = ""

    def read(self) -> NDArray[np.float32]:
        """Its samples at 16 kHz [N]. Raises InputError if they cannot be read."""
        from semaphone.audio import read_audio

        speech = read_audio(self.path, SAMPLE_RATE)
        if self.start == 0.0 and self.duration is None:
            return speech
        first = round(self.start * SAMPLE_RATE)
        last = len(speech) if self.duration is None else first + round(self.duration * SAMPLE_RATE)
        if first >= len(speech) or last > len(speech) + SAMPLE_RATE // 10:
            raise InputError(f"{self.name} reaches beyond the end of {self.path}.")
        return speech[first:last]

    @property
    def whole(self) -> bool:
        """Whether it is a file from beginning to end."""
        return self.start == 0.0 and self.duration is None


def is_manifest(path: Path) -> bool:
    """Whether a path is that of a manifest of cuts."""
    return path.name.endswith(MANIFEST_SUFFIXES) and path.is_file()


def find_sources(root: Path) -> list[Source]:
    """All recordings of a folder or a manifest, in a fixed order. Raises InputError if there are none."""
    if is_manifest(root):
        return list(_cuts(root))
    return [Source(str(file.relative_to(root)), group, file) for file, group in find_recordings(root)]


def find_recordings(root: Path) -> list[tuple[Path, str]]:
    """(file, group) of every recording below a folder, in a fixed order."""
    if not root.is_dir():
        raise InputError(f"{root} is not a folder of recordings.")
    files = sorted(f for f in files_below(root) if f.suffix.lower() in AUDIO_SUFFIXES)
    if not files:
        raise InputError(f"No recordings ({', '.join(sorted(AUDIO_SUFFIXES))}) below {root}.")
    return [(f, f.relative_to(root).parts[0] if len(f.relative_to(root).parts) > 1 else "") for f in files]


def _cuts(manifest: Path) -> Iterator[Source]:
    names: set[str] = set()
    try:
        with gzip.open(manifest, "rt", encoding="utf-8") if manifest.suffix == ".gz" else manifest.open() as file:
            for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), ""), 1):
                if not line.strip():
                    continue
                source = _cut(line, number, manifest)
                if source.name in names:
                    raise InputError(f"{manifest} has two cuts of the name {source.name!r}.")
                names.add(source.name)
                yield source
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{manifest} cannot be read: {error}.") from None
    if not names:
        raise InputError(f"{manifest} names no recordings.")


def _cut(line: str, number: int, manifest: Path) -> Source:
    try:
        cut: dict[str, Any] = json.loads(line)
        kind = cut.get("type", "MonoCut")
        if kind != "MonoCut":
            raise ValueError(f"a cut of the kind {kind}, where only MonoCut is read")
        place = cut["recording"]["sources"][0]
        if place["type"] != "file":
            raise ValueError(f"a recording from a {place['type']}, where only files are read")
        spoken = cut.get("supervisions") or [{}]
        start, duration = float(cut["start"]), float(cut["duration"])
        if not (math.isfinite(start) and math.isfinite(duration) and start >= 0 and duration > 0):
            raise ValueError("an impossible start or duration")
        text = " ".join(str(s.get("text") or "") for s in spoken).strip()
        group = (cut.get("custom") or {}).get("group") or spoken[0].get("speaker") or ""
        return Source(str(cut["id"]), str(group), manifest.parent / str(place["source"]), start, duration, text)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise InputError(f"Line {number} of {manifest} is not a cut: {error}.") from None
