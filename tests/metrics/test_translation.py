"""Scores of translations, BLASER's clear refusal, and logs in simulstream's format."""

from __future__ import annotations

import json

import pytest

from semaphone.errors import InputError
from semaphone.metrics.translation import asr_bleu, blaser2, bleu, chrf, simulstream_log

LINE = "press one to accept this recording, otherwise please continue to hold"


def test_a_perfect_translation_scores_100():
    pytest.importorskip("sacrebleu")
    assert chrf([LINE], [LINE]) == pytest.approx(100.0)
    assert bleu([LINE], [LINE]) == pytest.approx(100.0)
    assert asr_bleu([LINE.upper().replace(",", "")], [LINE]) == pytest.approx(100.0)
    assert chrf(["something else"], [LINE]) < 30.0


def test_lengths_must_agree():
    with pytest.raises(InputError, match="cannot be scored"):
        chrf(["a"], [])


def test_blaser_says_how_to_get_it(tmp_path):
    with pytest.raises(InputError, match="not set up"):
        blaser2([], "fra", "eng", home=tmp_path)


def test_log_has_simulstreams_fields():
    steps = [{"audio": 0.75, "seconds": 0.2, "text": " press one"}, {"audio": 1.5, "seconds": 0.3, "text": ""}]
    lines = [json.loads(line) for line in simulstream_log([("a.wav", steps)], 1.5)]
    assert lines[0] == {"model_loading_time": 1.5}
    assert lines[1] == {"id": 0, "metadata": {"wav_name": "a.wav"}}
    assert lines[2] == {
        "id": 0,
        "total_audio_processed": 0.75,
        "computation_time": 0.2,
        "generated_tokens": ["▁press", "▁one"],
        "deleted_tokens": [],
    }
    assert lines[3]["generated_tokens"] == []
