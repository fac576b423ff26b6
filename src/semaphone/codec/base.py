"""What every codec offers: speech ⇄ tokens, chunk by chunk, with explicit state (LargeSC eqs 1-3, 9).

A chunk is one codec frame (80 ms at 12.5 Hz) and becomes `num_codebooks` tokens. Encoders and
decoders are pure functions of `(input, state)`: a whole file is the same call over a fresh state,
so feeding a recording chunk by chunk gives the result of feeding it at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

# What a codec carries from one call to the next; its contents are the codec's own business.
State = Any


@dataclass(frozen=True)
class CodecInfo:
    """The facts of a codec that the other rooms need."""

    name: str  # "nano", "mimi"
    sample_rate: int  # Hz
    frame_rate: float  # chunks a second
    num_codebooks: int  # N_Q, tokens a chunk at the most
    codebook_size: int  # K, entries of each codebook
    latent_dim: int  # D, width of the latent z_n before quantisation
    fingerprint: str  # hex digest of weights and configuration: tokens of one codec mean nothing to another
    delay: int = 0  # samples by which decoded speech lags behind the input (overlap-add)

    @property
    def chunk_samples(self) -> int:
        """Samples of one chunk."""
        return round(self.sample_rate / self.frame_rate)

    @property
    def bits_per_token(self) -> int:
        """Bits that the index of one codebook entry takes, ⌈log2 K⌉."""
        return (self.codebook_size - 1).bit_length()


@dataclass(frozen=True)
class Encoded:
    """What `Codec.encode` gives for T chunks of a batch of B."""

    tokens: Tensor  # [B, N_Q, T] int64
    latents: Tensor  # [B, D, T] float32, z_n before quantisation
    state: State


@dataclass(frozen=True)
class Decoded:
    """What `Codec.decode` gives for T chunks of a batch of B."""

    speech: Tensor  # [B, T * chunk_samples] float32
    state: State


@runtime_checkable
class Codec(Protocol):
    """Speech ⇄ tokens. Both calls take `None` as the state of a fresh stream."""

    @property
    def info(self) -> CodecInfo: ...

    def encode(self, speech: Tensor, state: State | None = None, num_codebooks: int | None = None) -> Encoded:
        """Tokens of speech [B, T * chunk_samples] in [-1, 1]; only the first `num_codebooks` are computed.

        Raises ValueError if the length is not a whole number of chunks.
        """
        ...

    def decode(
        self,
        tokens: Tensor,
        state: State | None = None,
        weight: Tensor | None = None,
        entries: Tensor | None = None,
    ) -> Decoded:
        """Speech of tokens [B, K, T] with any 1 <= K <= N_Q leading codebooks.

        `weight` [B, K, T] in [0, 1] says how much of a token's embedding enters the sum of eq 3
        (0: the token adds nothing); `None` means all of them. `entries` [B, K, T, C] enter it besides, as
        embeddings of each codebook.
        """
        ...
