"""How good the guesses are: cross entropy of lost tokens, by codebook, against what needs no model.

The model's past is the one a receiver has (its own guesses, made step by step, in the given weather);
the cross entropy is that of the tokens that did not arrive, each given the true ones before it in its
chunk and everything of the chunk that arrived. `unigram` knows how often each entry occurs in the
training tokens; `repeat_last` mixes that with the last received entry of the codebook, in the
proportion that is best for it on the very tokens it is judged by.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semaphone.recovery import depth
from semaphone.recovery.base import TokenStatus
from semaphone.recovery.rq_state import ABSENT, GUESSED, HEARD
from semaphone.recovery.rq_transformer import RQTransformer
from semaphone.training.survival import packet_losses, packet_status, settle
from semaphone.training.tokens import TokenSet


@dataclass(frozen=True)
class Weather:
    """Losses of `sliding` packets in a dev run; everything is sent once."""

    rate: float = 0.2  # of packets
    burst: float | None = None  # mean length of bursts in packets of 80 ms; None: independent losses
    seed: int = 7


WEATHERS = {"uniform 20 %": Weather(), "bursts of 240 ms, 20 %": Weather(burst=3.0)}


def evaluate(
    model: RQTransformer,
    dev: TokenSet,
    train: TokenSet,
    weathers: dict[str, Weather] | None = None,
    streams: int = 32,
    chunks: int = 125,
) -> dict[str, Any]:
    """Cross entropy (nat) and accuracy of lost tokens by weather, predictor and codebook.

    The first `streams` utterances of the dev set, by length, are cut to `chunks`. The model is asked on its device.
    """
    model.eval()
    tokens, valid = longest(dev, streams, chunks)
    share = unigram(train)
    return {
        name: _judge(model, tokens, valid, share, weather)
        for name, weather in (WEATHERS if weathers is None else weathers).items()
    }


def longest(dev: TokenSet, streams: int, chunks: int) -> tuple[Tensor, Tensor]:
    """Tokens [B, T, N_Q] of the longest utterances, cut or padded, and which chunks are real [B, T]."""
    order = np.argsort(-dev.lengths, kind="stable")[:streams]
    chunks = min(chunks, int(dev.lengths.max()))
    x = np.zeros((len(order), chunks, dev.num_codebooks), np.int64)
    valid = np.zeros((len(order), chunks), bool)
    for b, i in enumerate(order):
        part = dev[int(i)].tokens.T[:chunks]
        x[b, : len(part)] = part
        valid[b, : len(part)] = True
    return torch.from_numpy(x), torch.from_numpy(valid)


def unigram(train: TokenSet) -> NDArray[np.float64]:
    """Relative frequency of each entry, [N_Q, K], every count begun at 1/2."""
    counts = np.full((train.num_codebooks, train.codebook_size), 0.5)
    everything = np.concatenate([utterance.tokens for utterance in train], 1)
    for k, row in enumerate(everything):
        counts[k] += np.bincount(row, minlength=train.codebook_size)
    share: NDArray[np.float64] = counts / counts.sum(1, keepdims=True)
    return share


def fate(weather: Weather, streams: int, chunks: int, codebooks: int) -> tuple[Tensor, Tensor]:
    """TokenStatus [B, T, N_Q] of each chunk when it is recovered, and of the next one by then."""
    rng = np.random.default_rng(weather.seed)
    even = chunks + chunks % 2
    sent, twice = np.full(even, codebooks), np.zeros(even, np.int64)
    rows, next_rows = [], []
    for _ in range(streams):
        lost = packet_losses(even + 1, weather.rate, weather.burst, rng)
        status, coming = packet_status(sent, twice, codebooks, lost, sliding=True)
        rows.append(settle(status)[:chunks])
        next_rows.append(coming[:chunks])
    return torch.from_numpy(np.stack(rows)), torch.from_numpy(np.stack(next_rows))


@torch.no_grad()
def entropies(
    model: RQTransformer, tokens: Tensor, status: Tensor, coming: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Cross entropy in nat and whether the likeliest entry is right, both [B, T, N_Q], of every token.

    The past is what `step` makes of it in this weather. `coming` [B, T, N_Q]: what is known of the chunk after each.
    """
    state, made = None, []
    later = torch.cat([tokens[:, 1:], torch.zeros_like(tokens[:, :1])], 1)
    for n in range(tokens.shape[1]):
        following = None if coming is None else (later[:, n], coming[:, n])
        step = model.step(tokens[:, n], status[:, n], state, look_ahead=False, coming=following)
        state = step.state
        made.append(step.tokens)
    past = torch.stack(made, 1)
    if model.config.acoustic_delay:  # what comes out is a chunk late
        past = torch.cat([past[:, 1:], tokens[:, -1:]], 1)
    heard = torch.where(status == TokenStatus.RECEIVED, HEARD, GUESSED)
    none = model.config.codebook_size
    steps = [
        model.delayed(x, fill)
        for x, fill in ((tokens, none), (status, int(TokenStatus.UNSENT)), (past, none), (heard, ABSENT))
    ]
    text = torch.full_like(steps[0][..., 0], model.config.text_pad)
    _, context = model.contexts(steps[0], steps[1], steps[2], steps[3], text, coming)
    entropy = torch.zeros(steps[0].shape, device=tokens.device)
    right = torch.zeros_like(entropy)
    for b in range(len(tokens)):
        hidden = model.depth_hidden(context[b], steps[0][b], text[b])
        for k in range(steps[0].shape[2]):
            goal = steps[0][b, :, k].clamp(max=none - 1)
            logits = depth.head(model.depth_decoder, hidden[:, k], k).float()
            entropy[b, :, k] = -logits.log_softmax(-1).gather(1, goal[:, None])[:, 0]
            right[b, :, k] = (logits.argmax(-1) == goal).float()
    return model.undelayed(entropy), model.undelayed(right)


