"""What decides how many tokens of a chunk go, and which of them go twice (LargeSC §II-B)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import Self


class Mask(tuple[int, ...]):
    """The prefix masks of a chunk: their lengths, one for each packet that carries some of its tokens.

    The paper has two, S_s and S_c, in either order (eqs 5-7). A history has more: token k rides in as many packets as
    there are lengths above k, and the length at `age` a is what rides a packets after the chunk's own one.
    """

    __slots__ = ()

    def __new__(cls, s: int, c: int = 0, *more: int) -> Self:
        """Lengths from the chunk's own packet on; there are always two of them at least."""
        return super().__new__(cls, (s, c, *more))

    def __getnewargs__(self) -> tuple[int, ...]:
        return tuple(self)

    def __repr__(self) -> str:
        return f"Mask({', '.join(map(str, self))})"

    @property
    def sent(self) -> int:
        """How many of the chunk's first tokens are sent: max(S_s, S_c) in the paper's case."""
        return max(self)

    @property
    def twice(self) -> int:
        """How many of the chunk's first tokens are sent twice or more: min(S_s, S_c) in the paper's case."""
        return sorted(self)[-2]

    @property
    def transmissions(self) -> int:
        """Tokens on the wire, copies included: Σ m of eq 10."""
        return sum(self)

    def at(self, age: int) -> int:
        """How many of the chunk's first tokens ride `age` packets after its own one."""
        return self[age] if age < len(self) else 0


NOTHING = Mask(0, 0)
KEEPALIVE = 6  # blocks of a pause, one of which is sent


class LinkLoss(NamedTuple):
    """What a sender knows of the losses."""

    rate: float = 0.0  # p, share of packets
    again: float | None = None  # r = P(copy lost | token lost); None: losses count as independent, r = p

    @property
    def mendable(self) -> float:
        """The rate of independent losses that copies would mend as often.

        A copy mends p (1 − r) of the tokens, so it is p' with p' (1 − p') = p (1 − r): 0 where bursts take everything.
        """
        if self.again is None:
            return self.rate
        mended = self.rate * (1.0 - min(max(self.again, self.rate), 1.0))
        return 0.5 * (1.0 - math.sqrt(max(0.0, 1.0 - 4.0 * mended)))


class Controller(Protocol):
    """Latents and the reported losses → masks. `state` is `None` for a fresh stream. `str` is for reports."""

    @property
    def most(self) -> int:
        """How many tokens of a chunk it sends at the most: the codec need not compute more."""
        ...

    def step(
        self, latents: Tensor, losses: LinkLoss, state: Any, talking: Sequence[bool] | None = None
    ) -> tuple[list[Mask], Any]:
        """Latents z_n [D, T] of T chunks of one stream, what is known of the losses → one mask a chunk, next state.

        `talking` [T] says in which chunks anybody speaks (default: in all); the others get `NOTHING`.
        """
        ...


class Demand(Protocol):
    """What a chunk asks for: its mask as a function of the rate L. A higher L never sends less."""

    def __call__(self, rate: float) -> Mask: ...


class Scalable(Protocol):
    """A controller that leaves the rate open, for something above it to decide (see rate.py)."""

    @property
    def name(self) -> str: ...

    def demands(self, latents: Tensor, losses: LinkLoss, state: Any) -> tuple[list[Demand], Any]:
        """Latents z_n [D, T], the losses → what each chunk asks for, next state."""
        ...


def silenced(masks: list[Mask], talking: Sequence[bool] | None) -> list[Mask]:
    """The masks, with nothing where nobody talks."""
    if talking is None:
        return masks
    return [mask if speech else NOTHING for mask, speech in zip(masks, talking, strict=True)]


@dataclass(frozen=True)
class FixedController:
    """The same mask for every chunk, whatever is said and lost."""

    codebooks: int  # tokens sent of each chunk
    copies: int = 0  # how many of them, from the first, go twice
    later: tuple[int, ...] = ()  # of a history: how many of them ride once more in each packet after those

    def __post_init__(self) -> None:
        if self.codebooks < 0 or not all(0 <= length <= self.codebooks for length in (self.copies, *self.later)):
            raise ValueError("copies must lie between 0 and codebooks")

    def __str__(self) -> str:
        if self.later:
            return f"fixed, history of {', '.join(map(str, self.mask))} codebooks"
        return f"fixed, {self.codebooks} codebooks, {self.copies} copies"

    @property
    def mask(self) -> Mask:
        """That of every chunk."""
        return Mask(self.codebooks, self.copies, *self.later)

    @property
    def most(self) -> int:
        """See `Controller.most`."""
        return self.codebooks

    def step(
        self, latents: Tensor, losses: LinkLoss, state: Any, talking: Sequence[bool] | None = None
    ) -> tuple[list[Mask], Any]:
        """See `Controller.step`."""
        return silenced([self.mask] * latents.shape[1], talking), None
