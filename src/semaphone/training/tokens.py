"""Tokens at rest: what a codec made of a corpus, for training the parts that come after it.

A token cache is a folder, named by the codec's fingerprint and mapped into memory:

    index.json    codec, sizes, and an entry for each utterance: name, group, first chunk, number of chunks
    tokens.i16    all tokens, [chunks, N_Q]
    text.i32      the text stream, [chunks], where utterances have been aligned (otherwise absent)

`write_tokens` makes it, from anything that yields utterances; `tokenise` from recordings.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from semaphone.errors import InputError
from semaphone.files import replacing, write_whole

if TYPE_CHECKING:
    from semaphone.codec.base import Codec, CodecInfo
    from semaphone.training.data import Corpus
    from semaphone.training.words import Words


@dataclass(frozen=True)
class TokenUtterance:
    """One utterance as tokens."""

    tokens: NDArray[np.int16]  # [N_Q, T]
    text: NDArray[np.int32] | None = None  # [T], one text token a chunk
    name: str = ""
    group: str = ""  # utterances of a dev set are told apart by it, batches may be balanced over it


@dataclass(frozen=True)
class _Entry:
    name: str
    group: str
    start: int
    length: int


class TokenSet:
    """A token cache, or part of it; utterances are cut out of the mapped arrays when they are asked for."""

    def __init__(
        self,
        codec: str,
        codebook_size: int,
        tokens: NDArray[np.int16],
        text: NDArray[np.int32] | None,
        entries: tuple[_Entry, ...],
    ) -> None:
        self.codec, self.codebook_size = codec, codebook_size
        self._tokens, self._text, self._entries = tokens, text, entries

    @property
    def num_codebooks(self) -> int:
        return int(self._tokens.shape[1])

    @functools.cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Chunks of each utterance, [n]."""
        return np.array([e.length for e in self._entries], np.int64)

    @property
    def starts(self) -> NDArray[np.int64]:
        """Where each utterance begins in the whole cache, in chunks, [n]."""
        return np.array([e.start for e in self._entries], np.int64)

    @property
    def groups(self) -> list[str]:
        return [e.group for e in self._entries]

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> TokenUtterance:
        e = self._entries[index]
        part = slice(e.start, e.start + e.length)
        text = None if self._text is None else self._text[part]
        return TokenUtterance(self._tokens[part].T, text, e.name, e.group)

    def __iter__(self) -> Iterator[TokenUtterance]:
        return (self[i] for i in range(len(self)))

    def split(self, share: float, seed: int = 0) -> tuple[TokenSet, TokenSet]:
        """Two disjoint parts by utterance, the second with about `share` of them (one at least)."""
        order = np.random.default_rng(seed).permutation(len(self))
        count = max(1, round(share * len(self)))
        if count >= len(self):
            raise InputError(f"{len(self)} utterances are too few to keep some for a dev set.")
        parts = (sorted(order[count:]), sorted(order[:count]))
        first, second = (tuple(self._entries[i] for i in part) for part in parts)
        return self._with(first), self._with(second)

    def without_text(self) -> TokenSet:
        """The same tokens, the text streams left out."""
        return TokenSet(self.codec, self.codebook_size, self._tokens, None, self._entries)

    def _with(self, entries: tuple[_Entry, ...]) -> TokenSet:
        return TokenSet(self.codec, self.codebook_size, self._tokens, self._text, entries)


def token_set(codec: str, codebook_size: int, utterances: Iterable[TokenUtterance]) -> TokenSet:
    """A set in memory. Raises InputError if there is nothing in it."""
    tokens, text, entries, position = [], [], [], 0
    for u in utterances:
        tokens.append(np.ascontiguousarray(u.tokens.T))
        text.append(u.text)
        entries.append(_Entry(u.name, u.group, position, u.tokens.shape[1]))
        position += u.tokens.shape[1]
    if not entries:
        raise InputError("There are no utterances to make tokens of.")
    known = [t for t in text if t is not None]
    joined = np.concatenate(known) if len(known) == len(text) else None
    return TokenSet(codec, codebook_size, np.concatenate(tokens), joined, tuple(entries))


def write_tokens(folder: Path, codec: str, codebook_size: int, utterances: Iterable[TokenUtterance]) -> Path:
    """Write a cache below `folder`, in a folder named by the fingerprint; the index comes last, so a cache with one
    is whole. Returns that folder.
    """
    cache = folder / codec[:16]
    cache.mkdir(parents=True, exist_ok=True)
    entries, position, count, aligned = [], 0, 0, True
    with ExitStack() as files:
        out = files.enter_context(open(files.enter_context(replacing(cache / "tokens.i16")), "wb"))
        text = files.enter_context(open(files.enter_context(replacing(cache / "text.i32")), "wb"))
        for u in utterances:
            count, length = u.tokens.shape
            out.write(np.ascontiguousarray(u.tokens.T, dtype=np.int16).tobytes())
            aligned = aligned and u.text is not None
            if u.text is not None:
                text.write(u.text.astype(np.int32).tobytes())
            entries.append(_Entry(u.name, u.group, position, length))
            position += length
        if not entries:
            raise InputError("There are no utterances to make tokens of.")
    if not aligned:
        os.unlink(cache / "text.i32")
    facts = {"codec": codec, "codebook_size": codebook_size, "num_codebooks": count, "text": aligned}
    write_whole(cache / "index.json", json.dumps({**facts, "utterances": [asdict(e) for e in entries]}))
    return cache


