from dataclasses import replace

import torch
from tests.codec.tiny import TINY

from semaphone.codec.nano import FRAMES, NanoModel
from semaphone.training.start import SPARE, start_from_components

SHAPE = replace(TINY, codebook_dim=SPARE + 4)


def loud_frames(model, count=400):
    """Chunks whose log-mel energies follow three movements and a little noise."""
    generator = torch.Generator().manual_seed(0)
    bands, width = model.config.mel_bands, model.encoder.features.width
    moves = torch.randn(3, FRAMES * bands, generator=generator)
    mel = torch.randn(count, 3, generator=generator) @ moves + 2.0
    mel = mel + 0.01 * torch.randn(mel.shape, generator=generator)
    frames = torch.zeros(count, FRAMES, width)
    frames[..., :bands] = mel.reshape(count, FRAMES, bands)
    return frames.flatten(1), mel


@torch.no_grad()
def test_direct_paths_carry_the_spectrum_from_the_first_step():
    torch.manual_seed(0)
    model = NanoModel(SHAPE)
    frames, mel = loud_frames(model)
    start_from_components(model, frames)
    latents = model.encoder.direct(frames)
    assert torch.allclose(latents[:, 4:], torch.zeros(()), atol=1e-4)
    endless = torch.tensor([SHAPE.num_codebooks + 1])
    through = model.quantizer.latents(model.quantizer.eval()(latents[None], endless, torch.Generator()).entries)[0]
    assert torch.allclose(through, latents, atol=1e-3)
    heard = model.decoder.direct.linear(through).reshape(len(mel), FRAMES, -1)
    bands = min(SHAPE.mel_bands, heard.shape[2])
    wanted = mel.reshape(len(mel), FRAMES, -1)[..., :bands]
    assert (heard[..., :bands] - wanted).square().mean() < 0.01 * wanted.var()


@torch.no_grad()
def test_latents_have_unit_variance_on_average():
    torch.manual_seed(0)
    model = NanoModel(SHAPE)
    frames, _ = loud_frames(model)
    start_from_components(model, frames)
    assert abs(float(model.encoder.direct(frames)[:, :4].square().mean()) - 1.0) < 0.01
