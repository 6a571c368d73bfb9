"""The Triton kernels of lists, clusters and windows beside the reference in float64."""

import pytest
import torch

from core_attn import (
    cluster_attention,
    gather_attention,
    gather_weights,
    neighborhood_attention,
    use_backend,
)

from .comparing import CHECKS, assert_drops_the_same_both_ways, assert_like_reference, rounded


def make(device, dtype=torch.float32, *, tokens=(3, 8), dims=(5, 7), heads=2, batch=(1,)):
    queries, keys = tokens
    shapes = (queries, dims[0]), (keys, dims[0]), (keys, dims[1])
    return [
        rounded((*batch, heads, *shape), dtype, device, seed) for seed, shape in enumerate(shapes)
    ]


def lists(device, *shape, keys, missing=0.3):
    """Different keys in every list, some of them -1, and one list empty."""
    g = torch.Generator().manual_seed(0)
    *lead, picks = shape
    index = torch.rand(*lead, keys, generator=g).argsort(-1)[..., :picks]
    index[torch.rand(index.shape, generator=g) < missing] = -1
    if missing:
        index.view(-1, picks)[0] = -1
    return index.to(device)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_list_for_every_query(device, dtype):
    tensors = make(device, dtype, dims=(20, 33))
    bias = rounded((2, 1, 5), torch.float32, device, 5)
    index = lists(device, 1, 2, 3, 5, keys=8)
    assert_like_reference(gather_attention, tensors, index=index, bias=bias)


@pytest.mark.parametrize("batch", [(), (2, 1)])
def test_lists_longer_than_a_tile_that_name_keys_twice(device, batch):
    tensors = make(device, batch=batch, tokens=(2, 50))
    index = lists(device, *batch, 2, 2, 25, keys=50).repeat_interleave(2, -1)
    assert_like_reference(gather_attention, tensors, index=index.int())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"causal": True, "self_bias": -3.0}])
def test_clusters(device, dtype, options):
    tensors = make(device, dtype, tokens=(9, 9))
    members = lists(device, 1, 2, 2, 5, keys=9, missing=0).sort(-1).values
    mask = torch.arange(9, device=device).expand(1, 9) % 4 != 2
    assert_like_reference(
        cluster_attention, tensors, members=members, key_mask=mask,
        key_members=lists(device, 1, 2, 2, 7, keys=9), **options,
    )  # fmt: skip


@pytest.mark.parametrize("shape", [(1, 2, 2, 20, 21), (2, 1, 21), (1, 1)])
def test_clusters_of_more_than_a_tile_with_memory_and_bias(device, shape):
    tensors = make(device, tokens=(40, 30))
    assert_like_reference(
        cluster_attention, tensors,
        members=lists(device, 1, 2, 2, 20, keys=40, missing=0),
        key_members=lists(device, 1, 2, 2, 18, keys=30),
        memory_k=rounded((2, 2, 3, 5), torch.float32, device, 5),
        memory_v=rounded((2, 2, 3, 7), torch.float32, device, 6),
        bias=rounded(shape, torch.float32, device, 7),
    )  # fmt: skip


WINDOWS = {
    "line": ((5,), {"halo": 2, "dilation": 2}),
    "strided blocks": ((4, 8), {"halo": 1, "block": 4, "stride": 2}),
    "ragged blocks": ((5, 4), {"halo": 1, "block": 3}),
    "strided pixels": ((3, 4), {"halo": (1, 2), "stride": 2}),
    "dilated blocks": ((8,), {"halo": 1, "block": 2, "dilation": 2}),
    "space": ((2, 2, 3), {"halo": 1, "block": (1, 2, 2)}),
}


