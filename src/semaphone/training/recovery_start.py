"""Where the training of nano's recovery starts: a token is known by where its entry lies in the codec.

To a language model tokens are names. These are points, too: entries of a residual quantiser, whose sum is the
chunk's latent. Tables that start as the entries let the first step already know which tokens are alike, and
the temporal transformer reads the quantised latent of the past instead of having to learn 2,048 names for each
of its digits.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from semaphone.errors import InputError
from semaphone.recovery.rq_transformer import RQTransformer

EMBEDDING = 0.1  # standard deviation of an embedding's numbers
HEAD = 0.05  # that of a head's
JOINED = 0.5  # that of what the temporal transformer reads


@torch.no_grad()
def start_from_entries(model: RQTransformer, entries: Tensor) -> None:
    """Set the tables, the two layers that read them, and the heads; everything else stays as it is.

    Args:
        model: a fresh nano (it has a `token_width`); changed in place.
        entries: [N_Q, K, C] of the codec's codebooks, in a space where those of a chunk add up to its latent.
    """
    c = model.config
    books = entries - entries.mean(1, keepdim=True)  # no token, all zeros, lies in the middle
    spread = books.square().mean((1, 2)).sqrt().clamp(min=1e-8)  # [N_Q]
    unit = books / spread[:, None, None]
    axes = torch.linalg.svd(books.flatten(0, 1), full_matrices=False)[2]  # [C, C], the widest direction first
    deviation = (books.flatten(0, 1) @ axes.T).square().sum(0).div(c.codebook_size).sqrt().clamp(min=1e-8)
    _tables(model, unit, axes)
    width = min(c.token_width, len(axes))
    mix = torch.linalg.qr(torch.randn(c.width, width))[0] * (c.width / width) ** 0.5  # [width, token_width]
    for layer in (model.join, model.see):
        if layer is None:
            continue
        for k in range(c.num_codebooks):
            block = layer.weight[:, k * c.token_width : (k + 1) * c.token_width]
            block.zero_()
            block[:, :width] = JOINED * mix * (spread[k] / EMBEDDING / deviation[:width])


def start_from_model(model: RQTransformer, other: RQTransformer) -> None:
    """Set a fresh model's weights to those of another of the same sizes; layers that the other has not stay fresh.

    Raises InputError if the sizes differ, or the other one has more.
    """
    same = replace(other.config, sees_coming=model.config.sees_coming) == model.config
    if not same or (other.config.sees_coming and not model.config.sees_coming):
        raise InputError("The recovery model to begin with has other sizes, or is of another codec.")
    model.load_state_dict(other.state_dict(), strict=False)


def _tables(model: RQTransformer, unit: Tensor, axes: Tensor) -> None:
    """Embeddings and heads: the widest directions of the entries first, the rest as it was drawn."""
    c, inner = model.config, model.depth_decoder
    width, depth = min(c.token_width, len(axes)), min(c.depth_width - 1, len(axes))
    turned = unit @ axes.T  # [N_Q, K, C]
    table = model.embed_tokens[0].weight.view(c.num_codebooks, c.codebook_size + 1, c.token_width)
    table.zero_()
    table[:, :-1, :width] = EMBEDDING * turned[..., :width]
    for k, embedding in enumerate(inner.embed_tokens):
        embedding.weight[: c.codebook_size, :depth] = EMBEDDING * turned[k, :, :depth]
    heads = inner.lm_heads.weight  # [N_Q, K, depth width]
    heads[..., :depth] = HEAD * turned[..., :depth]
    # Nearness to a point is the product with it less half of its square, which has a column of its own.
    square = turned.square().sum(-1)
    heads[..., depth] = HEAD * (square - square.mean(1, keepdim=True)) / square.std(1, keepdim=True).clamp(min=1e-8)
