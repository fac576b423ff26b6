"""The sender of LargeSC: speech → codec → controller → packets, some chunks at a time (eqs 1-7).

With discontinuous transmission pauses are not sent: the first block of a pause goes out without tokens, which
tells the receiver, and after it one block in `KEEPALIVE`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from semaphone.codec.base import Codec
from semaphone.controller.base import KEEPALIVE, Controller, LinkLoss, Mask
from semaphone.link.silence import VoiceState, talks
from semaphone.packet.format import PacketFormat
from semaphone.packet.packetizer import Packet, Packetizer, PacketizerState

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class TransmitterState:
    """Where a talk stands at its sender."""

    codec: Any = None
    controller: Any = None
    packetizer: PacketizerState | None = None
    voice: VoiceState | None = None
    silent: int = 0  # blocks in a row without a token


@dataclass(frozen=True)
class Sent:
    """What a step of the transmitter gives."""

    packets: list[Packet]
    masks: list[Mask]  # one a chunk, as they are sent
    seconds: dict[str, float] = field(default_factory=dict)  # computation by part: encoder, controller, packets


class Transmitter:
    """Speech in, packets out. `None` is the state of a fresh talk."""

    def __init__(self, codec: Codec, controller: Controller, form: PacketFormat, dtx: bool = False) -> None:
        """`dtx`: pauses are not sent."""
        self.codec, self.controller, self.dtx = codec, controller, dtx
        self.packetizer = Packetizer(form)

    def step(
        self,
        speech: Samples,
        state: TransmitterState | None = None,
        losses: LinkLoss = LinkLoss(),  # noqa: B008, a value
        report: float | None = None,
    ) -> tuple[Sent, TransmitterState]:
        """Speech [T * chunk_samples] of T >= 1 chunks; `losses` are what the sender knows of them.

        `report` is the loss rate of the other direction, for packets that carry one.
        """
        state = state or TransmitterState()
        form = self.packetizer.format
        clock = time.perf_counter
        began = clock()
        talking, voice = self._talking(speech, state.voice)
        most = max(1, min(self.controller.most, form.num_codebooks)) if talking is None or any(talking) else 1
        encoded = self.codec.encode(torch.from_numpy(speech)[None], state.codec, most)
        encoder = clock()
        # Latents of pauses are shown to the controller, too: it goes on listening.
        masks, controller_state = self.controller.step(encoded.latents[0], losses, state.controller, talking)
        controller = clock()
        packets: list[Packet] = []
        packetizer_state, silent = state.packetizer, state.silent
        tokens = encoded.tokens[0].numpy()
        for t, mask in enumerate(masks):
            more, packetizer_state = self.packetizer.push(tokens[:, t], mask, packetizer_state, report)
            if more and self.dtx:
                more, silent = _worth_sending(more, silent)
            packets += more
        seconds = {"encoder": encoder - began, "controller": controller - encoder, "packets": clock() - controller}
        effective = [form.effective(mask) for mask in masks]
        after = TransmitterState(encoded.state, controller_state, packetizer_state, voice, silent)
        return Sent(packets, effective, seconds), after

    def _talking(self, speech: Samples, state: VoiceState | None) -> tuple[list[bool] | None, VoiceState | None]:
        if not self.dtx:
            return None, None
        found = []
        for chunk in speech.reshape(-1, self.codec.info.chunk_samples):
            speaks, state = talks(chunk, state)
            found.append(speaks)
        return found, state

    def finish(self, state: TransmitterState | None) -> list[Packet]:
        """The packets of a last block that is not full, and copies that still wait."""
        packets, _ = self.packetizer.flush(state.packetizer if state is not None else None)
        return packets


def _worth_sending(packets: list[Packet], silent: int) -> tuple[list[Packet], int]:
    """Of a block: all of its packets or none; and how many silent blocks there have been in a row."""
    if any(packet.token_bits for packet in packets):
        return packets, 0
    silent += 1
    return (packets if silent == 1 or silent % KEEPALIVE == 0 else []), silent
