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

import contextlib
import json
from dataclasses import asdict, dataclass, field
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
from semaphone.training.recovery_start import start_from_entries, start_from_model
from semaphone.training.runs import Report, cosine_rate, follow, run_steps
from semaphone.training.survival import Survival, draw_status
from semaphone.training.tokens import TokenSet, TokenUtterance

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


@dataclass
class Batch:
    """Utterances and their fate; everything is [B, T, N_Q] but the text streams, [B, T]."""

    tokens: Tensor
    status: Tensor  # TokenStatus: what is known when a chunk is recovered
    coming: Tensor  # TokenStatus: what is known by then of the next chunk
    past: Tensor  # what later chunks remember: the tokens, K for gaps and for guesses not made yet
    guess: Tensor  # bool: where the past is to hold the model's own guess
    target: Tensor  # bool: tokens whose cross entropy counts
    clean: Tensor  # [B, 1, 1] bool: nothing was lost before the chunk that is recovered
    text: Tensor  # text stream that goes in
    text_target: Tensor  # text stream that is to come out; -100: no text


def crop_of(utterance: TokenUtterance, length: int, pad: int, rng: np.random.Generator) -> tuple[Any, Any, int]:
    """A random piece: tokens [T, N_Q], text [T], and how many of the T chunks are the utterance's."""
    total = utterance.tokens.shape[1]
    first = int(rng.integers(0, max(total - length, 0) + 1))
    part = slice(first, min(first + length, total))
    count = part.stop - first
    tokens = np.zeros((length, utterance.tokens.shape[0]), np.int64)
    tokens[:count] = utterance.tokens.T[part]
    text = np.full(length, pad, np.int64)
    if utterance.text is not None:
        text[:count] = utterance.text[part]
    return tokens, text, count


def draw(tokens: TokenSet, c: RecoveryTraining, rng: np.random.Generator) -> Batch:
    """A random batch; utterances are drawn by their length."""
    lengths = tokens.lengths
    chosen = rng.choice(len(tokens), c.batch, p=lengths / lengths.sum())
    count, none, pad = c.model.num_codebooks, c.model.codebook_size, c.model.text_pad
    x = np.zeros((c.batch, c.crop, count), np.int64)
    text, goal = np.full((c.batch, c.crop), pad, np.int64), np.full((c.batch, c.crop), -100, np.int64)
    valid = np.zeros((c.batch, c.crop, 1), bool)
    for b, i in enumerate(chosen):
        utterance = tokens[int(i)]
        x[b], line, length = crop_of(utterance, c.crop, pad, rng)
        valid[b, :length] = True
        if utterance.text is not None:
            goal[b, :length] = line[:length]
            if rng.random() >= c.text_dropout:
                text[b] = line
    status, coming = draw_status(c.survival, c.batch, c.crop, count, rng)
    missing = (status != TokenStatus.RECEIVED) & valid
    clean = (rng.random(c.batch) >= c.survival.lossy)[:, None, None]
    target = missing if c.model.sees_received else np.broadcast_to(valid, x.shape)
    past = np.where(missing & ~clean, none, x)
    # Unsent tokens are all predicted or none, as the receiver's setting has it; lost ones by chunk.
    unsent = rng.random((c.batch, 1, 1)) >= c.gaps
    lost = rng.random((c.batch, c.crop, 1)) >= c.gaps
    guess = missing & ~clean & np.where(status == TokenStatus.UNSENT, unsent, lost)
    if not c.model.sees_received:  # what is known of a chunk does not reach the model before its first token
        status = np.where(clean, TokenStatus.RECEIVED, status)
    arrays = (x, status, coming, past, guess, target, clean, text, goal)
    return Batch(*(torch.from_numpy(np.ascontiguousarray(a)) for a in arrays))


