from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from semaphone.baselines.fdplc import FdPlcConfig, load_fdplc
from semaphone.errors import InputError
from semaphone.training.fdplc import FdPlcTrainer, FdPlcTraining, FrameSet, draw_losses, encode_corpus, train_fdplc

SMALL = FdPlcTraining(steps=6, batch=4, frames=20, every=3, dev=0.3, model=FdPlcConfig(width=8, layers=1))


@pytest.fixture
def frames(rng: np.random.Generator) -> FrameSet:
    lengths = np.array([30, 25, 40, 22, 31, 19])
    indices = rng.integers(0, 16, (lengths.sum(), 46)).astype(np.uint8)
    return FrameSet(indices, lengths, rng.standard_normal((46, 16, 64)).astype(np.float32))


def nothing(step: int, row: object) -> None:
    """Says nothing."""


def test_a_stopped_run_ends_with_the_same_weights(frames: FrameSet, tmp_path: Path) -> None:
    train_fdplc(FdPlcTrainer(SMALL, frames, tmp_path / "whole"), 6, nothing)
    train_fdplc(FdPlcTrainer(SMALL, frames, tmp_path / "parts"), 3, nothing)
    resumed = FdPlcTrainer(SMALL, frames, tmp_path / "parts")
    assert resumed.step == 3
    path = train_fdplc(resumed, 6, nothing)
    whole = load_fdplc(tmp_path / "whole" / path.name).predictor.state_dict()
    for name, value in load_fdplc(path).predictor.state_dict().items():
        assert torch.equal(value, whole[name]), name
    rows = [json.loads(line) for line in (tmp_path / "parts" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [3, 6]
    with pytest.raises(InputError, match="other settings"):
        FdPlcTrainer(FdPlcTraining(**{**SMALL.__dict__, "seed": 2}), frames, tmp_path / "parts")


def test_pieces_are_sums_of_the_first_entries(frames: FrameSet, rng: np.random.Generator) -> None:
    features, lost = frames.draw(SMALL, rng)
    assert features.shape == (4, 20, 64)
    assert lost.shape == (4, 20)
    assert not lost[:, 0].any()
    with pytest.raises(InputError, match=r"2\.00 s"):
        frames.draw(FdPlcTraining(frames=100), rng)


def test_losses_are_as_wished(rng: np.random.Generator) -> None:
    c = FdPlcTraining(batch=400, frames=400, loss=(0.3, 0.3), burst=(4.0, 4.0))
    lost = draw_losses(c, rng)
    assert lost.mean() == pytest.approx(0.3, abs=0.02)
    starts = (lost[:, 1:] & ~lost[:, :-1]).sum()
    assert lost.sum() / starts == pytest.approx(4, abs=0.2)


def test_settings_are_checked() -> None:
    for wrong in ({"steps": 0}, {"rate": 2.0}, {"dev": 0.0}, {"loss": (0.0, 0.5)}):
        with pytest.raises(InputError):
            FdPlcTraining(**wrong)


@pytest.mark.slow
def test_real_codebooks_add_up(shared_data: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    pytest.importorskip("ai_edge_litert")
    from semaphone.baselines.soundstream import LyraQuantizer

    lyra = shared_data / "lyra-v2"
    if not lyra.is_dir():
        pytest.skip("no models of Lyra v2")
    soundfile.write(tmp_path / "a.wav", 0.1 * rng.standard_normal(8000), 16_000)
    c = FdPlcTraining(frames=10, hours=0.001)
    found = encode_corpus(tmp_path, lyra, tmp_path / "cache" / "frames.npz", c, lambda *_: None)
    again = encode_corpus(tmp_path, lyra, tmp_path / "cache" / "frames.npz", c, lambda *_: pytest.fail("again"))
    assert np.array_equal(found.indices, again.indices)
    summed = found.table[np.arange(16), found.indices[3, :16]].sum(0)
    assert np.allclose(LyraQuantizer(lyra).decode(found.indices[3, :16].astype(np.int32)), summed, atol=1e-4)
