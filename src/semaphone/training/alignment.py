"""The text stream (LargeSC §III-C): which letter is being spoken in each chunk, from the times of words.

Letters of a word are spread evenly over its duration; a chunk takes the one at its middle, so that a
letter may fill two chunks and in fast speech some fall between. Chunks between words are padding.
"""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

PAD = 0  # no speech
OTHER = 1  # a letter that is in no Latin alphabet
LETTERS = {letter: i for i, letter in enumerate(string.ascii_lowercase + "'", 2)}
SIZE = 2 + len(LETTERS)  # entries of this vocabulary; a model's text_size may be larger


def letters(word: str) -> list[int]:
    """Entries of the letters of a word: lower case, accents dropped, digits and punctuation left out."""
    plain = unicodedata.normalize("NFKD", word.lower().replace("\u2019", "'"))
    return [LETTERS.get(c, OTHER) for c in plain if c.isalpha() or c == "'"]


def text_stream(words: Iterable[tuple[str, float, float]], chunks: int, frame_rate: float = 12.5) -> NDArray[np.int32]:
    """(word, start, end) in seconds → the text stream [chunks]. Words without letters or duration are passed over."""
    stream = np.full(chunks, PAD, np.int32)
    middle = (np.arange(chunks) + 0.5) / frame_rate
    for word, start, end in words:
        spelt = letters(word)
        inside = np.flatnonzero((middle >= start) & (middle < end))
        if not spelt or not len(inside):
            continue
        place = (middle[inside] - start) / (end - start) * len(spelt)
        stream[inside] = np.array(spelt)[np.minimum(place.astype(np.int64), len(spelt) - 1)]
    return stream
