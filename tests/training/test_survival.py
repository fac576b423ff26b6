"""What is lost in training is what the link loses."""

from __future__ import annotations

import numpy as np
import pytest

from semaphone.errors import InputError
from semaphone.packet.format import Mask, PacketFormat
from semaphone.packet.interleaving import interleave
from semaphone.packet.packetizer import Depacketizer, Packetizer
from semaphone.recovery.base import TokenStatus
from semaphone.training.survival import (
    Survival,
    _chain,
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
        status, _ = packet_status(sent, twice, N, lost, sliding=False)
        where = interleave(np.repeat(np.arange(2)[:, None], N, 1))  # where[p, k]: the chunk of token k in packet p
        expected = np.full((2, N), int(RECEIVED))
        for k in range(N):
            expected[where[packet, k], k] = LOST
        assert np.array_equal(status, expected)


def test_two_lost_packets_leave_nothing_known():
    lost = np.array([True, True, False, False])
    status, _ = packet_status(np.array([N, 3, N, 3]), np.array([2, 2, 2, 2]), N, lost, sliding=False)
    assert (status[:2] == UNKNOWN).all()
    assert (status[2] == RECEIVED).all()
    assert status[3].tolist() == [RECEIVED] * 3 + [UNSENT] * 4


def test_tokens_sent_twice_survive_one_lost_packet():
    status, _ = packet_status(np.array([5, 1]), np.array([3, 0]), N, np.array([True, False]), sliding=False)
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
    for first, second in zip(one, two, strict=True):
        assert first.shape == (40, 31, N)
        assert np.array_equal(first, second)
        assert set(np.unique(first)) == {int(s) for s in TokenStatus}


@pytest.mark.parametrize("schedule", ["sliding", "split"])
def test_what_is_known_is_what_the_depacketizer_knows(schedule, rng):
    """Of a chunk and, when it is recovered, of the next one: masks and losses at random, packets of the link."""
    form = PacketFormat.named(schedule, N, 64)
    chunks = 24
    for _ in range(20):
        sent = rng.integers(1, N + 1, chunks)
        twice = np.minimum(sent, rng.integers(0, N + 1, chunks))
        lost = rng.random(chunks + 1) < 0.4
        packetizer, state, packets = Packetizer(form), None, []
        for masks in zip(sent, twice, strict=True):
            more, state = packetizer.push(np.zeros(N, np.int64), Mask(*map(int, masks)), state)
            packets += more
        more, _ = packetizer.flush(state)
        arrived = {p.sequence: p.payload for p in [*packets, *more] if not (p.sequence <= chunks and lost[p.sequence])}
        found = []
        for block in range(chunks // form.chunks_per_block):
            found += Depacketizer(form).read([arrived.get(n) for n in form.sequences_of(block)])
        status, coming = packet_status(sent, twice, N, lost, schedule == "sliding")
        assert np.array_equal(status, np.stack([chunk.status for chunk in found]))
        for drawn, chunk in zip(coming[:-1], found[:-1], strict=True):
            assert np.array_equal(drawn, np.full(N, int(UNKNOWN)) if chunk.coming is None else chunk.coming.status)


def test_impossible_settings():
    with pytest.raises(InputError, match="between 0 and 1"):
        Survival(lossy=2)
    with pytest.raises(InputError, match="one packet or longer"):
        Survival(bursts=(0.5, 2))


def test_a_chain_is_that_of_its_steps():
    rng = np.random.default_rng(5)
    for count in (1, 2, 40):
        for bad in (False, True):
            stays, comes = rng.random((2, count)) < 0.5
            expected, state = [], bad
            for n in range(count):
                expected.append(state)
                state = bool(stays[n] if state else comes[n])
            assert _chain(stays, comes, bad).tolist() == expected
