from __future__ import annotations

import asyncio
import re
import socket

import numpy as np
import pytest
from tests.call.ends import HERE, KEY, address_of, ear_of, end, running, until
from tests.call.test_relay import Inbox

from semaphone.call import presence
from semaphone.call.hello import Meeting, is_hello, parse_hello
from semaphone.call.relay import Conditions, open_relay
from semaphone.call.session import CallOptions
from semaphone.channel.erasure import Uniform
from semaphone.errors import InputError
from semaphone.packet.format import PacketFormat
from semaphone.packet.rtp import is_rtcp
from semaphone.packet.sph_header import SphHeader

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


async def stopped(*tasks: asyncio.Task) -> list:
    """What tasks led to that are cancelled if they still run."""
    for task in tasks:
        task.cancel()
    return await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("key", [KEY, None], ids=["encrypted", "plain"])
@pytest.mark.parametrize("other", [PacketFormat(32, 32, loss_report=True), PacketFormat(16, 64, loss_report=True)])
def test_a_peer_with_other_packets_is_refused_and_the_call_goes_on(key, other, monkeypatch) -> None:
    monkeypatch.setattr(presence, "REFUSED", 0.6)

    async def scenario() -> None:
        notes: list[str] = []
        a = end(600, key=key, listen=(HERE, 0), notes=notes)
        first = await running(a)
        strange = end(600, key=key, connect=a.address)
        header = strange.meeting.header
        strange.meeting.header = SphHeader(header.codec, header.fingerprint, header.sample_rate, other)
        with pytest.raises(InputError, match="The other side refuses the call: both need the same codec"):
            await asyncio.wait_for(strange.run(), 60)
        assert len(notes) == 1
        assert re.match("The other side's packets hold .* both need the same.", notes[0])
        second = await running(end(600, key=key, connect=a.address))
        await until(lambda: a.listener.traffic.packets > 3)
        assert a.meetings == 1
        await stopped(first, second)

    asyncio.run(scenario())


@pytest.mark.parametrize("key", [KEY, None], ids=["encrypted", "plain"])
def test_one_call_at_a_time(key, monkeypatch) -> None:
    monkeypatch.setattr(presence, "REFUSED", 1.0)

    async def scenario() -> None:
        notes: list[str] = []
        others: list[str] = []
        a = end(600, key=key, listen=(HERE, 0), notes=notes)
        first = await running(a)
        b = end(600, key=key, connect=a.address)
        second = await running(b)
        await until(lambda: a.listener.traffic.packets > 3)
        with pytest.raises(InputError, match="The other side is in another call"):
            await asyncio.wait_for(end(600, key=key, connect=a.address, notes=others).run(), 60)
        assert others == ["The other side is in another call."]
        assert len(notes) == 2
        assert notes[1].endswith("called, too, and was told that there is a call already")
        heard = a.listener.traffic.packets, b.listener.traffic.packets
        await until(lambda: a.listener.traffic.packets > heard[0] + 3 and b.listener.traffic.packets > heard[1] + 3)
        assert (a.meetings, b.meetings) == (1, 1)
        await stopped(first, second)

    asyncio.run(scenario())


@pytest.mark.parametrize("key", [KEY, None], ids=["encrypted", "plain"])
def test_whose_place_was_taken_is_told(key, monkeypatch) -> None:
    monkeypatch.setattr(presence, "REFUSED", 1.0)
    monkeypatch.setattr(presence, "ENGAGED", 0.5)
    monkeypatch.setattr(presence, "UNHEARD", 0.5)

    async def scenario() -> None:
        notes: list[str] = []
        a, b = end(600, key=key, listen=(HERE, 0)), end(600, key=key, connect=(HERE, 1), notes=notes)
        (first, second), relay = await pair(a, b)
        await until(lambda: a.listener.traffic.packets > 3 and b.listener.traffic.packets > 3)
        relay.close()  # cut off ...
        third = await running(end(600, key=key, connect=a.address))
        await until(lambda: a.meetings == 2)
        b.remote = a.address  # ... and back, while somebody else speaks
        report = await asyncio.wait_for(second, 60)
        assert "The other side is in another call." in notes[-1] or "another call now" in notes[-1]
        assert report.meetings == 1
        await stopped(first, third)

    asyncio.run(scenario())


