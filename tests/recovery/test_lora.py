"""Low-rank adapters on a tiny random Moshi."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from semaphone.codec.base import CodecInfo, Encoded
from semaphone.errors import InputError

pytest.importorskip("transformers")
pytest.importorskip("peft")

import transformers as hub

from semaphone.recovery import depth
from semaphone.recovery.lm import LmRecovery
from semaphone.recovery.lora import (
    add_lora,
    estimate,
    load_adapter,
    load_moshi,
    save_adapter,
    silence,
    trainable,
)
from semaphone.recovery.rq_transformer import RQTransformer

N, K = 4, 32
transformers: Any = hub
CODEC = "ab" * 32


class Silent:
    """A codec that is only asked what silence is."""

    info = CodecInfo("mimi", 100, 10.0, 8, K, 1, CODEC)

    def encode(self, speech: torch.Tensor, state: Any = None, num_codebooks: int | None = None) -> Encoded:
        count = num_codebooks or 8
        return Encoded(torch.arange(count).expand(1, count)[..., None], torch.zeros(1, 1, 1), None)

    def decode(self, tokens, state=None, weight=None, entries=None):
        raise NotImplementedError


def moshi_config() -> Any:
    mimi = {
        "sampling_rate": 1600,
        "hidden_size": 16,
        "num_filters": 4,
        "upsampling_ratios": [4, 2],
        "codebook_size": K,
        "codebook_dim": 8,
        "vector_quantization_hidden_dimension": 8,
        "num_quantizers": 6,
        "upsample_groups": 16,
        "num_hidden_layers": 1,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    }
    inner = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 32, "sliding_window": N}
    return transformers.MoshiConfig(
        vocab_size=7,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        audio_vocab_size=K,
        ffn_dim=48,
        sliding_window=50,
        num_codebooks=N,
        audio_encoder_config=mimi,
        depth_decoder_config=inner,
    )


def moshi(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    model = transformers.MoshiForConditionalGeneration(moshi_config()).eval()
    with torch.no_grad():  # transformers draws these from N(0, 1)
        for value in model.depth_decoder.parameters():
            if value.dim() == 3:
                value.mul_(value.shape[-1] ** -0.5)
    return model


def base(seed: int = 0) -> RQTransformer:
    return RQTransformer.from_moshi(moshi(seed), CODEC, silence(Silent(), N)).eval()


def chunks() -> torch.Tensor:
    return torch.randint(0, K, (2, 7, N), generator=torch.Generator().manual_seed(1))


def shake(model: RQTransformer) -> RQTransformer:
    """B begins as zero: make the adapters count."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.copy_(0.1 * torch.randn(value.shape, generator=generator))
    return model


def test_fresh_adapters_change_nothing_and_alone_can_learn():
    model = base()
    before = model(chunks())[0]
    add_lora(model, rank=3)
    torch.testing.assert_close(model(chunks())[0], before)
    names = [n for n, p in model.named_parameters() if p.requires_grad]
    assert names
    assert all("lora_" in n for n in names)
    for part in ("decoder.model.layers.1.self_attn.q_proj", "decoder.model.layers.0.mlp.fc2"):
        assert any(n.startswith(part) for n in names)
    assert any(n.startswith("depth_decoder.layers.1.mlp.fc1") for n in names)
    assert not any("lm_head" in n or "embed" in n for n in names)


def test_adapters_reach_every_product_and_get_gradients():
    model = shake(add_lora(base(), rank=3))
    model(chunks())[0].square().sum().backward()
    for p in trainable(model):
        assert p.grad is not None
        assert p.grad.abs().sum() > 0


def test_adapted_products_are_those_of_peft():
    """W + BA as peft's wrapper computes it, for runs of positions and for single ones."""
    model = shake(add_lora(base(), rank=3))
    for layer in model.depth_decoder.layers:
        for wrapper in (layer.self_attn.k_proj.linear, layer.mlp.fc1):
            x = torch.randn(5, N, wrapper.get_base_layer().weight.shape[-1])
            theirs = wrapper(x)
            torch.testing.assert_close(depth.per_codebook(wrapper, x, 0), theirs, atol=1e-5, rtol=1e-5)
            for k in range(N):
                one = depth.Weights(wrapper).times(x[:, k], k)
                torch.testing.assert_close(one, theirs[:, k], atol=1e-5, rtol=1e-5)


def test_steps_with_adapters_equal_the_whole_sequence():
    model = shake(add_lora(base(), rank=3))
    tokens = chunks()
    state, out = None, []
    for n in range(7):
        step = model.step(tokens[:, n], torch.zeros(2, N, dtype=torch.long), state, look_ahead=False, all_logits=True)
        state = step.state
        out.append(step.logits)
    whole = model(tokens)[0]
    torch.testing.assert_close(torch.stack(out[1:], 1), whole[:, :6], atol=1e-4, rtol=1e-4)


