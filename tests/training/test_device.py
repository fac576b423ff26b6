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


@pytest.mark.parametrize("move", [False, True])
def test_a_step_of_the_codec_stays_on_its_device(move, tmp_path, monkeypatch):
    """On the meta device: whatever a step made on the CPU beside it would not go together."""
    from contextlib import nullcontext
    from dataclasses import replace

    import numpy as np
    from tests.codec.tiny import TINY
    from tests.training.teacher import variables

    from semaphone.codec.nano import NanoModel
    from semaphone.codec.nano_weights import save_nano
    from semaphone.codec.quantizer import SplitQuantizer
    from semaphone.training import adversarial
    from semaphone.training.data import Corpus, Recording
    from semaphone.training.hearing import HeardLoss

    shape = replace(TINY, semantic_dim=8)
    save_nano(NanoModel(shape), tmp_path / "start.safetensors", {})
    corpus = Corpus((Recording("a", "", 0, 128_000),), np.zeros(128_000, np.int16), np.ones(800, np.float16), None)
    c = adversarial.AdversarialTraining(
        batch=3, crop=8, channels=2, alone=0, heard=1.0, move=move, lost=0.5, telephone=0.5, judged_crops=2,
        judged_chunks=4, model=shape,
    )  # fmt: skip
    heard = HeardLoss(variables())
    trainer = adversarial.AdversarialTrainer(c, corpus, tmp_path, tmp_path / "start.safetensors", heard)
    device = torch.device("meta")
    for part in (trainer.model, trainer.teacher, trainer.mel, trainer.judges, heard):
        part.to(device)
    trainer.device = trainer.store.device = device
    trainer.store.audio, trainer.store.f0 = trainer.store.audio.to(device), trainer.store.f0.to(device)
    generator = type("Generator", (), {"manual_seed": lambda self, seed: None})
    monkeypatch.setattr(torch, "Generator", lambda device: generator())
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())
    monkeypatch.setattr(adversarial, "careful_step", lambda optimizer, norm: None)
    monkeypatch.setattr(adversarial, "follow", lambda *args: None)
    search = lambda self, x, paths: torch.zeros(len(x), self.num_codebooks - 1, dtype=torch.int64, device=x.device)  # noqa: E731
    monkeypatch.setattr(SplitQuantizer, "_search", search)
    found = trainer.advance()
    assert {value.device.type for value in found.values()} == {"meta"}
    assert set(found) >= {"mel", "heard", "fool", "judged"}
