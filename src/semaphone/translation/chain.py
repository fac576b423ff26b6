"""The whole of LSSC-ST in one process: speech in, translated speech out, with everything counted and timed.

    audio → segmenter → device → near edge → channel code → fading → channel code → far edge → listening device

Input is not paced: the next segment is taken as soon as the last one is done. From the measured times of every
step, `metrics/latency.py` works out both the paper's average latency and what a listener of a live talk would wait.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from semaphone.metrics.latency import TimedSegment
from semaphone.translation.device import SpeakingDevice
from semaphone.translation.edge import FarEdge, FarState, NearEdge
from semaphone.translation.models.base import Phrase, TranslationModel, Upload
from semaphone.translation.radio import Radio
from semaphone.translation.segmenter import SAMPLE_RATE, Segment, Segmenter, SegmenterConfig

_WARM_UP = 6_400  # samples
STAGES = ("compress", "extract", "generate", "speak")


@dataclass(frozen=True)
class Step:
    """What became of one segment."""

    index: int
    start: float  # s within the talk
    end: float  # s
    silent: bool
    bits: int  # uploaded by the device
    rows: int  # that crossed the channel
    symbols: int  # that carried them, pilots included
    text: str  # that became certain with this segment
    speech: float  # s of translated speech
    cpu: float  # s of processor time over all stages: what `seconds` sums up to on an idle core
    seconds: dict[str, float]  # computing time by stage; "extract" holds the channel encoder, "generate" the decoder
    phrases: tuple[Phrase, ...] = ()  # that became certain with this segment


@dataclass
class Talk:
    """The result of a talk."""

    steps: list[Step] = field(default_factory=list)
    speech: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    sample_rate: int = 0

    @property
    def text(self) -> str:
        """The whole translation."""
        return " ".join("".join(step.text for step in self.steps).split())

    @property
    def seconds(self) -> float:
        """Length of the input."""
        return self.steps[-1].end if self.steps else 0.0

    @property
    def confidence(self) -> float | None:
        """Mean confidence of the phrases, each as often as it has letters; None where the model knows none."""
        known = [(p.confidence, len(p.text)) for s in self.steps for p in s.phrases if p.confidence is not None]
        weight = sum(letters for _, letters in known)
        return sum(confidence * letters for confidence, letters in known) / weight if weight else None


@dataclass(frozen=True)
class Chain:
    """All parts of a talk in one process."""

    model: TranslationModel
    radio: Radio = field(default_factory=Radio)
    segments: SegmenterConfig = field(default_factory=SegmenterConfig)
    speak: bool = True  # False leaves the voice out: text only

    def run(self, blocks: Iterable[NDArray[np.float32]], seed: int = 0) -> Talk:
        """Translates 16 kHz speech that comes in blocks of any length.

        What is loaded once is loaded before the first block is taken, so that no segment's time holds it.
        """
        _ = self._warm
        device = SpeakingDevice(self.model, Segmenter(self.segments))
        talk = _Talk(self, seed)
        state = device.start()
        for block in blocks:
            for first in range(0, len(block), SAMPLE_RATE // 2):
                begin = time.perf_counter()
                uploads, state = device.step(block[first : first + SAMPLE_RATE // 2], state)
                talk.take(uploads, time.perf_counter() - begin)
        begin = time.perf_counter()
        uploads, state = device.finish(state)
        talk.take(uploads, time.perf_counter() - begin)
        return talk.result

    @functools.cached_property
    def _warm(self) -> bool:
        """Sends a short sound and a word through every part, once a chain: states are explicit, so nothing stays."""
        sound = (0.01 * np.random.default_rng(0).standard_normal(_WARM_UP)).astype(np.float32)
        Segmenter(self.segments).finish(Segmenter(self.segments).step(sound)[1])
        upload, _ = self.model.compress(Segment(0, 0, sound, False, 0.0), True, None)
        near, far = NearEdge(self.model, self.radio), FarEdge(self.model, self.radio)
        airs, _ = near.step(upload, near.start(0))
        phrases = [phrase for air in airs for phrase in far.step(air)[0]]
        if self.speak:
            for phrase in [*phrases, Phrase(0, "Ready.")]:
                self.model.speak(phrase)
        return True


class _Talk:
    """One talk on its way through both edges."""

    def __init__(self, chain: Chain, seed: int) -> None:
        self.chain = chain
        self.near, self.far = NearEdge(chain.model, chain.radio), FarEdge(chain.model, chain.radio)
        self.near_state, self.far_state = self.near.start(seed), FarState()
        self.result = Talk(sample_rate=chain.model.info.sample_rate)
        self.device_time = 0.0
        self.cpu = time.process_time()
        self.utterance = 0

    def _written(self, phrases: list[Phrase]) -> str:
        """The text of phrases; utterances are kept apart."""
        text = ""
        for phrase in phrases:
            text += phrase.text if phrase.utterance == self.utterance else f" {phrase.text}"
            self.utterance = phrase.utterance
        return text

    def take(self, uploads: list[Upload], device_seconds: float) -> None:
        """Uploads of one step of the device, whose computing time they share."""
        self.device_time += device_seconds
        for upload in uploads:
            self._one(upload, self.device_time / len(uploads))
        if uploads:
            self.device_time = 0.0

    def _one(self, upload: Upload, device_seconds: float) -> None:
        sent = self.near_state.radio
        times = [time.perf_counter()]
        airs, self.near_state = self.near.step(upload, self.near_state)
        times.append(time.perf_counter())
        phrases: list[Phrase] = []
        for air in airs:
            more, self.far_state = self.far.step(air, self.far_state)
            phrases += more
        times.append(time.perf_counter())
        spoken = [self.chain.model.speak(phrase) for phrase in phrases] if self.chain.speak else []
        times.append(time.perf_counter())
        speech = np.concatenate([self.result.speech[:0], *spoken])
        self.result.speech = np.concatenate([self.result.speech, speech])
        lasted = [b - a for a, b in itertools.pairwise(times)]
        before, self.cpu = self.cpu, time.process_time()
        self.result.steps.append(
            Step(
                upload.index,
                upload.start / SAMPLE_RATE,
                upload.end / SAMPLE_RATE,
                upload.silent,
                upload.bits,
                self.near_state.radio.rows - sent.rows,
                self.near_state.radio.symbols - sent.symbols,
                self._written(phrases),
                len(speech) / self.result.sample_rate,
                self.cpu - before,
                dict(zip(STAGES, [device_seconds, *lasted], strict=True)),
                tuple(phrases),
            )
        )


def timed(talk: Talk, cpu: bool = False) -> list[TimedSegment]:
    """The segments of a talk as `metrics/latency.py` takes them. Silent ones count where a phrase came out of them.

    With `cpu`, computing is counted in processor time, which other programs on the machine don't lengthen.
    """
    return [
        TimedSegment(step.start, step.end, step.cpu if cpu else sum(step.seconds.values()), step.speech)
        for step in talk.steps
        if not step.silent or step.text
    ]
