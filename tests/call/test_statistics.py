from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semaphone.call.statistics import GMIN, WINDOW, InterarrivalJitter, LossStatistics
from semaphone.channel.erasure import measure


def counted(text: str) -> LossStatistics:
    statistics = LossStatistics()
    for character in text:
        statistics.add(character == "1")
    return statistics


def test_bursts_and_gaps_of_rfc_3611() -> None:
    report = counted("0" * 20 + "1011" + "0" * GMIN + "0" * 4 + "1" + "0" * 30).report()
    assert (report.packets, report.lost) == (75, 4)
    assert report.burst_packets == 4
    assert report.burst_density == pytest.approx(3 / 4)
    assert report.gap_density == pytest.approx(1 / 71)
    assert report.gap_packets == pytest.approx(71 / 2)


def test_a_burst_that_has_not_ended_counts() -> None:
    assert counted("0" * 20 + "11").report().burst_density == 1.0


def test_nothing_yet() -> None:
    report = LossStatistics().report()
    assert (report.loss_rate, report.mean_burst, report.conditional) == (0, 0, 0)


@given(st.lists(st.booleans(), min_size=1, max_size=300))
def test_rates_look_back_on_a_window(lost) -> None:
    report = counted("".join(str(int(one)) for one in lost)).report()
    window = measure(np.array(lost[-WINDOW:]))
    assert report.loss_rate == pytest.approx(window.loss)
    assert report.mean_burst == pytest.approx(window.mean_burst)
    assert (report.packets, report.lost) == (len(lost), sum(lost))


@given(st.lists(st.booleans(), max_size=300))
def test_no_loss_is_forgotten(lost) -> None:
    statistics = counted("".join(str(int(one)) for one in lost))
    report = statistics.report()
    for density in (report.burst_density, report.gap_density):
        assert 0 <= density <= 1
    assert statistics._in_bursts[1] + statistics._in_gaps[1] + statistics._open[1] == sum(lost)


def test_jitter_of_rfc_3550() -> None:
    jitter = InterarrivalJitter()
    for transit in (5.0, 5.016, 5.0):
        jitter.add(transit)
    assert jitter.jitter == pytest.approx(0.001 + (0.016 - 0.001) / 16)


def test_the_sender_is_told_soon() -> None:
    losses = LossStatistics()
    for i in range(400):
        losses.add(i >= 200 and i % 3 == 0)
        if i == 199:
            assert losses.estimate.rate == 0
        if i == 230:  # 2.4 s later
            assert 0.2 < losses.estimate.rate < 0.35
    assert abs(losses.estimate.rate - 1 / 3) < 0.05