def test_nobody_there_is_said_in_time() -> None:
    async def scenario() -> None:
        a, other = end(600, listen=(HERE, 0), give_up=1.0), end(600, listen=(HERE, 0))
        waits = await running(other)
        wrong = end(600, key=bytes(32), connect=address_of(other), give_up=1.0)
        ends = (a.run(), end(600, connect=(HERE, 9), give_up=1.0).run(), wrong.run())
        results = await asyncio.wait_for(asyncio.gather(*ends, return_exceptions=True), 30)
        assert [str(result) for result in results] == [
            "Nobody called within 1 s.",
            *["Nobody answered within 1 s; is the other end there, and does it have the same key?"] * 2,
        ]
        assert ear_of(a).closed
        assert not waits.done()
        await stopped(waits)

    asyncio.run(scenario())


@pytest.mark.parametrize("key", [KEY, None], ids=["encrypted", "plain"])
def test_who_has_died_is_left_and_not_sent_to(key, monkeypatch) -> None:
    monkeypatch.setattr(presence, "CONSENT", 1.0)

    async def scenario() -> None:
        a, b = end(600, key=key, listen=(HERE, 0), give_up=3.0), end(600, key=key, connect=(HERE, 1))
        (first, second), relay = await pair(a, b)
        await until(lambda: a.listener.traffic.packets > 3)
        relay.close()
        b._cipher = None
        await stopped(second)
        await asyncio.sleep(1.3)
        sent = a.sent.wire_bytes
        report = await asyncio.wait_for(first, 60)
        assert a.sent.wire_bytes - sent < 800  # hellos
        assert report.unheard_seconds == pytest.approx(3.0, abs=0.8)

    asyncio.run(scenario())


def test_the_first_address_that_answers_is_met() -> None:
    async def scenario() -> None:
        a = end(600, listen=(HERE, 0))
        first = await running(a)
        b = end(600, connect=("::1", 9), also=((HERE, 9), address_of(a)))
        second = await running(b)
        await until(lambda: a.listener.traffic.packets > 3 and b.listener.traffic.packets > 3)
        assert b.remote == a.address
        await stopped(first, second)

    asyncio.run(scenario())


@pytest.mark.skipif(not socket.has_ipv6, reason="there is no IPv6 here")
@pytest.mark.parametrize("listen", ["::1", "::"])
def test_a_call_over_ipv6(listen) -> None:
    async def scenario() -> None:
        notes: list[str] = []
        a = end(600, listen=(listen, 0), notes=notes)
        try:
            first = await running(a)
        except InputError:
            pytest.skip("there is no ::1 here")
        port = address_of(a)[1]
        second = await running(end(600, connect=("::1", port), also=((HERE, port),)))
        await until(lambda: a.listener.traffic.packets > 3)
        assert re.match(r"met (\[::1\]|\[::ffff:127.0.0.1\]):", notes[0])
        await stopped(first, second)

    asyncio.run(scenario())


@pytest.mark.parametrize("both", [False, True])
def test_one_way_audio_is_said_and_counted(both) -> None:
    """What b says does not arrive; with `both`, neither do its reports."""

    async def scenario() -> None:
        notes: dict[str, list[str]] = {"a": [], "b": []}
        a, b = end(600, listen=(HERE, 0), notes=notes["a"]), end(600, connect=(HERE, 1), notes=notes["b"])
        receive = a.datagram_received

        def deaf(data, addr) -> None:
            if is_hello(data) or (is_rtcp(data) and not both):
                receive(data, addr)

        a.datagram_received = deaf  # type: ignore[method-assign]
        tasks, relay = await pair(a, b)
        silent = "Nothing is heard of the other side." if both else "The other side speaks, but nothing of it arrives"
        await until(lambda: any("hears nothing of what is said here" in line for line in notes["b"]))
        await until(lambda: any(silent in line for line in notes["a"]))
        ours, theirs = a.report(), b.report()
        assert ours.loss_rate == 1.0
        assert theirs.sent_loss_rate == 1.0
        assert theirs.loss_rate < 0.3
        if not both:
            assert ours.packets_expected > 20
            assert ours.sent_loss_rate is not None
            assert ours.sent_loss_rate < 0.3
            assert a.speaker.heard_loss == 1.0
        a.datagram_received = receive  # type: ignore[method-assign]
        await until(lambda: any("hears what is said here again" in line for line in notes["b"]))
        await stopped(*tasks)
        relay.close()

    asyncio.run(scenario())


