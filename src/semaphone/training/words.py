"""When the words of a corpus are said: Whisper's word times, found once, and the text streams made of them.

`words.jsonl` in the corpus cache has a line for each recording: its name and [word, start, end] in seconds. It is
written line by line, and goes on where it was interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from semaphone.errors import InputError
from semaphone.lines import Lines
from semaphone.training.alignment import text_stream
from semaphone.training.sources import SAMPLE_RATE

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
    """The words of every recording by its name, in the corpus' order. InputError if the file holds something else."""
    lines, total = Lines(cache / "words.jsonl", ("file",)), len(corpus.recordings)
    found: dict[str, Words] = {}
    for n, recording in enumerate(corpus.recordings):
        line = lines.get(file=recording.file)
        if line is None:
            progress("words", n, total)
            line = lines.add({"file": recording.file, "words": hear(corpus.speech(recording))})
        try:
            found[recording.file] = [(str(word), float(start), float(end)) for word, start, end in line["words"]]
        except (KeyError, TypeError, ValueError):
            raise InputError(f"{lines.path} holds no times of words for {recording.file}; remove it.") from None
    return found


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
