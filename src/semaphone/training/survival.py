"""Which tokens survive, drawn for training (LargeSC §IV-A2, §IV-A3; the packets of the link).

Three kinds of weather are mixed: every token for itself (the paper's), packets at random, packets in
bursts (Gilbert-Elliott). Packets are those of `sliding` and of `split`. In both a chunk's tokens go by
turns in two packets, one sent twice rides in both, and each says what the chunk holds: one lost packet
loses every other token, two lose even that knowledge. The two packets of `split` hold a block of two
chunks, a packet of `sliding` what is left of one chunk and the first half of the next. So something of
the next chunk is known when one is recovered: all that arrived of it in a block of `split`, what came
with the chunk's second packet in `sliding`. How much is sent varies from utterance to utterance and
from chunk to chunk.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semaphone.errors import InputError
from semaphone.recovery.base import TokenStatus

Status = NDArray[np.int64]


@dataclass(frozen=True)
class Survival:
    """What is drawn."""

    lossy: float = 0.75  # share of utterances with losses
    kinds: tuple[float, float, float] = (0.15, 0.4, 0.45)  # shares of token, packet and burst losses
    rates: tuple[float, float] = (0.02, 0.5)  # loss rate, uniform between the two
    bursts: tuple[float, float] = (1.2, 10.0)  # mean length of a burst in packets of 80 ms, log-uniform
    full: float = 0.3  # share of utterances in which every token is sent
    steady: float = 0.5  # share of the others that send the same number in every chunk
    copied: float = 0.5  # share of utterances that send some tokens twice
    sliding: float = 0.8  # share of those with packets whose packets slide

    def __post_init__(self) -> None:
        shares = (self.lossy, self.full, self.steady, self.copied, self.sliding)
        if not all(0 <= s <= 1 for s in shares) or min(self.kinds) < 0 or not sum(self.kinds) > 0:
            raise InputError("Shares of losses in training are between 0 and 1.")
        if not 0 <= self.rates[0] <= self.rates[1] < 1 or not 1 <= self.bursts[0] <= self.bursts[1]:
            raise InputError("Loss rates in training are in [0, 1), bursts one packet or longer, smaller value first.")


def draw_status(
    s: Survival, batch: int, chunks: int, codebooks: int, rng: np.random.Generator
) -> tuple[Status, Status]:
    """TokenStatus of a batch of utterances, all of them with losses (see `Survival.lossy`): [B, T, N_Q] twice.

    The first is what is known of a chunk when it is recovered, the second what is known by then of the next.
    """
    drawn = [_utterance(s, chunks, codebooks, rng) for _ in range(batch)]
    return np.stack([status for status, _ in drawn]), np.stack([coming for _, coming in drawn])


def _utterance(s: Survival, chunks: int, codebooks: int, rng: np.random.Generator) -> tuple[Status, Status]:
    blocks = -(-chunks // 2)
    sent = sent_tokens(s, 2 * blocks, codebooks, rng)
    twice = np.zeros_like(sent)
    if rng.random() < s.copied:
        twice = np.minimum(sent, rng.integers(0, codebooks + 1))
    rate = rng.uniform(*s.rates)
    kind = rng.choice(3, p=np.array(s.kinds) / sum(s.kinds))
    if kind == 0:
        status = token_losses(sent, twice, codebooks, rate, rng)
        coming = np.full_like(status, TokenStatus.UNKNOWN)
    else:
        burst = 1.0 if kind == 1 else float(np.exp(rng.uniform(*np.log(s.bursts))))
        lost = packet_losses(2 * blocks + 1, rate, burst if kind == 2 else None, rng)
        status, coming = packet_status(sent, twice, codebooks, lost, rng.random() < s.sliding)
    return settle(status)[:chunks], coming[:chunks]


def sent_tokens(s: Survival, chunks: int, codebooks: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """How many tokens each chunk sends, [T]: all, the same number everywhere, or a random walk."""
    if rng.random() < s.full:
        return np.full(chunks, codebooks)
    level = int(rng.integers(1, codebooks + 1))
    if rng.random() < s.steady:
        return np.full(chunks, level)
    walk = level + np.cumsum(rng.integers(-2, 3, chunks))
    period = 2 * (codebooks - 1)  # reflected at 1 and N_Q
    folded = np.abs((walk - 1) % period - (codebooks - 1)) if period else np.zeros(chunks, np.int64)
    return (codebooks - folded).astype(np.int64)


def token_losses(
    sent: NDArray[np.int64], twice: NDArray[np.int64], codebooks: int, rate: float, rng: np.random.Generator
) -> Status:
    """Every token for itself (§IV-A3); one sent twice is lost if both are. [T] → [T, N_Q]."""
    k = np.arange(codebooks)
    lost = rng.random((len(sent), codebooks)) < rate
    again = rng.random((len(sent), codebooks)) < rate
    lost &= again | (k >= twice[:, None])
    status = np.where(lost, TokenStatus.LOST, TokenStatus.RECEIVED)
    return np.where(k < sent[:, None], status, TokenStatus.UNSENT).astype(np.int64)


def packet_losses(packets: int, rate: float, burst: float | None, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Lost packets, [packets]: independent, or a two-state chain with the given mean burst length in packets."""
    if burst is None or rate == 0:
        return rng.random(packets) < rate
    leave = 1 / burst
    enter = min(1.0, leave * rate / (1 - rate))
    draw = rng.random(packets)
    return _chain(draw >= leave, draw < enter, bool(rng.random() < rate))


