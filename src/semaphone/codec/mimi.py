"""Mimi as a streaming codec: transformers' weights and layers, our state (LargeSC eqs 1-3, §III-A).

transformers streams Mimi's encoder but keeps no state in its decoder, and none of it serves ragged
batches. Here the layers are driven directly, and everything that a stream remembers is a value:
the tails of the convolutions, the overlap of the transposed convolutions, and the keys and values
of the two transformers within their window. `encode` and `decode` take it and give it back.

    codec = MimiCodec.from_pretrained("kyutai/mimi")           # or a folder
    encoded = codec.encode(speech)                             # [B, T * 1920] at 24 kHz → [B, 8, T]
    decoded = codec.decode(encoded.tokens)

A batch may hold streams of any age. `stepping` [B] says which of them a call moves on; the others
keep their state, and their rows of the result are zero.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semaphone.codec.attention import Window, advance, fresh_window, plan, restart, select, self_attention
from semaphone.codec.base import CodecInfo, Decoded, Encoded
from semaphone.errors import InputError, MissingExtraError
from semaphone.hub import local_only

HUB_ID = "kyutai/mimi"
BLOCK = 128  # chunks at a time in a long call: about 10 s, so that a recording of an hour needs no more memory

# What of the configuration decides what a token means and how it sounds.
_FACTS = (
    "sampling_rate",
    "frame_rate",
    "audio_channels",
    "hidden_size",
    "num_filters",
    "num_residual_layers",
    "upsampling_ratios",
    "kernel_size",
    "last_kernel_size",
    "residual_kernel_size",
    "dilation_growth_rate",
    "pad_mode",
    "compress",
    "codebook_size",
    "codebook_dim",
    "num_quantizers",
    "use_conv_shortcut",
    "vector_quantization_hidden_dimension",
    "num_semantic_quantizers",
    "upsample_groups",
    "num_hidden_layers",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "norm_eps",
    "sliding_window",
    "attention_bias",
    "rope_parameters",
)


@dataclass(frozen=True)
class MimiState:
    """What one direction of the codec remembers of B streams; the batch is always the first dimension."""

    tails: tuple[Tensor, ...]  # inputs of causal convolutions, overlaps of transposed ones: [B, C, n]
    window: Window  # of the transformer

    def restarted(self, streams: Tensor) -> MimiState:
        """The same state with some streams ([B] bool) made fresh, for a new call in an old place of the batch."""
        blank = tuple(torch.where(streams[:, None, None], torch.zeros_like(t), t) for t in self.tails)
        return MimiState(blank, restart(self.window, streams))


class _Tails:
    """The tails of one call: the old ones are taken in the order of the layers, the new ones are laid down."""

    def __init__(self, old: tuple[Tensor, ...] | None, begun: Tensor, stepping: Tensor | None) -> None:
        self._old: Iterator[Tensor] | None = None if old is None else iter(old)
        self.begun = begun  # [B, 1, 1] bool: the stream has a past
        self._stepping = stepping
        self.new: list[Tensor] = []

    def take(self, x: Tensor, channels: int, length: int) -> Tensor:
        return x.new_zeros(x.shape[0], channels, length) if self._old is None else next(self._old)

    def lay(self, new: Tensor, old: Tensor) -> None:
        self.new.append(select(self._stepping, new, old))


def _convolve(layer: Any, x: Tensor, tails: _Tails) -> Tensor:
    """A causal convolution: x [B, C, T] with the `kernel - stride` inputs before it."""
    length = int(layer.padding_total)
    tail = tails.take(x, x.shape[1], length)
    past = tail
    if layer.pad_mode == "replicate":  # a stream that begins is thought to have been at its first value forever
        past = torch.where(tails.begun, tail, x[..., :1])
    seen = torch.cat([past, x], 2)
    tails.lay(seen[..., seen.shape[2] - length :], tail)
    y: Tensor = layer.conv(seen)
    return y


def _deconvolve(layer: Any, x: Tensor, tails: _Tails) -> Tensor:
    """A transposed convolution: what reaches beyond the T * stride outputs is added to the next call's first ones."""
    conv = layer.conv
    stride, length = conv.stride[0], conv.kernel_size[0] - conv.stride[0]
    tail = tails.take(x, conv.out_channels, length)
    y = F.conv_transpose1d(x, conv.weight, None, stride, groups=conv.groups)
    y[..., :length] += tail
    end = x.shape[2] * stride
    tails.lay(y[..., end:], tail)
    y = y[..., :end]
    return y if conv.bias is None else y + conv.bias[:, None]


