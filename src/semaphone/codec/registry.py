"""Codecs by name: the embedded `nano`, `mimi` from a model hub or folder, or a file of nano weights."""

from __future__ import annotations

from pathlib import Path

from semaphone.codec.base import Codec
from semaphone.errors import InputError
from semaphone.plugins import find

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"
NAMES = ("nano", "mimi")


def nano_file(spec: str) -> Path | None:
    """The file of weights that a codec's name stands for, if it is one of nano's kind."""
    if spec == "nano":
        return WEIGHTS / "nano-codec.safetensors"
    return Path(spec) if spec.endswith(".safetensors") else None


def kind_of(spec: str) -> str | None:
    """The name that the codec of a `load_codec` name carries in its tokens, if the name is known."""
    if nano_file(spec) is not None:
        return "nano"
    return "mimi" if spec.partition(":")[0] == "mimi" else None


def load_codec(spec: str = "nano") -> Codec:
    """`nano`, `mimi`, `mimi:FOLDER-OR-HUB-ID` or a path ending in .safetensors → a codec.

    Raises InputError for an unknown name or unreadable weights.
    """
    name, _, place = spec.partition(":")
    if (file := nano_file(spec)) is not None:
        from semaphone.codec.nano_weights import load_nano

        return load_nano(file)
    if name == "mimi":
        from semaphone.codec.mimi import MimiCodec

        return MimiCodec.from_pretrained(place or "kyutai/mimi")
    if (factory := find("codec", spec)) is not None:
        made: Codec = factory()
        return made
    raise InputError(f"Unknown codec {spec!r}; there are {', '.join(NAMES)}, and files of nano weights (.safetensors).")
