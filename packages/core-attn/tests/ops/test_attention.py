import subprocess
import sys
from contextlib import nullcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core_attn import (
    attention,
    attention_mean,
    attention_row,
    attention_weights,
    use_backend,
    why,
)
from core_attn.ops._dispatch import constant_in_graphs
from core_attn.ops._short_attention import native

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


OPTIONS = {
    "plain": lambda: {},
    "causal": lambda: {"causal": True},
    "window": lambda: {"window": (3, 1), "scale": 0.7},
    "lengths": lambda: {"lengths": torch.arange(256) % 14},
    "mask and bias": lambda: {
        "mask": torch.rand(256, 1, 11, 13) > 0.6,
        "bias": torch.randn(4, 11, 13, requires_grad=True),
    },
    "maps and gate": lambda: {
        "k_head_map": [1, 0, 1, 1],
        "v_head_map": [0, 0, 1, 0],
        "head_gate": torch.rand(256, 11, 4, requires_grad=True),
    },
}


@pytest.mark.skipif(native.missing() is not None, reason=str(native.missing()))
@pytest.mark.parametrize("case", OPTIONS)
def test_many_problems_of_few_tokens_take_the_short_kernel_and_agree(case):
    torch.manual_seed(0)
    heads = 2 if case == "maps and gate" else 4
    q, k, v = (torch.randn(256, h, t, 8, requires_grad=True) for h, t in
               ((4, 11), (heads, 13), (heads, 13)))  # fmt: skip
    options = OPTIONS[case]()
    assert why(attention, q, k, v, **options)[0].backend == "short"
    with use_backend("reference"):
        expected = attention(q, k, v, **options)
    actual = attention(q, k, v, **options)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
    leaves = [q, k, v, *(x for x in options.values() if getattr(x, "requires_grad", False))]
    cotangent = torch.randn_like(actual)
    for got, want in zip(
        torch.autograd.grad(actual, leaves, cotangent),
        torch.autograd.grad(expected, leaves, cotangent),
        strict=True,
    ):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_a_small_call_is_not_worth_the_short_kernel():
    q = torch.randn(2, 4, 11, 8)
    assert why(attention, q, q, q)[0].backend == "sdpa"


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
        q, k, v = make(queries=300, keys=300, k_heads=2)
        options = self.options()
        weights = attention_weights(q, k, **options)
        torch.testing.assert_close(weights @ v, attention(q, k, v, **options))

    @pytest.mark.parametrize("row", [0, 17, -1])
    def test_row_is_one_row_of_the_weights(self, row):
        q, k, _ = make(queries=300, keys=300, k_heads=2)
        options = self.options()
        expected = attention_weights(q, k, **options)[..., row, :]
        actual = attention_row(q, k, row, **options)
        torch.testing.assert_close(actual, expected)
        got, want = (torch.autograd.grad(x[..., 3].sum(), [q, k]) for x in (actual, expected))
        torch.testing.assert_close(got, want)

    @pytest.mark.parametrize("over,axis", [("heads", 1), ("queries", 2)])
    def test_mean_is_the_mean_of_the_weights(self, over, axis):
        q, k, _ = make(queries=300, keys=300, k_heads=2)
        options = self.options()
        expected = attention_weights(q, k, **options)[..., 1:40].mean(axis)
        actual = attention_mean(q, k, over, keys=slice(1, 40), **options)
        torch.testing.assert_close(actual, expected)
        leaves = [q, k, options["bias"]]
        cotangent = torch.randn_like(actual)
        got, want = (torch.autograd.grad(x, leaves, cotangent) for x in (actual, expected))
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("backend", ["reference", "sdpa", None])
def test_compiles_and_exports_without_a_graph_break(backend):
    q, k, v = (x.detach().float() for x in make(queries=7))
    mask = torch.rand(2, 1, 7, 7) > 0.3

    class Module(torch.nn.Module):
        def forward(self, q, k, v):
            return attention(q, k, v, mask=mask, causal=True)

    with use_backend(backend) if backend else nullcontext():
        expected = Module()(q, k, v)
        compiled = torch.compile(Module(), fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(q, k, v), expected)
        exported = torch.export.export(Module(), (q, k, v)).module()
        torch.testing.assert_close(exported(q, k, v), expected)


