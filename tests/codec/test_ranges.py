import torch
from tests.codec.tiny import in_blocks, tiny_model

from semaphone.codec.nano import NanoCodec
from semaphone.codec.nano_weights import load_nano, save_nano
from semaphone.codec.ranges import met_ranges


def speech():
    time = torch.arange(12 * 1280) / 16000
    return 0.2 * torch.sin(2 * torch.pi * 180 * time) + 0.05 * torch.randn(2, 12 * 1280)


def test_every_layer_is_seen_but_those_that_must_be_fine():
    torch.manual_seed(0)
    met = met_ranges(tiny_model(), [speech(), 0.1 * speech()])
    assert {"encoder.direct", "encoder.body.blocks.1.widen", "decoder.head", "quantizer.codebooks.15"} <= met.keys()
    assert not [name for name in met if "pitch" in name or "acoustic" in name or "depthwise" in name]
    assert all(low <= 0 <= high and low < high for low, high in met.values())


def test_more_speech_widens_ranges():
    torch.manual_seed(0)
    x = speech()
    few, more = met_ranges(tiny_model(), [x]), met_ranges(tiny_model(), [x, torch.zeros(1, 1280)])
    assert few.keys() == more.keys()
    assert all(more[name][0] <= few[name][0] and more[name][1] >= few[name][1] for name in few)


def test_a_codec_in_8_bits_is_near_the_one_it_was_made_of():
    torch.manual_seed(0)
    model, x = tiny_model(3).eval(), speech()
    codec, eight = NanoCodec(model), NanoCodec(model, met=met_ranges(model, [x]))
    whole = codec.encode(x)
    rounded = eight.encode(x)
    assert not torch.equal(whole.latents, rounded.latents)
    assert (whole.latents - rounded.latents).norm() < 0.05 * whole.latents.norm()
    made, again = codec.decode(whole.tokens).speech, eight.decode(whole.tokens).speech
    assert not torch.equal(made, again)
    assert codec.info == eight.info


def test_in_8_bits_chunk_by_chunk_is_exactly_the_whole():
    torch.manual_seed(0)
    model, x = tiny_model(3), speech()
    codec = NanoCodec(model, met=met_ranges(model, [x]))
    encoded = codec.encode(x)
    for chunks in (1, 5):
        tokens, heard = in_blocks(codec, x, chunks)
        assert torch.equal(tokens, encoded.tokens)
        torch.testing.assert_close(heard, codec.decode(tokens).speech, atol=1e-6, rtol=0)


def test_ranges_travel_with_the_weights(tmp_path):
    torch.manual_seed(0)
    model, x = tiny_model(3), speech()
    met = met_ranges(model, [x])
    save_nano(model, tmp_path / "a.safetensors", {}, met)
    save_nano(model, tmp_path / "b.safetensors", {})
    with_them, without = load_nano(tmp_path / "a.safetensors"), load_nano(tmp_path / "b.safetensors")
    assert with_them.model.encoder.direct.weight.dtype == torch.int8
    assert without.model.encoder.direct.weight.dtype == torch.float32
    # Weights in 8 bits are other weights: rounded.
    assert with_them.info.fingerprint != without.info.fingerprint
    assert with_them.info.fingerprint == load_nano(tmp_path / "a.safetensors").info.fingerprint


def test_a_model_keeps_its_weights_when_its_ranges_are_taken():
    model = tiny_model(3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    met_ranges(model, [speech()])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
