import pytest
import torch
from torch import nn
from torch.testing import assert_close

from core_attn import short_attention, use_backend, why
from core_attn.ops._short_attention import native

needs_kernel = pytest.mark.skipif(native.missing() is not None, reason=f"{native.missing()}")
ARGUMENTS = ("q", "k", "v", "bias", "head_gate")


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def seen(*shape):
    return normal(*shape, seed=9) > -0.5


def forbidding(bias):
    """A bias where one query sees nothing and another a single key."""
    bias[..., 2, :] = -torch.inf
    bias[..., 1, 1:] = -torch.inf
    return bias


def blind(mask):
    mask[..., 1, :] = False
    return mask


def padded(batch, heads, queries, keys, dim, v_dim, **more):
    return {
        "q": normal(*batch, heads, queries, dim),
        "k": normal(*batch, heads, keys, dim, seed=1),
        "v": normal(*batch, heads, keys, v_dim, seed=2),
        **more,
    }


def packed(heads, dim, **more):
    offsets = torch.tensor([0, 4, 4, 21, 23, 40])
    shape = (40, heads, dim)
    return {"q": normal(*shape), "k": normal(*shape, seed=1), "v": normal(*shape, seed=2),
            "offsets": offsets, **more}  # fmt: skip


def head_split(batch, tokens, heads, dim):
    """q, k and v as views of one projection, as a layer has them."""
    views = normal(batch, tokens, 3, heads, dim).unbind(2)
    return dict(zip("qkv", (x.transpose(1, 2) for x in views), strict=True))


CALLS = {
    "plain": padded((3,), 2, 39, 39, 32, 32),
    "one problem, one head": padded((1,), 1, 2, 2, 8, 8),
    "largest": padded((1,), 2, 128, 128, 64, 64),
    "cross, odd dims": padded((2, 3), 2, 7, 13, 20, 11),
    "few keys": padded((2,), 2, 19, 3, 8, 16, bias=normal(2, 19, 3), mask=seen(2, 1, 19, 3)),
    "bias shared": padded((5,), 3, 18, 18, 16, 16, bias=forbidding(normal(3, 18, 18))),
    "bias shared by heads too": padded((5,), 3, 9, 9, 16, 16, bias=normal(9, 9)),
    "bias per problem": padded((3,), 2, 17, 10, 8, 8, bias=forbidding(normal(3, 1, 17, 10))),
    "bias per key": padded((2, 2), 2, 5, 9, 8, 8, bias=normal(2, 1, 1, 1, 9)),
    "mask": padded((3,), 2, 11, 19, 8, 24, mask=blind(seen(3, 2, 11, 19))),
    "mask per key": padded((3,), 2, 11, 19, 8, 8, mask=seen(3, 1, 1, 19)),
    "mask of windows": padded((2, 4), 2, 9, 9, 8, 8, bias=normal(2, 9, 9), mask=seen(4, 1, 9, 9)),
    "gate per head": padded((3,), 2, 11, 12, 8, 8, head_gate=normal(3, 2)),
    "gate per query": padded(
        (3,), 2, 11, 12, 8, 8, head_gate=normal(3, 11, 2), bias=normal(3, 2, 11, 12)
    ),
    "head split": head_split(2, 21, 3, 16),
    "columns apart": {name: normal(2, 3, 16, 9, seed=seed).mT for seed, name in enumerate("qkv")},
    "far rows": head_split(2, 21, 7, 24),
    "packed": packed(2, 16),
    "packed, bias shared": packed(2, 24, bias=normal(2, 19, 19), head_gate=normal(40, 2)),
    "packed, all per problem": packed(
        3, 8, bias=normal(5, 1, 17, 17), mask=seen(5, 1, 17, 17), head_gate=normal(5, 3)
    ),
}


