import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core_attn import (
    AttentionLayer,
    attention,
    cluster_attention,
    cluster_weights,
    edit,
    gather_attention,
    gather_weights,
    record,
    scatter_mean,
    scatter_sum,
    top_positions,
)


def make(batch=(2,), heads=3, queries=7, keys=7, dim=5, v_dim=4, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    shapes = [(queries, dim), (keys, dim), (keys, v_dim)]
    tensors = [torch.randn(*batch, heads, *s, generator=g, dtype=dtype) for s in shapes]
    return [x.requires_grad_() for x in tensors]


def lists(shape, keys, empty=0.3, seed=1):
    """Random positions without repetition along the last axis, some of them -1."""
    g = torch.Generator().manual_seed(seed)
    index = torch.rand(*shape[:-1], keys, generator=g).argsort(-1)[..., : shape[-1]]
    return index.masked_fill(torch.rand(shape, generator=g) < empty, -1)


def naive_clusters(q, k, v, members, keys, allowed=lambda b, h, i, j: True, scale=None):
    """One member at a time over the keys that it may see."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    out = q.new_zeros(*members.shape, v.shape[-1])
    for b, h, c, m in torch.cartesian_prod(*map(torch.arange, members.shape)).tolist():
        i = members[b, h, c, m].item()
        picks = [j for j in keys[b, h, c].tolist() if j >= 0 and allowed(b, h, i, j)]
        if picks:
            scores = scale * k[b, h, picks] @ q[b, h, i]
            out[b, h, c, m] = scores.softmax(0) @ v[b, h, picks]
    return out


def assert_same(actual, expected, leaves):
    torch.testing.assert_close(actual, expected)
    cotangent = torch.randn_like(expected)
    for got, want in zip(
        torch.autograd.grad(actual, leaves, cotangent),
        torch.autograd.grad(expected, leaves, cotangent),
        strict=True,
    ):
        torch.testing.assert_close(got, want)


class TestGather:
    def test_each_query_reads_its_own_list(self):
        q, k, v = make()
        index = lists((2, 3, 7, 4), 7)
        index[0, 0, 0] = -1
        own = torch.arange(7).expand(2, 3, 7)[..., None]
        rows = [
            naive_clusters(q, k, v, own[:, :, i : i + 1], index[:, :, i : i + 1]) for i in range(7)
        ]
        expected = torch.cat(rows, 2).squeeze(-2)
        assert expected[0, 0, 0].eq(0).all()
        assert_same(gather_attention(q, k, v, index), expected, (q, k, v))

    def test_all_keys_listed_is_attention(self):
        q, k, v = make(queries=5)
        index = torch.arange(7).flip(0).expand(2, 3, 5, 7)
        assert_same(gather_attention(q, k, v, index), attention(q, k, v), (q, k, v))
        torch.testing.assert_close(
            gather_attention(q, k, v, index, scale=0.3), attention(q, k, v, scale=0.3)
        )

    def test_the_order_of_a_list_does_not_matter_but_a_repeated_key_counts_twice(self):
        q, k, v = make()
        index = lists((2, 3, 7, 5), 7)
        torch.testing.assert_close(
            gather_attention(q, k, v, index.flip(-1)), gather_attention(q, k, v, index)
        )
        twice = torch.tensor([2, 2, 4]).expand(2, 3, 7, 3)
        bias = torch.tensor([2.0, 1.0]).log().double()
        torch.testing.assert_close(
            gather_attention(q, k, v, twice),
            gather_attention(q, k, v, twice[..., 1:], bias=bias),
        )

    @pytest.mark.parametrize("shape", [(2, 3, 7, 4), (4,), (3, 1, 4), (1,)])
    def test_bias_broadcasts_and_has_a_gradient(self, shape):
        q, k, v = make()
        index = lists((2, 3, 7, 4), 7, empty=0)
        bias = torch.randn(shape, dtype=torch.float64, requires_grad=True)
        full = bias.expand(2, 3, 7, 4)
        dense = torch.full((2, 3, 7, 7), -torch.inf, dtype=torch.float64).scatter(-1, index, full)
        expected = attention(q, k, v, bias=dense)
        assert_same(gather_attention(q, k, v, index, bias=bias), expected, (q, k, v, bias))

    def test_gradients_of_both_orders(self):
        q, k, v = make(batch=(), heads=1, queries=3, keys=4, dim=2, v_dim=2)
        index = torch.tensor([[[0, 3], [1, -1], [-1, -1]]])
        assert torch.autograd.gradcheck(lambda *x: gather_attention(*x, index), (q, k, v))
        assert torch.autograd.gradgradcheck(lambda *x: gather_attention(*x, index), (q, k, v))

    def test_weights_are_spread_over_the_keys(self):
        q, k, v = make()
        index = lists((2, 3, 7, 4), 7)
        weights = gather_weights(q, k, index)
        torch.testing.assert_close(weights @ v, gather_attention(q, k, v, index))

    def test_dropout_keeps_the_mean(self):
        q, k, v = make(queries=400, keys=7, dtype=torch.float32)
        index = lists((2, 3, 400, 4), 7, empty=0)
        v = torch.ones_like(v)
        dropped = gather_attention(q, k, v, index, dropout=0.4)
        assert abs(float(dropped.detach().mean()) - 1) < 0.05

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_scores_are_float32(self, dtype):
        q, k, v = (x.detach() for x in make(dtype=torch.float32))
        index = lists((2, 3, 7, 4), 7)
        low = gather_attention(q.to(dtype), k.to(dtype), v.to(dtype), index)
        assert low.dtype == dtype
        torch.testing.assert_close(low.float(), gather_attention(q, k, v, index), atol=0.03, rtol=0)


class TestClusters:
    def test_members_attend_among_themselves(self):
        q, k, v = make(queries=9, keys=9)
        members = lists((2, 3, 4, 5), 9, empty=0).sort(-1).values
        expected = naive_clusters(q, k, v, members, members)
        assert_same(cluster_attention(q, k, v, members), expected, (q, k, v))

    def test_keys_may_be_clustered_apart_and_positions_decide_what_is_later(self):
        q, k, v = make(queries=9, keys=11)
        members = lists((2, 3, 4, 5), 9, empty=0).sort(-1).values
        picks = lists((2, 3, 4, 6), 11)
        expected = naive_clusters(q, k, v, members, picks, lambda b, h, i, j: j <= i)
        actual = cluster_attention(q, k, v, members, key_members=picks, causal=True)
        assert_same(actual, expected, (q, k, v))

    def test_padding_keys_never_reach_the_output(self):
        q, k, v = make(queries=9, keys=9)
        members = lists((2, 3, 4, 5), 9, empty=0).sort(-1).values
        mask = torch.rand(2, 9, generator=torch.Generator().manual_seed(2)) > 0.4
        expected = naive_clusters(q, k, v, members, members, lambda b, h, i, j: bool(mask[b, j]))
        assert_same(cluster_attention(q, k, v, members, key_mask=mask), expected, (q, k, v))

    def test_a_strong_self_bias_leaves_oneself_only_where_there_is_nothing_else(self):
        q, k, v = make(queries=9, keys=9)
        members = lists((2, 3, 4, 5), 9, empty=0).sort(-1).values
        first = members[..., :1]
        weights = cluster_weights(q, k, members, causal=True, self_bias=-5e4)
        torch.testing.assert_close(weights[..., 0, 0], torch.ones(2, 3, 4, dtype=q.dtype))
        assert weights.diagonal(dim1=-2, dim2=-1)[..., 1:].eq(0).all()
        out = cluster_attention(q, k, v, members, causal=True, self_bias=-5e4)
        torch.testing.assert_close(out[..., :1, :], v.take_along_dim(first, -2)[..., None, :])

    def test_memory_is_seen_by_all_members_of_its_cluster(self):
        q, k, v = make(queries=9, keys=9)
        members = lists((2, 3, 4, 5), 9, empty=0).sort(-1).values
        memory = [torch.randn(3, 4, 2, d, dtype=torch.float64, requires_grad=True) for d in (5, 4)]
        one = (1, 2, 3)
        wide_k = torch.cat([memory[0][2, 3], k[1, 2, members[1, 2, 3]]])
        wide_v = torch.cat([memory[1][2, 3], v[1, 2, members[1, 2, 3]]])
        expected = attention(q[1, 2, members[1, 2, 3]][None], wide_k[None], wide_v[None])[0]
        out = cluster_attention(q, k, v, members, memory_k=memory[0], memory_v=memory[1])
        assert_same(out[one], expected, (q, k, v, *memory))

    @pytest.mark.parametrize("heads", [(), (3,)])
    def test_relative_tables_are_added_by_rank(self, heads):
        q, k, v = make(queries=9, keys=9)
        members = lists((2, 3, 4, 5), 9, empty=0).sort(-1).values
        tables = [
            torch.randn(*heads, 5, d, dtype=torch.float64, requires_grad=True) for d in (5, 4)
        ]
        b, h, c, m = 1, 2, 3, 1
        rows = members[b, h, c]
        apart = (torch.arange(5) - m).clamp(-2, 2) + 2
        key_table, value_table = (t[h, apart] if heads else t[apart] for t in tables)
        scores = 5**-0.5 * (k[b, h, rows] + key_table) @ q[b, h, rows[m]]
        expected = scores.softmax(0) @ (v[b, h, rows] + value_table)
        out = cluster_attention(q, k, v, members, relative_k=tables[0], relative_v=tables[1])
        assert_same(out[b, h, c, m], expected, (q, k, v, *tables))

    def test_one_cluster_of_all_tokens_is_attention(self):
        q, k, v = make()
        everyone = torch.arange(7).expand(2, 3, 1, 7)
        bias = torch.randn(2, 3, 1, 7, 7, dtype=torch.float64)
        out = cluster_attention(q, k, v, everyone, bias=bias, causal=True)
        expected = attention(q, k, v, bias=bias.squeeze(2), causal=True)
        torch.testing.assert_close(scatter_mean(out, everyone, 7), expected)
        torch.testing.assert_close(scatter_mean(out, everyone, 7, eps=0.01) * 1.01, expected)


class Clustered(AttentionLayer):
    def __init__(self, members, memory, eps):
        super().__init__()
        self.members, self.memory, self.eps = members, memory, eps

    def forward(self, q, k, v):
        names = ("memory_k", "memory_v")
        memory = dict(zip(names, self.memory, strict=True)) if self.memory else {}
        return self.attend_clusters(q, k, v, self.members, causal=True, mean_eps=self.eps, **memory)


class Gathered(AttentionLayer):
    def forward(self, q, k, v, index):
        return self.attend_gathered(q, k, v, index)


class TestTaps:
    @pytest.mark.parametrize("memory", [0, 2])
    @pytest.mark.parametrize("eps", [None, 0.0, 0.01])
    def test_the_pattern_of_clusters_times_the_values_is_the_output(self, memory, eps):
        q, k, v = make(queries=9, keys=9)
        members = lists((2, 3, 4, 5), 9, empty=0).sort(-1).values
        slots = [torch.randn(3, 4, memory, d, dtype=torch.float64) for d in (5, 4)]
        layer = Clustered(members, slots if memory else None, eps)
        plain = layer(q, k, v)
        assert plain.shape == (2, 9, 3, 4)
        with record(layer, "pattern") as seen:
            torch.testing.assert_close(layer(q, k, v), plain)
        assert seen[""].shape == (2, 3, 9, 9 + 4 * memory)

    def test_the_pattern_of_lists_can_be_edited(self):
        q, k, v = make()
        index, layer = lists((2, 3, 7, 4), 7), Gathered()
        plain = layer(q, k, v, index)
        with edit(layer, {"pattern": lambda x: 2 * x}):
            torch.testing.assert_close(layer(q, k, v, index), 2 * plain)


class TestSelection:
    @given(
        st.lists(
            st.sampled_from([-1.0, -1e-40, -0.0, 0.0, 0.5, math.inf, -math.inf, math.nan]),
            min_size=1,
            max_size=70,
        ),
        st.data(),
    )
    @settings(max_examples=60, deadline=None)
    def test_equal_scores_go_to_the_lower_position(self, scores, data):
        count = data.draw(st.integers(0, len(scores)))
        ranks = [(not math.isnan(x), -x if x == x else 0.0) for x in scores]  # NaN is the largest
        expected = sorted(range(len(scores)), key=lambda i: (ranks[i], i))[:count]
        assert top_positions(torch.tensor(scores), count).tolist() == expected
        ascending = top_positions(torch.tensor(scores), count, ascending=True)
        assert ascending.tolist() == sorted(expected)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
    @pytest.mark.parametrize("ascending", [False, True])
    def test_the_choice_of_a_stable_sort(self, dtype, ascending):
        scores = torch.randn(3, 700, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
        scores = scores.transpose(1, 2)
        chosen = scores.sort(dim=-1, descending=True, stable=True).indices[..., :200]
        expected = chosen.sort(-1).values if ascending else chosen
        assert top_positions(scores, 200, ascending=ascending).equal(expected)

    def test_nan_in_one_row_leaves_equal_scores_of_others_alone(self):
        scores = torch.zeros(2, 32)
        scores[0, 3] = torch.nan
        assert top_positions(scores, 1).tolist() == [[3], [0]]

    def test_sums_and_means_over_clusters(self):
        members = torch.tensor([[0, 1, 3], [1, 3, 4], [1, 2, 4]]).expand(2, 3, 3)
        outputs = torch.randn(2, 3, 3, 5, dtype=torch.float64)
        expected = torch.zeros(2, 6, 5, dtype=torch.float64)
        for c in range(3):
            for m in range(3):
                expected[:, members[0, c, m]] += outputs[:, c, m]
        torch.testing.assert_close(scatter_sum(outputs, members, 6), expected)
        count = torch.tensor([1, 3, 1, 2, 2, 1])[:, None]
        torch.testing.assert_close(scatter_mean(outputs, members, 6), expected / count)
        assert scatter_mean(outputs, members, 6, eps=0.5)[:, 5].eq(0).all()
        exact = expected / (count.double() + 1e-3)
        torch.testing.assert_close(
            scatter_mean(outputs, members, 6, eps=1e-3)[:, :5], exact[:, :5], rtol=1e-12, atol=0
        )
        many = torch.func.vmap(lambda members: scatter_sum(outputs[0], members, 6))(members)
        torch.testing.assert_close(many[1], scatter_sum(outputs[0], members[1], 6))


Q = torch.randn(2, 3, 7, 5)
M = torch.zeros(2, 3, 4, 2, dtype=torch.long)


def test_nothing_to_look_at_gives_zeros():
    q = Q.clone().requires_grad_()
    out = cluster_attention(q, q, q, M, key_members=M[..., :0])
    assert out.shape == (*M.shape, 5) and (out == 0).all()
    assert (torch.autograd.grad(out.sum(), q)[0] == 0).all()
    assert cluster_attention(q, q, q, M[..., :0]).shape == (2, 3, 4, 0, 5)
    assert (cluster_attention(q, q, q[..., :0], M).shape) == (*M.shape, 0)
    assert (gather_attention(q, q, q, M[:, :, :1, :0].expand(2, 3, 7, 0)) == 0).all()
    assert scatter_sum(torch.zeros(*M.shape, 0), M, 7).shape == (2, 3, 7, 0)


BAD = {
    "index dtype": (lambda: gather_attention(Q, Q, Q, M.float()), TypeError, "int32 or int64"),
    "index shape": (lambda: gather_attention(Q, Q, Q, M), ValueError, "index must be"),
    "index range": (
        lambda: gather_attention(Q, Q, Q, torch.full((2, 3, 7, 1), 7)),
        ValueError,
        r"index must be in \[-1, 7\), got values from 7 to 7",
    ),
    "no member": (lambda: cluster_attention(Q, Q, Q, M - 1), ValueError, r"members must be in \[0"),
    "heads": (lambda: gather_attention(Q, Q[:, :2], Q, M), ValueError, "k has batch and heads"),
    "memory": (
        lambda: cluster_attention(Q, Q, Q, M, memory_k=torch.zeros(3, 4, 1, 5)),
        ValueError,
        "must be given together",
    ),
    "memory shape": (
        lambda: cluster_attention(Q, Q, Q, M, memory_k=Q[0], memory_v=Q[0]),
        ValueError,
        r"memory_k must be \(heads, clusters, memory, dim\), here \(3, 4, memory, 5\)",
    ),
    "relative": (
        lambda: cluster_attention(Q, Q, Q, M, relative_k=torch.zeros(4, 5)),
        ValueError,
        r"relative_k must be \(2 reach \+ 1, 5\)",
    ),
    "mask": (
        lambda: cluster_attention(Q, Q, Q, M, key_mask=torch.ones(2, 7)),
        TypeError,
        "key_mask must be boolean",
    ),
    "mask list": (
        lambda: cluster_attention(Q, Q, Q, M, key_mask=[1]),
        TypeError,
        "key_mask must be",
    ),
    "causal": (
        lambda: cluster_attention(Q, Q, Q, M, causal="no"),
        TypeError,
        "causal must be True",
    ),
    "self": (
        lambda: cluster_attention(Q, Q, Q, M, self_bias=math.nan),
        ValueError,
        "self_bias must",
    ),
    "integers": (lambda: top_positions(M, 1), TypeError, "scores must be float64"),
    "count tensor": (lambda: top_positions(Q, torch.tensor(2)), ValueError, "count must be in"),
    "no axis": (lambda: top_positions(Q[0, 0, 0, 0], 0), ValueError, "count must be in"),
    "count": (lambda: top_positions(Q, 8), ValueError, r"count must be in \[0, 5\], got 8"),
    "scatter": (lambda: scatter_sum(Q, M, 7), ValueError, "must be members"),
    "scattered": (
        lambda: scatter_mean(M[..., None].float(), M + 7, 7),
        ValueError,
        r"members must be in \[0, 6\], got values from 7 to 7",
    ),
}


@pytest.mark.refuses
@pytest.mark.parametrize("case", BAD)
def test_misuse_is_explained(case):
    call, error, message = BAD[case]
    with pytest.raises(error, match=message):
        call()
