"""The jitter buffer: packets in as they come, whole blocks out when their time has come.

buffer = JitterBuffer(JitterConfig(form, sample_rate=16000), ssrc)
outcome = buffer.put(packet, arrival)        # for every RTP packet
for due in buffer.pop(now): ...              # no later than buffer.next_deadline

It has no clock: all times come in, in s on one steady clock. A block leaves at its deadline with whatever has
arrived of it, so a loss is known the moment it is one. Blocks are played at

    play(k) = offset + k · T

where T is a block's duration. What each packet took on its way (arrival − k · T, on the two clocks as they are)
is remembered for some seconds; `offset` follows a high quantile of that, a few milliseconds a block, which takes
up jitter that changes and clocks that drift apart alike. Speech is stretched or shortened to go with it:
`Due.samples` says how long a block is to last.

The delay is bounded. Where blocks would be played much later than the quickest packets allow, as when everything
that was held up by a stall of the network comes at once, `offset` jumps, and what was to be played before is late.
"""

from __future__ import annotations

import bisect
import math
from collections import Counter, deque
from dataclasses import dataclass
from enum import Enum

from semaphone.call.statistics import InterarrivalJitter, LossStatistics
from semaphone.packet.bitstream import PacketError
from semaphone.packet.format import PacketFormat
from semaphone.packet.payload import parse
from semaphone.packet.rtp import RtpPacket, unwrap

CHANCE = 0.16  # s of packets in a row that take too long without a stall


class Arrival(Enum):
    """What became of a packet."""

    ACCEPTED = "accepted"
    LATE = "late"  # its block was played without it
    DUPLICATE = "duplicate"
    FOREIGN = "foreign"  # another stream's, or a time that cannot be
    BAD = "bad"  # no payload of this format


@dataclass(frozen=True)
class JitterConfig:
    """How long to wait. All in s."""

    form: PacketFormat
    sample_rate: int  # Hz, the clock of the timestamps
    start_delay: float = 0.06  # of the first block, before anything is known
    max_delay: float = 0.6  # between the quickest packet and play
    quantile: float = 0.98  # of packets that should be in time
    headroom: float = 0.004  # on top of it
    slack: float = 0.005  # of delay that is kept rather than shortening a block
    slower: float = 0.125  # share of a block by which it is stretched at the most
    faster: float = 0.0625  # or shortened
    patience: float = 2.0  # without packets, until the stream counts as interrupted
    memory: float = 20.0  # of what packets took on their way
    furthest: float = 5.0  # a packet is foreign if it took so much more or less than others
    settling: float = 1.0  # after a beginning, while the quickest packet is not known yet
    excess: float = 0.1  # beyond the usual delay, meanwhile, after which play jumps
    alone: float = 0.25  # by which one packet may be quicker than all others before it counts as a mistake

    def __post_init__(self) -> None:
        if not 0.5 <= self.quantile <= 1 or min(self.start_delay, self.headroom, self.slack, self.patience) < 0:
            raise ValueError("quantile lies between 0.5 and 1, delays are not negative")

    @property
    def block_samples(self) -> int:
        """Samples of a block."""
        return round(self.sample_rate * self.form.block_duration)


@dataclass(frozen=True)
class Due:
    """A block whose time has come."""

    block: int  # counted from the stream's first
    payloads: tuple[bytes | None, ...]  # in the order of `format.sequences_of(block)`
    deadline: float  # s
    play_at: float  # s: when its first sample is to be heard
    samples: int  # how many it should last, one block's more or less
    silent: bool  # the sender has nothing to say: nothing is lost
    filler: bool = False  # the same block will come again: playing has to wait for it
    waited: float | None = None  # s between the arrival of its last packet and the deadline; None: there is none


@dataclass(frozen=True)
class _Held:
    payload: bytes
    arrival: float
    empty: bool  # its own block has no token
    quiet_before: bool  # it says that the block before has none