def twice(call, dtype):
    """Output, gradients, and the gradients of a combination of the gradients."""
    call = {name: x.detach().to(dtype) if x.is_floating_point() else x for name, x in call.items()}
    leaves = [call[name].requires_grad_() for name in ARGUMENTS if name in call]
    out = short_attention(**call)
    grad = normal(*out.shape, seed=5).to(dtype).requires_grad_()
    grads = torch.autograd.grad(out, leaves, grad, create_graph=True)
    along = [normal(*x.shape, seed=6).to(dtype) for x in grads]
    return [out, *grads, *torch.autograd.grad(grads, [grad, *leaves], along)]


@needs_kernel
@pytest.mark.parametrize("name", CALLS)
def test_the_kernel_and_its_two_derivatives_agree_with_the_reference(name):
    assert why(short_attention, **CALLS[name])[0].backend == "cpu"
    ours = twice(CALLS[name], torch.float32)
    with use_backend("reference"):
        exact = twice(CALLS[name], torch.float64)
    for x, y in zip(ours, exact, strict=True):
        assert_close(x.double(), y, rtol=1e-5, atol=1e-5 * max(1.0, float(y.detach().abs().max())))


@needs_kernel
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_floats_are_computed_in_float32(dtype):
    call = padded((3,), 2, 9, 9, 16, 16, bias=normal(2, 9, 9), head_gate=normal(3, 2))
    half = {name: x.to(dtype).requires_grad_() for name, x in call.items()}
    assert why(short_attention, **half)[0].backend == "cpu"
    out = short_attention(**half)
    exact = short_attention(**{name: x.detach().double() for name, x in half.items()})
    assert out.dtype == dtype
    assert_close(out, exact.to(dtype))
    grads = torch.autograd.grad(out.sum(), list(half.values()))
    assert [x.dtype for x in grads] == [dtype] * 5


@needs_kernel
def test_large_scores_neither_overflow_nor_lose_the_largest():
    q, k, v = (normal(2, 2, 9, 8, seed=seed) for seed in range(3))
    for scale in (1e4, -1e4, 1e-20):
        out = short_attention(q, k, v, scale=scale)
        exact = short_attention(q.double(), k.double(), v.double(), scale=scale)
        assert_close(out.double(), exact, rtol=1e-4, atol=1e-3)


@needs_kernel
def test_a_nan_is_not_hidden():
    q, k, v = (normal(2, 2, 9, 8, seed=seed) for seed in range(3))
    q[0, 0, 3] = torch.nan
    out = short_attention(q, k, v)
    assert out[0, 0, 3].isnan().all()
    assert out.isnan().sum() == 8


@needs_kernel
def test_the_output_of_a_head_split_merges_as_a_view():
    call = head_split(2, 21, 3, 16)
    out = short_attention(**call)
    assert out.transpose(1, 2).is_contiguous()


@needs_kernel
@pytest.mark.parametrize("name", ["bias shared", "packed, bias shared", "mask of windows"])
@pytest.mark.parametrize("openmp", [True, False])
def test_the_number_of_threads_changes_no_bit(name, openmp, monkeypatch):
    if not openmp:
        monkeypatch.setattr("core_attn.native._parallel", lambda: None)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(twice(CALLS[name], torch.float32))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for x, y in zip(results[0], other, strict=True):
            assert torch.equal(x, y)


class Block(nn.Module):
    def forward(self, q, k, v, bias, offsets=None):
        return short_attention(q, k, v, bias=bias, offsets=offsets).sin()


@pytest.mark.traces
@needs_kernel
def test_compile_gives_the_same_values_and_gradients():
    block = Block()
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    call = [normal(3, 2, 9, 8, seed=seed).requires_grad_() for seed in range(3)]
    bias = normal(2, 9, 9).requires_grad_()
    for f in (block, compiled):
        out = f(*call, bias)
        results = (out, *torch.autograd.grad(out.sum(), [*call, bias]))
        if f is block:
            expected = results
    assert_close(results, expected)


