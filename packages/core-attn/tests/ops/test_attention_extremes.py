from contextlib import nullcontext

import pytest
import torch

from core_attn import attention, use_backend
from core_attn.ops._short_attention import native

INF = float("inf")


@pytest.mark.parametrize("scale", [-0.5, 0.0])
@pytest.mark.parametrize("options", [{"causal": True}, {"window": (1, 0)}, {}])
@pytest.mark.parametrize("batch", [2, 300])
def test_a_scale_that_is_not_positive(scale, options, batch):
    q = torch.randn(batch, 4, 20, 16)
    with use_backend("reference"):
        expected = attention(q, q, q, scale=scale, **options)
    torch.testing.assert_close(attention(q, q, q, scale=scale, **options), expected)


@pytest.mark.parametrize("backend", ["short", "sdpa", None])
@pytest.mark.parametrize("extreme", [torch.finfo(torch.float32).min, -1e38, 1e38])
def test_a_finite_bias_forbids_nothing(backend, extreme):
    if backend == "short" and native.missing() is not None:
        pytest.skip(str(native.missing()))
    q, k, v = torch.randn(3, 4, 8, 20, 16).unbind(0)
    for shared in (True, False):
        bias = torch.zeros(1 if shared else 4, 1, 20, 20)
        bias[0, :, 3] = extreme
        bias[0, :, 4, 2:] = extreme
        bias[0, :, 5] = -INF
        bias[0, :, 5, 1] = extreme
        with use_backend("reference"):
            expected = attention(q, k, v, bias=bias)
        with use_backend(backend) if backend else nullcontext():
            torch.testing.assert_close(attention(q, k, v, bias=bias), expected)


def test_a_wide_bias_stays_wide_beside_narrow_tensors():
    bias = torch.zeros(5, 5)
    bias[1] = torch.finfo(torch.float32).min
    for dtype, grads in ((torch.float16, False), (torch.bfloat16, False), (torch.bfloat16, True)):
        q, k, v = torch.randn(3, 2, 2, 5, 8).to(dtype).unbind(0)
        with use_backend("reference"):
            expected = attention(q, k, v, bias=bias)
        out = attention(q, k, v, bias=bias.clone().requires_grad_(grads))
        torch.testing.assert_close(out.float(), expected.float(), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("tokens", [7, 17])
def test_a_bias_of_float32_beside_float64(tokens):
    q, k, v = torch.randn(3, 1, 2, tokens, 8, dtype=torch.float64).unbind(0)
    bias = torch.randn(tokens, tokens)
    expected = attention(q, k, v, bias=bias.double())
    torch.testing.assert_close(attention(q, k, v, bias=bias), expected)
    torch.testing.assert_close(attention(q, k, v, bias=bias.requires_grad_()), expected)


@pytest.mark.parametrize("backend", ["reference", "sdpa", "short"])
@pytest.mark.parametrize("junk", [torch.nan, INF, -INF, 1e38])
def test_what_padding_holds_reaches_nothing(backend, junk):
    if backend == "short" and native.missing() is not None:
        pytest.skip(str(native.missing()))
    tensors = [x.contiguous() for x in torch.randn(3, 3, 2, 20, 16).unbind(0)]
    bias, lengths = torch.randn(3, 1, 20, 20), torch.tensor([17, 0, 20])
    results = []
    for fill in (0.0, junk):
        q, k, v, b = leaves = [x.clone() for x in (*tensors, bias)]
        for n, stop in enumerate(lengths):
            k[n, :, stop:] = v[n, :, stop:] = b[n, :, :, stop:] = fill
        for x in leaves:
            x.requires_grad_()
        with use_backend(backend):
            out = attention(q, k, v, bias=b, lengths=lengths)
        results.append([out, *torch.autograd.grad(out.sin().sum(), leaves)])
    for clean, other in zip(*results, strict=True):
        torch.testing.assert_close(other, clean)
    assert not results[0][0][1].any()
