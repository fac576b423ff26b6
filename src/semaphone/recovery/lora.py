"""Moshi with low-rank adapters (LargeSC eq 18): loading, adding, saving and loading apart from the base.

    model = load_moshi("kmhf/hf-moshiko", mimi, precision="bfloat16", report=print)
    load_adapter(model, Path("adapter"), mimi.info.fingerprint)
    recovery = LmRecovery(model)

peft puts the adapters into the linear layers of both transformers: in the temporal one those are
ordinary layers, in the depth one the weights of all codebooks are one parameter, and each codebook
gets matrices A and B of its own. An adapter is a folder in peft's own layout, with the codec's
fingerprint beside it. The other speaker's stream, which Moshi also hears, is silence.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from semaphone.errors import InputError, MissingExtraError
from semaphone.files import write_whole
from semaphone.hub import local_only
from semaphone.recovery.rq_transformer import RQTransformer

if TYPE_CHECKING:
    from semaphone.codec.base import Codec

HUB_ID = "kmhf/hf-moshiko"  # Kyutai's Moshiko in transformers' format
PRECISIONS = ("float32", "bfloat16", "int8")
FACTS = "semaphone.json"
WEIGHTS = "adapter_model.safetensors"
_TEMPORAL = r"decoder\.model\.layers\.\d+\.(self_attn\.[qkvo]_proj\.linear|mlp\.fc[12])"
_DEPTH = (*(f"self_attn.{name}_proj.linear.weight" for name in "qkvo"), "mlp.fc1.weight", "mlp.fc2.weight")


@dataclass(frozen=True)
class Memory:
    """What a model takes, in bytes."""

    weights: int  # as loaded
    stream: int  # keys and values of one stream when its window is full
    adapter: int = 0  # training: adapters, their gradients and AdamW's two moments, in float32
    activations: int = 0  # training: what the backward pass needs, with recomputed temporal layers; roughly

    def __str__(self) -> str:
        parts = [f"weights {_size(self.weights)}", f"each stream up to {_size(self.stream)}"]
        if self.adapter:
            parts += [f"adapters and optimiser {_size(self.adapter)}", f"activations about {_size(self.activations)}"]
        return "Memory: " + ", ".join(parts) + "."


def _size(number: int) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"


def estimate(facts: Any, precision: str = "bfloat16", rank: int = 0, rows: int = 0) -> Memory:
    """Memory of a Moshi from its transformers configuration alone; nothing is loaded.

    rank: of adapters to be trained (0: none); rows: utterances times chunks of a training step.
    """
    _check_precision(precision)
    classes = _classes()
    with torch.device("meta"):
        parts = [classes.MoshiForCausalLM(facts), classes.MoshiDepthDecoder(facts.depth_decoder_config)]
    plain = sum(m.weight.numel() for m in parts[0].model.layers.modules() if isinstance(m, torch.nn.Linear))
    tables = 2 * facts.num_codebooks * (facts.audio_vocab_size + 1) * facts.hidden_size
    total = tables + sum(p.numel() for part in parts for p in part.parameters())
    each = 4 if precision == "float32" else 2
    weights = total * each - (plain * (each - 1) if precision == "int8" else 0)
    heads = facts.num_key_value_heads * facts.head_dim
    stream = 2 * facts.num_hidden_layers * facts.sliding_window * heads * each
    if not rank:
        return Memory(weights, stream)
    temporal, inner = facts, facts.depth_decoder_config
    adapter = 16 * rank * (_spans(temporal) + inner.num_codebooks * _spans(inner))
    layer = facts.hidden_size * 8 + 3 * facts.ffn_dim  # inputs and outputs of the products of one recomputed layer
    depth = inner.num_codebooks * inner.num_hidden_layers * (inner.hidden_size * 8 + 3 * inner.ffn_dim)
    logits = 3 * inner.num_codebooks * inner.audio_vocab_size * 2  # float32, and its gradient
    activations = rows * each * (facts.num_hidden_layers * facts.hidden_size + layer + depth + logits)
    return Memory(weights, stream, adapter, activations)


def _spans(facts: Any) -> int:
    """Inputs plus outputs of all adapted products of a transformer: parameters of rank-1 adapters."""
    wide, attention = facts.hidden_size, facts.num_attention_heads * facts.head_dim
    narrow = facts.num_key_value_heads * facts.head_dim
    products = 2 * (wide + attention) + 2 * (wide + narrow) + (wide + facts.ffn_dim) + (facts.ffn_dim // 2 + wide)
    return int(facts.num_hidden_layers * products)


def _check_precision(precision: str) -> None:
    if precision not in PRECISIONS:
        raise InputError(f"The precision of Moshi is {', '.join(PRECISIONS)}, not {precision!r}.")


def _classes() -> Any:
    try:
        from transformers.models.moshi import modeling_moshi
    except ImportError as error:
        raise MissingExtraError("Moshi", "large") from error
    return modeling_moshi


def silence(codec: Codec, count: int) -> tuple[int, ...]:
    """Tokens of a silent chunk, which is what the other speaker says."""
    chunk = torch.zeros(1, codec.info.chunk_samples)
    return tuple(int(t) for t in codec.encode(chunk, None, count).tokens[0, :, 0])


def load_moshi(
    source: str | Path,
    codec: Codec,
    precision: str = "bfloat16",
    device: str | torch.device = "cpu",
    report: Callable[[str], None] = lambda text: None,
    training: tuple[int, int] = (0, 0),
) -> RQTransformer:
    """Moshi from a hub id or folder in transformers' format, for tokens of `codec`.

    The memory it will take is reported before it is loaded; `training` is (rank, rows) as in `estimate`. Raises
    InputError with a sentence if the model cannot be had or does not fit the codec.
    """
    _check_precision(precision)
    classes = _classes()
    import transformers

    facts = _read(source, transformers.AutoConfig.from_pretrained)
    if facts.model_type != "moshi":
        raise InputError(f"'{source}' holds a model of type '{facts.model_type}', not Moshi.")
    if facts.num_codebooks > codec.info.num_codebooks or facts.audio_vocab_size != codec.info.codebook_size:
        raise InputError(
            f"The Moshi in '{source}' predicts {facts.num_codebooks} codebooks of {facts.audio_vocab_size} entries; "
            f"the codec has {codec.info.num_codebooks} of {codec.info.codebook_size}."
        )
    report(str(estimate(facts, precision, *training)))
    read: Any = classes.MoshiForConditionalGeneration.from_pretrained
    found = _read(source, read, output_loading_info=True, **_options(precision, device))
    model, missing = found[0], [n for n in found[1]["missing_keys"] if not n.startswith("audio_encoder.")]
    if missing or found[1].get("mismatched_keys"):
        raise InputError(f"The weights in '{source}' do not fit Moshi: {len(missing)} are missing.")
    other = silence(codec, facts.num_codebooks)
    return RQTransformer.from_moshi(model, codec.info.fingerprint, other).eval()


def _options(precision: str, device: str | torch.device) -> dict[str, Any]:
    if precision != "int8":
        return {"dtype": getattr(torch, precision), "device_map": str(device)}
    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError("Loading Moshi in 8 bits needs a GPU and the package bitsandbytes.")
    import transformers

    make: Any = transformers.BitsAndBytesConfig
    keep = ["lm_head", "audio_encoder", "depth_decoder"]  # the depth transformer's weights are no ordinary layers
    quantisation = make(load_in_8bit=True, llm_int8_skip_modules=keep)
    return {"dtype": torch.bfloat16, "device_map": str(device), "quantization_config": quantisation}


def _read(source: str | Path, read: Any, **options: Any) -> Any:
    """Call a `from_pretrained` quietly; its errors become one sentence."""
    import transformers

    local = local_only(str(source), "Moshi")
    logging: Any = transformers.logging
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        return read(str(source), local_files_only=local, **options)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"Moshi could not be loaded from '{source}': give a folder that holds config.json and its weights in "
            f"transformers' format, or connect once to the model hub that has it."
        ) from error
    finally:
        logging.set_verbosity(level)


def add_lora(model: RQTransformer, rank: int = 8, alpha: int = 16, depth: bool = True) -> RQTransformer:
    """Put adapters into the model and freeze all else; the model is changed and returned.

    rank: r of eq 18; alpha: ΔW is scaled by alpha / rank; depth: adapt the depth transformer, too. The adapters stay
    in float32, so that small steps are not lost. Raises InputError for an impossible rank.
    """
    if rank < 1 or alpha <= 0:
        raise InputError(f"The rank of adapters is at least 1 and alpha positive, not {rank} and {alpha}.")
    _inject(model, _peft_config(model, rank, alpha, depth))
    return model


def _peft_config(model: RQTransformer, rank: int, alpha: int, depth: bool) -> Any:
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise MissingExtraError("Adapting Moshi", "large") from error
    count = len(model.depth_decoder.layers) if depth else 0
    parameters = [f"depth_decoder.layers.{i}.{name}" for i in range(count) for name in _DEPTH]
    return LoraConfig(r=rank, lora_alpha=alpha, target_modules=_TEMPORAL, target_parameters=parameters or None)


def _inject(model: RQTransformer, config: Any) -> None:
    from peft import inject_adapter_in_model

    if any("lora_" in name for name, _ in model.named_parameters()):
        raise InputError("This model has adapters already.")
    inject_adapter_in_model(config, model)
    for name, value in model.named_parameters():
        value.requires_grad_("lora_" in name)
        if "lora_" in name:
            value.data = value.data.float()


def trainable(model: RQTransformer) -> list[torch.nn.Parameter]:
    """The adapters' parameters."""
    return [p for p in model.parameters() if p.requires_grad]


