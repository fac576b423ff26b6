"""The sender of LargeSC: speech → codec → controller → packets, some chunks at a time (eqs 1-7)."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from semaphone.codec.base import Codec
from semaphone.controller.base import Controller, Mask
from semaphone.packet.format import PacketFormat
from semaphone.packet.packetizer import Packet, Packetizer, PacketizerState

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class TransmitterState:
    """Where a talk stands at its sender."""

    codec: Any = None
    controller: Any = None
    packetizer: PacketizerState | None = None


@dataclass(frozen=True)
class Sent:
    """What a step of the transmitter gives."""

    packets: list[Packet]
    masks: list[Mask]  # one a chunk, as they are sent
    seconds: dict[str, float] = field(default_factory=dict)  # computation by part: encoder, controller, packets


class Transmitter:
    """Speech in, packets out. `None` is the state of a fresh talk."""

    def __init__(self, codec: Codec, controller: Controller, form: PacketFormat) -> None:
        self.codec, self.controller = codec, controller
        self.packetizer = Packetizer(form)

    def step(
        self,
        speech: Samples,
        state: TransmitterState | None = None,
        loss_rate: float = 0.0,
        report: float | None = None,
    ) -> tuple[Sent, TransmitterState]:
        """Speech [T * chunk_samples] of T >= 1 chunks; `loss_rate` in [0, 1] is what the receiver reported last.

        `report` is the loss rate of the other direction, for packets that carry one.
        """
        state = state or TransmitterState()
        form = self.packetizer.format
        clock = time.perf_counter
        began = clock()
        most = max(1, min(self.controller.most, form.num_codebooks))
        encoded = self.codec.encode(torch.from_numpy(speech)[None], state.codec, most)
        encoder = clock()
        masks, controller_state = self.controller.step(encoded.latents[0], loss_rate, state.controller)
        controller = clock()
        packets: list[Packet] = []
        packetizer_state = state.packetizer
        tokens = encoded.tokens[0].numpy()
        for t, mask in enumerate(masks):
            more, packetizer_state = self.packetizer.push(tokens[:, t], mask, packetizer_state, report)
            packets += more
        seconds = {"encoder": encoder - began, "controller": controller - encoder, "packets": clock() - controller}
        effective = [form.effective(mask) for mask in masks]
        return Sent(packets, effective, seconds), TransmitterState(encoded.state, controller_state, packetizer_state)

    def finish(self, state: TransmitterState | None) -> list[Packet]:
        """The packets of a last block that is not full, and copies that still wait."""
        packets, _ = self.packetizer.flush(state.packetizer if state is not None else None)
        return packets
