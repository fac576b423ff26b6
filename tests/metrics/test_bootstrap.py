"""Intervals cover what they should, and rows of one utterance count as one."""

from __future__ import annotations

import numpy as np
import pytest

from semaphone.errors import InputError
from semaphone.metrics.bootstrap import bootstrap_mean, bootstrap_ratio, paired_difference


def seeded(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_intervals_cover_the_true_mean_about_as_often_as_promised() -> None:
    hits = 0
    for trial in range(200):
        values = seeded(trial).normal(3.0, 1.0, size=40)
        interval = bootstrap_mean(values, seeded(1000 + trial), resamples=400)
        hits += interval.low <= 3.0 <= interval.high
    assert 0.88 <= hits / 200 <= 0.99


def test_the_same_seed_gives_the_same_interval() -> None:
    values = seeded().normal(size=30)
    assert bootstrap_mean(values, seeded(5)) == bootstrap_mean(values, seeded(5))


def test_rows_of_one_utterance_are_drawn_together() -> None:
    means = seeded().normal(size=20)
    rows = np.repeat(means, 50)
    names = [f"utterance {i}" for i in range(20) for _ in range(50)]
    together = bootstrap_mean(rows, seeded(1), clusters=names)
    apart = bootstrap_mean(rows, seeded(1))
    assert together.utterances == 20
    assert together.mean == pytest.approx(apart.mean)
    assert together.high - together.low > 4 * (apart.high - apart.low)


def test_pairing_takes_the_difficulty_of_the_utterance_out() -> None:
    difficulty = seeded().normal(0, 10, size=50)
    ours, theirs = difficulty + 0.5 + seeded(1).normal(0, 0.1, 50), difficulty
    interval = paired_difference(ours, theirs, seeded(2))
    assert interval.excludes_zero
    assert interval.mean == pytest.approx(0.5, abs=0.1)


def test_what_is_missing_is_left_out() -> None:
    assert bootstrap_mean([1.0, None, float("nan"), 3.0], seeded()).mean == 2.0
    assert paired_difference([1.0, None, 5.0], [0.0, 7.0, None], seeded()).mean == 1.0


def test_a_ratio_is_pooled() -> None:
    interval = bootstrap_ratio([1, 0, None, 3], [10, 10, 5, 0], seeded())
    assert interval.mean == pytest.approx(1 / 20)
    assert interval.utterances == 2


def test_what_cannot_be_computed_is_one_sentence() -> None:
    with pytest.raises(InputError, match="no value"):
        bootstrap_mean([None], seeded())
    with pytest.raises(InputError, match="row"):
        paired_difference([1.0], [1.0, 2.0], seeded())
    with pytest.raises(InputError, match="level"):
        bootstrap_mean([1.0], seeded(), level=95)
    with pytest.raises(InputError, match="named"):
        bootstrap_mean([1.0], seeded(), clusters=["a", "b"])
