from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semaphone.call.jitter_buffer import Arrival, Due, JitterBuffer, JitterConfig
from semaphone.packet.format import PacketFormat
from semaphone.packet.packetizer import Packetizer
from semaphone.packet.rtp import RtpPacket

FORM = PacketFormat(4, 32, loss_report=True)
CONFIG = JitterConfig(FORM, 16000)
T = FORM.block_duration


def talk(blocks: int, form: PacketFormat = FORM, first: int = 65530, start: int = 2**32 - 6000) -> list[RtpPacket]:
    """The packets of a talk; their numbers and times wrap around soon."""
    packetizer, state, packets = Packetizer(form), None, []
    for chunk in range(blocks * form.chunks_per_block):
        more, state = packetizer.push(np.full(4, chunk % 32), (3, 1), state, 0.25)
        packets += more
    size = round(16000 * form.block_duration)
    return [
        RtpPacket(96, (first + p.sequence) % 2**16, (start + p.block * size) % 2**32, 7, p.payload) for p in packets
    ]


def sent_at(packet_number: int, form: PacketFormat = FORM) -> float:
    return form.send_time(packet_number)


def play(buffer: JitterBuffer, arrivals: list[tuple[float, RtpPacket]], until: float) -> list[Due]:
    """Gives the packets in the order of their arrival and takes blocks at their deadlines, up to the last one."""
    got: list[Due] = []
    for time, packet in sorted(arrivals, key=lambda pair: pair[0]):
        while (deadline := buffer.next_deadline) is not None and deadline < time:
            got += buffer.pop(deadline)
        buffer.put(packet, time)
    while (deadline := buffer.next_deadline) is not None and deadline <= until:
        got += buffer.pop(deadline)
    while got and not any(got[-1].payloads):
        del got[-1]
    return got


def test_without_jitter_everything_comes_in_order() -> None:
    packets = talk(30)
    buffer = JitterBuffer(CONFIG, 7)
    got = play(buffer, [(sent_at(i) + 0.1, packet) for i, packet in enumerate(packets)], sent_at(59) + 0.2)
    assert [due.block for due in got] == list(range(30))
    assert [due.payloads for due in got] == [
        (a.payload, b.payload) for a, b in zip(packets[::2], packets[1::2], strict=True)
    ]
    assert {due.silent or due.filler for due in got} == {False}
    assert buffer.counts == {Arrival.ACCEPTED: 60}
    assert buffer.reported == 0.25
    assert (buffer.first_sequence, buffer.highest_sequence, buffer.received) == (65530, 65589, 60)
    assert buffer.losses.report().loss_rate == 0


def test_a_block_leaves_at_its_deadline_with_what_is_there() -> None:
    packets = talk(3)
    buffer = JitterBuffer(CONFIG, 7)
    buffer.put(packets[0], 10.0)
    deadline = buffer.next_deadline or 0.0
    assert deadline == pytest.approx(10.0 + CONFIG.start_delay)
    assert buffer.pop(deadline - 1e-3) == []
    (due,) = buffer.pop(deadline)
    assert due.payloads == (packets[0].payload, None)
    assert due.play_at == pytest.approx(deadline + buffer.margin)
    assert due.waited == pytest.approx(CONFIG.start_delay)
    assert buffer.put(packets[1], deadline + 1e-3) is Arrival.LATE
    assert buffer.losses.lost == 1


def test_a_lost_block_is_known_at_its_deadline() -> None:
    packets = talk(4)
    buffer = JitterBuffer(CONFIG, 7)
    got = play(buffer, [(sent_at(i), packets[i]) for i in (0, 1, 4, 5)], 0.6)
    assert [due.payloads == (None, None) for due in got] == [False, True, False]
    assert np.diff([due.deadline for due in got]) == pytest.approx(T)
    assert (buffer.losses.lost, buffer.losses.report().conditional) == (2, 0.5)


