"""The two edges of a talk: one turns uploads into symbols, the other turns what arrives into phrases (eqs 2-4).

Nothing here knows of sockets (that is `service.py`) or of files (`chain.py`): the single command and the four
processes run the same steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from semaphone.channel.fading import Received
from semaphone.errors import InputError
from semaphone.translation.models.base import Burst, Phrase, State, TranslationModel, Upload
from semaphone.translation.radio import Radio, RadioState


@dataclass(frozen=True)
class Air:
    """A burst as the far edge hears it: its header, sent without errors, and noisy symbols (or plain rows)."""

    utterance: int
    first: int
    count: int  # rows
    last: bool
    scale: float  # of the burst's power
    received: Received | None  # None: no radio, the rows came as they were
    rows: np.ndarray[tuple[int, ...], np.dtype[np.float32]] | None = None

    @property
    def header_bits(self) -> int:
        """Bits of the header: numbers of utterance and row, rows, a flag, the scale."""
        return 16 + 16 + 11 + 1 + 16


@dataclass(frozen=True)
class NearState:
    """Carried by `NearEdge.step`."""

    radio: RadioState
    model: State = None


@dataclass(frozen=True)
class NearEdge:
    """Uploads → bursts on the air."""

    model: TranslationModel
    radio: Radio

    def start(self, seed: int) -> NearState:
        """The state of a fresh talk; the seed decides the weather."""
        return NearState(self.radio.start(seed))

    def step(self, upload: Upload, state: NearState) -> tuple[list[Air], NearState]:
        """Features, channel encoder and channel for one upload."""
        bursts, model = self.model.extract(upload, state.model)
        airs, radio = [], state.radio
        for burst in bursts:
            air, radio = self._send(burst, radio)
            airs.append(air)
        return airs, NearState(radio, model)

    def _send(self, burst: Burst, state: RadioState) -> tuple[Air, RadioState]:
        facts = (burst.utterance, burst.first, len(burst.rows), burst.last)
        if self.radio.code is None or hasattr(self.radio.code, "carry") or not len(burst.rows):
            rows, state = self.radio.carry(burst.rows, state)
            return Air(*facts, 1.0, None, rows), state
        received, scale, state = self.radio.transmit(burst.rows, state)
        return Air(*facts, scale, received), state


@dataclass(frozen=True)
class FarState:
    """Carried by `FarEdge.step`."""

    model: State = None


@dataclass(frozen=True)
class FarEdge:
    """Bursts as they arrive → phrases of the translation."""

    model: TranslationModel
    radio: Radio

    def step(self, air: Air, state: FarState | None = None) -> tuple[list[Phrase], FarState]:
        """Channel decoder and translation for one burst."""
        state = state or FarState()
        if air.received is not None:
            rows = self.radio.receive(air.received, air.scale)
        elif air.rows is not None:
            rows = air.rows
        else:
            raise InputError("A burst arrived with neither symbols nor rows.")
        phrases, model = self.model.generate(Burst(air.utterance, air.first, rows, air.last), state.model)
        return phrases, FarState(model)