class Losses:
    """Eq 19 for one model: forward passes in time steps, chunks with something to predict in depth."""

    def __init__(self, model: RQTransformer, c: RecoveryTraining) -> None:
        self.model, self.c = model, c
        self._lambda = torch.ones(model.config.num_codebooks)
        self._lambda[0] = c.semantic

    def __call__(self, batch: Batch, rng: np.random.Generator) -> dict[str, Tensor]:
        """`loss` (eq 19), and in `semantic`, `acoustic`, `text` the mean cross entropies it is made of."""
        model, none = self.model, self.model.config.codebook_size
        delayed = model.delayed
        tokens = delayed(batch.tokens, none)
        status, target = delayed(batch.status, TokenStatus.UNSENT), delayed(batch.target, 0)
        past, guess = delayed(batch.past, none), delayed(batch.guess, 0)
        text, goal = self._longer(batch.text, tokens), self._longer(batch.text_target, tokens, -100)
        past = self._with_guesses(batch, tokens, status, past, guess, text)
        heard = self._heard(status, past, batch.clean)
        a, context = model.contexts(tokens, status, past, heard, text, batch.coming)
        rows = self._rows(target, rng)
        return self._entropies(context[rows], tokens[rows], target[rows], text[rows], a, goal)

    def _longer(self, x: Tensor, tokens: Tensor, fill: int | None = None) -> Tensor:
        """A text stream [B, T] in time steps."""
        more = tokens.shape[1] - x.shape[1]
        return F.pad(x, (0, more), value=self.model.config.text_pad if fill is None else fill)

    def _heard(self, status: Tensor, past: Tensor, clean: Tensor) -> Tensor:
        """What the temporal transformer is told of each token of the past."""
        none = self.model.config.codebook_size
        heard = torch.where((status == TokenStatus.RECEIVED) | clean, HEARD, GUESSED)
        return torch.where(past == none, ABSENT, heard)

    def _rows(self, target: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """(stream, time step) of the chunks that go through the depth transformer: at most `rows` with a target."""
        found = target.any(2).nonzero()
        if len(found) > self.c.rows:
            found = found[torch.from_numpy(rng.choice(len(found), self.c.rows, replace=False))]
        return found[:, 0], found[:, 1]

    @torch.no_grad()
    def _with_guesses(
        self, batch: Batch, tokens: Tensor, status: Tensor, past: Tensor, guess: Tensor, text: Tensor
    ) -> Tensor:
        """The past with the model's likeliest tokens where guesses are wanted."""
        found = guess.any(2).nonzero()
        if not len(found):
            return past
        model, training = self.model, self.model.training
        model.eval()
        heard = self._heard(status, past, batch.clean)
        _, context = model.contexts(tokens, status, past, heard, text, batch.coming)
        past = past.clone()
        for part in torch.split(found, 1024):
            at = (part[:, 0], part[:, 1])
            hidden = model.depth_hidden(context[at], tokens[at], text[at])
            made, wanted = past[at], guess[at]
            for k in range(made.shape[1]):
                rows = wanted[:, k].nonzero()[:, 0]
                if len(rows):
                    made[rows, k] = depth.head(model.depth_decoder, hidden[rows, k], k).argmax(-1)
            past[at] = made
        model.train(training)
        return past

    def _entropies(
        self, context: Tensor, tokens: Tensor, target: Tensor, text: Tensor, a: Tensor, goal: Tensor
    ) -> dict[str, Tensor]:
        count = self.model.config.num_codebooks
        sums, numbers = a.new_zeros(count), a.new_zeros(count)
        if len(tokens):
            hidden = self.model.depth_hidden(context, tokens, text)
            parts = [token_entropy(self.model, hidden, tokens, target, k) for k in range(count)]
            sums = torch.stack([p.float().sum() for p in parts])
            numbers = target.sum(0).float()
        weight = self._lambda.to(sums)
        loss = (weight * sums).sum() / (weight * numbers).sum().clamp(min=1)
        found = {
            "semantic": sums[0] / numbers[0].clamp(min=1),
            "acoustic": sums[1:].sum() / numbers[1:].sum().clamp(min=1),
        }
        if (goal >= 0).any():
            found["text"] = F.cross_entropy(self.model.text_logits(a).float().flatten(0, 1), goal.flatten())
            loss = loss + self.c.text * found["text"]
        return {"loss": loss} | found


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
    ) -> None:
        """`entries` [N_Q, K, C] of the codec start the tables, or `start` all weights (training/recovery_start.py).

        Raises InputError if the tokens or `start` do not fit the model, or a checkpoint in `out` is of another run.
        """
        if (tokens.num_codebooks, tokens.codebook_size) != (c.model.num_codebooks, c.model.codebook_size):
            raise InputError(
                f"The tokens have {tokens.num_codebooks} codebooks of {tokens.codebook_size} entries, the recovery "
                f"model {c.model.num_codebooks} of {c.model.codebook_size}."
            )
        torch.set_flush_denormal(True)
        torch.manual_seed(c.seed)
        self.c, self.tokens, self.out = c, tokens, out
        self.model = RQTransformer(c.model)
        if entries is not None:
            start_from_entries(self.model, entries)
            self.model.points = entries
        if start is not None:
            start_from_model(self.model, start)
        self.model.dropout.p = c.dropout
        self.losses = Losses(self.model, c)
        self.step = 0
        self.average = {k: v.clone() for k, v in self.model.state_dict().items()}
        self.optimiser = torch.optim.AdamW(_groups(self.model, c.decay), c.rate, betas=(0.9, 0.98), fused=True)
        out.mkdir(parents=True, exist_ok=True)
        if (out / STATE).exists():
            self.load(out / STATE)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint. Raises InputError if its model has other sizes or another codec."""
        saved = torch.load(path, weights_only=True)
        if json.loads(saved["config"])["model"] != json.loads(json.dumps(asdict(self.c.model))):
            raise InputError(f"The checkpoint {path} belongs to another model or codec; give another folder.")
        self.model.load_state_dict(saved["model"])
        self.optimiser.load_state_dict(saved["optimiser"])
        self.average, self.step = saved["average"], saved["step"]

    def save(self) -> None:
        """Write a checkpoint and the averaged weights; the old ones stay until the new ones are whole."""
        saved = {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average,
            "step": self.step,
            "config": json.dumps(asdict(self.c)),
        }
        with replacing(self.out / STATE) as part:
            torch.save(saved, part)
        save(self.averaged(), self.out / WEIGHTS)

    def advance(self) -> dict[str, float]:
        """One optimiser step; the randomness of a step depends on the seed and its number alone."""
        c = self.c
        rng = np.random.default_rng([c.seed, self.step])
        torch.manual_seed(int(rng.integers(1 << 62)))  # dropout
        self.model.train()
        with precision(c.bf16):
            found = self.losses(draw(self.tokens, c, rng), rng)
        for group in self.optimiser.param_groups:
            group["lr"] = cosine_rate(self.step, c.rate, c.final_rate, c.warmup, c.steps)
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(found["loss"])
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        if torch.isfinite(norm):
            self.optimiser.step()
        self.step += 1
        follow(self.average, self.model, self.step, c.average)
        return {name: float(value.detach()) for name, value in found.items()} | {"norm": float(norm)}

    def averaged(self) -> RQTransformer:
        """A copy of the model with the averaged weights."""
        model = RQTransformer(self.c.model)
        model.load_state_dict(self.average)
        model.points = self.model.points
        return model.eval()


def precision(bf16: bool) -> contextlib.AbstractContextManager[Any]:
    """bfloat16 for matrix products, where asked for."""
    return torch.autocast("cpu", torch.bfloat16, enabled=bf16)


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
) -> Path:
    """Train until step `until` (default: `c.steps`), from the newest checkpoint in `out` if there is one.

    Writes log.jsonl, checkpoint.pt and recovery.safetensors (averaged weights, 8 bits); returns the latter's path.
    `entries` [N_Q, K, C] of the codec's codebooks start the tables, or `start`, a model trained before, everything.
    `dev` is looked at every `dev_every` steps and at the end (see training/recovery_dev.py).
    """
    from semaphone.training.recovery_dev import evaluate

    trainer = RecoveryTrainer(c, tokens, out, entries, start)
    last = c.steps if until is None else min(until, c.steps)

    def look(step: int) -> dict[str, Any] | None:
        if dev is None or (step % c.dev_every and step != last):
            return None
        return {"dev": evaluate(trainer.averaged(), dev, tokens)}

    run_steps(trainer, last, c.every, report, look)
    return out / WEIGHTS
