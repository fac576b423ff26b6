"""Trains FD-PLC on Lyra v2's features: `semaphone train fdplc --data DIR --lyra DIR --out DIR`.

Recordings are encoded once, all 46 indices of each frame, into OUT/cache. Each step draws pieces of them, keeps the
indices that one of Lyra's rates has, loses frames in bursts, and compares what the network says of the lost ones with
what they were. A run is given by its seed: stopped and started again, it ends with the same weights.

    OUT/checkpoint.pt, OUT/log.jsonl, OUT/lyra-fdplc.safetensors
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from semaphone.baselines.fdplc import FdPlcConfig, Predictor, held, save_fdplc
from semaphone.baselines.soundstream import FEATURES, FRAME, MODELS, QUANTIZERS, LyraNetwork, LyraQuantizer
from semaphone.errors import InputError
from semaphone.files import replacing

INDICES, ENTRIES = 46, 16  # of a frame; of a codebook
WEIGHTS = "lyra-fdplc.safetensors"
LONGEST = 30  # s of a recording that are used
Say = Callable[[str, int, int], None]  # (what, done, all)


@dataclass(frozen=True)
class FdPlcTraining:
    """Settings of one run."""

    seed: int = 1
    hours: float = 2.0  # of speech that are encoded, drawn from the folder's groups
    steps: int = 1500
    batch: int = 32  # pieces a step
    frames: int = 150  # of a piece, 3 s
    rate: float = 2e-3  # peak learning rate, falling as a cosine
    loss: tuple[float, float] = (0.1, 0.5)  # share of frames lost in a piece
    burst: tuple[float, float] = (1.0, 12.0)  # mean length of its bursts, frames; drawn on a logarithmic scale
    dev: float = 0.04  # share of the recordings that are held out
    every: int = 100  # steps between checkpoints
    model: FdPlcConfig = field(default_factory=FdPlcConfig)

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.frames, self.every) < 1 or self.seed < 0 or not 0 < self.rate < 1:
            raise InputError(
                "Steps, batch, frames and every are at least 1, the rate lies in (0, 1), the seed from 0 on."
            )
        if not (self.hours > 0 and 0 < self.dev < 1 and 0 < self.loss[0] <= self.loss[1] < 1 <= self.burst[0]):
            raise InputError("Hours, the held-out share and losses must be positive, bursts at least a frame long.")


@dataclass(frozen=True)
class FrameSet:
    """Encoded recordings and Lyra's codebooks."""

    indices: NDArray[np.uint8]  # [frames, 46]
    lengths: NDArray[np.int64]  # frames of each recording
    table: NDArray[np.float32]  # [46, 16, 64]: features are sums of entries

    def split(self, share: float) -> tuple[FrameSet, FrameSet]:
        """The recordings to train on, and those held out: every so many-th."""
        out = np.zeros(len(self.lengths), bool)
        out[:: max(round(1 / share), 2)] = True
        by_frame = np.repeat(out, self.lengths)
        return (
            FrameSet(self.indices[~by_frame], self.lengths[~out], self.table),
            FrameSet(self.indices[by_frame], self.lengths[out], self.table),
        )

    def draw(self, c: FdPlcTraining, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Features [batch, frames, 64] at one of Lyra's rates each, and which of them are lost [batch, frames]."""
        usable = np.flatnonzero(self.lengths >= c.frames)
        if not len(usable):
            raise InputError(f"No recording lasts {c.frames * FRAME / 16_000:.2f} s.")
        starts = np.cumsum(self.lengths) - self.lengths
        weight = self.lengths[usable] / self.lengths[usable].sum()
        chosen = rng.choice(usable, c.batch, p=weight)
        first = starts[chosen] + rng.integers(0, self.lengths[chosen] - c.frames + 1)
        rows = self.indices[first[:, None] + np.arange(c.frames)].astype(np.int64)
        used = rng.choice(list(QUANTIZERS.values()), c.batch)
        keep = np.arange(INDICES) < used[:, None]
        flat = torch.from_numpy(rows + ENTRIES * np.arange(INDICES)).reshape(-1, INDICES)
        weights = torch.from_numpy(keep.astype(np.float32))[:, None].expand(-1, c.frames, -1).reshape(-1, INDICES)
        table = torch.from_numpy(self.table.reshape(-1, FEATURES))
        summed = nn.functional.embedding_bag(flat, table, mode="sum", per_sample_weights=weights)
        return summed.reshape(c.batch, c.frames, FEATURES), torch.from_numpy(draw_losses(c, rng))


def draw_losses(c: FdPlcTraining, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Two-state bursts [batch, frames], with a loss rate and a mean burst length of its own for each piece."""
    share = rng.uniform(*c.loss, c.batch)
    burst = np.exp(rng.uniform(math.log(c.burst[0]), math.log(c.burst[1]), c.batch))
    leave = 1 / burst
    enter = np.minimum(share / (1 - share) * leave, 1.0)
    lost = np.zeros((c.batch, c.frames), bool)
    now = np.zeros(c.batch, bool)  # every piece begins with a frame that came
    for t in range(1, c.frames):
        draws = rng.random(c.batch)
        now = np.where(now, draws >= leave, draws < enter)
        lost[:, t] = now
    return lost


def codebooks(quantizer: LyraQuantizer) -> NDArray[np.float32]:
    """The entries [46, 16, 64] of Lyra's quantiser, read off by decoding each index alone."""
    table = np.zeros((INDICES, ENTRIES, FEATURES), np.float32)
    for k in range(INDICES):
        for j in range(ENTRIES):
            alone = np.full(INDICES, -1, np.int32)
            alone[k] = j
            table[k, j] = quantizer.decode(alone)
    return table


def encode_corpus(data: Path, lyra: Path, cache: Path, c: FdPlcTraining, say: Say) -> FrameSet:
    """Encodes `hours` of speech, each group by the square root of its files, or reads the cache. Raises InputError."""
    from semaphone.audio import read_audio

    wanted = {"hours": c.hours, "seed": c.seed, "data": str(data.resolve())}
    if cache.is_file():
        stored = np.load(cache)
        if json.loads(str(stored["wanted"])) == wanted:
            return FrameSet(stored["indices"], stored["lengths"], stored["table"])
    quantizer = LyraQuantizer(lyra)
    found: list[NDArray[np.uint8]] = []
    frames, all_frames = 0, round(c.hours * 3600 * 16_000 / FRAME)
    for file in _order(data, np.random.default_rng(c.seed)):
        try:
            speech = read_audio(file, 16_000)[: LONGEST * 16_000]
        except InputError:
            continue  # a broken file in a corpus is left out
        network = LyraNetwork(lyra, MODELS[0])  # a fresh one: its state can't be reset
        parts = speech[: len(speech) // FRAME * FRAME].reshape(-1, FRAME)
        if len(parts) < c.frames:
            continue
        found.append(np.array([quantizer.encode(network.run(part), INDICES) for part in parts], np.uint8))
        frames += len(parts)
        say("encoding", min(frames, all_frames), all_frames)
        if frames >= all_frames:
            break
    if not found:
        raise InputError(f"No recording below {data} lasts {c.frames * FRAME / 16_000:g} s.")
    cache.parent.mkdir(parents=True, exist_ok=True)
    lengths = np.array([len(part) for part in found])
    result = FrameSet(np.concatenate(found), lengths, codebooks(quantizer))
    with replacing(cache) as part, open(part, "wb") as out:
        np.savez(out, indices=result.indices, lengths=lengths, table=result.table, wanted=json.dumps(wanted))
    return result


def _order(data: Path, rng: np.random.Generator) -> list[Path]:
    """All recordings in a random order in which every beginning has each group by the square root of its files."""
    from semaphone.training.sources import find_recordings

    groups: dict[str, list[Path]] = {}
    for file, group in find_recordings(data):
        groups.setdefault(group, []).append(file)
    placed: list[tuple[float, Path]] = []
    for files in groups.values():
        step = 1 / math.sqrt(len(files))
        placed += [((n + rng.random()) * step, files[i]) for n, i in enumerate(rng.permutation(len(files)))]
    return [file for _, file in sorted(placed, key=lambda item: item[0])]


class FdPlcTrainer:
    """Everything a run carries from step to step, and its checkpoint."""

    def __init__(self, c: FdPlcTraining, frames: FrameSet, out: Path) -> None:
        torch.set_flush_denormal(True)
        torch.manual_seed(c.seed)
        self.c, self.out = c, out
        self.train, self.held_out = frames.split(c.dev)
        self.model = Predictor(c.model)
        self._measure()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), c.rate, weight_decay=1e-3)
        self.step = 0
        self._identity = json.dumps({name: value for name, value in asdict(c).items() if name != "every"})
        if (out / "checkpoint.pt").is_file():
            self._resume()

    def _measure(self) -> None:
        """Mean and spread of the features, over a sample of the frames."""
        some = self.train.indices[:: max(len(self.train.indices) // 20_000, 1)].astype(np.int64)
        features = self.train.table[np.arange(INDICES), some].sum(1)
        self.model.mean.copy_(torch.from_numpy(features.mean(0)).half())
        self.model.scale.copy_(torch.from_numpy(features.std(0).clip(1e-3)).half())

    def _resume(self) -> None:
        state = torch.load(self.out / "checkpoint.pt", weights_only=True)
        if state["identity"] != self._identity:
            raise InputError(f"{self.out} holds a run with other settings; name another folder.")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = int(state["step"])

    def save(self) -> None:
        """The checkpoint, and weights ready for use."""
        self.out.mkdir(parents=True, exist_ok=True)
        state = {"identity": self._identity, "step": self.step, "model": self.model.state_dict()}
        with replacing(self.out / "checkpoint.pt") as part:
            torch.save({**state, "optimizer": self.optimizer.state_dict()}, part)
        save_fdplc(self.model, self.out / WEIGHTS, {"steps": str(self.step), "trained": self._identity})

    def advance(self) -> float:
        """One step; returns its loss."""
        c = self.c
        warm = min(1.0, (self.step + 1) / 50)
        rate = c.rate * warm * (0.02 + 0.49 * (1 + math.cos(math.pi * self.step / c.steps)))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        features, lost = self.train.draw(c, np.random.default_rng([c.seed, self.step]))
        error, _ = self.errors(features, lost)
        self.optimizer.zero_grad(set_to_none=True)
        error.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        return float(error.detach())

    def errors(self, features: Tensor, lost: Tensor) -> tuple[Tensor, Tensor]:
        """Mean absolute error in lost frames, of the prediction and of repeating; in standard deviations."""
        predicted, _ = self.model(features, lost)
        wanted = ((features - self.model.mean) / self.model.scale)[lost]
        guess = ((predicted - self.model.mean) / self.model.scale)[lost]
        repeated = ((held(features, lost, features[:, 0]) - self.model.mean) / self.model.scale)[lost]
        return (guess - wanted).abs().mean(), (repeated - wanted).abs().mean()

    @torch.no_grad()
    def judge(self) -> dict[str, float]:
        """Errors on the held-out recordings, always the same pieces."""
        sums = np.zeros(2)
        for i in range(4):
            sums += [float(error) for error in self.errors(*self.held_out.draw(self.c, np.random.default_rng([7, i])))]
        return {"dev": sums[0] / 4, "dev_repeat": sums[1] / 4}


def train_fdplc(trainer: FdPlcTrainer, until: int, report: Callable[[int, dict[str, Any]], None]) -> Path:
    """Trains up to a step; returns the file of weights."""
    began, losses = time.perf_counter(), list[float]()
    trainer.out.mkdir(parents=True, exist_ok=True)
    while trainer.step < until:
        losses.append(trainer.advance())
        if trainer.step % trainer.c.every and trainer.step < until:
            continue
        row = {"loss": float(np.mean(losses)), **trainer.judge(), "seconds": time.perf_counter() - began}
        losses.clear()
        trainer.save()
        with open(trainer.out / "log.jsonl", "a", encoding="utf-8") as log:
            log.write(json.dumps({"step": trainer.step, **{k: round(v, 5) for k, v in row.items()}}) + "\n")
        report(trainer.step, row)
    if not (trainer.out / WEIGHTS).is_file():
        trainer.save()
    return trainer.out / WEIGHTS
