"""What a controller begins with: loud chunks matter more than quiet ones, and copies are those that p asks for.

Eq 20 has many bad shores. From random weights the network spreads its copies over codebooks and chunks, and a chunk
without one is a chunk that can be lost whole. So before eq 20 it learns, in seconds, what a sender without a model
does (`best_split`), with a tone of its own: a chunk far below the loudest of its utterance gets half as much.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from semaphone.controller.adaptive import ControllerModel
from semaphone.controller.budget import best_split
from semaphone.training.data import HOP
from semaphone.training.latents import Crop, Material

RATE = 3e-3  # learning rate after 20 steps; it falls to nothing
BATCH, CROP = 16, 50  # crops a step, chunks of a crop
RANGE_DB = 40.0  # below the loudest chunk, from which on a chunk is as quiet as silence
QUIET, LOUD = 0.35, 0.7  # I_s of silence and of the loudest chunk
TRANSMISSIONS = 12  # a chunk, for which codebooks and copies are split
HIGHEST, LOSSY = 0.35, 0.75  # the highest loss rate that is shown, and the share of crops that lose anything


def loudness(crop: Crop) -> NDArray[np.float32]:
    """How loud each chunk is, from 0 (40 dB below the loudest, or less) to 1; all are 1 where there is no speech."""
    if crop.speech is None:
        return np.ones(len(crop.tokens), np.float32)
    parts = crop.speech.reshape(len(crop.tokens), -1, HOP)  # of 10 ms
    level = 10 * np.log10(np.square(parts, dtype=np.float64).mean(-1).max(-1) + 1e-9)
    return np.asarray((1 + (level - level.max()) / RANGE_DB).clip(0, 1), np.float32)


def targets(loud: Tensor, loss_rate: Tensor, num_codebooks: int) -> Tensor:
    """Importance to begin with: loudness [B, T] and p [B] → [B, T, 2]."""
    split = [best_split(TRANSMISSIONS, num_codebooks, p, p) for p in loss_rate.tolist()]
    share = torch.tensor([mask.twice / mask.sent for mask in split])
    sent = QUIET + (LOUD - QUIET) * loud
    return torch.stack([sent, share[:, None] * sent], -1)


def start(net: ControllerModel, material: Material, steps: int, rng: np.random.Generator, rate: float = RATE) -> float:
    """Teach a fresh network the targets, in place; the mean distance from them in the last tenth of the steps."""
    optimiser = torch.optim.AdamW(net.parameters(), rate, weight_decay=0.0)
    left: list[float] = []
    net.train()
    for step in range(steps):
        crops = material.draw(BATCH, CROP, rng)
        loud = torch.from_numpy(np.stack([loudness(crop) for crop in crops]))
        p = torch.from_numpy((HIGHEST * rng.random(BATCH) * (rng.random(BATCH) < LOSSY)).astype(np.float32))
        latents = torch.from_numpy(np.stack([crop.latents for crop in crops]))
        importance, _ = net(latents, p[:, None].expand(latents.shape[:2]))
        wanted = targets(loud, p, net.config.num_codebooks)
        loss = F.binary_cross_entropy(importance, wanted)
        for group in optimiser.param_groups:
            group["lr"] = rate * min((step + 1) / 20, 1 - step / steps)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(net.parameters(), 0.1)
        optimiser.step()
        left.append(float((importance.detach() - wanted).abs().mean()))
    return float(np.mean(left[-max(1, steps // 10) :])) if left else float("nan")
