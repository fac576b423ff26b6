"""A call: two ends over UDP, each of which speaks and listens. docs/rtp-payload.md has what travels.

report = await CallSession(voice, source, sink, CallOptions(listen=("0.0.0.0", 5004), key=key)).run()

The network's loop does nothing that takes long: encoder and decoder run in threads of their own. An end that
starts anew, changes its address or is not heard for a while is met again without anybody's help. There is one call
at a time: as long as the other end is there, nobody else is let in.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from semaphone.call.address import Address, is_v6, open_socket, plain_address, show
from semaphone.call.control import Reports
from semaphone.call.hello import Declined, Meeting, Reason, is_hello, is_refusal
from semaphone.call.jitter_buffer import Arrival
from semaphone.call.listener import Listener
from semaphone.call.presence import SENTENCES, Complaints, Presence
from semaphone.call.report import CallReport, Delays, Traffic, counts
from semaphone.call.secure import Cipher, Refused
from semaphone.call.speaker import PAYLOAD_TYPE, Speaker, Voice
from semaphone.errors import InputError
from semaphone.packet.bitstream import PacketError
from semaphone.packet.rtcp import Bye, parse_rtcp
from semaphone.packet.rtp import is_rtcp, parse_rtp
from semaphone.packet.sph_header import SphHeader

if TYPE_CHECKING:
    from semaphone.call.ends import Sink, Source

UDP_HEADERS = 28  # bytes of IPv4 and UDP
TICK = 0.25  # s
MANY = 100  # meetings, after which no more are told: the other end makes them by itself
SILENT = 4.0  # s without anything of the other end, after which it is said
REMIND = 0.1  # s until a hello to someone who speaks already while we have not heard that we were heard; then longer


@dataclass(frozen=True)
class CallOptions:
    """How an end of a call behaves."""

    listen: Address | None = None  # to wait at; None: any free port
    connect: Address | None = None  # whom to call; None: wait to be called
    also: tuple[Address, ...] = ()  # other addresses of the same host: who answers first is met
    key: bytes | None = None  # None: nothing is encrypted
    dtx: bool = False  # pauses are not sent
    # s without hearing anything, after which an end leaves; None: 60, but as long as it takes to be called
    give_up: float | None = None

    def __post_init__(self) -> None:
        if self.listen is None and self.connect is None:
            raise InputError("An end of a call listens or connects: name an address for one of them.")


class CallSession(asyncio.DatagramProtocol):
    """One end. `note` gets a line whenever something changes."""

    def __init__(
        self,
        voice: Voice,
        source: Source,
        sink: Sink,
        options: CallOptions,
        note: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.voice, self.options, self.note = voice, options, note
        info = voice.codec.info
        ssrc = secrets.randbits(32)
        self.delays = Delays()
        self.speaker = Speaker(voice, source, ssrc, self._send_rtp, self.delays, options.dtx)
        self.listener = Listener(voice, sink, self.delays)
        header = SphHeader(info.name, info.fingerprint, info.sample_rate, voice.form)
        self.meeting = Meeting(ssrc, header, options.key)
        self.reports = Reports(ssrc, self.speaker, self.listener)
        # Every datagram counts once, in one of these.
        self.refused: Counter[str] = Counter()
        self.admitted: Counter[str] = Counter()
        self.sent, self.received = Traffic(), Traffic()  # all datagrams
        self.meetings = 0
        self.met_at = 0.0
        self.presence = Presence(options.connect is not None, options.give_up, options.key is not None)
        self.complaints = Complaints(note)  # about what strangers send
        self.warnings = Complaints(note)  # about the way between both ends
        self._called = tuple(map(plain_address, (options.connect, *options.also))) if options.connect else ()
        self.remote = self._called[0] if self._called else None
        self.address: Address | None = None  # our own, once the socket is open
        self._caller: Address | None = None  # who greeted us last
        self._cipher: Cipher | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._hung_up = False  # by the other side
        self._ending = False  # by us
        self._reminders = 0  # since both ends met
        self._unheard = False  # nothing has come for some time, and that was said
        self._left_at: float | None = None
        self._over: asyncio.Future[None]
        self._transports: dict[bool, asyncio.DatagramTransport] = {}  # by whether it is of IPv6

    # --- life

    async def run(self) -> CallReport:
        """Until both ends have nothing more to say, one of them hangs up, or the task is cancelled.

        Raises InputError, with one sentence, if no call comes about.
        """
        loop = asyncio.get_running_loop()
        self._over = loop.create_future()
        if self._ending:
            self._over.set_result(None)
        try:
            await asyncio.gather(self.speaker.warm_up(), self.listener.warm_up())
            await self._open()
            self.presence.since = loop.time()
            self._tasks = [loop.create_task(self.listener.run()), loop.create_task(self._tick())]
            for task in self._tasks:
                task.add_done_callback(self._ended)
            await self._over
        finally:
            await self._leave()
        return self.report()

    def hang_up(self) -> None:
        """Ends the call: the other end is told, and what was heard is kept. Further calls change nothing."""
        self._ending = True
        if hasattr(self, "_over") and not self._over.done():
            self._over.set_result(None)

    async def _open(self) -> None:
        """One socket for each family of addresses that is needed; of those to call, one is enough."""
        if self.options.listen is not None:
            await self._add_socket(self.options.listen)
        missing: InputError | None = None
        for address in self._called:
            if is_v6(address) not in self._transports:
                try:
                    await self._add_socket(("::" if is_v6(address) else "0.0.0.0", 0))
                except InputError as error:
                    missing = error
        if not self._transports:
            assert missing is not None
            raise missing

    async def _add_socket(self, here: Address) -> None:
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, sock=open_socket(here))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A socket is open."""
        address = plain_address(transport.get_extra_info("sockname"))
        self._transports[is_v6(address)] = cast("asyncio.DatagramTransport", transport)
        self.address = self.address or address

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None and not self._over.done():
            self._over.set_exception(cast("BaseException", task.exception()))

    async def _leave(self) -> None:
        """Says goodbye and closes everything, even if it is interrupted in the middle."""
        self._left_at = asyncio.get_running_loop().time()
        try:
            if self._cipher is not None and not self._hung_up:
                for _ in range(3):  # one may be lost
                    self._send_rtcp(self.reports.goodbye(asyncio.get_running_loop().time()))
                    await asyncio.sleep(0.02)
        finally:
            for task in self._tasks:
                task.cancel()
            for transport in self._transports.values():
                transport.close()
            try:
                self.speaker.close()
            finally:
                self.listener.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _tick(self) -> None:
        """What has to happen from time to time."""
        loop = asyncio.get_running_loop()
        next_report = loop.time() + 1.0
        while not self._finished(loop.time()):
            now = loop.time()
            if self.remote is not None and self.presence.greets(now):
                for address in {self.remote, *(self._called if self._cipher is None else ())}:
                    self._send_to(self.meeting.hello(address), address)
            if self._cipher is not None and now >= next_report:
                next_report = now + random.uniform(0.9, 1.1)  # RFC 3550 §6.2: not all at the same time
                self._send_rtcp(self.reports.compound(now))
                self._warn(now)
            await asyncio.sleep(TICK)
        if not self._over.done():
            self._over.set_result(None)

    def _finished(self, now: float) -> bool:
        if self.listener.busy:
            return False
        if self._hung_up:
            return True
        sentence = self.presence.leaves(now)
        if sentence and not self.meetings:
            raise InputError(sentence)
        if sentence:
            self.note(sentence)
            return True
        return self.speaker.done and bool(self.meetings) and self.reports.far_side_quiet

    def _warn(self, now: float) -> None:
        """Says which way does not work."""
        if self.reports.hears_nothing:
            self.speaker.heard_loss = 1.0  # until a packet comes
        for sentence in self.reports.warnings():
            self.warnings.say(sentence, now, again=True)
        unheard = now - self.presence.heard_at > SILENT
        if unheard != self._unheard:
            self._unheard = unheard
            sentence = "Nothing is heard of the other side." if unheard else "The other side is heard again."
            self.warnings.say(sentence, now, again=True)

    # --- packets out

    def _send_to(self, data: bytes, addr: Address) -> None:
        transport = self._transports.get(is_v6(addr))
        if transport is None or transport.is_closing():
            return
        self.sent.packets += 1
        self.sent.wire_bytes += len(data) + UDP_HEADERS
        transport.sendto(data, addr)

    def _may_send(self) -> bool:
        return self.presence.may_send(asyncio.get_running_loop().time())

    def _send_rtp(self, packet: bytes) -> None:
        if self._cipher is not None and self.remote is not None and self._may_send():
            self._send_to(self._cipher.protect(packet), self.remote)

    def _send_rtcp(self, packet: bytes) -> None:
        if self._cipher is not None and self.remote is not None and self._may_send():
            self._send_to(self._cipher.protect_rtcp(packet), self.remote)

    # --- packets in

    def datagram_received(self, data: bytes, addr: tuple[str, int] | tuple[str, int, int, int]) -> None:
        """Whatever comes: nothing that a stranger sends may end the call."""
        self.received.packets += 1
        self.received.wire_bytes += len(data) + UDP_HEADERS
        now, sender = asyncio.get_running_loop().time(), plain_address(addr)
        try:
            if is_hello(data):
                self._hello(data, sender, now)
            elif is_refusal(data):
                self._refused(self.meeting.refusal(data, sender, self._called), now)
                self.admitted["refusal"] += 1
            elif self._cipher is None:
                self.refused["before the hello"] += 1
                self._remind(sender, now)
            elif is_rtcp(data):
                self._rtcp(self._cipher.unprotect_rtcp(data), now)
                self.admitted["rtcp"] += 1
                self._hear(sender, now)
            elif self._rtp(self._cipher.unprotect(data), now):
                self._hear(sender, now)
        except Refused as reason:
            self.refused[str(reason)] += 1
        except InputError:
            self.refused["malformed"] += 1

    def _remind(self, addr: Address, now: float) -> None:
        """The other end has met us and speaks, so the hello that would tell us was lost: ask for it again."""
        pause = REMIND * 2 ** min(self._reminders, 6)  # it may also be a stranger who floods somebody else
        if addr == self._caller and now - self.presence.greeted_at >= pause:
            self.presence.greeted_at = now
            self._reminders += 1
            self._send_to(self.meeting.hello(addr), addr)

    def _hear(self, addr: Address, now: float) -> None:
        """Something real has come. Encrypted, it may tell of a new address, which no stranger can make up."""
        secure = self.options.key is not None
        self.presence.hear(now, secure or addr == self.remote)
        if addr != self.remote and secure:
            self.remote = addr
            self.note(f"the other side is at {show(addr)} now")

    def _hello(self, data: bytes, addr: Address, now: float) -> None:
        engaged = self.presence.engaged(now) and addr != self.remote
        try:
            met = self.meeting.receive(data, addr, self._called, engaged)
        except Declined as declined:
            self.refused["hello"] += 1
            self._send_to(declined.answer, addr)
            if declined.reason is Reason.BUSY:
                self.complaints.say(f"{show(addr)} called, too, and was told that there is a call already", now)
            else:
                self.complaints.say(str(declined), now)
            return
        except InputError as error:
            self.refused["hello"] += 1
            self.complaints.say(str(error), now)
            return
        self.admitted["hello"] += 1
        self._caller = addr
        if met.new:
            self.presence.meet(now)
        elif met.fresh:
            self.presence.greeted(now)
        if met.new or (met.fresh and self.options.key is None):
            self.remote = addr
        if met.new:
            self._begin(addr, now)
        if met.answer is not None:
            self._send_to(met.answer, addr)

    def _refused(self, reason: Reason, now: float) -> None:
        """The other end does not want us, or not now. A call that is heard goes on."""
        if not self.presence.engaged(now) and self.presence.refuse(reason, now):
            self.complaints.say(SENTENCES[reason], now)

    def _begin(self, addr: Address, now: float) -> None:
        """The other end is there, or there again."""
        peer = self.meeting.peer
        assert peer is not None
        self._cipher = self.meeting.cipher()
        self._reminders = 0
        self.speaker.renumber()
        self.reports.begin()
        self.listener.start(peer.header.format, peer.ssrc)
        self.meetings += 1
        again = "again " if self.meetings > 1 else ""
        how = "encrypted" if self.options.key is not None else "NOT encrypted"
        if self.meetings < MANY:
            self.note(f"met {show(addr)} {again}({how})")
        if self.meetings == 1:
            self.met_at = now
            task = asyncio.get_running_loop().create_task(self.speaker.run())
            task.add_done_callback(self._ended)
            self._tasks.append(task)

    def _rtp(self, data: bytes, now: float) -> bool:
        packet = parse_rtp(data)
        if packet.payload_type != PAYLOAD_TYPE:
            self.refused["payload type"] += 1
            return False
        self.admitted["rtp"] += 1
        outcome = self.listener.put(packet, now)
        buffer = self.listener.buffer
        assert buffer is not None
        self.speaker.loss_rate = buffer.reported
        if buffer.losses.packets:
            self.speaker.heard_loss = buffer.losses.estimate.rate
        return outcome in (Arrival.ACCEPTED, Arrival.LATE)

    def _rtcp(self, data: bytes, now: float) -> None:
        packets = parse_rtcp(data)
        peer = self.meeting.peer
        if not packets or peer is None or getattr(packets[0], "ssrc", None) != peer.ssrc:
            raise PacketError("The RTCP packet is not of the other end.")
        self.reports.receive(packets, now)
        if any(isinstance(packet, Bye) and peer.ssrc in packet.sources for packet in packets) and not self._hung_up:
            self._hung_up = True
            self.note("the other side has hung up")

    # --- the end

    def report(self) -> CallReport:
        """How it went, up to now."""
        info, form = self.voice.codec.info, self.voice.form
        buffer = self.listener.buffer
        now = self._left_at or asyncio.get_running_loop().time()
        seconds = max(now - self.met_at, 1e-9) if self.meetings else 0.0
        expected, outgoing = self.reports.expected(), self.reports.outgoing
        in_time = buffer.counts[Arrival.ACCEPTED] if buffer is not None else 0
        # An end that is there sends a report each second: if none has come at all, neither has what it says.
        cut_off = bool(self.meetings) and not in_time and not self.admitted["rtcp"] and seconds > SILENT
        losses = buffer.losses.report() if buffer is not None else None
        out, into = self.speaker.traffic, self.listener.traffic
        latency = self.delays.quantiles()
        reported = self.speaker.loss_rate

        def rate(size: int) -> float:
            return round(8 * size / seconds, 1) if seconds else 0.0

        return CallReport(
            codec=info.name,
            encrypted=self.options.key is not None,
            seconds=round(seconds, 3),
            meetings=self.meetings,
            context_ms=round(1000 * form.send_time(form.sequences_of(0)[-1]), 1),
            lookahead_ms=round(1000 * info.delay / info.sample_rate, 1),
            sent_payload_bps=rate(out.payload_bytes),
            sent_gross_bps=rate(self.sent.wire_bytes),
            received_payload_bps=rate(into.payload_bytes),
            received_gross_bps=rate(self.received.wire_bytes),
            packets_sent=out.packets,
            packets_received=into.packets,
            packets_expected=expected,
            loss_rate=round(max(1 - in_time / expected, 0.0), 5) if expected else float(cut_off),
            sent_loss_rate=round(outgoing.loss_rate, 5) if outgoing is not None else None,
            unheard_seconds=round(now - self.presence.heard_at, 3) if self.meetings else 0.0,
            conditional_loss=round(losses.conditional, 4) if losses is not None else 0.0,
            mean_burst=round(losses.mean_burst, 3) if losses is not None else 0.0,
            reported_loss_rate=reported,
            blocks_played=self.listener.played,
            blocks_silent=self.listener.silent,
            blocks_stretched=self.listener.stretched,
            too_late=self.listener.too_late,
            skipped=self.listener.skipped,
            overruns=self.speaker.overruns,
            jitter_ms=round(1000 * buffer.jitter.jitter, 2) if buffer is not None else 0.0,
            round_trip_ms=self.reports.round_trip_ms,
            latency_ms=latency,
            arrivals=counts(buffer.counts) if buffer is not None else {},
            refused=counts(self.refused),
        )
