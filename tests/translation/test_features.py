"""The streamed log-mel spectrum: chunk by chunk == whole, and the same as Whisper's own front end."""

from __future__ import annotations

import numpy as np
import pytest

from semaphone.translation.features import BANDS, log_mel, mel_filters, normalise


def test_chunk_by_chunk_is_the_whole(rng):
    x = rng.standard_normal(16_123).astype(np.float32)
    whole, _ = log_mel(x, last=True)
    state, parts, at = None, [], 0
    for size in (1, 399, 5_000, 0, 160, 7_777):
        mel, state = log_mel(x[at : at + size], state)
        parts.append(mel)
        at += size
    mel, _ = log_mel(x[at:], state, last=True)
    parts.append(mel)
    assert whole.shape == (101, BANDS)
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-5)


def test_nothing_gives_nothing():
    mel, state = log_mel(np.zeros(0, np.float32), last=True)
    assert mel.shape == (0, BANDS)
    assert normalise(mel).shape == (0, BANDS)
    assert len(state.pending) >= 200


def test_filters_have_unit_area():
    filters = mel_filters()
    assert filters.shape == (80, 201)
    # An area of 1 in hertz, sampled every 40 Hz; the low filters are too narrow for this to be exact.
    assert filters[40:].sum(1) * 40.0 == pytest.approx(np.ones(40), abs=0.08)


def test_it_is_whispers_front_end(rng):
    theirs = pytest.importorskip("faster_whisper.feature_extractor").FeatureExtractor(feature_size=80)
    x = (0.1 * rng.standard_normal(16_000)).astype(np.float32)
    x[4_000:9_000] *= 0.001
    reference = theirs(x)[:, :100].T
    ours = normalise(log_mel(x, last=True)[0])
    # The first two frames differ: Whisper mirrors the start, a stream has silence before it.
    np.testing.assert_allclose(ours[2:98], reference[2:98], atol=2e-3)
