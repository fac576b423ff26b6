"""Is someone speaking? Silero's voice activity detector, 32 ms at a time, with explicit state.

Only the model file inside the silero-vad package is used, through ONNX Runtime: importing the package itself
would load torch, which a small device does without.
"""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semaphone.errors import MissingExtraError

SAMPLE_RATE = 16_000
FRAME = 512  # samples the detector judges at once, 32 ms
_CONTEXT = 64  # samples before a frame that the model also sees


def _zeros(*shape: int) -> NDArray[np.float32]:
    return np.zeros(shape, np.float32)


@dataclass(frozen=True)
class VadState:
    """What the detector carries from call to call."""

    pending: NDArray[np.float32] = field(default_factory=lambda: _zeros(0))  # samples of an unfinished frame
    context: NDArray[np.float32] = field(default_factory=lambda: _zeros(_CONTEXT))
    memory: NDArray[np.float32] = field(default_factory=lambda: _zeros(2, 1, 128))


@functools.lru_cache(maxsize=1)
def _session() -> Any:
    spec = importlib.util.find_spec("silero_vad")
    if spec is None or spec.origin is None:
        raise MissingExtraError("Voice activity detection", "translation")
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("Voice activity detection", "translation") from None
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = options.intra_op_num_threads = 1
    options.log_severity_level = 3
    model = Path(spec.origin).parent / "data" / "silero_vad.onnx"
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def speech_probability(
    samples: NDArray[np.float32], state: VadState | None = None
) -> tuple[NDArray[np.float32], VadState]:
    """The probability of speech in each 32 ms frame that `samples` (16 kHz, any length) completes.

    Returns the probabilities [frames] and the next state; chunk by chunk gives what the whole gives.
    """
    state = state or VadState()
    session = _session()
    waiting = np.concatenate([state.pending, samples.astype(np.float32)])
    context, memory = state.context, state.memory
    rate = np.array(SAMPLE_RATE, np.int64)
    found: list[float] = []
    for first in range(0, len(waiting) - FRAME + 1, FRAME):
        window = np.concatenate([context, waiting[first : first + FRAME]])
        out, memory = session.run(None, {"input": window[None], "state": memory, "sr": rate})
        found.append(float(out[0, 0]))
        context = window[-_CONTEXT:]
    rest = waiting[len(found) * FRAME :].copy()
    return np.array(found, np.float32), VadState(rest, context, memory)
