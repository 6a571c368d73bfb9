import pytest
import torch

from core_attn import (
    attention,
    attention_lse,
    attention_mean,
    attention_row,
    attention_weights,
)


def make():
    g = torch.Generator().manual_seed(0)
    shapes = (2, 4, 300, 6), (2, 2, 300, 6), (2, 4, 300, 3)
    return [torch.randn(*s, generator=g, dtype=torch.float64).requires_grad_() for s in shapes]


class TestParts:
    options = staticmethod(
        lambda: {
            "bias": torch.randn(4, 300, 300, dtype=torch.float64, requires_grad=True),
            "mask": torch.rand(2, 1, 300, 300) > 0.2,
            "causal": True,
            "window": 90,
            "lengths": torch.tensor([300, 170]),
        }
    )

    def test_weights_times_values_is_attention(self):
        q, k, v = make()
        options = self.options()
        weights = attention_weights(q, k, **options)
        torch.testing.assert_close(weights @ v, attention(q, k, v, **options))

    @pytest.mark.parametrize("row", [0, 17, -1])
    def test_row_is_one_row_of_the_weights(self, row):
        q, k, _ = make()
        options = self.options()
        expected = attention_weights(q, k, **options)[..., row, :]
        actual = attention_row(q, k, row, **options)
        torch.testing.assert_close(actual, expected)
        got, want = (torch.autograd.grad(x[..., 3].sum(), [q, k]) for x in (actual, expected))
        torch.testing.assert_close(got, want)

    @pytest.mark.parametrize("over,axis", [("heads", 1), ("queries", 2)])
    def test_mean_is_the_mean_of_the_weights(self, over, axis):
        q, k, _ = make()
        options = self.options()
        expected = attention_weights(q, k, **options)[..., 1:40].mean(axis)
        actual = attention_mean(q, k, over, keys=slice(1, 40), **options)
        torch.testing.assert_close(actual, expected)
        leaves = [q, k, options["bias"]]
        cotangent = torch.randn_like(actual)
        got, want = (torch.autograd.grad(x, leaves, cotangent) for x in (actual, expected))
        torch.testing.assert_close(got, want)


def test_the_mean_over_no_queries_is_zero():
    q, k = torch.randn(1, 2, 0, 4), torch.randn(1, 2, 3, 4)
    assert attention_mean(q, k, "queries").equal(torch.zeros(1, 2, 3))
    assert attention_mean(q, k, "heads").shape == (1, 0, 3)
    assert attention_mean(k, q, "queries").shape == (1, 2, 0)


@pytest.mark.refuses
def test_what_would_be_ignored_is_refused():
    q, k, v = make()
    gate = torch.ones(2, 4, dtype=torch.float64)
    for call in (
        lambda: attention_weights(q, k, dropout=0.1),
        lambda: attention_row(q, k, 0, head_gate=gate),
        lambda: attention_mean(q, k, "heads", v_head_map=[0, 0, 1, 1]),
        lambda: attention_lse(q, k, v, dropout=0.1),
    ):
        with pytest.raises(
            TypeError, match=r"attention_\w+\(\) got an unexpected keyword argument"
        ):
            call()
