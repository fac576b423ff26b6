"""Finds text that says a phrase over and over: what a recogniser or translator writes when it hears nothing.

A phrase is a run of units. In scripts that put spaces between words a unit is a word; in those that do not (Chinese,
Japanese, Thai, Lao, Khmer, Burmese), and in runs of letters longer than any ordinary word, it is one letter with its
marks. Case, punctuation and the width of letters do not count.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

TIMES = 3  # a phrase said that often on end is a loop,
SHORTEST = 6  # if together that is at least so many units: "No, no, no!" is none
_LONGEST_WORD = 24  # letters
_WITHOUT_SPACES = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)


def _words(text: str) -> Iterator[tuple[int, str]]:
    """Runs of letters, marks and digits, each with its place in the text."""
    begin: int | None = None
    for i, character in enumerate([*text, " "]):
        inside = unicodedata.category(character)[0] in "LMN"
        if inside and begin is None:
            begin = i
        elif not inside and begin is not None:
            yield begin, text[begin:i]
            begin = None


def _letters(begin: int, word: str) -> Iterator[tuple[int, str]]:
    """The letters of a word, each with its marks and its place in the text."""
    places = [i for i, c in enumerate(word) if not i or unicodedata.category(c)[0] != "M"]
    for first, after in zip(places, [*places[1:], len(word)], strict=True):
        yield begin + first, word[first:after]


def _units(text: str) -> list[tuple[int, str]]:
    """What is compared, each with its place in the text."""
    found: list[tuple[int, str]] = []
    for begin, word in _words(text):
        apart = len(word) > _LONGEST_WORD or _WITHOUT_SPACES.search(unicodedata.normalize("NFKC", word))
        found += _letters(begin, word) if apart else [(begin, word)]
    return [(place, unicodedata.normalize("NFKC", unit).casefold()) for place, unit in found]


def second_saying(text: str) -> int | None:
    """Where the first loop of a text says its phrase for the second time (index of a character); None without a loop.

    The text before that place says the phrase once.
    """
    units = _units(text)
    starts: list[tuple[int, int]] = []
    for length in range(1, len(units) // TIMES + 1):
        wanted = max((TIMES - 1) * length, SHORTEST - length)
        same = 0  # units in a row that equal the one `length` before them
        for i in range(length, len(units)):
            same = same + 1 if units[i][1] == units[i - length][1] else 0
            if same == wanted:
                starts.append((i - wanted + 1, length))
                break
    return units[min(starts)[0]][0] if starts else None


def loops(text: str) -> bool:
    """Does it say a phrase three times on end?"""
    return second_saying(text) is not None
