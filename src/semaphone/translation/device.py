"""The two devices of a talk: one listens to the speaker and uploads, the other speaks to the listener (eqs 1 and 5).

Both are light: segmenter, voice activity, log-mel, compressor on one side, a small voice on the other.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from semaphone.translation.models.base import State, TranslationModel, Upload
from semaphone.translation.segmenter import Segment, Segmenter, SegmenterState


@dataclass(frozen=True)
class DeviceState:
    """Carried by `SpeakingDevice.step`."""

    segmenter: SegmenterState
    model: State = None


@dataclass(frozen=True)
class SpeakingDevice:
    """Speech at 16 kHz → uploads for the near edge."""

    model: TranslationModel
    segmenter: Segmenter = field(default_factory=Segmenter)

    def start(self) -> DeviceState:
        """The state of a fresh talk."""
        return DeviceState(self.segmenter.start())

    def step(self, samples: NDArray[np.float32], state: DeviceState) -> tuple[list[Upload], DeviceState]:
        """Uploads for the segments that `samples` complete."""
        segments, cutter = self.segmenter.step(samples, state.segmenter)
        return self._compress(segments, DeviceState(cutter, state.model), last=False)

    def finish(self, state: DeviceState) -> tuple[list[Upload], DeviceState]:
        """The end of the talk: what is left, and always one upload that says `last`."""
        segments, cutter = self.segmenter.finish(state.segmenter)
        if not segments:
            end = state.segmenter.start
            segments = [Segment(state.segmenter.index, end, np.zeros(0, np.float32), True, 0.0)]
        return self._compress(segments, DeviceState(cutter, state.model), last=True)

    def _compress(self, segments: list[Segment], state: DeviceState, last: bool) -> tuple[list[Upload], DeviceState]:
        uploads, carried = [], state.model
        for segment in segments:
            upload, carried = self.model.compress(segment, last, carried)
            uploads.append(upload)
        return uploads, DeviceState(state.segmenter, carried)
