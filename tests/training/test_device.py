import pytest
import torch

from semaphone.errors import InputError
from semaphone.training.device import autocast, find_device


def test_devices_are_named():
    assert find_device("cpu") == torch.device("cpu")
    assert find_device("auto").type in ("cpu", "cuda")
    for wrong in ("gpu", "cpu:1", "cuda:x", "", "cuda:-1"):
        with pytest.raises(InputError, match="A device is"):
            find_device(wrong)
    with pytest.raises(InputError, match="no device cuda:99"):
        find_device("cuda:99")


def test_autocast_makes_products_in_bfloat16_where_asked_for():
    x = torch.ones(2, 2)
    with autocast(torch.device("cpu"), True):
        assert (x @ x).dtype == torch.bfloat16
    with autocast(torch.device("cpu"), False):
        assert (x @ x).dtype == torch.float32
