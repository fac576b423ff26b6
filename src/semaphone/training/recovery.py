"""Training the model that fills what was lost: `semaphone train recovery` (LargeSC §III-D, §IV-A2).

A step draws utterances from a token cache and a fate for each (training/survival.py), and lowers eq 19:
the cross entropy of every token the model would have to predict, the semantic one weighted by λ, and of
the aligned text where there is some. What was lost in the past is remembered as the receiver will
remember it: half of it as a gap, half as the model's own guess, made by a first pass without gradients.

A quarter of the utterances have no loss in their past. So that they teach something too, a fate is drawn
for each of their chunks as if it were the first to be hit.

    train_recovery(RecoveryTraining(), tokens, Path("run"), steps=20_000)

resumes from the newest checkpoint in `run`; log.jsonl holds the losses and the dev figures.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semaphone.errors import InputError
from semaphone.files import replacing
from semaphone.recovery import depth
from semaphone.recovery.base import TokenStatus
from semaphone.recovery.rq_config import RQTransformerConfig
from semaphone.recovery.rq_state import ABSENT, GUESSED, HEARD
from semaphone.recovery.rq_transformer import RQTransformer
from semaphone.recovery.rq_weights import save
from semaphone.training.device import autocast, prepare_device
from semaphone.training.recovery_batches import Ahead, Batch, Planned, draw, plan, planned
from semaphone.training.recovery_start import start_from_entries, start_from_model
from semaphone.training.runs import Pace, Report, cosine_rate, follow, run_steps
from semaphone.training.survival import Survival
from semaphone.training.tokens import TokenSet

__all__ = ["Batch", "Losses", "RecoveryTrainer", "RecoveryTraining", "TimeLeft", "draw", "train_recovery"]

SPARSE_PART, DENSE_PART = 1024, 4096  # chunks whose guesses are made at once on a processor, and on a GPU
IGNORED = -100  # the goal of a token that is no target
STATE = "checkpoint.pt"
WEIGHTS = "recovery.safetensors"


@dataclass(frozen=True)
class RecoveryTraining:
    """Settings of one training run."""

    seed: int = 1
    batch: int = 16  # utterances a step
    crop: int = 125  # chunks of 80 ms, 10 s
    rate: float = 6e-4  # learning rate of AdamW after the warm-up
    final_rate: float = 3e-5  # where the cosine ends, at step `steps`
    warmup: int = 300  # steps
    steps: int = 20_000
    decay: float = 0.05  # AdamW's weight decay
    dropout: float = 0.1  # of the temporal transformer's input and of the depth transformer's context
    semantic: float = 10.0  # λ of the semantic token in eq 19; acoustic ones have 1
    text: float = 1.0  # weight of the text stream's cross entropy, where utterances are aligned
    text_dropout: float = 0.5  # share of utterances whose text is padding, as it is when the model is used
    gaps: float = 0.5  # share of lost tokens that the past remembers as gaps; the others are own guesses
    rows: int = 640  # chunks a step that go through the depth transformer with gradients
    average: float = 0.999  # decay of the moving average of weights
    every: int = 500  # steps between checkpoints
    dev_every: int = 2_000  # steps between looks at the dev set
    bf16: bool = True  # bfloat16 in matrix products: a third less time on a processor that has it
    survival: Survival = field(default_factory=Survival)
    model: RQTransformerConfig = field(default_factory=RQTransformerConfig)

    def __post_init__(self) -> None:
        if min(self.batch, self.crop, self.steps, self.rows, self.every, self.dev_every) < 1:
            raise InputError("Batch, crop, steps, rows and intervals of a training are at least 1.")
        if not 0 <= self.dropout < 1 or not 0 <= self.gaps <= 1 or not 0 <= self.text_dropout <= 1:
            raise InputError("Dropouts and the share of gaps of a training are between 0 and 1.")


@dataclass(frozen=True)
class TimeLeft:
    """A training that is given a time, and may be cut off."""

    minutes: float | None = None  # in which the training ends: the number of steps follows (training/runs.py, `Pace`)
    deadline: float | None = None  # s of time.monotonic after which no step begins

    def __post_init__(self) -> None:
        if self.minutes is not None and not 0 < self.minutes < 1e6:
            raise InputError(f"A training takes more than 0 minutes, not {self.minutes:g}.")


class Losses:
    """Eq 19 for one model: forward passes in time steps, chunks with something to predict in depth.

    A processor computes logits only where they are wanted, codebook by codebook (`sparse`); a GPU computes all
    codebooks of a chunk at once, which is quicker there than to find out where they are wanted.
    """

    def __init__(self, model: RQTransformer, c: RecoveryTraining, sparse: bool = True) -> None:
        self.model, self.c, self.sparse = model, c, sparse
        self._lambda = torch.ones(model.config.num_codebooks)
        self._lambda[0] = c.semantic

    def __call__(self, batch: Batch, rng: np.random.Generator) -> dict[str, Tensor]:
        """`loss` (eq 19), and in `semantic`, `acoustic`, `text` the mean cross entropies it is made of."""
        p = plan(batch, self.c, rng)
        return self.of(p, self.past(p))

    def past(self, p: Planned) -> Tensor:
        """What later chunks remember of a batch, own guesses among it, in time steps."""
        batch, none, delayed = p.batch, self.model.config.codebook_size, self.model.delayed
        tokens, text = delayed(batch.tokens, none), self._longer(batch.text)
        status, past = delayed(batch.status, TokenStatus.UNSENT), delayed(batch.past, none)
        return self._with_guesses(batch, tokens, status, past, delayed(batch.guess, 0), text, p.guessed)

    def of(self, p: Planned, past: Tensor) -> dict[str, Tensor]:
        """The losses of a batch whose `past` is known."""
        batch, none, delayed = p.batch, self.model.config.codebook_size, self.model.delayed
        tokens, target = delayed(batch.tokens, none), delayed(batch.target, 0)
        status, text = delayed(batch.status, TokenStatus.UNSENT), self._longer(batch.text)
        heard = self._heard(status, past, batch.clean)
        a, context = self.model.contexts(tokens, status, past, heard, text, batch.coming)
        parts = [x.flatten(0, 1).index_select(0, p.rows) for x in (context, tokens, target, text[..., None])]
        goal = self._longer(batch.text_target, -100) if p.has_text else None
        return self._entropies(parts[0], parts[1], parts[2], parts[3][:, 0], a, goal)

    def _longer(self, x: Tensor, fill: int | None = None) -> Tensor:
        """A text stream [B, T] in time steps."""
        config = self.model.config
        return F.pad(x, (0, config.acoustic_delay), value=config.text_pad if fill is None else fill)

    def _heard(self, status: Tensor, past: Tensor, clean: Tensor) -> Tensor:
        """What the temporal transformer is told of each token of the past."""
        none = self.model.config.codebook_size
        heard = torch.where((status == TokenStatus.RECEIVED) | clean, HEARD, GUESSED)
        return torch.where(past == none, ABSENT, heard)

    @torch.no_grad()
    def _with_guesses(
        self,
        batch: Batch,
        tokens: Tensor,
        status: Tensor,
        past: Tensor,
        guess: Tensor,
        text: Tensor,
        places: Tensor | None = None,
    ) -> Tensor:
        """The past with the model's likeliest tokens where guesses are wanted (`places` of [B * time steps])."""
        if places is None:
            places = guess.any(2).flatten().nonzero()[:, 0]
        if not len(places):
            return past
        model, training = self.model, self.model.training
        model.eval()
        heard = self._heard(status, past, batch.clean)
        _, context = model.contexts(tokens, status, past, heard, text, batch.coming)
        flat = [x.flatten(0, 1) for x in (context, tokens, text[..., None], guess)]
        made = past.flatten(0, 1).clone()
        for part in torch.split(places, SPARSE_PART if self.sparse else DENSE_PART):
            rows = [x.index_select(0, part) for x in flat]
            hidden = model.depth_hidden(rows[0], rows[1], rows[2][:, 0])
            made.index_copy_(0, part, self._likeliest(hidden, made.index_select(0, part), rows[3]))
        model.train(training)
        return made.view_as(past)

    def _likeliest(self, hidden: Tensor, made: Tensor, wanted: Tensor) -> Tensor:
        """`made` [M, N_Q] with the likeliest tokens where they are `wanted`."""
        inner = self.model.depth_decoder
        if not self.sparse:
            return torch.where(wanted, depth.per_codebook(inner.lm_heads, hidden, 0).argmax(-1), made)
        for k in range(made.shape[1]):
            rows = wanted[:, k].nonzero()[:, 0]
            if len(rows):
                made[rows, k] = depth.head(inner, hidden[rows, k], k).argmax(-1)
        return made

    def _entropies(
        self, context: Tensor, tokens: Tensor, target: Tensor, text: Tensor, a: Tensor, goal: Tensor | None
    ) -> dict[str, Tensor]:
        count = self.model.config.num_codebooks
        sums, numbers = a.new_zeros(count), a.new_zeros(count)
        if len(tokens):
            hidden = self.model.depth_hidden(context, tokens, text)
            sums, numbers = self._sums(hidden, tokens, target), target.sum(0).float()
        if self._lambda.device != sums.device:
            self._lambda = self._lambda.to(sums.device)
        weight = self._lambda.to(sums)
        loss = (weight * sums).sum() / (weight * numbers).sum().clamp(min=1)
        found = {
            "semantic": sums[0] / numbers[0].clamp(min=1),
            "acoustic": sums[1:].sum() / numbers[1:].sum().clamp(min=1),
        }
        if goal is not None:
            found["text"] = F.cross_entropy(self.model.text_logits(a).float().flatten(0, 1), goal.flatten())
            loss = loss + self.c.text * found["text"]
        return {"loss": loss} | found

    def _sums(self, hidden: Tensor, tokens: Tensor, target: Tensor) -> Tensor:
        """Cross entropies in nat summed over the targets of each codebook, [N_Q]."""
        if self.sparse:
            parts = [token_entropy(self.model, hidden, tokens, target, k) for k in range(target.shape[1])]
            return torch.stack([p.float().sum() for p in parts])
        logits = depth.per_codebook(self.model.depth_decoder.lm_heads, hidden, 0).transpose(0, 1)  # [N_Q, M, K]
        goal = torch.where(target, tokens, IGNORED).T
        entropy = F.cross_entropy(logits.float().flatten(0, 1), goal.flatten(), ignore_index=IGNORED, reduction="none")
        return entropy.view(goal.shape).sum(1)


