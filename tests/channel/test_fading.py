"""Statistics of the radio channels: power, distribution, coherence, pilots, capacity."""

from __future__ import annotations

import math

import numpy as np
import pytest

from semaphone.channel.fading import FadingChannel
from semaphone.errors import InputError

ONES = np.ones(40_000, np.complex64)


@pytest.mark.parametrize("kind", ["awgn", "rayleigh", "rician"])
def test_gain_and_noise_have_the_stated_power(kind, rng):
    channel = FadingChannel(kind, snr_db=7.0)
    received = channel(ONES, rng)
    assert np.mean(np.abs(received.gains) ** 2) == pytest.approx(1.0, abs=0.02)
    noise = received.symbols - received.gains
    assert np.mean(np.abs(noise) ** 2) == pytest.approx(10 ** (-0.7), rel=0.03)


def test_rayleigh_power_is_exponential(rng):
    power = np.abs(FadingChannel("rayleigh").gains(40_000, rng)) ** 2
    for threshold in (0.1, 1.0, 2.0):
        assert np.mean(power < threshold) == pytest.approx(1 - math.exp(-threshold), abs=0.01)


def test_a_strong_line_of_sight_is_almost_awgn(rng):
    gains = FadingChannel("rician", k_factor=1e4).gains(1000, rng)
    assert np.abs(gains - 1).max() < 0.1


def test_block_fading_holds_the_gain(rng):
    gains = FadingChannel("rayleigh", coherence=64).gains(150, rng)
    assert np.all(gains[:64] == gains[0])
    assert np.all(gains[128:] == gains[128])
    assert gains[0] != gains[64]


def test_pilots_estimate_the_gain_and_are_counted(rng):
    exact = FadingChannel("rayleigh", snr_db=10.0, coherence=50)
    guessed = FadingChannel("rayleigh", snr_db=10.0, coherence=50, pilots=2)
    received = guessed(ONES, np.random.default_rng(3))
    truth = exact(ONES, np.random.default_rng(3)).gains
    assert received.pilots == 2 * 800
    error = np.mean(np.abs(received.gains - truth) ** 2)
    # Least mean square error of h from two pilots: N0/P / (1 + N0/P).
    assert error == pytest.approx(0.05 / 1.05, rel=0.2)


def test_the_same_seed_gives_the_same_weather():
    channel = FadingChannel("rayleigh", snr_db=3.0, coherence=8)
    a, b = (channel(ONES[:100], np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(a.symbols, b.symbols)


def test_shape_is_kept(rng):
    received = FadingChannel("rician")(np.ones((3, 5), np.complex64), rng)
    assert received.symbols.shape == received.gains.shape == (3, 5)
    assert FadingChannel("rayleigh")(np.ones((0, 5), np.complex64), rng).symbols.shape == (0, 5)


def test_capacity_is_below_that_of_a_still_channel():
    still, faded = FadingChannel("awgn", snr_db=10.0).capacity(), FadingChannel("rayleigh", snr_db=10.0).capacity()
    assert still == pytest.approx(math.log2(11))
    # e^(1/g) E1(1/g) / ln 2 at g = 10.
    assert faded == pytest.approx(2.9015, abs=0.01)
    assert faded < FadingChannel("rician", snr_db=10.0).capacity() < still


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kind": "fog"}, "one of awgn"),
        ({"snr_db": float("nan")}, "SNR must be a number"),
        ({"snr_db": 500.0}, "SNR must be a number"),
        ({"coherence": 0}, "coherence"),
        ({"k_factor": -1.0}, "K-factor"),
        ({"pilots": 1}, "Pilots need block fading"),
    ],
)
def test_wrong_settings_are_named(settings, words):
    with pytest.raises(InputError, match=words):
        FadingChannel(**settings)
