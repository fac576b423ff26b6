"""Recovery models at rest: safetensors with their configuration, matrices in 8 bits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path

import torch
from torch import Tensor

from semaphone.errors import InputError
from semaphone.files import write_whole
from semaphone.recovery.rq_config import RQTransformerConfig
from semaphone.recovery.rq_transformer import RQTransformer

FORMAT = "semaphone recovery 1"

SCALE = "/scale"  # what is added to the name of an 8-bit tensor for its scales
POINTS = "points"  # the codec's entries, which are no weights of the model


def save(model: RQTransformer, path: str | Path, storage: str = "int8") -> None:
    """Write weights and configuration as one safetensors file, whole or not at all.

    storage: "float32", "float16", or "int8" (tables and matrices in 8 bits with a float16 scale a row).
    """
    from safetensors.torch import save as packed

    if storage not in ("float32", "float16", "int8"):
        raise ValueError(f"storage is float32, float16 or int8, not {storage}.")
    kept: dict[str, Tensor] = {}
    tensors = model.state_dict() | ({} if model.points is None else {POINTS: model.points})
    for name, value in tensors.items():
        value = value.detach().float().cpu().contiguous()
        if value.dim() < 2 or storage == "float32":
            kept[name] = value
        elif storage == "float16":
            kept[name] = value.half()
        else:
            scale = (value.abs().amax(-1, keepdim=True) / 127).clamp(min=6e-8).half()
            kept[name] = (value / scale.float()).round().clamp(-127, 127).to(torch.int8)
            kept[name + SCALE] = scale
    write_whole(path, packed(kept, {"format": FORMAT, "config": json.dumps(asdict(model.config))}))


def load(path: str | Path, codec: str | None = None) -> RQTransformer:
    """Read what `save` wrote; `codec` is the fingerprint of the codec in use.

    Raises InputError if the file is not a recovery model, or one for another codec.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "pt") as file:
            facts = file.metadata() or {}
            kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(f"The recovery model '{path}' cannot be read: {error}.") from error
    config = _read_config(path, facts)
    if codec and config.codec and codec != config.codec:
        raise InputError(
            f"The recovery model '{path}' was trained on the tokens of another codec ({config.codec[:12]}), "
            f"not of the one in use ({codec[:12]})."
        )
    model = RQTransformer(config)
    weights = {n: v.float() * kept[n + SCALE].float() if v.dtype == torch.int8 else v.float() for n, v in kept.items()}
    model.points = _points(path, weights.pop(POINTS, None), config)
    try:
        model.load_state_dict({n: v for n, v in weights.items() if not n.endswith(SCALE)})
    except RuntimeError as error:
        raise InputError(f"The weights in '{path}' do not fit its configuration.") from error
    return model.eval()


def _points(path: str | Path, points: Tensor | None, config: RQTransformerConfig) -> Tensor | None:
    if points is not None and (points.dim() != 3 or points.shape[:2] != (config.num_codebooks, config.codebook_size)):
        raise InputError(f"The entries in '{path}' do not fit its configuration.")
    return points


def fits(path: str | Path, codec: str) -> bool:
    """Are these weights for the tokens of the codec with that fingerprint? Only the header of the file is read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "pt") as file:
            config = _read_config(path, file.metadata() or {})
    except (OSError, SafetensorError, InputError):
        return False
    return config.codec in ("", codec)


def _read_config(path: str | Path, facts: Mapping[str, str]) -> RQTransformerConfig:
    if facts.get("format") != FORMAT:
        raise InputError(f"'{path}' is not a recovery model of this version.")
    try:
        values = json.loads(facts["config"])
        values["other"] = tuple(values["other"])
        values.setdefault("sees_coming", False)  # files of before do not say so
        return RQTransformerConfig(**{f.name: values[f.name] for f in fields(RQTransformerConfig)})
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"The configuration in '{path}' cannot be read.") from error
