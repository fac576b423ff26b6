"""The weights of nano that come with the package."""

import numpy as np
import pytest
import torch
from tests.codec.tiny import in_blocks

from semaphone.audio import read_audio
from semaphone.codec.registry import WEIGHTS, load_codec
from semaphone.training.losses import MelLoss


@pytest.fixture(scope="module")
def codec():
    return load_codec("nano")


@pytest.fixture(scope="module")
def speech(shared_data):
    """Six seconds of a voice of the dev set, whole chunks."""
    file = sorted((shared_data / "speech" / "dev").glob("librispeech*/*"))[0]
    return torch.from_numpy(read_audio(file, 16_000)[: 76 * 1280])[None]


def tone():
    """A second and a half of something like a vowel, for where there are no recordings."""
    time = np.arange(18 * 1280) / 16_000
    pitch = 2 * np.pi * np.cumsum(120 + 30 * np.sin(5 * time)) / 16_000
    return torch.from_numpy(sum(np.cos(k * pitch) / k for k in range(1, 20)) * 0.05).float()[None]


@pytest.mark.parametrize("chunks", [1, 2, 5])
def test_chunk_by_chunk_equals_whole(codec, chunks):
    x = tone()
    tokens = codec.encode(x).tokens
    parts, heard = in_blocks(codec, x, chunks)
    assert torch.equal(tokens, parts)
    torch.testing.assert_close(heard, codec.decode(tokens).speech, atol=1e-5, rtol=0)


def test_more_codebooks_are_nearer_to_the_original(codec, speech):
    tokens, delay = codec.encode(speech).tokens, codec.info.delay
    distance = MelLoss(16_000)
    far = [float(distance(codec.decode(tokens[:, :k]).speech[:, delay:], speech[:, :-delay])) for k in (1, 4, 8, 16)]
    assert far == sorted(far, reverse=True)
    assert far[-1] < 0.17


@pytest.mark.slow
def test_no_clicks_between_chunks(codec, shared_data):
    at = np.zeros(1280)
    for file in sorted((shared_data / "speech" / "dev").glob("librispeech*/*"))[:8]:
        samples = read_audio(file, 16_000)[: 100 * 1280]
        x = torch.from_numpy(samples[: len(samples) // 1280 * 1280])[None]
        sharp = np.diff(codec.decode(codec.encode(x).tokens).speech[0].numpy(), 3, prepend=[0] * 3) ** 2
        at += (sharp / sharp.mean()).reshape(-1, 1280).sum(0)
    border = np.r_[at[:10], at[-10:]].mean()
    assert border < 1.25 * at.mean()


def test_weights_are_small():
    assert (WEIGHTS / "nano-codec.safetensors").stat().st_size < 17e6