def test_duplicates_and_foreign_packets_change_nothing() -> None:
    packets = talk(4)
    buffer = JitterBuffer(CONFIG, 7)
    assert buffer.put(packets[0], 0.16) is Arrival.ACCEPTED
    assert buffer.put(packets[0], 0.17) is Arrival.DUPLICATE
    assert buffer.put(replace(packets[1], ssrc=8), 0.17) is Arrival.FOREIGN
    assert buffer.put(replace(packets[1], timestamp=packets[1].timestamp + 1), 0.17) is Arrival.FOREIGN
    assert buffer.put(replace(packets[1], payload=b""), 0.17) is Arrival.BAD
    assert (
        buffer.put(replace(packets[1], timestamp=(packets[1].timestamp + 2560 * 1000) % 2**32), 0.17) is Arrival.FOREIGN
    )
    assert buffer.put(packets[1], 0.17) is Arrival.ACCEPTED
    assert buffer.put(replace(packets[1], sequence_number=9), 0.17) is Arrival.DUPLICATE
    (due,) = buffer.pop(0.25)
    assert due.payloads == (packets[0].payload, packets[1].payload)


def test_a_foreign_first_packet_does_not_set_the_grid() -> None:
    packets = talk(10)
    buffer = JitterBuffer(CONFIG, 7)
    assert buffer.put(replace(packets[0], timestamp=12345), 0.1) is Arrival.ACCEPTED
    got = play(buffer, [(sent_at(i), packet) for i, packet in enumerate(packets)], 1.9)
    assert buffer.counts[Arrival.FOREIGN] == 1
    assert sum(None not in due.payloads for due in got) >= 9


def test_the_first_packets_may_be_out_of_order() -> None:
    packets = talk(3)
    buffer = JitterBuffer(CONFIG, 7)
    got = play(buffer, [(0.32, packets[2]), (0.321, packets[0]), (0.322, packets[1]), (0.323, packets[3])], 1)
    assert [due.block for due in got] == [-1, 0]
    assert all(None not in due.payloads for due in got)


def weather(packets, rng, jitter: float, loss: float = 0.0, drift: float = 0.0, delay: float = 0.05):
    return [
        (sent_at(i) * (1 + drift) + delay + rng.exponential(jitter), packet)
        for i, packet in enumerate(packets)
        if rng.random() >= loss
    ]


@pytest.mark.parametrize("jitter", [0.0, 0.01, 0.03])
def test_the_delay_follows_the_jitter(rng, jitter) -> None:
    packets = talk(200)
    buffer = JitterBuffer(CONFIG, 7)
    play(buffer, weather(packets, rng, jitter), 60)
    late = buffer.counts[Arrival.LATE]
    assert late <= 0.05 * len(packets)
    wanted = CONFIG.headroom + jitter * np.log(50)
    assert abs(buffer.delay - buffer.margin - wanted) < 0.015 + 0.5 * jitter


@pytest.mark.parametrize("drift", [-1e-3, 1e-3])
def test_drifting_clocks_are_absorbed(rng, drift) -> None:
    packets = talk(400)
    buffer = JitterBuffer(CONFIG, 7)
    got = play(buffer, weather(packets, rng, 0.003, drift=drift), 65)
    assert buffer.counts[Arrival.LATE] < 0.05 * len(packets)
    assert buffer.delay < 0.08
    played = sum(due.samples for due in got) / 16000
    assert played == pytest.approx(400 * T * (1 + drift), abs=0.07)
    assert np.abs([due.samples - 2560 for due in got]).max() <= 320


def test_a_longer_way_costs_some_blocks_and_then_works_again() -> None:
    packets = talk(100)
    arrivals = [(sent_at(i) + (0.0 if i < 100 else 0.4), packet) for i, packet in enumerate(packets)]
    buffer = JitterBuffer(CONFIG, 7)
    got = play(buffer, arrivals, 17)
    assert any(due.filler for due in got)
    assert all(None not in due.payloads for due in got if due.block >= 60 and not due.filler)


