"""Stage 2 of the nano codec's training: against discriminators, and against what a recogniser hears.

Mel losses get the words right and leave a buzz; discriminators of the complex spectrum take it away.

* As it is, encoder and quantiser stay frozen, so tokens, and all that was trained on them, stay valid. With `lost` the
  decoder also learns to bridge chunks that did not arrive.
* With `move` encoder and codebooks learn, too, and tokens get a new meaning. With `heard` they learn to keep what a
  recogniser's encoder (Whisper's) sees in speech: words that tokens do not hold cannot be had from a decoder.
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
from semaphone.codec.nano_weights import read_nano
from semaphone.codec.quantizer import Codebook
from semaphone.errors import InputError
from semaphone.training.batches import Batch, draw
from semaphone.training.codec import LAG, CodecTrainer, CodecTraining, draw_depths
from semaphone.training.data import CHUNK, Corpus
from semaphone.training.discriminators import Discriminators, judges_loss, maker_losses
from semaphone.training.hearing import HeardLoss
from semaphone.training.losses import pitch_loss, taught_loss
from semaphone.training.runs import careful_step, cosine_rate, follow
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
    judged_crops: int = 0  # crops of a batch that the discriminators see; 0: all
    judged_chunks: int = 0  # chunks of each of these that they see, somewhere in the crop; 0: all
    heard: float = 0.0  # weight of what a recogniser hears; without it Whisper is not needed
    move: bool = False  # encoder and codebooks learn, too: tokens get a new meaning
    lost: float = 0.0  # share of crops that lose chunks on their way to the decoder
    lost_most: float = 0.35  # of the chunks of such a crop, at most
    burst: float = 2.0  # chunks that are lost one after the other, on average


def _begun(start: Path) -> dict[str, Any]:
    """What a stage 2 starts from: a checkpoint, or the weights of a codec. Raises InputError if it is neither."""
    if start.suffix == ".safetensors":
        return {"average": _usual_counts(read_nano(start)[0])}
    try:
        saved: dict[str, Any] = torch.load(start, map_location="cpu", weights_only=True)
        if "average" in saved and "teacher" in saved:
            return saved
    except (OSError, RuntimeError, TypeError, EOFError, pickle.UnpicklingError):
        pass
    raise InputError(f"{start} is no checkpoint of a training of the codec.")


def _usual_counts(model: nn.Module) -> dict[str, Tensor]:
    """The state of a codec whose file leaves out how often its entries are used: as if each had been used once."""
    for book in model.modules():
        if isinstance(book, Codebook):
            book.count.fill_(1.0)
            book.total.copy_(book.entries)
    return model.state_dict()


def draw_losses(c: AdversarialTraining, depth: Tensor, chunks: int, rng: np.random.Generator) -> Tensor:
    """How many leading tokens arrive of each chunk, [B, chunks], of crops of which `depth` [B] were sent.

    Losses come in bursts. Of a lost chunk mostly nothing arrives, else a shorter prefix: what a packet that came later
    had room for.
    """
    count = len(depth)
    most = rng.uniform(0.05, c.lost_most, (count, 1)) * (rng.random((count, 1)) < c.lost)
    begins = rng.random((count, chunks)) < most / c.burst
    length = rng.geometric(1.0 / c.burst, (count, chunks))
    end = np.maximum.accumulate(np.where(begins, np.arange(chunks) + length, 0), 1)
    lost = torch.from_numpy(np.arange(chunks) < end)
    whole = torch.from_numpy(rng.random((count, chunks)) < 0.7)
    prefix = torch.from_numpy(rng.random((count, chunks))).mul(depth[:, None]).long()
    return torch.where(lost, torch.where(whole, 0, prefix), depth[:, None])


class AdversarialTrainer(CodecTrainer):
    """Starts from the averaged weights of a checkpoint of stage 1, or of stage 2 with its discriminators.

    Its decoder may have fewer blocks than that of the start.
    """

    c: AdversarialTraining

    def __init__(
        self,
        c: AdversarialTraining,
        corpus: Corpus,
        out: Path,
        start: Path,
        heard: HeardLoss | None = None,
        device: torch.device | None = None,
    ) -> None:
        """`start` is a checkpoint, or the weights of a codec (a .safetensors file)."""
        if c.heard and heard is None:
            raise ValueError("a weight for what is heard needs somebody who hears")
        device = device or torch.device("cpu")
        self.heard = heard.to(device) if heard is not None and c.heard else None
        torch.manual_seed(c.seed)
        self.judges = Discriminators(c.channels).to(device)
        judged = self.judges.parameters()
        self.judge_optimiser = torch.optim.AdamW(judged, c.judge_rate, betas=(0.8, 0.99), fused=True)
        super().__init__(c, corpus, out, device)
        if self.step == 0:
            begun = _begun(start)
            average = shallower(begun["average"], c.model)
            self.model.load_state_dict(average)
            self.average = {name: value.to(device, copy=True) for name, value in average.items()}
            if "judges" in begun:
                self.load_extra(begun)
            if "teacher" in begun:
                self.teacher.load_state_dict(begun["teacher"])

    def parameters(self) -> list[nn.Parameter]:
        return super().parameters() if self.c.move else list(self.model.decoder.parameters())

    def extra_state(self) -> dict[str, Any]:
        return {"judges": self.judges.state_dict(), "judge_optimiser": self.judge_optimiser.state_dict()}

    def load_extra(self, saved: dict[str, Any]) -> None:
        self.judges.load_state_dict(saved["judges"])
        self.judge_optimiser.load_state_dict(saved["judge_optimiser"])
        for group in self.judge_optimiser.param_groups:  # a run that goes on from another one has a rate of its own
            group["lr"] = self.c.judge_rate

    @torch.no_grad()
    def _frozen(self, batch: Batch, rng: np.random.Generator) -> Tensor:
        """Entries [B, T, 2 C] of a batch at random depths, with losses."""
        quantizer = self.model.quantizer
        with self.precision():
            latents, _ = self.model.encoder(batch.speech)
        tokens = quantizer.encode(latents, paths=NanoSettings.paths)
        arrived = draw_losses(self.c, draw_depths(self.c, rng), tokens.shape[2], rng).to(self.device)
        kept = torch.arange(tokens.shape[1], device=self.device)[None, :, None] < arrived[:, None]
        return quantizer.entries(tokens, kept.float())

    def _moving(
        self, batch: Batch, rng: np.random.Generator, wanted: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Entries [B, T, 2 C] with gradients for encoder and projections, and the losses of the tokens."""
        generator = torch.Generator(self.device).manual_seed(int(rng.integers(1 << 62)))
        with self.precision():
            latents, _ = self.model.encoder(batch.speech)
        quantised = self.model.quantizer(latents, draw_depths(self.c, rng).to(self.device), generator)
        found = {"commitment": quantised.commitment}
        features = batch.features
        if features is None and wanted is not None:
            chunks = wanted.shape[1] // 4  # Whisper has four rows a chunk
            features = wanted[:, : 4 * chunks].reshape(len(wanted), chunks, 4, -1).mean(2)
        if features is not None:
            found["taught"] = taught_loss(self.teacher(quantised.semantic[:, : features.shape[1]]), features)
        return quantised.entries, found

    def advance(self) -> dict[str, Tensor]:
        """One step of the discriminators, then one of the codec."""
        c = self.c
        rng = np.random.default_rng([c.seed, 2, self.step])
        self.model.train(c.move)
        batch = draw(self.store, c, self.weights, rng)
        real = batch.speech[:, :-LAG]
        with torch.no_grad(), self.precision():
            wanted = None if self.heard is None else self.heard.rows(real)
        if c.move:
            entries, found = self._moving(batch, rng, wanted)
            latents = self.model.quantizer.latents(entries)
        else:
            entries, found = self._frozen(batch, rng), {}
            latents = self.model.quantizer.latents(entries).detach()
        truth = None
        if rng.random() >= c.own_pitch:
            truth = (torch.where(batch.f0 > 0, batch.f0, 100.0), (batch.f0 > 0).float())
        with self.precision():
            rendered = self.model.decoder(latents, entries, None, truth)
        made = rendered.speech[:, LAG:]
        found["mel"] = self.mel(made, real)
        found["f0"], found["voicing"] = pitch_loss(rendered.f0.float(), rendered.voicing.float(), batch.f0)
        if self.heard is not None and wanted is not None:
            with self.precision():
                found["heard"] = self.heard.error(self.heard.rows(made), wanted)
        seen, ideal = self._piece(made, real, rng)
        judged = self._judge(seen.detach(), ideal)
        if self.step >= c.alone:
            found["fool"], found["match"] = self._fool(seen, ideal)
            self._improve(found)
        self.step += 1
        follow(self.average, self.model, self.step, c.average)
        return {name: value.detach() for name, value in found.items()} | {"judged": judged}

    def _piece(self, made: Tensor, real: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """The part of a batch that the discriminators see: they cost more than all the rest."""
        crops = self.c.judged_crops or len(made)
        length = min(self.c.judged_chunks * CHUNK or made.shape[1], made.shape[1])
        at = int(rng.integers(0, made.shape[1] - length + 1))
        return made[:crops, at : at + length], real[:crops, at : at + length]

    def _judge(self, made: Tensor, real: Tensor) -> Tensor:
        with self.precision():
            loss = judges_loss(self.judges(real), self.judges(made))
        self.judge_optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        careful_step(self.judge_optimiser, nn.utils.clip_grad_norm_(self.judges.parameters(), 5.0))
        return loss.detach()

    def _fool(self, made: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        self.judges.requires_grad_(False)
        with self.precision():
            with torch.no_grad():
                ideal = self.judges(real)
            found = maker_losses(ideal, self.judges(made))
        self.judges.requires_grad_(True)
        return found

    def _improve(self, found: dict[str, Tensor]) -> None:
        total = torch.stack([getattr(self.c, name) * value for name, value in found.items()]).sum()
        for group in self.optimiser.param_groups:
            group["lr"] = cosine_rate(self.step, self.c.rate, self.c.final_rate, self.c.warmup, self.c.steps)
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(total)
        careful_step(self.optimiser, nn.utils.clip_grad_norm_(self.parameters(), 5.0))
