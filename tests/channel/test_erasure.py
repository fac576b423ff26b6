from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semaphone.channel.erasure import (
    GilbertElliott,
    Phase,
    Schedule,
    Trace,
    Uniform,
    conditional_loss,
    measure,
    parse_channel,
    read_trace,
)
from semaphone.errors import InputError

SEED = 11


def run(channel, period: float, count: int, seed: int = SEED) -> np.ndarray:
    sampler = channel.sampler(np.random.default_rng(seed))
    return np.array([sampler.lost(i * period) for i in range(count)])


def run_tokens(channel, count: int) -> np.ndarray:
    return channel.sampler(np.random.default_rng(SEED)).lost_tokens(count)


def standard_error(channel, period: float, count: int) -> float:
    """Of a mean loss rate, for a chain whose memory dies exponentially."""
    r = (conditional_loss(channel, period) - channel.mean_loss) / (1 - channel.mean_loss)
    return math.sqrt(channel.mean_loss * (1 - channel.mean_loss) / count * (1 + r) / (1 - r))


# --- statistics


@pytest.mark.parametrize("loss", [0.01, 0.1, 0.5])
def test_uniform_loses_its_share_without_memory(loss) -> None:
    channel, count = Uniform(loss), 20_000
    seen = measure(run(channel, 0.08, count))
    assert abs(seen.loss - loss) < 4 * standard_error(channel, 0.08, count)
    assert abs(seen.conditional - loss) < 4 * math.sqrt((1 - loss) / count)
    assert abs(seen.mean_burst - 1 / (1 - loss)) < 0.1 / (1 - loss)


@pytest.mark.parametrize(("loss", "burst"), [(0.05, 0.24), (0.2, 0.24), (0.2, 0.06), (0.6, 1.0)])
@pytest.mark.parametrize("period", [0.02, 0.08])
def test_gilbert_elliott_has_the_loss_and_the_bursts_it_was_given(loss, burst, period) -> None:
    channel, count = GilbertElliott(loss, burst), 20_000
    seen = measure(run(channel, period, count))
    assert abs(seen.loss - loss) < 4 * standard_error(channel, period, count)
    r = conditional_loss(channel, period)
    bursts = count * loss * (1 - r)
    assert abs(seen.conditional - r) < 4 * math.sqrt(r * (1 - r) / (count * loss)) + 0.005
    assert abs(seen.mean_burst * (1 - r) - 1) < 4 / math.sqrt(bursts)


def test_mean_stay_in_the_bad_state_is_the_burst_length() -> None:
    # Sampled every 2 ms a run of losses is as long as the stay in the bad state.
    seen = measure(run(GilbertElliott(0.2, 0.24), 0.002, 120_000))
    assert seen.mean_burst * 0.002 == pytest.approx(0.24, rel=0.35)


def test_gilbert_elliott_with_partial_losses() -> None:
    channel, count = GilbertElliott(0.2, 0.5, bad=0.6, good=0.05), 20_000
    seen = measure(run(channel, 0.02, count))
    assert abs(seen.loss - 0.2) < 4 * 0.6 * math.sqrt(0.25 * 50 / count)
    assert abs(seen.conditional - conditional_loss(channel, 0.02)) < 0.04


def test_per_packet_bursts_are_counted_in_packets() -> None:
    channel = GilbertElliott(0.2, 3.0, per="packet")
    seen = measure(run(channel, 0.123, 20_000))
    assert seen.loss == pytest.approx(0.2, abs=0.015)
    assert seen.mean_burst == pytest.approx(3, rel=0.06)
    assert seen.conditional == pytest.approx(conditional_loss(channel, 1), abs=0.03)
    np.testing.assert_array_equal(run(channel, 0.123, 500), run(channel, 0.0, 500))


def test_per_token() -> None:
    assert measure(run_tokens(Uniform(0.3, per="token"), 20_000)).loss == pytest.approx(0.3, abs=0.015)
    with pytest.raises(ValueError, match="use lost_tokens"):
        Uniform(0.3, per="token").sampler(np.random.default_rng(1)).lost(0.0)
    with pytest.raises(ValueError, match=r"use lost$"):
        Uniform(0.3).sampler(np.random.default_rng(1)).lost_tokens(2)


