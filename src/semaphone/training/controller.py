"""Training the adaptive controller: `semaphone train controller` (LargeSC §III-D, §IV-A2, step 2).

Codec and recovery stay as they are. A step draws crops of speech and for each a loss rate p, a rate L and
r = P(second packet lost | first lost); it goes the whole way: importance → masks (eq 13) → a token arrives with
probability a = 1 − p if it goes once, 1 − p r if it goes twice → recovery → eq 20:

    Σ_k λ_k (1 − a_k) CE_k / Σ λ  +  γ Σ m  +  ρ · distance of what the codec renders from what was said

Packets are drawn that arrive or do not, as the link makes them; the recovery model sees what came, its guesses stand
for what was lost, and the gradient is that of a. (Reading a e(token) + (1 − a) e(mask) instead shows the model nine
tenths of the very token it is to predict, and nine tenths of all tokens sound better than nine chunks in ten.) The
network is told the loss rate as a sender knows it, counted over 2 s of packets. A crop is read as a whole, but only a
few chunks of it are recovered and rendered. A quarter of the crops lose nothing.

With `budgets` a crop has a number of transmissions to spend instead of a price for each (γ): L is what spends them, as
the sender's rate control finds it, and the network learns nothing but who gets them.

    train_controller(ControllerTraining(), parts, material, Path("run"))

resumes from the newest checkpoint in `run`; log.jsonl holds the losses and what the controller sends.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from semaphone.controller.adaptive import ControllerConfig, ControllerModel, save
from semaphone.controller.base import LinkLoss
from semaphone.controller.masks import straight_through
from semaphone.errors import InputError
from semaphone.files import replacing
from semaphone.recovery import depth
from semaphone.recovery.expectation import expected_entries
from semaphone.recovery.rq_transformer import RQTransformer
from semaphone.training.controller_start import start
from semaphone.training.latents import Material
from semaphone.training.losses import MelLoss
from semaphone.training.runs import Report, cosine_rate, follow, run_steps
from semaphone.training.survival import packet_of

if TYPE_CHECKING:
    from semaphone.codec.base import CodecInfo
    from semaphone.codec.nano import NanoModel

STATE = "checkpoint.pt"
WEIGHTS = "nano-controller.safetensors"
REPORTED = 25  # packets that a report of the loss rate rests on
SKIPPED = 2  # chunks of a rendered piece that the decoder needs to get going


@dataclass(frozen=True)
class ControllerTraining:
    """Settings of one training run."""

    seed: int = 1
    batch: int = 16  # crops a step
    crop: int = 50  # chunks of 80 ms that controller and recovery read, 4 s
    window: int = 12  # chunks of each crop that are recovered
    heard: int = 6  # crops a step whose window is rendered, too
    start: int = 1_500  # steps before the first, in which the network learns to begin sensibly (controller_start.py)
    budgets: tuple[float, float] = (2.0, 24.0)  # transmissions a chunk, uniform between the two; 0, 0: a price instead
    gamma: float = 0.3  # γ of eq 20: what a transmission costs where there is no budget
    semantic: float = 10.0  # λ of the semantic token; the first acoustic one has 1
    deeper: float = 0.8  # factor from an acoustic token's λ to that of the next one
    reconstruction: float = 10.0  # ρ, weight of the codec's reconstruction loss; 0: without
    depth_db: float = 40.0  # what lies deeper below the loudest part of a crop is no part of the mel distance
    losses: tuple[float, float] = (0.0, 0.3)  # p, uniform between the two
    lossy: float = 0.75  # share of crops with losses
    bursty: float = 0.5  # share of those whose losses come in bursts: r uniform from p to 1; for the others r = p
    sharpness: float = 5.0  # τ of eq 11
    ahead: float = 1.0  # by how much its slope comes before the step; 0: as printed (see `straight_through`)
    rate: float = 5e-4  # learning rate of AdamW after the warm-up
    final_rate: float = 5e-5  # where the cosine ends, at step `steps`
    warmup: int = 50  # steps
    steps: int = 1_500
    decay: float = 1e-3  # AdamW's weight decay
    average: float = 0.99  # decay of the moving average of weights
    every: int = 100  # steps between checkpoints
    dev_every: int = 250  # steps between looks at what is sent

    def __post_init__(self) -> None:
        if min(self.batch, self.window, self.steps, self.every, self.dev_every) < 1 or self.start < 0:
            raise InputError("Batch, window, steps and intervals of a training are at least 1.")
        if not self.window <= self.crop or not 0 <= self.heard <= self.batch:
            raise InputError("The window of a training lies within its crop, and no more crops are heard than drawn.")
        if not 0 <= self.losses[0] <= self.losses[1] < 1 or not 0 <= self.lossy <= 1 or not 0 <= self.bursty <= 1:
            raise InputError("Loss rates of a training lie in [0, 1), the smaller one first, and shares in [0, 1].")
        if not (0 < self.budgets[0] <= self.budgets[1] or self.budgets == (0, 0)):
            raise InputError("Budgets of a training are above 0, the smaller one first, or both 0.")
        if min(self.gamma, self.reconstruction, self.semantic) < 0 or self.sharpness <= 0 or not 0 < self.deeper <= 1:
            raise InputError(
                "Weights of losses in a training are not negative, its sharpness is above 0, and deeper at most 1."
            )

    @property
    def budgeted(self) -> bool:
        """Does a crop have a budget? Otherwise transmissions have a price."""
        return any(self.budgets)


class Parts(NamedTuple):
    """What stays as it is."""

    info: CodecInfo
    recovery: RQTransformer
    codec: NanoModel | None  # to render with; None: there is no reconstruction loss


@dataclass
class Batch:
    """Crops and their weather."""

    tokens: Tensor  # [B, T, N_Q]
    latents: Tensor  # [B, T, D]
    speech: Tensor | None  # [H, window * chunk samples] of the first H crops' windows
    first: int  # where the windows begin, the same in all crops
    p: Tensor  # [B]
    r: Tensor  # [B]
    rate: Tensor  # [B], L, or with budgets the transmissions a chunk
    lost: Tensor  # [B, T, N_Q, 2] bool: the packet of a token is lost, and that of its copy
    told: Tensor  # [B], p as it is reported, less what copies cannot mend


def draw(material: Material, c: ControllerTraining, rng: np.random.Generator) -> Batch:
    """A random batch; utterances are drawn by their length."""
    first = int(rng.integers(0, c.crop - c.window + 1))
    crops = material.draw(c.batch, c.crop, rng)
    p = rng.uniform(*c.losses, c.batch) * (rng.random(c.batch) < c.lossy)
    r = np.where(rng.random(c.batch) < c.bursty, rng.uniform(p, 1.0), p)
    low, high = c.budgets if c.budgeted else (1.0, float(material.tokens.num_codebooks))
    rate = rng.uniform(low, high, c.batch)
    speech = None
    heard = [crop.speech for crop in crops[: c.heard] if crop.speech is not None]
    if heard:
        size = len(heard[0]) // c.crop
        speech = torch.from_numpy(np.stack(heard)[:, first * size : (first + c.window) * size])
    lost = np.stack(
        [drawn_losses(c.crop, material.tokens.num_codebooks, *facts, rng) for facts in zip(p, r, strict=True)]
    )
    counted = rng.binomial(REPORTED, p) / REPORTED
    return Batch(
        torch.from_numpy(np.stack([crop.tokens for crop in crops])),
        torch.from_numpy(np.stack([crop.latents for crop in crops])),
        speech,
        first,
        torch.from_numpy(p.astype(np.float32)),
        torch.from_numpy(r.astype(np.float32)),
        torch.from_numpy(rate.astype(np.float32)),
        torch.from_numpy(lost),
        torch.tensor([LinkLoss(*facts).mendable for facts in zip(counted, r, strict=True)]).float(),
    )


def drawn_losses(chunks: int, codebooks: int, p: float, r: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Is the packet of a token lost, and that of its copy: [T, N_Q, 2], in the two packets of each block.

    The second packet of a block is lost with probability r if the first is, and as often as the first overall.
    """
    blocks = -(-chunks // 2)
    first = rng.random(blocks) < p
    second = rng.random(blocks) < np.where(first, r, p * (1 - r) / max(1 - p, 1e-9))
    pair = np.repeat(np.stack([first, second], 1), 2, axis=0)[:chunks]  # [T, packet]
    own = np.resize(packet_of(codebooks), (chunks, codebooks))
    places = np.stack([own, 1 - own], -1)  # [T, N_Q, 2]
    return np.take_along_axis(np.broadcast_to(pair[:, None], (chunks, codebooks, 2)), places, -1)


def arrival(masks: Tensor, p: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """Masks [..., 2, N_Q], loss rate and r (they broadcast to [...]) → a and what is sent, both [..., N_Q]."""
    s, c = masks.unbind(-2)
    twice = s * c
    sent = s + c - twice
    p, r = p[..., None], r[..., None]
    return (sent - twice) * (1 - p) + twice * (1 - p * r), sent


def spending(importance: Tensor, budget: Tensor, num_codebooks: int) -> Tensor:
    """L · I of crops with importance [B, T, 2] that make `budget` [B] transmissions a chunk on average, [B, T, 2].

    As far as whole tokens can. Its gradient is that of sharing a fixed sum: what one chunk gets another one lacks.
    """
    fixed = importance.detach()
    low, high = torch.zeros_like(budget), 1_000 * num_codebooks / fixed.amax((1, 2)).clamp(min=1e-4)
    for _ in range(32):
        middle = 0.5 * (low + high)
        made = torch.floor(middle[:, None, None] * fixed).clamp(max=num_codebooks).sum(-1).mean(1)
        low, high = torch.where(made <= budget, middle, low), torch.where(made <= budget, high, middle)
    total = importance.sum((1, 2), keepdim=True)
    return low[:, None, None] * importance * (total.detach() / total)


def arrived(masks: Tensor, a: Tensor, lost: Tensor) -> Tensor:
    """What arrives of masks [B, T, 2, N_Q] when the packets `lost` [B, T, N_Q, 2] are, 0 or 1, with the gradient of a.

    A token that only the copies' mask holds goes once, like any other.
    """
    s, c = (mask > 0.5 for mask in masks.unbind(-2))
    there = ((s | c) & ~lost[..., 0]) | (s & c & ~lost[..., 1])
    return a + (there.to(a.dtype) - a).detach()


class Losses:
    """Eq 20 and the reconstruction loss for a batch."""

    def __init__(self, net: ControllerModel, parts: Parts, c: ControllerTraining) -> None:
        self.net, self.parts, self.c = net, parts, c
        self._lambda = c.deeper ** torch.arange(-1.0, net.config.num_codebooks - 1)
        self._lambda[0] = c.semantic
        self._mel = MelLoss(parts.info.sample_rate, c.depth_db)

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """`loss` and what it is made of: `entropy`, `transmissions` a chunk, `mel`; and `copies` a chunk."""
        c = self.c
        importance, _ = self.net(batch.latents, batch.told[:, None].expand(batch.latents.shape[:2]))
        if c.budgeted:
            level = spending(importance, batch.rate, self.net.config.num_codebooks)
        else:
            level = batch.rate[:, None, None] * importance
        masks = straight_through(level, self.net.config.num_codebooks, c.sharpness, c.ahead)
        a, sent = arrival(masks, batch.p[:, None], batch.r[:, None])
        there = arrived(masks, a, batch.lost)
        entropy, bets = self._entropy(batch, a, there, sent)
        found = {"entropy": entropy, "transmissions": masks.sum((-1, -2)).mean()}
        loss = entropy + (0.0 if c.budgeted else c.gamma) * found["transmissions"]
        if c.reconstruction and self.parts.codec is not None and batch.speech is not None:
            found["mel"] = self._distance(batch, there, sent, bets)
            loss = loss + c.reconstruction * found["mel"]
        return {"loss": loss, **found, "copies": masks.prod(-2).sum(-1).mean()}

    def _entropy(self, batch: Batch, a: Tensor, there: Tensor, sent: Tensor) -> tuple[Tensor, Tensor]:
        """Σ λ (1 − a) CE / Σ λ a chunk of the windows, and the logits there [B, window, N_Q, K], without gradients.

        A token's cross entropy is that of being lost: where it was, it counts 1 / (1 − a) times, so that on average
        it counts once.
        """
        model, none = self.parts.recovery, self.parts.info.codebook_size
        late = bool(model.config.acoustic_delay)
        tokens = model.delayed(batch.tokens, none)
        a, there, sent = model.delayed(a, 0), model.delayed(there, 0), model.delayed(sent, 0)
        _, context = model.mixed_contexts(tokens, there, sent)
        # With an acoustic delay the first time step has no acoustic tokens.
        part = slice(batch.first + late, batch.first + late + self.c.window)
        rows, share, came = (x[:, part].flatten(0, 1) for x in (tokens.clamp(max=none - 1), a, there.detach()))
        text = torch.full_like(rows[:, 0], model.config.text_pad)
        hidden = model.depth_hidden(context[:, part].flatten(0, 1), rows, text)
        total, logits = a.new_zeros(()), []
        for k in range(rows.shape[1]):
            logits.append(depth.head(model.depth_decoder, hidden[:, k], k).float())
            entropy = F.cross_entropy(logits[k], rows[:, k], reduction="none")
            # Tokens that are hardly ever lost are bounded: they would count for too much when they are.
            gone = (1 - came[:, k]) * (1 - share[:, k]) / (1 - share[:, k].detach()).clamp(min=0.02)
            total = total + self._lambda[k] * (gone * entropy).mean()
        bets = torch.stack([x.detach() for x in logits], 1)
        return total / self._lambda.sum(), bets.view(len(batch.tokens), self.c.window, *bets.shape[1:])

    def _distance(self, batch: Batch, there: Tensor, sent: Tensor, bets: Tensor) -> Tensor:
        """Mel distance of what is heard in the windows of the first crops from what was said."""
        codec, info = self.parts.codec, self.parts.info
        assert codec is not None
        assert batch.speech is not None
        heard, part = slice(0, len(batch.speech)), slice(batch.first, batch.first + self.c.window)
        tokens = batch.tokens[heard, part].transpose(1, 2)
        share = there[heard, part].transpose(1, 2)
        points = torch.stack([codec.quantizer.book(k).entries for k in range(info.num_codebooks)])
        rows = bets[heard].flatten(0, 1)
        expected = expected_entries(rows, torch.ones(rows.shape[:2], dtype=torch.bool), points)
        expected = expected.view(-1, self.c.window, *expected.shape[1:]).transpose(1, 2)  # [B, N_Q, window, C]
        # What was not sent is not guessed, either.
        believed = (1 - share) * sent[heard, part].detach().transpose(1, 2)
        entries = codec.quantizer.entries(tokens, share, believed[..., None] * expected)
        made = codec.decoder(codec.quantizer.latents(entries), entries).speech
        skip = min(SKIPPED, self.c.window - 1) * info.chunk_samples
        distance: Tensor = self._mel(made[:, skip + info.delay :], batch.speech[:, skip : -info.delay or None])
        return distance


class ControllerTrainer:
    """Everything a run carries from step to step, and its checkpoint."""

    def __init__(
        self,
        c: ControllerTraining,
        parts: Parts,
        material: Material,
        out: Path,
        report: Report = lambda step, row: None,
    ) -> None:
        """Raises InputError if the parts do not fit each other, or a checkpoint in `out` is of another run."""
        check_parts(c, parts, material)
        torch.set_flush_denormal(True)
        torch.manual_seed(c.seed)
        self.c, self.parts, self.material, self.out = c, parts, material, out
        parts.recovery.eval().requires_grad_(False)
        info = parts.info
        self.net = ControllerModel(ControllerConfig(info.latent_dim, info.num_codebooks, info.fingerprint))
        self.net.adjust(draw(material, c, np.random.default_rng(c.seed)).latents.flatten(0, 1))
        out.mkdir(parents=True, exist_ok=True)
        resumed = (out / STATE).exists()
        if c.start and not resumed:
            rng = np.random.default_rng([c.seed, 1])
            start(self.net, material, c.start, rng, tell=lambda step, far: report(0, {f"beginning, {step}": far}))
        self.losses = Losses(self.net, parts, c)
        self.step = 0
        self.average = {k: v.clone() for k, v in self.net.state_dict().items()}
        self.optimiser = torch.optim.AdamW(self.net.parameters(), c.rate, weight_decay=c.decay)
        if resumed:
            self.load(out / STATE)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint. Raises InputError if it is of another codec."""
        saved = torch.load(path, weights_only=True)
        if json.loads(saved["model"]) != asdict(self.net.config):
            raise InputError(f"The checkpoint {path} belongs to another codec; give another folder.")
        self.net.load_state_dict(saved["net"])
        self.optimiser.load_state_dict(saved["optimiser"])
        self.average, self.step = saved["average"], saved["step"]

    def save(self) -> None:
        """Write a checkpoint and the averaged weights; the old ones stay until the new ones are whole."""
        saved = {
            "net": self.net.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average,
            "step": self.step,
            "model": json.dumps(asdict(self.net.config)),
        }
        with replacing(self.out / STATE) as part:
            torch.save(saved, part)
        c = self.c
        notes = {"steps": str(self.step), "gamma": str(c.gamma), "reconstruction": str(c.reconstruction)}
        save(self.averaged(), self.out / WEIGHTS, notes)

    def advance(self) -> dict[str, float]:
        """One optimiser step; the randomness of a step depends on the seed and its number alone."""
        self.net.train()
        found = self.losses(draw(self.material, self.c, np.random.default_rng([self.c.seed, self.step])))
        for group in self.optimiser.param_groups:
            group["lr"] = cosine_rate(self.step, self.c.rate, self.c.final_rate, self.c.warmup, self.c.steps)
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(found["loss"])
        norm = nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        if torch.isfinite(norm):
            self.optimiser.step()
        self.step += 1
        follow(self.average, self.net, self.step, self.c.average)
        return {name: float(value.detach()) for name, value in found.items()} | {"norm": float(norm)}

    def averaged(self) -> ControllerModel:
        """A copy of the model with the averaged weights."""
        net = ControllerModel(self.net.config)
        net.load_state_dict(self.average)
        return net.eval()


def check_parts(c: ControllerTraining, parts: Parts, material: Material) -> None:
    """Raises InputError if codec, recovery and material do not fit each other."""
    info, config = parts.info, parts.recovery.config
    if (config.num_codebooks, config.codebook_size) != (info.num_codebooks, info.codebook_size):
        raise InputError("The recovery model is for a codec with other codebooks.")
    if config.codec and config.codec != info.fingerprint:
        raise InputError("The recovery model was trained on the tokens of another codec.")
    if c.reconstruction and parts.codec is None:
        raise InputError(f"The codec {info.name} cannot be trained through: set reconstruction=0.")
    if c.reconstruction and material.corpus is None:
        raise InputError("The reconstruction loss needs the speech of the corpus, not only its tokens.")


@torch.no_grad()
def sends(
    net: ControllerModel, material: Material, info: CodecInfo, chunks: int = 6_000
) -> dict[str, dict[str, list[float]]]:
    """What a controller sends by loss rate and L, or by what there is to spend.

    Averages a chunk: [tokens, of them twice, bit/s of tokens].
    """
    from semaphone.controller.masks import hard_mask

    length, count = 150, net.config.num_codebooks
    total = min(len(material), max(1, chunks // length))
    picked = [int(i) for i in np.linspace(0, len(material) - 1, total)]
    latents = torch.from_numpy(np.stack([material.crop(i, 0, length).latents for i in picked]))
    inside = torch.from_numpy(np.arange(length)[None, :] < material.lengths[picked][:, None])
    bits = info.frame_rate * info.bits_per_token

    def shares(level: Tensor) -> list[float]:
        lengths = hard_mask(level, count).sum(-1)
        sent, twice = lengths.amax(-1).mean(), lengths.amin(-1).mean()
        return [round(float(x), 3) for x in (sent, twice, bits * (sent + twice))]

    found: dict[str, dict[str, list[float]]] = {}
    for p in (0.0, 0.05, 0.1, 0.2, 0.3):
        importance = net(latents, torch.full(latents.shape[:2], p))[0][inside]
        found[f"p={p}"] = {f"L={rate}": shares(rate * importance) for rate in (4, 8, 16, 24)}
        for budget in (4, 8, 12, 20):
            level = spending(importance[None], torch.tensor([float(budget)]), count)[0]
            found[f"p={p}"][f"{budget} a chunk"] = shares(level)
    return found


def train_controller(
    c: ControllerTraining,
    parts: Parts,
    material: Material,
    out: Path,
    dev: Material | None = None,
    until: int | None = None,
    report: Report = lambda step, row: None,
) -> Path:
    """Train until step `until` (default: `c.steps`), from the newest checkpoint in `out` if there is one.

    Writes log.jsonl, checkpoint.pt and nano-controller.safetensors (averaged weights); returns the latter's path.
    """
    trainer = ControllerTrainer(c, parts, material, out, report)
    last = c.steps if until is None else min(until, c.steps)

    def look(step: int) -> dict[str, Any] | None:
        if dev is None or (step % c.dev_every and step != last):
            return None
        return {"dev": sends(trainer.averaged(), dev, parts.info)}

    run_steps(trainer, last, c.every, report, look)
    return out / WEIGHTS
