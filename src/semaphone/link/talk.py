"""From a recording of any length to steps of whole chunks, and back to exactly that length.

Decoded speech lags behind by the codec's delay; a talk is therefore prolonged by as much silence,
and what comes out loses its first `delay` samples.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from semaphone.audio import chunks
from semaphone.codec.base import CodecInfo

if TYPE_CHECKING:
    from semaphone.audio import Samples


class Length:
    """How many samples a talk had; known when its blocks have run out."""

    samples = 0


def steps(blocks: Iterable[Samples], info: CodecInfo, chunks_a_step: int, length: Length) -> Iterator[Samples]:
    """Blocks of any length → arrays of `chunks_a_step` whole chunks (the last may have fewer)."""

    def counted() -> Iterator[Samples]:
        for block in blocks:
            length.samples += len(block)
            yield block

    tail = np.zeros(info.delay, np.float32)
    waiting: list[Samples] = []
    for chunk, _ in chunks(chain(counted(), [tail] if info.delay else []), info.chunk_samples):
        waiting.append(chunk)
        if len(waiting) == chunks_a_step:
            yield np.concatenate(waiting)
            waiting = []
    if waiting:
        yield np.concatenate(waiting)


def aligned(speech: Iterable[Samples], delay: int, length: Length, held_back: int = 1) -> Iterator[Samples]:
    """Takes the codec's delay off the front and the padding off the back.

    The length is known only when `speech` has ended, so `held_back` blocks wait: as many as padding can fill.
    """
    dropped = given = 0
    held: deque[Samples] = deque()
    for block in speech:
        cut = min(delay - dropped, len(block))
        dropped += cut
        held.append(block[cut:])
        if len(held) > held_back:
            given += len(held[0])
            yield held.popleft()
    if held:
        yield np.concatenate(held)[: max(length.samples - given, 0)]


class Beginning:
    """Keeps the first samples of a stream, for a picture of it."""

    def __init__(self, most: int) -> None:
        self.left = most
        self.blocks: list[Samples] = [np.zeros(0, np.float32)]

    def add(self, block: Samples) -> None:
        """Take of a block what there is still room for."""
        if self.left > 0:
            self.blocks.append(block[: self.left])
            self.left -= len(self.blocks[-1])

    def listen(self, blocks: Iterable[Samples]) -> Iterator[Samples]:
        """Pass blocks on, taking what there is room for."""
        for block in blocks:
            self.add(block)
            yield block

    def samples(self) -> Samples:
        """What was kept."""
        return np.concatenate(self.blocks)
