"""Where the nano codec's training starts: latents that are principal components of the log-mel chunk.

A network that starts at random puts the loudest few directions of speech into its latents and then hides
the finer ones under the codebooks' noise, where nothing can learn to use them. Principal components fill the
latents at once, in the proportions at which mean squared error shares bits best (reverse water-filling).
"""

from __future__ import annotations

import torch
from torch import Tensor

from semaphone.codec.nano import FRAMES, NanoModel

SPARE = 8  # dimensions of a codebook entry that start empty, for what log-mel energies do not say (pitch)


@torch.no_grad()
def start_from_components(model: NanoModel, frames: Tensor) -> None:
    """Sets the direct paths and the quantiser's projections.

    Args:
        model: changed in place; its deep paths stay as they are, those of the encoder quieter.
        frames: features of speech [N, 8 * width], N chunks, as the encoder's direct path sees them.
    """
    c = model.config
    bands, width = c.mel_bands, model.encoder.features.width
    mel = frames.reshape(len(frames), FRAMES, width)[..., :bands].flatten(1)
    mean = mel.mean(0)
    components = torch.linalg.svd(mel - mean, full_matrices=False)[2]
    count = min(max(c.codebook_dim - SPARE, 1), c.latent_dim, len(components))
    basis = components[:count]  # [count, 8 * bands], orthonormal rows
    # Each dimension of an entry has a variance of 1 on average, whatever the speech's.
    scale = 1.0 / ((mel - mean) @ basis.T).square().mean().sqrt()
    direct = torch.zeros(c.latent_dim, FRAMES, width)
    direct[:count, :, :bands] = scale * basis.reshape(count, FRAMES, bands)
    model.encoder.direct.weight.copy_(direct.flatten(1))
    model.encoder.direct.bias.zero_()
    model.encoder.direct.bias[:count] = -scale * (basis @ mean)
    model.encoder.last.weight[:count] *= 0.05
    model.quantizer.project(torch.eye(c.codebook_dim, c.latent_dim), torch.eye(c.codebook_dim, c.latent_dim))
    _decode_components(model, basis / scale, mean)


def _decode_components(model: NanoModel, basis: Tensor, mean: Tensor) -> None:
    """Lets the first channels of the decoder's direct path be the log-mel energies themselves."""
    c, way = model.config, model.decoder.direct.linear
    channels = c.decoder_widths[2]
    bands = min(c.mel_bands, channels)
    weight = 0.3 * way.weight.reshape(FRAMES, channels, c.latent_dim)
    bias = way.bias.reshape(FRAMES, channels).clone()
    shaped = basis.reshape(len(basis), FRAMES, c.mel_bands)[..., :bands]
    weight[:, :bands] = 0.0
    weight[:, :bands, : len(basis)] = shaped.permute(1, 2, 0)
    bias[:, :bands] = mean.reshape(FRAMES, c.mel_bands)[:, :bands]
    way.weight.copy_(weight.flatten(0, 1))
    way.bias.copy_(bias.flatten())
