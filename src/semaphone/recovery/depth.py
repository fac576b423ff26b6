"""The depth transformer, driven layer by layer (LargeSC eq 15).

transformers' `MoshiDepthDecoder` holds the weights: every position of a chunk, one a codebook, has
its own. Called as a whole it gathers them anew for each token and multiplies row by row. Here whole
chunks, for training, are one batched product a layer (`run`), and a single position multiplies by
views of its weights (`Stepper`), with as few operations as it takes: on a CPU their number is what a
small model costs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def per_codebook(module: Any, x: Tensor, first: int) -> Tensor:
    """x [B, n, in], each position times the weights of its own codebook, from `first` on → [B, n, out]."""
    count = x.shape[1]
    if hasattr(module, "base_layer"):  # wrapped by an adapter, which knows what to add
        wrapped: Tensor = module(x, torch.arange(first, first + count, device=x.device))
        return wrapped
    weight: Tensor = module.weight
    if weight.dim() == 2:
        return F.linear(x, weight)
    if count == 1:
        return F.linear(x, weight[first])
    part = weight[first : first + count].transpose(1, 2)
    return torch.bmm(x.transpose(0, 1), part).transpose(0, 1)


def rms_norm(norm: Any, x: Tensor) -> Tensor:
    """A `MoshiRMSNorm` as one operation."""
    return F.rms_norm(x, x.shape[-1:], norm.weight, norm.eps)


def _attention(attention: Any, x: Tensor) -> Tensor:
    batch, count, _ = x.shape
    shape = (batch, count, -1, attention.head_dim)
    query, key, value = (
        per_codebook(p.linear, x, 0).view(shape).transpose(1, 2)
        for p in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    shared = key.shape[1] != query.shape[1]
    y = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=attention.scaling, enable_gqa=shared)
    return per_codebook(attention.o_proj.linear, y.transpose(1, 2).reshape(batch, count, -1), 0)


def _gate(mlp: Any, x: Tensor) -> Tensor:
    a, b = per_codebook(mlp.fc1, x, 0).chunk(2, -1)
    return per_codebook(mlp.fc2, mlp.activation_fn(a) * b, 0)


def run(depth: Any, ids: Tensor, text: Tensor, context: Tensor) -> Tensor:
    """Whole chunks, teacher-forced: ids [M, N_Q], text [M], context [M, width] → hidden [M, N_Q, depth width].

    Position k is given the token before it (the text token at first) and the context.
    """
    count = ids.shape[1]
    rows = [depth.text_embed_tokens(text), *(table(ids[:, k]) for k, table in enumerate(depth.embed_tokens))]
    x = torch.stack(rows, 1) + per_codebook(depth.input_projections, context[:, None].expand(-1, count, -1), 0)
    for layer in depth.layers:
        x = x + _attention(layer.self_attn, rms_norm(layer.input_layernorm, x))
        x = x + _gate(layer.mlp, rms_norm(layer.post_attention_layernorm, x))
    return x


class Stepper:
    """One chunk of B streams, position by position; it lives as long as the chunk."""

    def __init__(self, depth: Any, context: Tensor, text: Tensor) -> None:
        """context [B, width], text [B]."""
        self._depth, self._context, self._text = depth, context, text
        self._position = 0
        self._memory: list[Any] = [None] * len(depth.layers)  # keys and values so far, [B, heads, positions, head_dim]
        self._layers = [_weights(layer) for layer in depth.layers]
        self._project = _weight(depth.input_projections)

    def step(self, ids: Tensor) -> Tensor:
        """The next position, given the tokens before it in ids [B, N_Q] → hidden [B, depth width]."""
        k, depth = self._position, self._depth
        token = depth.text_embed_tokens(self._text) if k == 0 else depth.embed_tokens[k - 1](ids[:, k - 1])
        x: Tensor = token + _times(self._project, self._context, k)
        for i, (layer, weights) in enumerate(zip(depth.layers, self._layers, strict=True)):
            q, k_, v, o, fc1, fc2 = weights
            attention = layer.self_attn
            h = rms_norm(layer.input_layernorm, x)
            shape = (len(x), -1, 1, attention.head_dim)
            query, key, value = (_times(w, h, k).view(shape) for w in (q, k_, v))
            if k:
                key, value = torch.cat([self._memory[i][0], key], 2), torch.cat([self._memory[i][1], value], 2)
            self._memory[i] = (key, value)
            shared = key.shape[1] != query.shape[1]
            y = F.scaled_dot_product_attention(query, key, value, scale=attention.scaling, enable_gqa=shared)
            x = x + _times(o, y.flatten(1), k)
            a, b = _times(fc1, rms_norm(layer.post_attention_layernorm, x), k).chunk(2, -1)
            x = x + _times(fc2, layer.mlp.activation_fn(a) * b, k)
        self._position += 1
        return x


def _weight(module: Any) -> Any:
    """The weights [N_Q, out, in] of a module; the module itself if an adapter wraps it."""
    return module if hasattr(module, "base_layer") else module.weight


def _weights(layer: Any) -> list[Any]:
    a, mlp = layer.self_attn, layer.mlp
    linear = (a.q_proj.linear, a.k_proj.linear, a.v_proj.linear, a.o_proj.linear)
    return [_weight(m) for m in (*linear, mlp.fc1, mlp.fc2)]


def _times(weight: Any, x: Tensor, k: int) -> Tensor:
    """x [B, in] times the weights of position k → [B, out]."""
    if not isinstance(weight, Tensor):
        return per_codebook(weight, x[:, None], k)[:, 0]
    return F.linear(x, weight[k] if weight.dim() == 3 else weight)


def head(depth: Any, hidden: Tensor, codebook: int) -> Tensor:
    """Logits of one codebook: hidden [M, depth width] → [M, K]."""
    return _times(_weight(depth.lm_heads), hidden, codebook)