def _walk(layers: Any, x: Tensor, tails: _Tails) -> Tensor:
    """The convolutional part of the encoder or the decoder."""
    for layer in layers:
        if hasattr(layer, "block"):
            skip = _convolve(layer.shortcut, x, tails) if hasattr(layer.shortcut, "conv") else x
            x = skip + _walk(layer.block, x, tails)
        elif not hasattr(layer, "conv"):
            x = layer(x)
        elif isinstance(layer.conv, nn.ConvTranspose1d):
            x = _deconvolve(layer, x, tails)
        else:
            x = _convolve(layer, x, tails)
    return x


def _attend(transformer: Any, x: Tensor, state: Window, stepping: Tensor | None) -> tuple[Tensor, Window]:
    """One of Mimi's transformers over x [B, C, T]."""
    x = x.transpose(1, 2)
    steps = x.shape[1]
    now = plan(state, steps, transformer.rotary_emb.inv_freq, transformer.config.sliding_window, stepping)
    keys, values = [], []
    for layer, past in zip(transformer.layers, zip(state.keys, state.values, strict=True), strict=True):
        y, key, value = self_attention(layer.self_attn, layer.input_layernorm(x), past, now)
        x = x + layer.self_attn_layer_scale(y)
        x = x + layer.mlp_layer_scale(layer.mlp(layer.post_attention_layernorm(x)))
        keys.append(key)
        values.append(value)
    return x.transpose(1, 2), advance(state, keys, values, steps, stepping)


def _nearest(quantizer: Any, latents: Tensor, count: int) -> list[Tensor]:
    """Indices of the first `count` stages of a residual quantiser (eq 2): `count` times [B, T]."""
    residual = latents if quantizer.input_proj is None else quantizer.input_proj(latents)
    residual = residual.transpose(1, 2)
    indices: list[Tensor] = []
    for layer in quantizer.layers[:count]:
        index = layer.codebook.encode(residual)
        indices.append(index)
        if len(indices) < count:
            residual = residual - layer.codebook.decode(index)
    return indices


def _embed(quantizer: Any, tokens: Tensor, weight: Tensor | None, more: Tensor | None) -> Tensor:
    """Sum of weighted codebook entries (eq 3), and what else is given: tokens [B, K, T] → [B, D, T]."""
    total: Any = 0
    for i, index in enumerate(tokens.unbind(1)):
        entry = quantizer.layers[i].codebook.decode(index)
        total = total + (entry if weight is None else entry * weight[:, i, :, None])
        total = total if more is None else total + more[:, i]
    total = total.transpose(1, 2)
    y: Tensor = total if quantizer.output_proj is None else quantizer.output_proj(total)
    return y


