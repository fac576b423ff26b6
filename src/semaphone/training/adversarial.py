"""Stage 2 of the nano codec's training: the decoder against discriminators, tokens frozen.

Mel losses get the words right and leave a buzz; judges of the complex spectrum take it away.
Encoder and quantiser stay as they are, so tokens, and all that was trained on them, stay valid.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from semaphone.codec.nano import NanoSettings
from semaphone.errors import InputError
from semaphone.training.codec import LAG, Batch, CodecTrainer, CodecTraining, draw, draw_depths
from semaphone.training.data import Corpus
from semaphone.training.discriminators import Discriminators, judges_loss, maker_losses
from semaphone.training.hearing import HeardLoss
from semaphone.training.losses import pitch_loss
from semaphone.training.runs import cosine_rate, follow
from semaphone.training.shallower import shallower


@dataclass(frozen=True)
class AdversarialTraining(CodecTraining):
    """Settings of stage 2; the inherited ones have their own defaults."""

    batch: int = 8
    crop: int = 14
    rate: float = 2e-4
    final_rate: float = 5e-5
    warmup: int = 100
    own_pitch: float = 0.7
    endless: float = 0.0
    channels: int = 16  # of each discriminator
    judge_rate: float = 2e-4  # learning rate of the discriminators
    fool: float = 1.0  # weights of the losses
    match: float = 4.0
    alone: int = 100  # steps in which only the discriminators learn
    heard: float = 0.0  # weight of what a recogniser hears; without it Whisper is not needed


def _begun(start: Path) -> dict[str, Any]:
    """The checkpoint a stage 2 starts from. Raises InputError if it is none."""
    try:
        saved: dict[str, Any] = torch.load(start, weights_only=True)
        if "average" in saved and "teacher" in saved:
            return saved
    except (OSError, RuntimeError, TypeError, EOFError, pickle.UnpicklingError):
        pass
    raise InputError(f"{start} is no checkpoint of a training of the codec.")


class AdversarialTrainer(CodecTrainer):
    """Starts from the averaged weights of a checkpoint of stage 1, or of stage 2 with its discriminators.

    Its decoder may have fewer blocks than that of the start.
    """

    c: AdversarialTraining

    def __init__(
        self, c: AdversarialTraining, corpus: Corpus, out: Path, start: Path, heard: HeardLoss | None = None
    ) -> None:
        if c.heard and heard is None:
            raise ValueError("a weight for what is heard needs somebody who hears")
        self.heard = heard if c.heard else None
        self.judges = Discriminators(c.channels)
        self.judge_optimiser = torch.optim.AdamW(self.judges.parameters(), c.judge_rate, betas=(0.8, 0.99))
        super().__init__(c, corpus, out)
        if self.step == 0:
            begun = _begun(start)
            average = shallower(begun["average"], c.model)
            self.model.load_state_dict(average)
            self.average = {name: value.clone() for name, value in average.items()}
            if "judges" in begun:
                self.load_extra(begun)

    def parameters(self) -> list[nn.Parameter]:
        return list(self.model.decoder.parameters())

    def extra_state(self) -> dict[str, Any]:
        return {"judges": self.judges.state_dict(), "judge_optimiser": self.judge_optimiser.state_dict()}

    def load_extra(self, saved: dict[str, Any]) -> None:
        self.judges.load_state_dict(saved["judges"])
        self.judge_optimiser.load_state_dict(saved["judge_optimiser"])
        for group in self.judge_optimiser.param_groups:  # a run that goes on from another one has a rate of its own
            group["lr"] = self.c.judge_rate

    @torch.no_grad()
    def _frozen(self, batch: Batch, rng: np.random.Generator) -> Tensor:
        """Entries [B, T, 2 C] of a batch at random depths."""
        quantizer = self.model.quantizer
        with self.precision():
            latents, _ = self.model.encoder(batch.speech)
        tokens = quantizer.encode(latents, paths=NanoSettings.paths)
        depth = draw_depths(self.c, rng)
        kept = torch.arange(tokens.shape[1])[None, :] < depth[:, None]
        return quantizer.entries(tokens, kept[..., None].float().expand(tokens.shape))

    def advance(self) -> dict[str, float]:
        """One step of the judges, then one of the decoder."""
        c = self.c
        rng = np.random.default_rng([c.seed, 2, self.step])
        batch = draw(self.corpus, c, self.weights, rng)
        entries = self._frozen(batch, rng)
        latents = self.model.quantizer.latents(entries).detach()
        truth = None
        if rng.random() >= c.own_pitch:
            truth = (torch.where(batch.f0 > 0, batch.f0, 100.0), (batch.f0 > 0).float())
        with self.precision():
            rendered = self.model.decoder(latents, entries, None, truth)
        made, real = rendered.speech[:, LAG:], batch.speech[:, :-LAG]
        judged = self._judge(made.detach(), real)
        found = {"mel": self.mel(made, real)}
        found["f0"], found["voicing"] = pitch_loss(rendered.f0.float(), rendered.voicing.float(), batch.f0)
        if self.heard is not None:
            with self.precision():
                found["heard"] = self.heard(made, real)
        if self.step >= c.alone:
            self.judges.requires_grad_(False)
            with self.precision():
                with torch.no_grad():
                    ideal = self.judges(real)
                found["fool"], found["match"] = maker_losses(ideal, self.judges(made))
            self.judges.requires_grad_(True)
            self._improve(found)
        self.step += 1
        follow(self.average, self.model, self.step, c.average)
        return {name: float(value.detach()) for name, value in found.items()} | {"judged": judged}

    def _judge(self, made: Tensor, real: Tensor) -> float:
        with self.precision():
            loss = judges_loss(self.judges(real), self.judges(made))
        self.judge_optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.judges.parameters(), 5.0)
        self.judge_optimiser.step()
        return float(loss.detach())

    def _improve(self, found: dict[str, Tensor]) -> None:
        total = torch.stack([getattr(self.c, name) * value for name, value in found.items()]).sum()
        for group in self.optimiser.param_groups:
            group["lr"] = cosine_rate(self.step, self.c.rate, self.c.final_rate, self.c.warmup, self.c.steps)
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(total)
        norm = nn.utils.clip_grad_norm_(self.parameters(), 5.0)
        if torch.isfinite(norm):
            self.optimiser.step()