@given(st.floats(0.01, 0.99), st.floats(0.01, 2), st.floats(0, 3))
def test_conditional_loss_is_between_its_limits(loss, burst, distance) -> None:
    channel = GilbertElliott(loss, burst)
    assert loss - 1e-9 <= conditional_loss(channel, distance) <= 1 + 1e-9
    assert conditional_loss(channel, 0) == pytest.approx(1)
    assert conditional_loss(channel, 1e3) == pytest.approx(loss)


# --- the same weather for every system


@pytest.mark.parametrize("spec", ["uniform:0.3", "gilbert-elliott:loss=0.3,burst=200ms", "schedule:0-9s=0.3,9-20s=0.6"])
def test_packets_that_leave_together_share_their_fate_at_any_packet_rate(spec) -> None:
    channel = parse_channel(spec)
    often = run(channel, 0.02, 4000)
    np.testing.assert_array_equal(often[::4], run(channel, 0.08, 1000))
    np.testing.assert_array_equal(often[::8], run(channel, 0.16, 500))


def test_packets_of_one_slot_draw_one_after_another() -> None:
    def pairs(gap: float) -> list[tuple[bool, bool]]:
        sampler = Uniform(0.5).sampler(np.random.default_rng(SEED))
        return [(sampler.lost(i * 0.16), sampler.lost(i * 0.16 + gap)) for i in range(2000)]

    first, second = np.array(pairs(0.0)).T
    np.testing.assert_array_equal(first, run(Uniform(0.5), 0.16, 2000))
    assert np.corrcoef(first, second)[0, 1] == pytest.approx(0, abs=0.09)
    assert pairs(0.0) == pairs(0.004)


def test_a_higher_loss_rate_loses_the_same_packets_and_more() -> None:
    low, high = run(Uniform(0.1), 0.08, 2000), run(Uniform(0.3), 0.08, 2000)
    assert (high | ~low).all()


def test_seeds() -> None:
    for channel in (Uniform(0.5), GilbertElliott(0.5, 0.2)):
        np.testing.assert_array_equal(run(channel, 0.08, 300, seed=1), run(channel, 0.08, 300, seed=1))
        assert (run(channel, 0.08, 300, seed=1) != run(channel, 0.08, 300, seed=2)).any()
    # Each takes one draw, so what is drawn afterwards is the same for every channel.
    after = set()
    for spec in ("none", "uniform:0.2", "gilbert-elliott:loss=0.2,burst=1s", "schedule:0-1s=1"):
        generator = np.random.default_rng(SEED)
        sampler = parse_channel(spec).sampler(generator)
        sampler.lost(5.0)
        after.add(generator.random())
    assert len(after) == 1


def test_packets_out_of_order_are_a_mistake_of_the_caller() -> None:
    sampler = Uniform(0.5).sampler(np.random.default_rng(1))
    sampler.lost(1.0)
    with pytest.raises(ValueError, match="in the order"):
        sampler.lost(0.5)


# --- extremes, traces, schedules


@pytest.mark.parametrize("make", [Uniform, lambda loss: GilbertElliott(loss, 0.24)])
def test_nothing_and_everything(make) -> None:
    assert not run(make(0.0), 0.08, 500).any()
    assert run(make(1.0), 0.08, 500).all()
    assert conditional_loss(make(0.0), 0.1) == 0
    assert conditional_loss(make(1.0), 0.1) == 1


@pytest.fixture
def trace(tmp_path):
    path = tmp_path / "with, comma.txt"
    path.write_text("0110\n0001\n")
    return path


def test_a_trace_is_played_slot_by_slot(trace) -> None:
    channel = parse_channel(f"trace:{trace}")
    assert channel.mean_loss == 3 / 8
    np.testing.assert_array_equal(run(channel, 0.005, 8), [0, 1, 1, 0, 0, 0, 0, 1])
    np.testing.assert_array_equal(run(channel, 0.01, 4), [0, 1, 0, 0])
    with pytest.raises(InputError, match=r"ends before the talk does; add ,loop to start it over\.$"):
        run(channel, 0.005, 9)


