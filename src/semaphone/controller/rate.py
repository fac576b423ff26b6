"""Rates that are kept whatever the network says: L is moved, chunk by chunk, so that payloads come out right.

`RateControl` keeps the average payload of a talk at a target. It asks which L would have met the target over the
last seconds, so that within those the content decides who gets how much. What was spent too little or too much so
far is a credit in bits, which L works off; the credit stays within a corridor of two percent of the talk, whatever
it takes. Pauses leave credit behind that later speech spends, at no more than twice the target.

`ConstantRate` fills packets of one size (RFC 6562): each chunk gets the largest L that fits.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from semaphone.controller.adaptive import never_empty
from semaphone.controller.base import KEEPALIVE, NOTHING, Demand, LinkLoss, Mask, Scalable
from semaphone.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

WINDOW = 64  # chunks that say which L meets the target, 5 s
SLACK = 0.02  # half the corridor, as a share of the talk so far
WIDEST = 5.0  # s of the target, half the corridor at most
BANK = 10.0  # s of the target that pauses can leave behind
PEAK = 2.0  # times the target that a chunk costs at the most
LOWEST, HIGHEST = 0.25, 1e6  # L
FINE = 1.01  # the ratio of two rates that need not be told apart


class Blocks(Protocol):
    """What has to be known of packets: `PacketFormat` is one."""

    @property
    def num_codebooks(self) -> int: ...
    @property
    def frame_rate(self) -> float: ...
    @property
    def chunks_per_block(self) -> int: ...
    @property
    def packets_per_block(self) -> int: ...
    @property
    def block_duration(self) -> float: ...
    @property
    def reach(self) -> int: ...
    @property
    def bits_per_token(self) -> int: ...
    @property
    def toc_bits(self) -> int: ...

    def riding(self, earlier: Sequence[tuple[Mask, ...]], nothing: Mask) -> tuple[Mask, ...]: ...
    def effective(self, mask: Mask) -> Mask: ...
    def sizes(self, masks: Sequence[Mask], copied: Sequence[Mask] = ()) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class _Open:
    """The block that is being filled, and those of which something still rides along."""

    masks: tuple[Mask, ...] = ()
    earlier: tuple[tuple[Mask, ...], ...] = ()
    empty: int = 0  # talking chunks in a row of which nothing was sent

    def copied(self, form: Blocks) -> tuple[Mask, ...]:
        """The masks of the earlier chunks of which something rides with this block."""
        return form.riding(self.earlier, NOTHING)

    def filled(self, form: Blocks, mask: Mask) -> tuple[Mask, ...]:
        """The masks of the block if this chunk and all that follow get the same."""
        return (*self.masks, *(mask,) * (form.chunks_per_block - len(self.masks)))

    def sizes(self, form: Blocks, mask: Mask) -> tuple[int, ...]:
        """Bytes of the block's payloads if this chunk and all that follow get the same mask."""
        return form.sizes(self.filled(form, mask), self.copied(form))

    def add(self, form: Blocks, mask: Mask, empty: int) -> _Open:
        """With the next chunk's mask."""
        masks = (*self.masks, mask)
        if len(masks) < form.chunks_per_block:
            return _Open(masks, self.earlier, empty)
        earlier = (*self.earlier, masks)[-form.reach :] if form.reach else ()
        return _Open((), earlier, empty)


def search(fits: Callable[[float], bool], near: float | None = None) -> float:
    """About the largest L that fits, where smaller ones do if larger ones do; `LOWEST` if none does.

    It is found sooner if it is `near` some other L.
    """
    low, high = LOWEST, HIGHEST
    if near is not None:
        if fits(near):
            low, high = near, min(2 * near, HIGHEST)
        else:
            low, high = max(near / 2, LOWEST), near
        if fits(high) or not fits(low):
            low, high = LOWEST, HIGHEST
    if fits(high):
        return high
    while high > FINE * low:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


@dataclass(frozen=True)
class RateState:
    """Where a talk stands."""

    controller: Any = None
    open: _Open = _Open()
    chunks: int = 0  # that have passed
    credit: float = 0.0  # bits that could have been spent and were not
    charged: float = 0.0  # bits that the open block has been charged for
    recent: tuple[Demand | None, ...] = ()  # of the last chunks, None where nobody talked
    silent: int = 0  # blocks in a row without a token
    level: float | None = None  # L that met the target lately