def window_of(grid, options):
    sizes = []
    for name, default in (("block", 1), ("halo", 0), ("stride", 1)):
        value = options.get(name, default)
        sizes.append((value,) * len(grid) if isinstance(value, int) else value)
    block, halo, stride = sizes
    window = tuple(b + 2 * h for b, h in zip(block, halo, strict=True))
    return window, torch.tensor([-(-n // s) for n, s in zip(grid, stride, strict=True)])


@pytest.mark.parametrize("mask_padding", [False, True])
@pytest.mark.parametrize("name", WINDOWS)
def test_windows(device, name, mask_padding):
    grid, options = WINDOWS[name]
    window, queries = window_of(grid, options)
    tokens = int(queries.prod()), int(torch.tensor(grid).prod())
    lead = (2,) if mask_padding else ()
    assert_like_reference(
        neighborhood_attention, make(device, tokens=tokens), grid=grid,
        mask_padding=mask_padding, scale=0.7, **options,
        relative=tuple(
            rounded((*lead, 2 * w - 1, 5), torch.float32, device, 5 + n)
            for n, w in enumerate(window)
        ),
        slot_bias=rounded((*lead, *window), torch.float32, device, 9),
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_blocks_with_a_halo(device, dtype):
    tensors = make(device, dtype, tokens=(128, 128), dims=(16, 24), heads=1, batch=(1,))
    tables = tuple(rounded((27, 16), dtype, device, seed) for seed in (3, 4))
    assert_like_reference(
        neighborhood_attention, tensors, grid=(16, 8), block=8, halo=3, relative=tables
    )


@pytest.mark.parametrize("block", [1, 2])
def test_global_keys_and_weights_added_after_the_softmax(device, block):
    tensors = make(device, tokens=(6, 6))
    window = (2 + block) ** 2
    assert_like_reference(
        neighborhood_attention, tensors, grid=(2, 3), halo=1, block=block, mask_padding=True,
        slot_bias=rounded((2, 2 + block, 2 + block), torch.float32, device, 3),
        global_k=rounded((1, 2, 3, 5), torch.float32, device, 4),
        global_v=rounded((1, 2, 3, 7), torch.float32, device, 5),
        global_bias=rounded((2, 1, 3), torch.float32, device, 6),
        added=rounded((1, 2, 6, window), torch.float32, device, 7),
    )  # fmt: skip


def test_heads_inside_of_tokens_are_read_where_they_lie(device):
    fused = rounded((1, 12, 3, 2, 16), torch.float32, device, 0)
    tensors = [x.detach().requires_grad_() for x in fused.permute(2, 0, 3, 1, 4).unbind(0)]
    assert_like_reference(neighborhood_attention, tensors, grid=(4, 3), halo=1, block=2)
    with use_backend("triton"):
        out = neighborhood_attention(*tensors, (4, 3), halo=1, block=2)
    assert out.transpose(1, 2).is_contiguous()


def test_dropout(device):
    tensors = make(device, tokens=(6, 40), dims=(8, 40))
    index = lists(device, 1, 2, 6, 40, keys=40, missing=0).sort(-1).values

    def operator(q, k, v, dropout):
        return gather_attention(q, k, v, index, dropout=dropout)

    weights = gather_weights(*tensors[:2], index)
    assert_drops_the_same_both_ways(operator, tensors, weights, 0.3)


def test_second_derivatives_are_the_definitions(device):
    q, k, v = make(device, tokens=(4, 4))
    found = []
    for backend in ("triton", "reference"):
        with use_backend(backend):
            out = neighborhood_attention(q, k, v, (2, 2), halo=1)
        (dq,) = torch.autograd.grad(out.square().sum(), q, create_graph=True)
        found.append(torch.autograd.grad(dq.square().sum(), (q, k, v)))
    for got, want in zip(*found, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_the_operators_are_registered_as_torch_asks(device):
    from core_attn.ops._gather_attention.triton_call import Inputs

    q, k, v = make(device, tokens=(2, 6))
    keys = lists(device, 1, 2, 2, 3, keys=6)
    bias = rounded((1, 2, 1, 1, 3), torch.float32, device, 3)
    inputs = Inputs(
        q, k, v, None, keys, None, bias, None, None, None, None, None, None, True, False, False,
        0.0, 0.4, 0.0,
    )  # fmt: skip
    torch.library.opcheck(torch.ops.core_attn.lists_triton, tuple(inputs), test_utils=CHECKS)


def test_deterministic_mode_is_refused_for_gradients(device):
    q, k, v = make(device)
    index = lists(device, 1, 2, 3, 5, keys=8)
    torch.use_deterministic_algorithms(True)
    try:
        with use_backend("triton"), pytest.raises(ValueError, match="no fixed order"):
            gather_attention(q, k, v, index)
        with use_backend("triton"):
            gather_attention(q.detach(), k.detach(), v.detach(), index)
    finally:
        torch.use_deterministic_algorithms(False)
