"""The receiver of LargeSC: the packets that arrived → recovery → codec → speech, block by block (eqs 8-9).

A block without tokens says that nobody talks. From there on, until a chunk has tokens again, there is comfort
noise, and blocks that do not come are silence and not loss.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semaphone.codec.base import Codec
from semaphone.link.silence import NoiseState, comfort_noise, learn
from semaphone.packet.bitstream import PacketError
from semaphone.packet.format import PacketFormat
from semaphone.packet.packetizer import Depacketizer, ReceivedChunk
from semaphone.packet.payload import Payload, parse
from semaphone.packet.status import TokenStatus
from semaphone.recovery.base import Recovered, Recovery

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class ReceiverState:
    """Where a talk stands at its receiver."""

    codec: Any = None
    recovery: Any = None
    gain: float = 1.0  # of the last chunk
    silent: bool = False  # nobody talks
    noise: NoiseState | None = None
    past: tuple[Past, ...] = ()  # the last chunks that recovery saw, oldest first, of which something may come late


@dataclass(frozen=True)
class Past:
    """A chunk as recovery saw it."""

    before: Any  # state of recovery
    chunk: ReceivedChunk


@dataclass(frozen=True)
class Heard:
    """What a block of packets gives."""

    speech: Samples  # [chunks of a block * chunk_samples], late by the codec's delay
    status: NDArray[np.int64]  # [T, N_Q] of TokenStatus
    bad_packets: int  # payloads that were no payload of this format: they count as lost
    silent: bool = False  # nobody talks in this block: what did not come was not sent
    seconds: dict[str, float] = field(default_factory=dict)  # computation by part: packets, recovery, decoder


class Receiver:
    """Packets in, speech out. `None` is the state of a fresh talk."""

    def __init__(self, codec: Codec, recovery: Recovery, form: PacketFormat, remember: int = 0) -> None:
        """`remember`: for so many chunks after they were played something of them may come."""
        self.codec, self.recovery, self.format, self.remember = codec, recovery, form, remember
        self.depacketizer = Depacketizer(form)

    def step(
        self, payloads: Sequence[bytes | None], state: ReceiverState | None = None, silent: bool = False
    ) -> tuple[Heard, ReceiverState]:
        """The payloads of one block in the order of `format.sequences_of(block)`; None for those that are lost.

        `silent`: it is known from elsewhere that a pause has begun before this block, or with it.
        """
        if silent:
            state = replace(state or ReceiverState(), silent=True)
        began = time.perf_counter()
        chunks, bad = self.read(payloads)
        seconds = time.perf_counter() - began
        heard, state = self.render(chunks, state)
        return replace(heard, bad_packets=bad, seconds={"packets": seconds, **heard.seconds}), state

    def render(self, chunks: list[ReceivedChunk], state: ReceiverState | None = None) -> tuple[Heard, ReceiverState]:
        """The chunks of a block as they were received → speech: comfort noise, or recovery and the codec's decoder."""
        pause, quiet, state = self._pause(chunks, state or ReceiverState())
        if state.silent:
            return pause, state
        decoded, seconds, state = self._decode(chunks[quiet:], state)
        return replace(pause, speech=np.concatenate([pause.speech, decoded]), seconds=seconds), state

    def stream(
        self, payloads: Sequence[bytes | None], state: ReceiverState | None = None, silent: bool = False
    ) -> Iterator[tuple[Heard, ReceiverState]]:
        """`step` in pieces, one a chunk: the first can be heard while the next is made. The sums are the same."""
        began = time.perf_counter()
        chunks, bad = self.read(payloads)
        reading = {"packets": time.perf_counter() - began}
        state = state or ReceiverState()
        pause, quiet, state = self._pause(chunks, replace(state, silent=True) if silent else state)
        if state.silent:
            yield replace(pause, bad_packets=bad, seconds={**reading, **pause.seconds}), state
            return
        before = pause.speech
        for i in range(quiet, len(chunks)):
            decoded, seconds, state = self._decode(chunks[i : i + 1], state)
            speech, first = np.concatenate([before, decoded]), i == quiet
            status = pause.status[0 if first else i : i + 1]
            yield Heard(speech, status, bad if first else 0, False, {**reading, **seconds} if first else seconds), state
            before = before[:0]

    def _pause(self, chunks: list[ReceivedChunk], state: ReceiverState) -> tuple[Heard, int, ReceiverState]:
        """The comfort noise that a block begins with, its chunks, and the state, silent if it is all of the block."""
        status = np.stack([chunk.status for chunk in chunks])
        quiet = _quiet_chunks(status, state.silent)
        began = time.perf_counter()
        speech, noise = comfort_noise(quiet * self.codec.info.chunk_samples, state.noise)
        past = () if quiet else state.past
        state = replace(state, silent=quiet == len(chunks), noise=noise if quiet else state.noise, past=past)
        seconds = {"recovery": 0.0, "decoder": time.perf_counter() - began}
        return Heard(speech, status, 0, state.silent, seconds), quiet, state

    def _decode(
        self, chunks: list[ReceivedChunk], state: ReceiverState
    ) -> tuple[Samples, dict[str, float], ReceiverState]:
        began = time.perf_counter()
        tokens, weights, entries, gains = [], [], [], [state.gain]
        recovery_state, past = state.recovery, state.past
        for chunk in chunks:
            recovery_state, past = self._revised(chunk.played, recovery_state, past)
            past = self._remembered(past, Past(recovery_state, chunk))
            recovered, recovery_state = self._recover(chunk, recovery_state)
            tokens.append(recovered.tokens)
            weights.append(recovered.weight)
            entries.append(recovered.entries)
            gains.append(float(recovered.gain[0]))
        filled = time.perf_counter()
        more = _stacked(entries)
        decoded = self.codec.decode(torch.stack(tokens, 2), state.codec, torch.stack(weights, 2), more)
        speech = decoded.speech[0].numpy()
        seconds = {"recovery": filled - began, "decoder": time.perf_counter() - filled}
        noise, size = state.noise, self.codec.info.chunk_samples
        for i, chunk in enumerate(chunks):
            if (chunk.status == TokenStatus.RECEIVED).any():
                noise = learn(speech[i * size : (i + 1) * size], noise)
        after = replace(state, codec=decoded.state, recovery=recovery_state, gain=gains[-1], noise=noise, past=past)
        return speech * _ramps(gains, size), seconds, after

    def _recover(self, chunk: ReceivedChunk, state: Any) -> tuple[Recovered, Any]:
        coming = None if chunk.coming is None else _tensors(chunk.coming)
        return self.recovery.step(*_tensors(chunk), state, coming=coming)

    def _remembered(self, past: tuple[Past, ...], last: Past) -> tuple[Past, ...]:
        return (*past, last)[-self.remember :] if self.remember else ()

    def _revised(
        self, played: Sequence[ReceivedChunk], state: Any, past: tuple[Past, ...]
    ) -> tuple[Any, tuple[Past, ...]]:
        """Recovery's state with what came late of chunks that were played: it goes through them again, unheard."""
        number = min(len(played), len(past))
        now = [*(one.chunk for one in past[: len(past) - number]), *played[len(played) - number :]]
        new = (i for i, one in enumerate(past) if _received(now[i]) > _received(one.chunk))
        first = next(new, None)
        if first is None:
            return state, past
        state, past, later = past[first].before, past[:first], now[first:]
        for chunk in later:
            past = self._remembered(past, Past(state, chunk))
            _, state = self._recover(chunk, state)
        return state, past

    def read(self, payloads: Sequence[bytes | None]) -> tuple[list[ReceivedChunk], int]:
        """Chunks from whatever is sound among the payloads, and how many are not."""
        good: list[Payload | None] = []
        bad = 0
        for payload in payloads:
            try:
                good.append(None if payload is None else parse(self.format, payload))
            except PacketError:
                good.append(None)
                bad += 1
        try:
            return self.depacketizer.read(good), bad
        except PacketError:
            sound = self._agreeing(good)
            left_out = sum(a is not b for a, b in zip(good, sound, strict=True))
            return self.depacketizer.read(sound), bad + left_out

    def _agreeing(self, payloads: Sequence[Payload | None]) -> list[Payload | None]:
        """The payloads without those that contradict an earlier one."""
        kept: list[Payload | None] = [None] * len(payloads)
        for i, payload in enumerate(payloads):
            kept[i] = payload
            try:
                self.depacketizer.read(kept)
            except PacketError:
                kept[i] = None
        return kept


