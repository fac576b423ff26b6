"""Mimi on a tiny random configuration: streaming equals whole, and whole equals transformers' own."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from semaphone.codec.base import Codec
from semaphone.errors import InputError

pytest.importorskip("transformers")

from transformers import MimiConfig, MimiModel

from semaphone.codec.mimi import MimiCodec, fingerprint

CHUNK = 16  # samples: 4 * 2 for the convolutions, 2 for the downsampling


def tiny_model(seed: int = 0, **changes: Any) -> Any:
    torch.manual_seed(seed)
    facts: dict[str, Any] = {
        "sampling_rate": 1600,
        "hidden_size": 16,
        "num_filters": 4,
        "upsampling_ratios": [4, 2],
        "codebook_size": 64,
        "codebook_dim": 8,
        "vector_quantization_hidden_dimension": 8,
        "num_quantizers": 6,
        "upsample_groups": 16,
        "num_hidden_layers": 2,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "sliding_window": 5,
        "layer_scale_initial_scale": 0.5,
    }
    model = MimiModel(MimiConfig(**facts | changes)).eval()
    for name, value in model.named_buffers():
        if name.endswith("embed_sum"):
            value.normal_()
    return model


@pytest.fixture(scope="module")
def codec() -> MimiCodec:
    return MimiCodec(tiny_model(), num_codebooks=6)


def speech(chunks: int, batch: int = 2, seed: int = 1) -> torch.Tensor:
    return torch.randn(batch, chunks * CHUNK, generator=torch.Generator().manual_seed(seed))


def tokens(chunks: int, batch: int = 2, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, 64, (batch, 6, chunks), generator=torch.Generator().manual_seed(seed))


def test_follows_the_protocol(codec):
    assert isinstance(codec, Codec)
    assert codec.info.chunk_samples == CHUNK
    assert codec.info.num_codebooks == 6
    assert codec.info.bits_per_token == 6


@pytest.mark.parametrize(
    "changes", [{}, {"use_conv_shortcut": True, "num_residual_layers": 2}, {"pad_mode": "replicate"}]
)
def test_whole_equals_transformers(changes):
    model = tiny_model(**changes)
    codec = MimiCodec(model, num_codebooks=6)
    x = speech(20)
    own = codec.encode(x)
    theirs = model.encode(x[:, None]).audio_codes
    assert torch.equal(own.tokens, theirs)
    torch.testing.assert_close(
        codec.decode(theirs).speech, model.decode(theirs).audio_values[:, 0], atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("sizes", [[1] * 20, [3, 1, 7, 9], [19, 1]])
def test_chunk_by_chunk_equals_whole(codec, sizes):
    x = speech(20)
    whole = codec.encode(x)
    state, parts, latents = None, [], []
    for size, end in zip(sizes, itertools.accumulate(sizes), strict=True):
        encoded = codec.encode(x[:, (end - size) * CHUNK : end * CHUNK], state)
        state = encoded.state
        parts.append(encoded.tokens)
        latents.append(encoded.latents)
    torch.testing.assert_close(torch.cat(latents, 2), whole.latents, atol=1e-4, rtol=1e-4)
    assert torch.equal(torch.cat(parts, 2), whole.tokens)

    state, sound = None, []
    for size, end in zip(sizes, itertools.accumulate(sizes), strict=True):
        decoded = codec.decode(whole.tokens[:, :, end - size : end], state)
        state = decoded.state
        sound.append(decoded.speech)
    torch.testing.assert_close(torch.cat(sound, 1), codec.decode(whole.tokens).speech, atol=1e-4, rtol=1e-4)


def test_long_calls_are_cut_into_blocks(codec, monkeypatch):
    x = speech(20)
    whole = codec.encode(x)
    sound = codec.decode(whole.tokens, weight=torch.full(whole.tokens.shape, 0.5)).speech
    monkeypatch.setattr("semaphone.codec.mimi.BLOCK", 3)
    again = codec.encode(x)
    assert torch.equal(again.tokens, whole.tokens)
    cut = codec.decode(whole.tokens, weight=torch.full(whole.tokens.shape, 0.5)).speech
    torch.testing.assert_close(cut, sound, atol=1e-4, rtol=1e-4)


def test_ragged_streams_share_a_batch(codec):
    """Three streams that step at random and begin at different times sound as each of them alone."""
    x, t = speech(12, batch=3), tokens(12, batch=3)
    plan = torch.rand(40, 3, generator=torch.Generator().manual_seed(5)) < torch.tensor([0.9, 0.5, 0.4])
    plan[:4, 2] = False
    done = [0, 0, 0]
    encoder: Any = None
    decoder: Any = None
    latents: list[list[torch.Tensor]] = [[], [], []]
    sound: list[list[torch.Tensor]] = [[], [], []]
    for row in plan:
        step = row & (torch.tensor(done) < 12)
        at = torch.tensor(done).clamp(max=11)
        piece = torch.stack([x[b, at[b] * CHUNK : (at[b] + 1) * CHUNK] for b in range(3)])
        token = torch.stack([t[b, :, at[b]] for b in range(3)])[..., None]
        encoded = codec.encode(piece, encoder, stepping=step)
        decoded = codec.decode(token, decoder, stepping=step)
        encoder, decoder = encoded.state, decoded.state
        for b in range(3):
            if step[b]:
                latents[b].append(encoded.latents[b])
                sound[b].append(decoded.speech[b])
                done[b] += 1
            else:
                assert not decoded.speech[b].any()
    assert min(done) > 6
    for b, n in enumerate(done):
        alone = codec.encode(x[b : b + 1, : n * CHUNK]).latents[0]
        torch.testing.assert_close(torch.cat(latents[b], 1), alone, atol=1e-4, rtol=1e-4)
        alone = codec.decode(t[b : b + 1, :, :n]).speech[0]
        torch.testing.assert_close(torch.cat(sound[b]), alone, atol=1e-4, rtol=1e-4)


def test_a_place_in_the_batch_can_be_given_to_a_new_stream(codec):
    x, t = speech(6), tokens(6)
    fresh = torch.tensor([False, True])
    encoder = codec.encode(speech(9, seed=3)).state.restarted(fresh)
    decoder = codec.decode(tokens(9, seed=3)).state.restarted(fresh)
    torch.testing.assert_close(codec.encode(x, encoder).latents[1], codec.encode(x).latents[1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(codec.decode(t, decoder).speech[1], codec.decode(t).speech[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("count", range(1, 7))
def test_any_number_of_leading_codebooks(codec, count):
    x = speech(8)
    encoded = codec.encode(x, num_codebooks=count)
    assert torch.equal(encoded.tokens, codec.encode(x).tokens[:, :count])
    sound = codec.decode(encoded.tokens).speech
    theirs = codec.model.decode(encoded.tokens).audio_values[:, 0]
    torch.testing.assert_close(sound, theirs, atol=1e-4, rtol=1e-4)


def test_only_the_codebooks_asked_for_are_computed(codec, monkeypatch):
    used: list[int] = []

    def watched(i: int, encode: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
        def run(x: torch.Tensor) -> torch.Tensor:
            used.append(i)
            return encode(x)

        return run

    quantizer = codec.model.quantizer
    books = [*quantizer.semantic_residual_vector_quantizer.layers, *quantizer.acoustic_residual_vector_quantizer.layers]
    for i, layer in enumerate(books):
        monkeypatch.setattr(layer.codebook, "encode", watched(i, layer.codebook.encode))
    codec.encode(speech(2), num_codebooks=3)
    assert used == [0, 1, 2]


def test_weight_scales_embeddings(codec):
    t = tokens(6)
    weight = torch.ones(t.shape)
    torch.testing.assert_close(codec.decode(t, weight=weight).speech, codec.decode(t).speech)
    weight[:, 3:] = 0
    torch.testing.assert_close(
        codec.decode(t, weight=weight).speech, codec.decode(t[:, :3]).speech, atol=1e-4, rtol=1e-4
    )


def test_entries_enter_the_sum_as_tokens_do(codec):
    """Half of a token's entry given as such is the token with half its weight."""
    t, quantizer = tokens(6), codec.model.quantizer
    layers = [
        *quantizer.semantic_residual_vector_quantizer.layers[: quantizer.num_semantic_quantizers],
        *quantizer.acoustic_residual_vector_quantizer.layers,
    ]
    entries = torch.stack([layer.codebook.decode(t[:, k]) for k, layer in enumerate(layers[: t.shape[1]])], 1)
    half = torch.full(t.shape, 0.5)
    given = codec.decode(t, weight=0 * half, entries=0.5 * entries).speech
    torch.testing.assert_close(given, codec.decode(t, weight=half).speech, atol=1e-4, rtol=1e-4)