def test_play_times_follow_from_the_samples(rng) -> None:
    packets = talk(200)
    buffer = JitterBuffer(CONFIG, 7)
    got = play(buffer, weather(packets, rng, 0.03, loss=0.1), 33)
    times = np.array([due.play_at for due in got])
    lengths = np.array([due.samples for due in got]) / 16000
    assert times[1:] == pytest.approx((times + lengths)[:-1])


def test_an_outage_interrupts_and_the_next_packet_goes_on() -> None:
    packets = talk(400)
    kept = [(sent_at(i), packet) for i, packet in enumerate(packets) if not 100 <= i < 600]
    buffer = JitterBuffer(CONFIG, 7)
    got = play(buffer, kept, 65)
    assert sum(due.payloads == (None, None) for due in got) == pytest.approx(CONFIG.patience / T, abs=1)
    assert [due.block for due in got if None not in due.payloads] == [*range(50), *range(300, 400)]
    assert buffer.losses.lost == 0  # nothing came at all: that is no weather


def test_a_clock_that_jumps_needs_two_packets(rng) -> None:
    packets = talk(100)
    moved = [replace(p, timestamp=(p.timestamp + 2560 * 500) % 2**32) for p in packets[100:]]
    buffer = JitterBuffer(CONFIG, 7)
    got = play(buffer, [(sent_at(i), packet) for i, packet in enumerate([*packets[:100], *moved])], 17)
    assert buffer.counts[Arrival.FOREIGN] == 1
    assert sum(None not in due.payloads for due in got) >= 98


def test_silence_is_not_loss() -> None:
    packetizer, state, packets = Packetizer(FORM), None, []
    for chunk in range(40):
        more, state = packetizer.push(np.zeros(4, np.int64), (3, 1) if not 10 <= chunk < 30 else (0, 0), state)
        packets += more
    rtp = [RtpPacket(96, i, p.block * 2560, 7, p.payload) for i, p in enumerate(packets)]
    quiet = [(sent_at(i), p) for i, p in enumerate(rtp) if not 12 <= i < 30]
    buffer = JitterBuffer(CONFIG, 7)
    got = play(buffer, quiet, 3.4)
    assert [due.silent for due in got] == [False] * 5 + [True] * 10 + [False] * 5
    assert buffer.losses.lost == 0


def test_copies_wait_for_the_packet_they_ride_in() -> None:
    form = PacketFormat.named("block", 4, 32)
    packets = talk(6, form)
    buffer = JitterBuffer(JitterConfig(form, 16000), 7)
    got = play(buffer, [(sent_at(i, form), p) for i, p in enumerate(packets) if i != 2], 2)[:5]
    assert [due.payloads[0] is None for due in got] == [False, False, True, False, False]
    assert got[2].payloads[1] == packets[3].payload


def test_a_sliding_chunk_waits_for_its_other_half() -> None:
    form = PacketFormat.named("sliding", 4, 32)
    packets = talk(7, form)
    buffer = JitterBuffer(JitterConfig(form, 16000), 7)
    got = play(buffer, [(sent_at(i, form), p) for i, p in enumerate(packets) if i != 2], 2)
    halves = [[payload is not None for payload in due.payloads] for due in got[:6]]
    assert halves == [[True, True], [True, False], [False, True], [True, True], [True, True], [True, True]]
    assert got[2].payloads[1] == packets[3].payload
    assert got[0].deadline >= form.send_time(1)
    assert buffer.losses.lost == 1


def test_a_sliding_pause_is_known_from_its_first_packet() -> None:
    form = PacketFormat.named("sliding", 4, 32)
    packetizer, state, packets = Packetizer(form), None, []
    for chunk in range(30):
        more, state = packetizer.push(np.zeros(4, np.int64), (3, 1) if not 10 <= chunk < 20 else (0, 0), state)
        packets += more
    rtp = [RtpPacket(96, i, p.block * 1280, 7, p.payload) for i, p in enumerate(packets)]
    # The first packet of the pause still carries half of the last words; the second one is lost.
    arrivals = [(sent_at(i, form), p) for i, p in enumerate(rtp) if not 11 <= i < 20]
    buffer = JitterBuffer(JitterConfig(form, 16000), 7)
    got = play(buffer, arrivals, 3.0)
    assert [due.silent for due in got[:30]] == [False] * 10 + [True] * 10 + [False] * 10
    assert buffer.losses.lost == 0


