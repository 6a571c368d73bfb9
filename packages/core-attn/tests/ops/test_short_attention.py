from contextlib import nullcontext
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from core_attn import attention, short_attention, use_backend, why


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(
        shape, generator=torch.Generator().manual_seed(seed + sum(shape)), dtype=dtype
    )


def qkv(*shape, dtype=torch.float64):
    return tuple(normal(*shape, seed=seed, dtype=dtype) for seed in range(3))


SIZES = [0, 4, 4, 11, 13, 20]  # five packed problems, one of them empty


@pytest.mark.parametrize("batch", [(), (1,), (2, 3)])
def test_it_is_attention_on_every_problem(batch):
    q, k, v = qkv(*batch, 3, 7, 8)
    bias, gate = normal(3, 7, 7), normal(*batch, 3)
    out = short_attention(q, k, v, bias=bias, head_gate=gate, scale=0.3)
    assert_close(out, attention(q, k, v, bias=bias, head_gate=gate, scale=0.3))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("per_problem", [False, True])
def test_packed_problems_equal_the_same_problems_alone(dtype, per_problem):
    q, k, v = qkv(20, 3, 8, dtype=dtype)
    offsets = torch.tensor(SIZES)
    bias = normal(5, 1, 9, 9, dtype=dtype) if per_problem else normal(3, 9, 9, dtype=dtype)
    mask = normal(5, 3, 9, 9) > -0.5
    gate = normal(5, 3, dtype=dtype) if per_problem else normal(20, 3, dtype=dtype)
    out = short_attention(q, k, v, bias=bias, mask=mask, offsets=offsets, head_gate=gate)
    for problem, (start, end) in enumerate(pairwise(SIZES)):
        if start == end:
            continue
        n = end - start
        alone = attention(
            *(x[start:end].transpose(0, 1) for x in (q, k, v)),
            bias=(bias[problem] if per_problem else bias)[:, :n, :n],
            mask=mask[problem, :, :n, :n],
            head_gate=gate[problem] if per_problem else gate[start:end],
        )
        assert_close(out[start:end].transpose(0, 1), alone)


@pytest.mark.parametrize("sizes", [[0, 0, 1], [0, 1, 1]])
def test_a_gate_per_problem_is_none_per_token_where_there_is_one_token(sizes):
    q, k, v = qkv(1, 3, 8)
    gate = normal(2, 3)
    out = short_attention(q, k, v, offsets=torch.tensor(sizes), head_gate=gate)
    assert_close(out, v * gate[sizes.index(1) - 1, :, None])


@pytest.mark.parametrize("backend", ["reference", "attention", None])
@pytest.mark.parametrize("gate_shape", [(5, 3), (20, 3)])
def test_packed_heads_may_come_first(backend, gate_shape):
    tokens_first = [x.requires_grad_() for x in qkv(20, 3, 8, dtype=torch.float32)]
    options = {
        "offsets": torch.tensor([SIZES, SIZES]).T[:, 0],  # with strides
        "bias": normal(3, 9, 9, dtype=torch.float32),
        "mask": normal(5, 3, 9, 9) > -0.5,
        "head_gate": normal(*gate_shape, dtype=torch.float32),
    }
    expected = short_attention(*tokens_first, **options)
    heads_first = [x.detach().transpose(0, 1).contiguous().requires_grad_() for x in tokens_first]
    with use_backend(backend) if backend else nullcontext():
        out = short_attention(*heads_first, **options)
    assert_close(out.transpose(0, 1), expected)
    cotangent = torch.randn_like(expected)
    ours = torch.autograd.grad(out, heads_first, cotangent.transpose(0, 1))
    wanted = torch.autograd.grad(expected, tokens_first, cotangent)
    for got, want in zip(ours, wanted, strict=True):
        assert_close(got.transpose(0, 1), want)


def test_where_both_layouts_fit_tokens_are_first():
    q, k, v = qkv(4, 4, 8)
    out = short_attention(q, k, v, offsets=torch.tensor([0, 1, 4]))
    assert_close(out[:1], v[:1])
    alone = attention(*(x[1:].transpose(0, 1) for x in (q, k, v)))
    assert_close(out[1:].transpose(0, 1), alone)


@pytest.mark.parametrize("backend", ["attention", "reference"])
def test_gradients_and_second_derivatives_in_float64(backend):
    q, k, v = (x.requires_grad_() for x in qkv(2, 2, 4, 3))
    bias = normal(2, 4, 4)
    bias[:, 2] = -torch.inf  # a query that sees nothing
    bias[1, 3, 1:] = -torch.inf  # a query that sees one key only
    bias.requires_grad_()
    gate = normal(2, 2).requires_grad_()

    def f(q, k, v, bias, gate):
        return short_attention(q, k, v, bias=bias, head_gate=gate)

    with use_backend(backend, "short_attention"):
        assert torch.autograd.gradcheck(f, (q, k, v, bias, gate))
        assert torch.autograd.gradgradcheck(f, (q, k, v, bias, gate))


def test_packed_gradients_and_second_derivatives_in_float64():
    leaves = tuple(x.requires_grad_() for x in (*qkv(6, 2, 3), normal(2, 4, 4), normal(6, 2)))
    offsets = torch.tensor([0, 4, 6])

    def f(q, k, v, bias, gate):
        return short_attention(q, k, v, bias=bias, head_gate=gate, offsets=offsets)

    assert torch.autograd.gradcheck(f, leaves)
    assert torch.autograd.gradgradcheck(f, leaves)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 20), st.integers(2, 20), st.integers(1, 3), st.randoms(use_true_random=False))
