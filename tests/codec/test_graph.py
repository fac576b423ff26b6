import pytest
import torch
from torch import nn

from semaphone.codec.graph import CompiledChain, compiled
from semaphone.codec.layers import CausalConv, Chain, ConvNeXt, Pointwise, Upsample, freeze

RANGE = (-6.0, 6.0)


def chain(*blocks: nn.Module) -> Chain:
    """A chain with random weights, whose products are in 8 bits."""
    torch.manual_seed(0)
    found = Chain(*blocks).eval().requires_grad_(False)
    for weight in found.parameters():
        weight.copy_(0.3 * torch.randn_like(weight))
    freeze(found, {name: RANGE for name, _ in found.named_modules()})
    return found


BLOCKS = {
    "convolution": lambda: (CausalConv(6, 10, 3),),
    "stride": lambda: (CausalConv(6, 10, 4, stride=2), CausalConv(10, 5, 8, stride=4)),
    "ConvNeXt": lambda: (ConvNeXt(6), ConvNeXt(6, kernel=5)),
    "up": lambda: (Upsample(6, 8, 4), Upsample(8, 5, 2)),
    "norm": lambda: (Pointwise(nn.LayerNorm(6)),),
    "all": lambda: (CausalConv(6, 8, 3), ConvNeXt(8), CausalConv(8, 12, 4, stride=2), Upsample(12, 5, 2), ConvNeXt(5)),
}


def in_pieces(block, x, sizes):
    state, parts = None, []
    for piece in x.split(sizes, 1):
        y, state = block(piece, state)
        parts.append(y)
    return torch.cat(parts, 1)


@pytest.mark.parametrize("name", BLOCKS)
def test_is_the_chain(name):
    x = torch.randn(2, 16, 6)
    torch.manual_seed(0)
    whole, _ = chain(*BLOCKS[name]())(x)
    graph = compiled(chain(*BLOCKS[name]()))
    assert isinstance(graph, CompiledChain)
    made, _ = graph(x)
    assert made.shape == whole.shape
    # A number halfway between two steps may be rounded to either.
    assert (made - whole).abs().max() < 0.05 * whole.abs().max()
    assert (made - whole).abs().mean() < 0.002 * whole.abs().max()


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("sizes", [[8, 8], [8, 16, 8]])
def test_pieces_give_exactly_the_whole(name, sizes):
    graph = compiled(chain(*BLOCKS[name]()))
    x = torch.randn(2, sum(sizes), 6)
    assert torch.equal(in_pieces(graph, x, sizes), graph(x)[0])


def test_streams_of_a_batch_do_not_mix():
    graph = compiled(chain(*BLOCKS["all"]()))
    x = torch.randn(3, 8, 6)
    assert torch.equal(graph(x)[0][1:2], graph(x[1:2])[0])


def test_a_state_is_a_value():
    graph = compiled(chain(*BLOCKS["all"]()))
    _, state = graph(torch.randn(1, 8, 6))
    before = [part.copy() for part in state]
    x = torch.randn(1, 8, 6)
    first = graph(x, state)[0]
    assert torch.equal(graph(x, state)[0], first)
    assert all((a == b).all() for a, b in zip(before, state, strict=True))


def test_chains_that_are_not_in_8_bits_stay_as_they_are():
    torch.manual_seed(0)
    plain = Chain(CausalConv(6, 10, 3), ConvNeXt(10)).eval().requires_grad_(False)
    assert compiled(plain) is plain
    freeze(plain, {"blocks.0": RANGE, "blocks.1.widen": RANGE})
    assert compiled(plain) is plain
    odd = chain(Pointwise(nn.Identity()))
    assert compiled(odd) is odd


def test_the_weights_stay_to_be_known_by():
    graph = compiled(chain(*BLOCKS["all"]()))
    assert "chain.blocks.1.widen.weight" in graph.state_dict()
