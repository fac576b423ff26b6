"""What a step of the recovery's training sees: utterances, their fate, and what of it is to be computed.

All of it is drawn on the CPU, by the seed and the number of the step alone, so that worker processes can draw
batches before they are wanted (`Ahead`), and the device that trains never has to tell how many tokens were lost.
"""

from __future__ import annotations

import multiprocessing
import pickle
import tempfile
import time
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semaphone.recovery.base import TokenStatus
from semaphone.recovery.rq_transformer import delayed
from semaphone.training.survival import draw_status
from semaphone.training.tokens import TokenSet, TokenUtterance
from semaphone.workers import end_with_parent

if TYPE_CHECKING:
    from semaphone.training.recovery import RecoveryTraining

AHEAD = 3  # batches for each worker that are drawn before they are wanted


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


@dataclass
class Planned:
    """A batch and which of its time steps go through the depth transformer, as places in [B * time steps]."""

    batch: Batch
    rows: Tensor  # [M], where cross entropies are computed
    guessed: Tensor  # [G], where the past is to hold the model's own guesses
    has_text: bool  # whether there is text to learn
    seed: int = 0  # of the step's dropout

    def to(self, device: torch.device) -> Planned:
        """The same on a device. Page-locked memory lets a GPU fetch it while it computes."""

        def there(x: Tensor) -> Tensor:
            if device.type == "cuda":
                x = x.pin_memory()
            x = x.to(device, non_blocking=True)
            return x if x.dtype == torch.bool else x.long()

        batch = Batch(*(there(getattr(self.batch, f.name)) for f in fields(Batch)))
        return replace(self, batch=batch, rows=there(self.rows), guessed=there(self.guessed))


def plan(batch: Batch, c: RecoveryTraining, rng: np.random.Generator) -> Planned:
    """What is to be computed of a batch: at most `rows` of the time steps that have a target, drawn at random."""
    late = c.model.acoustic_delay
    rows = _places(delayed(batch.target, 0, late))
    if len(rows) > c.rows:
        rows = rows[torch.from_numpy(rng.choice(len(rows), c.rows, replace=False)).to(rows.device)]
    guessed = _places(delayed(batch.guess, 0, late))
    return Planned(batch, rows, guessed, bool((batch.text_target >= 0).any()))


def _places(mask: Tensor) -> Tensor:
    return mask.any(2).flatten().nonzero()[:, 0]


def planned(tokens: TokenSet, c: RecoveryTraining, step: int) -> Planned:
    """The batch of a step; its randomness depends on the seed and the step's number alone."""
    rng = np.random.default_rng([c.seed, step])
    seed = int(rng.integers(1 << 62))
    return replace(plan(draw(tokens, c, rng), c, rng), seed=seed)


class Ahead:
    """Batches that worker processes draw before they are wanted, in the order of the steps."""

    def __init__(self, tokens: TokenSet, c: RecoveryTraining, workers: int, first: int) -> None:
        """`first` is the first step that will be asked for."""
        context = multiprocessing.get_context("spawn")  # a copy of a process that uses a GPU could not be relied on
        self._folder = tempfile.TemporaryDirectory()
        material = Path(self._folder.name) / "material"  # a process that is given much starts only after the one before
        material.write_bytes(pickle.dumps((tokens, c)))
        self._pool = ProcessPoolExecutor(workers, context, _begin, (material,))
        self._drawn: deque[Future[dict[str, Any]]] = deque()
        self._next = first
        self.waited = 0.0  # s that `take` has had to wait
        for _ in range(AHEAD * workers):
            self._order()

    def take(self) -> Planned:
        """The batch of the next step."""
        self._order()
        began = time.monotonic()
        found = self._drawn.popleft().result()
        self.waited += time.monotonic() - began
        return _unpacked(found)

    def close(self) -> None:
        """End the workers."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._folder.cleanup()

    def _order(self) -> None:
        self._drawn.append(self._pool.submit(_draw_ahead, self._next))
        self._next += 1


_material: tuple[TokenSet, RecoveryTraining] | None = None  # of a worker


def _begin(material: Path) -> None:
    global _material
    end_with_parent()
    torch.set_num_threads(1)
    _material = pickle.loads(material.read_bytes())


def _draw_ahead(step: int) -> dict[str, Any]:
    assert _material is not None
    return _packed(planned(*_material, step))


def _packed(p: Planned) -> dict[str, Any]:
    """As small arrays, for the way between processes."""

    def small(x: Tensor) -> NDArray[Any]:
        y = x.numpy()
        if y.dtype == bool:
            return y
        largest = max(int(y.max(initial=0)), -int(y.min(initial=0)))
        return y.astype(np.int8 if largest < 128 else np.int16 if largest < 32768 else np.int64)

    batch = {f.name: small(getattr(p.batch, f.name)) for f in fields(Batch)}
    rest = {"rows": p.rows.numpy(), "guessed": p.guessed.numpy(), "has_text": p.has_text, "seed": p.seed}
    return rest | {"batch": batch}


def _unpacked(found: dict[str, Any]) -> Planned:
    batch = Batch(**{name: torch.from_numpy(x) for name, x in found["batch"].items()})
    rows, guessed = (torch.from_numpy(found[name]) for name in ("rows", "guessed"))
    return Planned(batch, rows, guessed, found["has_text"], found["seed"])
