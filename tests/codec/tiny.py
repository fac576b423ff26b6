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


def in_blocks(codec: NanoCodec, x: torch.Tensor, chunks: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and speech of speech [B, T * 1280], a few chunks at a time."""
    encoding, decoding, tokens, heard = None, None, [], []
    for block in torch.split(x, chunks * 1280, 1):
        encoded = codec.encode(block, encoding)
        decoded = codec.decode(encoded.tokens, decoding)
        encoding, decoding = encoded.state, decoded.state
        tokens.append(encoded.tokens)
        heard.append(decoded.speech)
    return torch.cat(tokens, 2), torch.cat(heard, 1)
