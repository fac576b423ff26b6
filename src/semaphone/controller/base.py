"""What decides how many tokens of a chunk go, and which of them go twice (LargeSC §II-B)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Mask(NamedTuple):
    """The two prefix masks of a chunk (eqs 5-7): their lengths S_s and S_c, in either order."""

    s: int
    c: int

    @property
    def sent(self) -> int:
        """How many of the chunk's first tokens are sent: max(S_s, S_c)."""
        return max(self)

    @property
    def twice(self) -> int:
        """How many of the chunk's first tokens are sent twice: min(S_s, S_c)."""
        return min(self)

    @property
    def transmissions(self) -> int:
        """Tokens on the wire, copies included: Σ m of eq 10."""
        return self.s + self.c


class Controller(Protocol):
    """Latents and the reported loss rate → masks. `state` is `None` for a fresh stream."""

    @property
    def most(self) -> int:
        """How many tokens of a chunk it sends at the most: the codec need not compute more."""
        ...

    def step(self, latents: Tensor, loss_rate: float, state: Any) -> tuple[list[Mask], Any]:
        """Latents z_n [D, T] of T chunks of one stream, p in [0, 1] → one mask a chunk, next state."""
        ...


@dataclass(frozen=True)
class FixedController:
    """The same mask for every chunk, whatever is said and lost."""

    codebooks: int  # tokens sent of each chunk
    copies: int = 0  # how many of them, from the first, go twice

    def __post_init__(self) -> None:
        if self.codebooks < 0 or not 0 <= self.copies <= self.codebooks:
            raise ValueError("copies must lie between 0 and codebooks")

    @property
    def most(self) -> int:
        """See `Controller.most`."""
        return self.codebooks

    def step(self, latents: Tensor, loss_rate: float, state: Any) -> tuple[list[Mask], Any]:
        """See `Controller.step`."""
        return [Mask(self.codebooks, self.copies)] * latents.shape[1], None
