"""Causal self-attention over a sliding window, with its keys and values as an explicit value.

It drives the attention layers of transformers' Mimi and Moshi (anything with `q_proj`, `k_proj`,
`v_proj`, `o_proj`) over many streams at once. Streams of a batch may have taken different numbers
of steps, and a mask says which of them step in a call; the others keep their state. A query sees
itself and the `window - 1` steps before it, so memory stays constant however long a stream lasts.
Rotary angles are computed in float64: after an hour they are as exact as in the first second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Window:
    """What the attention layers of a transformer remember of B streams."""

    keys: tuple[Tensor, ...]  # one a layer, [B, heads, L, head_dim], newest last; L < window
    values: tuple[Tensor, ...]  # one a layer, [B, heads, L, head_dim]
    position: Tensor  # [B] int64, steps that each stream has taken
    together: bool  # all streams have always stepped together, so every stored step is everyone's


@dataclass(frozen=True)
class Plan:
    """What one call of T steps needs in every layer: rotary angles, who sees what, what is kept."""

    cos: Tensor  # [B, 1, T, head_dim]
    sin: Tensor  # [B, 1, T, head_dim]
    visible: Tensor | None  # [B, 1, T, L + T] bool; None: everything
    keep: int  # steps to remember, window - 1
    stepping: Tensor | None  # [B] bool: the streams that step; None: all
    causal: bool = False  # each sees itself and those before; then `visible` is None


def fresh_window(layers: Any, batch: int) -> Window:
    """The memory of `batch` streams that have not begun yet; `layers` are the transformer's layers."""
    empty = []
    for layer in layers:
        attention = layer.self_attn
        heads, width = attention.num_key_value_heads, attention.head_dim
        weight = layer.input_layernorm.weight
        empty.append(torch.empty(batch, heads, 0, width, dtype=weight.dtype, device=weight.device))
    position = torch.zeros(batch, dtype=torch.int64, device=empty[0].device)
    return Window(tuple(empty), tuple(empty), position, together=True)


def plan(state: Window, steps: int, inverse: Tensor, window: int, stepping: Tensor | None = None) -> Plan:
    """Prepare a call of `steps` steps.

    `inverse` [head_dim / 2] are the rotary frequencies in radians a step. Raises ValueError if the window is not
    positive.
    """
    if window < 1:
        raise ValueError(f"An attention window has at least one step, not {window}.")
    stored, position = state.keys[0].shape[2], state.position
    dtype, device = state.keys[0].dtype, position.device
    at = position[:, None] + torch.arange(steps, device=device)  # [B, T]
    angle = at[..., None].double() * inverse.double()
    angle = torch.cat([angle, angle], -1)[:, None]
    cos, sin = angle.cos().to(dtype), angle.sin().to(dtype)
    if steps == 1 and state.together and stored < window:
        return Plan(cos, sin, None, window - 1, stepping)
    if device.type != "cpu" and state.together and not stored and steps <= window:
        return Plan(cos, sin, None, window - 1, stepping, causal=True)  # without a mask a GPU is quicker
    age = stored + torch.arange(steps, device=device)[:, None] - torch.arange(stored + steps, device=device)
    visible = ((age >= 0) & (age < window))[None]  # [1, T, L + T]
    known = torch.arange(stored + steps, device=device) >= stored - position[:, None]  # [B, L + T]
    visible = visible & known[:, None]
    return Plan(cos, sin, visible[:, None], window - 1, stepping)


def select(stepping: Tensor | None, new: Tensor, old: Tensor) -> Tensor:
    """`new` for the streams that step, `old` for the others; the batch is the first dimension."""
    if stepping is None:
        return new
    return torch.where(stepping.view(-1, *[1] * (new.dim() - 1)), new, old)


def _remember(past: Tensor, seen: Tensor, keep: int, stepping: Tensor | None) -> Tensor:
    new = seen[:, :, max(0, seen.shape[2] - keep) :]
    if stepping is None:
        return new
    return select(stepping, new, F.pad(past, (0, 0, new.shape[2] - past.shape[2], 0)))


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding with the halves of each head as the two coordinates."""
    left, right = x.chunk(2, -1)
    return x * cos + torch.cat([-right, left], -1) * sin


def attend(query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None, scale: float, causal: bool) -> Tensor:
    """Scaled dot-product attention, heads shared where key and value have fewer.

    Under autocast on a CPU it stays in float32: the backward pass in bfloat16 takes many times longer there.
    """
    shared = key.shape[1] != query.shape[1]
    kind = query.device.type
    if kind == "cpu" and torch.is_autocast_enabled(kind):
        with torch.autocast(kind, enabled=False):
            return F.scaled_dot_product_attention(
                query.float(), key.float(), value.float(), visible, is_causal=causal, scale=scale, enable_gqa=shared
            )
    return F.scaled_dot_product_attention(query, key, value, visible, is_causal=causal, scale=scale, enable_gqa=shared)


def self_attention(attention: Any, x: Tensor, past: tuple[Tensor, Tensor], now: Plan) -> tuple[Tensor, Tensor, Tensor]:
    """One attention layer over T steps: x [B, T, width] → its output and the layer's keys and values to remember."""
    batch, steps, _ = x.shape
    shape = (batch, steps, -1, attention.head_dim)
    query = _rotate(attention.q_proj(x).view(shape).transpose(1, 2), now.cos, now.sin)
    key = _rotate(attention.k_proj(x).view(shape).transpose(1, 2), now.cos, now.sin)
    value = attention.v_proj(x).view(shape).transpose(1, 2)
    keys, values = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
    y = attend(query, keys, values, now.visible, attention.scaling, now.causal)
    y = attention.o_proj(y.transpose(1, 2).reshape(batch, steps, -1))
    return (
        y,
        _remember(past[0], keys, now.keep, now.stepping),
        _remember(past[1], values, now.keep, now.stepping),
    )


def advance(state: Window, keys: list[Tensor], values: list[Tensor], steps: int, stepping: Tensor | None) -> Window:
    """The memory after a call of `steps` steps."""
    moved = state.position + (steps if stepping is None else steps * stepping.long())
    together = state.together and stepping is None
    return Window(tuple(keys), tuple(values), moved, together)


def merge(streams: Tensor, new: Window, old: Window) -> Window:
    """The memory of `new` for some streams ([B] bool), of `old` for the others."""
    length = max(new.keys[0].shape[2], old.keys[0].shape[2])

    def both(a: Tensor, b: Tensor) -> Tensor:
        wide = [F.pad(x, (0, 0, length - x.shape[2], 0)) for x in (a, b)]
        return select(streams, wide[0], wide[1])

    return Window(
        tuple(both(a, b) for a, b in zip(new.keys, old.keys, strict=True)),
        tuple(both(a, b) for a, b in zip(new.values, old.values, strict=True)),
        select(streams, new.position, old.position),
        together=False,
    )


def restart(state: Window, streams: Tensor) -> Window:
    """Forget the past of some streams ([B] bool), so that another one can take the place in the batch."""
    return Window(state.keys, state.values, state.position.masked_fill(streams, 0), together=False)
