"""How tokens are laid out in packets: what sender and receiver agree on before the first packet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from semaphone.controller.base import Mask as Mask
from semaphone.errors import InputError
from semaphone.packet.history import most_table_bits, table, table_bits
from semaphone.packet.pairs import number_of_pairs
from semaphone.packet.pairs import pair_index as pair_index
from semaphone.packet.pairs import pair_of as pair_of

Schedule = Literal["split", "sliding", "bundle", "history"]
# Names for people; a block is a bundle of two chunks.
SCHEDULES = ("sliding", "split", "block", "bundle:80ms", "bundle:160ms", "bundle:320ms", "history")
HORIZON = 3  # of a history, where nobody names one: four packets carry something of a chunk
FARTHEST = 15  # packets after a chunk's own one that can carry something of it
Chunk = TypeVar("Chunk")
USUAL = "sliding"  # where nobody names one


@dataclass(frozen=True)
class PacketFormat:
    """The layout of a stream's packets. `named` makes one from a schedule's name."""

    num_codebooks: int  # N_Q, tokens a chunk at the most
    codebook_size: int  # K
    frame_rate: float = 12.5  # chunks a second
    # split: two interleaved packets a block of two chunks; sliding: a packet a chunk, with half of it and half of the
    # one before; bundle: whole chunks a packet; history: a packet a chunk, with beginnings of those before
    schedule: Schedule = "split"
    chunks_per_packet: int = 1  # of a bundle: 1, 2 or 4
    # of a bundle: copies ride this many packets later; of a history, its horizon: the last ones do; 0: there are none
    copy_distance: int = 0
    spacing: float = 0.0  # of split: s between the two packets of a block
    loss_report: bool = False  # each packet carries the loss rate of the other direction, one byte
    constant_size: int = 0  # bytes of every payload, padded with zeros (RFC 6562); 0: as many as it takes

    def __post_init__(self) -> None:
        def check(good: bool, sentence: str) -> None:
            if not good:
                raise InputError(sentence)

        check(1 <= self.num_codebooks <= 32, f"A packet holds 1 to 32 codebooks, not {self.num_codebooks}.")
        check(2 <= self.codebook_size <= 65536, f"A codebook has 2 to 65536 entries, not {self.codebook_size}.")
        check(
            1 <= self.frame_rate <= 1000 and round(self.frame_rate * 1000) / 1000 == self.frame_rate,
            f"A frame rate lies between 1 and 1000 Hz, in steps of a thousandth, not at {self.frame_rate}.",
        )
        known = ("split", "sliding", "bundle", "history")
        check(self.schedule in known, f"A schedule is split, sliding, bundle or history, not {self.schedule!r}.")
        check(0 <= self.constant_size <= 1200, f"A payload has up to 1200 bytes, not {self.constant_size}.")
        if self.schedule == "split":
            check(self.chunks_per_packet == 1, "A split block has one packet a chunk.")
            check(self.copy_distance == 0, "In a split block copies ride in its other packet, not in a later block.")
            check(
                0 <= self.spacing <= self.block_duration and round(self.spacing * 1000) / 1000 == self.spacing,
                f"The packets of a block lie 0 to {self.block_duration:g} s apart, in whole milliseconds,"
                f" not {self.spacing} s.",
            )
        elif self.schedule == "sliding":
            check(self.chunks_per_packet == 1, "A sliding schedule has one packet a chunk.")
            check(self.copy_distance == 0, "In a sliding schedule copies ride in the next packet, not in a later one.")
            check(self.spacing == 0, "A sliding schedule has no spacing: its packets are a chunk apart as they are.")
        elif self.schedule == "history":
            check(self.chunks_per_packet == 1, "A history has one packet a chunk.")
            check(
                0 <= self.copy_distance <= FARTHEST,
                f"The horizon of a history is 0 to {FARTHEST} packets, not {self.copy_distance}.",
            )
            check(self.spacing == 0, "A history has no spacing: its packets are a chunk apart as they are.")
        else:
            check(self.chunks_per_packet in (1, 2, 4), f"A bundle has 1, 2 or 4 chunks, not {self.chunks_per_packet}.")
            check(0 <= self.copy_distance <= 15, f"Copies ride up to 15 packets later, not {self.copy_distance}.")
            check(self.spacing == 0, "A bundle is one packet, so there is no spacing.")

    @classmethod
    def named(cls, schedule: str, num_codebooks: int, codebook_size: int, **options: Any) -> PacketFormat:
        """The format of a schedule: `split`, `sliding`, `history`, `block` or `bundle:80ms`, `:160ms`, `:320ms`.

        Copies of block and bundles ride one packet later unless `copy_distance` says otherwise; for a history it is
        the horizon, in packets. Raises InputError for a schedule that is not known or options that do not go with it.
        """
        if schedule not in SCHEDULES:
            raise InputError(f"The schedule {schedule!r} is not known; there are {', '.join(SCHEDULES)}.")
        if schedule == "sliding":
            options = {**options, "schedule": "sliding"}
        elif schedule == "history":
            options = {"copy_distance": HORIZON, **options, "schedule": "history"}
        elif schedule != "split":
            milliseconds = 160 if schedule == "block" else int(schedule.removeprefix("bundle:").removesuffix("ms"))
            options = {"copy_distance": 1, **options, "schedule": "bundle", "chunks_per_packet": milliseconds // 80}
        return cls(num_codebooks, codebook_size, **options)

    @property
    def name(self) -> str:
        """The schedule's name, as `named` takes it; a block is a bundle of two chunks."""
        return f"bundle:{80 * self.chunks_per_packet}ms" if self.schedule == "bundle" else self.schedule

    @property
    def bits_per_token(self) -> int:
        """⌈log2 K⌉."""
        return (self.codebook_size - 1).bit_length()

    @property
    def chunks_per_block(self) -> int:
        """Chunks that share their packets."""
        return 2 if self.schedule == "split" else self.chunks_per_packet

    @property
    def packets_per_block(self) -> int:
        """Packets that leave when a block is complete."""
        return 2 if self.schedule == "split" else 1

    @property
    def reach(self) -> int:
        """How many packets after a block's own ones its last tokens ride: copies of a bundle, half of a sliding chunk.

        Of a history it is the horizon. It is 0 where a block has its packets for itself.
        """
        return 1 if self.schedule == "sliding" else self.copy_distance

    @property
    def riders(self) -> int:
        """How many chunks of earlier blocks a packet can carry something of."""
        if self.schedule == "history":
            return self.reach
        return self.chunks_per_block if self.reach else 0

    def riding(self, earlier: Sequence[tuple[Chunk, ...]], nothing: Chunk) -> tuple[Chunk, ...]:
        """The chunks of the last `reach` blocks, oldest first, of which something rides with the next block.

        Of a history that is all of them, the newest first; else the oldest block, or `nothing` if there is none yet.
        """
        if self.schedule == "history":
            return tuple(chunk for block in reversed(earlier) for chunk in block)
        if len(earlier) < self.reach:
            return (nothing,) * self.riders
        return earlier[0] if self.reach else ()

    @property
    def block_duration(self) -> float:
        """Speech in a block, s."""
        return self.chunks_per_block / self.frame_rate

    @property
    def packet_rate(self) -> float:
        """Packets a second."""
        return self.packets_per_block / self.block_duration

    def sequences_of(self, block: int) -> tuple[int, ...]:
        """The numbers of the packets that carry anything of a block, counted from 0 at the start of the stream."""
        if self.schedule == "split":
            return 2 * block, 2 * block + 1
        if self.schedule == "history":
            return tuple(range(block, block + self.reach + 1))
        return (block, block + self.reach) if self.reach else (block,)

    def block_of(self, sequence: int) -> int:
        """The block that a packet leaves with."""
        return sequence // self.packets_per_block

    def send_time(self, sequence: int) -> float:
        """When a packet leaves, in s after the first sample was spoken (computation comes on top)."""
        block, half = divmod(sequence, self.packets_per_block)
        return (block + 1) * self.block_duration + half * self.spacing

    def effective(self, mask: Mask | tuple[int, ...]) -> Mask:
        """The mask as it is sent: (sent, twice). Raises ValueError if it is out of range.

        In a split block a chunk that sends a single token has nothing to interleave: the token goes twice. In
        bundles without copies nothing goes twice. In a history it is (sent, what rides with each later packet ...) as
        far as the horizon reaches.
        """
        sent = max(mask)
        if not 0 <= min(mask) <= sent <= self.num_codebooks:
            raise ValueError(f"the mask {tuple(mask)} does not fit {self.num_codebooks} codebooks")
        if self.schedule == "history":
            return _by_age(mask, self.reach)
        twice = Mask(*mask).twice
        if self.schedule == "split" and sent == 1:
            return Mask(1, 1)
        return Mask(sent, twice if self.schedule != "bundle" or self.copy_distance else 0)

    def partner_of(self, sequence: int) -> int:
        """The number of the earlier packet that shares tokens with this one; it may not exist, then it is below 0."""
        if self.schedule == "split":
            return sequence - 1 if sequence % 2 else -1
        if self.schedule == "history":
            return sequence - 1 if self.reach else -1
        return sequence - self.reach if self.reach else -1

    @property
    def copy_delay(self) -> float:
        """s from the packet of a token to the one with its (first) copy."""
        numbers = self.sequences_of(0)
        copy = numbers[min(1, len(numbers) - 1)]
        return self.send_time(copy) - self.send_time(numbers[0])

    # The table of contents is one number with digits in this base, one or more a chunk (but of a history: history.py).

    @property
    def toc_digits(self) -> int:
        """Split: a pair a chunk. Sliding: a pair of the chunk and one of that before.

        Bundle: tokens sent of each chunk, then (with copies) copies of each earlier one.
        """
        if self.schedule != "bundle":
            return 2
        return self.chunks_per_packet * (2 if self.copy_distance else 1)

    @property
    def toc_base(self) -> int:
        """Split and sliding: pairs 0 <= twice <= sent <= N_Q, 153 for 16 codebooks. Bundle: counts 0 to N_Q."""
        return self.num_codebooks + 1 if self.schedule == "bundle" else number_of_pairs(self.num_codebooks)

    @property
    def toc_number_bits(self) -> int:
        """Bits of the table of contents as a number; of a history: of the longest one."""
        if self.schedule == "history":
            return most_table_bits(self.num_codebooks, self.reach)
        largest: int = self.toc_base**self.toc_digits - 1
        return largest.bit_length()

    @property
    def toc_bits(self) -> int:
        """Bits of a packet that are not tokens: table of contents, which half it is (split), loss report.

        The table of a history is as long as it has to be; here it counts as long as it can be.
        """
        return self.toc_number_bits + (self.schedule == "split") + 8 * self.loss_report

    def sizes(self, masks: Sequence[Mask], copied: Sequence[Mask] = ()) -> tuple[int, ...]:
        """Bytes that the payloads of a block take with these masks, one a chunk, before padding to `constant_size`.

        `copied` are the masks of the earlier chunks of which something rides along, in the order of `riding`.
        """
        masks = [self.effective(mask) for mask in masks]
        if self.schedule == "history":
            told = table([*masks, *(self.effective(mask) for mask in copied)])
            bits = table_bits(told, self.num_codebooks, self.reach) + 8 * self.loss_report
            return (-(-(bits + sum(mask.twice for mask in told) * self.bits_per_token) // 8),)
        if self.schedule == "sliding":
            (a, a2), (b, b2) = masks[0], self.effective(copied[0]) if copied else Mask(0, 0)
            tokens = [(a + 1) // 2 + a2 // 2 + b // 2 + (b2 + 1) // 2]
        elif self.schedule == "bundle":
            tokens = [sum(mask.sent for mask in masks) + sum(self.effective(mask).twice for mask in copied)]
        else:
            # At home in the first packet: odd indices of the first chunk, even ones of the second. The rest of a
            # packet's tokens are copies.
            (a, a2), (b, b2) = masks
            tokens = [a // 2 + (a2 + 1) // 2 + (b + 1) // 2 + b2 // 2, (a + 1) // 2 + a2 // 2 + b // 2 + (b2 + 1) // 2]
        return tuple(-(-(self.toc_bits + n * self.bits_per_token) // 8) for n in tokens)

    @property
    def max_payload(self) -> int:
        """Bytes of the longest payload."""
        if self.constant_size:
            return self.constant_size
        chunks = self.chunks_per_block + self.riders
        return -(-(self.toc_bits + chunks * self.num_codebooks * self.bits_per_token) // 8)


def _by_age(mask: Mask | tuple[int, ...], horizon: int) -> Mask:
    """The longest prefix first, the others as they come, as far as something rides within the horizon."""
    later = list(mask)
    later.remove(max(mask))
    later = later[:horizon]
    while later and not later[-1]:
        later.pop()
    return Mask(max(mask), *later)
