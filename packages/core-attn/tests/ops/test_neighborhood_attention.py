import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core_attn import (
    AttentionLayer,
    attention,
    edit,
    neighborhood_attention,
    neighborhood_weights,
    record,
)
from core_attn.ops._neighborhood_attention.call import Axis


def make(grid, *, stride=1, batch=(2,), heads=2, dim=4, v_dim=3, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    strides = (stride,) * len(grid) if isinstance(stride, int) else stride
    keys = torch.tensor(grid).prod().item()
    queries = 1
    for size, step in zip(grid, strides, strict=True):
        queries *= -(-size // step)
    shapes = [(queries, dim), (keys, dim), (keys, v_dim)]
    tensors = [torch.randn(*batch, heads, *s, generator=g, dtype=dtype) for s in shapes]
    return [x.requires_grad_() for x in tensors]


def per_axis(value, grid):
    return (value,) * len(grid) if isinstance(value, int) else tuple(value)


def slots_of(position, block, halo, dilation, stride):
    """Along one axis: the query's number in its block, and the positions of its window."""
    full = position * stride
    rest, place = full % dilation if block > 1 else 0, full // dilation if block > 1 else full
    start = place // block * block
    step = dilation
    if block == 1:
        window = [full + step * (j - halo) for j in range(1 + 2 * halo)]
    else:
        window = [(start + j - halo) * step + rest for j in range(block + 2 * halo)]
    return place % block // stride, window


def naive(q, k, v, grid, *, halo, block=1, dilation=1, stride=1, mask_padding=False,
          relative=None, slot_bias=None, global_k=None, global_v=None, global_bias=None,
          added=None, scale=None):  # fmt: skip
    """One query at a time over the positions of its window."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    sizes = [per_axis(x, grid) for x in (block, halo, dilation, stride)]
    query_grid = [-(-n // s) for n, s in zip(grid, sizes[3], strict=True)]
    out = []
    for b, h in itertools.product(range(q.shape[0]), range(q.shape[1])):
        for number, place in enumerate(itertools.product(*map(range, query_grid))):
            axes = [
                slots_of(p, *numbers)
                for p, numbers in zip(place, zip(*sizes, strict=True), strict=True)
            ]
            scores, values = [], []
            one = q[b, h, number]
            for slot, at in enumerate(itertools.product(*(range(len(w)) for _, w in axes))):
                where = [w[j] for (_, w), j in zip(axes, at, strict=True)]
                inside = all(0 <= x < n for x, n in zip(where, grid, strict=True))
                index = 0
                for x, n in zip(where, grid, strict=True):
                    index = index * n + x
                if mask_padding and not inside:
                    continue
                score = scale * one @ k[b, h, index] if inside else one.sum() * 0
                for (i, w), j, table in zip(axes, at, relative or (), strict=False):
                    rows = table[h] if table.dim() == 3 else table
                    score = score + one @ rows[j - i + len(w) - 1]
                if slot_bias is not None:
                    score = score + (
                        slot_bias[h][at] if slot_bias.dim() > len(grid) else slot_bias[at]
                    )
                scores.append(score)
                extra = 0 if added is None else added[b, h, number, slot]
                values.append((v[b, h, index] if inside else torch.zeros_like(v[0, 0, 0]), extra))
            rest = 0 if global_k is None else global_k.shape[-2]
            for g in range(rest):
                score = scale * one @ global_k[b, h, g]
                scores.append(
                    score if global_bias is None else score + global_bias[b, h, number, g]
                )
                values.append((global_v[b, h, g], 0))
            weights = torch.stack(scores).softmax(0)
            out.append(sum((p + e) * x for p, (x, e) in zip(weights, values, strict=True)))
    return torch.stack(out).view(*q.shape[:-1], -1)


def assert_same(actual, expected, leaves):
    torch.testing.assert_close(actual, expected)
    cotangent = torch.randn_like(expected)
    for got, want in zip(
        torch.autograd.grad(actual, leaves, cotangent),
        torch.autograd.grad(expected, leaves, cotangent),
        strict=True,
    ):
        torch.testing.assert_close(got, want)


WINDOWS = {
    "line": ((7,), {"halo": 2}),
    "line of blocks": ((9,), {"block": 3, "halo": 1}),
    "dilated": ((5, 6), {"halo": 1, "dilation": (1, 2)}),
    "kernel 5x3": ((4, 5), {"halo": (2, 1)}),
    "blocks": ((4, 6), {"block": 2, "halo": 1}),
    "rectangular blocks": ((4, 6), {"block": (2, 3), "halo": (0, 1)}),
    "ragged blocks": ((5, 4), {"block": 3, "halo": 1}),
    "strided blocks": ((4, 8), {"block": 4, "halo": 1, "stride": 2}),
    "strided pixels": ((5, 4), {"halo": 1, "stride": 2}),
    "dilated blocks": ((8,), {"block": 2, "halo": 1, "dilation": 2}),
    "ragged dilated blocks": ((7, 3), {"block": (2, 1), "halo": 1, "dilation": 2}),
    "space": ((3, 2, 4), {"block": (1, 2, 2), "halo": 1}),
    "wider than the map": ((2, 3), {"halo": 3}),
    "single": ((1, 1), {"halo": 1}),
}


@pytest.mark.parametrize("mask_padding", [False, True])
@pytest.mark.parametrize("name", WINDOWS)
def test_windows(name, mask_padding):
    grid, windows = WINDOWS[name]
    q, k, v = make(grid, stride=windows.get("stride", 1), batch=(1,))
    options = windows | {"mask_padding": mask_padding}
    expected = naive(q, k, v, grid, **options)
    assert_same(neighborhood_attention(q, k, v, grid, **options), expected, (q, k, v))


@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize("name", ["strided blocks", "ragged blocks", "dilated blocks", "space"])
def test_relative_logits_and_slot_bias_have_gradients(name, per_head):
    grid, windows = WINDOWS[name]
    q, k, v = make(grid, stride=windows.get("stride", 1), batch=(1,))
    sizes = (per_axis(windows[n], grid) for n in ("block", "halo"))
    window = [b + 2 * h for b, h in zip(*sizes, strict=True)]
    lead = (2,) if per_head else ()
    g = torch.Generator().manual_seed(3)
    tables = tuple(
        torch.randn(*lead, 2 * w - 1, 4, generator=g, dtype=q.dtype).requires_grad_()
        for w in window
    )
    bias = torch.randn(*lead, *window, generator=g, dtype=q.dtype).requires_grad_()
    options = windows | {"relative": tables, "slot_bias": bias, "scale": 0.7}
    expected = naive(q, k, v, grid, **options)
    assert_same(
        neighborhood_attention(q, k, v, grid, **options), expected, (q, k, v, bias, *tables)
    )


@pytest.mark.parametrize("windows", [{"halo": 1}, {"block": 2, "halo": 1}])
def test_global_keys_share_the_softmax_and_added_weights_do_not(windows):
    grid = (3, 4)
    q, k, v = make(grid)
    slots = (windows.get("block", 1) + 2) ** 2
    g = torch.Generator().manual_seed(3)

    def draw(*shape):
        return torch.randn(*shape, generator=g, dtype=q.dtype).requires_grad_()

    extra = {
        "global_k": draw(2, 2, 3, 4), "global_v": draw(2, 2, 3, 3),
        "global_bias": draw(2, 2, 12, 3), "added": draw(2, 2, 12, slots),
    }  # fmt: skip
    options = windows | extra | {"mask_padding": True}
    expected = naive(q, k, v, grid, **options)
    actual = neighborhood_attention(q, k, v, grid, **options)
    assert_same(actual, expected, (q, k, v, *extra.values()))


def test_a_window_over_the_whole_map_is_global_attention():
    grid = (3, 4)
    q, k, v = make(grid)
    expected = attention(q, k, v)
    for block in ((3, 4), 1):
        halo = (0, 0) if block != 1 else (2, 3)
        actual = neighborhood_attention(q, k, v, grid, block=block, halo=halo, mask_padding=True)
        torch.testing.assert_close(actual, expected)


def test_masked_and_unmasked_differ_in_border_blocks_only():
    q, k, v = make((12, 12))
    both = [
        neighborhood_attention(q, k, v, (12, 12), block=4, halo=1, mask_padding=masked)
        for masked in (True, False)
    ]
    differs = (both[0] - both[1]).abs().amax((0, 1, 3)).unflatten(0, (12, 12)) > 1e-9
    inner = torch.zeros(12, 12, dtype=torch.bool)
    inner[4:8, 4:8] = True
    assert differs.equal(~inner)


def test_gradients_of_both_orders():
    q, k, v = make((2, 3), batch=(), heads=1, dim=2, v_dim=1)
    tables = tuple(torch.randn(2 * 4 - 1, 2, dtype=q.dtype, requires_grad=True) for _ in range(2))

    def run(q, k, v, *tables):
        return neighborhood_attention(q, k, v, (2, 3), block=2, halo=1, relative=tables)

    assert torch.autograd.gradcheck(run, (q, k, v, *tables))
    assert torch.autograd.gradgradcheck(run, (q, k, v, *tables))


@given(
    size=st.integers(1, 12), block=st.integers(1, 5), halo=st.integers(0, 3),
    dilation=st.integers(1, 3),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_every_query_is_in_one_block_and_its_window_is_around_it(size, block, halo, dilation):
    queries, keys = Axis(size, block, halo, dilation, 1).places(torch.device("cpu"))
    assert sorted(x for x in queries.flatten().tolist() if x >= 0) == list(range(size))
    for members, window in zip(queries.tolist(), keys.tolist(), strict=True):
        for i, query in enumerate(members):
            if query >= 0:
                assert window[halo + i] == query


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_scores_are_float32(dtype):
    q, k, v = (x.detach() for x in make((4, 6), dtype=torch.float32))
    tables = tuple(torch.randn(7, 4) for _ in range(2))
    low = [x.to(dtype) for x in (q, k, v)]
    actual = neighborhood_attention(*low, (4, 6), block=2, halo=1, relative=tables)
    expected = neighborhood_attention(q, k, v, (4, 6), block=2, halo=1, relative=tables)
    assert actual.dtype == dtype
    torch.testing.assert_close(actual.float(), expected, atol=0.05, rtol=0)


class Local(AttentionLayer):
    def forward(self, q, k, v, **options):
        return self.attend_neighborhood(q, k, v, (4, 6), block=2, halo=1, **options)


def test_the_pattern_times_the_values_is_the_output():
    q, k, v = make((4, 6))
    extra = {
        "global_k": torch.randn(2, 2, 3, 4).double(), "global_v": torch.randn(2, 2, 3, 3).double(),
        "added": torch.randn(2, 2, 24, 16).double(),
    }  # fmt: skip
    layer = Local()
    for options in ({}, extra):
        plain = layer(q, k, v, **options)
        assert plain.shape == (2, 24, 2, 3)
        with record(layer, "pattern") as seen:
            torch.testing.assert_close(layer(q, k, v, **options), plain)
        assert seen[""].shape == (2, 2, 24, 24 + len(options))
    with edit(layer, {"pattern": lambda x: 2 * x}):
        torch.testing.assert_close(layer(q, k, v), 2 * layer.heads(Local()(q, k, v)))


def test_padding_takes_its_share_of_the_weights():
    q, k, _ = make((4, 6))
    total = neighborhood_weights(q, k, (4, 6), halo=1).sum(-1).unflatten(-1, (4, 6))
    torch.testing.assert_close(total[..., 1:-1, 1:-1], torch.ones_like(total[..., 1:-1, 1:-1]))
    assert (total[..., 0, :] < 1).all()
    masked = neighborhood_weights(q, k, (4, 6), halo=1, mask_padding=True).sum(-1)
    torch.testing.assert_close(masked, torch.ones_like(masked))


X = torch.randn(2, 3, 24, 5)
BAD = {
    "grid": (lambda: neighborhood_attention(X, X, X, (4, 5), halo=1), "q has 24 tokens, its map h"),
    "axes": (lambda: neighborhood_attention(X, X, X, (2, 3, 2, 2), halo=1), "one to three sizes"),
    "stride": (
        lambda: neighborhood_attention(X, X, X, (4, 6), halo=1, block=3, stride=2),
        "stride 2 must divide block 3",
    ),
    "dilation": (
        lambda: neighborhood_attention(
            X[:, :, :6], X, X, (4, 6), halo=1, block=2, stride=2, dilation=2
        ),
        "go together with block 1 only",
    ),
    "halo": (lambda: neighborhood_attention(X, X, X, (4, 6), halo=-1), "halo must be a number of"),
    "tables": (
        lambda: neighborhood_attention(X, X, X, (4, 6), halo=1, relative=(torch.zeros(5, 5),)),
        "relative must hold 2 tables",
    ),
    "rows": (
        lambda: neighborhood_attention(X, X, X, (4, 6), halo=1, relative=(torch.zeros(4, 5),) * 2),
        r"tables \(5, 5\) or \(3, 5, 5\), got \(4, 5\)",
    ),
    "slot_bias": (
        lambda: neighborhood_attention(X, X, X, (4, 6), halo=1, slot_bias=torch.zeros(9)),
        r"slot_bias must be \(3, 3\) or \(3, 3, 3\), got \(9,\)",
    ),
    "no halo": (lambda: neighborhood_attention(X, X, X, (4, 6)), "needs halo"),
    "padding": (
        lambda: neighborhood_attention(X, X, X, (4, 6), halo=1, mask_padding=None),
        "mask_padding must be True or False",
    ),
    "globals": (
        lambda: neighborhood_attention(X, X, X, (4, 6), halo=1, global_k=X),
        "must be given together",
    ),
    "added": (
        lambda: neighborhood_attention(X, X, X, (4, 6), halo=1, added=X),
        r"added must be \(\*batch, heads, queries, slots\) = \(2, 3, 24, 9\)",
    ),
}


@pytest.mark.refuses
@pytest.mark.parametrize("case", BAD)
def test_misuse_is_explained(case):
    call, message = BAD[case]
    with pytest.raises((ValueError, TypeError), match=message):
        call()
