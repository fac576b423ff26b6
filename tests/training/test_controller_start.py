from typing import Any

import numpy as np
import pytest
import torch

from semaphone.controller.adaptive import ControllerConfig, ControllerModel
from semaphone.controller.budget import best_split
from semaphone.training.controller_start import LEVEL, LOUD, QUIET, loudness, start, targets
from semaphone.training.latents import Crop, Material

D, N = 6, 16


class Talk:
    """Material of one utterance whose latents say how loud it is."""

    lengths = np.array([200])
    draw = Material.draw

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.level = rng.uniform(-40, 0, 200)  # dB
        self.latents = rng.standard_normal((200, D)).astype(np.float32)
        self.latents[:, 0] = self.level / 20
        tone = np.sin(np.arange(1280) * 2 * np.pi / 32)
        self.speech = (tone * 10 ** (self.level[:, None] / 20)).astype(np.float32).ravel()

    def __len__(self) -> int:
        return 1

    def crop(self, index: int, first: int, count: int) -> Crop:
        part = slice(1280 * first, 1280 * (first + count))
        tokens = np.zeros((count, N), np.int64)
        return Crop(tokens, self.latents[first : first + count], self.speech[part])


def test_loudness_goes_from_quiet_to_loud():
    talk = Talk()
    crop = talk.crop(0, 0, 50)
    loud, level = loudness(crop), talk.level[:50]
    np.testing.assert_allclose(loud, ((level - level.max() + 25) / 10).clip(0, 1), atol=1e-4)
    assert (loudness(Crop(crop.tokens, crop.latents, None)) == 1).all()


@pytest.mark.parametrize("p", [0.0, 0.2])
def test_targets_split_as_a_sender_without_a_model(p):
    wanted = targets(torch.tensor([[0.0, 0.4, 1.0]]), torch.tensor([p]), N)
    masks = torch.floor(LEVEL * wanted)[0].int().tolist()
    assert [sum(mask) for mask in masks] == [QUIET, 8, round(LOUD)]
    assert [tuple(mask) for mask in masks] == [best_split(sum(mask), N, p, p) for mask in masks]
    assert any(mask[1] for mask in masks) == (p > 0)


def test_a_fresh_network_learns_to_begin_there():
    torch.manual_seed(0)
    talk: Any = Talk()
    net = ControllerModel(ControllerConfig(D, N))
    net.adjust(torch.from_numpy(talk.latents))
    assert start(net, talk, 150, np.random.default_rng(1)) < 0.08
    importance, _ = net(torch.from_numpy(talk.latents)[None], torch.full((1, 200), 0.2))
    sent, twice = importance[0].T.detach().numpy()
    assert np.corrcoef(sent, talk.level)[0, 1] > 0.8
    calm, _ = net(torch.from_numpy(talk.latents)[None], torch.zeros(1, 200))
    assert 2 * calm[0, :, 1].mean() < twice.mean()
