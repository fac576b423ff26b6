"""Is it the same voice? Cosine similarity of GE2E speaker embeddings (Wan et al., ICASSP 2018).

The weights are those of the Resemblyzer package: an LSTM trained to tell apart several thousand English speakers
from telephone-grade speech to audiobooks. Only its weights file is read, so the package may be installed without its
own dependencies. Other papers' "SIM" mostly comes from WavLM: never mix the two.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from semaphone.errors import MissingExtraError
from semaphone.metrics.memo import MEMO
from semaphone.metrics.pair import SCORING_RATE, NotScorable, Speech, is_silent

if TYPE_CHECKING:
    from torch import Tensor, nn

_BANDS, _WINDOW, _HOP = 40, 400, 160
_PART = 160  # frames of 10 ms that the network hears at a time
_PART_STEP = 77  # 1.3 parts a second
_SHORTEST = SCORING_RATE // 2
_LOUDNESS = 10 ** (-25 / 20)  # RMS of what the network hears, so that it doesn't take a gain for another voice
_QUIET_DB = 40.0  # frames this far under the loudest are left out


def speaker_similarity(reference: Speech, degraded: Speech) -> float:
    """Cosine of the two speaker embeddings: two recordings of one person lie around 0.8, of two people around 0.5.

    Mono float32 speech at 16 kHz; the lengths may differ. Raises NotScorable for less than half a second of speech
    and MissingExtraError.
    """
    return float(np.dot(embedding(reference), embedding(degraded)))


def embedding(speech: Speech) -> NDArray[np.float32]:
    """The unit vector [256] of the voice in speech [N]."""
    return MEMO.get("voice", speech, lambda: _embedding(speech))


def _embedding(speech: Speech) -> NDArray[np.float32]:
    import torch

    lstm, linear = _network()
    voiced = _without_pauses(speech)
    if len(voiced) < _SHORTEST:
        raise NotScorable("a voice needs half a second of speech to be told")
    loudness = float(np.sqrt(np.mean(voiced.astype(np.float64) ** 2)))
    bands = mel_power(voiced * np.float32(_LOUDNESS / loudness))
    if len(bands) < _PART:
        bands = np.pad(bands, ((0, _PART - len(bands)), (0, 0)))
    starts = range(0, len(bands) - _PART + 1, _PART_STEP)
    with torch.inference_mode():
        parts = torch.from_numpy(np.stack([bands[start : start + _PART] for start in starts]))
        hidden: Tensor = lstm(parts)[1][0][-1]
        vectors = torch.nn.functional.normalize(torch.relu(linear(hidden)), dim=1)
        mean = torch.nn.functional.normalize(vectors.mean(dim=0), dim=0)
    return np.asarray(mean.numpy(), dtype=np.float32)


def _without_pauses(speech: Speech) -> Speech:
    if is_silent(speech):
        return speech[:0]
    frames = speech[: len(speech) // _HOP * _HOP].reshape(-1, _HOP)
    level = np.mean(frames.astype(np.float64) ** 2, axis=1)
    kept = level > level.max(initial=0.0) * 10 ** (-_QUIET_DB / 10)
    near = np.convolve(kept, np.ones(11), mode="same") > 0  # 50 ms around speech stay
    return np.ascontiguousarray(frames[near].reshape(-1))


def mel_power(speech: Speech) -> NDArray[np.float32]:
    """Power in 40 mel bands [T, 40] every 10 ms: periodic Hann window of 25 ms, Slaney's scale and normalisation."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_WINDOW) / _WINDOW)
    padded = np.pad(speech.astype(np.float64), _WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]
    power = np.abs(np.fft.rfft(frames * window)) ** 2
    return np.asarray(power @ _filters().T, dtype=np.float32)


@lru_cache(maxsize=1)
def _filters() -> NDArray[np.float64]:
    """Triangles [40, 201] of equal area on the mel scale, linear under 1 kHz and logarithmic above."""
    step, corner, ratio = 200 / 3, 1000.0, np.log(6.4) / 27
    top = corner / step + np.log(SCORING_RATE / 2 / corner) / ratio
    mels = np.linspace(0.0, top, _BANDS + 2)
    edges = np.where(mels < corner / step, mels * step, corner * np.exp(ratio * (mels - corner / step)))
    frequencies = np.fft.rfftfreq(_WINDOW, 1 / SCORING_RATE)
    rising = (frequencies - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - frequencies) / np.diff(edges)[1:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    return np.asarray(triangles * (2 / (edges[2:] - edges[:-2]))[:, None], dtype=np.float64)


@lru_cache(maxsize=1)
def _network() -> tuple[nn.LSTM, nn.Linear]:
    import torch
    from torch import nn

    spec = find_spec("resemblyzer")
    if spec is None or spec.origin is None:
        raise MissingExtraError("Speaker similarity", "speaker")
    checkpoint = torch.load(Path(spec.origin).parent / "pretrained.pt", map_location="cpu", weights_only=True)
    weights: dict[str, Tensor] = checkpoint["model_state"]
    lstm, linear = nn.LSTM(_BANDS, 256, 3, batch_first=True), nn.Linear(256, 256)
    lstm.load_state_dict({name[5:]: value for name, value in weights.items() if name.startswith("lstm.")})
    linear.load_state_dict({name[7:]: value for name, value in weights.items() if name.startswith("linear.")})
    return lstm.eval(), linear.eval()
