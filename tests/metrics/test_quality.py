"""Quality scores order what should be ordered, and say why they can't judge."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from semaphone.errors import MissingExtraError
from semaphone.metrics import quality
from semaphone.metrics.pair import NotScorable

INTRUSIVE = {"visqol": "visqol", "pesq": "pesq", "stoi": "pystoi"}
BLIND = {"plcmos": "speechmos", "dnsmos": "speechmos"}


@pytest.mark.parametrize("name", [pytest.param("visqol", marks=pytest.mark.slow), "pesq", "stoi"])
def test_the_same_is_better_than_noisy_is_better_than_nothing(name: str, speech: np.ndarray, noisy: np.ndarray) -> None:
    pytest.importorskip(INTRUSIVE[name])
    score = getattr(quality, name)
    same, worse, gone = score(speech, speech), score(speech, noisy), score(speech, np.zeros_like(speech))
    assert same > worse > gone
    assert gone == getattr(quality, f"{name.upper()}_LOWEST")


@pytest.mark.parametrize("name", INTRUSIVE)
@pytest.mark.parametrize("samples", [1, 100, 3000])
def test_too_short_or_silent_is_a_sentence(name: str, samples: int, speech: np.ndarray) -> None:
    pytest.importorskip(INTRUSIVE[name])
    score = getattr(quality, name)
    part = speech[8000 : 8000 + samples]
    with pytest.raises(NotScorable):
        score(part, part)
    with pytest.raises(NotScorable, match="silent"):
        score(np.zeros(32000, np.float32), speech[:32000])


@pytest.mark.parametrize("name", BLIND)
def test_blind_scores_prefer_clean_speech_and_repeat_themselves(
    name: str, speech: np.ndarray, noisy: np.ndarray
) -> None:
    pytest.importorskip("speechmos")
    score = getattr(quality, name)
    first = score(speech)
    assert first > score(noisy)
    np.random.seed(3)  # noqa: NPY002 (the package draws from here, ours must not)
    assert score(speech) == first


@pytest.mark.parametrize("name", BLIND)
def test_blind_scores_refuse_silence_and_crumbs(name: str, speech: np.ndarray) -> None:
    pytest.importorskip("speechmos")
    score = getattr(quality, name)
    with pytest.raises(NotScorable, match="silence"):
        score(np.zeros(16000, np.float32))
    with pytest.raises(NotScorable, match="quarter of a second"):
        score(speech[8000:8100])


def test_dnsmos_hears_long_speech_in_windows(speech: np.ndarray) -> None:
    pytest.importorskip("speechmos")
    assert 1 < quality.dnsmos(np.tile(speech, 3)) < 5


def test_visqol_loads_without_a_word(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("visqol")
    quality._visqol_api.cache_clear()
    quality._visqol_api()
    assert capfd.readouterr() == ("", "")


def test_utmos_without_weights_is_a_sentence(
    speech: np.ndarray, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub = pytest.importorskip("huggingface_hub")
    quality._utmos_model.cache_clear()

    def absent(*args: object, **options: object) -> str:
        raise hub.errors.LocalEntryNotFoundError("nothing here")

    monkeypatch.setattr(hub, "hf_hub_download", absent)
    with pytest.raises(NotScorable, match="not in the local hub cache"):
        quality.utmos(speech)


@pytest.mark.parametrize(("name", "module"), [("pesq", "pesq"), ("stoi", "pystoi")])
def test_a_missing_package_names_the_extra(name: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"semaphone\[metrics\]"):
        getattr(quality, name)(np.ones(16000, np.float32), np.ones(16000, np.float32))
