from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from semaphone.baselines.fdplc import FdPlc, FdPlcConfig, Predictor, held, load_fdplc, save_fdplc
from semaphone.errors import InputError


@pytest.fixture
def predictor() -> Predictor:
    torch.manual_seed(3)
    model = Predictor(FdPlcConfig(width=8, layers=2, patience=1, fade=0.5))
    torch.nn.init.normal_(model.leave.weight)
    model.mean.fill_(2.0)
    model.scale.fill_(3.0)
    return model


def test_frame_by_frame_equals_the_whole(predictor: Predictor, rng: np.random.Generator) -> None:
    features = torch.from_numpy(rng.standard_normal((2, 12, 64)).astype(np.float32))
    lost = torch.from_numpy(rng.random((2, 12)) < 0.4)
    whole, _ = predictor(features, lost)
    state, parts = None, []
    for t in range(12):
        part, state = predictor(features[:, t : t + 1], lost[:, t : t + 1], state)
        parts.append(part)
    assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-5)


def test_lost_features_are_not_seen(predictor: Predictor, rng: np.random.Generator) -> None:
    features = torch.from_numpy(rng.standard_normal((1, 9, 64)).astype(np.float32))
    lost = torch.tensor([[False, False, True, True, False, True, True, True, False]])
    other = torch.where(lost[..., None], features + 100, features)
    later = other.clone()
    later[:, 8] += 5
    for changed in (other, later):
        assert torch.equal(predictor(features, lost)[0][lost], predictor(changed, lost)[0][lost])


def test_what_is_held() -> None:
    came = torch.arange(4.0)[None, :, None].expand(1, 4, 64)
    lost = torch.tensor([[True, False, True, True]])
    assert held(came, lost, torch.full((1, 64), 9.0))[0, :, 0].tolist() == [9, 1, 1, 1]


def test_concealment_keeps_what_came_and_fades(predictor: Predictor) -> None:
    concealment, frame = FdPlc(predictor), np.ones(64, np.float32)
    first, state = concealment.step(None, None)
    assert first.gain == 0
    came, state = concealment.step(frame, state)
    assert came.gain == 1
    assert came.features is frame
    gains = []
    for _ in range(3):
        guess, state = concealment.step(None, state)
        gains.append(guess.gain)
        assert guess.features.shape == (64,)
    assert gains == [1.0, 0.5, 0.25]


def test_an_untrained_network_repeats() -> None:
    concealment, frame = FdPlc(Predictor(FdPlcConfig(width=4))), np.full(64, 0.5, np.float32)
    _, state = concealment.step(frame, None)
    guess, _ = concealment.step(None, state)
    assert np.allclose(guess.features, frame)


def test_a_guess_keeps_the_size_of_the_last_frame() -> None:
    frame = np.linspace(-8, 8, 64, dtype=np.float32)
    sizes = {}
    for name, size in (("kept", 1.0), ("not kept", 0.0)):
        dull = Predictor(FdPlcConfig(width=8, trust=0.5, size=size))
        with torch.no_grad():
            dull.leave.bias.copy_(torch.from_numpy(-frame))  # the network predicts the mean
        concealment = FdPlc(dull)
        _, state = concealment.step(frame, None)
        guess, _ = concealment.step(None, state)
        sizes[name] = float(np.linalg.norm(guess.features) / np.linalg.norm(frame))
    assert sizes == pytest.approx({"kept": 1.0, "not kept": 0.5}, abs=1e-4)


def test_weights_come_back(predictor: Predictor, tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "fdplc.safetensors"
    save_fdplc(predictor, path, {"steps": "3"})
    again = load_fdplc(path).predictor
    assert again.config == predictor.config
    x, lost = torch.zeros(1, 3, 64), torch.tensor([[False, True, True]])
    assert torch.allclose(again(x, lost)[0], predictor(x, lost)[0], atol=1e-2)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="FD-PLC"):
        load_fdplc(tmp_path / "x.safetensors")
    with pytest.raises(InputError, match="FD-PLC"):
        load_fdplc(tmp_path / "absent.safetensors")
    with pytest.raises(InputError):
        FdPlcConfig(width=0)
    with pytest.raises(InputError):
        FdPlcConfig(trust=1.5)


def test_the_weights_of_the_package_can_be_used() -> None:
    concealment = load_fdplc()
    assert concealment.predictor.config.layers == 2
    _, state = concealment.step(np.ones(64, np.float32), None)
    guess, _ = concealment.step(None, state)
    assert np.isfinite(guess.features).all()
    assert guess.gain == 1