def token_entropy(model: RQTransformer, hidden: Tensor, tokens: Tensor, target: Tensor, k: int) -> Tensor:
    """Cross entropies in nat of codebook k where it is a target: hidden [M, N_Q, H], tokens, target [M, N_Q] → [m]."""
    rows = target[:, k].nonzero()[:, 0]
    if not len(rows):
        return hidden.new_zeros(0)
    logits = depth.head(model.depth_decoder, hidden[rows, k], k)
    return F.cross_entropy(logits.float(), tokens[rows, k], reduction="none")


class RecoveryTrainer:
    """Everything a run carries from step to step, and its checkpoint."""

    def __init__(
        self,
        c: RecoveryTraining,
        tokens: TokenSet,
        out: Path,
        entries: Tensor | None = None,
        start: RQTransformer | None = None,
        device: torch.device | None = None,
        workers: int = 0,
    ) -> None:
        """`entries` [N_Q, K, C] of the codec start the tables, or `start` all weights (training/recovery_start.py).

        It computes on `device` (default: the CPU). Batches are drawn by `workers` processes ahead of their steps;
        0: in the step. Raises InputError if the tokens or `start` do not fit the model, or a checkpoint in `out` is
        of another run.
        """
        if (tokens.num_codebooks, tokens.codebook_size) != (c.model.num_codebooks, c.model.codebook_size):
            raise InputError(
                f"The tokens have {tokens.num_codebooks} codebooks of {tokens.codebook_size} entries, the recovery "
                f"model {c.model.num_codebooks} of {c.model.codebook_size}."
            )
        self.device = device or torch.device("cpu")
        prepare_device(self.device)
        torch.manual_seed(c.seed)
        self.c, self.tokens, self.out = c, tokens, out
        self.timed = False  # whether `c.steps` was set by the time there was
        self.resumable = True  # False: `save` writes the weights alone
        self.model = RQTransformer(c.model)
        if entries is not None:
            start_from_entries(self.model, entries)
            self.model.points = entries
        if start is not None:
            start_from_model(self.model, start)
        self.model.dropout.p = c.dropout
        self.model.to(self.device)
        self.losses = Losses(self.model, c, sparse=self.device.type == "cpu")
        self.step = 0
        self.average = {k: v.clone() for k, v in self.model.state_dict().items()}
        self.optimiser = torch.optim.AdamW(_groups(self.model, c.decay), c.rate, betas=(0.9, 0.98), fused=True)
        self._workers, self._waited = workers, 0.0
        self._ahead: Ahead | None = None
        out.mkdir(parents=True, exist_ok=True)
        if (out / STATE).exists():
            self.load(out / STATE)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint. Raises InputError if its model has other sizes or another codec.

        A number of steps that was set by the time there was stays.
        """
        saved = torch.load(path, map_location=self.device, weights_only=True)
        config = json.loads(saved["config"])
        if config["model"] != json.loads(json.dumps(asdict(self.c.model))):
            raise InputError(f"The checkpoint {path} belongs to another model or codec; give another folder.")
        self.model.load_state_dict(saved["model"])
        self.optimiser.load_state_dict(saved["optimiser"])
        self.average, self.step = saved["average"], saved["step"]
        if saved.get("timed", False):
            self.settle(config["steps"])

    def settle(self, steps: int) -> None:
        """Set the step at which the learning rate ends, found by the time there is."""
        self.c, self.timed = replace(self.c, steps=steps), True

    def save(self) -> None:
        """Write a checkpoint and the averaged weights; the old ones stay until the new ones are whole."""
        if self.resumable:
            saved = {
                "model": self.model.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "average": self.average,
                "step": self.step,
                "timed": self.timed,
                "config": json.dumps(asdict(self.c)),
            }
            with replacing(self.out / STATE) as part:
                torch.save(_on_cpu(saved), part)
        self.save_weights()

    def save_weights(self) -> None:
        """Write the averaged weights."""
        save(self.averaged(), self.out / WEIGHTS)

    def close(self) -> None:
        """End the processes that draw batches."""
        if self._ahead is not None:
            self._ahead.close()
            self._waited += self._ahead.waited
            self._ahead = None

    def advance(self) -> dict[str, Tensor]:
        """One optimiser step; the randomness of a step depends on the seed and its number alone."""
        c = self.c
        p = self._planned().to(self.device)
        torch.manual_seed(p.seed)  # dropout
        self.model.train()
        with autocast(self.device, c.bf16):
            past = self.losses.past(p)
        with autocast(self.device, c.bf16):  # on its own: what the first pass has rounded it keeps without gradients
            found = self.losses.of(p, past)
        for group in self.optimiser.param_groups:
            group["lr"] = cosine_rate(self.step, c.rate, c.final_rate, c.warmup, c.steps)
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(found["loss"])
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        _update(self.optimiser, norm)
        self.step += 1
        follow(self.average, self.model, self.step, c.average)
        return {name: value.detach() for name, value in found.items()} | {"norm": norm}

    @property
    def waited(self) -> float:
        """Seconds that steps have waited for the processes that draw batches."""
        return self._waited + (0.0 if self._ahead is None else self._ahead.waited)

    def _planned(self) -> Planned:
        if not self._workers:
            return planned(self.tokens, self.c, self.step)
        if self._ahead is None:
            self._ahead = Ahead(self.tokens, self.c, self._workers, self.step)
        return self._ahead.take()

    def averaged(self) -> RQTransformer:
        """A copy of the model with the averaged weights, on its device."""
        model = RQTransformer(self.c.model).to(self.device)
        model.load_state_dict(self.average)
        model.points = self.model.points
        return model.eval()


def _update(optimiser: torch.optim.Optimizer, norm: Tensor) -> None:
    """A step of a fused optimiser, unless the gradients' norm is not finite: its kernels look, nobody waits for it."""
    optimiser.found_inf = (~torch.isfinite(norm)).float()  # type: ignore[attr-defined]
    optimiser.step()


