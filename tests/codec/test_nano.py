import pytest
import torch
from tests.codec.tiny import tiny_codec, tiny_model

from semaphone.codec.base import Codec
from semaphone.codec.nano import NanoCodec, NanoConfig, fingerprint
from semaphone.codec.nano_weights import load_nano, read_nano, save_nano
from semaphone.codec.ranges import met_ranges
from semaphone.codec.registry import load_codec
from semaphone.errors import InputError


@pytest.fixture(scope="module")
def codec() -> NanoCodec:
    return tiny_codec()


@pytest.fixture(scope="module")
def speech() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    time = torch.arange(12 * 1280) / 16000
    return 0.2 * torch.sin(2 * torch.pi * 180 * time) + 0.05 * torch.randn(2, 12 * 1280, generator=generator)


def test_info(codec):
    assert isinstance(codec, Codec)
    assert codec.info.chunk_samples == 1280
    assert codec.info.bits_per_token == 5
    assert codec.info.delay == 320


def test_shapes(codec, speech):
    encoded = codec.encode(speech)
    assert encoded.tokens.shape == (2, 16, 12)
    assert encoded.latents.shape == (2, 16, 12)
    assert codec.decode(encoded.tokens).speech.shape == (2, 12 * 1280)


@pytest.mark.parametrize("pieces", [[1] * 12, [3, 1, 8], [5, 7]])
def test_encoding_chunk_by_chunk_is_encoding_at_once(codec, speech, pieces):
    whole = codec.encode(speech)
    state, tokens, latents = None, [], []
    for piece in speech.split([1280 * n for n in pieces], 1):
        part = codec.encode(piece, state)
        state = part.state
        tokens.append(part.tokens)
        latents.append(part.latents)
    torch.testing.assert_close(torch.cat(latents, 2), whole.latents, atol=1e-4, rtol=0)
    assert torch.equal(torch.cat(tokens, 2), whole.tokens)


@pytest.mark.parametrize("pieces", [[1] * 12, [3, 1, 8], [5, 7]])
def test_decoding_chunk_by_chunk_is_decoding_at_once(codec, speech, pieces):
    tokens = codec.encode(speech).tokens
    whole = codec.decode(tokens).speech
    state, parts = None, []
    for piece in tokens.split(pieces, 2):
        decoded = codec.decode(piece, state)
        state = decoded.state
        parts.append(decoded.speech)
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-4, rtol=0)


def test_streams_of_a_batch_do_not_mix(codec, speech):
    both = codec.encode(speech)
    for row in range(2):
        torch.testing.assert_close(codec.encode(speech[row : row + 1]).latents, both.latents[row : row + 1])


def test_encoder_and_decoder_are_causal(codec, speech):
    changed = speech.clone()
    changed[:, 6 * 1280 :] *= -0.5
    before, after = codec.encode(speech), codec.encode(changed)
    torch.testing.assert_close(before.latents[..., :6], after.latents[..., :6])
    tokens = before.tokens.clone()
    tokens[..., 6:] = (tokens[..., 6:] + 1) % 32
    a, b = codec.decode(before.tokens).speech, codec.decode(tokens).speech
    torch.testing.assert_close(a[:, : 6 * 1280], b[:, : 6 * 1280])
    assert not torch.allclose(a[:, 6 * 1280 :], b[:, 6 * 1280 :])


def test_leading_codebooks_alone(codec, speech):
    encoded = codec.encode(speech)
    few = codec.encode(speech, num_codebooks=3)
    assert torch.equal(few.tokens, encoded.tokens[:, :3])
    weight = torch.zeros(2, 16, 12)
    weight[:, :3] = 1
    torch.testing.assert_close(
        codec.decode(few.tokens).speech, codec.decode(encoded.tokens, weight=weight).speech, atol=1e-5, rtol=0
    )


def test_entries_enter_the_sum_as_tokens_do(codec, speech):
    """Half of a token's entry given as such is the token with half its weight."""
    tokens = codec.encode(speech).tokens
    half = torch.full(tokens.shape, 0.5)
    entries = torch.stack([codec.model.quantizer.book(k).entries[tokens[:, k]] for k in range(tokens.shape[1])], 1)
    given = codec.decode(tokens, weight=0 * half, entries=0.5 * entries).speech
    torch.testing.assert_close(given, codec.decode(tokens, weight=half).speech, atol=1e-5, rtol=0)


