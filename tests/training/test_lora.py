"""Fine-tuning adapters on a tiny random Moshi."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from semaphone.errors import InputError

pytest.importorskip("peft")
pytest.importorskip("accelerate")

from semaphone.recovery.lora import load_adapter
from semaphone.recovery.rq_config import RQTransformerConfig
from semaphone.recovery.rq_transformer import RQTransformer
from semaphone.training.lora import LoraTraining, train_lora
from semaphone.training.tokens import TokenSet, TokenUtterance, token_set

N, K, CODEC = 4, 32, "ab" * 32
MOSHI = RQTransformerConfig(
    num_codebooks=N,
    codebook_size=K,
    codec=CODEC,
    width=32,
    layers=2,
    heads=2,
    ffn=64,
    depth_width=16,
    depth_layers=1,
    depth_heads=2,
    depth_ffn=32,
    token_width=0,
    text_size=5,
    window=16,
    acoustic_delay=1,
    sees_received=False,
    sees_coming=False,
    other=(1, 2, 3, 4),
)
C = LoraTraining(rank=4, rate=1e-2, batch=4, accumulate=2, steps=12, crop=12, rows=40, every=3)


def base() -> RQTransformer:
    torch.manual_seed(0)
    model = RQTransformer(MOSHI)
    with torch.no_grad():  # frozen heads must say something for adapters to steer them
        model.depth_decoder.lm_heads.weight.mul_(20)
    return model


def still() -> TokenSet:
    """Utterances that say one thing all the time."""
    rng = np.random.default_rng(0)
    level = [np.full((N, 20), 3 + n % 2, np.int16) for n in range(12)]
    return token_set(CODEC, K, [TokenUtterance(t, rng.integers(0, 5, 20).astype(np.int32)) for t in level])


def test_only_the_adapters_change_and_the_loss_falls(tmp_path):
    model = base()
    before = {n: v.clone() for n, v in model.state_dict().items()}
    rows = []
    folder = train_lora(C, model, still(), tmp_path, report=lambda step, row: rows.append(row))
    assert len(rows) == 12
    assert rows[-1]["acoustic"] < 0.7 * rows[0]["acoustic"]
    after = {n.replace(".base_layer", ""): v for n, v in model.state_dict().items()}
    for name, value in before.items():
        assert torch.equal(after[name], value)
    tokens = torch.randint(0, K, (2, 5, N))
    model.eval()
    again = load_adapter(base(), folder, CODEC)
    torch.testing.assert_close(again(tokens)[0], model(tokens)[0])


def test_a_run_that_was_interrupted_goes_on_as_if_it_had_not_been(tmp_path):
    one, two, three = base(), base(), base()
    train_lora(C, one, still(), tmp_path / "once", until=4)
    train_lora(C, two, still(), tmp_path / "twice", until=2)
    train_lora(C, three, still(), tmp_path / "twice", until=4)
    a, b = one.state_dict(), three.state_dict()
    for name in a:
        torch.testing.assert_close(a[name], b[name])


def test_defaults_are_the_papers():
    c = LoraTraining()
    assert (c.rank, c.rate, c.batch, c.accumulate) == (8, 1e-6, 16, 100)
    assert c.survival.lossy == 0.75


def test_impossible_settings(tmp_path):
    with pytest.raises(InputError, match="at least 1"):
        LoraTraining(rank=0)
    tokens = token_set(CODEC, 64, [TokenUtterance(np.zeros((N, 3), np.int16))])
    with pytest.raises(InputError, match="4 codebooks of 64 entries, the model 4 of 32"):
        train_lora(C, base(), tokens, tmp_path)
