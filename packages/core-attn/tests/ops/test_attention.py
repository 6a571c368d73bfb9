import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core_attn import attention, use_backend

INF = float("inf")


def make(batch=2, heads=4, k_heads=None, v_heads=None, queries=5, keys=7, dim=6, v_dim=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    shapes = [
        (batch, heads, queries, dim),
        (batch, k_heads or heads, keys, dim),
        (batch, v_heads or heads, keys, v_dim),
    ]
    return [torch.randn(*s, generator=g, dtype=torch.float64).requires_grad_() for s in shapes]


def naive(q, k, v, allowed, bias=0.0, scale=None):
    """One query at a time, over the allowed keys only."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    bias = torch.as_tensor(bias, dtype=q.dtype).expand(allowed.shape)
    out = q.new_zeros(*q.shape[:-1], v.shape[-1])
    for b, h, i in torch.cartesian_prod(*map(torch.arange, q.shape[:-1])).tolist():
        keep = allowed[b, h, i]
        if keep.any():
            scores = scale * k[b, h, keep] @ q[b, h, i] + bias[b, h, i, keep]
            out[b, h, i] = scores.softmax(0) @ v[b, h, keep]
    return out


def full_mask(*shape):
    return torch.ones(*shape, dtype=torch.bool)


@pytest.mark.parametrize("backend", ["reference", "sdpa"])
class TestDefinition:
    def check(self, backend, inputs, expected, **options):
        with use_backend(backend):
            actual = attention(*inputs, **options)
        torch.testing.assert_close(actual, expected)
        leaves = [x for x in (*inputs, options.get("bias")) if x is not None and x.requires_grad]
        cotangent = torch.randn_like(actual)
        for got, want in zip(
            torch.autograd.grad(actual, leaves, cotangent),
            torch.autograd.grad(expected, leaves, cotangent),
            strict=True,
        ):
            torch.testing.assert_close(got, want)

    def test_all_keys(self, backend):
        q, k, v = make()
        self.check(backend, (q, k, v), naive(q, k, v, full_mask(2, 4, 5, 7)))

    def test_scale(self, backend):
        q, k, v = make()
        expected = naive(q, k, v, full_mask(2, 4, 5, 7), scale=1.3)
        self.check(backend, (q, k, v), expected, scale=1.3)

    @pytest.mark.parametrize("queries,keys", [(5, 5), (1, 7), (3, 7), (7, 4)])
    def test_causal_queries_stand_at_the_end_of_the_keys(self, backend, queries, keys):
        q, k, v = make(queries=queries, keys=keys)
        allowed = full_mask(2, 4, queries, keys).tril(keys - queries)
        self.check(backend, (q, k, v), naive(q, k, v, allowed), causal=True)

    @pytest.mark.parametrize("window,left,right", [(1, 1, 1), ((2, 0), 2, 0), ((0, 3), 0, 3)])
    def test_window(self, backend, window, left, right):
        q, k, v = make(queries=7, keys=7)
        allowed = full_mask(2, 4, 7, 7).tril(right).triu(-left)
        self.check(backend, (q, k, v), naive(q, k, v, allowed), window=window)

    def test_lengths_hide_padding_and_an_empty_sequence_gives_zero(self, backend):
        q, k, v = make(batch=3)
        lengths = torch.tensor([7, 0, 4])
        allowed = full_mask(3, 4, 5, 7) & (torch.arange(7) < lengths[:, None, None, None])
        expected = naive(q, k, v, allowed)
        assert expected[1].eq(0).all()
        self.check(backend, (q, k, v), expected, lengths=lengths)

    @pytest.mark.parametrize("shape", [(2, 4, 5, 7), (5, 7), (4, 1, 7), (2, 1, 5, 1), (1,)])
    def test_bias_broadcasts_and_has_a_gradient(self, backend, shape):
        q, k, v = make()
        bias = torch.randn(shape, dtype=torch.float64, requires_grad=True)
        expected = naive(q, k, v, full_mask(2, 4, 5, 7), bias)
        self.check(backend, (q, k, v), expected, bias=bias)

    def test_mask_with_a_blind_query_gives_zero_and_no_nan_gradient(self, backend):
        q, k, v = make()
        mask = torch.rand(2, 1, 5, 7, generator=torch.Generator().manual_seed(1)) > 0.5
        mask[0, 0, 2] = False
        expected = naive(q, k, v, mask.expand(2, 4, 5, 7))
        assert expected[0, :, 2].eq(0).all()
        self.check(backend, (q, k, v), expected, mask=mask)

    def test_everything_at_once(self, backend):
        q, k, v = make(batch=3, heads=4, queries=6, keys=6)
        bias = torch.randn(4, 6, 6, dtype=torch.float64)
        bias[1, 2] = bias[:, 3, 1:] = -INF
        bias.requires_grad_()
        mask = torch.rand(3, 1, 6, 6, generator=torch.Generator().manual_seed(1)) > 0.3
        lengths = torch.tensor([6, 2, 5])
        allowed = mask & (torch.arange(6) < lengths[:, None, None, None])
        allowed = (allowed & full_mask(6, 6).tril(0).triu(-3)) & (bias.detach() > -INF)
        expected = naive(q, k, v, allowed, bias.detach().nan_to_num(neginf=0))
        with use_backend(backend):
            actual = attention(
                q, k, v, bias=bias, mask=mask, lengths=lengths, causal=True, window=3
            )
        torch.testing.assert_close(actual, expected)
        actual.sum().backward()
        assert all(x.grad.isfinite().all() for x in (q, k, v, bias))

    def test_grouped_heads_share_consecutively(self, backend):
        q, k, v = make(k_heads=2, v_heads=1)
        wide_k, wide_v = k.repeat_interleave(2, 1), v.expand(2, 4, 7, 3)
        self.check(backend, (q, k, v), naive(q, wide_k, wide_v, full_mask(2, 4, 5, 7)))

    def test_head_maps_choose_any_head(self, backend):
        q, k, v = make(k_heads=3, v_heads=5)
        expected = naive(q, k[:, [2, 0, 0, 1]], v[:, [4, 4, 1, 3]], full_mask(2, 4, 5, 7))
        self.check(backend, (q, k, v), expected, k_head_map=[2, 0, 0, 1], v_head_map=[4, 4, 1, 3])

    @pytest.mark.parametrize("per_query", [False, True])
    def test_head_gate(self, backend, per_query):
        q, k, v = make()
        gate = torch.randn(2, *([5] if per_query else []), 4, dtype=torch.float64)
        factor = gate.transpose(-1, -2)[..., None] if per_query else gate[..., None, None]
        expected = naive(q, k, v, full_mask(2, 4, 5, 7)) * factor
        self.check(backend, (q, k, v), expected, head_gate=gate)

    @pytest.mark.parametrize("prefix", [(), (2, 3)])
    def test_any_batch_prefix(self, backend, prefix):
        q, k, v = (torch.randn(*prefix, 2, 4, 6, dtype=torch.float64) for _ in range(3))
        lengths = torch.full(prefix, 3)
        flat = [x.reshape(-1, 2, 4, 6) for x in (q, k, v)]
        expected = naive(*flat, full_mask(len(flat[0]), 2, 4, 4).tril() & (torch.arange(4) < 3))
        with use_backend(backend):
            actual = attention(q, k, v, causal=True, lengths=lengths)
        torch.testing.assert_close(actual, expected.reshape(q.shape))

    def test_dropout_keeps_the_mean(self, backend):
        q, k, v = (x.detach() for x in make(batch=1, heads=1, queries=1))
        torch.manual_seed(0)
        many = [x.expand(4000, -1, -1, -1) for x in (q, k, v)]
        with use_backend(backend):
            dropped = attention(*many, dropout=0.3)
        assert dropped.std(0).max() > 0.05
        torch.testing.assert_close(dropped.mean(0), attention(q, k, v)[0], rtol=0.1, atol=0.05)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    def test_low_precision_stays_close(self, backend, dtype):
        q, k, v = (x.detach() for x in make())
        with use_backend(backend):
            low = attention(q.to(dtype), k.to(dtype), v.to(dtype), causal=True)
        assert low.dtype == dtype
        error = (low.double() - attention(q, k, v, causal=True)).abs().max()
        assert error < 16 * torch.finfo(dtype).eps


def test_second_derivatives_with_forbidden_keys():
    q, k, v = make(batch=1, heads=2, queries=3, keys=4, dim=2, v_dim=2)
    bias = torch.randn(2, 3, 4, dtype=torch.float64)
    bias[0, 1, 1:] = -INF
    keep = bias > -INF
    free = bias[keep].requires_grad_()

    def call(q, k, v, free):
        with use_backend("reference"):
            return attention(q, k, v, bias=bias.masked_scatter(keep, free))

    assert torch.autograd.gradcheck(call, (q, k, v, free))
    assert torch.autograd.gradgradcheck(call, (q, k, v, free))


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 100))
def test_the_order_of_keys_does_not_matter(queries, keys, seed):
    q, k, v = make(queries=queries, keys=keys, seed=seed)
    order = torch.randperm(keys, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(attention(q, k, v), attention(q, k[:, :, order], v[:, :, order]))


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 9), st.data())
def test_causal_outputs_ignore_the_future(tokens, data):
    now = data.draw(st.integers(0, tokens - 2))
    q, k, v = make(queries=tokens, keys=tokens)
    past = attention(q, k, v, causal=True)[:, :, : now + 1]
    k2, v2 = k.detach().clone(), v.detach().clone()
    k2[:, :, now + 1 :] = 5.0
    v2[:, :, now + 1 :] = -3.0
    torch.testing.assert_close(past, attention(q, k2, v2, causal=True)[:, :, : now + 1])
