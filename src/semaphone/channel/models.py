"""Lossy channels as configurations, each with its statistics and its samplers; erasure.py reads them from text."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from semaphone.channel.weather import SLOT, Independent, Phases, Recorded, SlotDraws, TwoState, Weather, random_bits
from semaphone.errors import InputError

Axis = Literal["time", "packet", "token"]
AXES = ("time", "packet", "token")
LONGEST_TRACE = 100_000_000  # characters: nearly six days


class ErasureSampler:
    """One run over a channel; it remembers where it is, and nothing else of what was sent."""

    def __init__(self, weather: Weather, per: Axis) -> None:
        self._weather = weather
        self._per = per
        self._position: float = 0

    def lost(self, send_time: float) -> bool:
        """Is the next packet, sent at `send_time` (s, never decreasing), lost? For channels per time or packet."""
        if self._per == "token":
            raise ValueError("this channel loses tokens, not packets: use lost_tokens")
        if self._per == "packet":
            return bool(self._take(1)[0])
        if send_time < self._position:
            raise ValueError("packets must be given in the order in which they are sent")
        self._position = send_time
        return self._weather.lost(send_time)

    def lost_tokens(self, count: int) -> NDArray[np.bool_]:
        """Which of the next `count` tokens are lost, [count]. For channels per token."""
        if self._per != "token":
            raise ValueError("this channel loses packets, not tokens: use lost")
        return self._take(count)

    def _take(self, count: int) -> NDArray[np.bool_]:
        first = int(self._position)
        self._position = first + count
        return np.array([self._weather.lost(first + i) for i in range(count)], dtype=np.bool_)


class ErasureChannel(ABC):
    """A channel's configuration; `str(channel)` is its specification."""

    per: Axis  # what its positions are: seconds, packets or tokens

    @property
    @abstractmethod
    def mean_loss(self) -> float:
        """Share of positions at which something sent is lost."""

    def loss_at(self, time: float) -> float:
        """Loss rate at a moment, s; the mean, unless the channel is one that changes by plan."""
        return self.mean_loss

    @abstractmethod
    def conditional_loss(self, distance: float) -> float:
        """r = P(second lost | first lost) for two packets `distance` apart (s, or packets); 0 if nothing is lost."""

    @abstractmethod
    def weather(self, key: int) -> Weather:
        """The realisation that belongs to a 64-bit key."""

    def sampler(self, generator: np.random.Generator) -> ErasureSampler:
        """Starts a run. Takes exactly one draw, so the same seed is the same weather for every system."""
        return ErasureSampler(self.weather(int(generator.integers(2**64, dtype=np.uint64))), self.per)

    @property
    def _slot(self) -> float:
        return SLOT if self.per == "time" else 1.0


@dataclass(frozen=True)
class Uniform(ErasureChannel):
    """Independent losses."""

    loss: float  # probability, 0 to 1
    per: Axis = "time"

    def __post_init__(self) -> None:
        _check_probability("loss", self.loss)
        check_axis(self.per)

    def __str__(self) -> str:
        return "none" if self.loss == 0 and self.per == "time" else f"uniform:loss={self.loss!r}{_per(self.per)}"

    @property
    def mean_loss(self) -> float:
        return self.loss

    def conditional_loss(self, distance: float) -> float:
        return self.loss

    def weather(self, key: int) -> Weather:
        return Independent(self.loss, SlotDraws(key, self._slot))


