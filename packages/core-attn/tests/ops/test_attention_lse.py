import pytest
import torch
from torch.testing import assert_close

from core_attn import attention, attention_lse, attention_weights, why


def qkv(queries=5, keys=9, heads=(4, 2), dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    shapes = (2, heads[0], queries, 6), (2, heads[1], keys, 6), (2, heads[1], keys, 7)
    return [torch.randn(x, generator=generator, dtype=dtype).requires_grad_() for x in shapes]


def test_it_is_attention_and_what_the_weights_were_divided_by():
    q, k, v = qkv()
    out, lse = attention_lse(q, k, v, causal=True)
    assert_close(out, attention(q, k, v, causal=True))
    scores = q @ k.repeat_interleave(2, 1).mT / 6**0.5
    weights = attention_weights(q, k, causal=True)
    seen = weights > 0
    assert_close((scores - lse[..., None]).exp()[seen], weights[seen])


def test_parts_of_the_keys_add_up_with_their_gradients():
    q, k, v = qkv(dtype=torch.float32)
    whole = attention(q, k, v)
    cut = (slice(4), slice(4, 5), slice(5, None))
    parts = [attention_lse(q, k[..., at, :], v[..., at, :]) for at in cut]
    out, lse = (torch.stack(x) for x in zip(*parts, strict=True))
    merged = (out * lse.softmax(0)[..., None]).sum(0)
    assert_close(merged, whole, rtol=1e-5, atol=1e-6)
    cotangent = torch.randn_like(whole)
    for got, want in zip(
        torch.autograd.grad(merged, (q, k, v), cotangent),
        torch.autograd.grad(whole, (q, k, v), cotangent),
        strict=True,
    ):
        assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_a_query_that_sees_nothing_has_the_logarithm_of_nothing():
    q, k, v = qkv()
    out, lse = attention_lse(q, k, v, lengths=torch.tensor([0, 9]))
    assert (lse[0] == -torch.inf).all()
    assert (out[0] == 0).all()
    assert lse[1].isfinite().all()
    grads = torch.autograd.grad(out.sum() + lse[1].sum(), (q, k, v))
    assert all(x.isfinite().all() for x in grads)
    bias = torch.zeros(5, 1).index_fill(0, torch.tensor(2), -torch.inf)
    _, lse = attention_lse(q, k, v, bias=bias)
    (grad,) = torch.autograd.grad(lse.masked_fill(lse == -torch.inf, 0).sum(), q)
    assert grad.isfinite().all() and (grad[:, :, 2] == 0).all()
    _, (_, tangent) = torch.func.jvp(lambda q: attention_lse(q, k, v, bias=bias), (q,), (q,))
    assert tangent.isfinite().all()


def test_gradients():
    inputs = qkv(queries=3, keys=4, heads=(2, 1))
    assert torch.autograd.gradcheck(lambda *x: attention_lse(*x, causal=True), inputs)


def test_half_precision_keeps_the_logarithms_wide():
    q, k, v = qkv(dtype=torch.bfloat16)
    out, lse = attention_lse(q, k, v)
    assert (out.dtype, lse.dtype) == (torch.bfloat16, torch.float32)


@pytest.mark.refuses
def test_what_it_does_not_take_is_refused():
    q, k, v = qkv()
    with pytest.raises(ValueError, match="lengths"):
        attention_lse(q, k, v, lengths=torch.tensor([0, 10]))
    assert why(attention_lse, q, k, v)[0].backend == "reference"
