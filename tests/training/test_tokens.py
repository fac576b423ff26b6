"""Token caches: what is written is what is read."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from semaphone.codec.base import CodecInfo, Encoded
from semaphone.errors import InputError
from semaphone.training.data import Corpus, Recording
from semaphone.training.tokens import (
    TokenUtterance,
    corpus_tokens,
    joined,
    open_tokens,
    token_set,
    tokenise,
    write_tokens,
)

CODEC = "ab" * 32


def utterances(rng: np.random.Generator, text: bool = True) -> list[TokenUtterance]:
    found = []
    for n, length in enumerate((5, 1, 9)):
        tokens = rng.integers(0, 2048, (4, length)).astype(np.int16)
        line = rng.integers(0, 30_000, length).astype(np.int32) if text else None
        found.append(TokenUtterance(tokens, line, f"u{n}", "ab"[n % 2]))
    return found


@pytest.mark.parametrize("text", [True, False])
def test_what_is_written_is_read(tmp_path, rng, text):
    written = utterances(rng, text)
    cache = write_tokens(tmp_path, CODEC, 2048, written)
    assert cache.name == CODEC[:16]
    assert not list(cache.glob("*.tmp"))
    for found in (open_tokens(cache, CODEC), token_set(CODEC, 2048, written)):
        assert (found.codec, found.codebook_size, found.num_codebooks) == (CODEC, 2048, 4)
        assert found.lengths.tolist() == [5, 1, 9]
        assert found.groups == ["a", "b", "a"]
        for a, b in zip(found, written, strict=True):
            assert np.array_equal(a.tokens, b.tokens)
            assert (a.name, a.group) == (b.name, b.group)
            assert (a.text is None) == (not text)
            if a.text is not None and b.text is not None:
                assert np.array_equal(a.text, b.text)


def test_parts_are_disjoint(rng):
    whole = token_set(CODEC, 2048, utterances(rng))
    train, dev = whole.split(0.34)
    assert sorted(u.name for part in (train, dev) for u in part) == ["u0", "u1", "u2"]
    assert len(dev) == 1
    with pytest.raises(InputError, match="too few"):
        dev.split(0.5)


def test_broken_caches_are_refused(tmp_path, rng):
    with pytest.raises(InputError, match="not a whole token cache"):
        open_tokens(tmp_path)
    cache = write_tokens(tmp_path, CODEC, 2048, utterances(rng))
    with pytest.raises(InputError, match="another codec"):
        open_tokens(cache, "cd" * 32)
    (cache / "tokens.i16").write_bytes((cache / "tokens.i16").read_bytes()[:64])
    with pytest.raises(InputError, match="shorter than its index"):
        open_tokens(cache)
    with pytest.raises(InputError, match="no utterances"):
        write_tokens(tmp_path, CODEC, 2048, [])
    with pytest.raises(InputError, match="no utterances"):
        token_set(CODEC, 2048, [])


class Ramp:
    """A codec whose token is the number of the chunk, kept in its state."""

    info = CodecInfo("ramp", 100, 10.0, 2, 2048, 1, CODEC)

    def encode(self, speech: torch.Tensor, state: int | None = None, num_codebooks: int | None = None) -> Encoded:
        first, count = state or 0, speech.shape[1] // 10
        tokens = torch.arange(first, first + count).expand(1, 2, count)
        return Encoded(tokens, torch.zeros(1, 1, count), first + count)

    def decode(self, tokens, state=None, weight=None, entries=None):
        raise NotImplementedError


def test_recordings_are_encoded_with_their_state_and_padded():
    found = list(tokenise(Ramp(), [("long", "g", np.zeros(2_995, np.float32)), ("none", "g", np.zeros(0, np.float32))]))
    assert [u.name for u in found] == ["long"]
    assert found[0].tokens[0].tolist() == list(range(300))


def test_a_corpus_is_encoded_once(tmp_path, monkeypatch):
    recordings = (Recording("a/x.wav", "a", 0, 8_000), Recording("b/y.wav", "b", 8_000, 4_800))
    corpus = Corpus(recordings, np.zeros(12_800, np.int16), np.zeros(1, np.float16), None)
    found = corpus_tokens(Ramp(), corpus, tmp_path)
    assert found.lengths.tolist() == [5, 3]
    assert found.groups == ["a", "b"]
    monkeypatch.setattr(Ramp, "encode", None)
    again = corpus_tokens(Ramp(), corpus, tmp_path)
    assert [u.name for u in again] == ["a/x.wav", "b/y.wav"]


def test_joined_sets_are_their_parts_in_a_row(rng):
    one, two = token_set(CODEC, 2048, utterances(rng)), token_set(CODEC, 2048, utterances(rng))
    both = joined([one.split(0.34)[0], two])
    assert len(both) == 5
    for found, wanted in zip(both, [*one.split(0.34)[0], *two], strict=True):
        assert np.array_equal(found.tokens, wanted.tokens)
        assert found.text is not None
        assert wanted.text is not None
        assert np.array_equal(found.text, wanted.text)
    assert joined([one]) is one
    assert joined([one, token_set(CODEC, 2048, utterances(rng, text=False))])[0].text is None
    with pytest.raises(InputError, match="different codecs"):
        joined([one, token_set("cd" * 32, 2048, utterances(rng))])


def test_a_codec_hears_speech_at_its_own_rate():
    time = np.arange(5 * 1_280) / 16_000
    audio = (8_000 * np.sin(2 * np.pi * 440 * time)).astype(np.int16)
    corpus = Corpus((Recording("a", "", 0, len(audio)),), audio, np.empty(0, np.float16), None)
    heard = corpus.speech(corpus.recordings[0], 24_000)
    assert len(heard) == 5 * 1_920
    wanted = 8_000 / 32_768 * np.sin(2 * np.pi * 440 * np.arange(len(heard)) / 24_000)
    assert np.abs(heard - wanted)[200:-200].max() < 1e-3
