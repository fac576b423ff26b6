"""Baselines by name, as options and experiments give them: `opus:6000`, `soundstream:3200`, `textlink`."""

from __future__ import annotations

from pathlib import Path

from semaphone.baselines.base import Baseline
from semaphone.errors import InputError

NAMES = ("opus", "aac", "soundstream", "codec2", "textlink")


def make_baseline(
    specification: str, *, expected_loss: float = 0.0, lyra: Path | None = None, language: str | None = "en"
) -> Baseline:
    """The baseline that `name` or `name:bit/s` means.

    `expected_loss` (0 to 1) is what an encoder is told that listens, Opus. `lyra` is the folder with Lyra v2's models,
    for `soundstream`; `language` is what Whisper should expect, for `textlink`. Raises InputError.
    """
    name, _, rate = specification.partition(":")
    if name not in NAMES:
        raise InputError(f"There is no baseline '{name}'; there are: {', '.join(NAMES)}.")
    if rate and (name == "textlink" or not (rate.isdecimal() and rate.isascii())):
        raise InputError(f"'{specification}' is not a baseline and its bit/s, as in opus:6000.")
    if name == "textlink":
        from semaphone.baselines.textlink import TextLink

        return TextLink(language=language)
    if name == "opus":
        from semaphone.baselines.opus import Opus

        return Opus(int(rate or 6000), expected_loss=expected_loss)
    if name == "aac":
        from semaphone.baselines.aac import Aac

        return Aac(int(rate or 8000))
    if name == "codec2":
        from semaphone.baselines.codec2 import Codec2

        return Codec2(int(rate or 1200))
    from semaphone.baselines.soundstream import SoundStream

    if lyra is None:
        raise InputError("SoundStream needs the folder with Lyra v2's three tflite files.")
    return SoundStream(lyra, int(rate or 3200))