def test_a_trace_that_loops_begins_where_the_seed_says(trace) -> None:
    channel = parse_channel(f"trace:{trace},loop")
    starts = set()
    for seed in range(60):
        got = run(channel, 0.005, 16, seed)
        np.testing.assert_array_equal(got[:8], got[8:])
        starts.add(tuple(got[:8]))
    assert len(starts) == 8
    fixed = parse_channel(f"trace:{trace},loop,offset=1,per=packet")
    np.testing.assert_array_equal(run(fixed, 7.0, 9), [1, 1, 0, 0, 0, 0, 1, 0, 1])
    assert str(fixed) == f"trace:{trace},loop,offset=1,per=packet"


def test_conditional_loss_of_a_trace(trace) -> None:
    channel = read_trace(trace)
    assert conditional_loss(channel, 0) == 1
    assert conditional_loss(channel, 0.005) == pytest.approx(1 / 2)
    assert conditional_loss(channel, 0.0025) == pytest.approx(3 / 4)


def test_real_traces(shared_data) -> None:
    for path in (shared_data / "traces").glob("*.loss5ms.txt"):
        channel = read_trace(path, loop=True)
        assert 0 < channel.mean_loss < 0.5
        assert conditional_loss(channel, 0.005) > channel.mean_loss  # real losses come in bursts
        assert run(channel, 0.16, 100).dtype == bool


def test_a_schedule_changes_its_rate_over_time() -> None:
    channel = parse_channel("schedule:0-100s=0,100-300s=0.3,300-400s=1")
    lost = run(channel, 0.05, 9000)
    assert not lost[:2000].any()
    assert lost[2000:6000].mean() == pytest.approx(0.3, abs=0.04)
    assert lost[6000:].all()
    assert channel.mean_loss == pytest.approx(0.4)
    assert conditional_loss(channel, 1.0) == pytest.approx((0.5 * 0.09 + 0.25) / 0.4)


def test_a_schedule_with_bursts() -> None:
    channel = parse_channel("schedule:0-10s=0,10-400s=0.2,burst=200ms")
    lost = run(channel, 0.02, 20_000)
    assert not lost[:500].any()
    seen = measure(lost[500:])
    assert seen.loss == pytest.approx(0.2, abs=0.04)
    assert seen.mean_burst * 0.02 == pytest.approx(0.21, rel=0.2)


def test_measure() -> None:
    seen = measure([False, True, True, False, True])
    assert (seen.packets, seen.loss, seen.mean_burst, seen.conditional) == (5, 0.6, 1.5, 0.5)
    assert measure([False]).mean_burst == 0
    assert measure([True, False, True, False], lag=2).conditional == 1
    with pytest.raises(ValueError, match="at least one packet"):
        measure([])


# --- specifications


@pytest.mark.parametrize(
    ("text", "channel"),
    [
        ("none", Uniform(0.0)),
        ("uniform:0.1", Uniform(0.1)),
        ("uniform:loss=0.1", Uniform(0.1)),
        ("uniform:0.1,per=packet", Uniform(0.1, per="packet")),
        ("gilbert-elliott:loss=0.2,burst=240ms", GilbertElliott(0.2, 0.24)),
        ("gilbert-elliott:burst=1.5s,loss=0.2,bad=0.9,good=0.01", GilbertElliott(0.2, 1.5, 0.9, 0.01)),
        ("gilbert-elliott:loss=0.2,burst=3,per=token", GilbertElliott(0.2, 3, per="token")),
        ("schedule:0-4s=0,4-8s=0.05", Schedule((Phase(4, 0), Phase(8, 0.05)))),
        ("schedule:0s-4s=0.5,burst=100ms", Schedule((Phase(4, 0.5),), 0.1)),
    ],
)
def test_specifications(text, channel) -> None:
    assert parse_channel(text) == channel
    assert parse_channel(str(channel)) == channel


probabilities = st.floats(0, 1)
channels = st.one_of(
    st.builds(Uniform, probabilities, st.sampled_from(["time", "packet", "token"])),
    st.builds(GilbertElliott, probabilities, st.floats(1e-3, 1e3)),
    st.builds(GilbertElliott, st.floats(0.5, 0.7), st.floats(0.1, 10), st.floats(0.8, 1), st.floats(0, 0.4)),
    st.builds(
        lambda ends, loss: Schedule(tuple(Phase(end, loss) for end in sorted(ends))),
        st.sets(st.floats(1e-3, 1e6), min_size=1, max_size=5),
        probabilities,
    ),
)


