"""dropout: its rate, its derivatives, its draws."""

import pytest
import torch
from torch.func import jvp, vmap

from core_attn import Dropout, attention, dropout, use_backend, why
from core_attn.ops._along_tokens import native

needs_kernel = pytest.mark.skipif(native.missing() is not None, reason=str(native.missing()))
CPU = pytest.param("cpu", marks=needs_kernel)


@pytest.mark.parametrize("backend", [CPU, "reference"])
@pytest.mark.parametrize("p", [0.05, 0.5, 0.9])
def test_drops_at_the_rate_and_keeps_the_mean(backend, p):
    torch.manual_seed(0)
    with use_backend(backend):
        out = dropout(torch.ones(50, 20_011), p)
    kept = out != 0
    assert out[kept].unique().tolist() == pytest.approx([1 / (1 - p)])
    spread = (p * (1 - p)) ** 0.5
    assert abs(1 - kept.float().mean() - p) < 5 * spread / 1000
    rows, columns = kept.float().mean(1), kept.float().mean(0)
    assert rows.std() == pytest.approx(spread / 20_011**0.5, rel=0.5)
    assert columns.std() == pytest.approx(spread / 50**0.5, rel=0.05)


@needs_kernel
def test_neighbors_far_and_near_are_independent():
    torch.manual_seed(1)
    out = dropout(torch.ones(1 << 20), 0.5) - 1
    for lag in (1, 2, 16, 64, 1 << 14, 1 << 15):  # parts of 2^14 have keys of their own
        assert abs((out[lag:] * out[:-lag]).mean()) < 5e-3, lag


@needs_kernel
def test_other_calls_draw_anew_and_a_seed_repeats_them():
    x = torch.ones(1000)
    torch.manual_seed(3)
    first, second = dropout(x, 0.5), dropout(x, 0.5)
    torch.manual_seed(3)
    assert dropout(x, 0.5).equal(first)
    assert 350 < (first != second).sum() < 650


@needs_kernel
def test_any_number_of_threads_draws_the_same():
    x, threads = torch.randn(100_001), torch.get_num_threads()
    torch.manual_seed(0)
    one = dropout(x, 0.3)
    try:
        torch.set_num_threads(3)
        torch.manual_seed(0)
        assert dropout(x, 0.3).equal(one)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("backend", [CPU, "reference"])
def test_every_derivative_drops_the_same(backend):
    torch.manual_seed(0)
    x = torch.randn(7, 33, 65, requires_grad=True)
    with use_backend(backend):
        out = dropout(x.transpose(0, 1), 0.4)
    factor = (out != 0) / 0.6
    torch.testing.assert_close(out, x.transpose(0, 1) * factor)
    weight = torch.randn_like(out, requires_grad=True)
    (grad,) = torch.autograd.grad(out, x, weight, create_graph=True)
    torch.testing.assert_close(grad, (weight * factor).transpose(0, 1))
    (second,) = torch.autograd.grad(grad.square().sum(), weight)
    torch.testing.assert_close(second, 2 * weight * factor**2)


def test_dtypes_are_kept_and_float64_is_exact():
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        out = dropout(torch.full((100,), 3.0, dtype=dtype), 0.25)
        assert out.dtype == dtype and set(out.tolist()) <= {0.0, 4.0}


def test_nothing_is_drawn_where_nothing_is_dropped():
    x, before = torch.randn(3), torch.get_rng_state()
    assert dropout(x, 0.0) is x and dropout(x, 0.5, training=False) is x
    assert Dropout(0.5).eval()(x) is x
    assert torch.get_rng_state().equal(before)
    assert dropout(torch.ones(0, 4), 0.5).shape == (0, 4)


@pytest.mark.traces
def test_under_transforms_and_compilers_torch_drops():
    x = torch.ones(4, 100)
    out = vmap(lambda row: dropout(row, 0.5), randomness="different")(x)
    assert set(out.unique().tolist()) == {0.0, 2.0} and not out[0].equal(out[1])
    out, tangent = jvp(lambda x: dropout(x, 0.5), (x,), (x,))
    assert out.equal(tangent)
    compiled = torch.compile(lambda x: dropout(x, 0.5), backend="aot_eager", fullgraph=True)
    assert set(compiled(x).unique().tolist()) == {0.0, 2.0}


@pytest.mark.refuses
def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"dropout must be in \[0, 1\), got 1.0"):
        dropout(torch.ones(3), 1.0)
    with pytest.raises(TypeError, match="x must be a torch.Tensor, got list"):
        dropout([1.0], 0.5)
    with pytest.raises(TypeError, match="x must be float64, float32, bfloat16 or float16"):
        dropout(torch.ones(3, dtype=torch.int64), 0.5)


@needs_kernel
def test_attention_that_drops_on_a_cpu_draws_fast():
    q = torch.randn(1, 2, 200, 8)
    chosen = why(attention, q, q, q, dropout=0.1, causal=True)
    assert [(x.operator, x.backend) for x in chosen] == [
        ("attention", "reference"), ("dropout", "cpu"),
    ]  # fmt: skip
    assert "no kernel that drops weights" in chosen[0].refused["sdpa"]
