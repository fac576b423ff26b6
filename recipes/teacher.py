"""Whisper's encoder as one small file, for a training machine that has none of our extras.

    python recipes/teacher.py whisper-encoder.safetensors       # writes it (21 MB, 8 bits a weight)

`load_teacher` gives it back as `semaphone.training.hearing.HeardLoss`. The weights are Whisper-base's (MIT).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from semaphone.training.hearing import HeardLoss

METRIC = "/attention/linear_1/weight"  # of the decoder: what tells how it sees a row


def save_teacher(variables: dict[str, NDArray[Any]], path: Path) -> None:
    """Write what `HeardLoss` needs of the variables of a CTranslate2 Whisper model: matrices in 8 bits a weight."""
    tensors: dict[str, torch.Tensor] = {}
    for name, value in variables.items():
        if not name.startswith("encoder/") and not (name.startswith("decoder/layer_") and name.endswith(METRIC)):
            continue
        x = torch.from_numpy(np.atleast_1d(value).astype(np.float32))
        if x.ndim == 2 and "/layer_" in name:
            size = x.abs().amax(1).clamp(min=1e-8) / 127.0
            tensors[name] = (x / size[:, None]).round().to(torch.int8)
            tensors[name + "/size"] = size
        else:
            tensors[name] = x.half()
    save_file(tensors, str(path))


def load_teacher(path: Path) -> HeardLoss:
    """The loss of what Whisper hears, from a file that `save_teacher` wrote."""
    tensors = load_file(str(path))
    variables: dict[str, NDArray[Any]] = {}
    for name, value in tensors.items():
        if name.endswith("/size"):
            continue
        x = value.float()
        if name + "/size" in tensors:
            x = x * tensors[name + "/size"][:, None]
        variables[name] = x.numpy() if name != "encoder/num_heads" else x.numpy().reshape(())
    return HeardLoss(variables)


if __name__ == "__main__":
    from semaphone.metrics.whisper import weights_folder
    from semaphone.training.whisper_weights import read_variables

    save_teacher(read_variables((weights_folder("train") / "model.bin").read_bytes()), Path(sys.argv[1]))
