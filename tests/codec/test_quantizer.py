import itertools

import pytest
import torch

from semaphone.codec.quantizer import Codebook, SplitQuantizer, search_paths


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def settled() -> tuple[SplitQuantizer, torch.Tensor]:
    torch.manual_seed(0)
    quantizer, rows = SplitQuantizer(12, 6, 64, 8), torch.randn(2000, 12)
    quantizer.settle(rows, generator())
    return quantizer, rows


def test_each_stage_quantises_what_the_one_before_left():
    quantizer, rows = settled()
    with torch.no_grad():
        tokens = quantizer.encode(rows[None])
        target = quantizer.acoustic_in(rows - quantizer.semantic_out(quantizer.book(0).entries[tokens[0, 0]]))
        kept, errors = torch.zeros_like(target), []
        for k in range(1, 6):
            kept = kept + quantizer.book(k).entries[tokens[0, k]]
            errors.append(float((target - kept).square().mean()))
    assert all(b < 0.8 * a for a, b in itertools.pairwise(errors))


def left(quantizer, rows, tokens):
    """Mean square of what tokens [N_Q, N] leave of rows [N, D] in the space of the acoustic codebooks."""
    target = quantizer.acoustic_in(rows - quantizer.semantic_out(quantizer.book(0).entries[tokens[0]]))
    kept = sum(quantizer.book(k).entries[tokens[k]] for k in range(1, len(tokens)))
    return (target - kept).square().sum(-1)


def test_more_paths_leave_less():
    quantizer, rows = settled()
    with torch.no_grad():
        errors = [float(left(quantizer, rows, quantizer.encode(rows[None], n)[0]).mean()) for n in (1, 2, 4, 8)]
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < 0.9 * errors[0]


def test_all_paths_find_the_best_there_is():
    torch.manual_seed(0)
    quantizer = SplitQuantizer(12, 4, 5, 8)
    rows = torch.randn(20, 12)
    with torch.no_grad():
        found = quantizer.encode(rows[None], 5**3)[0]
        every = [torch.tensor(t)[:, None].expand(-1, 20) for t in itertools.product(range(5), repeat=3)]
        least = torch.stack([left(quantizer, rows, torch.cat([found[:1], t])) for t in every]).amin(0)
        torch.testing.assert_close(left(quantizer, rows, found), least)


def test_a_frozen_search_finds_the_same():
    torch.manual_seed(0)
    quantizer = SplitQuantizer(12, 6, 64, 8)
    with torch.no_grad():
        for k in range(6):
            quantizer.book(k).entries.copy_(quantizer.book(k).entries.half())
        latents = torch.randn(2, 9, 12)
        before = quantizer.encode(latents, 4)
        quantizer.freeze()
        assert torch.equal(quantizer.encode(latents, 4), before)


def test_training_gives_what_decoding_gives():
    torch.manual_seed(0)
    quantizer = SplitQuantizer(12, 6, 16, 8).eval()
    latents = torch.randn(3, 5, 12)
    found = quantizer(latents, torch.tensor([6, 3, 1]), generator())
    assert torch.equal(found.tokens, quantizer.encode(latents))
    for row, depth in enumerate([6, 3, 1]):
        torch.testing.assert_close(found.entries[row], quantizer.entries(found.tokens[row : row + 1, :depth])[0])


def test_endless_codebooks_leave_no_error_but_the_first_ones():
    torch.manual_seed(0)
    quantizer = SplitQuantizer(12, 4, 16, 8).eval()
    latents = torch.randn(2, 5, 12)
    found = quantizer(latents, torch.tensor([5, 4]), generator())
    entry = quantizer.book(0).entries[found.tokens[0, 0]]
    whole = torch.cat([entry, quantizer.acoustic_in(latents[0] - quantizer.semantic_out(entry))], -1)
    torch.testing.assert_close(found.entries[0], whole)
    entry = quantizer.book(0).entries[found.tokens[1, 0]]
    left = quantizer.acoustic_in(latents[1] - quantizer.semantic_out(entry))
    assert not torch.allclose(found.entries[1, :, 8:], left)


def test_gradients_pass_straight_through():
    quantizer = SplitQuantizer(12, 4, 16, 8)
    latents = torch.randn(2, 5, 12, requires_grad=True)
    found = quantizer(latents, torch.tensor([4, 1]), generator())
    quantizer.latents(found.entries).sum().backward()
    assert latents.grad is not None
    assert (latents.grad.abs().sum((1, 2)) > 0).all()


def test_unused_entries_are_placed_on_data():
    torch.manual_seed(0)
    book = Codebook(32, 4)
    book.entries += 100.0  # far from everything
    rows = torch.randn(500, 4)
    for step in range(400):
        book.follow(rows, book.nearest(rows), torch.Generator().manual_seed(step))
    used = book.nearest(rows).unique()
    assert len(used) == 32
    assert float(book.entries.abs().max()) < 6.0


@pytest.mark.parametrize("paths", [1, 4, 100])
def test_a_search_in_tensors_finds_the_same(paths):
    torch.manual_seed(0)
    quantizer, rows = SplitQuantizer(12, 6, 64, 8), torch.randn(300, 8)
    books = [quantizer.book(k) for k in range(1, 6)]
    assert torch.equal(search_paths(rows, books, paths), quantizer._search(rows, paths))
