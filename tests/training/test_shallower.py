from dataclasses import replace

import pytest
import torch
from tests.codec.tiny import TINY

from semaphone.codec.nano import NanoModel
from semaphone.errors import InputError
from semaphone.training.shallower import shallower


def test_blocks_are_kept_evenly_and_everything_else_whole():
    deep = replace(TINY, decoder_blocks=(3, 2, 2, 5))
    weights = NanoModel(deep).state_dict()
    config = replace(TINY, decoder_blocks=(1, 1, 2, 3))
    found = shallower(weights, config)
    NanoModel(config).load_state_dict(found)
    for new, old in ((0, 0), (1, 1), (2, 4), (3, 5), (4, 7), (5, 8), (6, 9)):  # convolution, 1, up, 1, up, 2
        for name in (n for n in found if n.startswith(f"decoder.trunk.blocks.{new}.")):
            assert torch.equal(found[name], weights[name.replace(f"blocks.{new}.", f"blocks.{old}.", 1)]), name
    assert torch.equal(found["decoder.shape.blocks.1.widen.weight"], weights["decoder.shape.blocks.2.widen.weight"])
    assert torch.equal(found["decoder.shape.blocks.3.module.weight"], weights["decoder.shape.blocks.5.module.weight"])
    assert torch.equal(found["encoder.last.weight"], weights["encoder.last.weight"])


def test_blocks_cannot_be_added():
    weights = NanoModel(TINY).state_dict()
    with pytest.raises(InputError, match="2 are asked for"):
        shallower(weights, replace(TINY, decoder_blocks=(1, 1, 1, 2)))
