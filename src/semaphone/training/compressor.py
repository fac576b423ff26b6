"""Trains the speech compressor by distillation (LSSC-ST eq 1, Table I): Whisper's features must survive it.

    semaphone train compressor --data FOLDER --work FOLDER --out compressor.safetensors

Each step draws pieces of speech, sends their log-mel frames through compressor and expander, and compares what
Whisper's frozen encoder makes of both, measured as its decoder sees a row. The error of the frames themselves is
added, so that training finds its way at the start.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from semaphone.errors import InputError
from semaphone.files import replacing, write_whole
from semaphone.training.whisper_weights import WhisperEncoder, decoder_metric, read_variables, seen_error
from semaphone.translation.compressor import CHANNELS, HISTORY, STRIDE, scale_mel
from semaphone.translation.features import BANDS, SILENCE, log_mel

Say = Callable[[str], None]


@dataclass(frozen=True)
class CompressorTraining:
    """How the compressor is trained."""

    steps: int = 600
    batch: int = 12  # pieces a step
    feature_batch: int = 2  # pieces of these that Whisper encodes: that is what costs time
    frames: int = 200  # of a piece, a multiple of 4
    quiet: int = 40  # frames of silence after a piece while Whisper encodes it
    rate: float = 3e-4  # peak learning rate
    frame_weight: float = 1.0  # of the error of the frames beside that of the features
    warm_steps: int = 300  # first steps, on the frames alone: far cheaper
    per_group: int = 300  # recordings at most from each folder below the data, so that none dominates
    seed: int = 0

    def __post_init__(self) -> None:
        if (
            min(self.steps, self.batch, self.feature_batch, self.frames) < 1
            or self.frames % STRIDE
            or not 0 < self.rate < 1
        ):
            raise InputError("Steps, batch and frames must be at least 1, frames a multiple of 4, the rate in (0, 1).")


class CompressorNet(nn.Module):
    """The networks of `translation/compressor.py` over whole sequences."""

    def __init__(self, hidden: int = 384) -> None:
        super().__init__()
        first, second = CHANNELS
        self.conv1, self.conv2 = nn.Conv1d(BANDS, first, 3, stride=2), nn.Conv1d(first, second, 3, stride=2)
        self.dense1 = nn.Linear(second * (HISTORY + 1), hidden)
        self.dense2 = nn.Linear(hidden, hidden)
        self.dense3 = nn.Linear(hidden, STRIDE * BANDS)

    @torch.no_grad()
    def start_from(self, scaled: Tensor) -> None:
        """Sets the weights to the best linear code of frames [N, 80]: principal components, two frames at a time.

        A signed number passes ReLU as two, its positive and its negative part; the second layer puts the numbers
        around 1/2 so that they stay within 0 and 1. Training starts far better from here than from chance.
        """
        first, second = CHANNELS
        half = first // 2
        pairs = scaled[: len(scaled) // STRIDE * STRIDE].reshape(-1, 2 * BANDS)
        mean, axes = pairs.mean(0), _principal_axes(pairs, half)
        inner = ((pairs - mean) @ axes).reshape(-1, 2 * half)
        mean2, axes2 = inner.mean(0), _principal_axes(inner, second)
        spread = 8.0 * ((inner - mean2) @ axes2).std(0).clamp_min(1e-4)
        for layer, matrix in ((self.conv1, torch.cat([axes, -axes], 1)), (self.conv2, _signed(axes2 / spread, half))):
            nn.init.zeros_(layer.weight)
            layer.weight[:, :, 1:] = matrix.T.reshape(len(layer.weight), 2, -1).transpose(1, 2)
        for layer, bias in (
            (self.conv1, torch.cat([-mean @ axes, mean @ axes])),
            (self.conv2, -mean2 @ axes2 / spread),
        ):
            assert layer.bias is not None
            layer.bias.copy_(bias + (0.5 if layer is self.conv2 else 0.0))
        back = (axes2 * spread).T.reshape(second * 2, half) @ axes.T  # one row of 64 → two pairs of frames
        offset = (mean2.reshape(2, half) @ axes.T + mean).flatten()
        self._start_expanding(back.reshape(second, STRIDE * BANDS), offset)

    def _start_expanding(self, back: Tensor, offset: Tensor) -> None:
        """The expander as a linear map [64, 320] of the newest row; what else it has starts small."""
        count = len(back)
        newest = torch.arange(count) * (HISTORY + 1) + HISTORY
        for i, sign in enumerate((1.0, -1.0)):
            own = slice(i * count, (i + 1) * count)
            self.dense1.weight[own] = 0.0
            self.dense1.weight[torch.arange(own.start, own.stop), newest] = sign
            self.dense1.bias[own] = -sign * 0.5
        self.dense2.weight[: 2 * count] = torch.eye(len(self.dense2.weight))[: 2 * count]
        self.dense2.bias[: 2 * count] = 0.0
        nn.init.zeros_(self.dense3.weight)
        self.dense3.weight[:, : 2 * count] = torch.cat([back.T, -back.T], 1)
        self.dense3.bias.copy_(offset)

    def compress(self, scaled: Tensor) -> Tensor:
        """Scaled frames [B, 4 n, 80] → [B, n, 64] in steps of 1/255 from 0 to 1; gradients pass the rounding."""
        quiet = float(scale_mel(np.full(1, SILENCE, np.float32))[0])
        x = nn.functional.pad(scaled.transpose(1, 2), (1, 0), value=quiet)
        x = torch.relu(self.conv1(x))
        x = torch.relu(self.conv2(nn.functional.pad(x, (1, 0)))).clamp_max(1.0)
        steps = torch.round(x * 255.0) / 255.0
        return (x + (steps - x).detach()).transpose(1, 2)

    def expand(self, rows: Tensor) -> Tensor:
        """[B, n, 64] → scaled frames [B, 4 n, 80]."""
        n = rows.shape[1]
        padded = nn.functional.pad(rows, (0, 0, HISTORY, 0))
        # Channel-major windows: the order of NumPy's sliding windows on the device's side.
        x = torch.stack([padded[:, k : k + n] for k in range(HISTORY + 1)], -1).flatten(2)
        x = torch.relu(self.dense2(torch.relu(self.dense1(x))))
        frames: Tensor = self.dense3(x).unflatten(-1, (STRIDE, BANDS)).flatten(1, 2)
        return frames

    def forward(self, scaled: Tensor) -> Tensor:
        return self.expand(self.compress(scaled))


def _principal_axes(rows: Tensor, count: int) -> Tensor:
    """The `count` directions [D, count] in which rows [N, D] vary most."""
    _, axes = torch.linalg.eigh(torch.cov(rows.double().T))
    leading: Tensor = axes.flip(1)[:, :count].float()
    return leading


def _signed(matrix: Tensor, half: int) -> Tensor:
    """A map of two groups of `half` signed numbers → the map of their positive and negative parts."""
    first, second = matrix[:half], matrix[half:]
    return torch.cat([first, -first, second, -second])


def cache_mel(
    data: Path, cache: Path, say: Say, per_group: int, seconds: float = 12.0
) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
    """log10 mel frames [N, 80] of recordings below `data`, and how many each has; read from `cache` if there."""
    from semaphone.audio import read_audio
    from semaphone.training.channel_code import choose_recordings

    if cache.is_file():
        stored = np.load(cache)
        return stored["mel"], stored["lengths"]
    found, lengths = [], []
    files = choose_recordings(data, per_group)
    for i, file in enumerate(files):
        try:
            speech = read_audio(file, 16_000)
        except InputError:
            continue  # a broken file in a corpus is left out
        mel = log_mel(speech[: round(seconds * 16_000)], last=True)[0]
        found.append(mel.astype(np.float16))
        lengths.append(len(mel))
        if i % 200 == 0:
            say(f"frames: {i} of {len(files)} recordings")
    if not found:
        raise InputError(f"None of the recordings below {data} could be read.")
    cache.parent.mkdir(parents=True, exist_ok=True)
    with replacing(cache) as part, open(part, "wb") as out:
        np.savez(out, mel=np.concatenate(found), lengths=np.array(lengths))
    return cache_mel(data, cache, say, per_group)


def _draw(
    mel: NDArray[np.float16],
    lengths: NDArray[np.int64],
    settings: CompressorTraining,
    generator: np.random.Generator,
) -> Tensor:
    """Pieces [batch, frames, 80] of log10 mel, of varied level."""
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    usable = np.flatnonzero(lengths >= settings.frames)
    if not len(usable):
        raise InputError(f"No recording lasts {settings.frames / 100:.2f} s.")
    chosen = generator.choice(usable, settings.batch)
    firsts = starts[chosen] + generator.integers(0, lengths[chosen] - settings.frames + 1)
    pieces = np.stack([mel[f : f + settings.frames] for f in firsts]).astype(np.float32)
    level = generator.uniform(-1.5, 0.7, (settings.batch, 1, 1)).astype(np.float32)  # log10 of a gain in energy
    return torch.from_numpy(np.maximum(pieces + level, SILENCE))


def whisper_input(mel: Tensor, quiet: int) -> Tensor:
    """log10 mel [B, T, 80] with silence after it, normalised as Whisper does."""
    padded = nn.functional.pad(mel, (0, 0, 0, quiet), value=SILENCE)
    floor = padded.amax((1, 2), keepdim=True).detach() - 8.0
    return (torch.maximum(padded, floor) + 4.0) / 4.0


def train_compressor(
    mel: NDArray[np.float16],
    lengths: NDArray[np.int64],
    settings: CompressorTraining,
    encoder: nn.Module,
    metric: Tensor,
    work: Path,
    say: Say,
) -> CompressorNet:
    """Distillation; a checkpoint in `work`/compressor.pt every 250 steps is taken up again."""
    torch.manual_seed(settings.seed)
    torch.set_flush_denormal(True)
    net = CompressorNet()
    net.start_from(torch.from_numpy(scale_mel(mel[:200_000].astype(np.float32))))
    optimizer = torch.optim.AdamW(net.parameters(), settings.rate, weight_decay=1e-4)
    identity, first = json.dumps(asdict(settings)), 0
    file = work / "compressor.pt"
    if file.is_file() and (state := torch.load(file, weights_only=True))["identity"] == identity:
        net.load_state_dict(state["net"])
        optimizer.load_state_dict(state["optimizer"])
        first = int(state["step"])
        say(f"going on from step {first}")
    generator = np.random.default_rng([settings.seed, first])
    for step in range(first, settings.steps):
        share = min(1.0, (step + 1) / 50) * (0.02 + 0.49 * (1 + float(np.cos(np.pi * step / settings.steps))))
        for group in optimizer.param_groups:
            group["lr"] = settings.rate * share
        pieces = _draw(mel, lengths, settings, generator)
        feature, frame = _losses(net, pieces, settings, encoder, metric, step)
        loss = feature + settings.frame_weight * frame
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0:
            say(
                f"step {step} of {settings.steps}: error of features {float(feature):.4f}, of frames {float(frame):.4f}"
            )
        if step % 250 == 249 or step == settings.steps - 1:
            work.mkdir(parents=True, exist_ok=True)
            state = {"identity": identity, "step": step + 1, "net": net.state_dict()}
            with replacing(file) as part:
                torch.save({**state, "optimizer": optimizer.state_dict()}, part)
    return net.eval().requires_grad_(False)


def _losses(
    net: CompressorNet, mel: Tensor, settings: CompressorTraining, encoder: nn.Module, metric: Tensor, step: int
) -> tuple[Tensor, Tensor]:
    """(error of the features, error of the frames within 8 of the loudest), relative to their variance."""
    guess_scaled = net((mel + 4.0) / 4.0)
    guess = (guess_scaled * 4.0 - 4.0).clamp_min(SILENCE)
    wanted = whisper_input(mel, 0)
    frame = (whisper_input(guess, 0) - wanted).square().mean() / wanted.var()
    mel, guess = mel[: settings.feature_batch], guess[: settings.feature_batch]
    if step < settings.warm_steps:
        return torch.zeros(()), frame
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            truth = encoder(whisper_input(mel, settings.quiet))[:, : mel.shape[1] // 2].float()
        rows = encoder(whisper_input(guess, settings.quiet))[:, : mel.shape[1] // 2].float()
    return seen_error(rows, truth, metric), frame


def save_compressor(net: CompressorNet, path: Path, settings: CompressorTraining) -> None:
    """Writes the weights in half precision, complete or not at all."""
    from safetensors.torch import save

    tensors = {name: value.half().contiguous() for name, value in net.state_dict().items()}
    write_whole(path, save(tensors, {"trained": json.dumps(asdict(settings))}))


def run(data: Path, work: Path, out: Path, settings: CompressorTraining, say: Say, weights: str = "") -> CompressorNet:
    """The whole recipe: frames, teacher, training, the file of weights."""
    from semaphone.translation.models.whisper import embedded_files

    model = (Path(weights) / "model.bin").read_bytes() if weights else embedded_files()["model.bin"]
    variables = read_variables(model)
    mel, lengths = cache_mel(data, work / "mel.npz", say, settings.per_group)
    net = train_compressor(
        mel, lengths, settings, WhisperEncoder(variables), decoder_metric(variables).float(), work, say
    )
    save_compressor(net, out, settings)
    say(f"wrote {out}")
    return net
