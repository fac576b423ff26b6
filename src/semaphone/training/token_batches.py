"""Tokens of a whole corpus in a short time: many recordings at once, on a GPU if there is one.

The encoder is causal, so recordings of similar length lie side by side in a batch and what pads the shorter ones at
their end does no harm. Other versions of them (training/versions.py) are made by worker processes, in files that are
read once, while the device encodes.

Layers whose range is known compute in 8 bits as they do in use (codec/products.py), here in whole numbers that
single precision holds, so that tokens are those of the codec in use on any device; the others in single precision.
"""

from __future__ import annotations

import copy
import multiprocessing
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from semaphone.codec.layers import CausalConv, Linear
from semaphone.codec.nano import FRAMES, HOP, NanoModel, NanoSettings, fingerprint
from semaphone.codec.products import Product, Range, rounded, steps
from semaphone.codec.quantizer import Codebook
from semaphone.training.data import Corpus, Recording, open_corpus
from semaphone.training.sources import SAMPLE_RATE
from semaphone.training.tokens import TokenSet, TokenUtterance, token_set
from semaphone.training.versions import write_others
from semaphone.workers import end_with_parent

SECONDS = 1_200.0  # of speech in a batch, with what pads it

Numbered = tuple[int, Recording]
Samples = NDArray[np.float32] | NDArray[np.int16]


class WholeNumbers(Product):
    """A product in 8 bits on any device: its factors are whole numbers, whose sums single precision holds."""

    def __init__(self, weight: Tensor, bias: Tensor | None, met: Range) -> None:
        """Of a weight [out, in]; `met` is the range of what comes in."""
        self.scale, self.zero = steps(met)
        whole, sizes = rounded(weight.detach())
        self.weight, self._size = whole.float(), self.scale * sizes
        self._bias = bias.detach() if bias is not None else torch.zeros_like(sizes)

    def __call__(self, x: Tensor) -> Tensor:
        whole = ((x / self.scale).round() + self.zero).clamp(0, 255) - self.zero
        return torch.addcmul(self._bias, F.linear(whole, self.weight), self._size)