def _on_cpu(x: Any) -> Any:
    """A checkpoint with its tensors on the CPU."""
    if isinstance(x, Tensor):
        return x.detach().cpu()
    if isinstance(x, dict):
        return {key: _on_cpu(value) for key, value in x.items()}
    return [_on_cpu(value) for value in x] if isinstance(x, list) else x


def _groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Matrices decay, gains and tables do not."""
    tables = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    wide = [p for p in model.parameters() if p.dim() > 1 and id(p) not in tables]
    others = [p for p in model.parameters() if p.dim() <= 1 or id(p) in tables]
    return [{"params": wide, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]


def train_recovery(
    c: RecoveryTraining,
    tokens: TokenSet,
    out: Path,
    dev: TokenSet | None = None,
    until: int | None = None,
    report: Report = lambda step, row: None,
    entries: Tensor | None = None,
    start: RQTransformer | None = None,
    device: torch.device | None = None,
    workers: int = 0,
    time_left: TimeLeft | None = None,
) -> Path:
    """Train until step `until` (default: `c.steps`), from the newest checkpoint in `out` if there is one.

    Writes log.jsonl, checkpoint.pt and recovery.safetensors (averaged weights, 8 bits); returns the latter's path.
    `entries` [N_Q, K, C] of the codec's codebooks start the tables, or `start`, a model trained before, everything.
    `dev` is looked at every `dev_every` steps and at the end (see training/recovery_dev.py). `device` and `workers`
    are those of RecoveryTrainer. With `time_left` the number of steps follows from the time instead.
    """
    from semaphone.training.recovery_dev import evaluate

    time_left = time_left or TimeLeft()
    trainer = RecoveryTrainer(c, tokens, out, entries, start, device, workers)
    last = trainer.c.steps if until is None else min(until, trainer.c.steps)
    pace = None
    if time_left.minutes is not None and not trainer.timed:
        last = sys.maxsize
        pace = Pace(60 * time_left.minutes, trainer.settle, lambda: wait_for(trainer.device))

    def look(step: int) -> dict[str, Any] | None:
        if dev is None or (step % c.dev_every and step != (trainer.c.steps if trainer.timed else last)):
            return None
        return {"dev": evaluate(trainer.averaged(), dev, tokens)}

    try:
        run_steps(trainer, last, c.every, report, look, time_left.deadline, pace)
    finally:
        trainer.close()
    return out / WEIGHTS


def wait_for(device: torch.device) -> None:
    """Returns when a device has done all it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