def fingerprint(model: Any) -> str:
    """Hex digest of the weights and of everything in the configuration that gives tokens their meaning."""
    digest = hashlib.sha256()
    config = model.config
    facts = {name: getattr(config, name) for name in _FACTS}
    digest.update(json.dumps(facts, sort_keys=True, default=dict).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _check(config: Any) -> None:
    if not config.use_causal_conv or config.trim_right_ratio != 1.0:
        raise InputError("This Mimi is not causal (use_causal_conv, trim_right_ratio = 1), so it cannot stream.")
    if config.audio_channels != 1:
        raise InputError(f"This Mimi has {config.audio_channels} audio channels; only one is supported.")
    if config.pad_mode not in ("constant", "replicate"):
        raise InputError(f"This Mimi pads with '{config.pad_mode}', which cannot stream.")


class MimiCodec:
    """`Codec` on a transformers `MimiModel`; the model is only read."""

    def __init__(self, model: Any, num_codebooks: int = 8) -> None:
        """Raises InputError if the model cannot stream or has fewer codebooks than asked for."""
        config = model.config
        _check(config)
        if not 1 <= num_codebooks <= config.num_quantizers:
            raise InputError(f"Mimi has 1 to {config.num_quantizers} codebooks, not {num_codebooks}.")
        self.model = model.eval()
        self._info = CodecInfo(
            name="mimi",
            sample_rate=config.sampling_rate,
            frame_rate=config.frame_rate,
            num_codebooks=num_codebooks,
            codebook_size=config.codebook_size,
            latent_dim=config.hidden_size,
            fingerprint=fingerprint(model),
        )

    @classmethod
    def from_pretrained(
        cls, source: str | Path = HUB_ID, num_codebooks: int = 8, device: str | torch.device = "cpu"
    ) -> MimiCodec:
        """Load from a hub id or a folder with config.json and weights.

        Raises InputError if they cannot be had or are not Mimi's, MissingExtraError without transformers.
        """
        return cls(load_mimi(source).to(device), num_codebooks)

    @property
    def info(self) -> CodecInfo:
        return self._info

    def with_codebooks(self, num_codebooks: int) -> MimiCodec:
        """The same codec with another number of codebooks; weights are shared."""
        if not 1 <= num_codebooks <= self.model.config.num_quantizers:
            raise InputError(f"Mimi has 1 to {self.model.config.num_quantizers} codebooks, not {num_codebooks}.")
        other = object.__new__(MimiCodec)
        other.model, other._info = self.model, replace(self._info, num_codebooks=num_codebooks)
        return other

    @torch.no_grad()
    def encode(
        self,
        speech: Tensor,
        state: MimiState | None = None,
        num_codebooks: int | None = None,
        stepping: Tensor | None = None,
    ) -> Encoded:
        """Tokens of speech [B, T * 1920] in [-1, 1]; only the first `num_codebooks` are computed.

        `stepping` [B] bool: the streams that move on (`None`: all). Raises ValueError if the length is not a whole
        number of chunks or the number of codebooks is out of range.
        """
        count = self._info.num_codebooks if num_codebooks is None else num_codebooks
        chunk = self._info.chunk_samples
        if not 1 <= count <= self._info.num_codebooks:
            raise ValueError(f"num_codebooks is 1 to {self._info.num_codebooks}, not {count}.")
        if speech.dim() != 2 or speech.shape[1] == 0 or speech.shape[1] % chunk:
            raise ValueError(f"Speech is [B, T * {chunk}], a whole number of chunks, not {list(speech.shape)}.")
        parts = []
        for block in torch.split(speech, BLOCK * chunk, 1):
            latents, state = self._latents(block, state, stepping)
            parts.append((self._tokens(latents, count), latents))
        tokens, z = (torch.cat(part, 2) for part in zip(*parts, strict=True))
        if stepping is not None:
            tokens, z = tokens * stepping[:, None, None], z * stepping[:, None, None]
        return Encoded(tokens, z, state)

    def decode(
        self,
        tokens: Tensor,
        state: MimiState | None = None,
        weight: Tensor | None = None,
        entries: Tensor | None = None,
        stepping: Tensor | None = None,
    ) -> Decoded:
        """Speech [B, T * 1920] of tokens [B, K, T] with any 1 <= K <= N_Q leading codebooks.

        `weight` [B, K, T] in [0, 1] scales each embedding in the sum of eq 3, and gradients flow back to it if it
        asks for them; `entries` [B, K, T, C] enter that sum besides; `stepping` as in `encode`. Raises ValueError if
        shapes or token values are out of range.
        """
        if tokens.dim() != 3 or not 1 <= tokens.shape[1] <= self._info.num_codebooks or tokens.shape[2] == 0:
            raise ValueError(f"Tokens are [B, 1 to {self._info.num_codebooks}, T], not {list(tokens.shape)}.")
        if weight is not None and weight.shape != tokens.shape:
            raise ValueError(f"The weight has the tokens' shape {list(tokens.shape)}, not {list(weight.shape)}.")
        if tokens.min() < 0 or tokens.max() >= self._info.codebook_size:
            raise ValueError(f"Tokens are 0 to {self._info.codebook_size - 1}.")
        parts = []
        blocks = torch.split(tokens, BLOCK, 2)
        weights = [None] * len(blocks) if weight is None else torch.split(weight, BLOCK, 2)
        more = [None] * len(blocks) if entries is None else torch.split(entries, BLOCK, 2)
        with torch.set_grad_enabled(torch.is_grad_enabled() and weight is not None and weight.requires_grad):
            for block, w, m in zip(blocks, weights, more, strict=True):
                speech, state = self._speech(block, w, m, state, stepping)
                parts.append(speech)
            speech = torch.cat(parts, 1)
        return Decoded(speech if stepping is None else speech * stepping[:, None], state)

    def _begin(self, transformer: Any, batch: int, state: MimiState | None, stepping: Tensor | None) -> _Opened:
        window = fresh_window(transformer.layers, batch) if state is None else state.window
        if len(window.position) != batch:
            raise ValueError(f"The state belongs to {len(window.position)} streams, not {batch}.")
        begun = (window.position > 0)[:, None, None]
        return _Opened(_Tails(None if state is None else state.tails, begun, stepping), window)

    def _latents(self, speech: Tensor, state: MimiState | None, stepping: Tensor | None) -> tuple[Tensor, MimiState]:
        """Speech [B, T * 1920] → latents before quantisation [B, D, T]."""
        model = self.model
        open_ = self._begin(model.encoder_transformer, speech.shape[0], state, stepping)
        x = _walk(model.encoder.layers, speech[:, None].to(model.dtype), open_.tails)
        x, window = _attend(model.encoder_transformer, x, open_.window, stepping)
        if model.downsample is not None:
            x = _convolve(model.downsample, x, open_.tails)
        return x.float(), MimiState(tuple(open_.tails.new), window)

    def _tokens(self, latents: Tensor, count: int) -> Tensor:
        """Latents [B, D, T] → tokens [B, count, T]: the semantic codebook and the acoustic ones quantise apart."""
        quantizer = self.model.quantizer
        latents = latents.to(self.model.dtype)
        semantic = min(count, quantizer.num_semantic_quantizers)
        indices = _nearest(quantizer.semantic_residual_vector_quantizer, latents, semantic)
        if count > semantic:
            indices += _nearest(quantizer.acoustic_residual_vector_quantizer, latents, count - semantic)
        return torch.stack(indices, 1)

    def _speech(
        self,
        tokens: Tensor,
        weight: Tensor | None,
        more: Tensor | None,
        state: MimiState | None,
        stepping: Tensor | None,
    ) -> tuple[Tensor, MimiState]:
        model, quantizer = self.model, self.model.quantizer
        open_ = self._begin(model.decoder_transformer, tokens.shape[0], state, stepping)
        split = quantizer.num_semantic_quantizers
        semantic, acoustic = (
            [None if part is None else part[:, half] for part in (weight, more)]
            for half in (slice(split), slice(split, None))
        )
        x = _embed(quantizer.semantic_residual_vector_quantizer, tokens[:, :split], *semantic)
        if tokens.shape[1] > split:
            x = x + _embed(quantizer.acoustic_residual_vector_quantizer, tokens[:, split:], *acoustic)
        if model.upsample is not None:
            x = _deconvolve(model.upsample, x, open_.tails)
        x, window = _attend(model.decoder_transformer, x, open_.window, stepping)
        x = _walk(model.decoder.layers, x, open_.tails)
        return x[:, 0].float(), MimiState(tuple(open_.tails.new), window)


@dataclass(frozen=True)
class _Opened:
    tails: _Tails
    window: Window


def load_mimi(source: str | Path) -> Any:
    """A float32 `MimiModel` from a hub id or folder; raises InputError with a sentence that says what to do."""
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError("The Mimi codec", "large") from error
    logging: Any = transformers.logging
    level = logging.get_verbosity()
    logging.set_verbosity_error()  # what it would warn of is raised below as one sentence
    read: Any = transformers.MimiModel.from_pretrained
    local = local_only(str(source), "Mimi")
    try:
        kind = transformers.AutoConfig.from_pretrained(str(source), local_files_only=local).model_type
        if kind != "mimi":
            raise InputError(f"'{source}' holds a model of type '{kind}', not Mimi.")
        model, report = read(str(source), dtype=torch.float32, output_loading_info=True, local_files_only=local)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"Mimi could not be loaded from '{source}': give a folder that holds config.json and model.safetensors, "
            f"or connect once to the model hub that has it."
        ) from error
    finally:
        logging.set_verbosity(level)
    if report["missing_keys"] or report.get("mismatched_keys"):
        raise InputError(f"The weights in '{source}' do not fit Mimi: {len(report['missing_keys'])} are missing.")
    return model.eval()
