"""A rival of repeated tokens: XOR of the last chunks' tokens, as forward error correction (RFC 5109) has it.

The packet of chunk n carries its first S tokens, and for each set of ages the XOR, token by token, of the chunks
n - age. A parity gives back a chunk if it is the only unknown one of its set; what was given back may help the next
one. A chunk is played when the last packet that has a parity with it could have come.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from semaphone.experiments.digests import digest_of
from semaphone.experiments.systems import RATE, TOGETHER, Sent, System, codec_named, fitted, recovery_named, resampled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from semaphone.audio import Samples
    from semaphone.channel.erasure import ErasureChannel
    from semaphone.packet.packetizer import ReceivedChunk

TABLE_BITS = 7  # a table of contents that says how many tokens a chunk has


@dataclass(frozen=True)
class ParitySystem(System):
    """Our codec and recovery behind packets with parities."""

    codec: str
    recovery: str
    codebooks: int  # S
    parities: tuple[tuple[int, ...], ...]  # ages of the chunks of each parity

    @property
    def horizon(self) -> int:
        """Packets after a chunk's own one that have a parity with it."""
        return max((age for ages in self.parities for age in ages), default=0)

    def identity(self, channel: ErasureChannel) -> dict[str, Any]:
        """See `System.identity`."""
        codec, recovery = codec_named(self.codec), recovery_named(self.recovery, self.codec)
        return {
            "codec": codec.info.fingerprint,
            "codec_weights": digest_of(codec),
            "recovery": type(recovery).__name__,
            "recovery_weights": digest_of(recovery),
            "recovery_settings": repr(getattr(recovery, "settings", None)),
            "codebooks": self.codebooks,
            "parities": [list(ages) for ages in self.parities],
        }

    def send(self, speech: Samples, channel: ErasureChannel, seed: int, language: str | None = None) -> Sent:
        """See `System.send`."""
        info = codec_named(self.codec).info
        sampler = channel.sampler(np.random.default_rng(seed))
        tokens = self._encode(resampled(speech, RATE, info.sample_rate))
        chunk = info.chunk_samples / info.sample_rate
        packets = len(tokens) + self.horizon
        arrived = [not sampler.lost((n + 1) * chunk) for n in range(packets)]
        known = recovered(arrived, self.parities, len(tokens), self.horizon)
        heard = self._decode(tokens, known)[info.delay :]
        seconds = len(speech) / RATE
        bits = self.codebooks * (1 + len(self.parities)) * info.bits_per_token
        size = 8 * -(-(bits + TABLE_BITS) // 8)
        return Sent(
            fitted(resampled(heard, info.sample_rate, RATE), len(speech)),
            round(packets * bits / seconds, 1),
            round(packets * size / seconds, 1),
            round(packets * (size + 320) / seconds, 1),
            packets,
            arrived.count(False),
            delay_ms=round(1000 * ((1 + self.horizon) * chunk + info.delay / info.sample_rate), 1),
            chunk_loss=round(1.0 - float(np.mean([now for now, _ in known])), 5),
        )

    def _encode(self, speech: Samples) -> NDArray[np.int64]:
        """Tokens [chunks, S], with the codec's delay at the end."""
        import torch

        codec = codec_named(self.codec)
        info = codec.info
        chunks = -(-(len(speech) + info.delay) // info.chunk_samples)
        padded = np.pad(speech, (0, chunks * info.chunk_samples - len(speech)))
        tokens = codec.encode(torch.from_numpy(padded)[None], None, self.codebooks).tokens
        found: NDArray[np.int64] = tokens[0, : self.codebooks].numpy().T
        return found

    def _decode(self, tokens: NDArray[np.int64], known: list[tuple[bool, bool]]) -> Samples:
        from semaphone.link.receiver import Receiver
        from semaphone.packet.format import PacketFormat

        codec = codec_named(self.codec)
        form = PacketFormat.named("history", codec.info.num_codebooks, codec.info.codebook_size)
        receiver, state = Receiver(codec, recovery_named(self.recovery, self.codec), form), None
        heard, chunks = [], list(_chunks(tokens, known, codec.info.num_codebooks))
        for start in range(0, len(chunks), TOGETHER):
            some, state = receiver.render(chunks[start : start + TOGETHER], state)
            heard.append(some.speech)
        return np.concatenate(heard)


def recovered(
    arrived: list[bool], parities: tuple[tuple[int, ...], ...], chunks: int, horizon: int
) -> list[tuple[bool, bool]]:
    """For each chunk when it is played: is it known, and is the next one?

    `arrived` are all packets; those after the last chunk carry parities alone.
    """
    known: set[int] = set()
    waiting: list[set[int]] = []  # of each parity that arrived the chunks that are not known
    found = []
    for now, here in enumerate(arrived):
        if here:
            known.add(now)
            waiting += [{now - age for age in ages if 0 <= now - age < chunks} for ages in parities]
        while True:
            waiting = [rest for unknown in waiting if (rest := unknown - known)]
            single = {chunk for unknown in waiting if len(unknown) == 1 for chunk in unknown}
            if not single:
                break
            known |= single
        if now >= horizon:
            found.append((now - horizon in known, now - horizon + 1 in known and horizon > 0))
    return found


def _chunks(tokens: NDArray[np.int64], known: list[tuple[bool, bool]], num_codebooks: int) -> Iterator[ReceivedChunk]:
    """Chunks as their receiver knows them when they are played."""
    from semaphone.packet.packetizer import ReceivedChunk
    from semaphone.packet.status import TokenStatus

    count = tokens.shape[1]

    def one(n: int, coming: ReceivedChunk | None = None) -> ReceivedChunk:
        values, status = np.zeros(num_codebooks, np.int64), np.full(num_codebooks, TokenStatus.UNSENT, np.int64)
        values[:count], status[:count] = tokens[n], TokenStatus.RECEIVED
        return ReceivedChunk(values, status, coming)

    nothing = np.zeros(num_codebooks, np.int64), np.full(num_codebooks, TokenStatus.UNKNOWN, np.int64)
    for n, (here, next_one) in enumerate(known):
        coming = one(n + 1) if next_one and n + 1 < len(tokens) else None
        yield one(n, coming) if here else ReceivedChunk(*nothing, coming)