def test_wrong_shapes_are_refused(codec):
    with pytest.raises(ValueError, match="speech must be"):
        codec.encode(torch.zeros(1, 1279))
    with pytest.raises(ValueError, match="tokens must be"):
        codec.decode(torch.zeros(1, 17, 1, dtype=torch.long))


@pytest.mark.parametrize("values", [{"window": 500}, {"window": 160}, {"num_codebooks": 0}, {"codebook_size": 1}])
def test_configurations_are_checked(values):
    with pytest.raises(ValueError, match="must be"):
        NanoConfig(**values)


def test_weights_survive_a_file(tmp_path, speech):
    model = tiny_model(3)
    save_nano(model, tmp_path / "a.safetensors", {"steps": "1"})
    codec, again = load_codec(str(tmp_path / "a.safetensors")), load_nano(tmp_path / "a.safetensors")
    assert codec.info == again.info == NanoCodec(model).info
    assert torch.equal(codec.encode(speech).tokens, again.encode(speech).tokens)
    assert tiny_codec(4).info.fingerprint != codec.info.fingerprint


def test_a_codec_leaves_the_model_it_was_made_of_alone(speech):
    model = tiny_model(3).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    codec = NanoCodec(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    latents = model.encoder(speech)[0]
    assert torch.allclose(codec.encode(speech).latents.transpose(1, 2), latents, atol=1e-5)
    tokens = codec.encode(speech).tokens
    entries = model.quantizer.entries(tokens)
    made = model.decoder(model.quantizer.latents(entries), entries).speech
    # Its pitch is rounded more finely, and phases drift apart with time.
    assert (codec.decode(tokens).speech - made).norm() < 2e-3 * made.norm()


@pytest.mark.parametrize("met", ["5", "[1]", '{"encoder.last": 3}', '{"encoder.last": [2, 1]}', '{"a": [NaN, 1]}', "{"])
def test_ranges_that_make_no_sense_are_refused(tmp_path, met):
    save_nano(tiny_model(3), tmp_path / "a.safetensors", {"met": met})
    with pytest.raises(InputError, match="holds no nano codec"):
        load_nano(tmp_path / "a.safetensors")


def test_foreign_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="holds no nano codec"):
        load_nano(tmp_path / "missing.safetensors")
    (tmp_path / "text.safetensors").write_text("hello" * 100)
    with pytest.raises(InputError, match="holds no nano codec"):
        load_nano(tmp_path / "text.safetensors")
    with pytest.raises(InputError, match="Unknown codec 'opus'"):
        load_codec("opus")


def test_what_computes_in_eight_bits_is_stored_in_eight_bits(tmp_path):
    model = tiny_model()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        speech = 0.1 * torch.randn(2, 10 * 1280)
    met = met_ranges(model, [speech])
    save_nano(model, tmp_path / "half.safetensors", {})
    model = read_nano(tmp_path / "half.safetensors")[0]
    save_nano(model, tmp_path / "eight.safetensors", {}, met)
    assert (tmp_path / "eight.safetensors").stat().st_size < 0.75 * (tmp_path / "half.safetensors").stat().st_size
    kept, ranges = read_nano(tmp_path / "eight.safetensors")
    assert ranges.keys() == met.keys()
    ours, stored = NanoCodec(model, met=ranges), NanoCodec(kept, met=ranges)
    # Layers computed in these steps before; only the codebooks are rounded anew.
    torch.testing.assert_close(stored.encode(speech).latents, ours.encode(speech).latents, rtol=0, atol=1e-6)
    for k in range(model.config.num_codebooks):
        entries = model.quantizer.book(k).entries
        largest = entries.abs().amax(1, keepdim=True)
        assert ((entries - kept.quantizer.book(k).entries).abs() <= largest / 254 + 1e-6).all()
    save_nano(kept, tmp_path / "again.safetensors", {}, ranges)
    assert fingerprint(read_nano(tmp_path / "again.safetensors")[0]) == fingerprint(kept)
