"""The depth transformer, driven layer by layer (LargeSC eq 15).

transformers' `MoshiDepthDecoder` holds the weights: every position of a chunk, one a codebook, has
its own. Called as a whole it gathers them anew for each token and multiplies row by row; here a
position multiplies by a view of its weights, and a run of positions is one batched product. So a
chunk costs as many passes as it has tokens to predict, not as it has codebooks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

# Keys and values of one chunk, a pair a layer: [B, heads, positions so far, head_dim]. Gone when the chunk is done.
Memory = list[tuple[Tensor, Tensor]]


def per_codebook(module: Any, x: Tensor, first: int) -> Tensor:
    """x [B, n, in], each position times the weights of its own codebook, from `first` on → [B, n, out]."""
    count = x.shape[1]
    if not hasattr(module, "weight"):  # wrapped by an adapter: the wrapper knows what to add
        wrapped: Tensor = module(x, torch.arange(first, first + count, device=x.device))
        return wrapped
    weight: Tensor = module.weight
    if weight.dim() == 2:
        return F.linear(x, weight)
    if count == 1:
        return F.linear(x, weight[first])
    part = weight[first : first + count].transpose(1, 2)
    return torch.bmm(x.transpose(0, 1), part).transpose(0, 1)


def _attention(attention: Any, x: Tensor, first: int, past: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Any]:
    batch, count, _ = x.shape
    shape = (batch, count, -1, attention.head_dim)
    query, key, value = (
        per_codebook(p.linear, x, first).view(shape).transpose(1, 2)
        for p in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    if past is not None:
        key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
    visible = None
    if count > 1 and first > 0:
        visible = torch.ones(count, first + count, dtype=torch.bool, device=x.device).tril(first)
    y = F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=visible,
        is_causal=count > 1 and first == 0,
        scale=attention.scaling,
        enable_gqa=key.shape[1] != query.shape[1],
    )
    y = y.transpose(1, 2).reshape(batch, count, -1)
    return per_codebook(attention.o_proj.linear, y, first), (key, value)


def _gate(mlp: Any, x: Tensor, first: int) -> Tensor:
    y = per_codebook(mlp.fc1, x, first)
    a, b = y.chunk(2, -1)
    return per_codebook(mlp.fc2, mlp.activation_fn(a) * b, first)


def inputs(depth: Any, ids: Tensor, text: Tensor, context: Tensor, first: int, last: int) -> Tensor:
    """What goes in at positions first..last: the text token, then the tokens of codebooks 1, 2, ... before each.

    ids [B, N_Q], text [B], context [B, width] → [B, last - first + 1, depth width].
    """
    rows = [
        depth.text_embed_tokens(text) if k == 0 else depth.embed_tokens[k - 1](ids[:, k - 1])
        for k in range(first, last + 1)
    ]
    wide = context[:, None].expand(-1, len(rows), -1)
    return torch.stack(rows, 1) + per_codebook(depth.input_projections, wide, first)


def run(depth: Any, x: Tensor, first: int, memory: Memory) -> Tensor:
    """Positions first.. of a chunk through all layers; `memory` holds the positions before and is extended.

    x [B, n, depth width] → hidden [B, n, depth width].
    """
    for i, layer in enumerate(depth.layers):
        y, pair = _attention(layer.self_attn, layer.input_layernorm(x), first, memory[i] if first else None)
        memory[i : i + 1] = [pair]
        x = x + y
        x = x + _gate(layer.mlp, layer.post_attention_layernorm(x), first)
    return x


def head(depth: Any, hidden: Tensor, codebook: int) -> Tensor:
    """Logits of one codebook: hidden [M, depth width] → [M, K]."""
    return per_codebook(depth.lm_heads, hidden[:, None], codebook)[:, 0]
