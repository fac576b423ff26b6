"""What can be understood: Whisper's words and hama's phones of degraded speech, against a text or the original.

Two recognisers of different families, because one of them may have been the teacher of the codec that it judges.
All speech is mono float32 at 16 kHz within ±1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from semaphone.errors import MissingExtraError
from semaphone.metrics import whisper
from semaphone.metrics.memo import MEMO
from semaphone.metrics.normalise import normalise_text
from semaphone.metrics.pair import SCORING_RATE, NotScorable, Speech, is_silent

_SHORTEST = SCORING_RATE // 10  # samples: a recogniser makes words up for less
_SURE = 0.5  # under this probability of the language it found, Whisper's guess is not used
_TOKENS_PER_S, _TOKENS_EXTRA = 8, 16  # nobody speaks faster
_LOOPING = 2.4  # text that deflates to less than 1 / 2.4 repeats itself: Whisper's own criterion
_PHONE_PIECE_S = 60  # hama hears an hour in pieces of a minute


@dataclass(frozen=True)
class Transcript:
    """What Whisper heard."""

    text: str
    language: str  # ISO 639-1


@dataclass(frozen=True)
class Word:
    """A word that Whisper heard, with its punctuation, and when."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class TextErrors:
    """How two texts differ, after normalisation. Sum errors and words over utterances for the rate of a corpus."""

    word_errors: int
    words: int  # of the reference
    character_errors: int
    characters: int  # of the reference

    @property
    def wer(self) -> float:
        """Word error rate; more than 1 if many words were added."""
        return self.word_errors / self.words

    @property
    def cer(self) -> float:
        """Character error rate."""
        return self.character_errors / self.characters


@dataclass(frozen=True)
class PhoneErrors:
    """How two sequences of phones differ."""

    errors: int
    phones: int  # of the reference

    @property
    def rate(self) -> float:
        """Phone error rate; more than 1 if many phones were added."""
        return self.errors / self.phones


def transcribe(speech: Speech, language: str | None = None) -> Transcript:
    """Whisper-base's words of speech [N]: beam 5, temperature 0, no memory of earlier windows, so always the same.

    `language` is an ISO 639-1 code; `None` lets Whisper find it (English where it isn't sure). Silence has no words.
    Raises MissingExtraError.
    """
    if is_silent(speech) or len(speech) < _SHORTEST:
        return Transcript("", language or "en")
    return MEMO.get(f"words {language}", speech, lambda: _transcribe(speech, language))


def transcribe_words(speech: Speech, language: str | None = None) -> tuple[Word, ...]:
    """The same words, each with its time."""
    if is_silent(speech) or len(speech) < _SHORTEST:
        return ()
    if language is None:
        language = _find_language(speech)

    def compute() -> tuple[Word, ...]:
        segments = _hear(speech, language, word_timestamps=True)
        return tuple(
            Word(word.word.strip(), float(word.start), float(word.end)) for part in segments for word in part.words
        )

    return MEMO.get(f"timed words {language}", speech, compute)


def _transcribe(speech: Speech, language: str | None) -> Transcript:
    if language is None:
        # Two calls of the memo: the words in this language may be known already.
        return transcribe(speech, _find_language(speech))
    return Transcript(" ".join(part.text.strip() for part in _hear(speech, language)).strip(), language)


def _find_language(speech: Speech) -> str:
    found, probability, _ = whisper.load_model().detect_language(speech)
    return str(found) if probability >= _SURE else "en"


def _hear(speech: Speech, language: str | None, **options: Any) -> list[Any]:
    """Whisper's segments.

    On badly damaged speech Whisper falls into loops ("the the the ..."). Its authors then draw anew at random; here
    it may say no three words twice instead, so that the same speech always has the same words.
    """
    model = whisper.load_model()
    settings: dict[str, Any] = {
        "language": language,
        "beam_size": 5,
        "temperature": 0.0,
        "condition_on_previous_text": False,
        "max_new_tokens": _TOKENS_EXTRA + round(_TOKENS_PER_S * min(len(speech) / SCORING_RATE, 30.0)),
        **options,
    }
    try:
        segments = list(model.transcribe(speech, **settings)[0])
    except ValueError as error:
        raise NotScorable(f"Whisper doesn't know the language '{language}'") from error
    if any(segment.compression_ratio > _LOOPING for segment in segments):
        segments = list(model.transcribe(speech, no_repeat_ngram_size=3, **settings)[0])
    return segments


def text_errors(reference: str, heard: str, language: str = "en") -> TextErrors:
    """Word and character errors of two texts. Raises NotScorable if the reference has no words."""
    try:
        import jiwer
    except ImportError as error:
        raise MissingExtraError("Word error rate", "metrics") from error
    original, arrived = normalise_text(reference, language), normalise_text(heard, language)
    if not original:
        raise NotScorable("there are no words in the original")
    words = jiwer.process_words(original, arrived)
    characters = jiwer.process_characters(original, arrived)
    return TextErrors(
        words.substitutions + words.deletions + words.insertions,
        words.hits + words.substitutions + words.deletions,
        characters.substitutions + characters.deletions + characters.insertions,
        characters.hits + characters.substitutions + characters.deletions,
    )


def phones(speech: Speech) -> tuple[str, ...]:
    """The phones (IPA) that hama hears in speech [N]. Raises MissingExtraError."""
    if is_silent(speech) or len(speech) < _SHORTEST:
        return ()
    return MEMO.get("phones", speech, lambda: _phones(speech))


def _phones(speech: Speech) -> tuple[str, ...]:
    model = _phone_model()
    step = _PHONE_PIECE_S * SCORING_RATE
    heard: list[str] = []
    for start in range(0, len(speech), step):
        heard += model.transcribe_waveform(speech[start : start + step], SCORING_RATE).phonemes
    return tuple(heard)


def phone_errors(reference: Speech, degraded: Speech) -> PhoneErrors:
    """Phones of the degraded speech against those of the original. Raises NotScorable if that has none."""
    original = phones(reference)
    if not original:
        raise NotScorable("no phones were heard in the original")
    return PhoneErrors(edit_distance(original, phones(degraded)), len(original))


def edit_distance(reference: tuple[str, ...], heard: tuple[str, ...]) -> int:
    """Substitutions, deletions and insertions that lead from one sequence to the other (Levenshtein)."""
    ids = {symbol: number for number, symbol in enumerate(dict.fromkeys(reference + heard))}
    wanted = np.array([ids[symbol] for symbol in heard])
    row = np.arange(len(heard) + 1)
    offsets = np.arange(len(heard) + 1)
    for symbol in reference:
        best = row + 1
        if len(heard):
            best[1:] = np.minimum(best[1:], row[:-1] + (wanted != ids[symbol]))
        # An insertion costs one a step: the running minimum of (best - offset), moved back.
        row = np.minimum.accumulate(best - offsets) + offsets
    return int(row[-1])


@lru_cache(maxsize=1)
def _phone_model() -> Any:
    try:
        from hama import ASRModel
    except ImportError as error:
        raise MissingExtraError("Phone error rate", "metrics") from error
    return ASRModel()
