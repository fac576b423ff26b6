"""What a controller begins with: pauses get little, loud chunks much, and copies are those that p asks for.

Eq 20 has many bad shores. From random weights the network spreads its copies over codebooks and chunks, and a chunk
without one is a chunk that can be lost whole. So before eq 20 it learns, in a minute, what a sender without a model
does (`best_split`), with a tone of its own: a chunk that is much quieter than the loudest of its utterance gets a
fifth as much, which leaves the others a quarter more (docs/experiments.md has what that is worth).
"""

from __future__ import annotations

from collections.abc import Callable

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
TELL = 100  # steps between two looks at how far it is
BATCH, CROP = 16, 50  # crops a step, chunks of a crop
QUIET_DB, LOUD_DB = -25.0, -15.0  # below the loudest chunk: from where on a chunk counts as quiet, and as loud
QUIET, LOUD = 3.0, 15.5  # transmissions of a quiet chunk and of a loud one at the rate `LEVEL`
LEVEL = 17.0  # L
HIGHEST, LOSSY = 0.35, 0.75  # the highest loss rate that is shown, and the share of crops that lose anything


def loudness(crop: Crop) -> NDArray[np.float32]:
    """How loud chunks are, from 0 (`QUIET_DB`, or quieter) to 1 (`LOUD_DB`, or louder); 1 where there is no speech."""
    if crop.speech is None:
        return np.ones(len(crop.tokens), np.float32)
    parts = crop.speech.reshape(len(crop.tokens), -1, 2 * HOP)  # of 20 ms
    level = 10 * np.log10(np.square(parts, dtype=np.float64).mean(-1).max(-1) + 1e-10)
    return np.asarray(((level - level.max() - QUIET_DB) / (LOUD_DB - QUIET_DB)).clip(0, 1), np.float32)


def targets(loud: Tensor, loss_rate: Tensor, num_codebooks: int) -> Tensor:
    """Importance to begin with: loudness [B, T] and p [B] → [B, T, 2].

    L · I is rounded down, so it lies half a token above what is meant.
    """
    wanted = torch.round(QUIET + (LOUD - QUIET) * loud).int()
    most = int(wanted.max())
    found = torch.stack(
        [_splits(most, num_codebooks, p)[row] for row, p in zip(wanted, loss_rate.tolist(), strict=True)]
    )
    return (found + 0.5) / LEVEL


def _splits(most: int, num_codebooks: int, loss_rate: float) -> Tensor:
    """What `best_split` makes of 0 to `most` transmissions: [most + 1, 2]."""
    return torch.tensor([best_split(n, num_codebooks, loss_rate, loss_rate) for n in range(most + 1)])


def start(
    net: ControllerModel,
    material: Material,
    steps: int,
    rng: np.random.Generator,
    rate: float = RATE,
    tell: Callable[[int, float], None] = lambda step, distance: None,
) -> float:
    """Teach a fresh network the targets, in place; the mean distance from them in the last tenth of the steps.

    `tell` is told how far it is, now and then.
    """
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
        if (step + 1) % TELL == 0:
            tell(step + 1, float(np.mean(left[-TELL:])))
    return float(np.mean(left[-max(1, steps // 10) :])) if left else float("nan")