def test_a_reloaded_adapter_gives_the_same_logits(tmp_path):
    model = shake(add_lora(base(), rank=3))
    save_adapter(model, tmp_path / "a")
    assert sorted(f.name for f in (tmp_path / "a").iterdir() if f.suffix != ".md") == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "semaphone.json",
    ]
    again = load_adapter(base(), tmp_path / "a", CODEC)
    torch.testing.assert_close(again(chunks())[0], model(chunks())[0])
    assert not trainable(again)
    assert (again(chunks())[0] - base()(chunks())[0]).abs().max() > 1e-3
    recovered, _ = LmRecovery(again).step(chunks()[:, 0], torch.ones(2, N, dtype=torch.long))
    assert recovered.tokens.shape == (2, N)


def test_adapters_that_do_not_fit_are_refused(tmp_path):
    model = add_lora(base(), rank=2)
    save_adapter(model, tmp_path / "a")
    with pytest.raises(InputError, match="another codec"):
        load_adapter(base(), tmp_path / "a", "cd" * 32)
    with pytest.raises(InputError, match="does not hold whole adapters"):
        load_adapter(base(), tmp_path)
    facts = json.loads((tmp_path / "a" / "semaphone.json").read_text())
    (tmp_path / "a" / "semaphone.json").write_text(json.dumps(facts | {"width": 64}))
    with pytest.raises(InputError, match="another size"):
        load_adapter(base(), tmp_path / "a")
    with pytest.raises(InputError, match="has adapters already"):
        add_lora(model)
    with pytest.raises(InputError, match="no adapters to save"):
        save_adapter(base(), tmp_path / "b")
    with pytest.raises(InputError, match="rank"):
        add_lora(base(), rank=0)


def test_moshi_loads_from_a_folder(tmp_path):
    model = moshi()
    model.save_pretrained(tmp_path)
    said: list[str] = []
    loaded = load_moshi(tmp_path, Silent(), "float32", report=said.append)
    assert said[0].startswith("Memory: weights ")
    assert loaded.config.other == (0, 1, 2, 3)
    assert loaded.config.codec == CODEC
    torch.testing.assert_close(loaded(chunks())[0], base()(chunks())[0])
    half = load_moshi(tmp_path, Silent(), "bfloat16")
    assert half.step(chunks()[:, 0], torch.ones(2, N, dtype=torch.long)).logits.dtype == torch.float32
    add_lora(half)
    assert all(p.dtype == torch.float32 for p in trainable(half))
    assert torch.isfinite(half(chunks())[0].float()).all()


def test_a_moshi_that_cannot_be_had_gives_one_sentence(tmp_path):
    with pytest.raises(InputError, match="Moshi could not be loaded from"):
        load_moshi(tmp_path / "absent", Silent())
    with pytest.raises(InputError, match="precision"):
        load_moshi(tmp_path, Silent(), "int3")
    moshi_config().save_pretrained(tmp_path)
    few = Silent()
    few.info = CodecInfo("mimi", 100, 10.0, 3, K, 1, CODEC)
    with pytest.raises(InputError, match="predicts 4 codebooks"):
        load_moshi(tmp_path, few)
    (tmp_path / "other").mkdir()
    transformers.MimiConfig().save_pretrained(tmp_path / "other")
    with pytest.raises(InputError, match="type 'mimi', not Moshi"):
        load_moshi(tmp_path / "other", Silent())


def test_eight_bits_need_their_package(tmp_path, monkeypatch):
    import importlib.util

    moshi_config().save_pretrained(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="bitsandbytes"):
        load_moshi(tmp_path, Silent(), "int8")


def test_memory_is_estimated_from_the_configuration(tmp_path):
    model = base()
    weights = sum(p.numel() for p in model.parameters())
    found = estimate(moshi_config(), "float32", rank=3, rows=100)
    assert found.weights == 4 * weights
    assert found.stream == 4 * 2 * 2 * 50 * 32
    adapted = sum(p.numel() for p in trainable(add_lora(model, rank=3)))
    assert found.adapter == 16 * adapted
    assert found.activations > 0
    assert "adapters and optimiser" in str(found)
    assert estimate(moshi_config(), "int8").weights < estimate(moshi_config(), "bfloat16").weights


def test_silence_is_what_the_codec_says():
    assert silence(Silent(), 3) == (0, 1, 2)


def test_adapter_folder_is_a_path(tmp_path: Path):
    save_adapter(add_lora(base(), depth=False), tmp_path / "deep" / "a")
    assert (tmp_path / "deep" / "a" / "semaphone.json").is_file()