@dataclass(frozen=True)
class GilbertElliott(ErasureChannel):
    """A two-state Markov chain, given by the mean loss rate and the mean stay in its bad state."""

    loss: float  # mean over both states, 0 to 1
    burst: float  # mean stay in the bad state: s, or packets (tokens) for the other axes
    bad: float = 1.0  # probability of loss in the bad state
    good: float = 0.0  # probability of loss in the good state
    per: Axis = "time"

    def __post_init__(self) -> None:
        for name in ("loss", "bad", "good"):
            _check_probability(name, getattr(self, name))
        check_axis(self.per)
        if not (self.burst > 0 and math.isfinite(self.burst)):
            raise InputError(f"The mean burst length must be positive, not {self.burst:g}.")
        if not self.good < self.bad:
            raise InputError(f"The bad state must lose more than the good one, not {self.bad:g} against {self.good:g}.")
        if not self.good <= self.loss <= self.bad:
            raise InputError(
                f"The mean loss must lie between those of the two states,"
                f" {self.good:g} and {self.bad:g}, not {self.loss:g}."
            )
        if self.per != "time" and (self.burst < 1 or self._sojourns[0] < 1):
            raise InputError(
                f"Bursts of {self.burst:g} {self.per}s are too short for a loss of {self.loss:g}:"
                f" no stay in a state can be shorter than one {self.per}."
            )

    def __str__(self) -> str:
        burst = f"{self.burst!r}s" if self.per == "time" else repr(self.burst)
        states = (f",bad={self.bad!r}" if self.bad != 1 else "") + (f",good={self.good!r}" if self.good else "")
        return f"gilbert-elliott:loss={self.loss!r},burst={burst}{states}{_per(self.per)}"

    @property
    def mean_loss(self) -> float:
        return self.loss

    @property
    def _share_bad(self) -> float:
        return (self.loss - self.good) / (self.bad - self.good)

    @property
    def _sojourns(self) -> tuple[float, float]:
        """Mean stay in the good and in the bad state."""
        bad = self._share_bad
        if bad == 0:
            return math.inf, self.burst
        return (self.burst * (1 - bad) / bad, self.burst) if bad < 1 else (self.burst, math.inf)

    def conditional_loss(self, distance: float) -> float:
        if self.loss == 0:
            return 0.0
        good, bad = self._sojourns
        if self.per == "time":
            memory = math.exp(-distance * (1 / good + 1 / bad))
        else:
            memory = (1 - 1 / good - 1 / bad) ** round(distance)
        # Two packets lose together as if independent, plus what the state that they share adds.
        share = self._share_bad
        together = self.loss**2 + share * (1 - share) * memory * (self.bad - self.good) ** 2
        return together / self.loss

    def weather(self, key: int) -> Weather:
        draws = SlotDraws(key, self._slot)
        return TwoState(self._sojourns, (self.good, self.bad), key, draws, discrete=self.per != "time")


@dataclass(frozen=True)
class Trace(ErasureChannel):
    """A recording of a network; make one with `read_trace`."""

    path: str
    losses: bytes = field(repr=False)  # one byte a slot (5 ms, a packet or a token): 0 arrived, 1 lost
    loop: bool = False  # start over at the end; otherwise going past the end is an InputError
    offset: int | None = None  # slot to begin with; None: drawn by the seed if it loops, else 0
    per: Axis = "time"

    def __post_init__(self) -> None:
        check_axis(self.per)
        if not self.losses:
            raise InputError(f"The trace {self.path} is empty.")
        if self.offset is not None and not 0 <= self.offset < len(self.losses):
            raise InputError(f"The trace {self.path} has {len(self.losses)} entries, and none at {self.offset}.")

    def __str__(self) -> str:
        offset = "" if self.offset is None else f",offset={self.offset}"
        return f"trace:{self.path}{',loop' if self.loop else ''}{offset}{_per(self.per)}"

    @property
    def _array(self) -> NDArray[np.bool_]:
        return np.frombuffer(self.losses, dtype=np.bool_)

    @property
    def mean_loss(self) -> float:
        return float(self._array.mean())

    def conditional_loss(self, distance: float) -> float:
        """Counted over the trace; between whole slots, interpolated (packets may leave anywhere in a slot)."""
        steps = distance / self._slot
        below = math.floor(steps + 1e-6)
        part = max(steps - below, 0.0)
        return (1 - part) * _conditional(self._array, below) + part * _conditional(self._array, below + 1)

    def weather(self, key: int) -> Weather:
        start = self.offset
        if start is None:
            start = int(random_bits(key, 2).integers(len(self.losses))) if self.loop else 0
        return Recorded(self._array, self._slot, start, self.loop, self.path)


@dataclass(frozen=True)
class Phase:
    """A stretch of a schedule."""

    end: float  # s
    loss: float  # probability