class BatchEncoder:
    """A nano codec's way from speech to tokens on a device."""

    def __init__(
        self,
        model: NanoModel,
        device: torch.device,
        met: Mapping[str, Range] | None = None,
        paths: int = NanoSettings.paths,
    ) -> None:
        """`met` are the ranges of layers that compute in 8 bits, `paths` those of the codebook search."""
        self.device, self.paths = device, paths
        self.chunk = FRAMES * HOP
        self._encoder = copy.deepcopy(model.encoder).eval().requires_grad_(False).to(device)
        self._quantizer = copy.deepcopy(model.quantizer).eval().requires_grad_(False).to(device)
        for prefix, root in (("encoder.", self._encoder), ("quantizer.", self._quantizer)):
            for name, part in root.named_modules():
                if (found := (met or {}).get(prefix + name)) is not None:
                    _in_whole_numbers(part, found)

    @torch.inference_mode()
    def __call__(self, speech: Samples, lengths: Sequence[int]) -> list[NDArray[np.int16]]:
        """Recordings one after another, at the codec's rate → tokens [N_Q, T] of each.

        `speech` are floats in [-1, 1] or 16-bit numbers, `lengths` the samples of the recordings, 1 at least.
        """
        chunks = [-(-n // self.chunk) for n in lengths]
        counts = torch.tensor(chunks, device=self.device)
        latents, _ = self._encoder(self._padded(speech, lengths, max(chunks) * self.chunk))
        real = torch.arange(latents.shape[1], device=self.device) < counts[:, None]
        tokens = self._quantizer.encode(latents[real][None], self.paths)[0]
        found = tokens.short().cpu().numpy()
        return [np.ascontiguousarray(part) for part in np.split(found, np.cumsum(chunks)[:-1], 1)]

    def _padded(self, speech: Samples, lengths: Sequence[int], width: int) -> Tensor:
        """Recordings side by side on the device, [B, width], zeros where they have ended."""
        flat = torch.from_numpy(speech).to(self.device)
        count = torch.tensor(lengths, device=self.device)[:, None]
        at = torch.arange(width, device=self.device)
        x = flat[(count.cumsum(0) - count + at).clamp(max=len(flat) - 1)].float()
        if flat.dtype == torch.int16:
            x = x / 32768.0
        return torch.where(at < count, x, 0.0)


def _in_whole_numbers(part: nn.Module, met: Range) -> None:
    if isinstance(part, Linear):
        part.kept = WholeNumbers(part.weight, part.bias, met)
    elif isinstance(part, CausalConv):
        part.kept = WholeNumbers(part.conv.weight.flatten(1), part.conv.bias, met)
    elif isinstance(part, Codebook):
        part.search = WholeNumbers(part.entries, -0.5 * part.entries.square().sum(1), met)


@contextmanager
def exact_products(device: torch.device) -> Iterator[None]:
    """Products in single precision are not rounded to TF32 on a GPU, as they are not on a CPU."""
    if device.type != "cuda":
        yield
        return
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions


def batched_tokens(
    model: NanoModel,
    cache: Path,
    versions: int,
    device: torch.device,
    workers: int,
    met: Mapping[str, Range] | None = None,
    seconds: float = SECONDS,
) -> list[TokenSet]:
    """Tokens of a corpus cache as it is (version 0) and in `versions` - 1 other versions.

    The codec has 16 kHz as the corpus has; `met` are the ranges of its layers. `workers` processes make the other
    versions.
    """
    corpus, codec = open_corpus(cache), fingerprint(model)
    numbered = [(n, r) for n, r in enumerate(corpus.recordings) if r.length]
    batches = list(_batches(numbered, int(seconds * SAMPLE_RATE)))
    sets: list[dict[int, NDArray[np.int16]]] = [{} for _ in range(versions)]
    with exact_products(device), ExitStack() as stack:
        others = _Others(stack, cache, batches, versions, model.config.sample_rate, workers)
        encoder = BatchEncoder(model, device, met)
        for batch in batches:
            speech = np.concatenate([corpus.audio[r.start : r.start + r.length] for _, r in batch])
            _keep(sets[0], batch, encoder(speech, [r.length for _, r in batch]))
        for version, batch, made, lengths in others:
            _keep(sets[version], batch, encoder(made, lengths))
    return [_in_order(found, corpus, codec, model.config.codebook_size) for found in sets]


def _batches(numbered: list[Numbered], most: int) -> Iterator[list[Numbered]]:
    """Recordings by their length, so many together that they fill at most `most` samples, padding included."""
    batch: list[Numbered] = []
    for n, r in sorted(numbered, key=lambda part: part[1].length):
        if batch and (len(batch) + 1) * r.length > most:
            yield batch
            batch = []
        batch.append((n, r))
    if batch:
        yield batch


def _keep(found: dict[int, NDArray[np.int16]], batch: list[Numbered], tokens: list[NDArray[np.int16]]) -> None:
    found.update({n: part for (n, _), part in zip(batch, tokens, strict=True)})


def _in_order(found: dict[int, NDArray[np.int16]], corpus: Corpus, codec: str, size: int) -> TokenSet:
    names = corpus.recordings
    return token_set(
        codec, size, (TokenUtterance(found[n], None, names[n].file, names[n].group) for n in sorted(found))
    )


class _Others:
    """Versions 1, 2, ... of all batches, made by processes since this object exists; to be gone through once."""

    def __init__(
        self, stack: ExitStack, cache: Path, batches: list[list[Numbered]], versions: int, rate: int, workers: int
    ) -> None:
        self._ordered: list[tuple[int, list[Numbered], Path, Future[list[int]]]] = []
        if versions < 2:
            return
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(workers, context, end_with_parent)
        stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        audio = cache / "audio.i16"
        for version in range(1, versions):
            for i, batch in enumerate(batches):
                target = folder / f"{version}-{i}.f32"
                places = [(n, r.start, r.length) for n, r in batch]
                made = pool.submit(write_others, audio, places, version, rate, target)
                self._ordered.append((version, batch, target, made))

    def __iter__(self) -> Iterator[tuple[int, list[Numbered], NDArray[np.float32], list[int]]]:
        for version, batch, target, made in self._ordered:
            lengths = made.result()
            samples = np.fromfile(target, np.float32)
            target.unlink()
            yield version, batch, samples, lengths
