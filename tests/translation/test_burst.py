"""The linear part of the channel code: variances over time, powers, spreading and the estimate."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from semaphone.translation import burst

WIDTH = 6
VARIANCE = torch.tensor([0.4, 0.25, 0.15, 0.1, 0.07, 0.03])


def slow(count: int, n: int, keep: float = 0.9, seed: int = 0) -> torch.Tensor:
    """Components [count, n, WIDTH] of unit variance that remember `keep` of the row before."""
    noise = torch.randn(n, count, WIDTH, generator=torch.Generator().manual_seed(seed))
    rows = [noise[0]]
    for fresh in noise[1:]:
        rows.append(keep * rows[-1] + (1 - keep**2) ** 0.5 * fresh)
    return torch.stack(rows, 1)


def memory(lags: int, keep: float = 0.9) -> torch.Tensor:
    return (keep ** torch.arange(lags))[:, None].expand(-1, WIDTH)


@given(st.integers(1, 3000), st.integers(1, 64))
def test_blocks_are_all_rows_and_none_is_too_long(rows, longest):
    sizes = burst.blocks_of(rows, longest)
    assert sum(sizes) == rows
    assert max(sizes) <= longest
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("n", [1, 2, 7, 48])
def test_cosines_are_orthonormal(n):
    torch.testing.assert_close(burst.cosines(n) @ burst.cosines(n).T, torch.eye(n), atol=1e-5, rtol=0)


@pytest.mark.parametrize("n", [1, 5, 20])
def test_spectrum_is_what_coefficients_have(n):
    expected = burst.spectrum(memory(20), n)
    found = (burst.cosines(n) @ slow(20_000, n)).square().mean(0)
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0.05)
    torch.testing.assert_close(expected.sum(0), torch.full((WIDTH,), float(n)), atol=0.02, rtol=0)


@given(st.floats(-20, 30), st.integers(1, 40), st.integers(0, 1000))
def test_no_other_powers_are_better(snr, count, seed):
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(count, generator=generator).sort(descending=True).values + 1e-4
    noise = burst.noise_of(torch.tensor([snr]))
    best = burst.powers(weights, torch.tensor([count / 2.0]), noise)[0]
    assert float(best.sum()) == pytest.approx(count / 2.0, rel=1e-4)
    assert float(best.min()) >= 0
    other = best * (0.5 + torch.rand(count, generator=generator)) + 0.01
    other = other * (best.sum() / other.sum())

    def error(power: torch.Tensor) -> float:
        return float((weights * noise / (noise + power)).sum())

    assert error(best) <= error(other) * (1 + 1e-5)


@pytest.mark.parametrize("symbols", [2, 3, 12])  # fewer parts than coefficients, as many, more
@pytest.mark.parametrize("n", [1, 7])
def test_without_noise_what_was_sent_comes_back(n, symbols):
    snr = torch.tensor([70.0, 60.0])
    way = burst.plan(VARIANCE, memory(8), n, symbols, snr)
    components = slow(2, n)
    parts = burst.spread(components, way)
    assert parts.shape == (2, n * 2 * symbols)
    back, quality = burst.gather(parts, torch.ones_like(parts), burst.noise_of(snr), way)
    error = (burst.cosines(n) @ (back - components)).flatten(1)
    assert float(error[:, way.order].abs().max()) < 0.01
    assert len(way.order) == min(n * WIDTH, n * 2 * symbols)
    assert bool(((quality >= 0) & (quality <= 1)).all())


def test_real_parts_have_half_a_mean_power():
    way = burst.plan(VARIANCE, memory(16), 16, 4, torch.tensor([-5.0]).expand(2000))
    assert float(burst.spread(slow(2000, 16), way).square().mean()) == pytest.approx(0.5, rel=0.05)


def test_the_estimate_is_the_linear_least_mean_square_one():
    """Against the textbook's formula for the whole block at once, over fading."""
    n, symbols, snr = 5, 4, torch.tensor([1.0])
    way = burst.plan(VARIANCE, memory(8), n, symbols, snr)
    noise = burst.noise_of(snr)
    basis = torch.eye(n * WIDTH).view(-1, n, WIDTH)
    mixing = burst.spread(basis, burst.plan(VARIANCE, memory(8), n, symbols, snr.expand(n * WIDTH))).T
    fades = torch.rand(n * 2 * symbols, generator=torch.Generator().manual_seed(1)) * 2
    seen = mixing * fades[:, None]
    prior = burst.cosines(n).T @ torch.diag_embed(burst.spectrum(memory(8), n).T) @ burst.cosines(n)
    covariance = torch.block_diag(*prior)  # [D · n, D · n], component by component
    swap = torch.arange(n * WIDTH).view(n, WIDTH).T.flatten()
    covariance = covariance[swap.argsort()][:, swap.argsort()]
    y = torch.randn(n * 2 * symbols, generator=torch.Generator().manual_seed(2))
    textbook = covariance @ seen.T @ torch.linalg.solve(seen @ covariance @ seen.T + noise * torch.eye(len(y)), y)
    ours, _ = burst.gather(y[None], fades[None], noise, way)
    torch.testing.assert_close(ours.flatten(), textbook, atol=1e-3, rtol=1e-3)


def test_rows_that_resemble_each_other_are_sent_better_together():
    snr, components = torch.full((400,), -3.0), slow(400, 16)
    errors = []
    for lags in (1, 16):
        n = min(16, lags)
        blocks = components.view(-1, n, WIDTH)
        many = snr[:1].expand(len(blocks))
        way = burst.plan(VARIANCE, memory(lags), n, 3, many)
        parts = burst.spread(blocks, way)
        noise = burst.noise_of(many)
        heard = parts + torch.randn(parts.shape, generator=torch.Generator().manual_seed(3)) * noise.sqrt()[:, None]
        back, _ = burst.gather(heard, torch.ones_like(heard), noise, way)
        errors.append(float(((back - blocks).square() @ VARIANCE).mean()))
    assert errors[1] < 0.7 * errors[0]


def test_a_fade_takes_nothing_away_whole():
    """A quarter of the symbols lost: every coefficient that was sent is still there in part."""
    snr = torch.tensor([30.0])
    way = burst.plan(VARIANCE, memory(8), 8, 16, snr)
    components = slow(1, 8)
    parts = burst.spread(components, way)
    fades = torch.ones_like(parts)
    fades[:, 64:128] = 0.0
    back, _ = burst.gather(parts * fades, fades, burst.noise_of(snr), way)
    assert float((back - components).square().mean()) < 0.02


def test_training_can_use_what_a_talk_made_before():
    with torch.inference_mode():
        burst.spread(slow(1, 9), burst.plan(VARIANCE, memory(9), 9, 3, torch.tensor([1.0])))
    components = slow(1, 9).requires_grad_()
    way = burst.plan(VARIANCE, memory(9), 9, 3, torch.tensor([1.0]))
    burst.spread(components, way).square().sum().backward()
    assert components.grad is not None
    assert bool((components.grad != 0).any())
