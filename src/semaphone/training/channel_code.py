"""Trains the channel code on rows of a speech model (LSSC-ST Algorithm 1, eq 6).

    semaphone train channel-code --data FOLDER --work FOLDER --out code.safetensors --fading awgn,rayleigh --snr -11:19

Rows of Whisper's encoder over the recordings below `--data` are cached once in `--work`. Each step draws
sequences of rows, an SNR and a channel for each, and lowers eq 6 relative to the error of the linear code at the same
place, so that low and high SNR count alike. Training goes on from `--work` where it was interrupted.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semaphone.channel.fading import KINDS
from semaphone.errors import InputError
from semaphone.files import replacing
from semaphone.translation.channel_code import ChannelCode, ChannelCodeConfig, fit_basis, fit_memory, save_code

Say = Callable[[str], None]


@dataclass(frozen=True)
class CodeTraining:
    """How a channel code is trained."""

    steps: int = 2500
    batch: int = 12  # sequences a step
    length: int = 40  # rows of a sequence
    rate: float = 5e-4  # peak learning rate, falling as a cosine
    lowest: float = -11.0  # dB, range of the SNR
    highest: float = 19.0
    fading: tuple[str, ...] = ("awgn", "rayleigh", "rician")
    k_factor: float = 4.0  # of Rician fading
    longest_block: int = 2048  # symbols; half of the sequences meet block fading of 1 to this many symbols
    per_group: int = 400  # recordings at most from each folder below the data, so that none dominates
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.fading or any(kind not in KINDS for kind in self.fading):
            raise InputError(f"The fading to train on is a list of {', '.join(KINDS)}.")
        if not -40 <= self.lowest <= self.highest <= 80:
            raise InputError("The SNR range to train on is LOW:HIGH in dB, both from -40 to 80.")
        if min(self.steps, self.batch, self.length, self.longest_block) < 1 or not 0 < self.rate < 1:
            raise InputError("Steps, batch, length and block must be at least 1, the learning rate in (0, 1).")


@dataclass(frozen=True)
class RowCache:
    """Rows of many recordings, one after another."""

    rows: NDArray[np.float16]  # [N, D]
    lengths: NDArray[np.int64]  # rows of each recording

    def draw(self, count: int, length: int, generator: np.random.Generator) -> Tensor:
        """`count` sequences [count, length, D], each within one recording."""
        starts = np.concatenate([[0], np.cumsum(self.lengths)[:-1]])
        usable = np.flatnonzero(self.lengths >= length)
        if not len(usable):
            raise InputError(f"No recording has {length} rows ({length / 50:.2f} s).")
        weight = (self.lengths[usable] - length + 1).astype(np.float64)
        chosen = generator.choice(usable, count, p=weight / weight.sum())
        firsts = starts[chosen] + generator.integers(0, self.lengths[chosen] - length + 1)
        return torch.from_numpy(np.stack([self.rows[f : f + length] for f in firsts]).astype(np.float32))


def choose_recordings(data: Path, per_group: int, seed: int = 0) -> list[Path]:
    """At most `per_group` recordings, drawn at random, of each folder below `data`."""
    from semaphone.training.sources import find_recordings

    groups: dict[str, list[Path]] = {}
    for file, group in find_recordings(data):
        groups.setdefault(group, []).append(file)
    generator = np.random.default_rng(seed)
    return [files[i] for files in groups.values() for i in generator.permutation(len(files))[:per_group]]


def cache_rows(data: Path, cache: Path, say: Say, weights: str = "", per_group: int = 400) -> RowCache:
    """Encodes recordings below `data` (two in five cut at random, as a stream would) or reads the cache."""
    from semaphone.audio import read_audio
    from semaphone.translation.features import SILENCE, log_mel, normalise
    from semaphone.translation.models.whisper import runtime

    if cache.is_file():
        stored = np.load(cache)
        return RowCache(stored["rows"], stored["lengths"])
    generator = np.random.default_rng(0)
    whisper, found, lengths = runtime(weights), [], []
    files = choose_recordings(data, per_group)
    for i, file in enumerate(files):
        try:
            speech = read_audio(file, 16_000)
        except InputError:
            continue  # a broken file in a corpus is left out
        seconds = generator.uniform(0.65, 10.0) if generator.random() < 0.4 else 10.0
        mel = log_mel(speech[: round(seconds * 16_000)], last=True)[0]
        count = len(mel) // 2
        padded = np.pad(mel[: 2 * count], ((0, 300), (0, 0)), constant_values=SILENCE)
        found.append(whisper.encode(normalise(padded))[:count].astype(np.float16))
        lengths.append(count)
        if i % 100 == 0:
            say(f"rows: {i} of {len(files)} recordings")
    if not found:
        raise InputError(f"None of the recordings below {data} could be read.")
    cache.parent.mkdir(parents=True, exist_ok=True)
    with replacing(cache) as part, open(part, "wb") as out:
        np.savez(out, rows=np.concatenate(found), lengths=np.array(lengths))
    return cache_rows(data, cache, say, weights, per_group)


def draw_channel(
    settings: CodeTraining, count: int, symbols: int, snr_db: Tensor, generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Gains and noise [count, symbols] complex64 for sequences that each meet a channel of their own."""
    from semaphone.channel.fading import FadingChannel

    gains = np.empty((count, symbols), np.complex64)
    for i in range(count):
        kind = settings.fading[int(generator.integers(len(settings.fading)))]
        block = 1 if generator.random() < 0.5 else int(np.exp(generator.uniform(0, np.log(settings.longest_block))))
        gains[i] = FadingChannel(kind, 0.0, max(1, block), settings.k_factor).gains(symbols, generator)
    noise = generator.standard_normal((count, symbols, 2)).astype(np.float32)
    strength = (10.0 ** (-snr_db / 20.0) * 0.5**0.5)[:, None]
    return torch.from_numpy(gains), torch.view_as_complex(torch.from_numpy(noise)) * strength


