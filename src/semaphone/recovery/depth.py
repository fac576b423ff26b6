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

from semaphone.codec.attention import attend


def per_codebook(module: Any, x: Tensor, first: int) -> Tensor:
    """x [B, n, in], each position times the weights of its own codebook, from `first` on → [B, n, out]."""
    weights = module if isinstance(module, Weights) else Weights(module)
    base = weights.base
    if base.dim() == 2:
        return F.linear(x, base)
    part = slice(first, first + x.shape[1])
    y = torch.bmm(x.transpose(0, 1), base[part].transpose(1, 2))
    for a, b, scale in weights.added:
        low = torch.bmm(x.transpose(0, 1).to(a.dtype), a[part].transpose(1, 2))
        y = y + (scale * torch.bmm(low, b[part].transpose(1, 2))).to(y.dtype)
    return y.transpose(0, 1)


class Weights:
    """The weights of one product for all codebooks, and what low-rank adapters add to them (eq 18).

    Adapted weights W + BA are never made: x is multiplied by A and B apart.
    """

    def __init__(self, module: Any) -> None:
        """`module`: transformers' `MoshiFlexibleLinear`, a plain linear layer, or peft's wrapper of the former."""
        self.added: list[tuple[Tensor, Tensor, float]] = []  # A [N_Q, r, in], B [N_Q, out, r], scale
        if hasattr(module, "base_layer"):
            self.base: Tensor = module.get_base_layer().weight  # [N_Q, out, in] or [out, in]
            if not module.disable_adapters and not module.merged:
                self.added = [_factors(module, name) for name in module.active_adapters]
        else:
            self.base = module.weight

    def times(self, x: Tensor, k: int) -> Tensor:
        """x [B, in] times the weights of codebook k → [B, out]."""
        y = F.linear(x, self.base[k] if self.base.dim() == 3 else self.base)
        for a, b, scale in self.added:
            y = y + (scale * F.linear(F.linear(x.to(a.dtype), a[k]), b[k])).to(y.dtype)
        return y


def _factors(module: Any, adapter: str) -> tuple[Tensor, Tensor, float]:
    """peft keeps A as [N_Q * r, in] and B as [out, r * N_Q], the codebook running fastest in the latter."""
    count = len(module.get_base_layer().weight)
    a, b = module.lora_A[adapter].weight, module.lora_B[adapter].weight
    a = a.reshape(count, -1, a.shape[1])
    return a, b.reshape(len(b), -1, count).permute(2, 0, 1), module.scaling[adapter]


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
    y = attend(query, key, value, None, attention.scaling, causal=True)
    return per_codebook(attention.o_proj.linear, y.transpose(1, 2).reshape(batch, count, -1), 0)


def _gate(mlp: Any, x: Tensor) -> Tensor:
    a, b = per_codebook(mlp.fc1, x, 0).chunk(2, -1)
    return per_codebook(mlp.fc2, mlp.activation_fn(a) * b, 0)


def run(depth: Any, ids: Tensor, text: Tensor, context: Tensor) -> Tensor:
    """Whole chunks, teacher-forced: ids [M, N_Q], text [M], context [M, width] → hidden [M, N_Q, depth width].

    Position k is given the token before it (the text token at first) and the context.
    """
    count = ids.shape[1]
    embed = embed_each if ids.is_cpu or len(depth.embed_tokens) < 2 else embed_together
    x = embed(depth, ids, text) + per_codebook(depth.input_projections, context[:, None].expand(-1, count, -1), 0)
    for layer in depth.layers:
        x = x + _attention(layer.self_attn, rms_norm(layer.input_layernorm, x))
        x = x + _gate(layer.mlp, rms_norm(layer.post_attention_layernorm, x))
    return x


def embed_each(depth: Any, ids: Tensor, text: Tensor) -> Tensor:
    """What each position is given of the token before it: ids [M, N_Q], text [M] → [M, N_Q, depth width]."""
    rows = [depth.text_embed_tokens(text), *(table(ids[:, k]) for k, table in enumerate(depth.embed_tokens))]
    return torch.stack(rows, 1)


def embed_together(depth: Any, ids: Tensor, text: Tensor) -> Tensor:
    """The same in one look-up: a GPU would wait for the beginning of each."""
    tables = depth.embed_tokens
    weight = torch.stack([table.weight for table in tables])  # [N_Q - 1, K + 1, depth width]
    begin = torch.arange(len(tables), device=ids.device) * weight.shape[1]
    rows = F.embedding(ids[:, : len(tables)] + begin, weight.flatten(0, 1))
    return torch.cat([depth.text_embed_tokens(text)[:, None], rows], 1)


class Stepper:
    """One chunk of B streams, position by position; it lives as long as the chunk."""

    def __init__(self, depth: Any, context: Tensor, text: Tensor) -> None:
        """context [B, width], text [B]."""
        self._depth, self._context, self._text = depth, context, text
        self._position = 0
        self._layers = [_Layer(layer) for layer in depth.layers]
        self._project, self._head = Weights(depth.input_projections), Weights(depth.lm_heads)

    def step(self, before: Tensor | None) -> Tensor:
        """The next position, given the token before it [B] (`None` at the first one) → hidden [B, depth width]."""
        k, depth = self._position, self._depth
        if before is None:
            token = F.embedding(self._text, depth.text_embed_tokens.weight)
        else:
            token = F.embedding(before, depth.embed_tokens[k - 1].weight)
        x = token + self._project.times(self._context, k)
        for layer in self._layers:
            x = layer.step(x, k)
        self._position += 1
        return x

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [B, K] of the codebook that was stepped last."""
        return self._head.times(hidden, self._position - 1)


class _Layer:
    """A depth layer with what it remembers of the chunk. Its parts are looked up once, not at every position."""

    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        norms = (layer.input_layernorm, layer.post_attention_layernorm)
        self._norms = [(n.weight, (len(n.weight),), n.eps) for n in norms]
        self._query, self._key, self._value, self._out = (
            Weights(p.linear) for p in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)
        )
        self._widen, self._narrow, self._activation = Weights(mlp.fc1), Weights(mlp.fc2), mlp.activation_fn
        self._width, self._scale = attention.head_dim, attention.scaling
        self._past: tuple[Tensor, Tensor] | None = None  # keys and values, [B, heads, positions, head_dim]

    def step(self, x: Tensor, k: int) -> Tensor:
        """Position k: x [B, depth width] → [B, depth width]."""
        (weight, size, eps), (weight2, size2, eps2) = self._norms
        h = F.rms_norm(x, size, weight, eps)
        shape = (len(x), -1, 1, self._width)
        query, key, value = (w.times(h, k).view(shape) for w in (self._query, self._key, self._value))
        if self._past is not None:
            key, value = torch.cat((self._past[0], key), 2), torch.cat((self._past[1], value), 2)
        self._past = (key, value)
        y = attend(query, key, value, None, self._scale, causal=False)
        x = x + self._out.times(y.flatten(1), k)
        a, b = self._widen.times(F.rms_norm(x, size2, weight2, eps2), k).chunk(2, -1)
        return x + self._narrow.times(self._activation(a) * b, k)


def head(depth: Any, hidden: Tensor, codebook: int) -> Tensor:
    """Logits of one codebook: hidden [M, depth width] → [M, K]."""
    return Weights(depth.lm_heads).times(hidden, codebook)