@pytest.mark.traces
@needs_kernel
def test_compile_takes_packed_problems_of_any_number():
    compiled = torch.compile(Block(), fullgraph=True, backend="aot_eager", dynamic=True)
    for sizes in ([3, 4, 2], [5, 2, 9, 3]):
        offsets = torch.tensor([0, *sizes]).cumsum(0)
        q, k, v = (normal(sum(sizes), 2, 8, seed=seed) for seed in range(3))
        assert_close(compiled(q, k, v, None, offsets), Block()(q, k, v, None, offsets))


@pytest.mark.traces
@needs_kernel
@pytest.mark.parametrize("ends", [[0, 9, 41], [0, 9, 39], [1, 9, 40], [0, 41, 40], [0, 30, 40]])
def test_offsets_that_a_graph_has_not_read_are_checked_by_the_kernel(ends):
    compiled = torch.compile(Block(), fullgraph=True, backend="aot_eager")
    q, k, v = (normal(40, 2, 8, seed=seed) for seed in range(3))
    with pytest.raises(ValueError, match="offsets must rise from 0"):
        compiled(q, k, v, normal(19, 19), torch.tensor(ends))


@pytest.mark.traces
@needs_kernel
@pytest.mark.parametrize("shape", [(1, 1), (2, 1, 1), (4, 1, 1, 1)])
def test_a_bias_alike_for_all_tokens_needs_no_longest_in_a_graph(shape):
    compiled = torch.compile(Block(), fullgraph=True, backend="aot_eager")
    q, k, v = (normal(40, 2, 8, seed=seed) for seed in range(3))
    bias, offsets = normal(*shape).requires_grad_(), torch.tensor([0, 9, 28, 28, 40])
    assert_close(compiled(q, k, v, bias, offsets), Block()(q, k, v, bias, offsets))
    (found,) = torch.autograd.grad(compiled(q, k, v, bias, offsets).square().sum(), bias)
    assert found.abs().max() < 1e-4  # the softmax does not see it


@needs_kernel
def test_an_export_has_a_free_batch_and_no_operator_of_ours():
    arguments = (*(normal(3, 2, 9, 8, seed=seed) for seed in range(3)), normal(2, 9, 9))
    batch = torch.export.Dim("batch", min=2)
    shapes = ({0: batch}, {0: batch}, {0: batch}, None)
    exported = torch.export.export(Block(), arguments, dynamic_shapes=shapes)
    assert "core_attn" not in str(exported.graph)
    more = (*(normal(5, 2, 9, 8, seed=seed) for seed in range(3)), normal(2, 9, 9))
    assert_close(exported.module()(*more), Block()(*more))


@needs_kernel
def test_torch_library_finds_the_operators_well_formed():
    q, k, v = (normal(3, 2, 9, 8, seed=seed).requires_grad_() for seed in range(3))
    bias, gate = normal(1, 2, 9, 9).requires_grad_(), normal(3, 2, 1).requires_grad_()
    seed = torch.tensor([7])
    arguments = (q, k, v, bias, None, gate, None, seed, 0.3, 0.25)
    torch.library.opcheck(torch.ops.core_attn.short_attention.default, arguments)
    grad = normal(3, 2, 9, 8).requires_grad_()
    backward = torch.ops.core_attn.short_attention_backward.default
    torch.library.opcheck(backward, (grad, *arguments, True),
                          test_utils=("test_schema", "test_faketensor"))  # fmt: skip


@needs_kernel
def test_autocast_casts_at_the_door_and_the_kernel_computes_in_float32():
    q, k, v = (normal(3, 2, 9, 8, seed=seed) for seed in range(3))
    with torch.autocast("cpu", torch.bfloat16):
        half = short_attention(q, k, v)
    assert half.dtype == torch.bfloat16
    exact = short_attention(*(x.bfloat16().float() for x in (q, k, v)))
    assert_close(half, exact.bfloat16(), rtol=0, atol=0)


