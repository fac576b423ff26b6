"""Fine-tuning Moshi to fill what was lost: `semaphone train recovery --model moshi --lora-rank 8`.

Only low-rank adapters learn (LargeSC eq 18), on eq 19 with the losses of training/recovery.py; the
defaults are the paper's (§IV-A2): AdamW at 1e-6, 16 utterances at a time, 100 of those accumulated.
accelerate spreads a run over the devices there are. Both the adapters and the optimiser's state are
written after every `every` updates, and a run goes on from there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from semaphone.errors import InputError, MissingExtraError
from semaphone.files import replacing
from semaphone.recovery.lora import add_lora, load_adapter, save_adapter, trainable
from semaphone.recovery.rq_transformer import RQTransformer
from semaphone.training.recovery import Batch, Losses, RecoveryTraining, draw
from semaphone.training.survival import Survival

if TYPE_CHECKING:
    from semaphone.training.tokens import TokenSet

STATE = "optimiser.pt"
ADAPTER = "adapter"
Report = Callable[[int, dict[str, Any]], None]


@dataclass(frozen=True)
class LoraTraining:
    """Settings of one run."""

    rank: int = 8  # r of eq 18
    alpha: int = 16  # ΔW is scaled by alpha / rank
    depth: bool = True  # adapt the depth transformer, too
    rate: float = 1e-6  # learning rate of AdamW, constant
    batch: int = 16  # utterances at a time, on each device
    accumulate: int = 100  # batches an update
    steps: int = 100  # updates
    crop: int = 125  # chunks of 80 ms
    rows: int = 2_000  # chunks a batch that go through the depth transformer
    semantic: float = 10.0  # λ of the semantic token in eq 19; acoustic ones have 1
    every: int = 5  # updates between checkpoints
    seed: int = 1
    checkpointing: bool = True  # recompute the temporal layers in the backward pass
    survival: Survival = field(default_factory=Survival)

    def __post_init__(self) -> None:
        if min(self.rank, self.alpha, self.batch, self.accumulate, self.steps, self.crop, self.every) < 1:
            raise InputError("Rank, alpha, batch, accumulation, steps, crop and intervals are at least 1.")

    def drawing(self, model: RQTransformer) -> RecoveryTraining:
        """The settings that batches and losses are made with."""
        return RecoveryTraining(
            batch=self.batch,
            crop=self.crop,
            rows=self.rows,
            semantic=self.semantic,
            dropout=0.0,
            survival=self.survival,
            model=model.config,
        )


class Objective(nn.Module):
    """Eq 19 as a module, so that accelerate can wrap it."""

    def __init__(self, model: RQTransformer, settings: RecoveryTraining) -> None:
        super().__init__()
        self.model = model
        self._losses = Losses(model, settings)

    def forward(self, batch: Batch, rng: np.random.Generator) -> dict[str, Tensor]:
        return self._losses(batch, rng)


class LoraTrainer:
    """Everything a run carries from update to update."""

    def __init__(self, c: LoraTraining, model: RQTransformer, tokens: TokenSet, out: Path) -> None:
        """Raises InputError if the tokens do not fit the model. Goes on from a checkpoint in `out`."""
        try:
            from accelerate import Accelerator
        except ImportError as error:
            raise MissingExtraError("Adapting Moshi", "large") from error
        config = model.config
        if (tokens.num_codebooks, tokens.codebook_size) != (config.num_codebooks, config.codebook_size):
            raise InputError(
                f"The tokens have {tokens.num_codebooks} codebooks of {tokens.codebook_size} entries, the model "
                f"{config.num_codebooks} of {config.codebook_size}."
            )
        torch.manual_seed(c.seed)
        self.c, self.model, self.tokens, self.out, self.step = c, model, tokens, out, 0
        resumed = (out / STATE).exists()
        if resumed:
            load_adapter(model, out / ADAPTER, train=True)
        else:
            add_lora(model, c.rank, c.alpha, c.depth)
        model.checkpointing = c.checkpointing
        self.settings = c.drawing(model)
        optimiser = torch.optim.AdamW(trainable(model), c.rate)
        if resumed:
            saved = torch.load(out / STATE, weights_only=True)
            optimiser.load_state_dict(saved["optimiser"])
            self.step = saved["step"]
        self.accelerator: Any = Accelerator(gradient_accumulation_steps=c.accumulate)
        self.objective, self.optimiser = self.accelerator.prepare(Objective(model, self.settings), optimiser)
        out.mkdir(parents=True, exist_ok=True)

    def advance(self) -> dict[str, float]:
        """One update; its randomness depends on the seed, its number and the device alone."""
        self.model.train()
        sums: dict[str, float] = {}
        for i in range(self.c.accumulate):
            rng = np.random.default_rng([self.c.seed, self.step, i, self.accelerator.process_index])
            batch = draw(self.tokens, self.settings, rng)
            moved = Batch(**{name: value.to(self.accelerator.device) for name, value in vars(batch).items()})
            with self.accelerator.accumulate(self.objective):
                found = self.objective(moved, rng)
                self.accelerator.backward(found["loss"])
                if self.accelerator.sync_gradients:
                    self.accelerator.clip_grad_norm_(trainable(self.model), 1.0)
                self.optimiser.step()
                self.optimiser.zero_grad()
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) / self.c.accumulate
        self.step += 1
        return sums

    def save(self) -> None:
        """Write adapters and optimiser; the optimiser last, so that its presence tells of a whole checkpoint."""
        if not self.accelerator.is_main_process:
            return
        save_adapter(self.model, self.out / ADAPTER)
        saved = {"optimiser": self.optimiser.state_dict(), "step": self.step}
        with replacing(self.out / STATE) as part:
            torch.save(saved, part)


def train_lora(
    c: LoraTraining,
    model: RQTransformer,
    tokens: TokenSet,
    out: Path,
    until: int | None = None,
    report: Report = lambda step, row: None,
) -> Path:
    """Train adapters for `model` until update `until` (default: `c.steps`), from the checkpoint in `out` if there is
    one. Writes log.jsonl and returns the folder of the adapters.
    """
    trainer = LoraTrainer(c, model, tokens, out)
    last = c.steps if until is None else min(until, c.steps)
    with open(out / "log.jsonl", "a") as log:
        while trainer.step < last:
            began = time.monotonic()
            row: dict[str, Any] = {name: round(value, 5) for name, value in trainer.advance().items()}
            row["seconds"] = round(time.monotonic() - began, 3)
            if trainer.accelerator.is_main_process:
                log.write(json.dumps({"step": trainer.step, **row}) + "\n")
                log.flush()
            report(trainer.step, row)
            if trainer.step % c.every == 0 or trainer.step == last:
                trainer.save()
    return out / ADAPTER