def open_tokens(cache: Path, codec: str | None = None) -> TokenSet:
    """Map a cache into memory. Raises InputError if it is not whole or holds another codec's tokens."""
    try:
        facts = json.loads((cache / "index.json").read_text())
        entries = tuple(_Entry(**e) for e in facts["utterances"])
        count = int(facts["num_codebooks"])
        tokens = np.memmap(cache / "tokens.i16", np.int16, "r").reshape(-1, count)
        text = np.memmap(cache / "text.i32", np.int32, "r") if facts["text"] else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{cache} is not a whole token cache.") from error
    if codec and facts["codec"] != codec:
        raise InputError(f"The tokens in {cache} were made by another codec than the one in use.")
    if entries and max(e.start + e.length for e in entries) > len(tokens):
        raise InputError(f"The token cache {cache} is shorter than its index says.")
    return TokenSet(facts["codec"], int(facts["codebook_size"]), tokens, text, entries)


def tokenise(
    codec: Codec, recordings: Iterable[tuple[str, str, NDArray[np.float32]]], info: CodecInfo | None = None
) -> Iterator[TokenUtterance]:
    """Tokens of (name, group, speech) recordings at the codec's sample rate; what is not a whole chunk is padded."""
    import torch

    info = info or codec.info
    for name, group, speech in recordings:
        chunks = -(-len(speech) // info.chunk_samples)
        if not chunks:
            continue
        padded = np.zeros(chunks * info.chunk_samples, np.float32)
        padded[: len(speech)] = speech
        parts, state = [], None
        for block in torch.split(torch.from_numpy(padded)[None], 128 * info.chunk_samples, 1):
            encoded = codec.encode(block, state)
            state = encoded.state
            parts.append(encoded.tokens[0])
        yield TokenUtterance(torch.cat(parts, 1).numpy().astype(np.int16), None, name, group)


def add_text(cache: Path, streams: Iterable[NDArray[np.int32]]) -> None:
    """Gives a cache its text streams, utterance by utterance; the index says so last."""
    facts = json.loads((cache / "index.json").read_text())
    with replacing(cache / "text.i32") as part, open(part, "wb") as out:
        for entry, stream in zip(facts["utterances"], streams, strict=True):
            if len(stream) != entry["length"]:
                raise InputError(f"The text of {entry['name']} has {len(stream)} chunks, not {entry['length']}.")
            out.write(stream.astype(np.int32).tobytes())
    write_whole(cache / "index.json", json.dumps({**facts, "text": True}))


def corpus_tokens(
    codec: Codec, corpus: Corpus, folder: Path, version: int = 0, words: Mapping[str, Words] | None = None
) -> TokenSet:
    """Tokens of a corpus cache: read from below `folder` if this codec has been there, otherwise made and kept.

    `version` 0 is the corpus as it is, every other one the same words said differently (training/versions.py). With
    the times of words (training/words.py) utterances have text streams.
    """
    from semaphone.training.versions import another

    if version:
        folder = folder / f"version-{version}"
    cache = folder / codec.info.fingerprint[:16]
    if not (cache / "index.json").exists():
        rate = codec.info.sample_rate
        recordings = (
            (r.file, r.group, another(corpus.speech(r), version, n, rate) if version else corpus.speech(r, rate))
            for n, r in enumerate(corpus.recordings)
        )
        write_tokens(folder, codec.info.fingerprint, codec.info.codebook_size, tokenise(codec, recordings))
    found = open_tokens(cache, codec.info.fingerprint)
    if words is None:
        return found.without_text()  # an earlier run may have asked for it
    if found._text is not None:
        return found
    from semaphone.training.words import text_streams

    add_text(cache, text_streams(words, found, codec.info.frame_rate, version))
    return open_tokens(cache, codec.info.fingerprint)


def joined(sets: Sequence[TokenSet]) -> TokenSet:
    """Several sets of one codec's tokens as one. Text is kept if all of them have it."""
    first = sets[0]
    if len(sets) == 1:
        return first
    if len({(s.codec, s.codebook_size, s.num_codebooks) for s in sets}) > 1:
        raise InputError("Tokens of different codecs cannot be joined.")
    entries, position = [], 0
    for s in sets:
        entries += [replace(e, start=e.start + position) for e in s._entries]
        position += len(s._tokens)
    texts = [s._text for s in sets if s._text is not None]
    text = np.concatenate(texts) if len(texts) == len(sets) else None
    return TokenSet(first.codec, first.codebook_size, np.concatenate([s._tokens for s in sets]), text, tuple(entries))
