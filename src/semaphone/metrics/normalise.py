"""One spelling for texts that say the same, so that a word error rate counts errors of hearing and not of writing.

English numbers become digits, each a word of its own ("twenty-one", "21" → "2 1"; "three two", "32" → "3 2"),
common contractions are spelled out, British spellings become American, fillers and punctuation go. Other languages
get Unicode normalisation, lower case and no punctuation; those written without spaces are split into characters.
"""

from __future__ import annotations

import re
import unicodedata

# fmt: off
_UNITS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)
_TENS = {
    "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
}
# fmt: on
_SMALL = {**{word: value for value, word in enumerate(_UNITS)}, **_TENS}
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
_BEFORE_AND = {"hundred", *_SCALES}  # "two hundred and one" is one number, "ten and five" are two
_ORDINALS = {
    "first": 1,
    "second": 2,
    "third": 3,
    "fifth": 5,
    "eighth": 8,
    "ninth": 9,
    "twelfth": 12,
    **{f"{word}th": value for value, word in enumerate(_UNITS) if value not in (0, 1, 2, 3, 5, 8, 9, 12)},
    **{f"{word[:-1]}ieth": value for word, value in _TENS.items()},
}

_CONTRACTIONS = (
    (r"\bwon't\b", "will not"),
    (r"\bcan't\b", "can not"),
    (r"\bcannot\b", "can not"),
    (r"\bshan't\b", "shall not"),
    (r"n't\b", " not"),
    (r"\blet's\b", "let us"),
    (r"\b(it|that|he|she|there|here|what|who|where|how)'s\b", r"\1 is"),
    (r"'re\b", " are"),
    (r"'ve\b", " have"),
    (r"'ll\b", " will"),
    (r"\bi'm\b", "i am"),
    (r"\bgonna\b", "going to"),
    (r"\bwanna\b", "want to"),
    (r"\bgotta\b", "got to"),
)
_SPELLINGS = (
    (
        r"\b(\w*)(col|fav|hon|lab|neighb|harb|hum|rum|vap|behavi|endeav|splend|flav|arm|savi|clam|val|vig|od|tum)our",
        r"\1\2or",
    ),
    (
        r"\b(\w*)(real|recogn|organ|apolog|memor|symbol|special|civil|critic|emphas|sympath|author|general|final)is"
        r"(e|ed|es|er|ers|ing|ation)\b",
        r"\1\2iz\3",
    ),
    (r"\bgrey", "gray"),
    (r"\b(\w*)(travel|marvel|counsel|quarrel|cancel|jewel|fuel|signal|model)l(ed|ing|er|ers)\b", r"\1\2\3"),
    (r"\b(cent|theat|met|lit|fib|sab|spect)re(s?)\b", r"\1er\2"),
    (r"\b(def|off|pret)ence", r"\1ense"),
    (r"\bplough", "plow"),
    (r"\bjudgement", "judgment"),
    (r"\btowards\b", "toward"),
    (r"\bok\b", "okay"),
)
_TITLES = {"mr": "mister", "mrs": "missus", "dr": "doctor", "st": "saint", "prof": "professor"}
_FILLERS = {"uh", "um", "uhm", "hmm", "hm", "mm", "mhm", "er", "erm"}
_UNSPACED = {"zh", "ja", "th", "yue", "lo", "my", "km"}


def normalise_text(text: str, language: str = "en") -> str:
    """`text` in the one spelling, words separated by single spaces; "" if it has no words.

    `language` is a two-letter code (ISO 639-1).
    """
    text = unicodedata.normalize("NFKC", text).lower()
    text = re.sub(r"[’‘ʼ`´]", "'", text)
    text = re.sub(r"\[[^\]]*\]|\([^)]*\)", " ", text)  # [music], (laughs): what a recogniser says of sounds
    if language == "en":
        return _normalise_english(text)
    if language in _UNSPACED:
        return " ".join(_only_letters(text).replace(" ", ""))
    return _only_letters(text.replace("'", " "))


def _normalise_english(text: str) -> str:
    for pattern, spelled in _CONTRACTIONS + _SPELLINGS:
        text = re.sub(pattern, spelled, text)
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    text = re.sub(r"[$](\d+(?:\.\d+)?)", r"\1 dollars", text)
    text = re.sub(r"£(\d+(?:\.\d+)?)", r"\1 pounds", text)
    text = re.sub(r"€(\d+(?:\.\d+)?)", r"\1 euros", text)
    text = re.sub(r"(?<=\d)%", " percent", text).replace("&", " and ")
    text = re.sub(r"(?<=\d)\.(?=\d)", " point ", text)
    text = re.sub(r"(\d+)(?:st|nd|rd|th)\b", r"\1 th", text)
    text = re.sub(r"(?<=\d)(?=[a-z])|(?<=[a-z])(?=\d)", " ", text)  # 5pm → 5 pm
    words = [_TITLES.get(word, word) for word in _only_letters(text.replace("'", "")).split() if word not in _FILLERS]
    return " ".join(_numbers_as_digits(words))


def _only_letters(text: str) -> str:
    """Letters, marks and digits; everything else separates words."""
    kept = (char if unicodedata.category(char)[0] in "LMN" else " " for char in text)
    return " ".join("".join(kept).split())


def _numbers_as_digits(words: list[str]) -> list[str]:
    out: list[str] = []
    at = 0
    while at < len(words):
        value, used, ordinal = _read_number(words, at)
        if used == 0:
            out.extend(words[at] if words[at].isdecimal() and words[at].isascii() else [words[at]])
            at += 1
            continue
        out.extend(str(value))
        if ordinal:
            out.append("th")
        at += used
    return out


def _read_number(words: list[str], at: int) -> tuple[int, int, bool]:
    """The longest cardinal or ordinal in words that starts at `at`: its value, how many words it has, if ordinal."""
    total = group = used = 0
    ordinal = False
    place = 10**12  # every part must be smaller than the one before it: "three two" are two numbers
    position = at
    if words[at] == "a" and at + 1 < len(words) and words[at + 1] in ("hundred", *_SCALES):
        group, place, position = 1, 10, at + 1
    while position < len(words):
        word = words[position]
        if word == "and" and used and place > 10 and position + 1 < len(words) and words[position - 1] in _BEFORE_AND:
            if words[position + 1] not in _SMALL and words[position + 1] not in _ORDINALS:
                break
            position += 1
            continue
        if word in _SMALL or word in _ORDINALS:
            part = _SMALL.get(word, _ORDINALS.get(word, 0))
            if part >= place or (part == 0 and used) or (10 <= part < 20 and place <= 10):
                break
            group += part
            place = 10 if part >= 20 else 1
            ordinal = word in _ORDINALS
        elif word == "hundred" and 0 < group < 100:
            group *= 100
            place = 100
        elif word in _SCALES and group > 0:
            total += group * _SCALES[word]
            group, place = 0, 1000
        else:
            break
        position += 1
        used = position - at
        if ordinal:
            break
    return total + group, used, ordinal