def _received(chunk: ReceivedChunk) -> int:
    return int((chunk.status == TokenStatus.RECEIVED).sum())


def _tensors(chunk: ReceivedChunk) -> tuple[Tensor, Tensor]:
    """Tokens and status as a batch of one, [1, N_Q]."""
    return torch.from_numpy(chunk.tokens)[None], torch.from_numpy(chunk.status)[None]


def _stacked(entries: list[Tensor | None]) -> Tensor | None:
    """Of chunks [B, N_Q, C] → [B, N_Q, T, C], zero where there are none."""
    some = next((part for part in entries if part is not None), None)
    if some is None:
        return None
    return torch.stack([torch.zeros_like(some) if part is None else part for part in entries], 2)


def _ramps(gains: list[float], length: int) -> Samples:
    """Gain per sample, linear from each chunk's gain to the next."""
    steps = np.arange(1, length + 1, dtype=np.float32) / length
    return np.concatenate([a + (b - a) * steps for a, b in itertools.pairwise(gains)]).astype(np.float32)


def _quiet_chunks(status: NDArray[np.int64], silent: bool) -> int:
    """How many chunks from the first on are silence; status [T, N_Q] of a block, `silent`: it was silent before."""
    empty = (status == TokenStatus.UNSENT).all(1)
    if empty.all() or (silent and (status == TokenStatus.UNKNOWN).all()):
        return len(status)
    return int(empty.argmin()) if silent else 0
