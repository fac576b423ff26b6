"""Errors of words and phones."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semaphone.errors import MissingExtraError
from semaphone.metrics import whisper
from semaphone.metrics.pair import NotScorable
from semaphone.metrics.text import Transcript, edit_distance, phone_errors, phones, text_errors, transcribe

SYMBOLS = st.lists(st.sampled_from("abc"), max_size=8).map(tuple)


def plain_distance(a: tuple[str, ...], b: tuple[str, ...]) -> int:
    """The textbook recursion, as a table."""
    table = [[i + j if i * j == 0 else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            same = table[i - 1][j - 1] + (a[i - 1] != b[j - 1])
            table[i][j] = min(same, table[i - 1][j] + 1, table[i][j - 1] + 1)
    return table[-1][-1]


@given(SYMBOLS, SYMBOLS)
def test_edit_distance_is_levenshtein(a: tuple[str, ...], b: tuple[str, ...]) -> None:
    assert edit_distance(a, b) == plain_distance(a, b)


def test_errors_are_counted_after_normalisation() -> None:
    pytest.importorskip("jiwer")
    errors = text_errors("Twenty-one colours, please.", "21 colors place")
    assert (errors.word_errors, errors.words) == (1, 4)
    assert errors.wer == 0.25
    assert text_errors("hello", "").wer == 1.0
    assert text_errors("yes", "yes yes yes").wer == 2.0


def test_a_reference_without_words_is_not_scorable() -> None:
    pytest.importorskip("jiwer")
    with pytest.raises(NotScorable, match="no words"):
        text_errors("...", "hello")


def test_silence_says_nothing() -> None:
    assert transcribe(np.zeros(16000, np.float32)) == Transcript("", "en")
    assert phones(np.zeros(16000, np.float32)) == ()
    with pytest.raises(NotScorable, match="no phones"):
        phone_errors(np.zeros(16000, np.float32), np.ones(16000, np.float32))


@pytest.mark.slow
def test_whisper_hears_the_sentence(speech: np.ndarray, sentence: str) -> None:
    pytest.importorskip("faster_whisper")
    heard = transcribe(speech)
    assert heard.language == "en"
    assert text_errors(sentence, heard.text).wer == 0
    assert transcribe(speech, "en") is transcribe(speech, "en")  # remembered


@pytest.mark.slow
def test_an_unknown_language_is_one_sentence(speech: np.ndarray) -> None:
    pytest.importorskip("faster_whisper")
    with pytest.raises(NotScorable, match="'xx'"):
        transcribe(speech, "xx")


def test_phones_of_the_same_speech_agree_and_lost_ones_count(speech: np.ndarray, noisy: np.ndarray) -> None:
    pytest.importorskip("hama")
    assert phone_errors(speech, speech).rate == 0
    lost = speech.copy()
    lost[len(lost) // 2 :] = 0
    assert phone_errors(speech, lost).rate > 0.2
    assert phone_errors(speech, noisy).rate < 0.2


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jiwer", None)
    with pytest.raises(MissingExtraError, match=r"semaphone\[metrics\]"):
        text_errors("a", "b")


def test_a_recogniser_that_loops_is_asked_again_without_repetitions(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []

    class Looping:
        def transcribe(self, speech: np.ndarray, **settings: object) -> tuple[list[SimpleNamespace], None]:
            asked.append(settings)
            loops = "no_repeat_ngram_size" not in settings
            return [SimpleNamespace(text=" the" * 50 if loops else " the end", compression_ratio=9.0 * loops)], None

    monkeypatch.setattr(whisper, "load_model", Looping)
    speech = np.random.default_rng(9).normal(0, 0.1, 32000).astype(np.float32)
    assert transcribe(speech, "en").text == "the end"
    assert [settings["max_new_tokens"] for settings in asked] == [32, 32]
