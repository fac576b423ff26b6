"""Scores of translations, BLASER's clear refusal, and logs in simulstream's format."""

from __future__ import annotations

import json
import sys

import numpy as np
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


HEARD, WANTED = "请按一接受这个录音，否则请继续等待。", "请按一接受此录音，否则请继续等待。"


@pytest.mark.parametrize("language", ["", "cmn", "zh"])
def test_mandarin_is_cut_by_the_tokenizer_for_chinese(language):
    sacrebleu = pytest.importorskip("sacrebleu")
    expected = sacrebleu.corpus_bleu([HEARD], [[WANTED]], tokenize="zh").score
    assert bleu([HEARD], [WANTED], language) == pytest.approx(expected)
    assert expected == pytest.approx(77.78, abs=0.01)
    unmarked = [text.replace("，", " ").replace("。", "") for text in (HEARD, WANTED)]
    expected = sacrebleu.corpus_bleu(unmarked[:1], [unmarked[1:]], tokenize="zh").score
    assert asr_bleu([HEARD], [WANTED], language) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("language", "heard", "wanted"),
    [
        ("jpn", "日本語のテキストです。", "日本語のテキストですよ。"),
        ("tha", "สวัสดีครับผม", "สวัสดีครับคุณ"),
    ],
)
def test_languages_without_spaces_are_cut_by_letter(language, heard, wanted):
    sacrebleu = pytest.importorskip("sacrebleu")
    expected = sacrebleu.corpus_bleu([heard], [[wanted]], tokenize="char").score
    assert bleu([heard], [wanted]) == bleu([heard], [wanted], language) == pytest.approx(expected)
    assert expected > 50.0


def test_languages_with_spaces_keep_sacrebleus_default():
    sacrebleu = pytest.importorskip("sacrebleu")
    heard, wanted = (
        "press one to accept this tape, or hold (東京)",
        "press one to accept this recording, or hold (東京)",
    )
    expected = sacrebleu.corpus_bleu([heard], [[wanted]]).score
    assert bleu([heard], [wanted]) == bleu([heard], [wanted], "eng") == pytest.approx(expected)
    hindi = "यह एक परीक्षण है दोस्तों"
    assert asr_bleu([hindi], ["यह एक परीक्षण है दोस्ती"]) < 99.0  # signs of vowels are no punctuation
    assert asr_bleu([hindi + "।"], [hindi]) == pytest.approx(100.0)


def test_lengths_must_agree():
    with pytest.raises(InputError, match="cannot be scored"):
        chrf(["a"], [])


def test_blaser_says_how_to_get_it(tmp_path):
    with pytest.raises(InputError, match="not set up"):
        blaser2([], "fra", "eng", home=tmp_path)


# Stands for the Python of BLASER's environment: its "scores" are the rates of the recordings that it is given.
_RATES = """import json, sys, wave
for line in sys.stdin:
    job = json.loads(line)
    rates = {wave.open(job[name]).getframerate() for name in ("source", "target")}
    seconds = wave.open(job["target"]).getnframes() / min(rates)
    print(json.dumps({"blaser2": min(rates) if len(rates) == 1 and abs(seconds - 0.5) < 0.01 else -1}))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a script with a #! line")
def test_blaser_gets_speech_at_16_khz(tmp_path):
    sf = pytest.importorskip("soundfile")
    python = tmp_path / "home" / "bin" / "python"
    python.parent.mkdir(parents=True)
    (tmp_path / "rates.py").write_text(_RATES)
    # A first line of a script cannot hold a path with a space: the shell starts Python.
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{tmp_path / "rates.py"}"\n')
    python.chmod(0o755)
    for name, rate in (("source.flac", 8_000), ("target.wav", 24_000)):
        sf.write(tmp_path / name, np.full((rate // 2, 2), 0.1, np.float32), rate)
    pair = (tmp_path / "source.flac", tmp_path / "target.wav")
    assert blaser2([pair, pair], "fra", "eng", home=tmp_path / "home") == [16_000.0, 16_000.0]


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
