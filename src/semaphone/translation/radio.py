"""Rows across the radio channel: a code, a channel and a generator, burst by burst, every symbol counted.

trained    the learned code of `channel_code.py`
analogue   its linear basis with fixed powers and a linear receiver (baselines/symbols.py)
digital    rows quantised to the bits an ideal code would carry (baselines/symbols.py): a bound, not a waveform
none       no radio at all
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from semaphone.channel.fading import FadingChannel, Received
from semaphone.errors import InputError
from semaphone.translation.models.base import ModelInfo

Rows = NDArray[np.float32]
CODES = ("trained", "analogue", "digital", "none")


@dataclass(frozen=True)
class Signal:
    """A burst on its way to the antenna."""

    symbols: NDArray[np.complex64]  # [N, symbols a row], mean power 1
    scale: float  # what the burst was multiplied by to reach that power; sent along with its header


class SymbolCode(Protocol):
    """Rows ⇄ complex symbols. The sender knows the mean SNR, the receiver h and the mean SNR."""

    name: str
    row_width: int
    symbols_per_row: int

    def encode(self, rows: Rows, snr_db: float) -> Signal: ...

    def decode(self, received: Received, scale: float) -> Rows: ...


class TrainedCode:
    """The learned code."""

    name = "trained"

    def __init__(self, weights: str = "") -> None:
        from semaphone.translation.channel_code import load_code

        self._code = load_code(weights)
        self.row_width = self._code.config.row_width
        self.symbols_per_row = self._code.config.symbols

    def encode(self, rows: Rows, snr_db: float) -> Signal:
        """Eq 2."""
        import torch

        with torch.inference_mode():
            symbols, scale = self._code.encode(torch.from_numpy(rows)[None], torch.tensor([snr_db]))
        return Signal(symbols[0].numpy(), float(scale))

    def decode(self, received: Received, scale: float) -> Rows:
        """Eq 4."""
        import torch

        with torch.inference_mode():
            rows = self._code.decode(
                torch.from_numpy(received.symbols)[None],
                torch.from_numpy(received.gains)[None],
                torch.tensor([received.snr_db]),
                torch.tensor([scale]),
            )
        out: Rows = rows[0].numpy()
        return out


class RepeatedCode:
    """Another code with every burst of symbols sent several times over, combined by maximum ratio.

    N copies cost N times the symbols and give 10 · log10(N) dB, and over fading also diversity: each copy meets a gain
    of its own. What is combined looks to the inner code like one channel of that higher mean SNR.
    """

    def __init__(self, code: SymbolCode, times: int) -> None:
        if not 1 <= times <= 64:
            raise InputError(f"Symbols are sent 1 to 64 times, not {times}.")
        self._code, self._times = code, times
        self._gain_db = 10.0 * math.log10(times)
        self.name, self.row_width = code.name, code.row_width
        self.symbols_per_row = code.symbols_per_row * times

    def encode(self, rows: Rows, snr_db: float) -> Signal:
        """Copies of a row's symbols, one after another."""
        signal = self._code.encode(rows, snr_db + self._gain_db)
        return Signal(np.tile(signal.symbols, (1, self._times)), signal.scale)

    def decode(self, received: Received, scale: float) -> Rows:
        """Combines the copies, then decodes."""
        copies = (len(received.symbols), self._times, -1)
        h, y = received.gains.reshape(copies), received.symbols.reshape(copies)
        strength = np.sqrt((np.abs(h) ** 2).sum(1))
        combined = (h.conj() * y).sum(1) / np.maximum(strength, 1e-6)
        root = math.sqrt(self._times)
        one = Received(
            (combined / root).astype(np.complex64),
            (strength / root).astype(np.complex64),
            received.snr_db + self._gain_db,
            received.pilots,
        )
        return self._code.decode(one, scale)


@dataclass(frozen=True)
class RadioState:
    """Generator of the talk's channel and what has been sent."""

    generator: np.random.Generator
    symbols: int = 0  # pilots included
    rows: int = 0


@dataclass(frozen=True)
class Radio:
    """A code over a channel; `code` None is a wire without errors."""

    code: Any = None  # a SymbolCode, a DigitalCode, or None
    channel: FadingChannel = field(default_factory=FadingChannel)

    def start(self, seed: int) -> RadioState:
        """A fresh talk; the same seed meets the same weather."""
        return RadioState(np.random.default_rng(seed))

    def transmit(self, rows: Rows, state: RadioState) -> tuple[Received, float, RadioState]:
        """Encoder and channel: rows [N, D] → what arrives, and the scale for the header."""
        signal = self.code.encode(rows, self.channel.snr_db)
        received = self.channel(signal.symbols, state.generator)
        symbols = state.symbols + signal.symbols.size + received.pilots
        return received, signal.scale, RadioState(state.generator, symbols, state.rows + len(rows))

    def receive(self, received: Received, scale: float) -> Rows:
        """Decoder: what arrived → rows [N, D]."""
        rows: Rows = self.code.decode(received, scale)
        return rows

    def carry(self, rows: Rows, state: RadioState) -> tuple[Rows, RadioState]:
        """Rows [N, D] → F̂ [N, D]."""
        if self.code is None or not len(rows):
            return rows, RadioState(state.generator, state.symbols, state.rows + len(rows))
        if hasattr(self.code, "carry"):
            arrived, symbols = self.code.carry(rows, self.channel)
            return arrived, RadioState(state.generator, state.symbols + symbols, state.rows + len(rows))
        received, scale, state = self.transmit(rows, state)
        return self.receive(received, scale), state


def make_radio(code: str, channel: FadingChannel | None, weights: str = "", times: int = 1) -> Radio:
    """A radio by the name of its code; without a channel, or with code "none", rows arrive as they are.

    With `times` above 1 every symbol is sent that often.
    """
    if code not in CODES:
        raise InputError(f"The channel code is one of {', '.join(CODES)}, not {code!r}.")
    if channel is None or code == "none":
        return Radio()
    from semaphone.baselines.symbols import AnalogueCode, DigitalCode

    if code == "digital":
        if times != 1:
            raise InputError("The digital code already uses the whole capacity: sending symbols twice is for others.")
        return Radio(DigitalCode(weights), channel)
    symbols: SymbolCode = TrainedCode(weights) if code == "trained" else AnalogueCode(weights)
    return Radio(symbols if times == 1 else RepeatedCode(symbols, times), channel)


def check_widths(info: ModelInfo, radio: Radio) -> None:
    """InputError if the radio's code was made for rows of another model."""
    if radio.code is not None and radio.code.row_width != info.row_width:
        raise InputError(
            f"The channel code is for rows of {radio.code.row_width} numbers, and those of {info.name} have "
            f"{info.row_width}: train one for it and name it with --code-weights."
        )


def parse_snr(text: str) -> float:
    """An SNR in dB; `inf` is a radio without noise or fading."""
    try:
        value = float(text)
    except ValueError:
        raise InputError(f"The SNR must be a number of dB or inf, not {text!r}.") from None
    if math.isnan(value):
        raise InputError("The SNR must be a number of dB or inf, not NaN.")
    return value