class RateControl:
    """A `Controller` whose talk has a given average payload."""

    def __init__(self, controller: Scalable, target: float, form: Blocks) -> None:
        """`target` in bit/s of payload. Raises InputError if packets of this format cannot have that rate."""
        self.controller, self.target, self.form = controller, target, form
        check_target(target, form)
        self._budget = target / form.frame_rate  # bits a chunk
        self._overhead = (form.toc_bits + 3.5) * form.packets_per_block / form.chunks_per_block

    def __str__(self) -> str:
        return f"{self.controller.name}, {self.target:g} bit/s"

    @property
    def most(self) -> int:
        """See `Controller.most`."""
        return self.form.num_codebooks

    def step(
        self, latents: Tensor, losses: LinkLoss, state: RateState | None, talking: Sequence[bool] | None = None
    ) -> tuple[list[Mask], RateState]:
        """See `Controller.step`."""
        state = state or RateState()
        demands, inner = self.controller.demands(latents, losses, state.controller)
        state = replace(state, controller=inner)
        masks = []
        for i, demand in enumerate(demands):
            mask, state = self._chunk(demand if talking is None or talking[i] else None, state)
            masks.append(mask)
        return masks, state

    def _chunk(self, demand: Demand | None, state: RateState) -> tuple[Mask, RateState]:
        """One chunk; `None`: nobody talks."""
        chunks = state.chunks + 1
        recent = (*state.recent, demand)[-WINDOW:]
        credit = min(state.credit + self._budget, BANK * self.target)
        mask, empty, level = NOTHING, 0, state.level
        if demand is not None:
            if level is None or not state.open.masks:  # once a block is often enough
                level = self._level(recent, credit, chunks, state)
            mask = demand(self._within(demand, level, credit, chunks, state))
            mask, empty = never_empty(mask, state.open.empty, self.form.chunks_per_block - 1)
        cost = self._cost(mask, state)
        opened = state.open.add(self.form, mask, empty)
        charged, silent = state.charged + cost, state.silent
        if not opened.masks:  # the block is complete
            block = (*state.open.masks, mask)
            nothing = not any(m.sent for m in (*block, *state.open.copied(self.form)))
            silent = silent + 1 if nothing else 0
            if silent > 1 and silent % KEEPALIVE:  # it is not sent
                credit += charged + cost
            charged = 0.0
        credit = max(credit - cost, -BANK * self.target)
        return mask, RateState(state.controller, opened, chunks, credit, charged, recent, silent, level)

    def _cost(self, mask: Mask, state: RateState) -> float:
        """Bits that this chunk adds to what its block has been charged for; exact where it completes the block."""
        place = len(state.open.masks) + 1
        total = 8 * sum(state.open.sizes(self.form, mask))
        return total * place / self.form.chunks_per_block - state.charged

    def _level(self, recent: tuple[Demand | None, ...], credit: float, chunks: int, state: RateState) -> float:
        """L with which the last seconds would have met the target; `credit` includes this chunk's budget."""
        spoken = [one for one in recent if one is not None]
        horizon = min(max(4.0, 2 * SLACK * chunks), 60.0)
        bits = (self._budget + (credit - self._budget) / horizon) * len(recent)
        tokens = (bits - self._overhead * len(spoken)) / self.form.bits_per_token
        return search(lambda rate: sum(one(rate).transmissions for one in spoken) <= tokens, state.level)

    def _within(self, demand: Demand, level: float, credit: float, chunks: int, state: RateState) -> float:
        """The L nearest to `level` that keeps the credit in its corridor after this chunk, as far as that goes."""
        budget = self._budget
        corridor = min(max(self.form.chunks_per_block * budget, SLACK * chunks * budget), WIDEST * self.target)
        least, most = credit - corridor, min(credit + corridor, PEAK * budget)
        cost = self._cost(demand(level), state)
        if least <= cost <= most:
            return level
        limit = most if cost > most else min(max(least, 0.0), PEAK * budget)
        return search(lambda rate: self._cost(demand(rate), state) <= limit)


@dataclass(frozen=True)
class ConstantState:
    """Where a talk stands."""

    controller: Any = None
    open: _Open = _Open()


class ConstantRate:
    """A `Controller` whose payloads fit packets of one size, and fill them as far as whole tokens can."""

    def __init__(self, controller: Scalable, size: int, form: Blocks) -> None:
        """`size` in bytes. Raises InputError if a payload of this format does not fit it."""
        self.controller, self.size, self.form = controller, size, form
        check_target(size * 8 * form.packets_per_block / form.block_duration, form)

    def __str__(self) -> str:
        return f"{self.controller.name}, packets of {self.size} bytes"

    @property
    def most(self) -> int:
        """See `Controller.most`."""
        return self.form.num_codebooks

    def step(
        self, latents: Tensor, losses: LinkLoss, state: ConstantState | None, talking: Sequence[bool] | None = None
    ) -> tuple[list[Mask], ConstantState]:
        """See `Controller.step`. Pauses are sent like speech: that is what a constant rate is for."""
        before = state or ConstantState()
        demands, inner = self.controller.demands(latents, losses, before.controller)
        opened, masks = before.open, []
        for demand in demands:
            level = search(functools.partial(self._fits, demand, opened))
            mask, empty = never_empty(demand(level), opened.empty, self.form.chunks_per_block - 1)
            opened = opened.add(self.form, mask, empty)
            masks.append(mask)
        return masks, ConstantState(inner, opened)

    def _fits(self, demand: Demand, opened: _Open, rate: float) -> bool:
        mask = demand(rate)
        block = opened.filled(self.form, mask)
        # Copies that ride with the next block must leave it some room.
        return max(*opened.sizes(self.form, mask), *self.form.sizes(block, block)) <= self.size


def check_target(target: float, form: Blocks) -> None:
    """Raises InputError unless blocks of one token fit below `target` (bit/s) and it fits below blocks of all."""
    nothing = (NOTHING,) * (form.chunks_per_block - 1)
    everything = (Mask(form.num_codebooks, form.num_codebooks),) * form.chunks_per_block
    one = (Mask(1, 0), *nothing)
    least = sum(form.sizes(one, one)) * 8 / form.block_duration
    most = sum(form.sizes(everything, everything)) * 8 / form.block_duration
    if not least <= target <= most:
        raise InputError(
            f"With these packets a payload rate lies between {least:.0f} and {most:.0f} bit/s, not at {target:g}."
        )
