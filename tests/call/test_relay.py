from __future__ import annotations

import asyncio
import socket

import numpy as np
import pytest

from semaphone.call.address import (
    open_socket,
    parse_address,
    parse_addresses,
    parse_duration,
    parse_rate,
    plain_address,
    show,
)
from semaphone.call.relay import Conditions, Impairment, open_relay
from semaphone.channel.delays import DelayTrace
from semaphone.channel.erasure import GilbertElliott, Trace, Uniform
from semaphone.errors import InputError


def run(conditions: Conditions, packets: int = 4000, gap: float = 0.08, size: int = 40, seed: int = 1):
    impairment = Impairment(conditions, np.random.default_rng(seed))
    return [(i * gap, impairment.passes(size, i * gap)) for i in range(packets)], impairment


def test_in_good_weather_everything_passes_at_once() -> None:
    passed, impairment = run(Conditions(), 100)
    assert all(times == [now] for now, times in passed)
    assert impairment.counts == {"received": 100}


def test_losses_and_duplicates() -> None:
    passed, _ = run(Conditions(Uniform(0.2), duplicates=0.1))
    copies = np.array([len(times) for _, times in passed])
    assert (copies == 0).mean() == pytest.approx(0.2, abs=0.02)
    assert (copies == 2).mean() == pytest.approx(0.08, abs=0.02)


def test_jitter_lies_around_the_delay_and_keeps_the_order() -> None:
    passed, _ = run(Conditions(delay=0.1, jitter=0.03))
    took = np.array([times[0] - now for now, times in passed])
    assert took.min() >= 0.07
    assert took.max() <= 0.13
    assert took.mean() == pytest.approx(0.1, abs=0.002)
    close, _ = run(Conditions(jitter=0.03), gap=0.001)
    assert (np.diff([times[0] for _, times in close]) >= 0).all()


def test_some_packets_are_overtaken() -> None:
    passed, _ = run(Conditions(delay=0.05, reordering=0.05), gap=0.02)
    arrivals = np.array([times[0] for _, times in passed])
    assert (np.diff(arrivals) < 0).mean() == pytest.approx(0.05, abs=0.02)


def test_recorded_delays_are_played_again_from_a_place_of_their_own() -> None:
    trace = DelayTrace("x", (0.0, 4.0, 8.0), (0.02, 0.0, 0.1), 12.0)
    passed, _ = run(Conditions(delay=0.01, delays=trace), 300, gap=0.08)
    took = [round(times[0] - now, 6) for now, times in passed]
    assert {0.01, 0.03, 0.11} <= set(took)
    changes = [now for (now, _), before, after in zip(passed[1:], took, took[1:], strict=False) if after > before]
    assert changes[1] - changes[0] == pytest.approx(12.0, abs=0.2)  # the same change a turn later
    other, _ = run(Conditions(delay=0.01, delays=trace), 300, gap=0.08, seed=2)
    assert [times[0] - now for now, times in other] != [times[0] - now for now, times in passed]


def test_a_limited_rate_delays_and_then_drops() -> None:
    # 40 + 28 bytes each 10 ms are 54.4 kbit/s.
    passed, impairment = run(Conditions(rate=27200), 1000, gap=0.01)
    took = [times[0] - now for now, times in passed if times]
    assert max(took) <= 0.5
    assert impairment.counts["dropped"] == pytest.approx(500, abs=30)
    assert all(times for _, times in run(Conditions(rate=60000), 200, gap=0.01)[0])


def test_the_same_seed_is_the_same_weather() -> None:
    conditions = Conditions(GilbertElliott(0.2, 0.24), jitter=0.03, reordering=0.05, duplicates=0.05)
    assert run(conditions, 300, seed=7)[0] == run(conditions, 300, seed=7)[0]
    assert run(conditions, 300, seed=7)[0] != run(conditions, 300, seed=8)[0]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"duplicates": 2}, "The share of duplicates lies between 0 and 1, not at 2."),
        ({"jitter": -1}, "The jitter lies between 0 and 60 s, not at -1 s."),
        ({"reordering": 0.1}, "Packets overtake one another only on a way with a delay or jitter."),
        (
            {"jitter": 0.01, "delays": DelayTrace("x", (0.0,), (0.0,), 1.0)},
            "Recorded delays have their own jitter: give one or the other.",
        ),
        ({"rate": 5}, "The rate lies between 100 bit/s and 1 Gbit/s, not at 5 bit/s."),
        ({"channel": Uniform(0.1, "token")}, "A relay loses packets; a channel per token is for simulations."),
    ],
)
def test_impossible_weather(options, sentence) -> None:
    with pytest.raises(InputError) as caught:
        Conditions(**options)
    assert str(caught.value) == sentence


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport) -> None:
        self.transport = transport

    def datagram_received(self, data, addr) -> None:
        self.transport.sendto(data.upper(), addr)


