"""What each module costs: multiply-adds and parameters (LargeSC Table I), counted while the modules run.

    semaphone experiment complexity --out results/ [--codec FILE] [--recovery FILE]

nano's modules in the shape in use, and Mimi and Moshi in Kyutai's published shapes (with weights that mean
nothing: a count depends on shapes alone). Ten seconds go through every module; what is multiplied is counted by
torch as it happens, per second of speech. Attention over a longer past costs more, up to the models' windows.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from semaphone.errors import InputError, MissingExtraError
from semaphone.experiments.terminal import print_table
from semaphone.lines import Lines

if TYPE_CHECKING:
    from torch import Tensor, nn

    from semaphone.codec.base import Codec, CodecInfo
    from semaphone.recovery.rq_transformer import RQTransformer

KEY = ("system", "module")
SECONDS = 10  # of speech that go through every module
# Table I: GFLOP and million parameters, "per one-second speech input".
PAPER = {
    "encoder": (0.476, 39.392),
    "controller": (0.013, 0.517),
    "language model": (2.358, 7690.269),
    "decoder": (0.495, 39.917),
}
PAPER_TOTAL = (3.343, 7770.095)


@dataclass(frozen=True)
class Cost:
    """What a module costs."""

    system: str  # "nano"; "large": Mimi and Moshi
    module: str
    parameters: int  # numbers that were learnt, entries of codebooks in use included
    macs: float  # multiply-adds a second of speech
    chunk_rate: float  # chunks a second
    paper: str = ""  # the row of Table I that it belongs to
    note: str = ""

    @property
    def gflop_a_chunk(self) -> float:
        """With two operations a multiply-add."""
        return 2e-9 * self.macs / self.chunk_rate


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the experiment."""
    parser.add_argument("--codec", default="nano", help="nano or a file of nano weights")
    parser.add_argument(
        "--recovery", metavar="FILE", help="weights of recovery (default: the package's, or their shape without them)"
    )
    parser.add_argument("--no-large", action="store_true", help="leave Mimi and Moshi out")


def run(args: argparse.Namespace) -> int:
    """Count, print the table, write page and picture."""
    from semaphone.commands._progress import progress

    lines = Lines(args.out / "results.jsonl", KEY)
    costs: list[Cost] = []
    with progress() as bar:
        task = bar.add_task("counting", total=None)
        for cost in _costs(args):
            bar.update(task, description=f"{cost.system}, {cost.module}")
            known = lines.get(system=cost.system, module=cost.module)
            if known != asdict(cost):
                lines.add(asdict(cost))
            costs.append(cost)
    _print(costs)
    _page(costs, args)
    print(f"results in {lines.path}, table and figure in {args.out}")
    return 0


def _costs(args: argparse.Namespace) -> Iterator[Cost]:
    from semaphone.codec.registry import load_codec

    codec = load_codec(args.codec)
    name = codec.info.name
    yield from codec_costs(name, codec)
    yield from controller_costs(name, codec.info)
    try:
        yield from recovery_costs(name, _nano_recovery(args.recovery, codec.info), codec.info.frame_rate)
        if not args.no_large:
            yield from large_costs()
    except MissingExtraError as error:
        print(f"left out: {error}")


