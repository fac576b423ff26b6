"""A start from the codec's entries: tokens that are alike look alike, and a chunk is the sum of its entries."""

from __future__ import annotations

import torch

from semaphone.recovery.rq_config import RQTransformerConfig
from semaphone.recovery.rq_state import HEARD
from semaphone.recovery.rq_transformer import RQTransformer
from semaphone.training.recovery_start import start_from_entries

CONFIG = RQTransformerConfig(
    num_codebooks=3,
    codebook_size=8,
    width=32,
    layers=1,
    heads=2,
    ffn=32,
    depth_width=8,
    depth_layers=1,
    depth_heads=2,
    depth_ffn=16,
    token_width=6,
)


def started(entries: torch.Tensor) -> RQTransformer:
    torch.manual_seed(1)
    model = RQTransformer(CONFIG)
    start_from_entries(model, entries)
    return model.eval()


def test_chunks_with_the_same_latent_are_read_alike():
    entries = torch.randn(3, 8, 6) * torch.tensor([4.0, 2.0, 1.0])[:, None, None]
    entries[1, 1], entries[2, 1] = entries[1, 0] - 1.0, entries[2, 0] + 1.0  # the same sum as entries 0 and 0
    model = started(entries)
    ids = torch.tensor([[[2, 0, 0], [2, 1, 1], [3, 0, 0]]])
    text = torch.zeros(1, 3, dtype=torch.long)
    read = model.embed_past(ids, torch.full_like(ids, HEARD), text, torch.arange(3)[None])
    assert torch.allclose(read[0, 0], read[0, 1], atol=1e-4)
    assert not torch.allclose(read[0, 0], read[0, 2], atol=0.1)


def test_no_token_reads_as_nothing_and_heads_know_neighbours():
    entries = torch.randn(3, 8, 6)
    entries[:, 1] = entries[:, 0] + 0.01
    model = started(entries)
    table = model.embed_tokens[0].weight.view(3, 9, 6)
    assert not table[:, 8].any()
    hidden = torch.randn(50, 8)
    for k in range(3):
        logits = hidden @ model.depth_decoder.lm_heads.weight[k].T
        near = (logits[:, 0] - logits[:, 1]).abs().mean()
        far = (logits[:, 0] - logits[:, 2:].mean(1)).abs().mean()
        assert near < 0.6 * far


def test_narrow_entries_fit():
    model = started(torch.randn(3, 8, 2))
    assert torch.isfinite(model.embed_tokens[0].weight).all()