@given(channels)
def test_a_channel_names_itself(channel) -> None:
    assert parse_channel(str(channel)) == channel


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "rain",
            "The channel 'rain' is not known; there are none, uniform, gilbert-elliott, trace, schedule.",
        ),
        ("", "The channel '' is not known; there are none, uniform, gilbert-elliott, trace, schedule."),
        ("none:0.1", "The channel none takes no options, but got '0.1'."),
        ("uniform", "loss must be a number, not ''."),
        ("uniform:1.5", "loss must lie between 0 and 1, not at 1.5."),
        ("uniform:-0.1", "loss must lie between 0 and 1, not at -0.1."),
        ("uniform:nan", "loss must be a finite number, not 'nan'."),
        ("uniform:10%", "loss must be a number, not '10%'."),
        ("uniform:0.1,per=day", "per must be one of time, packet, token, not 'day'."),
        ("uniform:0.1,0.2", "The channel uniform has no option '0.2'; it takes loss, per."),
        ("uniform:loss=0.1,loss=0.2", "The channel uniform got loss twice."),
        ("gilbert-elliott", "The channel gilbert-elliott needs loss=."),
        ("gilbert-elliott:loss=0.1", "The channel gilbert-elliott needs burst=."),
        ("gilbert-elliott:loss=0.1,burst=240", "burst needs a unit, such as 240ms or 0.24s, not '240'."),
        ("gilbert-elliott:loss=0.1,burst=0ms", "The mean burst length must be positive, not 0."),
        ("gilbert-elliott:loss=0.1,burst=-1s", "The mean burst length must be positive, not -1."),
        (
            "gilbert-elliott:loss=0.9,burst=1s,bad=0.5",
            "The mean loss must lie between those of the two states, 0 and 0.5, not 0.9.",
        ),
        (
            "gilbert-elliott:loss=0.9,burst=2,per=packet",
            "Bursts of 2 packets are too short for a loss of 0.9: no stay in a state can be shorter than one packet.",
        ),
        (
            "gilbert-elliott:loss=0.1,burst=1s,bad=0.1,good=0.2",
            "The bad state must lose more than the good one, not 0.1 against 0.2.",
        ),
        ("trace:", "The channel trace needs a file, such as trace:losses.txt."),
        ("trace:no-such-file", "The trace no-such-file cannot be read: No such file or directory."),
        ("schedule:", "A phase of a schedule is written like 0-4s=0.1, not ''."),
        ("schedule:burst=1s", "A schedule needs at least one phase, such as 0-4s=0.1."),
        ("schedule:0-4s=0.1,5-6s=0", "The next phase of the schedule should begin at 4 s, not at 5 s."),
        ("schedule:0-4s=2", "loss must lie between 0 and 1, not at 2."),
        ("schedule:0-0s=0.1", "A phase of a schedule must end after it begins at 0 s, not at 0.0 s."),
    ],
)
def test_a_wrong_specification_gets_one_sentence(text, sentence) -> None:
    with pytest.raises(InputError) as caught:
        parse_channel(text)
    assert str(caught.value) == sentence


def test_wrong_traces(tmp_path) -> None:
    (tmp_path / "a").write_text("0102")
    with pytest.raises(InputError, match="holds '2' where only 0 and 1 may stand"):
        read_trace(tmp_path / "a")
    (tmp_path / "a").write_text(" \n")
    with pytest.raises(InputError, match=r"is empty\.$"):
        read_trace(tmp_path / "a")
    with pytest.raises(InputError, match="has 2 entries, and none at 2"):
        Trace("a", b"\0\1", offset=2)


@given(
    st.one_of(
        st.text(),
        st.builds(
            "{}:{}".format,
            st.sampled_from(["uniform", "gilbert-elliott", "schedule", "none"]),
            st.text("0123456789.,=-+eslosburtgdnp", max_size=30),
        ),
    )
)
def test_any_text_is_a_channel_or_a_sentence(text) -> None:
    try:
        channel = parse_channel(text)
    except InputError:
        return
    assert 0 <= channel.mean_loss <= 1
