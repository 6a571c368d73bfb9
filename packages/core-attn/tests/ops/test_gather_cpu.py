"""The C kernel of lists, clusters and windows beside the reference in float64."""

import pytest
import torch

from core_attn import cluster_attention, gather_attention, neighborhood_attention, use_backend, why
from core_attn.ops._gather_attention import native

pytestmark = pytest.mark.skipif(native.missing() is not None, reason=str(native.missing()))

WINDOWS = {
    "strided blocks": ((4, 8), {"halo": 1, "block": 4, "stride": 2}),
    "ragged blocks": ((5, 4), {"halo": 1, "block": 3}),
    "kernel 5x3": ((7, 6), {"halo": (2, 1)}),
    "strided pixels": ((5, 4), {"halo": 1, "stride": 2}),
    "dilated blocks": ((8,), {"halo": 1, "block": 2, "dilation": 2}),
    "space": ((3, 2, 4), {"halo": 1, "block": (1, 2, 2)}),
    "halo": ((16, 8), {"halo": 3, "block": 8}),
    "single": ((1,), {"halo": 0}),
}


def draw(*shape, seed=0):
    g = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=g).requires_grad_()


def per_axis(x, grid):
    return (x,) * len(grid) if isinstance(x, int) else x


def assert_like_reference(operator, tensors, **options):
    """Output and gradients, relative to the largest entry."""
    floats = {n: x for n, x in options.items() if torch.is_tensor(x) and x.requires_grad}
    tables = options.get("relative") or ()
    leaves = [*tensors, *floats.values(), *tables]
    results = []
    for backend, dtype in (("cpu", torch.float32), ("reference", torch.float64)):
        cast = {id(x): x.detach().to(dtype).requires_grad_() for x in leaves}
        given = options | {n: cast[id(x)] for n, x in floats.items()}
        if tables:
            given["relative"] = tuple(cast[id(x)] for x in tables)
        with use_backend(backend):
            out = operator(*(cast[id(x)] for x in tensors), **given)
        cotangent = torch.linspace(-1, 1, out.numel(), dtype=dtype).view(out.shape)
        results.append([out, *torch.autograd.grad(out, list(cast.values()), cotangent)])
    for got, want in zip(*results, strict=True):
        error = float((got - want).detach().abs().max())
        assert error <= 1e-5 * max(1.0, float(want.detach().abs().max()))


