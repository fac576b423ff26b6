"""One talk to measure on: a recording, or as many of one speaker as it takes, with short pauses between them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from semaphone.errors import InputError

if TYPE_CHECKING:
    from semaphone.audio import Samples
    from semaphone.experiments.corpus import Utterance

RATE = 16_000  # Hz
PAUSE = 0.3  # s between recordings


def read_talk(data: Path, seconds: float) -> Samples:
    """Up to so many seconds at 16 kHz from a recording or from a folder of recordings.

    Of a folder, the speaker who has most is taken, recording by recording in a fixed order, and then the others.
    Raises InputError if nothing can be read, or less than a second.
    """
    wanted = round(seconds * RATE)
    speech = _beginning(data, wanted) if data.is_file() else _joined(_by_speaker(data), wanted)[:wanted]
    if len(speech) < RATE:
        raise InputError(f"{data} has less than a second of speech to measure on.")
    return speech


def _by_speaker(root: Path) -> list[Utterance]:
    """All recordings; those of the speaker with most bytes first."""
    from semaphone.experiments.corpus import load_corpus

    corpus = load_corpus(root)
    size: dict[tuple[str, str], int] = {}
    for one in corpus:
        who = (one.set, one.speaker or one.name)
        size[who] = size.get(who, 0) + one.file.stat().st_size
    place = {who: i for i, who in enumerate(sorted(size, key=lambda who: (-size[who], who)))}
    return sorted(corpus, key=lambda one: place[one.set, one.speaker or one.name])


def _beginning(file: Path, samples: int) -> Samples:
    """The first samples of a recording of any length."""
    from semaphone.audio import read_blocks

    parts, total = [np.zeros(0, np.float32)], 0
    for block in read_blocks(file, RATE):
        parts.append(block)
        total += len(block)
        if total >= samples:
            break
    return np.concatenate(parts)[:samples]


def _joined(corpus: list[Utterance], samples: int) -> Samples:
    from semaphone.audio import read_audio

    parts: list[Samples] = []
    total = 0
    for one in corpus:
        try:
            parts += [read_audio(one.file, RATE), np.zeros(round(PAUSE * RATE), np.float32)]
        except InputError:
            continue  # a broken file in a corpus is left out
        total += len(parts[-2]) + len(parts[-1])
        if total >= samples:
            break
    return np.concatenate([np.zeros(0, np.float32), *parts])
