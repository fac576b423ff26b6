"""Split residual vector quantisation (LargeSC eqs 2-3; the split as in Mimi).

Codebook 1 quantises a projection of the latent on its own, so that it can be taught meaning; the
others quantise, stage by stage, what it left. Codebooks follow their data by exponential moving
averages; entries that nothing uses are placed anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from semaphone.codec.layers import Linear
from semaphone.codec.products import Product, Range

SLICE = 512  # rows that are searched at a time
WIDE = 16_384  # the same where there is a GPU


@dataclass(frozen=True)
class Quantized:
    """What quantising latents [B, T, D] gives; C is the width of a codebook entry."""

    entries: Tensor  # [B, T, 2 C], as `SplitQuantizer.entries` gives them, gradients passed straight through
    tokens: Tensor  # [B, N_Q, T] int64
    semantic: Tensor  # [B, T, C], the quantised projection of codebook 1, gradients passed straight through
    commitment: Tensor  # scalar, mean squared distance from the entries, summed over codebooks


class Codebook(nn.Module):
    """K entries of width C with the running statistics that move them."""

    entries: Tensor
    count: Tensor
    total: Tensor

    def __init__(self, size: int, width: int, decay: float = 0.99, least: float = 0.2) -> None:
        super().__init__()
        self.decay, self.least = decay, least
        self.search: Product | None = None
        self.register_buffer("entries", torch.randn(size, width) / width**0.5)
        self.register_buffer("count", torch.ones(size))
        self.register_buffer("total", self.entries.clone())

    def nearest(self, x: Tensor) -> Tensor:
        """Index of the entry nearest to each row of x [..., C]."""
        return self.gain(x).argmax(-1)

    def gain(self, x: Tensor) -> Tensor:
        """Rows x [..., C] → by how much each entry would lower half of their square [..., K]."""
        return self.search(x) if self.search is not None else x @ self.entries.T - self._norms()

    def _norms(self) -> Tensor:
        return 0.5 * self.entries.square().sum(1)

    def freeze(self, met: Range | None = None) -> None:
        """The entries move no more: keep what is asked of them with every token; `met` is the range of the rows."""
        self.search = Product(self.entries, -self._norms(), met)

    @torch.no_grad()
    def follow(self, x: Tensor, index: Tensor, generator: torch.Generator) -> None:
        """Move the entries towards rows x [N, C] that chose them [N]; place unused ones on random rows."""
        chosen = torch.zeros_like(self.count).index_add_(0, index, torch.ones_like(x[:, 0]))
        summed = torch.zeros_like(self.total).index_add_(0, index, x)
        self.count.lerp_(chosen, 1 - self.decay)
        self.total.lerp_(summed, 1 - self.decay)
        # Without a question to the device: every entry gets a row, those in use keep their own statistics.
        dead = self.count < self.least * (1 - self.decay)
        rows = x[torch.randint(len(x), (len(dead),), generator=generator, device=x.device)]
        self.count.masked_fill_(dead, 1 - self.decay)
        self.total.copy_(torch.where(dead[:, None], rows * (1 - self.decay), self.total))
        self.entries.copy_(self.total / self.count.clamp(min=1e-8)[:, None])

    @torch.no_grad()
    def settle(self, x: Tensor, generator: torch.Generator, rounds: int = 8) -> None:
        """Place the entries by k-means on rows x [N, C]."""
        size = len(self.count)
        order = torch.randperm(len(x), generator=generator, device=x.device)
        self.entries.copy_(x[order[torch.arange(size, device=x.device) % len(x)]])
        for _ in range(rounds):
            index = self.nearest(x)
            chosen = torch.zeros_like(self.count).index_add_(0, index, torch.ones_like(x[:, 0]))
            summed = torch.zeros_like(self.total).index_add_(0, index, x)
            used = chosen > 0
            self.entries[used] = summed[used] / chosen[used][:, None]
        share = chosen / len(x)
        self.count.copy_((share * 256).clamp(min=1 - self.decay))
        self.total.copy_(self.entries * self.count[:, None])


class SplitQuantizer(nn.Module):
    """Latents [B, T, D] ⇄ tokens [B, N_Q, T]."""

    def __init__(self, dim: int, num_codebooks: int, size: int, width: int) -> None:
        super().__init__()
        self.num_codebooks, self.size = num_codebooks, size
        self.table: Tensor | None = None  # the entries of all codebooks, one after another
        self.codebooks = nn.ModuleList(Codebook(size, width) for _ in range(num_codebooks))
        self.semantic_in = Linear(dim, width)
        self.semantic_out = Linear(width, dim, bias=False)
        self.acoustic_in = Linear(dim, width)
        self.acoustic_out = Linear(width, dim, bias=False)
        # Two subspaces that do not meet where there is room for both; each way out undoes the way in.
        frame = nn.init.orthogonal_(torch.empty(max(dim, 2 * width), dim))
        self.project(frame[:width], frame[width : 2 * width])

    @torch.no_grad()
    def project(self, semantic: Tensor, acoustic: Tensor) -> None:
        """Sets the ways into the codebooks, [C, D] each with orthonormal rows, and the ways out that undo them."""
        self.semantic_in.weight.copy_(semantic)
        self.semantic_out.weight.copy_(semantic.T)
        self.acoustic_in.weight.copy_(acoustic)
        self.acoustic_out.weight.copy_(acoustic.T)
        nn.init.zeros_(self.semantic_in.bias)
        nn.init.zeros_(self.acoustic_in.bias)

    def book(self, k: int) -> Codebook:
        """Codebook k, counted from 0 (the semantic one)."""
        book = self.codebooks[k]
        assert isinstance(book, Codebook)
        return book

    def freeze(self, met: Range | None = None) -> None:
        """The entries move no more: keep them side by side. Codebooks have ranges of their own."""
        self.table = self._table()
        for k, entries in enumerate(torch.split(self.table, self.size)):
            self.book(k).entries = entries  # the same numbers: one copy is enough

    def encode(self, latents: Tensor, paths: int = 1) -> Tensor:
        """Latents [B, T, D] → tokens [B, N_Q, T].

        Of the acoustic codebooks the `paths` best beginnings are kept from stage to stage instead of one (an
        M-algorithm): what is nearest at first leaves more for the later ones than its neighbours often do.
        """
        semantic = self.book(0).nearest(self.semantic_in(latents))
        if self.num_codebooks == 1:
            return semantic[:, None]
        rest = self.acoustic_in(latents - self.semantic_out(self.book(0).entries[semantic]))
        found = [self._search(part, paths) for part in rest.flatten(0, 1).split(SLICE if rest.is_cpu else WIDE)]
        acoustic = torch.cat(found).reshape(*rest.shape[:2], -1)
        return torch.cat([semantic[:, None], acoustic.transpose(1, 2)], 1)

    def _search(self, x: Tensor, paths: int) -> Tensor:
        """Rows x [N, C] → tokens of the acoustic codebooks [N, N_Q - 1].

        Between the products it works on numpy arrays, whose small steps cost a fraction of a tensor's.
        """
        if not x.is_cpu:
            return search_paths(x, [self.book(k) for k in range(1, self.num_codebooks)], paths)
        rows = np.arange(len(x))
        rest = x.detach().numpy()[:, None]  # [N, M, C]
        total = np.zeros((len(x), 1), np.float32)  # [N, M]: by how much each path lowered half the square
        steps: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
        for k in range(1, self.num_codebooks):
            gain = self.book(k).gain(torch.from_numpy(rest)).numpy() + total[..., None]
            total, best = _largest(gain.reshape(len(x), -1), paths)
            path, token = np.divmod(best, self.size)
            rest = rest[rows[:, None], path] - self.book(k).entries.numpy()[token]
            steps.append((path, token))
        at, tokens = np.zeros(len(x), np.int64), []  # from the best end back to the beginning
        for path, token in reversed(steps):
            tokens.append(token[rows, at])
            at = path[rows, at]
        return torch.from_numpy(np.stack(tokens[::-1], 1))

    def entries(self, tokens: Tensor, weight: Tensor | None = None, more: Tensor | None = None) -> Tensor:
        """Tokens [B, K, T], weight [B, K, T] or None → semantic entry beside the sum of acoustic ones [B, T, 2 C].

        more [B, K, T, C]: what is added to each token's.
        """
        table = self.table if self.table is not None else self._table()
        shift = torch.arange(0, tokens.shape[1] * self.size, self.size, device=tokens.device)
        parts = table[tokens + shift[:, None]]  # [B, K, T, C]
        if weight is not None:
            parts = parts * weight[..., None].to(parts.dtype)
        if more is not None:
            parts = parts + more.to(parts.dtype)
        # Summed one by one, so that codebooks of weight 0 change nothing, not even a rounding.
        acoustic = parts[:, 1:].cumsum(1)[:, -1] if tokens.shape[1] > 1 else torch.zeros_like(parts[:, 0])
        return torch.cat([parts[:, 0], acoustic], -1)

    def _table(self) -> Tensor:
        return torch.cat([self.book(k).entries for k in range(self.num_codebooks)])

    def latents(self, entries: Tensor) -> Tensor:
        """What `entries` gives → quantised latents [B, T, D] (eq 3)."""
        semantic, acoustic = entries.chunk(2, -1)
        quantised: Tensor = self.semantic_out(semantic) + self.acoustic_out(acoustic)
        return quantised

    def decode(self, tokens: Tensor, weight: Tensor | None = None) -> Tensor:
        """Tokens [B, K, T], weight [B, K, T] or None → latents [B, T, D] (eq 3)."""
        return self.latents(self.entries(tokens, weight))

    def forward(self, latents: Tensor, depth: Tensor, generator: torch.Generator) -> Quantized:
        """One training pass; `depth` [B] says how many leading codebooks each stream keeps.

        A depth beyond the last codebook stands for endless codebooks: what the first one left comes out unquantised.
        Directions finer than the codebooks resolve are learnt there, until they are worth a codebook's while.
        """
        semantic = self.semantic_in(latents)
        index = self.book(0).nearest(semantic)
        entry = self.book(0).entries[index]
        self._follow(0, semantic, index, generator)
        commitment = (semantic - entry).square().mean()
        semantic_st = semantic + (entry - semantic).detach()
        acoustic = self.acoustic_in(latents - self.semantic_out(entry).detach())
        rest, kept, tokens = acoustic, torch.zeros_like(acoustic), [index]
        for k in range(1, self.num_codebooks):
            index = self.book(k).nearest(rest)
            entry = self.book(k).entries[index]
            self._follow(k, rest, index, generator)
            uses = (depth > k)[:, None, None].to(rest.dtype)
            commitment = commitment + ((rest - entry).square() * uses).mean()
            kept, rest = kept + uses * entry, rest - entry
            tokens.append(index)
        kept = torch.where((depth > self.num_codebooks)[:, None, None], acoustic, kept)
        acoustic_st = acoustic + (kept - acoustic).detach()
        entries = torch.cat([semantic_st, acoustic_st * (depth > 1)[:, None, None].to(acoustic.dtype)], -1)
        return Quantized(entries, torch.stack(tokens, 1), semantic_st, commitment)

    def _follow(self, k: int, x: Tensor, index: Tensor, generator: torch.Generator) -> None:
        if self.training:
            rows = x.detach().reshape(-1, x.shape[-1])
            self.book(k).follow(rows, index.reshape(-1), generator)

    @torch.no_grad()
    def settle(self, latents: Tensor, generator: torch.Generator) -> None:
        """Place all codebooks by k-means on latents [N, D]."""
        semantic = self.semantic_in(latents)
        self.book(0).settle(semantic, generator)
        found = self.book(0).entries[self.book(0).nearest(semantic)]
        rest = self.acoustic_in(latents - self.semantic_out(found))
        for k in range(1, self.num_codebooks):
            self.book(k).settle(rest, generator)
            rest = rest - self.book(k).entries[self.book(k).nearest(rest)]


@torch.no_grad()
def search_paths(x: Tensor, books: Sequence[Codebook], paths: int) -> Tensor:
    """Rows x [N, C] → tokens of residual codebooks [N, len(books)], on any device.

    The same as `SplitQuantizer._search` up to ties: the `paths` best beginnings go from stage to stage.
    """
    rest, total = x[:, None], x.new_zeros(len(x), 1)  # [N, M, C], [N, M]
    tokens = torch.zeros(len(x), 1, 0, dtype=torch.int64, device=x.device)  # [N, M, codebooks so far]
    for book in books:
        gain = book.gain(rest) + total[..., None]
        size = gain.shape[2]
        gain = gain.flatten(1)
        total, best = gain.topk(min(paths, gain.shape[1]), 1)
        path, token = torch.div(best, size, rounding_mode="floor")[..., None], best % size
        rest = rest.gather(1, path.expand(-1, -1, rest.shape[2])) - book.entries[token]
        tokens = torch.cat([tokens.gather(1, path.expand(-1, -1, tokens.shape[2])), token[..., None]], 2)
    return tokens[:, 0]


def _largest(x: NDArray[np.float32], count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The largest numbers of each row [N, L] and their places, the largest first: [N, count]; x is used up.

    One after the other: for a few that is quicker than any partial sort.
    """
    rows, count = np.arange(len(x)), min(count, x.shape[1])
    values, places = np.empty((len(x), count), np.float32), np.empty((len(x), count), np.int64)
    for j in range(count):
        at = x.argmax(1)
        places[:, j], values[:, j] = at, x[rows, at]
        x[rows, at] = -np.inf
    return values, places