@pytest.mark.parametrize("mask_padding", [False, True])
@pytest.mark.parametrize("name", WINDOWS)
def test_windows(name, mask_padding):
    grid, options = WINDOWS[name]
    strides = per_axis(options.get("stride", 1), grid)
    queries = torch.tensor([-(-n // s) for n, s in zip(grid, strides, strict=True)]).prod().item()
    keys = torch.tensor(grid).prod().item()
    q, k, v = draw(2, 3, queries, 5), draw(2, 3, keys, 5, seed=1), draw(2, 3, keys, 11, seed=2)
    options = options | {"grid": grid, "mask_padding": mask_padding}
    assert_like_reference(neighborhood_attention, (q, k, v), **options)
    sizes = (per_axis(options.get(n, 1), grid) for n in ("block", "halo"))
    window = [b + 2 * h for b, h in zip(*sizes, strict=True)]
    for lead in ((), (3,)):
        tables = tuple(draw(*lead, 2 * w - 1, 5, seed=3) for w in window)
        bias = draw(*lead, *window, seed=4)
        assert_like_reference(
            neighborhood_attention, (q, k, v), relative=tables, slot_bias=bias, **options
        )


@pytest.mark.parametrize("dims", [(5, 4), (20, 40), (64, 64), (1, 1)])
def test_lists(dims):
    q, k, v = draw(2, 3, 9, dims[0]), draw(2, 3, 8, dims[0], seed=1), draw(2, 3, 8, dims[1], seed=2)
    g = torch.Generator().manual_seed(0)
    index = torch.rand(2, 3, 9, 8, generator=g).argsort(-1)[..., :5]
    index[torch.rand(index.shape, generator=g) < 0.3] = -1
    index[0, 0, 0] = -1
    assert_like_reference(gather_attention, (q, k, v), index=index)


def test_clusters():
    q, k, v = draw(2, 3, 9, 6), draw(2, 3, 9, 6, seed=1), draw(2, 3, 9, 7, seed=2)
    g = torch.Generator().manual_seed(0)
    members = torch.rand(2, 3, 4, 9, generator=g).argsort(-1)[..., :5].sort(-1).values
    mask = torch.rand(2, 9, generator=g) > 0.3
    for options in ({}, {"causal": True, "self_bias": -3.0}, {"key_mask": mask, "causal": True}):
        assert_like_reference(cluster_attention, (q, k, v), members=members, **options)
    picks = members.masked_fill(torch.rand(members.shape, generator=g) < 0.3, -1)
    assert_like_reference(cluster_attention, (q, k, v), members=members, key_members=picks)


def test_views_and_half_precision_and_threads():
    fused = torch.randn(2, 16 * 8, 3, 3, 8)  # batch, tokens, part, head, channel
    q, k, v = fused.permute(2, 0, 3, 1, 4)
    options = {"block": 8, "halo": 3}
    plain = neighborhood_attention(*(x.contiguous() for x in (q, k, v)), (16, 8), **options)
    out = neighborhood_attention(q, k, v, (16, 8), **options)
    torch.testing.assert_close(out, plain)
    assert out.transpose(1, 2).is_contiguous()
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert neighborhood_attention(q, k, v, (16, 8), **options).equal(out)
    finally:
        torch.set_num_threads(threads)
    low = neighborhood_attention(*(x.bfloat16() for x in (q, k, v)), (16, 8), **options)
    torch.testing.assert_close(low.float(), out, atol=0.05, rtol=0)


def test_what_it_leaves_to_the_reference():
    q = torch.randn(1, 2, 9, 4)
    for options, reason in (
        ({"global_k": q, "global_v": q}, "the kernel has no global_k"),
        ({"dropout": 0.5}, "the kernel drops no weights"),
    ):
        choice, *_ = why(neighborhood_attention, q, q, q, (3, 3), halo=1, **options)
        assert choice.backend == "reference" and choice.refused["cpu"] == reason
    (choice,) = why(neighborhood_attention, *[q.double()] * 3, (3, 3), halo=1)
    assert choice.backend == "reference"


def test_second_derivatives_go_through_the_definition():
    q, k, v = (draw(1, 2, 9, 4, seed=s) for s in range(3))
    tables = tuple(draw(5, 4, seed=s) for s in (3, 4))
    found = []
    for backend in ("cpu", "reference"):
        with use_backend(backend):
            out = neighborhood_attention(q, k, v, (3, 3), halo=1, relative=tables)
            (dq,) = torch.autograd.grad(out.square().sum(), q, create_graph=True)
            found.append(torch.autograd.grad(dq.square().sum(), (k, v, *tables)))
    for got, want in zip(*found, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-5)


def test_compiled_it_is_the_same():
    q, k, v = (draw(2, 3, 32, 5, seed=s) for s in range(3))
    tables = tuple(draw(11, 5, seed=s) for s in (3, 4))

    def run(q, k, v, *tables):
        return neighborhood_attention(q, k, v, (4, 8), block=4, halo=1, relative=tables)

    torch._dynamo.reset()
    expected, actual = (
        run(q, k, v, *tables),
        torch.compile(run, backend="aot_eager")(q, k, v, *tables),
    )
    torch.testing.assert_close(actual, expected)
    for got, want in zip(
        torch.autograd.grad(actual.sum(), (q, k, v, *tables)),
        torch.autograd.grad(expected.sum(), (q, k, v, *tables)),
        strict=True,
    ):
        torch.testing.assert_close(got, want)