def test_the_order_of_the_keys_does_not_matter(queries, keys, heads, random):
    q, k, v = (normal(2, heads, n, 8, dtype=torch.float32) for n in (queries, keys, keys))
    bias, mask = normal(heads, queries, keys, dtype=torch.float32), normal(2, 1, 1, keys) > -1
    order = random.sample(range(keys), keys)
    out = short_attention(q, k, v, bias=bias, mask=mask)
    permuted = short_attention(
        q, k[..., order, :], v[..., order, :], bias=bias[..., order], mask=mask[..., order]
    )
    assert_close(out, permuted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_query_with_no_allowed_key_gives_zero(dtype):
    q, k, v = qkv(2, 2, 5, 8, dtype=dtype)
    mask = torch.ones(2, 1, 5, 5, dtype=torch.bool)
    mask[1, 0, 3] = False
    out = short_attention(q, k, v, mask=mask)
    assert out[1, :, 3].eq(0).all()
    assert out.isfinite().all()


def test_dropout_keeps_the_mean_and_follows_the_seed():
    q, k, v = qkv(2000, 1, 3, 8, dtype=torch.float32)
    v = torch.ones_like(v)
    torch.manual_seed(1)
    once = short_attention(q, k, v, dropout=0.4)
    torch.manual_seed(1)
    assert_close(once, short_attention(q, k, v, dropout=0.4))
    assert_close(once.mean(), torch.tensor(1.0), rtol=0, atol=0.03)
    assert once.std() > 0.1


def test_torch_func_transforms_it():
    q, k, v = qkv(2, 2, 4, 8, dtype=torch.float32)

    def energy(q):
        return short_attention(q, k, v).sin().sum()

    force = torch.func.grad(energy)(q)
    q.requires_grad_()
    assert_close(force, torch.autograd.grad(energy(q), q)[0])
    assert torch.func.jacrev(torch.func.grad(energy))(q.detach()).shape == (*q.shape, *q.shape)


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": normal(20, 2, 1, 8)}, "q must be"),
        ({"q": normal(20, 2, 9)}, "head dim"),
        ({"k": normal(19, 2, 8)}, "k must have shape"),
        ({"v": normal(20, 3, 8)}, "v must have shape"),
        ({"offsets": torch.tensor([0, 7, 5, 20])}, "must not decrease, got 7 before 5"),
        (
            {"offsets": torch.tensor([0, 7, 19])},
            r"from 0 to the 20 tokens of q \(total, heads, dim\), got 0 to 19",
        ),
        ({"offsets": torch.tensor([1, 20])}, "from 0 to the 20 tokens"),
        ({"offsets": torch.tensor([0])}, "shape"),
        ({"bias": normal(2, 5, 5)}, "longest problem has 8"),
        ({"longest": 7}, "longest is 7, but the longest problem has 8"),
        ({"longest": 0}, "longest must be a positive integer, got 0"),
        ({"longest": 9, "bias": normal(2, 8, 8)}, "reach 8 tokens, but longest is 9"),
        ({"offsets": None, "longest": 9}, "longest is for packed problems"),
        ({"bias": normal(3, 8, 8)}, "bias of shape"),
        ({"mask": torch.ones(2, 2, 8, 8, dtype=torch.bool)}, "mask of shape"),
        ({"head_gate": normal(4, 2)}, "head_gate must have shape"),
        ({"scale": float("nan")}, "scale"),
        ({"dropout": 1.0}, "dropout"),
        ({"k": normal(20, 2, 8).float()}, "dtype"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    q, k, v = qkv(20, 2, 8)
    arguments = {"q": q, "k": k, "v": v, "offsets": torch.tensor([0, 5, 13, 20])}
    with pytest.raises(ValueError, match=message):
        short_attention(**{**arguments, **change})


def test_a_bound_of_the_longest_problem_changes_nothing():
    q, k, v = (x.requires_grad_() for x in qkv(20, 2, 8))
    offsets = torch.tensor([0, 5, 13, 20])
    results = []
    for longest in (None, 8, 30):
        out = short_attention(q, k, v, offsets=offsets, longest=longest)
        results.append((out, *torch.autograd.grad(out.square().sum(), (q, k, v))))
    for other in results[1:]:
        for got, want in zip(other, results[0], strict=True):
            assert_close(got, want)


@pytest.mark.refuses
@pytest.mark.parametrize(
    "change", [{"offsets": torch.tensor([0.0, 20.0])}, {"mask": torch.ones(8, 8)}, {"q": [1.0]}]
)
def test_what_is_of_the_wrong_kind_is_named(change):
    q, k, v = qkv(20, 2, 8)
    arguments = {"q": q, "k": k, "v": v, "offsets": torch.tensor([0, 5, 13, 20])}
    with pytest.raises(TypeError, match=next(iter(change))):
        short_attention(**{**arguments, **change})


@pytest.mark.parametrize(
    ("shape", "options", "reason"),
    [
        ((2, 2, 129, 8), {}, "129 tokens"),
        ((2, 2, 1, 8), {}, "1 tokens"),
        ((2, 2, 5, 65), {}, "head dim is 65"),
        ((150, 2, 8), {"offsets": torch.tensor([0, 10, 150])}, "140 tokens"),
    ],
)
def test_what_the_kernel_cannot_do_goes_to_attention_with_a_reason(shape, options, reason):
    choice = why(short_attention, *qkv(*shape, dtype=torch.float32), **options)[0]
    assert choice.backend == "attention"
    assert reason in choice.refused["cpu"]