def last_received(tokens: Tensor, status: Tensor) -> Tensor:
    """The last entry of the same codebook that arrived before each chunk, [B, T, N_Q]; -1: none yet."""
    held = torch.full_like(tokens[:, 0], -1)
    rows = []
    for n in range(tokens.shape[1]):
        rows.append(held)
        held = torch.where(status[:, n] == TokenStatus.RECEIVED, tokens[:, n], held)
    return torch.stack(rows, 1)


def _judge(
    model: RQTransformer, tokens: Tensor, valid: Tensor, share: NDArray[np.float64], weather: Weather
) -> dict[str, Any]:
    status, coming = fate(weather, len(tokens), tokens.shape[1], tokens.shape[2])
    lost = (status != TokenStatus.RECEIVED) & valid[:, :, None]
    device = next(model.parameters()).device
    entropy, right = (x.cpu() for x in entropies(model, tokens.to(device), status.to(device), coming.to(device)))
    held = last_received(tokens, status)
    table = torch.from_numpy(share)
    chance = torch.stack([table[k][tokens[..., k]] for k in range(tokens.shape[2])], -1)
    same = held == tokens
    found: dict[str, Any] = {"lost": int(lost.sum())}
    found["model"] = _by_codebook(entropy, lost)
    found["unigram"] = _by_codebook(-chance.log(), lost)
    found["repeat_last"] = [_mixed(chance[..., k], same[..., k], lost[..., k]) for k in range(tokens.shape[2])]
    found["accuracy"] = _by_codebook(right, lost)
    found["accuracy_repeat_last"] = _by_codebook(same.float(), lost)
    for name in ("model", "unigram", "repeat_last"):
        found[name + "_mean"] = round(float(np.mean(found[name])), 4)
    return found


def _by_codebook(x: Tensor, lost: Tensor) -> list[float]:
    return [round(float(x[..., k][lost[..., k]].double().mean()), 4) for k in range(x.shape[-1])]


def _mixed(chance: Tensor, same: Tensor, lost: Tensor) -> float:
    """Mean cross entropy of r [repeat] + (1 - r) unigram on the lost tokens, at its best r."""
    p, s = chance[lost], same[lost].double()
    best = min(float(-(r * s + (1 - r) * p).log().mean()) for r in np.linspace(0, 0.98, 50))
    return round(best, 4)