def counted(call: Callable[[], Any]) -> float:
    """Multiply-adds of everything that is multiplied during a call.

    torch's counter knows matrix products, convolutions and attention; distances and Fourier transforms are added
    here. Element-wise work (norms, activations, sampling) is not counted.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

    def distances(a: Sequence[int], b: Sequence[int], *_: Any, out_shape: Any = None, **__: Any) -> int:
        return 2 * math.prod(a) * b[-2]

    def transform(a: Sequence[int], dims: Sequence[int], *_: Any, out_shape: Any = None, **__: Any) -> int:
        points = max(math.prod(a[d] for d in dims), 2)
        return round(2.5 * math.prod(a) * math.log2(points))  # split radix on real numbers, about

    def attention(
        q: Sequence[int], k: Sequence[int], v: Sequence[int], *_: Any, out_shape: Any = None, **__: Any
    ) -> int:
        return int(sdpa_flop_count(q, k, v))  # type: ignore[no-untyped-call]

    aten = torch.ops.aten
    known: dict[Any, Any] = {aten._cdist_forward: distances, aten._euclidean_dist: distances}
    known |= {aten._fft_r2c: transform, aten._fft_c2r: transform}
    known[aten._scaled_dot_product_flash_attention_for_cpu] = attention
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=known) as counter:
        call()
    return float(counter.get_total_flops()) / 2


def size(*modules: nn.Module | None) -> int:
    """Parameters of modules, shared ones once."""
    found = {id(p): p.numel() for module in modules if module is not None for p in module.parameters()}
    return sum(found.values())


def codec_costs(system: str, codec: Codec) -> Iterator[Cost]:
    """Encoder, quantiser (both ways) and decoder of nano or Mimi."""
    import torch

    info = codec.info
    inner: Any = codec
    chunks = round(SECONDS * info.frame_rate)
    speech = torch.zeros(1, chunks * info.chunk_samples)
    tokens = torch.zeros(1, info.num_codebooks, chunks, dtype=torch.int64)
    for part in (_nano_parts if info.name == "nano" else _mimi_parts)(inner.model, inner, speech, tokens):
        paper = "decoder" if part.name == "decoder" else "encoder"  # the paper's encoder holds the quantiser
        macs = counted(part.call) / SECONDS
        yield Cost(system, part.name, part.parameters, macs, info.frame_rate, paper, part.note)


class _Part(NamedTuple):
    name: str
    parameters: int
    call: Callable[[], Any]
    note: str = ""


def _nano_parts(used: Any, codec: Any, speech: Tensor, tokens: Tensor) -> list[_Part]:
    from semaphone.codec.nano import NanoModel

    # A count depends on shapes alone; in use the same products are made of rounded numbers, which torch does not count.
    model = NanoModel(used.config).eval()
    quantizer = model.quantizer
    latents = model.encoder(speech)[0].detach()
    found = quantizer.entries(tokens).detach()
    entries = codec.info.num_codebooks * codec.info.codebook_size * model.config.codebook_dim
    decoded = quantizer.latents(found).detach()
    return [
        _Part("encoder", size(model.encoder), lambda: model.encoder(speech)),
        _Part(
            "quantiser", size(quantizer) + entries, lambda: _there_and_back(quantizer, latents, codec.settings.paths)
        ),
        _Part("decoder", size(model.decoder), lambda: model.decoder(decoded, found)),
    ]


def _there_and_back(quantizer: Any, latents: Tensor, paths: int) -> Any:
    return quantizer.latents(quantizer.entries(quantizer.encode(latents, paths)))


def _mimi_parts(model: Any, codec: Any, speech: Tensor, tokens: Tensor) -> list[_Part]:
    count, config = codec.info.num_codebooks, model.config
    entries = count * codec.info.codebook_size * config.vector_quantization_hidden_dimension
    encoder = size(model.encoder, model.encoder_transformer, model.downsample)
    decoder = size(model.decoder, model.decoder_transformer, model.upsample)
    latents = codec._latents(speech, None, None)[0].detach()
    note = f"{count} codebooks; the way back is counted with the decoder"
    return [
        _Part("encoder", encoder, lambda: codec._latents(speech, None, None)),
        _Part("quantiser", size(model.quantizer) + entries, lambda: codec._tokens(latents, count), note),
        _Part("decoder", decoder, lambda: codec.decode(tokens)),
    ]


def controller_costs(system: str, info: CodecInfo) -> Iterator[Cost]:
    """The adaptive controller of Fig 2 for the latents of a codec."""
    import torch

    from semaphone.controller.adaptive import ControllerConfig, ControllerModel

    model = ControllerModel(ControllerConfig(info.latent_dim, info.num_codebooks))
    chunks = round(SECONDS * info.frame_rate)
    latents, losses = torch.zeros(1, chunks, info.latent_dim), torch.zeros(1, chunks)
    macs = counted(lambda: model(latents, losses))
    yield Cost(system, "controller", size(model), macs / SECONDS, info.frame_rate, "controller")


def _nano_recovery(path: str | None, info: CodecInfo) -> RQTransformer:
    """The weights that are named, those of the package if they fit the codec, or a model of their shape."""
    import torch

    from semaphone.recovery import rq_weights
    from semaphone.recovery.registry import WEIGHTS
    from semaphone.recovery.rq_config import RQTransformerConfig
    from semaphone.recovery.rq_transformer import RQTransformer

    if path is not None and path.endswith(".safetensors"):
        return rq_weights.load(path, info.fingerprint)
    try:
        return rq_weights.load(WEIGHTS, info.fingerprint)
    except InputError:
        config = RQTransformerConfig(num_codebooks=info.num_codebooks, codebook_size=info.codebook_size)
        with torch.device("meta"):  # a shape without numbers
            return RQTransformer(config).eval()


def recovery_costs(system: str, model: RQTransformer, frame_rate: float) -> Iterator[Cost]:
    """Temporal transformer (once a chunk) and depth transformer (all tokens of a chunk, if all are lost)."""
    import torch

    from semaphone.recovery import depth
    from semaphone.recovery.base import TokenStatus

    device = next(model.parameters()).device
    chunks, config = round(SECONDS * frame_rate), model.config
    tokens = torch.zeros(1, chunks, config.num_codebooks, dtype=torch.int64, device=device)
    status, heard, text = torch.full_like(tokens, TokenStatus.LOST), torch.zeros_like(tokens), tokens[..., 0]
    context = torch.zeros(chunks, config.width, device=device)

    def fill() -> None:
        hidden = model.depth_hidden(context, tokens[0], text[0])
        depth.per_codebook(model.depth_decoder.lm_heads, hidden, 0)

    temporal = counted(lambda: model.contexts(tokens, status, tokens, heard, text)) / SECONDS
    inner = size(model.depth_decoder)
    yield Cost(
        system,
        "temporal transformer",
        size(model) - inner,
        temporal,
        frame_rate,
        "language model",
        f"{SECONDS} s of past; in every chunk",
    )
    yield Cost(
        system,
        "depth transformer",
        inner,
        counted(fill) / SECONDS,
        frame_rate,
        "language model",
        f"all {config.num_codebooks} tokens of a chunk predicted; nothing where none is lost",
    )


def large_costs() -> Iterator[Cost]:
    """Mimi and Moshi as their configurations say. Raises MissingExtraError without transformers."""
    import torch

    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError("Counting Mimi and Moshi", "large") from error
    from semaphone.codec.mimi import MimiCodec
    from semaphone.recovery.rq_transformer import RQTransformer

    library: Any = transformers
    codec = MimiCodec(library.MimiModel(library.MimiConfig()))
    yield from codec_costs("large", codec)
    yield from controller_costs("large", codec.info)
    with torch.device("meta"):  # shapes without numbers: 7.7 billion of them would not fit
        moshi = library.MoshiForConditionalGeneration(library.MoshiConfig())
    model = RQTransformer.from_moshi(moshi, "", (0,) * codec.info.num_codebooks).eval()
    yield from recovery_costs("large", model, codec.info.frame_rate)


# The table.

HEAD = ("system", "module", "parameters (M)", "multiply-adds (G/s)", "GFLOP a chunk", "paper: GFLOPs", "paper: M")


def table_rows(costs: Sequence[Cost]) -> list[tuple[str, ...]]:
    """One row a module with the paper's figures beside, a sum after each system."""
    rows: list[tuple[str, ...]] = []
    for system in dict.fromkeys(cost.system for cost in costs):
        ours = [cost for cost in costs if cost.system == system]
        told: set[str] = set()
        for cost in ours:
            flops, params = PAPER[cost.paper] if cost.paper not in told and system == "large" else (None, None)
            told.add(cost.paper)
            rows.append((system, cost.module, *_figures(cost.parameters, cost.macs, cost.gflop_a_chunk, flops, params)))
        whole = PAPER_TOTAL if system == "large" else (None, None)
        sums = (sum(c.parameters for c in ours), sum(c.macs for c in ours), sum(c.gflop_a_chunk for c in ours))
        rows.append((system, "total", *_figures(*sums, *whole)))
    return rows


