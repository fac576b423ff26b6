"""Recovery by the language model (LargeSC eq 8), with a way out of long losses and a way back in.

    recovery = LmRecovery(load("recovery.safetensors", codec.info.fingerprint))
    recovered, state = recovery.step(tokens, status, state)

The model fills what was lost. Its guesses enter the codec's sum as what is to be expected of them: a mean over
entries, weighed by their probabilities. Of a chunk of which nothing at all arrived only the first codebook is
guessed. The rest is left to the decoder, which was trained to bridge missing chunks: what the model would invent
there sounds fuller and costs phones. After some such chunks the loudness falls, and when nothing can be heard any
more the model stops predicting, which leaves its memory clean for the moment speech returns; then the loudness rises
over two chunks.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from semaphone.codec.attention import select
from semaphone.computing import OneCore
from semaphone.errors import InputError
from semaphone.recovery.base import Recovered, TokenStatus
from semaphone.recovery.expectation import expected_entries
from semaphone.recovery.rq_state import RQState, Step
from semaphone.recovery.rq_transformer import RQTransformer
from semaphone.recovery.sampling import Sampling

SMALL = 100_000_000  # weights, up to which a model is computed on one core


@dataclass(frozen=True)
class Fade:
    """What happens to the sound while chunk after chunk is wholly lost."""

    hold: int = 3  # wholly lost chunks in a row at full loudness
    fall: float = 6.0  # dB a chunk after those
    silent: float = -30.0  # dB below which there is silence, and no more predicting
    rise: float = 0.5  # gain regained a chunk, of 1

    def __post_init__(self) -> None:
        if self.hold < 0 or self.fall <= 0 or self.silent >= 0:
            raise InputError("A fade has hold >= 0, fall > 0 dB a chunk and a level of silence below 0 dB.")
        if not 0 < self.rise <= 1:
            raise InputError("A fade has rise in (0, 1].")

    def gain(self, lost: Tensor) -> Tensor:
        """Gain [B] after `lost` [B] wholly lost chunks in a row."""
        level = -self.fall * (lost - self.hold).clamp(min=0).float()
        return torch.where(level < self.silent, 0.0, 10 ** (level / 20))


@dataclass(frozen=True)
class LmSettings:
    """How the model is used."""

    sampling: Sampling = Sampling()  # noqa: RUF009, frozen
    predict_unsent: bool = False  # predict what the controller left out, too: on dev it sounds worse
    deepest: int = 8  # codebooks beyond stay out if they are lost: of a guess there nano could believe 3 percent
    imagined: int = 1  # the same where nothing of a chunk arrived: the decoder bridges better than deeper guesses do
    sharpness: float = 1.0  # above 1 guessed tokens count for more than they should: fuller, and less true
    confidence: float = 0.15  # without the codec's entries a guessed token counts its probability to this power
    invented: float = 1.0  # without entries: weight of guesses where nothing of a chunk arrived that they could spoil
    delay: int = 0  # chunks of waiting, for a model with an acoustic delay: 0 (a second depth pass) or 1
    fade: Fade = Fade()  # the way out of long losses and back

    def __post_init__(self) -> None:
        if self.delay not in (0, 1):
            raise InputError(f"The delay of recovery is 0 or 1 chunks, not {self.delay}.")
        if min(self.deepest, self.imagined) < 1:
            raise InputError(f"At least one codebook is guessed, not {min(self.deepest, self.imagined)}.")
        if self.confidence < 0 or self.sharpness <= 0:
            raise InputError(
                f"confidence is 0 or more and sharpness above 0, not {self.confidence} and {self.sharpness}."
            )
        if not 0 <= self.invented <= 1:
            raise InputError(f"Guesses where nothing arrived have a weight of 0 to 1, not {self.invented}.")


@dataclass(frozen=True)
class LmState:
    """What is remembered of B streams."""

    model: RQState
    lost: Tensor  # [B] int64, wholly lost chunks in a row
    gain: Tensor  # [B], of the last chunk
    sent: Tensor  # [B] int64, tokens sent of the last chunk whose table of contents arrived
    held: tuple[Tensor, Tensor] | None = None  # with a delay: gain and `lost` of the chunk that is still to come out


class LmRecovery:
    """`Recovery` on an `RQTransformer`."""

    def __init__(self, model: RQTransformer, settings: LmSettings | None = None) -> None:
        """Raises InputError if a delay is asked of a model that has none."""
        self.model = model.eval()
        self.model.prepare()
        self._small = sum(weight.numel() for weight in model.parameters()) < SMALL
        self.settings = settings or LmSettings()
        if self.settings.delay and not model.config.acoustic_delay:
            raise InputError("This recovery model needs no delay.")

    @property
    def delay(self) -> int:
        """Chunks by which what comes out lags behind what goes in."""
        return self.settings.delay

    def fresh_state(self, batch: int) -> LmState:
        """The state of `batch` streams that have not begun."""
        model = self.model.fresh_state(batch)
        device = model.past.device
        zero = torch.zeros(batch, dtype=torch.int64, device=device)
        one = torch.ones(batch, device=device)
        held = (torch.zeros(batch, device=device), zero) if self.delay else None
        return LmState(model, zero, one, torch.full_like(zero, self.model.config.num_codebooks), held)

    @torch.no_grad()
    def restart(self, state: LmState, streams: Tensor) -> LmState:
        """The same state with some streams ([B] bool) made fresh."""
        model = self.model.restart(state.model, streams)
        return replace(_merge(streams, self.fresh_state(len(streams)), state), model=model)

    @torch.no_grad()
    def step(
        self,
        tokens: Tensor,
        status: Tensor,
        state: LmState | None = None,
        stepping: Tensor | None = None,
        *,
        coming: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Recovered, LmState]:
        """Tokens [B, N_Q] and TokenStatus [B, N_Q] of one chunk → the recovered chunk and the next state.

        Received tokens come out untouched with weight 1. `stepping` [B] bool: the streams that move on (default:
        all); the rows of the others mean nothing. `coming`: tokens and status of the next chunk as far as they have
        arrived. With a delay, the chunk before comes out (silence at first).
        """
        old = self.fresh_state(tokens.shape[0]) if state is None else state
        outside, device = tokens.device, old.lost.device
        tokens, status = tokens.to(device), _settle(status.to(device), old.sent)
        lost, gain = self._loudness(status, old)
        predict = self._wanted(status, lost) & (gain > 0)[:, None]
        with OneCore(tokens.shape[0]) if self._small else nullcontext():
            step = self.model.step(
                tokens,
                status,
                old.model,
                predict=predict,
                sampling=self.settings.sampling,
                look_ahead=not self.delay,
                stepping=stepping,
                coming=None if coming is None else (coming[0].to(device), coming[1].to(device)),
            )
        sent = torch.where((status == TokenStatus.UNKNOWN).any(1), old.sent, _sent(status))
        new = LmState(step.state, lost, gain, sent, (gain, lost) if self.delay else None)
        out_gain, out_lost = (gain, lost) if old.held is None else old.held
        weight, entries = self._believed(step, out_lost)
        entries = None if entries is None else entries.to(outside)
        recovered = Recovered(step.tokens.to(outside), weight.to(outside), out_gain.to(outside), entries)
        if stepping is not None:
            new = replace(_merge(stepping, new, old), model=step.state)
        return recovered, new

    def _loudness(self, status: Tensor, state: LmState) -> tuple[Tensor, Tensor]:
        """Wholly lost chunks in a row, this one included, and the gain: [B], [B]."""
        nothing = (status != TokenStatus.RECEIVED).all(1) & (status != TokenStatus.UNSENT).any(1)
        lost = torch.where(nothing, state.lost + 1, 0)
        back = (state.gain + self.settings.fade.rise).clamp(max=1.0)
        gain = torch.where(nothing, torch.minimum(self.settings.fade.gain(lost), back), back)
        return lost, gain

    def _wanted(self, status: Tensor, lost: Tensor) -> Tensor:
        most = torch.where(lost > 0, min(self.settings.imagined, self.settings.deepest), self.settings.deepest)
        deep = torch.arange(status.shape[1], device=status.device) >= most[:, None]
        if self.settings.predict_unsent:
            return (status != TokenStatus.RECEIVED) & ~deep
        return ((status == TokenStatus.LOST) | (status == TokenStatus.UNKNOWN)) & ~deep

    def _believed(self, step: Step, lost: Tensor) -> tuple[Tensor, Tensor | None]:
        """How much of each token's embedding enters the decoder's sum [B, N_Q], and what does besides [B, N_Q, C]."""
        points = self.model.points
        if points is not None:
            weight = (~step.guessed).to(step.probability.dtype).masked_fill(step.absent, 0.0)
            if not step.guessed.any():
                return weight, None
            return weight, expected_entries(step.logits, step.guessed, points, self.settings.sharpness)
        alone = (lost > 0)[:, None]
        guess = torch.where(alone, self.settings.invented, step.probability**self.settings.confidence)
        return torch.where(step.guessed, guess, 1.0).masked_fill(step.absent, 0.0), None


def _sent(status: Tensor) -> Tensor:
    """Tokens that were sent, [B]: the masks are prefixes (eq 6)."""
    return (status != TokenStatus.UNSENT).sum(1)


def _settle(status: Tensor, sent: Tensor) -> Tensor:
    """Unknown tokens beyond the number sent lately count as unsent: the controller seldom jumps."""
    beyond = torch.arange(status.shape[1], device=status.device) >= sent.clamp(min=1)[:, None]
    return torch.where((status == TokenStatus.UNKNOWN) & beyond, TokenStatus.UNSENT, status)


def _merge(streams: Tensor, new: LmState, old: LmState) -> LmState:
    """All but the model's own state: that of `new` for some streams ([B] bool), of `old` for the others."""
    held = None
    if new.held is not None and old.held is not None:
        held = (select(streams, new.held[0], old.held[0]), select(streams, new.held[1], old.held[1]))
    return LmState(
        new.model,
        select(streams, new.lost, old.lost),
        select(streams, new.gain, old.gain),
        select(streams, new.sent, old.sent),
        held,
    )