SLIDING = PacketFormat.named("sliding", 4, 32)


def stalled(blocks: int, begin: float, length: float, drain: float = 0.0, form: PacketFormat = SLIDING):
    """A talk over a network that holds everything from `begin` on for `length` s, then delivers it within `drain` s."""
    arrivals = []
    for i, packet in enumerate(talk(blocks, form)):
        sent = sent_at(i, form)
        held = begin <= sent < begin + length
        arrivals.append((begin + length + drain * (sent - begin) / length if held else sent, packet))
    return arrivals


def ages(got: list[Due], since: float, form: PacketFormat = SLIDING) -> list[float]:
    """s from mouth to ear of the blocks that were played from `since` on."""
    return [due.play_at - due.block * form.block_duration for due in got if any(due.payloads) and due.play_at >= since]


@pytest.mark.parametrize("length", [1.0, 1.9, 2.1, 2.4, 3.0, 8.0, 20.0])
@pytest.mark.parametrize("schedule", ["sliding", "split", "bundle:320ms"])
def test_after_a_stall_play_goes_on_at_the_live_edge(length, schedule) -> None:
    form = PacketFormat.named(schedule, 4, 32)
    arrivals = stalled(round(60 / form.block_duration), 5.0, length, form=form)
    buffer = JitterBuffer(JitterConfig(form, 16000), 7)
    got = play(buffer, arrivals, 61)
    before = max(age for age, due in zip(ages(got, 0, form), got, strict=False) if due.play_at < 5.0)
    assert max(ages(got, 5.0 + length + 1.0, form)) < before + 0.35
    assert np.median(ages(got, 5.0 + length + 1.0, form)) < before + 0.15
    assert buffer.delay < before + 0.15
    # What came too late is counted as that, and what was sent after the stall is heard.
    assert sum(buffer.counts.values()) == len(arrivals)
    assert buffer.counts[Arrival.LATE] >= (length - 0.7) * form.packet_rate
    last = round((5.0 + length + 1.0) / form.block_duration)
    assert all(None not in due.payloads for due in got if last <= due.block < got[-1].block and not due.filler)


@pytest.mark.parametrize("drain", [0.5, 2.0, 4.0])
def test_a_stall_that_drains_slowly_stays_close_to_what_is_newest(drain) -> None:
    buffer = JitterBuffer(JitterConfig(SLIDING, 16000), 7)
    got = play(buffer, stalled(750, 5.0, 8.0, drain), 61)
    assert max(ages(got, 13.0 + drain + 1.0)) < 1.2
    assert max(ages(got, 13.0 + drain + 12.0)) < 0.5


def test_stalls_again_and_again() -> None:
    arrivals = []
    for i, packet in enumerate(talk(750, SLIDING)):
        sent = sent_at(i, SLIDING)
        arrivals.append((sent if sent % 15 < 5 or sent % 15 > 11 else sent - sent % 15 + 11, packet))
    got = play(JitterBuffer(JitterConfig(SLIDING, 16000), 7), arrivals, 61)
    for turn in range(4):
        ends = 15 * turn + 11.0
        assert max(age for due in got for age in ages([due], ends + 1) if due.play_at < ends + 4) < 0.6


def test_one_packet_that_is_far_too_quick_moves_nothing() -> None:
    packets = talk(200, SLIDING)
    arrivals = [(sent_at(i, SLIDING) + 0.1, packet) for i, packet in enumerate(packets)]
    later = (packets[50].timestamp + 30 * 1280) % 2**32
    arrivals[50] = (arrivals[50][0], replace(packets[50], timestamp=later))
    got = play(JitterBuffer(JitterConfig(SLIDING, 16000), 7), arrivals, 17)
    assert sum(None not in due.payloads for due in got) >= 196


