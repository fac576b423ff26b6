"""One pair, all scores: what one metric can't judge never stops the others."""

from __future__ import annotations

import json

import numpy as np
import pytest

from semaphone.errors import InputError, MissingExtraError
from semaphone.metrics import scores as module
from semaphone.metrics.scores import METRICS, Scores, evaluate, scorer_versions, sliding_scores

pytest.importorskip("pystoi")


def test_every_metric_has_a_field_and_a_scorer() -> None:
    assert set(METRICS) == set(module._SCORERS)
    assert set(METRICS) <= set(Scores.__dataclass_fields__)


def test_only_what_was_asked_for_is_computed(speech: np.ndarray, noisy: np.ndarray) -> None:
    scores = evaluate(speech, noisy, 16000, metrics=["stoi", "pesq"])
    assert scores.stoi is not None
    assert scores.pesq is not None
    assert scores.visqol is scores.plcmos is scores.wer is None
    assert scores.notes == {}
    assert set(scores.versions) == {"pesq", "pystoi"}
    assert scores.seconds == pytest.approx(len(speech) / 16000)


def test_a_delay_is_taken_out_and_told(speech: np.ndarray) -> None:
    late = np.concatenate([np.zeros(800, np.float32), speech])
    scores = evaluate(speech, late, 16000, metrics=["stoi"])
    assert scores.delay_s == pytest.approx(0.05)
    assert scores.stoi == pytest.approx(1)
    assert evaluate(speech, late, 16000, metrics=["stoi"], max_delay_s=0).stoi < 0.9  # type: ignore[operator]


@pytest.mark.parametrize("samples", [1, 1000, 16000])
def test_short_and_silent_pairs_end_in_notes(samples: int) -> None:
    silence = np.zeros(samples, np.float32)
    scores = evaluate(silence, silence, 16000)
    assert set(scores.notes) == set(METRICS)
    assert all(value is None for value in scores.values().values())
    assert all(note and "\n" not in note for note in scores.notes.values())


@pytest.mark.slow
def test_words_are_judged_against_the_text(speech: np.ndarray, sentence: str) -> None:
    pytest.importorskip("faster_whisper")
    scores = evaluate(speech, speech, 16000, text=sentence.replace("bread", "cheese"), metrics=["wer", "cer"])
    assert (scores.word_errors, scores.words) == (1, 14)
    assert scores.wer == pytest.approx(1 / 14)
    assert scores.cer is not None
    assert 0 < scores.cer < 0.1
    assert scores.characters is not None
    assert scores.character_errors == round(scores.cer * scores.characters)
    gone = evaluate(speech, np.zeros_like(speech), 16000, metrics=["wer"])
    assert gone.wer == 1.0
    assert gone.degraded_text == ""


def test_speech_spoken_anew_gets_the_scores_that_it_can_get(speech: np.ndarray) -> None:
    pytest.importorskip("speechmos")
    scores = evaluate(speech, speech[::-1].copy(), 16000, metrics=["stoi", "plcmos"], same_timing=False)
    assert scores.plcmos is not None
    assert "in step" in scores.notes["stoi"]


def test_scores_become_json(speech: np.ndarray) -> None:
    row = json.loads(json.dumps(evaluate(speech, speech, 16000, metrics=["stoi"]).to_json()))
    assert row["stoi"] == pytest.approx(1)
    assert row["versions"] == scorer_versions(["stoi"])


def test_unknown_metrics_are_refused(speech: np.ndarray) -> None:
    with pytest.raises(InputError, match="no metric 'mos'"):
        evaluate(speech, speech, 16000, metrics=["mos"])
    with pytest.raises(InputError, match="No metric"):
        evaluate(speech, speech, 16000, metrics=[])


def test_an_absent_package_stops_only_those_who_named_it(speech: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object) -> dict[str, object]:
        raise MissingExtraError("STOI", "metrics")

    monkeypatch.setattr(module, "_SCORERS", dict.fromkeys(METRICS, absent))
    assert "semaphone[metrics]" in evaluate(speech, speech, 16000).notes["stoi"]
    with pytest.raises(MissingExtraError):
        evaluate(speech, speech, 16000, metrics=["stoi"])


def test_sliding_windows_show_where_it_hurts(speech: np.ndarray) -> None:
    damaged = speech.copy()
    damaged[32000:] = np.random.default_rng(0).normal(0, 0.1, len(speech) - 32000)
    windows = sliding_scores(speech, damaged, 16000, ["stoi"], window_s=1.0, hop_s=0.5)
    assert windows[0].start_s == 0
    assert windows[1].start_s == 0.5
    assert windows[0].scores.stoi == pytest.approx(1)
    assert windows[-1].scores.stoi < 0.5  # type: ignore[operator]
    with pytest.raises(InputError, match="Words"):
        sliding_scores(speech, damaged, 16000, ["wer"])
    with pytest.raises(InputError, match="shorter"):
        sliding_scores(speech, damaged, 16000, ["stoi"], window_s=100)
