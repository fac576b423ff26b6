import pytest
import torch

from semaphone.controller.adaptive import (
    AdaptiveController,
    ControllerConfig,
    ControllerModel,
    load,
    mask_at,
    never_empty,
    save,
)
from semaphone.controller.base import LinkLoss, Mask
from semaphone.controller.masks import hard_mask, straight_through
from semaphone.errors import InputError

CONFIG = ControllerConfig(24, 16, "0123456789abcdef")


def model(seed: int = 0, config: ControllerConfig = CONFIG) -> ControllerModel:
    torch.manual_seed(seed)
    return ControllerModel(config)


def test_the_size_is_the_papers():
    """Table I has 0.517 M parameters, with Mimi's 512-dimensional latents."""
    count = sum(p.numel() for p in ControllerModel(ControllerConfig(512, 8)).parameters())
    assert round(count / 1e6, 3) == 0.517


def test_masks_equal_the_equations_on_a_grid():
    for rate in (0.5, 1.0, 3.7, 8.0, 16.0, 40.0):
        for i in range(101):
            s, c = i / 100, (100 - i) / 100
            both = hard_mask(rate * torch.tensor([s, c], dtype=torch.float64), 16).sum(-1).tolist()
            assert mask_at(rate, importance=(s, c), num_codebooks=16) == Mask(*map(int, both))


def test_gradients_reach_every_weight():
    net = model()
    importance, _ = net(torch.randn(2, 9, 24), torch.rand(2, 9))
    masks = straight_through(8.0 * importance, 16, 5.0)  # [B, T, 2, N_Q]
    (masks.sum(2) * torch.randn(16)).sum().backward()
    for name, weight in net.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().sum() > 0, name


def test_chunk_by_chunk_is_the_whole_and_the_future_does_not_matter():
    net = model().eval()
    latents, p = torch.randn(2, 30, 24), torch.rand(2, 30)
    whole, _ = net(latents, p)
    state, parts = None, []
    for t in range(30):
        part, state = net(latents[:, t : t + 1], p[:, t : t + 1], state)
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=0)
    short, _ = net(latents[:, :20], p[:, :20])
    torch.testing.assert_close(short, whole[:, :20], atol=1e-6, rtol=0)


def test_the_controller_streams():
    controller = AdaptiveController(model(), 12.0)
    latents = torch.randn(24, 40)
    whole, _ = controller.step(latents, LinkLoss(0.1), None)
    state, masks = None, []
    for t in range(40):
        one, state = controller.step(latents[:, t : t + 1], LinkLoss(0.1), state)
        masks += one
    assert masks == whole
    assert len(set(masks)) > 1
    assert max(mask.sent for mask in masks) <= controller.most == 12


def test_the_first_convolution_can_be_adjusted_to_its_latents():
    net = model()
    latents = 300.0 + 50.0 * torch.randn(1, 200, 24)
    scaled = (latents - latents.mean((0, 1))) / latents.std((0, 1))
    expected, _ = net.semantic(scaled)
    net.adjust(latents[0])
    found, _ = net.semantic(latents)
    torch.testing.assert_close(found[:, 8:], expected[:, 8:], atol=1e-2, rtol=1e-2)


def test_a_talking_block_is_never_empty():
    assert never_empty(Mask(0, 0), 0, 1) == (Mask(0, 0), 1)
    assert never_empty(Mask(0, 0), 1, 1) == (Mask(1, 0), 0)
    assert never_empty(Mask(2, 1), 1, 1) == (Mask(2, 1), 0)
    masks, _ = AdaptiveController(model(), 0.5).step(torch.randn(24, 6), LinkLoss(0.0), None)
    assert [mask.sent for mask in masks] == [0, 1] * 3


def test_nothing_goes_where_nobody_talks():
    masks, _ = AdaptiveController(model(), 16.0).step(
        torch.randn(24, 4), LinkLoss(0.0), None, [True, False, False, True]
    )
    assert [mask.sent > 0 for mask in masks] == [True, False, False, True]


def test_weights_keep_their_codec(tmp_path):
    net = model()
    save(net, tmp_path / "c.safetensors", {"steps": "7"})
    again = load(tmp_path / "c.safetensors", CONFIG.codec)
    for name, value in net.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value.half().float())
    with pytest.raises(InputError, match="latents of another codec"):
        load(tmp_path / "c.safetensors", "fedcba9876543210")
    (tmp_path / "x.safetensors").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="holds no controller"):
        load(tmp_path / "x.safetensors")


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), 1e9])
def test_impossible_rates(rate):
    with pytest.raises(InputError, match="above 0"):
        AdaptiveController(model(), rate)
