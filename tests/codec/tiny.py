"""Tiny nano codecs with random weights, for tests of everything that needs a codec."""

import torch

from semaphone.codec.nano import NanoCodec, NanoConfig, NanoModel

TINY = NanoConfig(
    encoder_widths=(8, 8, 16),
    encoder_blocks=(1, 1, 1),
    latent_dim=16,
    num_codebooks=16,
    codebook_size=32,
    codebook_dim=8,
    pitch_widths=(8, 8),
    decoder_widths=(16, 8, 8),
    decoder_blocks=(1, 1, 1, 1),
)


def tiny_model(seed: int = 0) -> NanoModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return NanoModel(TINY)


def tiny_codec(seed: int = 0) -> NanoCodec:
    return NanoCodec(tiny_model(seed))
