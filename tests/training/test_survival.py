"""What is lost in training is what the link loses."""

from __future__ import annotations

import numpy as np
import pytest

from semaphone.errors import InputError
from semaphone.packet.interleaving import interleave
from semaphone.recovery.base import TokenStatus
from semaphone.training.survival import (
    Survival,
    draw_status,
    packet_losses,
    packet_status,
    sent_tokens,
    settle,
    token_losses,
)

RECEIVED, LOST, UNSENT, UNKNOWN = TokenStatus
N = 7


def test_a_lost_packet_takes_the_tokens_that_the_interleaver_put_there():
    sent, twice = np.array([N, N]), np.array([0, 0])
    for packet in (0, 1):
        lost = np.arange(2) == packet
        status = packet_status(sent, twice, N, lost)
        where = interleave(np.repeat(np.arange(2)[:, None], N, 1))  # where[p, k]: the chunk of token k in packet p
        expected = np.full((2, N), int(RECEIVED))
        for k in range(N):
            expected[where[packet, k], k] = LOST
        assert np.array_equal(status, expected)


def test_two_lost_packets_leave_nothing_known():
    status = packet_status(np.array([N, 3, N, 3]), np.array([2, 2, 2, 2]), N, np.array([True, True, False, False]))
    assert (status[:2] == UNKNOWN).all()
    assert (status[2] == RECEIVED).all()
    assert status[3].tolist() == [RECEIVED] * 3 + [UNSENT] * 4


def test_tokens_sent_twice_survive_one_lost_packet():
    status = packet_status(np.array([5, 1]), np.array([3, 0]), N, np.array([True, False]))
    assert (status[0, :3] == RECEIVED).all()
    assert (status[0, 3:5] == LOST).any()
    assert (status[0, 5:] == UNSENT).all()
    assert status[1, 0] == RECEIVED  # a single token goes twice


def test_unknown_tokens_beyond_those_sent_lately_count_as_unsent():
    status = np.full((3, N), int(UNKNOWN))
    status[1] = [RECEIVED] * 3 + [UNSENT] * 4
    settled = settle(status)
    assert (settled[0] == UNKNOWN).all()
    assert settled[2].tolist() == [UNKNOWN] * 3 + [UNSENT] * 4


def test_loss_rates_and_bursts_are_those_asked_for(rng):
    for burst in (None, 2.0, 6.0):
        lost = packet_losses(200_000, 0.2, burst, rng)
        assert lost.mean() == pytest.approx(0.2, abs=0.02)
        starts = (lost[1:] & ~lost[:-1]).sum()
        assert lost.sum() / starts == pytest.approx(burst or 1.25, rel=0.05)
    status = token_losses(np.full(5_000, N), np.full(5_000, 2), N, 0.3, rng)
    rate = (status == LOST).mean(0)
    assert rate[:2] == pytest.approx(0.09, abs=0.02)
    assert rate[2:] == pytest.approx(0.3, abs=0.03)


def test_numbers_of_sent_tokens_stay_in_range(rng):
    seen: set[int] = set()
    for _ in range(200):
        sent = sent_tokens(Survival(), 40, N, rng)
        seen |= set(sent.tolist())
        assert np.abs(np.diff(sent)).max() <= 2
    assert seen == set(range(1, N + 1))
    assert sent_tokens(Survival(full=0), 5, 1, rng).tolist() == [1] * 5


def test_draws_have_every_status_and_follow_the_seed():
    one, two = (draw_status(Survival(), 40, 31, N, np.random.default_rng(3)) for _ in range(2))
    assert one.shape == (40, 31, N)
    assert np.array_equal(one, two)
    assert set(np.unique(one)) == {int(s) for s in TokenStatus}


def test_impossible_settings():
    with pytest.raises(InputError, match="between 0 and 1"):
        Survival(lossy=2)
    with pytest.raises(InputError, match="one packet or longer"):
        Survival(bursts=(0.5, 2))
