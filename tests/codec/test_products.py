import pytest
import torch
from torch.nn import functional as F

from semaphone.codec.products import TOP, Product, rounded, steps


def exact(*shape):
    return torch.randn(*shape).half().float()


@pytest.mark.parametrize("rows", [1, 2, 7, 33])
@pytest.mark.parametrize("bias", [True, False])
def test_is_the_linear_layer_whatever_the_rows(rows, bias):
    torch.manual_seed(0)
    weight, offset = exact(40, 24), torch.randn(40) if bias else None
    x = torch.randn(1, rows, 24)
    torch.testing.assert_close(Product(weight, offset)(x), F.linear(x, weight, offset), atol=1e-5, rtol=1e-5)


def test_rows_do_not_depend_on_their_neighbours():
    torch.manual_seed(0)
    product, x = Product(exact(40, 24), None), torch.randn(77, 24)
    assert torch.equal(product(x), torch.cat([product(x[i : i + 1]) for i in range(77)]))


def test_weights_that_half_precision_would_change_stay_whole():
    torch.manual_seed(0)
    assert Product(torch.randn(4, 3), None).half is None
    assert Product(exact(4, 3).double(), None).half is None
    weight, x = 1e-3 * torch.randn(4, 3), torch.randn(2, 3)
    torch.testing.assert_close(Product(weight, None)(x), x @ weight.T)


def test_works_where_there_is_no_such_product(monkeypatch):
    monkeypatch.setattr("semaphone.codec.products._engines", lambda: ["none"])
    torch.manual_seed(0)
    weight, x = exact(4, 3), torch.randn(2, 3)
    product = Product(weight, None)
    assert product.half is None
    torch.testing.assert_close(product(x), x @ weight.T)


def whole_numbers(weight, bias, x, met):
    """What a product in 8 bits is, in whole numbers."""
    size, zero = steps(met)
    inputs = (x.double() / size + zero).round().clamp(0, 255) - zero
    numbers, sizes = rounded(weight)
    return inputs @ numbers.double().T * sizes.double() * size + bias


@pytest.mark.parametrize("rows", [1, 16, 33])
@pytest.mark.parametrize("met", [(-4.0, 5.0), (0.0, 3.0), (-0.17, 9.0)])
def test_in_8_bits_it_is_the_product_of_rounded_numbers(rows, met):
    torch.manual_seed(0)
    weight, bias = torch.randn(40, 24), torch.randn(40)
    x = torch.empty(1, rows, 24).uniform_(*met)
    made = Product(weight, bias, met)
    assert made.weight.dtype == torch.int8
    torch.testing.assert_close(made(x).double(), whole_numbers(weight, bias, x, met), atol=1e-4, rtol=1e-5)
    assert (made(x) - F.linear(x, weight, bias)).norm() < 0.03 * F.linear(x, weight, bias).norm()


def test_in_8_bits_rows_depend_on_nothing_but_themselves():
    torch.manual_seed(0)
    product, x = Product(torch.randn(40, 24), None, (-3.0, 3.0)), torch.randn(77, 24)
    assert torch.equal(product(x), torch.cat([product(x[i : i + 1]) for i in range(77)]))


def test_in_8_bits_the_largest_sums_do_not_run_over():
    weight = torch.tensor([[1.0, 1.0, -1.0, -1.0] * 200])
    x = torch.tensor([[1.0, 1.0, 0.0, 0.0] * 200])
    made = Product(weight, torch.zeros(1), (0.0, 1.0))
    assert made.weight.max() == TOP
    torch.testing.assert_close(made(x), x @ weight.T, rtol=1e-3, atol=0)


def test_what_lies_outside_the_range_is_cut_off():
    made = Product(torch.eye(3), None, (-1.0, 1.0))
    torch.testing.assert_close(
        made(torch.tensor([[9.0, -9.0, 0.0]])), torch.tensor([[1.0, -1.0, 0.0]]), atol=0.01, rtol=0
    )


def test_nothing_stays_nothing():
    assert steps((0.0, 0.0))[1] == 0
    assert not Product(torch.zeros(4, 3), None, (0.0, 0.0))(torch.ones(2, 3)).any()
    assert not Product(torch.randn(4, 3), None, (-3.1, 4.3))(torch.zeros(2, 3)).any()


def test_a_range_changes_nothing_where_there_are_no_such_products(monkeypatch):
    monkeypatch.setattr("semaphone.codec.products._engines", lambda: ["none"])
    weight, x = torch.randn(4, 3), torch.randn(2, 3)
    torch.testing.assert_close(Product(weight, None, (-1.0, 1.0))(x), x @ weight.T)
    assert Product(torch.randn(4, 3).double(), None, (-1.0, 1.0)).weight.dtype == torch.float64
