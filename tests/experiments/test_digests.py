import torch
from tests.codec.tiny import tiny_model

from semaphone.codec.nano import NanoCodec, NanoSettings
from semaphone.codec.ranges import met_ranges
from semaphone.experiments.digests import digest_of


def test_all_that_decides_what_a_codec_makes_is_in_its_digest():
    model = tiny_model().eval()
    met = met_ranges(model, [0.1 * torch.sin(torch.arange(6 * 1280) * 0.05)[None]])
    wider = {name: (2 * low, 2 * high) for name, (low, high) in met.items()}
    codecs = [
        NanoCodec(model),
        NanoCodec(model, NanoSettings(paths=1)),
        NanoCodec(model, met=met),
        NanoCodec(model, met=wider),
        NanoCodec(tiny_model(1), met=met),
    ]
    assert len({digest_of(codec) for codec in codecs}) == len(codecs)
    assert digest_of(NanoCodec(model, met=met)) == digest_of(codecs[2])


def test_nothing_that_has_weights_has_no_digest():
    assert digest_of(object()) == ""