@pytest.fixture
def fresh_kernel(monkeypatch, tmp_path):
    """Lets the next call look for a compiler again, with an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CORE_ATTN_NATIVE", "source")
    native.KERNEL.__dict__.pop("_loaded", None)
    yield monkeypatch
    native.KERNEL.__dict__.pop("_loaded", None)


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("CORE_ATTN_NATIVE", "0", "CORE_ATTN_NATIVE=0"),
        ("CC", "no-such-compiler", "no C compiler 'no-such-compiler'"),
        ("CC", "false", "compiling the kernel failed"),
    ],
)
def test_without_a_compiler_attention_takes_over_and_stays_twice_differentiable(
    variable, value, reason, fresh_kernel
):
    fresh_kernel.setenv(variable, value)
    call = CALLS["bias shared"]
    choices = why(short_attention, **call)
    assert choices[0].backend == "attention"
    assert reason in choices[0].refused["cpu"]
    ours = twice(call, torch.float32)
    exact = twice(call, torch.float64)
    for x, y in zip(ours, exact, strict=True):
        assert_close(x.double(), y, rtol=1e-4, atol=1e-4)


def dropped(call, weights, rate):
    """`short_attention` by its definition, with weights dropped where the kernel drops them."""
    batch = call["q"].shape[:-3]
    ones = torch.eye(weights.shape[-1]).expand(*batch, weights.shape[-3], -1, -1).contiguous()
    torch.manual_seed(3)
    kept = short_attention(**call | {"v": ones}, dropout=rate) != 0
    return (weights * kept / (1 - rate)) @ call["v"].double(), kept


@needs_kernel
@pytest.mark.parametrize("shape", [((3,), 2, 39, 39, 32, 32), ((4,), 3, 7, 9, 16, 12)])
def test_dropped_weights_are_the_same_in_all_derivatives(shape):
    call, rate = padded(*shape), 0.4
    leaves = [call[name].requires_grad_() for name in "qkv"]
    assert why(short_attention, **call, dropout=rate)[0].backend == "cpu"
    scores = call["q"].double() @ call["k"].double().mT / shape[4] ** 0.5
    exact, kept = dropped(call, scores.softmax(-1), rate)
    torch.manual_seed(3)
    out = short_attention(**call, dropout=rate)
    assert_close(out.double(), exact, rtol=1e-5, atol=1e-5)
    assert abs(kept.float().mean() - (1 - rate)) < 0.1
    results = []
    for y in (out, exact):
        grad = normal(*y.shape, seed=5).to(y.dtype).requires_grad_()
        grads = torch.autograd.grad(y, leaves, grad, create_graph=True)
        along = [normal(*x.shape, seed=6) for x in grads]
        results.append([*grads, *torch.autograd.grad(grads, [grad, *leaves], along)])
    for ours, other in zip(*results, strict=True):
        assert_close(ours, other.to(ours.dtype), rtol=1e-4, atol=1e-4)


@needs_kernel
def test_dropped_weights_are_independent_of_threads_and_spread_evenly():
    q, k, v = (torch.zeros(2000, 2, 9, 9) for _ in range(3))
    v += torch.eye(9)
    draws = []
    for threads in (1, 2):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        draws.append(short_attention(q, k, v, dropout=0.25))
        torch.set_num_threads(before)
    assert torch.equal(*draws)
    kept = (draws[0] != 0).double()
    assert (kept.mean(0) - 0.75).abs().max() < 0.05  # five deviations of a mean of 2,000
    apart = (kept - kept.mean(0)).flatten(1)
    correlation = (apart.T @ apart / len(apart)) / (0.75 * 0.25)
    assert (correlation - correlation.diag().diag()).abs().max() < 0.12  # five of 26,000 pairs
    assert not torch.equal(kept[0], kept[1])


@pytest.mark.traces
@needs_kernel
def test_dropout_compiles():
    q, k, v = (normal(64, 2, 9, 8, seed=seed).requires_grad_() for seed in range(3))
    compiled = torch.compile(
        lambda q, k, v: short_attention(q, k, v, dropout=0.5), fullgraph=True, backend="aot_eager"
    )
    out = compiled(q, k, v)
    assert not torch.equal(out, compiled(q, k, v))
    assert torch.autograd.grad(out.sum(), q)[0].isfinite().all()