def test_gradients_reach_the_weight(codec):
    weight = torch.ones(2, 6, 4, requires_grad=True)
    codec.decode(tokens(4), weight=weight).speech.square().sum().backward()
    assert weight.grad is not None
    assert weight.grad.abs().min() > 0


def _numbers(state: Any) -> int:
    return sum(t.numel() for t in (*state.tails, *state.window.keys, *state.window.values))


def test_memory_is_bounded(codec):
    encoder: Any = None
    decoder: Any = None
    sizes = []
    for n in range(60):
        encoder = codec.encode(speech(1, seed=n), encoder).state
        decoder = codec.decode(tokens(1, seed=n), decoder).state
        sizes.append(_numbers(encoder) + _numbers(decoder))
    assert len(set(sizes[5:])) == 1
    assert all(k.shape[2] == 4 for k in encoder.window.keys)  # the window minus one


def test_an_hour_later_it_sounds_the_same(codec):
    """Rotary positions are relative: a state that is an hour older (at 25 Hz) gives the same output."""
    t = tokens(4)
    state = codec.decode(tokens(9, seed=2)).state
    late = replace(state, window=replace(state.window, position=state.window.position + 90_000))
    keys = []
    for key in state.window.keys:  # what the cache would hold: the same keys, turned by 90 000 steps
        angle = 90_000 * codec.model.decoder_transformer.rotary_emb.inv_freq.double()
        cos, sin = (torch.cat([f(angle)] * 2).float() for f in (torch.cos, torch.sin))
        left, right = key.chunk(2, -1)
        keys.append(key * cos + torch.cat([-right, left], -1) * sin)
    late = replace(late, window=replace(late.window, keys=tuple(keys)))
    torch.testing.assert_close(codec.decode(t, late).speech, codec.decode(t, state).speech, atol=1e-4, rtol=1e-4)


