"""How good speech sounds: ViSQOL, PESQ and STOI against the original, PLCMOS, DNSMOS and UTMOS without it.

All take mono float32 speech at 16 kHz within ±1 and raise `NotScorable` for what they can't judge and
`MissingExtraError` where their package is absent. Two words of caution: ViSQOL and PESQ are unfair to generative
codecs, and the models without a reference say nothing about the words. Never rank by one metric.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semaphone.errors import COMPILED, MissingExtraError
from semaphone.metrics.pair import SCORING_RATE, NotScorable, Speech, is_silent, mean_over_pieces
from semaphone.native import quiet_native_log

if TYPE_CHECKING:
    from collections.abc import Callable

# The lowest a scale can go: what speech that is gone altogether gets, or losing everything would be the one way to
# keep a mean clean.
VISQOL_LOWEST = 1.0
PESQ_LOWEST = 0.999 + 4 / (1 + float(np.exp(1.3669 * 0.5 + 3.8224)))  # P.862.2's mapping of a raw score of -0.5
STOI_LOWEST = 0.0

_VISQOL_SHORTEST = SCORING_RATE  # samples: ViSQOL compares patches of 0.4 s and needs room around them
_PESQ_SHORTEST = SCORING_RATE // 4
_PLCMOS_SHORTEST = SCORING_RATE // 4
_PLCMOS_RATERS = 15  # raters drawn at random, as the authors' own scorer does
_PLCMOS_SEED = 2023
_DNSMOS_SAMPLES = 144160  # 9.01 s, the input of the model


def visqol(reference: Speech, degraded: Speech) -> float:
    """ViSQOL v3 in speech mode: MOS-LQO, 1 to 5 (Chinen et al., QoMEX 2020). Pieces of at most 10 s are averaged."""
    api = _visqol_api()

    def score(original: Speech, arrived: Speech) -> float:
        if len(original) < _VISQOL_SHORTEST:
            raise NotScorable("ViSQOL needs a second of speech")
        if is_silent(original):
            raise NotScorable("the original is silent")
        if is_silent(arrived):
            return VISQOL_LOWEST
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                value = float(api.measure_from_arrays(original, arrived, SCORING_RATE).moslqo)
            except (IndexError, ValueError) as error:
                raise NotScorable("ViSQOL found no speech of 0.4 s in the original") from error
        return _finite(value, "ViSQOL")

    return mean_over_pieces(reference, degraded, 10.0, score)


def pesq(reference: Speech, degraded: Speech) -> float:
    """Wide-band PESQ: MOS-LQO, 1.04 to 4.64 (ITU-T P.862.2). Pieces of at most 15 s are averaged."""
    try:
        import pesq as package
    except ImportError as error:
        raise MissingExtraError("PESQ", "metrics", COMPILED) from error

    def score(original: Speech, arrived: Speech) -> float:
        if len(original) < _PESQ_SHORTEST:
            raise NotScorable("PESQ needs a quarter of a second of speech")
        if is_silent(original):
            raise NotScorable("the original is silent")
        if is_silent(arrived):
            return PESQ_LOWEST
        try:
            value = float(package.pesq(SCORING_RATE, original, arrived, "wb"))
        except (package.PesqError, ValueError) as error:
            raise NotScorable("PESQ found no speech in the original") from error
        return _finite(value, "PESQ")

    return mean_over_pieces(reference, degraded, 15.0, score)


def stoi(reference: Speech, degraded: Speech) -> float:
    """Short-time objective intelligibility, 0 to 1 (Taal et al., 2011)."""
    try:
        import pystoi
    except ImportError as error:
        raise MissingExtraError("STOI", "metrics") from error
    if is_silent(reference):
        raise NotScorable("the original is silent")
    if is_silent(degraded):
        return STOI_LOWEST
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            value = float(pystoi.stoi(reference, degraded, SCORING_RATE))
        except (RuntimeWarning, ValueError) as error:
            raise NotScorable("STOI needs 0.4 s of speech") from error
    return _finite(value, "STOI")


def plcmos(degraded: Speech) -> float:
    """PLCMOS v2, 1 to 5, without reference (Diener et al., Interspeech 2023).

    The model listens as one of many raters; the mean is over 15 that are drawn with a fixed seed, so the same
    speech always gets the same score.
    """
    model = _plcmos_model()
    if len(degraded) < _PLCMOS_SHORTEST:
        raise NotScorable("PLCMOS needs a quarter of a second of speech")
    if is_silent(degraded):
        raise NotScorable("PLCMOS says nothing about silence")
    features = np.asarray(model.stft_transform(degraded), dtype=np.float32)[None, None]
    raters = np.random.default_rng(_PLCMOS_SEED).standard_normal((_PLCMOS_RATERS, 1, 64)).astype(np.float32)
    scores = [model.session.run(None, {"degraded_audio": features, "rater_embed": rater})[0] for rater in raters]
    return _finite(float(np.mean([float(np.squeeze(score)) for score in scores])), "PLCMOS")


def dnsmos(degraded: Speech) -> float:
    """DNSMOS P.835, overall quality, 1 to 5, without reference (Reddy et al., ICASSP 2022).

    The model hears 9.01 s: shorter speech is repeated, longer speech is heard in windows that start a second apart.
    """
    session = _dnsmos_session()
    if is_silent(degraded):
        raise NotScorable("DNSMOS says nothing about silence")
    if len(degraded) < SCORING_RATE // 4:
        raise NotScorable("DNSMOS needs a quarter of a second of speech")
    heard = np.tile(degraded, -(-_DNSMOS_SAMPLES // len(degraded)))
    starts = [0] if len(degraded) < _DNSMOS_SAMPLES else range(0, len(heard) - _DNSMOS_SAMPLES + 1, SCORING_RATE)
    raw = [
        float(session.run(None, {"input_1": heard[None, start : start + _DNSMOS_SAMPLES]})[0][0][2]) for start in starts
    ]
    # The authors' polynomial from the model's output to the scale of their listeners.
    return _finite(float(np.mean(np.polyval([-0.06766283, 1.11546468, 0.04602535], raw))), "DNSMOS")


def utmos(degraded: Speech) -> float:
    """UTMOS, 1 to 5, without reference (Saeki et al., Interspeech 2022). Its weights must lie in the local hub cache.

    Nothing is downloaded: `huggingface-cli download Blinorot/UTMOS-PyTorch utmos_scripted.pt` fetches them once.
    """
    import torch

    model = _utmos_model()
    if is_silent(degraded):
        raise NotScorable("UTMOS says nothing about silence")
    with torch.inference_mode():
        value = model.score(torch.from_numpy(degraded)[None])
    return _finite(float(value.mean()), "UTMOS")


def _finite(value: float, name: str) -> float:
    if not np.isfinite(value):
        raise NotScorable(f"{name} gave no number for this speech")
    return value


@lru_cache(maxsize=1)
def _visqol_api() -> Any:
    try:
        from visqol import VisqolApi
    except ImportError as error:
        raise MissingExtraError("ViSQOL", "metrics") from error
    api = VisqolApi()
    with quiet_native_log():
        try:
            api.create(mode="speech")
        except ImportError as error:
            raise MissingExtraError("ViSQOL's speech mode", "metrics") from error
    return api


@lru_cache(maxsize=1)
def _plcmos_model() -> Any:
    try:
        from speechmos.plcmos import PLCMOS
    except ImportError as error:
        raise MissingExtraError("PLCMOS", "metrics") from error
    model = PLCMOS(embed_rounds=_PLCMOS_RATERS)
    model.session = _onnx_session(Path(model.model_path))
    return model


@lru_cache(maxsize=1)
def _dnsmos_session() -> Any:
    # The package's own DNSMOS module imports librosa; its model needs nothing but samples.
    spec = find_spec("speechmos")
    if spec is None or spec.origin is None:
        raise MissingExtraError("DNSMOS", "metrics")
    return _onnx_session(Path(spec.origin).parent / "dnsmos_models" / "sig_bak_ovr.onnx")


def _onnx_session(path: Path) -> Any:
    """One thread, so that the last digit doesn't depend on the machine, and only errors in the log."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("This metric", "metrics") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@lru_cache(maxsize=1)
def _utmos_model() -> Any:
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ImportError as error:
        raise MissingExtraError("UTMOS", "metrics") from error
    import torch

    try:
        path = hf_hub_download("Blinorot/UTMOS-PyTorch", "utmos_scripted.pt", local_files_only=True)
    except LocalEntryNotFoundError as error:
        raise NotScorable("UTMOS' weights (Blinorot/UTMOS-PyTorch) are not in the local hub cache") from error
    load: Callable[..., Any] = torch.jit.load
    return load(path, map_location="cpu").eval()
