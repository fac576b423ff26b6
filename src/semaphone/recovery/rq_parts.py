"""Moshi's classes of a configuration's sizes, with random weights that can be trained from scratch."""

from __future__ import annotations

from typing import Any

from torch import nn

from semaphone.errors import MissingExtraError
from semaphone.recovery.rq_config import RQTransformerConfig


def fresh_parts(config: RQTransformerConfig) -> dict[str, nn.Module]:
    """Randomly initialised Moshi classes of the configured sizes."""
    try:
        from transformers import MoshiConfig
        from transformers.models.moshi import modeling_moshi
    except ImportError as error:
        raise MissingExtraError("The recovery model", "large") from error
    classes: Any = modeling_moshi
    inner = {
        "hidden_size": config.depth_width,
        "num_hidden_layers": config.depth_layers,
        "num_attention_heads": config.depth_heads,
        "ffn_dim": config.depth_ffn,
        "sliding_window": config.num_codebooks,
        "max_position_embeddings": config.num_codebooks + 1,
    }
    facts = MoshiConfig(
        vocab_size=config.text_size,
        hidden_size=config.width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        audio_vocab_size=config.codebook_size,
        max_position_embeddings=config.window,
        sliding_window=config.window,
        ffn_dim=config.ffn,
        num_codebooks=config.num_codebooks,
        audio_encoder_config={"num_quantizers": max(32, config.num_codebooks)},
        depth_decoder_config=inner,
    )
    tables, rows, width = config.num_codebooks * (2 if config.other else 1), config.codebook_size + 1, config.width
    if config.token_width:
        tables, rows, width = 1, config.num_codebooks * rows, config.token_width
    parts: dict[str, nn.Module] = {
        "embed_tokens": nn.ModuleList(nn.Embedding(rows, width) for _ in range(tables)),
        "decoder": classes.MoshiForCausalLM(facts),
        "depth_decoder": classes.MoshiDepthDecoder(facts.depth_decoder_config),
    }
    for part in parts.values():
        _initialise(part, config)
    return parts


def _initialise(part: nn.Module, config: RQTransformerConfig) -> None:
    """Unit gain in every product, small embeddings and heads, residual branches that add up to one layer's worth.

    (transformers draws the depth decoder's weights from N(0, 1), which no training from scratch survives.)
    """
    for name, value in part.named_parameters():
        if value.dim() == 1:
            continue
        std = value.shape[-1] ** -0.5
        if "embed" in name or isinstance(part, nn.ModuleList):
            std = 0.1
        elif "head" in name:
            std = 0.02
        elif "o_proj" in name or "fc2" in name:
            std /= (2 * max(config.layers, config.depth_layers)) ** 0.5
        nn.init.normal_(value, std=std)