def test_a_way_that_becomes_longer_for_good_is_followed() -> None:
    for longer in (0.5, 0.7, 1.5, 3.0):
        packets = talk(500, SLIDING)
        arrivals = [(sent_at(i, SLIDING) + longer * (i > 200), packet) for i, packet in enumerate(packets)]
        buffer = JitterBuffer(JitterConfig(SLIDING, 16000), 7)
        got = play(buffer, arrivals, 45)
        assert all(None not in due.payloads for due in got if 270 <= due.block < 498 and not due.filler)
        assert max(ages(got, 40)) < longer + 0.35


def silence(got: list[Due]) -> float:
    """s of the longest time that nothing was heard."""
    times = [due.play_at for due in got if any(due.payloads)]
    return max(b - a for a, b in itertools.pairwise(times))


@pytest.mark.parametrize("jump", [-5.0, -3.2, -2.0, -1.0, -0.48, 1.0, 3.2, 6.0])
@pytest.mark.parametrize("schedule", ["sliding", "split", "bundle:320ms"])
@pytest.mark.parametrize("more", [0, 77])
def test_timestamps_that_jump_cost_little(jump, schedule, more) -> None:
    form = PacketFormat.named(schedule, 4, 32)
    size = round(16000 * form.block_duration)
    by = round(jump / form.block_duration) * size + more
    arrivals = []
    for i, packet in enumerate(talk(round(20 / form.block_duration), form)):
        moved = replace(packet, timestamp=(packet.timestamp + by * (sent_at(i, form) >= 8)) % 2**32)
        arrivals.append((sent_at(i, form) + 0.05, moved))
    got = play(JitterBuffer(JitterConfig(form, 16000), 7), arrivals, 40)
    assert silence(got) < 0.5 + 3 * form.block_duration
    assert max(due.play_at - due.deadline for due in got) < 0.1
    assert 19.0 < got[-1].play_at < 21.0 + form.block_duration


def test_packets_that_overtake_one_another_are_no_jump(rng) -> None:
    packets = talk(200)
    arrivals = [(sent_at(i) + rng.uniform(0, 0.4), packet) for i, packet in enumerate(packets)]
    buffer = JitterBuffer(CONFIG, 7)
    play(buffer, arrivals, 40)
    assert buffer.counts[Arrival.FOREIGN] == 0
    assert buffer.counts[Arrival.ACCEPTED] > 370


@settings(max_examples=60)
@given(st.data())
def test_whatever_arrives_blocks_leave_once_in_order_and_with_their_own_packets(data) -> None:
    packets = talk(data.draw(st.integers(1, 12)))
    own = {p.payload: i // 2 for i, p in enumerate(packets)}
    arrivals = []
    for i, packet in enumerate(packets):
        for _ in range(data.draw(st.integers(0, 2))):
            delay = data.draw(st.floats(0, 3))
            change = data.draw(st.sampled_from(["none", "none", "none", "ssrc", "payload", "timestamp"]))
            changed = packet
            if change == "ssrc":
                changed = replace(packet, ssrc=1)
            elif change == "payload":
                changed = replace(packet, payload=packet.payload[: data.draw(st.integers(0, len(packet.payload) - 1))])
            elif change == "timestamp":
                changed = replace(packet, timestamp=data.draw(st.integers(0, 2**32 - 1)))
            arrivals.append((sent_at(i) + delay, changed))
    buffer = JitterBuffer(CONFIG, 7)
    got = play(buffer, arrivals, 30)
    assert sum(buffer.counts.values()) == len(arrivals)
    whole = [due.block for due in got if not due.filler]
    assert len(set(whole)) == len(whole)
    for due in got:
        assert 0 < due.samples <= 2 * CONFIG.block_samples
        assert len({own.get(payload, -1) for payload in due.payloads if payload is not None}) <= 1
    assert len(buffer._store) <= 60