def test_fingerprint_follows_weights_and_configuration():
    same = fingerprint(tiny_model())
    assert same == fingerprint(tiny_model())
    assert same != fingerprint(tiny_model(seed=1))
    assert same != fingerprint(tiny_model(sliding_window=6))
    codec = MimiCodec(tiny_model(), 2)
    assert codec.info.fingerprint == same == codec.with_codebooks(5).info.fingerprint


def test_loads_from_a_folder(tmp_path, codec):
    codec.model.save_pretrained(tmp_path)
    loaded = MimiCodec.from_pretrained(tmp_path, num_codebooks=6)
    assert loaded.info == codec.info
    assert torch.equal(loaded.encode(speech(3)).tokens, codec.encode(speech(3)).tokens)


@pytest.mark.parametrize("source", ["no/such-mimi", "/no/such/folder"])
def test_absent_weights_give_one_sentence(source):
    with pytest.raises(InputError, match=r"Mimi could not be loaded from .*such.*folder"):
        MimiCodec.from_pretrained(source)


def test_other_weights_are_refused(tmp_path, codec):
    from safetensors.torch import load_file, save_file

    codec.model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop("decoder.layers.0.conv.weight")
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="do not fit Mimi"):
        MimiCodec.from_pretrained(tmp_path)


def test_refuses_what_it_cannot_do(codec):
    with pytest.raises(InputError, match="not causal"):
        MimiCodec(tiny_model(use_causal_conv=False))
    with pytest.raises(InputError, match="1 to 6 codebooks, not 7"):
        MimiCodec(tiny_model(), 7)
    with pytest.raises(ValueError, match="whole number of chunks"):
        codec.encode(torch.zeros(1, CHUNK + 1))
    with pytest.raises(ValueError, match="1 to 6"):
        codec.encode(speech(1), num_codebooks=0)
    with pytest.raises(ValueError, match="1 to 6"):
        codec.decode(torch.zeros(1, 7, 1, dtype=torch.long))
    with pytest.raises(ValueError, match="0 to 63"):
        codec.decode(torch.full((1, 1, 1), 64))
    with pytest.raises(ValueError, match="2 streams, not 1"):
        codec.decode(torch.zeros(1, 1, 1, dtype=torch.long), codec.decode(tokens(1)).state)
