"""Training the nano codec: `semaphone train codec`.

Stage 1 trains everything on multi-resolution mel spectra, pitch and the distillation of
codebook 1 towards a recogniser's features. Stage 2 freezes encoder and quantiser, so that tokens
keep their meaning, and trains the decoder against discriminators. Both resume from the newest
checkpoint, log JSON lines, and keep an exponential moving average of the weights, which is what
is evaluated and shipped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from semaphone.codec.nano import HOP, NanoConfig, NanoModel
from semaphone.codec.nano_weights import save_nano
from semaphone.codec.ranges import met_ranges
from semaphone.errors import InputError
from semaphone.files import replacing
from semaphone.training.batches import Batch, Store, draw
from semaphone.training.data import Corpus, group_weights
from semaphone.training.device import autocast, prepare_device
from semaphone.training.losses import MelLoss, pitch_loss, taught_loss
from semaphone.training.runs import Report, careful_step, cosine_rate, follow, run_steps
from semaphone.training.start import start_from_components

LAG = 2 * HOP  # samples by which the decoder of the default window lags
LOOKED = 12  # crops of a batch on which ranges are measured, at most
STATE = "checkpoint.pt"
WEIGHTS = "nano-codec.safetensors"  # the averaged weights, ready for --codec


@dataclass(frozen=True)
class CodecTraining:
    """Settings of one training run."""

    seed: int = 1
    batch: int = 12  # crops a step
    crop: int = 20  # chunks of 80 ms a crop
    rate: float = 1.5e-3  # learning rate of AdamW after the warm-up
    final_rate: float = 2e-4  # where the cosine ends, at step `steps`
    warmup: int = 150  # steps
    steps: int = 20_000
    settle_on: int = 80  # batches that the codebooks are placed on before the first step
    average: float = 0.999  # decay of the moving average of weights
    mel: float = 15.0  # weights of the losses
    f0: float = 2.0
    voicing: float = 0.5
    taught: float = 2.0
    commitment: float = 0.05  # much more, and the latents shrink to a few directions
    truth_until: int = 600  # step up to which the true pitch drives the source
    own_pitch: float = 0.5  # share of later steps whose source is driven by the predicted pitch
    full_depth: float = 0.4  # share of crops that keep all codebooks; the others draw a number
    half_depth: float = 0.0  # share of crops that keep the first half of them
    endless: float = 0.4  # share of crops whose latents only codebook 1 quantises (as in Mimi's training)
    gain_db: tuple[float, float] = (-12.0, 6.0)  # augmentation
    equaliser_db: float = 4.0  # augmentation: spectral tilt of half of the crops, at most
    telephone: float = 0.0  # augmentation: share of crops limited to the band of a telephone
    shares: dict[str, float] | None = None  # of the corpus's groups in a batch
    every: int = 500  # steps between checkpoints
    bf16: bool = True
    range_batches: int = 8  # on which the ranges for products of 8 bits are measured; 0: no such products
    model: NanoConfig = field(default_factory=NanoConfig)

    def __post_init__(self) -> None:
        if (
            min(self.batch, self.crop, self.steps, self.every) < 1
            or self.range_batches < 0
            or self.seed < 0
            or self.rate <= 0
        ):
            raise ValueError("batch, crop, steps, every and rate are positive, seed and range_batches not negative")


def draw_depths(c: CodecTraining, rng: np.random.Generator) -> Tensor:
    """How many leading codebooks each crop of a batch keeps, [B]; one more than there are: see `SplitQuantizer`."""
    last = c.model.num_codebooks
    kind = rng.random(c.batch)
    depth = np.where(kind < c.full_depth, last, rng.integers(1, last + 1, c.batch))
    depth = np.where(kind >= 1.0 - c.half_depth, max(1, last // 2), depth)
    return torch.from_numpy(np.where(rng.random(c.batch) < c.endless, last + 1, depth))


class CodecTrainer:
    """Everything a run carries from step to step, and its checkpoint."""

    def __init__(self, c: CodecTraining, corpus: Corpus, out: Path, device: torch.device | None = None) -> None:
        """`device` computes (default: the CPU); checkpoints of one device are taken up on any other."""
        self.device = device or torch.device("cpu")
        prepare_device(self.device)
        self.c, self.corpus, self.out = c, corpus, out
        self.store = Store(corpus, self.device)
        torch.manual_seed(c.seed)
        self.model = NanoModel(c.model).to(self.device)
        self.teacher = nn.Linear(c.model.codebook_dim, c.model.semantic_dim).to(self.device)
        self.mel = MelLoss(c.model.sample_rate).to(self.device)
        self.weights = group_weights(corpus, c.shares)
        self.step = 0
        self.average = {k: v.clone() for k, v in self.model.state_dict().items()}
        self.optimiser = torch.optim.AdamW(self.parameters(), c.rate, betas=(0.8, 0.99), weight_decay=1e-2, fused=True)
        out.mkdir(parents=True, exist_ok=True)
        if (out / STATE).exists():
            self.load(out / STATE)

    def parameters(self) -> list[nn.Parameter]:
        return [*self.model.parameters(), *self.teacher.parameters()]

    def load(self, path: Path) -> None:
        """Go on from a checkpoint. Raises InputError if it is of a codec of another shape."""
        saved = torch.load(path, map_location=self.device, weights_only=True)
        if json.loads(saved["config"])["model"] != json.loads(json.dumps(asdict(self.c.model))):
            raise InputError(f"The checkpoint {path} is of a codec of another shape; give another folder.")
        self.model.load_state_dict(saved["model"])
        self.teacher.load_state_dict(saved["teacher"])
        self.optimiser.load_state_dict(saved["optimiser"])
        self.average, self.step = saved["average"], saved["step"]
        self.load_extra(saved)

    def extra_state(self) -> dict[str, Any]:
        """What a later stage adds to a checkpoint."""
        return {}

    def load_extra(self, saved: dict[str, Any]) -> None:
        """Take back what `extra_state` gave."""

    def save(self) -> None:
        """Write a checkpoint; the old one stays until the new one is whole."""
        saved = {
            "model": self.model.state_dict(),
            "teacher": self.teacher.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average,
            "step": self.step,
            "config": json.dumps(asdict(self.c)),
            **self.extra_state(),
        }
        with replacing(self.out / STATE) as part:
            torch.save(saved, part)
        self.export()

    def export(self) -> None:
        """Write the averaged weights, ready for `--codec`; without `range_batches` they compute in single precision."""
        model = self.averaged()
        met = met_ranges(model, self.looks()) if self.c.range_batches else None
        save_nano(model, self.out / WEIGHTS, {"steps": str(self.step)}, met)

    def looks(self) -> Iterator[Tensor]:
        """Speech to see what the layers meet: a few batches, always the same."""
        rng = np.random.default_rng([self.c.seed, 2])
        few = replace(self.c, batch=min(self.c.batch, LOOKED))
        for _ in range(self.c.range_batches):
            yield draw(self.store, few, self.weights, rng).speech.cpu()

    def precision(self) -> AbstractContextManager[Any]:
        """bfloat16 for matrix products and convolutions, where asked for."""
        return autocast(self.device, self.c.bf16)

    def losses(self, batch: Batch, rng: np.random.Generator, generator: torch.Generator) -> dict[str, Tensor]:
        """One forward pass of stage 1."""
        c = self.c
        with self.precision():
            latents, _ = self.model.encoder(batch.speech)
        quantised = self.model.quantizer(latents, draw_depths(c, rng).to(self.device), generator)
        entries = quantised.entries
        found: dict[str, Tensor] = {"commitment": quantised.commitment}
        if batch.features is not None:
            found["taught"] = taught_loss(self.teacher(quantised.semantic), batch.features)
        truth = None
        if self.step < c.truth_until or rng.random() >= c.own_pitch:
            truth = (torch.where(batch.f0 > 0, batch.f0, 100.0), (batch.f0 > 0).float())
        with self.precision():
            rendered = self.model.decoder(self.model.quantizer.latents(entries), entries, None, truth)
        found["mel"] = self.mel(rendered.speech[:, LAG:], batch.speech[:, :-LAG])
        found["f0"], found["voicing"] = pitch_loss(rendered.f0.float(), rendered.voicing.float(), batch.f0)
        return found

    def advance(self) -> dict[str, Tensor]:
        """One optimiser step; the randomness of a step depends on the seed and its number alone."""
        c = self.c
        rng = np.random.default_rng([c.seed, self.step])
        generator = torch.Generator(self.device).manual_seed(int(rng.integers(1 << 62)))
        if self.step == 0:
            self.begin()
            self.settle(rng, generator)
        self.model.train()
        batch = draw(self.store, c, self.weights, rng)
        found = self.losses(batch, rng, generator)
        total = torch.stack([getattr(c, name) * value for name, value in found.items()]).sum()
        for group in self.optimiser.param_groups:
            group["lr"] = cosine_rate(self.step, c.rate, c.final_rate, c.warmup, c.steps)
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(total)
        norm = nn.utils.clip_grad_norm_(self.parameters(), 20.0)
        careful_step(self.optimiser, norm)
        self.step += 1
        follow(self.average, self.model, self.step, c.average)
        return {name: value.detach() for name, value in found.items()} | {"norm": norm}

    @torch.no_grad()
    def begin(self) -> None:
        """Start the latents from the principal components of twenty batches."""
        rng = np.random.default_rng([self.c.seed, 1])
        speech = [draw(self.store, self.c, self.weights, rng).speech for _ in range(20)]
        frames = torch.cat([self.model.encoder.features(x)[0] for x in speech])
        start_from_components(self.model, frames.reshape(-1, self.model.encoder.direct.in_features))
        self.average = {k: v.clone() for k, v in self.model.state_dict().items()}

    @torch.no_grad()
    def settle(self, rng: np.random.Generator, generator: torch.Generator) -> None:
        """Place the codebooks on the latents of many batches."""
        rows = []
        for _ in range(self.c.settle_on):
            latents, _ = self.model.encoder(draw(self.store, self.c, self.weights, rng).speech)
            rows.append(latents.flatten(0, 1))
        self.model.quantizer.settle(torch.cat(rows), generator)
        for name, value in self.model.quantizer.state_dict().items():
            self.average[f"quantizer.{name}"].copy_(value)

    def averaged(self) -> NanoModel:
        """A copy of the model with the averaged weights."""
        model = NanoModel(self.c.model)
        model.load_state_dict(self.average)  # on the CPU, wherever they were trained
        return model.eval()


def train_codec(trainer: CodecTrainer, until: int, report: Report) -> None:
    """Run steps until `until`, logging means to log.jsonl and saving every `every` steps."""
    run_steps(trainer, until, trainer.c.every, report)
