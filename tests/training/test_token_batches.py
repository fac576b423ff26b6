"""Tokens of a whole corpus at once."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from tests.codec.tiny import tiny_model
from tests.training.elsewhere import DEVICE, Alone, moved, there
from torch._subclasses.fake_tensor import FakeTensorMode

from semaphone.codec.nano import NanoCodec
from semaphone.codec.ranges import met_ranges
from semaphone.training.data import CHUNK, Recording, open_corpus
from semaphone.training.token_batches import BatchEncoder, batched_tokens
from semaphone.training.tokens import corpus_tokens

CPU = torch.device("cpu")


@pytest.fixture
def cache(tmp_path):
    """A corpus cache of three noises and an empty recording."""
    rng, position, index = np.random.default_rng(0), 0, []
    with open(tmp_path / "audio.i16", "wb") as out:
        for n, chunks in enumerate((5, 0, 9, 3)):
            count = chunks * CHUNK
            out.write((3000 * rng.standard_normal(count)).astype(np.int16).tobytes())
            index.append(asdict(Recording(f"{n}.wav", "g", position, count)))
            position += count
    (tmp_path / "index.json").write_text(json.dumps(index))
    return tmp_path


def numbers(tokens):
    return {u.name: u.tokens for u in tokens}


@pytest.mark.parametrize("eight", [False, True], ids=["single", "8 bits"])
def test_tokens_are_those_of_the_codec(cache, eight):
    model, corpus = tiny_model(), open_corpus(cache)
    met = met_ranges(model, [torch.from_numpy(corpus.speech(corpus.recordings[0]))[None]]) if eight else {}
    codec = NanoCodec(model, met=met)
    one = numbers(batched_tokens(model, cache, 1, CPU, 0, met, seconds=1.0)[0])
    other = numbers(corpus_tokens(codec, corpus, cache / "tokens"))
    assert one.keys() == other.keys() == {"0.wav", "2.wav", "3.wav"}
    for name, tokens in one.items():
        assert tokens.dtype == np.int16
        assert (tokens == other[name]).mean() > (0.9 if eight else 0.99)


def test_other_versions_are_those_of_a_corpus_that_is_gone_through_one_by_one(cache):
    model = tiny_model()
    sets = batched_tokens(model, cache, 2, CPU, 1)
    other = numbers(corpus_tokens(NanoCodec(model), open_corpus(cache), cache / "tokens", 1))
    assert sets[0].lengths.tolist() == [5, 9, 3]
    for name, tokens in numbers(sets[1]).items():
        assert (tokens == other[name]).mean() > 0.99
    assert [u.name for u in sets[0]] == [u.name for u in sets[1]]


def test_the_way_to_tokens_stays_on_its_device():
    encoder = BatchEncoder(tiny_model(), CPU)
    with FakeTensorMode() as mode, torch.no_grad():
        moved(mode, encoder._encoder)
        moved(mode, encoder._quantizer)
        speech = there(mode, torch.zeros(2, 3 * CHUNK))
        with Alone():
            latents, _ = encoder._encoder(speech)
            tokens = encoder._quantizer.encode(latents, 4)
        assert tokens.device == DEVICE
        assert tokens.shape == (2, 16, 3)