def send(
    code: ChannelCode, rows: Tensor, snr_db: Tensor, gains: Tensor, noise: Tensor, dense: bool = True
) -> tuple[Tensor, Tensor]:
    """Rows through encoder, channel and decoder → components as sent and as received [B, N, D]."""
    symbols, scale = code.encode(rows, snr_db, dense)
    h, n = gains.view(symbols.shape), noise.view(symbols.shape)
    return code.components(rows), code.estimate(h * symbols + n, h, snr_db, scale, dense)


def train_code(
    cache: RowCache, config: ChannelCodeConfig, settings: CodeTraining, metric: Tensor | None, work: Path, say: Say
) -> ChannelCode:
    """Algorithm 1. Checkpoints go to `work`/channel-code.pt every 250 steps and are taken up again."""
    torch.manual_seed(settings.seed)
    torch.set_flush_denormal(True)
    generator = np.random.default_rng(settings.seed)
    code = _linear_code(cache, config, metric, generator.permutation(len(cache.rows))[:300_000])
    start = ChannelCode(config, None)
    start.load_state_dict(code.state_dict())  # the linear code, as a yardstick
    optimizer = torch.optim.AdamW(code.parameters(), settings.rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _cosine(step, settings.steps))
    first = _resume(work, code, optimizer, schedule, config, settings, say)
    generator = np.random.default_rng([settings.seed, first])
    for step in range(first, settings.steps):
        rows = cache.draw(settings.batch, settings.length, generator)
        snr = torch.from_numpy(generator.uniform(settings.lowest, settings.highest, settings.batch)).float()
        gains, noise = draw_channel(settings, settings.batch, settings.length * config.symbols, snr, generator)
        with torch.autocast("cpu", torch.bfloat16):
            truth, guess = send(code, rows, snr, gains, noise)
        error = code.error(guess.float(), truth.float())
        if config.linear:
            with torch.no_grad():
                yardstick = start.error(*reversed(send(start, rows, snr, gains, noise, dense=False)))
        else:
            yardstick = error.detach()
        loss = (error / (yardstick + 1e-3)).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(code.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            say(f"step {step} of {settings.steps}: error {error.mean():.4f}, of the linear code {yardstick.mean():.4f}")
        if step % 250 == 249 or step == settings.steps - 1:
            _checkpoint(work, code, optimizer, schedule, step + 1, config, settings)
    return code.eval().requires_grad_(False)


def _linear_code(
    cache: RowCache, config: ChannelCodeConfig, metric: Tensor | None, sample: NDArray[np.int64]
) -> ChannelCode:
    """The code before training: its transform from some rows, their memory from sequences."""
    basis = fit_basis(torch.from_numpy(cache.rows[np.sort(sample)].astype(np.float32)), metric)
    length = int(min(2 * config.block, cache.lengths.max()))
    if length < config.block:
        raise InputError(f"No recording has {config.block} rows ({config.block / 50:.2f} s), the length of a block.")
    sequences = cache.draw(400, length, np.random.default_rng(0))
    memory = fit_memory((sequences - basis.mean) @ basis.forward, config.block)
    return ChannelCode(config, basis, memory)


def _cosine(step: int, steps: int) -> float:
    warm = min(1.0, (step + 1) / 100)
    return warm * (0.02 + 0.98 * 0.5 * (1 + float(np.cos(np.pi * min(1.0, step / steps)))))


def _identity(config: ChannelCodeConfig, settings: CodeTraining) -> str:
    return json.dumps([asdict(config), asdict(settings)])


def _checkpoint(
    work: Path,
    code: ChannelCode,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    step: int,
    config: ChannelCodeConfig,
    settings: CodeTraining,
) -> None:
    work.mkdir(parents=True, exist_ok=True)
    state = {
        "identity": _identity(config, settings),
        "step": step,
        "code": code.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
    }
    with replacing(work / "channel-code.pt") as part:
        torch.save(state, part)


def _resume(
    work: Path,
    code: ChannelCode,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    config: ChannelCodeConfig,
    settings: CodeTraining,
    say: Say,
) -> int:
    """Takes up a checkpoint of the same settings; returns the step to go on from."""
    file = work / "channel-code.pt"
    if not file.is_file():
        return 0
    state = torch.load(file, weights_only=True)
    if state["identity"] != _identity(config, settings):
        return 0
    code.load_state_dict(state["code"])
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    say(f"going on from step {state['step']}")
    return int(state["step"])


@torch.no_grad()
def errors(
    code: ChannelCode,
    cache: RowCache,
    kind: str,
    snr_db: float,
    count: int = 64,
    length: int = 40,
    seed: int = 1,
    dense: bool = True,
) -> float:
    """Mean of eq 6 on held-out rows over fast fading of one kind and SNR; without `dense` that of the linear part."""
    generator = np.random.default_rng(seed)
    settings = CodeTraining(fading=(kind,), longest_block=1)
    rows = cache.draw(count, length, generator)
    snr = torch.full((count,), snr_db)
    gains, noise = draw_channel(settings, count, length * code.config.symbols, snr, generator)
    truth, guess = send(code, rows, snr, gains, noise, dense)
    return float(code.error(guess, truth).mean())


def run(
    data: Path, work: Path, out: Path, config: ChannelCodeConfig, settings: CodeTraining, say: Say, weights: str = ""
) -> ChannelCode:
    """The whole recipe: rows, metric, training and the file of weights."""
    from semaphone.training.whisper_weights import decoder_metric, read_variables
    from semaphone.translation.models.whisper import embedded_files

    cache = cache_rows(data, work / "rows.npz", say, weights, settings.per_group)
    model = (Path(weights) / "model.bin").read_bytes() if weights else embedded_files()["model.bin"]
    code = train_code(cache, config, settings, decoder_metric(read_variables(model)), work, say)
    save_code(code, out, {"trained": json.dumps(asdict(settings))})
    say(f"wrote {out}")
    return code
