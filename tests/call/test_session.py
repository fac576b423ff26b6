from __future__ import annotations

import asyncio

import numpy as np
import pytest
from tests.call.ends import HERE, KEY, address_of, ear_of, end, running, until

from semaphone.call.hello import is_hello, parse_hello
from semaphone.call.relay import Conditions, open_relay
from semaphone.call.session import CallOptions
from semaphone.channel.erasure import Uniform
from semaphone.errors import InputError

pytest.importorskip("pylibsrtp")


async def pair(first, second, conditions: Conditions | None = None):
    """Two running ends, the second one calls the first through a relay; (tasks, relay)."""
    waiting = await running(first)
    relay = await open_relay((HERE, 0), address_of(first), conditions or Conditions(), 3)
    second.options = CallOptions(connect=relay.transport.get_extra_info("sockname"), key=second.options.key)
    second.remote = second.options.connect
    return [waiting, await running(second)], relay


@pytest.mark.parametrize(("ours", "theirs"), [("split", "split"), ("sliding", "sliding"), ("split", "sliding")])
def test_a_call_through_bad_weather(ours, theirs) -> None:
    async def scenario() -> None:
        notes: list[str] = []
        a = end(2.4, listen=(HERE, 0), notes=notes, schedule=ours)
        b = end(2.4, connect=(HERE, 1), schedule=theirs)
        conditions = Conditions(Uniform(0.2), jitter=0.03, reordering=0.05, duplicates=0.05)
        tasks, relay = await pair(a, b, conditions)
        reports = await asyncio.wait_for(asyncio.gather(*tasks), 200)
        relay.close()
        assert notes[0].endswith("(encrypted)")
        for session, report in zip((a, b), reports, strict=True):
            assert ear_of(session).closed
            form = session.speaker.voice.form
            left = form.reach  # a packet with what is left of the last chunk
            assert report.packets_sent + form.packets_per_block * report.overruns == 30 + left
            assert 0 < report.packets_received <= 31
            assert report.encrypted
            assert report.meetings == 1
            assert {"encoder", "buffer", "decoder", "playout"} <= set(report.latency_ms)
            assert not set(report.refused) - {"replayed", "before the hello"}
            assert report.to_json()["latency_ms"]["decoder"]["p50"] > 0

    asyncio.run(scenario())


def test_an_end_that_starts_anew_is_met_again() -> None:
    async def scenario() -> None:
        notes: list[str] = []
        a, b = end(600, listen=(HERE, 0), notes=notes), end(600, connect=(HERE, 1))
        tasks, relay = await pair(a, b)
        await until(lambda: a.listener.traffic.packets > 4 and b.listener.traffic.packets > 4)
        # It dies without a word, and comes back on another port.
        b._cipher = None
        tasks[1].cancel()
        await asyncio.gather(tasks[1], return_exceptions=True)
        again = end(600, connect=relay.transport.get_extra_info("sockname"))
        tasks[1] = await running(again)
        played = a.listener.traffic.packets
        await until(
            lambda: a.meetings == 2 and a.listener.traffic.packets > played + 3 and again.listener.traffic.packets > 3
        )
        # Now the one that was called.
        here = a.address
        a._cipher = None
        tasks[0].cancel()
        await asyncio.gather(tasks[0], return_exceptions=True)
        third = end(600, listen=here)
        tasks[0] = await running(third)
        await until(lambda: again.meetings == 2 and third.listener.traffic.packets > 3)
        # Hanging up ends it for both.
        tasks[1].cancel()
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 200)
        assert tasks[0].result().meetings == 1
        relay.close()

    asyncio.run(scenario())