class Inbox(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.received: asyncio.Queue[bytes] = asyncio.Queue()

    def datagram_received(self, data, addr) -> None:
        self.received.put_nowait(data)


def test_packets_cross_in_both_directions_and_clients_are_kept_apart() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        server, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
        relay = await open_relay(("127.0.0.1", 0), server.get_extra_info("sockname"), Conditions(delay=0.01))
        here = relay.transport.get_extra_info("sockname")
        ends = [await loop.create_datagram_endpoint(Inbox, remote_addr=here) for _ in range(2)]
        for text, (transport, _) in zip((b"one", b"two"), ends, strict=True):
            transport.sendto(text)
        for text, (transport, inbox) in zip((b"ONE", b"TWO"), ends, strict=True):
            assert await asyncio.wait_for(inbox.received.get(), 20) == text
            transport.close()
        assert relay.counts == {"up": {"received": 2, "sent": 2}, "down": {"received": 2, "sent": 2}}
        relay.close()
        server.close()

    asyncio.run(scenario())


def test_a_trace_that_ends_ends_the_relay() -> None:
    async def scenario() -> None:
        conditions = Conditions(Trace("two.txt", b"\0\1", per="packet"))
        relay = await open_relay(("127.0.0.1", 0), ("127.0.0.1", 9), conditions)
        for _ in range(3):
            relay.carry(b"x", relay.transport, ("127.0.0.1", 9))
        with pytest.raises(InputError, match=r"two\.txt ends before"):
            await relay.failed
        relay.close()

    asyncio.run(scenario())


def test_addresses_durations_and_rates() -> None:
    assert parse_address(":5004") == ("0.0.0.0", 5004)
    assert parse_address("127.0.0.1:80") == ("127.0.0.1", 80)
    assert parse_address("[::1]:80") == ("::1", 80)
    assert set(parse_addresses("localhost:80")) >= {("127.0.0.1", 80)}
    assert parse_address("localhost:80") == ("127.0.0.1", 80)
    assert (show(("127.0.0.1", 80)), show(("::1", 80))) == ("127.0.0.1:80", "[::1]:80")
    assert [parse_duration(text) for text in ("30ms", "2s", "1.5", "2min", "1h")] == [0.03, 2, 1.5, 120, 3600]
    assert [parse_rate(text) for text in ("8kbit", "1Mbit", "500")] == [8000, 1e6, 500]
    for parse, text in (
        (parse_address, "host"),
        (parse_address, "a:99999"),
        (parse_duration, "-1s"),
        (parse_rate, "x"),
    ):
        with pytest.raises(InputError, match="is written like"):
            parse(text)


@pytest.mark.skipif(not socket.has_ipv6, reason="there is no IPv6 here")
def test_a_zone_of_ipv6_stays() -> None:
    name = socket.if_indextoname(1)
    address = parse_address(f"[fe80::1%{name}]:80")
    assert address == ("fe80::1", 80, 0, 1)
    assert show(address) == "[fe80::1%1]:80"
    assert parse_address(show(address)) == address
    assert plain_address(("fe80::1", 80, 0, 1)) == address
    assert plain_address(("::1", 80, 0, 0)) == ("::1", 80)
    with pytest.raises(InputError, match="is not known"):
        parse_address("[fe80::1%no-such.zone]:80")


def test_addresses_that_cannot_be_used() -> None:
    with open_socket(("127.0.0.1", 0)) as udp:
        taken = udp.getsockname()
        with pytest.raises(InputError, match=rf"Nothing can be received at 127\.0\.0\.1:{taken[1]}: "):
            open_socket(taken)
    with pytest.raises(InputError, match="Nothing can be received at "):
        open_socket(("192.0.2.1", 0))
