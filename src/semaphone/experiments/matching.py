"""At which L does an adaptive controller spend as much as something else? Payloads for experiments at one rate.

    target = spent(mask, form, codec, recordings)
    system = matched(system, ["none", "uniform:0.2"], recordings, target, seed=1)

A controller that may give one recording more than another needs a constant L and not a bit rate that is kept within
each of them: a rate that holds for four seconds leaves nothing to decide. So L is chosen, one for each weather, such
that the average payload over all recordings is the target. What is sent depends on the latents and on the reported
losses alone, so no packet has to be made: the whole takes little more than encoding the recordings once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from semaphone.controller.adaptive import AdaptiveController
from semaphone.controller.base import NOTHING
from semaphone.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from semaphone.controller.base import Demand, Mask
    from semaphone.experiments.corpus import Recording
    from semaphone.experiments.systems import LinkSystem
    from semaphone.link.simulate import Link
    from semaphone.packet.format import PacketFormat

LOWEST, HIGHEST = 0.25, 1e4  # L
FINE = 1.0005  # the ratio of two rates L that need not be told apart


@dataclass(frozen=True)
class _Talk:
    """What a recording asks for in one weather."""

    demands: tuple[Demand, ...]  # one a chunk
    seconds: float


def matched(
    system: LinkSystem, channels: Sequence[str], recordings: Sequence[Recording], target: float, seed: int
) -> LinkSystem:
    """The system with the L of each channel at which the mean payload of the recordings is `target` (bit/s).

    `seed` is that of the experiment, whose weather the sender is told of. Raises InputError if the controller is
    none that has an L, or no L gives so much.
    """
    from semaphone.channel.erasure import parse_channel
    from semaphone.commands._progress import progress
    from semaphone.experiments.cells import weather_of

    made = {text: parse_channel(text) for text in channels}
    links = {text: replace(system, levels=((str(channel), 1.0),)).link(channel) for text, channel in made.items()}
    talks: dict[str, list[_Talk]] = {text: [] for text in made}
    with progress() as bar:
        task = bar.add_task(f"matching the rate of {system.name}", total=len(made) * len(recordings))
        for recording in recordings:
            for text, link in links.items():
                talks[text].append(_asked(link, recording, system.codec, weather_of(recording, seed)))
                bar.advance(task)
    levels = tuple((str(channel), _level(links[text], talks[text], target)) for text, channel in made.items())
    return replace(system, levels=levels)


def _asked(link: Link, recording: Recording, codec: str, weather: int) -> _Talk:
    """Block by block, as the sender asks: with what it has been told of the losses until then."""
    from semaphone.link.feedback import Reports

    controller, form = _scalable(link), link.form
    latents = _latents(recording.file, codec)
    reports = Reports(link.feedback, link.channel, form)
    sampler = link.channel.sampler(np.random.default_rng(weather))
    demands: list[Demand] = []
    state = None
    for block in range(-(-latents.shape[1] // form.chunks_per_block)):
        part = latents[:, block * form.chunks_per_block : (block + 1) * form.chunks_per_block]
        asked, state = controller.demands(part, reports.at((block + 1) * form.block_duration), state)
        demands += asked
        for number in range(block * form.packets_per_block, (block + 1) * form.packets_per_block):
            time = form.send_time(number)
            reports.observe(number, time, link.channel.per != "token" and sampler.lost(time))
    return _Talk(tuple(demands), recording.seconds)


def _scalable(link: Link) -> AdaptiveController:
    if not isinstance(link.controller, AdaptiveController) or link.dtx:
        raise InputError("Only an adaptive controller that sends pauses, too, has an L that can be matched.")
    return link.controller


@lru_cache(maxsize=1024)
def _latents(file: Path, codec: str) -> Tensor:
    """z_n [D, T] of a recording, as its sender makes them."""
    import torch

    from semaphone.audio import read_audio
    from semaphone.experiments.systems import codec_named
    from semaphone.link.talk import Length, steps

    model = codec_named(codec)
    speech = read_audio(file, model.info.sample_rate)
    found, state = [], None
    for piece in steps([speech], model.info, 64, Length()):
        encoded = model.encode(torch.from_numpy(piece)[None], state, 1)
        state = encoded.state
        found.append(encoded.latents[0])
    return torch.cat(found, 1)


def spent(mask: Mask, form: PacketFormat, codec: str, recordings: Sequence[Recording]) -> float:
    """The mean payload (bit/s) of recordings of which every chunk has this mask, ends of talks included."""
    found = [_payload(form, [mask] * _latents(one.file, codec).shape[1], one.seconds) for one in recordings]
    return float(np.mean(found))


def _payload(form: PacketFormat, masks: Sequence[Mask], seconds: float) -> float:
    """bit/s of a talk whose chunks have these masks."""
    size, nothing = form.chunks_per_block, (NOTHING,) * form.chunks_per_block
    masks = [*masks, *[NOTHING] * (-len(masks) % size)]
    blocks = [tuple(masks[i : i + size]) for i in range(0, len(masks), size)]
    talk = len(blocks)
    blocks += [nothing] * form.reach  # what still waits at the end rides in blocks of its own
    sizes = []
    for i, block in enumerate(blocks):
        copied = form.riding(blocks[max(0, i - form.reach) : i], NOTHING)
        sizes.append(sum(form.sizes(block, copied)))
    while len(sizes) > talk and sizes[-1] == sum(form.sizes(nothing)):
        sizes.pop()
    return 8 * sum(sizes) / seconds


def _level(link: Link, talks: Sequence[_Talk], target: float) -> float:
    """The largest L whose mean payload is at most the target."""
    controller = _scalable(link)

    def fits(rate: float) -> bool:
        payloads = [_payload(link.form, controller.masks(talk.demands, rate)[0], talk.seconds) for talk in talks]
        return float(np.mean(payloads)) <= target

    low, high = LOWEST, HIGHEST
    if not fits(low) or fits(high):
        raise InputError(f"No rate L of the adaptive controller makes a payload of {target:.0f} bit/s.")
    while high > FINE * low:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if fits(middle) else (low, middle)
    return float(f"{low:.5g}")
