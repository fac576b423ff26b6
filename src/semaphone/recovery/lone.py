"""One stream on a CPU: the sums of a small model's two transformers, token by token, in numpy.

A recovered chunk is about two thousand small operations one after the other. PyTorch takes five microseconds to begin
one, numpy one, and a call has one stream: the same weights answer in a third of the time. Batches, training,
adapters and other machines take the way through PyTorch (`rq_transformer.py`, `depth.py`), which says what is right;
this is only faster, and tests hold both against each other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semaphone.codec.attention import Window

Array = NDArray[np.float32]
WIDEST = 512  # a transformer as wide as this spends its time in products, which PyTorch does as fast


def eligible(model: Any) -> bool:
    """Can this `RQTransformer` be driven here: small, float32, on the CPU, without adapters, as nano is built?"""
    from transformers.activations import ACT2FN

    silu = type(ACT2FN["silu"])
    layers = (*model.decoder.model.layers, *model.depth_decoder.layers)
    return (
        model.config.width <= WIDEST
        and all(w.dtype == torch.float32 and w.device.type == "cpu" for w in model.parameters())
        and not any(hasattr(part, "base_layer") for part in model.modules())
        and all(layer.self_attn.num_key_value_heads == layer.self_attn.num_heads for layer in layers)
        and all(isinstance(layer.mlp.activation_fn, silu) for layer in layers)
    )


def _numbers(weight: Tensor) -> Array:
    return np.ascontiguousarray(weight.detach().numpy())


def _linear(projection: Any) -> Array:
    return _numbers(projection.linear.weight if hasattr(projection, "linear") else projection.weight)


def _norm(x: Array, weight: Array, eps: float) -> Array:
    out: Array = x * (weight * np.float32(1.0 / np.sqrt(x @ x / len(x) + eps)))
    return out


class _Layer:
    """The weights of a layer; of a depth layer, with a first dimension for the codebook."""

    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.first, self.second = (_numbers(n.weight) for n in (layer.input_layernorm, layer.post_attention_layernorm))
        self.eps = float(layer.input_layernorm.eps)
        parts = [_linear(p) for p in (attention.q_proj, attention.k_proj, attention.v_proj)]
        self.inward = np.concatenate(parts, -2)  # [..., 3 * width, width]
        self.outward = _linear(attention.o_proj)
        self.widen, self.narrow = _linear(mlp.fc1), _linear(mlp.fc2)
        self.heads, self.scale = attention.num_heads, np.float32(attention.scaling)

    def gate(self, x: Array, widen: Array, narrow: Array) -> Array:
        """x and the gated network on top of it: [width] → [width]."""
        a, b = np.split(widen @ _norm(x, self.second, self.eps), 2)
        out: Array = x + narrow @ (a * (np.float32(0.5) + np.float32(0.5) * np.tanh(np.float32(0.5) * a)) * b)
        return out


def _attend(query: Array, keys: Array, values: Array) -> Array:
    """query [heads, d] (scaled), keys and values [heads, L, d] → [heads * d]."""
    score = np.matmul(keys, query[:, :, None])[:, :, 0]
    score = np.exp(score - score.max(1, keepdims=True))
    score /= score.sum(1, keepdims=True)
    out: Array = np.matmul(score[:, None], values).reshape(-1)
    return out


def _rotate(x: Array, cos: Array, sin: Array) -> Array:
    half = x.shape[-1] // 2
    turned = np.concatenate([-x[..., half:], x[..., :half]], -1)
    return np.asarray(x * cos + turned * sin, np.float32)


class Lone:
    """The weights of an `RQTransformer`, ready for one stream."""

    def __init__(self, model: Any) -> None:
        body, depth = model.decoder.model, model.depth_decoder
        self._layers = [_Layer(layer) for layer in body.layers]
        self._last, self._eps = _numbers(body.norm.weight), float(body.norm.eps)
        self._frequencies = body.layers[0].self_attn.rotary_emb.inv_freq.double().numpy()
        self._keep = model.config.window - 1
        self._depth = [_Layer(layer) for layer in depth.layers]
        self._project, self._head = _linear(depth.input_projections), _linear(depth.lm_heads)
        self._text = _numbers(depth.text_embed_tokens.weight)
        self._tables = [_numbers(table.weight) for table in depth.embed_tokens]

    def temporal(self, x: Tensor, window: Window) -> tuple[Tensor, Window]:
        """One time step: x [1, 1, width] → A [1, 1, width] and the next state."""
        y = x[0, 0].numpy()
        turn = int(window.position[0]) * self._frequencies
        turn = np.concatenate([turn, turn])
        cos, sin = np.cos(turn).astype(np.float32), np.sin(turn).astype(np.float32)
        keys, values = [], []
        for layer, past_key, past_value in zip(self._layers, window.keys, window.values, strict=True):
            inward = (layer.inward @ _norm(y, layer.first, layer.eps)).reshape(3, layer.heads, -1)
            turned = _rotate(inward[:2], cos, sin)
            key = np.concatenate([past_key[0].numpy(), turned[1][:, None]], 1)
            value = np.concatenate([past_value[0].numpy(), inward[2][:, None]], 1)
            y = y + layer.outward @ _attend(turned[0] * layer.scale, key, value)
            y = layer.gate(y, layer.widen, layer.narrow)
            first = max(0, key.shape[1] - self._keep)
            keys.append(torch.from_numpy(key[None, :, first:]))
            values.append(torch.from_numpy(value[None, :, first:]))
        out = torch.from_numpy(_norm(y, self._last, self._eps)[None, None])
        return out, Window(tuple(keys), tuple(values), window.position + 1, window.together)

    def stepper(self, context: Tensor, text: Tensor) -> LoneStepper:
        """A chunk's depth pass; context [1, width], text [1]."""
        return LoneStepper(self, context[0].numpy(), int(text[0]))


class LoneStepper:
    """One chunk of one stream, position by position, as `depth.Stepper`."""

    def __init__(self, lone: Lone, context: Array, text: int) -> None:
        self._lone, self._context, self._text = lone, context, text
        self._position = 0
        self._past: list[tuple[Array, Array]] = []  # a layer: keys and values [heads, positions, head_dim]

    def step(self, before: Tensor | None) -> Tensor:
        """The next position, given the token before it [1] (`None` at the first one) → hidden [1, depth width]."""
        lone, k = self._lone, self._position
        token = lone._text[self._text] if before is None else lone._tables[k - 1][int(before[0])]
        x = token + lone._project[k] @ self._context
        for i, layer in enumerate(lone._depth):
            inward = (layer.inward[k] @ _norm(x, layer.first, layer.eps)).reshape(3, layer.heads, 1, -1)
            key, value = inward[1], inward[2]
            if k:
                key, value = (
                    np.concatenate([old, new], 1) for old, new in zip(self._past[i], (key, value), strict=True)
                )
                self._past[i] = (key, value)
            else:
                self._past.append((key, value))
            x = x + layer.outward[k] @ _attend(inward[0, :, 0] * layer.scale, key, value)
            x = layer.gate(x, layer.widen[k], layer.narrow[k])
        self._position += 1
        return torch.from_numpy(x[None])

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [1, K] of the codebook that was stepped last."""
        return torch.from_numpy((self._lone._head[self._position - 1] @ hidden[0].numpy())[None])
