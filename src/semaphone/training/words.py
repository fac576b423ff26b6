"""When the words of a corpus are said: Whisper's word times, found once, and the text streams made of them.

`words.jsonl` in the corpus cache has a line for each recording, in their order: its name and [word, start, end] in
seconds. It is written line by line, and goes on where it was interrupted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from semaphone.errors import InputError
from semaphone.training.alignment import text_stream
from semaphone.training.data import SAMPLE_RATE

if TYPE_CHECKING:
    from semaphone.training.data import Corpus
    from semaphone.training.tokens import TokenUtterance

Words = list[tuple[str, float, float]]  # word, start and end in seconds
Hear = Callable[[NDArray[np.float32]], Words]
Progress = Callable[[str, int, int], None]


def heard_by_whisper(speech: NDArray[np.float32]) -> Words:
    """Words of 16 kHz speech [N] and their times."""
    from semaphone.metrics.text import transcribe_words

    return [(word.text, word.start_s, word.end_s) for word in transcribe_words(speech)]


def word_times(corpus: Corpus, cache: Path, progress: Progress, hear: Hear = heard_by_whisper) -> dict[str, Words]:
    """The words of every recording by its name, in the corpus' order. InputError if the file is another corpus'."""
    file, names = cache / "words.jsonl", [recording.file for recording in corpus.recordings]
    known = _read(file, names)
    with open(file, "a", encoding="utf-8") as out:
        for n in range(len(known), len(names)):
            progress("words", n, len(names))
            known.append(hear(corpus.speech(corpus.recordings[n])))
            out.write(json.dumps([names[n], known[-1]]) + "\n")
            out.flush()
    return dict(zip(names, known, strict=True))


def _read(file: Path, names: Sequence[str]) -> list[Words]:
    """What the file has of these recordings; a last line that was cut off is taken away."""
    if not file.exists():
        return []
    content = file.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        os.truncate(file, len(whole))
    try:
        lines = [json.loads(line) for line in whole.splitlines()]
        known = [[(str(word), float(start), float(end)) for word, start, end in words] for _, words in lines]
    except (ValueError, TypeError) as error:
        raise InputError(f"{file} does not hold the times of words ({error}); remove it.") from None
    if [name for name, _ in lines] != list(names[: len(lines)]):
        raise InputError(f"{file} belongs to other recordings; remove it.")
    return known


def text_streams(
    words: Mapping[str, Words], utterances: Iterable[TokenUtterance], frame_rate: float, version: int = 0
) -> Iterator[NDArray[np.int32]]:
    """The text stream of every utterance; `version` as in `versions.py`, 0 for recordings as they are."""
    from semaphone.training.versions import timing

    numbers = {name: number for number, name in enumerate(words)}
    for utterance in utterances:
        shift, speed = timing(version, numbers[utterance.name]) if version else (0, 1.0)
        before = shift / SAMPLE_RATE
        said = [(word, (start + before) / speed, (end + before) / speed) for word, start, end in words[utterance.name]]
        yield text_stream(said, utterance.tokens.shape[1], frame_rate)