@dataclass(frozen=True)
class Schedule(ErasureChannel):
    """A loss rate that changes over time; after the last phase, its rate stays."""

    phases: tuple[Phase, ...]  # the first begins at 0 s, each other where the one before it ends
    burst: float | None = None  # mean burst length in s; None: independent losses
    per: Axis = field(default="time", init=False)

    def __post_init__(self) -> None:
        if not self.phases:
            raise InputError("A schedule needs at least one phase, such as 0-4s=0.1.")
        start = 0.0
        for phase in self.phases:
            if not (phase.end > start and math.isfinite(phase.end)):
                raise InputError(
                    f"A phase of a schedule must end after it begins at {start:g} s, not at {phase.end} s."
                )
            start = phase.end
            self._channel(phase)

    def __str__(self) -> str:
        starts = [0.0, *(phase.end for phase in self.phases)]
        text = ",".join(f"{start!r}-{p.end!r}s={p.loss!r}" for start, p in zip(starts, self.phases, strict=False))
        return f"schedule:{text}" + ("" if self.burst is None else f",burst={self.burst!r}s")

    def _channel(self, phase: Phase) -> Uniform | GilbertElliott:
        return Uniform(phase.loss) if self.burst is None else GilbertElliott(phase.loss, self.burst)

    @property
    def _shares(self) -> list[float]:
        """What part of the schedule each phase takes."""
        starts = [0.0, *(phase.end for phase in self.phases)]
        return [(p.end - start) / self.phases[-1].end for start, p in zip(starts, self.phases, strict=False)]

    @property
    def mean_loss(self) -> float:
        return sum(share * phase.loss for share, phase in zip(self._shares, self.phases, strict=True))

    def loss_at(self, time: float) -> float:
        return next((phase.loss for phase in self.phases if time < phase.end), self.phases[-1].loss)

    def conditional_loss(self, distance: float) -> float:
        """As if both packets belonged to the same phase."""
        together = (
            share * phase.loss * self._channel(phase).conditional_loss(distance)
            for share, phase in zip(self._shares, self.phases, strict=True)
        )
        return sum(together) / self.mean_loss if self.mean_loss else 0.0

    def weather(self, key: int) -> Weather:
        # With bursts each phase has a chain of its own, so that its loss rate is right from its first packet on.
        weathers = [self._channel(phase).weather((key + i) % 2**64) for i, phase in enumerate(self.phases)]
        return Phases([phase.end for phase in self.phases], weathers)


@dataclass(frozen=True)
class LossStatistics:
    """What a series of packets went through."""

    packets: int
    loss: float  # share of packets lost
    mean_burst: float  # packets in a run of losses; 0 if nothing was lost
    conditional: float  # P(packet n + lag lost | packet n lost); 0 if nothing was lost


def measure(lost: Sequence[bool] | NDArray[np.bool_], lag: int = 1) -> LossStatistics:
    """Counts over a series of packets in the order in which they were sent."""
    series = np.asarray(lost, dtype=np.bool_)
    if series.ndim != 1 or not len(series):
        raise ValueError("a series of at least one packet is needed")
    bursts = int(series[0]) + int(np.count_nonzero(series[1:] & ~series[:-1]))
    mean_burst = float(series.sum() / bursts) if bursts else 0.0
    return LossStatistics(len(series), float(series.mean()), mean_burst, _conditional(series, lag))


def conditional_loss(channel: ErasureChannel, distance: float) -> float:
    """r = P(second lost | first lost) for two packets sent `distance` s apart; see ErasureChannel."""
    return channel.conditional_loss(distance)


def read_trace(
    path: str | Path, *, loop: bool = False, offset: int | None = None, per: Axis = "time", name: str | None = None
) -> Trace:
    """Reads a trace: the characters 0 (arrived) and 1 (lost), white space ignored.

    Raises InputError for a file that is missing, too long or holds anything else.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(LONGEST_TRACE + 1)
    except OSError as error:
        raise InputError(f"The trace {path} cannot be read: {error.strerror}.") from error
    if len(text) > LONGEST_TRACE:
        raise InputError(f"The trace {path} is longer than {LONGEST_TRACE} characters.")
    digits = np.frombuffer(b"".join(text.split()), np.uint8)
    strange = digits[(digits != ord("0")) & (digits != ord("1"))]
    if len(strange):
        raise InputError(f"The trace {path} holds {chr(strange[0])!r} where only 0 and 1 may stand.")
    return Trace(name or str(path), (digits - ord("0")).tobytes(), loop, offset, per)


def check_axis(per: str) -> None:
    if per not in AXES:
        raise InputError(f"per must be one of {', '.join(AXES)}, not {per!r}.")


def _check_probability(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise InputError(f"{name} must lie between 0 and 1, not at {value:g}.")


def _per(per: Axis) -> str:
    return "" if per == "time" else f",per={per}"


def _conditional(series: NDArray[np.bool_], lag: int) -> float:
    first = series[: len(series) - lag] if lag else series
    lost = np.count_nonzero(first)
    return float(np.count_nonzero(first & series[lag:]) / lost) if lost else 0.0