def test_what_gets_lost_in_an_outage_is_counted() -> None:
    async def scenario() -> None:
        a, b = end(600, listen=(HERE, 0)), end(600, connect=(HERE, 1))
        receive = a.datagram_received
        tasks, relay = await pair(a, b)
        await until(lambda: a.listener.traffic.packets > 10)
        a.datagram_received = lambda data, addr: None  # type: ignore[method-assign]
        await asyncio.sleep(2.6)
        a.datagram_received = receive  # type: ignore[method-assign]
        came = a.listener.traffic.packets
        await until(lambda: a.listener.traffic.packets > came + 10)
        report = a.report()
        assert 20 < report.packets_expected - report.packets_received < 60
        assert report.loss_rate > 0.3
        await stopped(*tasks)
        relay.close()

    asyncio.run(scenario())


def test_a_spoofed_hello_draws_next_to_nothing() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        a = end(600, key=None, listen=(HERE, 0))
        first = await running(a)
        attacker = Meeting(7, a.meeting.header, None)
        out, inbox = await loop.create_datagram_endpoint(Inbox, local_addr=(HERE, 0))
        spoofed, flooded = await loop.create_datagram_endpoint(Inbox, local_addr=(HERE, 0))
        out.sendto(attacker.hello(), a.address)
        attacker.receive(await asyncio.wait_for(inbox.received.get(), 10))
        spoofed.sendto(attacker.hello(), a.address)  # with the nonce that was heard elsewhere
        for _ in range(200):
            spoofed.sendto(b"x", a.address)
            await asyncio.sleep(0.01)
        got = sum(len(flooded.received.get_nowait()) for _ in range(flooded.received.qsize()))
        assert got <= 6 * len(attacker.hello())
        assert a.meetings == 0
        out.sendto(attacker.hello(), a.address)
        await until(lambda: a.meetings == 1)
        await stopped(first)
        out.close()
        spoofed.close()

    asyncio.run(scenario())


def test_strangers_make_few_lines() -> None:
    async def scenario() -> None:
        notes: list[str] = []
        a = end(600, key=None, listen=(HERE, 0), notes=notes)
        first = await running(a)
        for i in range(5000):
            form = PacketFormat(16, 32, loss_report=True)
            header = SphHeader(f"[/x]{i}", f"{i:x}", 16000, form)
            a.datagram_received(Meeting(i, header, None).hello(), (HERE, 1 + i % 9))
        assert len(notes) <= 10
        assert a.refused["hello"] == 5000
        await stopped(first)

    asyncio.run(scenario())


def test_to_be_interrupted_twice_loses_nothing() -> None:
    async def scenario() -> None:
        a, b = end(600, listen=(HERE, 0)), end(600, connect=(HERE, 1))
        (first, second), relay = await pair(a, b)
        await until(lambda: a.listener.traffic.packets > 3 and b.listener.traffic.packets > 3)
        first.cancel()
        await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert ear_of(a).closed
        report = await asyncio.wait_for(second, 60)  # it was told
        assert report.meetings == 1
        relay.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("times", [1, 3])
def test_hanging_up_ends_the_call_at_both_ends(times) -> None:
    async def scenario() -> None:
        notes: list[str] = []
        a, b = end(600, listen=(HERE, 0)), end(600, connect=(HERE, 1), notes=notes)
        (first, second), relay = await pair(a, b)
        await until(lambda: a.listener.traffic.packets > 3 and b.listener.traffic.packets > 3)
        for _ in range(times):
            a.hang_up()
        assert (await asyncio.wait_for(first, 30)).packets_sent > 0
        await asyncio.wait_for(second, 30)
        assert notes[-1] == "the other side has hung up"
        early = end(600, listen=(HERE, 0))
        early.hang_up()
        assert (await asyncio.wait_for(early.run(), 30)).meetings == 0
        relay.close()

    asyncio.run(scenario())


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
