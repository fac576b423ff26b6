"""The compressor: NumPy on the device == torch in training, chunk by chunk == whole, sizes, damaged payloads."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from semaphone.errors import InputError
from semaphone.training.compressor import CompressorNet, CompressorTraining, save_compressor
from semaphone.translation.compressor import CnnCompressor, PlainCompressor, load_compressor, scale_mel, unscale_mel


def some_mel(frames: int, seed: int = 0) -> np.ndarray:
    """log10 energies that wander slowly over time and bands."""
    rng = np.random.default_rng(seed)
    rough = np.cumsum(rng.standard_normal((frames, 80)), axis=0) * 0.2
    smooth = sum(np.roll(rough, k, axis=1) for k in range(8)) / 8 - 4.0
    return np.clip(smooth, -10, 3).astype(np.float32)


@pytest.fixture(scope="module")
def net() -> CompressorNet:
    torch.manual_seed(0)
    net = CompressorNet().requires_grad_(False)
    net.start_from(torch.from_numpy(scale_mel(np.concatenate([some_mel(2000, s) for s in range(4)]))))
    return net


@pytest.fixture
def coder(net, tmp_path) -> CnnCompressor:
    save_compressor(net, tmp_path / "c.safetensors", CompressorTraining())
    loaded = load_compressor(str(tmp_path / "c.safetensors"))
    assert isinstance(loaded, CnnCompressor)
    return loaded


def test_device_and_training_agree(net, coder):
    mel = some_mel(200, 9)
    payload, _ = coder.compress(mel, None, True)
    ours, _ = coder.expand(payload, None)
    theirs = unscale_mel(net(torch.from_numpy(scale_mel(mel))[None])[0].numpy())
    assert len(payload) == 200 // 4 * 64
    # Half-precision weights, and a step of 1/255 where rounding falls the other way.
    assert np.abs(ours - theirs).mean() < 0.02


def test_it_starts_as_a_good_linear_code(coder):
    mel = some_mel(400, 10)
    back, _ = coder.expand(coder.compress(mel, None, True)[0], None)
    assert np.mean((back - mel) ** 2) < 0.05 * mel.var()


def test_chunk_by_chunk_is_the_whole(coder):
    mel = some_mel(203, 11)
    whole, _ = coder.compress(mel, None, True)
    state, parts, at = None, b"", 0
    for size in (1, 2, 66, 0, 5, 80):
        payload, state = coder.compress(mel[at : at + size], state, False)
        parts, at = parts + payload, at + size
    payload, _ = coder.compress(mel[at:], state, True)
    assert parts + payload == whole
    assert len(whole) == 51 * 64  # 203 frames, filled up with one of silence
    frames, _ = coder.expand(whole, None)
    first, state = coder.expand(whole[:640], None)
    second, _ = coder.expand(whole[640:], state)
    np.testing.assert_allclose(np.concatenate([first, second]), frames, atol=1e-4)


def test_plain_numbers_survive():
    mel = some_mel(7)
    payload, _ = PlainCompressor().compress(mel, None, True)
    back, _ = PlainCompressor().expand(payload, None)
    assert np.abs(back - mel).max() < 0.01


def test_damage_is_named(coder, tmp_path):
    for one in (coder, PlainCompressor()):
        with pytest.raises(InputError, match="whole number"):
            one.expand(b"x" * 63, None)
    with pytest.raises(InputError, match="not finite"):
        PlainCompressor().expand(np.full(80, np.nan, "<f2").tobytes(), None)
    with pytest.raises(InputError, match="no file"):
        load_compressor("somewhere")
    (tmp_path / "bad").write_bytes(b"not weights at all, surely not")
    with pytest.raises(InputError):
        load_compressor(str(tmp_path / "bad"))
    with pytest.raises(InputError, match="weights lack"):
        CnnCompressor({})