def _figures(parameters: int, macs: float, gflop: float, flops: float | None, params: float | None) -> tuple[str, ...]:
    return (
        f"{parameters / 1e6:.3f}",
        f"{macs / 1e9:.4f}",
        f"{gflop:.4f}",
        "" if flops is None else f"{flops:.3f}",
        "" if params is None else f"{params:.3f}",
    )


def _print(costs: Sequence[Cost]) -> None:
    print_table(HEAD, table_rows(costs), left=2, width=130, ends=lambda row: row[1] == "total")


NOTES = (
    "Counted while ten seconds went through every module: matrix products, convolutions, attention, Fourier "
    "transforms and distances from codebook entries; norms and activations are not. The depth transformer is counted "
    "as if every token were lost; where none is, it does not run. Parameters include the codebook entries in use.",
    "Beside the large models stand the paper's figures. Its parameters are those of the published shapes: of encoder "
    "(with the quantiser's projections, without codebooks), controller, decoder, and nearly of Moshi. Its GFLOPs are "
    "said to be for one second of speech. By this count the controller's are; those of encoder and decoder are near to "
    "what one chunk of 80 ms takes; and Moshi's are less than one operation for each parameter, of which every chunk "
    "needs nearly all once.",
)


def _page(costs: Sequence[Cost], args: argparse.Namespace) -> None:
    from semaphone.experiments.page import paragraph, save, table, write_page

    parts = [table(HEAD, table_rows(costs)), *(paragraph(text) for text in NOTES)]
    parts += [paragraph(f"{c.module} ({c.system}): {c.note}.") for c in costs if c.note]
    parts.append(save(_figure(costs), args.out, "complexity"))
    write_page(args.out / "index.html", "Complexity (LargeSC Table I)", parts)


def _figure(costs: Sequence[Cost]) -> Any:
    from matplotlib.figure import Figure

    from semaphone.experiments.pictures import COLOURS

    figure = Figure(figsize=(9.6, 0.36 * len(costs) + 1.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    names = [f"{cost.system}: {cost.module}" for cost in costs]
    colours = [COLOURS[0] if cost.system != "large" else COLOURS[1] for cost in costs]
    for axes, values, title in (
        (left, [cost.macs / 1e6 for cost in costs], "million multiply-adds a second of speech"),
        (right, [cost.parameters / 1e6 for cost in costs], "million parameters"),
    ):
        bars = axes.barh(names, values, color=colours)
        axes.bar_label(
            bars, [f"{value:,.3g}" if value < 1000 else f"{value:,.0f}" for value in values], padding=3, fontsize=8
        )
        axes.set_xscale("log")
        axes.set_xlim(min(values) / 3, max(values) * 12)
        axes.set_xlabel(title)
        axes.grid(axis="x", alpha=0.3)
    left.invert_yaxis()
    return figure