def save_adapter(model: RQTransformer, folder: Path) -> None:
    """Write the adapters alone, in peft's layout; each file is whole or not there."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save

    config = getattr(model, "peft_config", None)
    if not config:
        raise InputError("This model has no adapters to save.")
    folder.mkdir(parents=True, exist_ok=True)
    weights = {n: v.detach().cpu().contiguous() for n, v in get_peft_model_state_dict(model).items()}
    write_whole(folder / WEIGHTS, save(weights, {"format": "pt"}))
    config["default"].save_pretrained(folder)
    facts = {"codec": model.config.codec, "width": model.config.width, "layers": model.config.layers}
    write_whole(folder / FACTS, json.dumps(facts))


def load_adapter(model: RQTransformer, folder: Path, codec: str | None = None, train: bool = False) -> RQTransformer:
    """Put saved adapters into a fresh base; the model is changed and returned.

    Raises InputError if the folder holds none, or one for another codec or another base.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        from peft import LoraConfig, set_peft_model_state_dict
    except ImportError as error:
        raise MissingExtraError("Adapting Moshi", "large") from error
    try:
        facts = json.loads((folder / FACTS).read_text())
        config = LoraConfig.from_pretrained(str(folder))
        weights = load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(f"{folder} does not hold whole adapters.") from error
    codec = codec or model.config.codec
    if codec and facts.get("codec") and codec != facts["codec"]:
        raise InputError(f"The adapters in {folder} were trained on the tokens of another codec than the one in use.")
    if (facts.get("width"), facts.get("layers")) != (model.config.width, model.config.layers):
        raise InputError(f"The adapters in {folder} belong to a model of another size.")
    _inject(model, config)
    found: Any = set_peft_model_state_dict(model, weights)
    if found.unexpected_keys or any("lora_" in n for n in found.missing_keys):
        raise InputError(f"The adapters in {folder} do not fit the model.")
    if not train:
        model.requires_grad_(False)
    return model.eval()
