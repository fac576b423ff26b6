"""Latency: eq 7 telescopes, a listener cannot hear what has not been spoken, and phrases do not overlap."""

from __future__ import annotations

import itertools
import math

import pytest

from semaphone.metrics.latency import (
    TimedSegment,
    average_latency,
    end_to_end,
    listener_lag,
    live_starts,
    model_time,
    report,
    unpaced_emissions,
)


def test_average_latency_telescopes():
    emitted = [0.5, 0.8, 1.9, 2.0]
    mean = sum(b - a for a, b in itertools.pairwise(emitted)) / 3
    assert average_latency(emitted) == pytest.approx(mean) == pytest.approx(0.5)
    assert math.isnan(average_latency([1.0]))


def test_unpaced_clock_adds_up_computing():
    talk = [TimedSegment(0.0, 0.75, 0.4, 1.0), TimedSegment(0.75, 1.5, 0.2, 1.0), TimedSegment(1.5, 2.25, 0.3, 0.0)]
    assert unpaced_emissions(talk) == pytest.approx([0.4, 0.6, 0.9])
    assert average_latency(unpaced_emissions(talk)) == pytest.approx(0.25)


def test_live_talk_by_hand():
    talk = [TimedSegment(0.0, 0.75, 0.25, 0.0), TimedSegment(0.75, 1.5, 0.5, 2.0), TimedSegment(1.5, 2.25, 0.25, 0.5)]
    # The second segment is ready at 1.5 + 0.5 and speaks until 4.0; the third waits for that.
    assert live_starts(talk) == [(1, 2.0), (2, 4.0)]
    assert listener_lag(talk) == pytest.approx([2.0, 2.5])


def test_a_slow_machine_falls_behind():
    talk = [TimedSegment(0.0, 0.5, 1.0, 0.1), TimedSegment(0.5, 1.0, 1.0, 0.1)]
    assert live_starts(talk) == [(0, 1.5), (1, 2.5)]


def test_lag_is_never_under_the_segment():
    talk = [TimedSegment(0.7 * i, 0.7 * (i + 1), 0.01, 0.2) for i in range(9)]
    assert min(listener_lag(talk)) >= 0.7


def test_report_of_nothing_is_nan():
    empty = report([])
    assert math.isnan(empty.average_latency)
    assert math.isnan(empty.lag_p50)
    assert empty.as_dict()["segments"] == 0


def test_largesc_sums():
    assert model_time(3.2, 0.03) == pytest.approx(0.096)
    assert end_to_end(0.16, 0.1, 0.05, 0.01, 0.2) == pytest.approx(0.52)
