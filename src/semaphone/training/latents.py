"""What a controller is trained on: the latents of a corpus beside its tokens and its speech.

The latents z_n before quantisation lie in the token cache as `latents.f16`, [chunks, D], made once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from semaphone.errors import InputError
from semaphone.files import replacing
from semaphone.training.tokens import TokenSet

if TYPE_CHECKING:
    from semaphone.codec.base import Codec
    from semaphone.training.data import Corpus, Recording

FILE = "latents.f16"
Report = Callable[[int, int], None]  # chunks done, all


@dataclass(frozen=True)
class Crop:
    """A piece of an utterance, T chunks."""

    tokens: NDArray[np.int64]  # [T, N_Q]
    latents: NDArray[np.float32]  # [T, D]
    speech: NDArray[np.float32] | None  # [T * 1280], where the corpus is at hand


@dataclass(frozen=True)
class Material:
    """Utterances with tokens, latents and, where there is a corpus, speech."""

    tokens: TokenSet
    latents: NDArray[np.float16]  # [chunks, D] of the whole cache
    corpus: Corpus | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    @functools.cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Chunks of each utterance."""
        return self.tokens.lengths

    @functools.cached_property
    def _starts(self) -> NDArray[np.int64]:
        return self.tokens.starts

    def crop(self, index: int, first: int, count: int) -> Crop:
        """Chunks `first` to `first + count` of an utterance; what lies beyond its end is zeros."""
        utterance = self.tokens[index]
        length = min(count, utterance.tokens.shape[1] - first)
        start = int(self._starts[index]) + first
        tokens = np.zeros((count, self.tokens.num_codebooks), np.int64)
        tokens[:length] = utterance.tokens[:, first : first + length].T
        latents = np.zeros((count, self.latents.shape[1]), np.float32)
        latents[:length] = self.latents[start : start + length]
        speech = None
        if self.corpus is not None:
            speech = _speech(self.corpus, self._recording(utterance.name), first, count)
        return Crop(tokens, latents, speech)

    def draw(self, crops: int, chunks: int, rng: np.random.Generator) -> list[Crop]:
        """Crops of random utterances, drawn by their length, from random places on."""
        drawn = []
        for i in rng.choice(len(self), crops, p=self.lengths / self.lengths.sum()):
            first = int(rng.integers(0, max(int(self.lengths[i]) - chunks, 0) + 1))
            drawn.append(self.crop(int(i), first, chunks))
        return drawn

    def _recording(self, name: str) -> Recording:
        assert self.corpus is not None
        return self.corpus.by_file[name]

    def split(self, share: float) -> tuple[Material, Material]:
        """Two disjoint parts by utterance; see `TokenSet.split`."""
        first, second = self.tokens.split(share)
        return Material(first, self.latents, self.corpus), Material(second, self.latents, self.corpus)


def _speech(corpus: Corpus, recording: Recording, first: int, count: int) -> NDArray[np.float32]:
    from semaphone.training.data import CHUNK

    speech = corpus.speech(recording)[first * CHUNK : (first + count) * CHUNK]
    return np.pad(speech, (0, count * CHUNK - len(speech)))


def corpus_latents(codec: Codec, corpus: Corpus, tokens: TokenSet, cache: Path, report: Report) -> Material:
    """Latents of a corpus whose tokens lie in the folder `cache`: read from there, otherwise made and kept."""
    info = codec.info
    chunks = int(tokens.lengths.sum())
    path = cache / FILE
    if not path.exists() or path.stat().st_size != 2 * chunks * info.latent_dim:
        with replacing(path) as part, open(part, "wb") as out:
            for block in _encoded(codec, corpus, chunks, report):
                out.write(block.tobytes())
    latents = np.memmap(path, np.float16, "r").reshape(-1, info.latent_dim)
    if len(latents) != chunks:
        raise InputError(f"The tokens in {cache} are not those of this corpus.")
    return Material(tokens, latents, corpus)


def _encoded(codec: Codec, corpus: Corpus, chunks: int, report: Report) -> Iterator[NDArray[np.float16]]:
    """Latents [T, D], recording by recording, in blocks."""
    import torch

    info, done = codec.info, 0
    for recording in corpus.recordings:
        speech = torch.from_numpy(corpus.speech(recording, info.sample_rate))[None]
        state = None
        for block in torch.split(speech, 128 * info.chunk_samples, 1):
            if not block.shape[1]:
                continue
            encoded = codec.encode(block, state, 1)
            state = encoded.state
            done += encoded.latents.shape[2]
            yield encoded.latents[0].T.numpy().astype(np.float16)
        report(done, chunks)
