"""What speech is sent through in an experiment: our link in any setting, and a codec alone (rivals.py has the others).

    system = LinkSystem("ours", "nano", "nano", "hold", ControllerSpec("fixed", codebooks=8, copies=3))
    arrived = system.send(speech, parse_channel("uniform:0.1"), seed=7)

A system is a small description that travels to worker processes; what it stands for is loaded there once.
`identity` names everything that decides what comes out: weights by their digests, never by their paths.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from semaphone.errors import InputError
from semaphone.experiments.digests import digest_of
from semaphone.packet.format import USUAL, PacketFormat

if TYPE_CHECKING:
    from semaphone.audio import Samples
    from semaphone.channel.erasure import ErasureChannel
    from semaphone.codec.base import Codec
    from semaphone.controller.base import Controller
    from semaphone.controller.registry import ControllerSpec
    from semaphone.link.feedback import Feedback
    from semaphone.link.simulate import Link
    from semaphone.recovery.base import Recovery

RATE = 16_000  # Hz, of what goes in and comes out
TOGETHER = 16  # blocks that models take at once


@dataclass(frozen=True)
class Sent:
    """What came of one recording, and what that cost. Rates are averages over the recording, in bit/s."""

    speech: Samples  # 16 kHz
    token_bps: float  # bits that say something
    payload_bps: float  # whole bytes
    gross_bps: float  # with IPv4, UDP and RTP headers
    packets_sent: int
    packets_lost: int
    same_timing: bool = True  # False: the words are spoken anew
    delay_ms: float | None = None  # from speech to its being played, without computation; None: not known
    chunk_loss: float | None = None  # share of chunks of which nothing arrived in time


@dataclass(frozen=True)
class System(ABC):
    """Something that speech goes through."""

    name: str  # as it stands in tables: "nano 1.51 kbit/s"
    family: str  # points of a family are joined in a figure over the rate

    @abstractmethod
    def identity(self, channel: ErasureChannel) -> dict[str, Any]:
        """Everything but the speech, the channel and the seed that decides what comes out, in types that JSON has."""

    @abstractmethod
    def send(self, speech: Samples, channel: ErasureChannel, seed: int, language: str | None = None) -> Sent:
        """Speech [N] at 16 kHz → what arrives. The same seed is the same weather for every system."""


@dataclass(frozen=True)
class LinkSystem(System):
    """Our link: what `semaphone transmit` does with the same settings."""

    codec: str
    recovery: str
    spec: ControllerSpec
    transmissions: int | None = None  # a chunk, copies included; a fixed mask is made of them, as the channel asks for
    schedule: str = USUAL  # of packets
    spacing: float = 0.0  # s between the packets of a block
    horizon: int | None = None  # of a history, packets; None: the usual one
    wait: float | None = None  # s that a chunk waits for packets after its own; None: for all that carry some of it
    protected: bool = True  # False: no token goes twice, and what that saves is spent on more of them
    feedback: Feedback | None = None  # how the sender learns of losses; a fixed controller does not listen
    dtx: bool = False  # pauses are not sent
    levels: tuple[tuple[str, float], ...] = ()  # L by channel, in place of a bit rate (matching.py)

    def identity(self, channel: ErasureChannel) -> dict[str, Any]:
        """See `System.identity`."""
        link = self.link(channel)
        settings = getattr(link.recovery, "settings", None)
        about = {} if settings is None else {"recovery_settings": repr(settings)}
        if link.wait is not None:
            about["wait"] = str(link.context)
        return about | {
            "codec": link.codec.info.fingerprint,
            "codec_weights": digest_of(link.codec),
            "recovery": type(link.recovery).__name__,
            "recovery_weights": digest_of(link.recovery),
            "controller": str(link.controller),
            "controller_weights": digest_of(link.controller),
            "packets": repr(link.form),
            "feedback": repr(link.feedback),
            "dtx": link.dtx,
        }

    def send(self, speech: Samples, channel: ErasureChannel, seed: int, language: str | None = None) -> Sent:
        """See `System.send`."""
        from semaphone.link.simulate import Record, simulate

        link = self.link(channel)
        rate = link.codec.info.sample_rate
        record = Record()
        heard = np.concatenate(list(simulate([resampled(speech, RATE, rate)], link, seed, record, TOGETHER)))
        report = record.report(link, seed)
        return Sent(
            fitted(resampled(heard, rate, RATE), len(speech)),
            report.token_bps,
            report.payload_bps,
            report.gross_bps,
            report.packets_sent,
            report.packets_lost,
            delay_ms=report.latency_ms["context"].p50 + report.latency_ms["lookahead"].p50,
            chunk_loss=report.chunk_loss_rate,
        )

    def link(self, channel: ErasureChannel) -> Link:
        """The link over a channel. Raises InputError for what does not fit together or is not there."""
        from semaphone.controller.registry import padded
        from semaphone.link.simulate import Link

        codec = codec_named(self.codec)
        form = padded(self.spec, codec.info, form_named(self.codec, self.schedule, self.spacing, self.horizon))
        spec = self.spec
        if self.levels:
            spec = replace(spec, bitrate=None, rate=dict(self.levels)[str(channel)])
        if self.transmissions is None:
            controller = controller_named(spec, self.codec, form)
        else:
            controller = told_controller(self.transmissions, form, channel)
        if not self.protected:
            controller = unprotected(controller, form)
        recovery = recovery_named(self.recovery, self.codec)
        return Link(codec, controller, form, recovery, channel, self.feedback, self.dtx, self.wait)


def form_named(codec: str, schedule: str = USUAL, spacing: float = 0.0, horizon: int | None = None) -> PacketFormat:
    """The packets of a codec's tokens; with `split` two for each block, `spacing` s apart; the horizon of a history."""
    info = codec_named(codec).info
    sizes = (info.num_codebooks, info.codebook_size)
    more = {} if schedule != "history" or horizon is None else {"copy_distance": horizon}
    return PacketFormat.named(schedule, *sizes, frame_rate=info.frame_rate, spacing=spacing, **more)