def test_an_outage_and_a_new_address_are_survived() -> None:
    async def scenario() -> None:
        a, b = end(600, listen=(HERE, 0)), end(600, connect=(HERE, 1))
        tasks, relay = await pair(a, b)
        await until(lambda: a.listener.traffic.packets > 3)
        relay.close()
        await asyncio.sleep(0.5)
        other = await open_relay((HERE, 0), address_of(a), Conditions(), 4)
        b.remote = other.transport.get_extra_info("sockname")
        before = [session.listener.traffic.packets for session in (a, b)]
        await until(lambda: all(s.listener.traffic.packets > n + 4 for s, n in zip((a, b), before, strict=True)))
        assert (a.meetings, b.meetings) == (1, 1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        other.close()

    asyncio.run(scenario())


def test_a_hello_that_is_lost_costs_little_of_what_is_said() -> None:
    async def scenario() -> None:
        a, b = end(600, listen=(HERE, 0)), end(600, connect=(HERE, 1))
        receive = a.datagram_received
        dropped: list[bytes] = []

        def lossy(data, addr) -> None:
            if is_hello(data) and parse_hello(data, KEY).accepted and len(dropped) < 2:
                dropped.append(data)
            else:
                receive(data, addr)

        a.datagram_received = lossy  # type: ignore[method-assign]
        tasks, relay = await pair(a, b)
        await until(lambda: a.listener.traffic.packets > 3 and b.listener.traffic.packets > 3)
        # b speaks already, and a has to ask again; b alone would notice after 1.5 s, which are 19 packets.
        assert len(dropped) == 2
        assert 2 <= a.refused["before the hello"] < 15
        assert (a.meetings, b.meetings) == (1, 1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        relay.close()

    asyncio.run(scenario())


async def attack(key: bytes | None, count: int) -> None:
    """Mutated, truncated, replayed and random packets against a live call."""
    rng = np.random.default_rng(5)
    notes: list[str] = []
    a = end(600, key=key, listen=(HERE, 0), notes=notes)
    seen: list[bytes] = []
    receive = a.datagram_received

    def tap(data, addr) -> None:
        seen.append(data)
        receive(data, addr)

    a.datagram_received = tap  # type: ignore[method-assign]
    first = await running(a)
    b = end(600, key=key, connect=a.address)
    second = await running(b)
    await until(lambda: len(seen) > 20 and a.listener.traffic.packets > 3)
    real, stranger = list(seen), ("127.0.0.1", 9)
    remote = a.remote
    before = sum(a.refused.values())
    for i in range(count):
        data = bytearray(real[int(rng.integers(len(real)))])
        kind = i % 4
        if kind == 0:
            for _ in range(int(rng.integers(1, 4))):
                data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del data[int(rng.integers(len(data))) :]
        elif kind == 2:
            data = bytearray(rng.bytes(int(rng.integers(0, 100))))
        receive(bytes(data), stranger)
        if i % 100 == 99:
            await asyncio.sleep(0)  # the call goes on
    refused = sum(a.refused.values()) - before
    played = a.listener.traffic.packets
    await until(lambda: a.listener.traffic.packets > played + 3)
    if key is not None:
        assert a.remote == remote
        assert refused > 0.7 * count  # recorded hellos are answered, but change nothing
        assert a.meetings == 1
    assert a.received.packets == sum(a.refused.values()) + sum(a.admitted.values())
    for task in (first, second):
        task.cancel()
    ended = await asyncio.gather(first, second, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in ended)


@pytest.mark.parametrize("key", [KEY, None], ids=["encrypted", "plain"])
def test_hostile_packets_do_no_harm(key) -> None:
    asyncio.run(attack(key, 1000))


@pytest.mark.slow
def test_a_hundred_thousand_hostile_packets_do_no_harm() -> None:
    asyncio.run(attack(KEY, 100_000))


def test_different_keys_do_not_meet() -> None:
    async def scenario() -> None:
        notes: list[str] = []
        a = end(1, listen=(HERE, 0), notes=notes)
        first = await running(a)
        second = await running(end(1, key=bytes(32), connect=a.address))
        await until(lambda: bool(notes))
        assert notes == ["The hello is forged, or the two sides have different keys."]
        assert a.meetings == 0
        for task in (first, second):
            task.cancel()
        await asyncio.gather(first, second, return_exceptions=True)

    asyncio.run(scenario())


def test_a_port_that_is_taken() -> None:
    async def scenario() -> None:
        a = end(1, listen=(HERE, 0))
        first = await running(a)
        with pytest.raises(InputError, match="Nothing can be received at "):
            await end(1, listen=a.address).run()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)

    asyncio.run(scenario())
    with pytest.raises(InputError, match="listens or connects"):
        CallOptions()
