from __future__ import annotations

import numpy as np
import pytest

from semaphone.call.stretch import stretch


@pytest.mark.parametrize("change", [-160, -1, 0, 1, 320])
def test_stretched_speech_keeps_its_pitch_and_its_ends(change) -> None:
    speech = np.sin(2 * np.pi * 200 * np.arange(2560) / 16000).astype(np.float32)  # a period of 80 samples
    out = stretch(speech, 2560 + change, 160)
    assert len(out) == 2560 + change
    assert (out[0], out[-1]) == (speech[0], speech[-1])
    if change % 80 == 0:
        assert np.abs(np.diff(out)).max() <= np.abs(np.diff(speech)).max() + 1e-5


def test_the_splice_is_where_nobody_hears_it(rng) -> None:
    speech = np.concatenate([rng.standard_normal(1500), np.zeros(600), rng.standard_normal(460)]).astype(np.float32)
    out = stretch(speech, 2400, 160)
    np.testing.assert_array_equal(out[:1500], speech[:1500])
    np.testing.assert_array_equal(out[-460:], speech[-460:])


def test_too_much_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be spliced"):
        stretch(np.zeros(100, np.float32), 200, 10)