def told_controller(transmissions: int, form: PacketFormat, channel: ErasureChannel) -> Controller:
    """Codebooks and copies for a channel that is known beforehand, as Opus is told of the losses, too."""
    from semaphone.controller.base import FixedController
    from semaphone.controller.budget import best_history, best_split

    loss = channel.mean_loss
    again = max(loss, channel.conditional_loss(form.copy_delay))
    if form.schedule == "history":
        first, second, *later = form.effective(
            best_history(transmissions, form.num_codebooks, form.reach + 1, loss, again)
        )
        return FixedController(first, second, tuple(later))
    mask = best_split(transmissions, form.num_codebooks, loss, again)
    return FixedController(mask.sent, mask.twice)


def unprotected(controller: Controller, form: PacketFormat) -> Controller:
    """The same controller at the same rate, but no token goes twice (the paper's "w/o UEP")."""
    from semaphone.controller.adaptive import AdaptiveController
    from semaphone.controller.base import FixedController
    from semaphone.controller.rate import RateControl

    if isinstance(controller, FixedController):
        return FixedController(min(controller.mask.transmissions, form.num_codebooks))
    model = controller.controller if isinstance(controller, RateControl) else controller
    if isinstance(model, AdaptiveController):
        model = AdaptiveController(model.model, model.rate, model.longest_empty, copies=False)
        return RateControl(model, controller.target, form) if isinstance(controller, RateControl) else model
    raise InputError(f"The controller {controller} cannot go without copies at the same rate.")


@dataclass(frozen=True)
class CodecSystem(System):
    """A codec alone, without packets or loss; its rate is that of the tokens."""

    codec: str
    codebooks: int

    def identity(self, channel: ErasureChannel) -> dict[str, Any]:
        """See `System.identity`."""
        codec = codec_named(self.codec)
        weights = digest_of(codec)
        return {"codec": codec.info.fingerprint, "codec_weights": weights, "codebooks": self.codebooks}

    def send(self, speech: Samples, channel: ErasureChannel, seed: int, language: str | None = None) -> Sent:
        """See `System.send`."""
        import torch

        codec = codec_named(self.codec)
        info = codec.info
        x = resampled(speech, RATE, info.sample_rate)
        chunks = -(-(len(x) + info.delay) // info.chunk_samples)
        padded = np.pad(x, (0, chunks * info.chunk_samples - len(x)))
        tokens = codec.encode(torch.from_numpy(padded)[None], None, self.codebooks).tokens
        heard = codec.decode(tokens).speech[0].numpy()[info.delay : info.delay + len(x)]
        rate = self.codebooks * info.bits_per_token * info.frame_rate
        return Sent(fitted(resampled(heard, info.sample_rate, RATE), len(speech)), rate, rate, rate, 0, 0)


def resampled(speech: Samples, from_rate: int, to_rate: int) -> Samples:
    """Speech [N] at another rate in Hz."""
    from semaphone.audio import Resampler

    return speech if from_rate == to_rate else Resampler(from_rate, to_rate).push(speech, last=True)


def fitted(speech: Samples, length: int) -> Samples:
    """Cut or filled with silence to [length], and within full scale."""
    return np.pad(speech, (0, max(0, length - len(speech))))[:length].clip(-1.0, 1.0)


@lru_cache(maxsize=4)
def codec_named(name: str) -> Codec:
    """A codec, loaded once in this process."""
    from semaphone.codec.registry import load_codec

    return load_codec(name)


@lru_cache(maxsize=32)
def controller_named(spec: ControllerSpec, codec: str, form: PacketFormat) -> Controller:
    """A controller for a codec and packets, loaded once in this process; its state is not in it."""
    from semaphone.controller.registry import load_controller

    return load_controller(spec, codec_named(codec).info, form)


@lru_cache(maxsize=8)
def recovery_named(name: str, codec: str) -> Recovery:
    """A recovery for the tokens of a codec, loaded once in this process."""
    from semaphone.recovery.registry import load_recovery

    return load_recovery(name, codec_named(codec).info)