def test_importing_does_not_wait_for_dynamo():
    code = "import sys, core_attn; sys.exit('torch._dynamo' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    ours, theirs = (lambda: 0), (lambda: 0)
    constant_in_graphs(ours)
    torch.compiler.assume_constant_result(theirs)
    assert vars(ours) == vars(theirs) != {}


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


def test_mixed_dtypes_under_autocast_as_after_rotary_positions():
    q, k, v = torch.randn(3, 2, 2, 5, 8).bfloat16().unbind(0)
    turn = torch.randn(5, 8)  # q and k become float32, v stays
    with torch.autocast("cpu", torch.bfloat16):
        out = attention(q * turn, k * turn, v, head_gate=torch.rand(2, 2))
        assert out.dtype == torch.bfloat16
        exact = attention(q.double(), k.double(), v.double())
    assert exact.dtype == torch.float64  # as torch's own attention
    with pytest.raises(ValueError, match="v has dtype torch.bfloat16 but q has torch.float32"):
        attention(q * turn, k * turn, v)


@pytest.mark.parametrize("batch", [2, 512])
def test_autocast_and_derivatives_do_not_depend_on_the_batch(batch):
    q = torch.randn(batch, 8, 20, 16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert attention(q, q, q).dtype == torch.bfloat16
    small = q[:2].detach().requires_grad_()
    seconds = []
    for x in (q, small):

        def derive(x=x):
            (first,) = torch.autograd.grad(attention(x, x, x).sum(), x, create_graph=True)
            seconds.append(torch.autograd.grad(first.square().sum(), x)[0])

        choices = why(derive)
    torch.testing.assert_close(seconds[0][:2], seconds[1], rtol=1e-3, atol=1e-4)
    assert choices[-1].backend == "reference" and "second derivative" in str(choices[-1])


def test_second_derivatives_of_one_tensor_in_three_places():
    x = torch.randn(2, 2, 5, 8, requires_grad=True)
    found = []
    for backend in ("sdpa", "reference"):
        with use_backend(backend):
            (first,) = torch.autograd.grad(attention(x, x, x).sin().sum(), x, create_graph=True)
            found.append([first, *torch.autograd.grad(first.square().sum(), x)])
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_vmap_over_lengths():
    q, lengths = torch.randn(5, 2, 9, 8), torch.arange(1, 6)
    out = torch.func.vmap(
        lambda x, n: attention(x[None], x[None], x[None], lengths=n[None])[0]
    )(q, lengths)  # fmt: skip
    torch.testing.assert_close(out, attention(q, q, q, lengths=lengths))


def test_heads_in_groups_are_not_laid_out_for_decoding():
    q, k, v = torch.randn(2, 8, 1, 16), torch.randn(2, 2, 9, 16), torch.randn(2, 2, 9, 16)
    with torch.profiler.profile(record_shapes=True) as profile:
        out = attention(q, k, v, causal=True)
    large = [e for e in profile.events() if e.name in ("aten::index", "aten::copy_")]
    assert not [e for e in large if [2, 8, 9, 16] in e.input_shapes]
    with use_backend("reference"):
        torch.testing.assert_close(out, attention(q, k, v))


def test_the_mean_over_no_queries_is_zero():
    q, k = torch.randn(1, 2, 0, 4), torch.randn(1, 2, 3, 4)
    assert attention_mean(q, k, "queries").equal(torch.zeros(1, 2, 3))
    assert attention_mean(q, k, "heads").shape == (1, 0, 3)
    assert attention_mean(k, q, "queries").shape == (1, 2, 0)
