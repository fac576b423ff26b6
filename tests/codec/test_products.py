import pytest
import torch
from torch.nn import functional as F

from semaphone.codec.products import HALF_ROWS, Product


def exact(*shape):
    return torch.randn(*shape).half().float()


@pytest.mark.parametrize("rows", [1, 2, 7, HALF_ROWS, HALF_ROWS + 1])
@pytest.mark.parametrize("bias", [True, False])
def test_is_the_linear_layer_whatever_the_rows(rows, bias):
    torch.manual_seed(0)
    weight, offset = exact(40, 24), torch.randn(40) if bias else None
    x = torch.randn(1, rows, 24)
    torch.testing.assert_close(Product(weight, offset)(x), F.linear(x, weight, offset), atol=1e-5, rtol=1e-5)


def test_rows_do_not_depend_on_their_neighbours():
    torch.manual_seed(0)
    product, x = Product(exact(40, 24), None), torch.randn(HALF_ROWS, 24)
    apart = torch.cat([product(x[i : i + 1]) for i in range(HALF_ROWS)])
    torch.testing.assert_close(product(x), apart, atol=1e-6, rtol=0)


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
