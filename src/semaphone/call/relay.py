"""Bad weather in a box: a UDP relay that loses, delays, duplicates and reorders what passes, in both directions.

relay = await open_relay(("127.0.0.1", 5004), ("127.0.0.1", 5006), Conditions(Uniform(0.2), jitter=0.03), seed=7)

What happens to a packet is decided by `Impairment`, which has no clock and no socket: the same seed and the same
times give the same weather.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from semaphone.call.address import Address, is_v6, open_socket
from semaphone.channel.delays import DelayTrace
from semaphone.channel.erasure import ErasureChannel, Uniform
from semaphone.errors import InputError

UDP_HEADERS = 28  # bytes of IPv4 and UDP, which a rate limit counts
MOST_CLIENTS = 16
CLIENT_TIMEOUT = 120.0  # s without a packet, until a client is forgotten


@dataclass(frozen=True)
class Conditions:
    """The weather. Times in s."""

    channel: ErasureChannel = field(default_factory=lambda: Uniform(0.0))
    delay: float = 0.0  # at least the jitter, which is uniform around it
    jitter: float = 0.0
    delays: DelayTrace | None = None  # what packets took on a real network, on top of the delay
    duplicates: float = 0.0  # share of packets that come twice
    reordering: float = 0.0  # share of packets that do not queue, and so overtake others (as in Linux's netem)
    rate: float = 0.0  # bit/s with IPv4 and UDP headers; 0: no limit
    queue: float = 0.5  # of a limited rate: how long a packet may wait before it is dropped
    capacity: int = 1000  # packets on their way in one direction; what does not fit is dropped

    def __post_init__(self) -> None:
        if self.channel.per == "token":
            raise InputError("A relay loses packets; a channel per token is for simulations.")
        for name in ("duplicates", "reordering"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"The share of {name} lies between 0 and 1, not at {getattr(self, name):g}.")
        if self.jitter and self.delays is not None:
            raise InputError("Recorded delays have their own jitter: give one or the other.")
        if self.reordering and not (self.delay or self.jitter or self.delays):
            raise InputError("Packets overtake one another only on a way with a delay or jitter.")
        for name in ("delay", "jitter", "queue"):
            if not 0 <= getattr(self, name) <= 60:
                raise InputError(f"The {name} lies between 0 and 60 s, not at {getattr(self, name):g} s.")
        if not (self.rate == 0 or 100 <= self.rate <= 1e9):
            raise InputError(f"The rate lies between 100 bit/s and 1 Gbit/s, not at {self.rate:g} bit/s.")


class Impairment:
    """One direction: when does a packet come out, and how often? Times must not decrease from call to call."""

    def __init__(self, conditions: Conditions, generator: np.random.Generator) -> None:
        self.conditions = conditions
        self.counts: Counter[str] = Counter()
        self._sampler = conditions.channel.sampler(generator)
        self._generator = generator
        self._busy_until = 0.0
        self._latest = 0.0
        # As with traces of losses, the seed says where it starts, so that both directions differ.
        self._start = float(generator.uniform(0.0, conditions.delays.length)) if conditions.delays else 0.0

    def passes(self, size: int, now: float) -> list[float]:
        """When a packet of `size` bytes that comes in at `now` (s since the start) goes out again; [] if never."""
        c = self.conditions
        self.counts["received"] += 1
        # Each packet takes the same draws whatever becomes of it, so conditions can be varied one at a time.
        hold, reorder, twice = self._generator.random(3)
        if self._sampler.lost(now):
            self.counts["lost"] += 1
            return []
        leaves = now
        if c.rate:
            leaves = max(now, self._busy_until) + 8 * (size + UDP_HEADERS) / c.rate
            if leaves - now > c.queue:
                self.counts["dropped"] += 1
                return []
            self._busy_until = leaves
        if reorder < c.reordering:
            self.counts["reordered"] += 1
            arrives = leaves
        else:
            # Jitter is congestion: packets queue, and only those that are to be reordered change places.
            arrives = leaves + max(c.delay, c.jitter) + c.jitter * (2 * hold - 1)
            if c.delays is not None:
                arrives += c.delays.at(now + self._start)
            arrives = self._latest = max(arrives, self._latest)
        if twice < c.duplicates:
            self.counts["duplicated"] += 1
            return [arrives, arrives]
        return [arrives]


class _Direction(asyncio.DatagramProtocol):
    """Receives on one socket and sends on another, later."""

    def __init__(self, relay: Relay, impairment: Impairment) -> None:
        self.relay, self.impairment = relay, impairment
        self.waiting = 0

    def carry(self, data: bytes, out: asyncio.DatagramTransport, to: Address | None) -> None:
        loop = asyncio.get_running_loop()
        try:
            times = self.impairment.passes(len(data), loop.time() - self.relay.began)
        except InputError as error:  # the trace has come to its end
            self.relay.fail(error)
            return
        for time in times:
            if self.waiting >= self.impairment.conditions.capacity:
                self.impairment.counts["dropped"] += 1
                continue
            self.waiting += 1
            loop.call_at(self.relay.began + time, self._send, data, out, to)

    def _send(self, data: bytes, out: asyncio.DatagramTransport, to: Address | None) -> None:
        self.waiting -= 1
        if not out.is_closing():
            self.impairment.counts["sent"] += 1
            out.sendto(data, to)


@dataclass
class _Client:
    transport: asyncio.DatagramTransport  # towards the target; replies come back on it
    seen: float


class _Back(asyncio.DatagramProtocol):
    """What the target answers to one client."""

    def __init__(self, relay: Relay, client: Address) -> None:
        self.relay, self.client = relay, client

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self.relay.down.carry(data, self.relay.transport, self.client)


class Relay(_Direction):
    """Listens for clients and passes their packets to the target, each from a port of its own."""

    def __init__(self, target: Address, conditions: Conditions, seed: int) -> None:
        up, down = np.random.default_rng(seed).spawn(2)
        super().__init__(self, Impairment(conditions, up))
        self.down = _Direction(self, Impairment(conditions, down))
        self.target = target
        self.clients: dict[Address, _Client] = {}
        loop = asyncio.get_running_loop()
        self.began = loop.time()
        self.failed: asyncio.Future[None] = loop.create_future()
        self.transport: asyncio.DatagramTransport
        self._opening: dict[Address, list[bytes]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        client = self.clients.get(addr)
        if client is not None:
            client.seen = asyncio.get_running_loop().time()
            self.carry(data, client.transport, None)
        elif addr in self._opening:
            self._opening[addr] = [*self._opening[addr][-9:], data]
        elif self._room():
            self._opening[addr] = [data]
            task = asyncio.get_running_loop().create_task(self._open(addr))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _room(self) -> bool:
        """Forgets clients that are silent for long, and says whether another one fits."""
        now = asyncio.get_running_loop().time()
        for address in [a for a, client in self.clients.items() if now - client.seen > CLIENT_TIMEOUT]:
            self.clients.pop(address).transport.close()
        return len(self.clients) + len(self._opening) < MOST_CLIENTS

    async def _open(self, addr: Address) -> None:
        loop = asyncio.get_running_loop()
        try:
            here: Address = ("::" if is_v6(self.target) else "0.0.0.0", 0)
            udp = open_socket(here, self.target)
            transport, _ = await loop.create_datagram_endpoint(lambda: _Back(self, addr), sock=udp)
        except InputError as error:
            self.fail(error)
            return
        self.clients[addr] = _Client(transport, loop.time())
        for data in self._opening.pop(addr):
            self.carry(data, transport, None)

    def fail(self, error: Exception) -> None:
        """Ends the relay with an error."""
        if not self.failed.done():
            self.failed.set_exception(error)

    def close(self) -> None:
        """Closes all sockets."""
        for client in self.clients.values():
            client.transport.close()
        self.transport.close()

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """What happened, by direction."""
        return {"up": dict(self.impairment.counts), "down": dict(self.down.impairment.counts)}


async def open_relay(listen: Address, target: Address, conditions: Conditions, seed: int = 0) -> Relay:
    """A running relay. Raises InputError if the port is taken."""
    loop, udp = asyncio.get_running_loop(), open_socket(listen)
    _, protocol = await loop.create_datagram_endpoint(lambda: Relay(target, conditions, seed), sock=udp)
    return protocol