def _chain(stays: NDArray[np.bool_], comes: NDArray[np.bool_], bad: bool) -> NDArray[np.bool_]:
    """A chain of bad and good: what each of its states is, [n], when a bad one is followed by a bad one where `stays`
    and a good one where `comes`.

    Where both say the same the state before does not matter; between such places it is kept or turned round.
    """
    count = len(stays)
    sure = np.concatenate([[0], np.where(stays == comes, np.arange(1, count + 1), 0)[:-1]])
    last = np.maximum.accumulate(sure)  # where the state was last set
    turns = np.concatenate([[0], np.cumsum(comes & ~stays)[:-1]])
    start = np.concatenate([[bad], stays[:-1]])[last]
    found: NDArray[np.bool_] = start ^ ((turns - turns[last]) % 2 == 1)
    return found


def packet_status(
    sent: NDArray[np.int64], twice: NDArray[np.int64], codebooks: int, lost: NDArray[np.bool_], sliding: bool
) -> tuple[Status, Status]:
    """What arrives of chunks [T] in packets [T + 1], and by then of the chunk after each: [T, N_Q] twice; T is even.

    In `split` there is no packet after the last chunk's.
    """
    return (_sliding if sliding else _split)(sent, twice, codebooks, lost)


def _sliding(
    sent: NDArray[np.int64], twice: NDArray[np.int64], codebooks: int, lost: NDArray[np.bool_]
) -> tuple[Status, Status]:
    k = np.arange(codebooks)
    first, second = lost[:-1, None], lost[1:, None]  # the two packets of each chunk: its own and the next one's
    early = (k % 2 == 0) | (k < twice[:, None])  # what leaves with the chunk's own packet
    late = (k % 2 == 1) | (k < twice[:, None])
    known = _known(sent, (early & ~first) | (late & ~second), first & second)
    coming = np.full_like(known, TokenStatus.UNKNOWN)
    coming[:-1] = _known(sent, early, first)[1:]
    return known, coming


def _split(
    sent: NDArray[np.int64], twice: NDArray[np.int64], codebooks: int, lost: NDArray[np.bool_]
) -> tuple[Status, Status]:
    pair = lost[: len(sent)].reshape(-1, 1, 2)  # [blocks, 1, packet]
    k, packet = np.arange(codebooks), packet_of(codebooks)
    first = np.take_along_axis(pair, np.broadcast_to(packet, (len(pair), 2, codebooks)).reshape(len(pair), 1, -1), 2)
    gone = first.reshape(-1, codebooks)
    both = np.repeat(pair.all(axis=(1, 2)), 2)[:, None]  # [T, 1]
    copies = np.where(sent == 1, 1, twice)[:, None]  # a single token has nothing to be interleaved with: it goes twice
    known = _known(sent, ~np.where(k < copies, both, gone), both)
    coming = np.full_like(known, TokenStatus.UNKNOWN)
    coming[::2] = known[1::2]
    return known, coming


def _known(sent: NDArray[np.int64], here: NDArray[np.bool_], nothing: NDArray[np.bool_]) -> Status:
    """What is known of chunks of which the tokens `here` [T, N_Q] came, if any were sent, or `nothing` [T, 1] did."""
    status = np.where(here, TokenStatus.RECEIVED, TokenStatus.LOST)
    status = np.where(np.arange(here.shape[1]) < sent[:, None], status, TokenStatus.UNSENT)
    return np.where(nothing, TokenStatus.UNKNOWN, status).astype(np.int64)


def packet_of(codebooks: int) -> NDArray[np.int64]:
    """The packet of each token of a block of `split`, [2, N_Q]: 0 or 1."""
    return (np.arange(2)[:, None] + np.arange(codebooks) + 1) % 2


def settle(status: Status) -> Status:
    """What the receiver makes of unknown tokens [T, N_Q]: beyond the number sent lately they count as unsent."""
    count = status.shape[1]
    unknown = (status == TokenStatus.UNKNOWN).any(1)
    at = np.maximum.accumulate(np.where(unknown, 0, np.arange(1, len(status) + 1)))  # 0: nothing known before
    lately = np.concatenate([[count], (status != TokenStatus.UNSENT).sum(1)])[at]
    beyond = unknown[:, None] & (np.arange(count) >= np.maximum(lately, 1)[:, None])
    return np.where(beyond, int(TokenStatus.UNSENT), status)
