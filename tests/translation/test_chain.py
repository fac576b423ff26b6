"""The whole chain on a small exact model: counts, determinism, chunks, and the steps of device and edges."""

from __future__ import annotations

import time
from typing import ClassVar

import numpy as np
import pytest
from tests.translation.fake import WIDTH, FakeModel, voice

from semaphone.channel.fading import FadingChannel
from semaphone.metrics.latency import report
from semaphone.translation.chain import Chain, timed
from semaphone.translation.models.base import Burst, Phrase
from semaphone.translation.radio import Radio, Signal
from semaphone.translation.segmenter import SegmenterConfig

SEGMENTS = SegmenterConfig(speech=0.0)


class PlainSymbols:
    """Two numbers to a symbol, no coding."""

    name = "plain"
    row_width = WIDTH
    symbols_per_row = WIDTH // 2

    def encode(self, rows, snr_db):
        symbols = np.ascontiguousarray(rows, np.float32).view(np.complex64)
        scale = 1.0 / float(np.sqrt(max(1e-12, np.mean(np.abs(symbols) ** 2))))
        return Signal(symbols * np.float32(scale), scale)

    def decode(self, received, scale):
        equalised = received.symbols * received.gains.conj() / (np.abs(received.gains) ** 2 + 1e-6)
        return np.ascontiguousarray(equalised / scale, np.complex64).view(np.float32)


def test_everything_is_counted(rng):
    talk = Chain(FakeModel(), segments=SEGMENTS).run([voice(3.3, rng)])
    assert talk.seconds == pytest.approx(3.3)
    assert [s.start for s in talk.steps[1:]] == [s.end for s in talk.steps[:-1]]
    assert sum(s.bits for s in talk.steps) == 32 * sum(s.rows for s in talk.steps)
    assert all(s.symbols == 0 for s in talk.steps)
    assert talk.text.count("rows at") == len(talk.steps)
    assert len(talk.speech) / 16_000 == pytest.approx(sum(s.speech for s in talk.steps))
    assert set(talk.steps[0].seconds) == {"compress", "extract", "generate", "speak"}


def test_blocks_do_not_matter(rng):
    x = voice(2.7, rng)
    radio = Radio(PlainSymbols(), FadingChannel("rayleigh", 15.0))
    whole = Chain(FakeModel(), radio, SEGMENTS).run([x], seed=4)
    parts = Chain(FakeModel(), radio, SEGMENTS).run(np.array_split(x, 13), seed=4)
    other = Chain(FakeModel(), radio, SEGMENTS).run([x], seed=5)
    assert whole.text == parts.text != other.text
    assert np.array_equal(whole.speech, parts.speech)
    assert sum(s.symbols for s in whole.steps) == sum(s.rows for s in whole.steps) * WIDTH // 2


class LoadsOnce(FakeModel):
    """Each step loads something when it is first taken."""

    loaded: ClassVar[list[str]] = []

    def _load(self, name):
        if name not in self.loaded:
            time.sleep(0.3)
            self.loaded.append(name)

    def compress(self, segment, last, state):
        self._load("compress")
        return super().compress(segment, last, state)

    def extract(self, upload, state):
        self._load("extract")
        return super().extract(upload, state)

    def generate(self, burst: Burst, state):
        self._load("generate")
        return super().generate(burst, state)

    def speak(self, phrase: Phrase):
        self._load("speak")
        return super().speak(phrase)


def test_loading_is_nobodys_lag(rng):
    LoadsOnce.loaded.clear()
    chain = Chain(LoadsOnce(), Radio(PlainSymbols(), FadingChannel("rayleigh", 15.0)), SEGMENTS)
    x = voice(2.0, rng)
    talk = chain.run([x], seed=3)
    assert set(LoadsOnce.loaded) == {"compress", "extract", "generate", "speak"}
    assert sum(sum(step.seconds.values()) for step in talk.steps) < 0.3
    plain = Chain(FakeModel(), chain.radio, SEGMENTS).run([x], seed=3)
    assert talk.text == plain.text  # warming up leaves nothing behind
    assert np.array_equal(talk.speech, plain.speech)


def test_a_step_holds_its_phrases(rng):
    talk = Chain(FakeModel(), segments=SEGMENTS).run([voice(1.5, rng)])
    assert " ".join(phrase.text for step in talk.steps for phrase in step.phrases) == talk.text


def test_an_empty_talk_says_nothing():
    talk = Chain(FakeModel(), segments=SEGMENTS).run([])
    assert talk.text == ""
    assert talk.seconds == 0.0
    assert len(talk.speech) == 0


def test_latency_of_a_talk_is_finite(rng):
    figures = report([timed(Chain(FakeModel(), segments=SEGMENTS).run([voice(4.0, rng)]))])
    assert figures.segments >= 4
    assert 0 < figures.average_latency < 1
    assert figures.lag_p99 >= figures.lag_p50 > 0.6