class JitterBuffer:
    """One stream's. Memory is bounded whatever arrives."""

    def __init__(self, config: JitterConfig, ssrc: int) -> None:
        self.config = config
        self.ssrc = ssrc
        self.margin = 0.02  # s from deadline to play, for decoding; the caller may move it
        self.counts: Counter[Arrival] = Counter()
        self.losses = LossStatistics()
        self.jitter = InterarrivalJitter()
        self.reported: float | None = None  # loss rate of the other direction, as the far side saw it last
        self.highest_sequence = -1  # extended; -1: none yet
        self.first_sequence = 0
        self.received = 0
        self._origin: int | None = None  # extended timestamp of block 0
        self._newest = 0  # extended timestamp
        self._offset = 0.0
        self._next: int | None = None  # block; None: waiting for the stream to begin or to go on
        self._played = -(1 << 62)  # last block that left
        self._store: dict[int, list[_Held | None]] = {}
        self._transits: deque[float] = deque(maxlen=round(config.memory * config.form.packet_rate))
        self._spread = config.start_delay  # delay on top of the quickest packet
        self._sequences: deque[int] = deque(maxlen=256)
        self._rest = 0  # samples by which the last packet was off the grid of blocks
        self._jumped = False  # its timestamps have
        self._strange: float | None = None  # what the last packet with an impossible time took
        self._missing = 0  # blocks in a row
        self._unclear = 0  # packets of theirs: lost, if the stream goes on, and else it has stopped
        self._silent = False
        self._usual: float | None = None  # spread before the last interruption; None: there was none
        self._settled_at = 0.0  # s
        self._held = 0  # packets in a row that something has held up for too long

    # --- packets in

    def put(self, packet: RtpPacket, arrival: float) -> Arrival:
        """Takes a packet that arrived at `arrival` (s), and says what became of it."""
        outcome = self._put(packet, arrival)
        self.counts[outcome] += 1
        return outcome

    def _put(self, packet: RtpPacket, arrival: float) -> Arrival:
        form, size = self.config.form, self.config.block_samples
        if packet.ssrc != self.ssrc:
            return Arrival.FOREIGN
        try:
            payload = parse(form, packet.payload)
        except PacketError:
            return Arrival.BAD
        if self._origin is None:
            self._origin = self._newest = packet.timestamp
        timestamp = unwrap(packet.timestamp, self._newest, 32)
        sequence = packet.sequence_number
        if self.highest_sequence >= 0:
            sequence = unwrap(sequence, self.highest_sequence, 16)
        block, rest = divmod(timestamp - self._origin, size)
        if rest != self._rest:
            # Off the grid. A second one in a row that agrees means that the first packet of all was the foreign one.
            self._rest = rest
            if rest:
                return Arrival.FOREIGN
        transit = arrival - block * form.block_duration
        if not rest and not self._plausible(transit, self._backwards(sequence, timestamp)):
            return Arrival.FOREIGN
        if rest or self._jumped:
            block = self._restart(timestamp)
            transit = arrival - block * form.block_duration
        if sequence in self._sequences:
            return Arrival.DUPLICATE
        self._note(sequence, timestamp, transit, payload.loss)
        if block <= self._played or (self._next is not None and block < self._next - 4):
            return Arrival.LATE
        if self._next is None or block < self._next:  # the first packets may come out of order
            self._begin(block, transit + (form.spacing if payload.half == 0 else 0.0), arrival)
        halves = self._store.setdefault(block, [None] * form.packets_per_block)
        if halves[payload.half] is not None:
            return Arrival.DUPLICATE
        empty = not any(mask.sent for mask in payload.masks[: form.chunks_per_block])
        quiet_before = form.schedule == "sliding" and not payload.masks[1].sent
        halves[payload.half] = _Held(packet.payload, arrival, empty, quiet_before)
        return Arrival.ACCEPTED

    def _backwards(self, sequence: int, timestamp: int) -> bool:
        """Has a packet that was sent later an earlier timestamp?"""
        if not sequence > self.highest_sequence >= 0:
            return False
        if self.config.form.spacing:  # the second packet of a block may leave after the first one of the next
            return timestamp < self._newest - self.config.block_samples
        if self._strange is not None and self.config.form.packets_per_block == 1:
            return timestamp <= self._newest  # the one before went back already
        return timestamp < self._newest

    def _plausible(self, transit: float, backwards: bool) -> bool:
        """Two strange packets in a row that agree mean that the sender's clock has jumped: start over."""
        near = not self._transits or abs(transit - min(self._transits)) < self.config.furthest
        if not backwards and (self._next is None or near):
            self._strange = None
            return True
        if self._strange is None or abs(transit - self._strange) > 1.0:
            self._strange = transit
            return False
        self._strange = None
        self._jumped = True
        return True

    def _restart(self, timestamp: int) -> int:
        """The stream goes on with this packet, whatever its timestamp: as the block after the last one."""
        self._interrupt()
        block = max(self._played, -1) + 1
        self._origin, self._newest = timestamp - block * self.config.block_samples, timestamp
        self._rest, self._jumped = 0, False
        return block

    def _note(self, sequence: int, timestamp: int, transit: float, loss: float | None) -> None:
        self._sequences.append(sequence)
        if not self._held_up(transit):
            self._transits.append(transit)
        self.jitter.add(transit)
        self.received += 1
        if self.highest_sequence < 0:
            self.first_sequence = sequence
        if sequence > self.highest_sequence:
            self.highest_sequence = sequence
            self._newest = max(timestamp, self._newest)
            self.reported = loss if loss is not None else self.reported

    def _held_up(self, transit: float) -> bool:
        """Is a packet one of those that a stall of the network has held up? They say nothing about later ones."""
        took = transit - self._ordered()[0] if self._next is not None and self._transits else 0.0
        longest = self.config.patience * self.config.form.packet_rate
        if took > self.config.max_delay or (self._held and took > self._spread):
            self._held += 1
        else:
            self._held = 0
        return round(CHANCE * self.config.form.packet_rate) < self._held <= longest

    def _begin(self, block: int, transit: float, now: float) -> None:
        offset = transit + self._spread + self.margin + self._copies_wait
        self._offset = offset if self._next is None else max(offset, self._offset)
        self._settled_at = now + self.config.settling
        self._next = block
        self._missing = 0

    def _interrupt(self) -> None:
        """Nothing comes any more: the next packet begins anew, with the delay that was needed so far."""
        self._next = None
        self._usual = self._spread
        self._unclear = 0
        self._store.clear()
        self._transits.clear()

    # --- blocks out

    @property
    def next_deadline(self) -> float | None:
        """When `pop` has something to give, s; None: not before another packet."""
        if self._next is None:
            return None
        return self._offset + self._next * self.config.form.block_duration - self.margin

    @property
    def delay(self) -> float:
        """From the quickest packet of the last seconds to play, s."""
        return self._offset - min(self._transits) if self._transits else self._spread + self.margin

    @property
    def pending(self) -> bool:
        """Has something come that has not left yet?"""
        return bool(self._store)

    def timestamp_of(self, block: int) -> int:
        """The timestamp of a block's packets, extended."""
        return (self._origin or 0) + block * self.config.block_samples

    def pop(self, now: float) -> list[Due]:
        """All blocks whose deadlines have passed at `now` (s), in order."""
        found: list[Due] = []
        while (deadline := self.next_deadline) is not None and deadline <= now:
            due = self._take(deadline, now)
            if due is not None:
                found.append(due)
        return found

    def _take(self, deadline: float, now: float) -> Due | None:
        assert self._next is not None
        if self._too_late(now):
            self._jump(now)
            return None
        config, form, block = self.config, self.config.form, self._next
        own = self._store.get(block) or [None] * form.packets_per_block
        held = list(own)
        if form.reach:
            held += self._store.get(block + form.reach) or [None]
        missing = not any(held)
        silent = self._silence(own, held[len(own) :], missing)
        change = self._target() - self._offset
        play_at = deadline + self.margin
        if (missing or silent) and change >= form.block_duration:
            self._offset += form.block_duration
            return Due(block, (None,) * len(held), deadline, play_at, config.block_samples, silent, filler=True)
        self._advance(own, missing, silent)
        if (missing or silent) and change <= -form.block_duration:
            self._offset -= form.block_duration  # nobody misses a block that is not there
            return None
        arrivals = [one.arrival for one in held if one is not None]
        return Due(
            block,
            tuple(one.payload if one is not None else None for one in held),
            deadline,
            play_at,
            config.block_samples + self._shift(change),
            silent,
            waited=deadline - max(arrivals) if arrivals else None,
        )

    def _silence(self, own: list[_Held | None], later: list[_Held | None], missing: bool) -> bool:
        """After a block without tokens, those that do not come are silence and not loss."""
        here = [one for one in own if one is not None]
        if here:
            self._silent = all(one.empty for one in here)
        elif any(one is not None and one.quiet_before for one in later):
            self._silent = True
            return True
        return self._silent and (missing or bool(here))

    def _advance(self, own: list[_Held | None], missing: bool, silent: bool) -> None:
        assert self._next is not None
        if any(own) or not (missing or silent):
            for lost in [True] * self._unclear + [one is None for one in own]:
                self.losses.add(lost)
            self._unclear = 0
        elif not silent:
            self._unclear += len(own)
        self._store.pop(self._next, None)
        self._played = self._next
        self._next += 1
        self._missing = self._missing + 1 if missing else 0
        if self._missing * self.config.form.block_duration >= self.config.patience:
            self._interrupt()

    @property
    def _copies_wait(self) -> float:
        return self.config.form.reach * self.config.form.block_duration

    def _ordered(self) -> list[float]:
        """What packets took on their way, the quickest first. One that is far quicker than all may be a mistake."""
        ordered = sorted(self._transits)
        return ordered[1:] if len(ordered) > 2 and ordered[1] - ordered[0] > self.config.alone else ordered

    def _target(self) -> float:
        """Where `offset` should be."""
        if not self._transits:
            return self._offset
        ordered = self._ordered()
        # No delay that is allowed waits for those that took longer: they are late, and do not make others wait.
        within = bisect.bisect_right(ordered, ordered[0] + self.config.max_delay)
        wanted = ordered[min(math.ceil(self.config.quantile * len(ordered)), within) - 1] + self.config.headroom
        if len(ordered) < 50:
            wanted = max(wanted, ordered[0] + self.config.start_delay)
        self._spread = min(wanted - ordered[0], self.config.max_delay)
        return ordered[0] + self._spread + self.margin + self._copies_wait

    def _too_late(self, now: float) -> bool:
        """Is play further behind the quickest packets than it may be?"""
        if not self._transits:
            return False
        config = self.config
        behind = self._offset - self._ordered()[0] - self.margin - self._copies_wait - config.form.spacing
        if behind > config.max_delay + config.form.block_duration:
            return True
        return self._usual is not None and now < self._settled_at and behind > self._usual + config.excess

    def _jump(self, now: float) -> None:
        """To the first block that can be played with the usual delay. Packets of those before it are late."""
        assert self._next is not None
        ordered, config = self._ordered(), self.config
        usual = max(min(self._usual or 0.0, self._spread), config.start_delay)
        kept = [transit for transit in self._transits if ordered[0] <= transit <= ordered[0] + usual]
        self._transits.clear()
        self._transits.extend(kept)
        self._offset = self._target()
        first = math.ceil((now + self.margin - self._offset) / config.form.block_duration - 1e-9)
        self._next = max(first, self._next)
        self._played = max(self._played, self._next - 1)
        self._missing = self._unclear = 0
        for block in sorted(block for block in self._store if block < self._next):
            self._give_up(self._store.pop(block))

    def _give_up(self, held: list[_Held | None]) -> None:
        """A block that is not played although some of it has come."""
        came = [one for one in held if one is not None]
        self.counts[Arrival.ACCEPTED] -= len(came)
        self.counts[Arrival.LATE] += len(came)
        self._silent = all(one.empty for one in came)

    def _shift(self, change: float) -> int:
        """Moves `offset` a little towards its target; returns by how many samples."""
        if -self.config.slack < change < 0.002:
            return 0
        block, config = self.config.form.block_duration, self.config
        samples = round(max(-config.faster * block, min(change, config.slower * block)) * config.sample_rate)
        self._offset += samples / self.config.sample_rate
        return samples
