import pytest
import torch

from core_attn import KeyValueCache, MultiHeadAttention, edit, record


def test_equals_torch_multi_head_attention():
    torch.manual_seed(0)
    ours, torchs = MultiHeadAttention(12, 3), torch.nn.MultiheadAttention(12, 3, batch_first=True)
    torchs.load_state_dict(
        {
            "in_proj_weight": ours.qkv.weight,
            "in_proj_bias": ours.qkv.bias,
            "out_proj.weight": ours.proj.weight,
            "out_proj.bias": ours.proj.bias,
        }
    )
    x = torch.randn(2, 5, 12)
    torch.testing.assert_close(ours(x), torchs(x, x, x)[0])


@pytest.mark.parametrize("options", [{}, {"kv_heads": 2}, {"qk_norm": True}, {"head_dim": 5}])
def test_watching_the_pattern_changes_nothing(options):
    torch.manual_seed(0)
    layer = MultiHeadAttention(12, 4, **options).eval()
    x, gate = torch.randn(2, 5, 12), torch.rand(2, 5, 4)
    free = layer(x, causal=True, head_gate=gate)
    with record(layer, "pattern") as pattern, record(layer, "heads") as heads:
        watched = layer(x, causal=True, head_gate=gate)
    torch.testing.assert_close(watched, free)
    torch.testing.assert_close(pattern[""].sum(-1), torch.ones(2, 4, 5))
    torch.testing.assert_close(layer.proj(heads[""].flatten(2)), free)


def test_cross_attention_reads_the_context_only():
    layer = MultiHeadAttention(8, 2, context_dim=6).eval()
    x, context = torch.randn(1, 3, 8), torch.randn(1, 4, 6)
    mask = torch.tensor([True, True, False, True])
    changed = context.clone()
    changed[:, 2] = 9.0
    torch.testing.assert_close(layer(x, context, mask=mask), layer(x, changed, mask=mask))


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_decoding_in_steps_equals_one_pass(kv_heads):
    layer = MultiHeadAttention(12, 4, kv_heads=kv_heads).eval()
    x, cache = torch.randn(2, 7, 12), KeyValueCache(capacity=9)
    with torch.no_grad():
        steps = [layer(part, causal=True, cache=cache) for part in x.split([3, 1, 2, 1], dim=1)]
        torch.testing.assert_close(torch.cat(steps, 1), layer(x, causal=True))


def test_dropout_acts_in_training_only_with_and_without_a_listener():
    layer, x = MultiHeadAttention(8, 2, dropout=0.5), torch.randn(1, 6, 8)
    with record(layer, "pattern"):
        assert not layer(x).equal(layer(x))
    assert not layer(x).equal(layer(x))
    layer.eval()
    assert layer(x).equal(layer(x))


def test_an_edited_head_has_no_influence():
    layer, x = MultiHeadAttention(8, 2).eval(), torch.randn(1, 6, 8)
    keep_first = torch.tensor([1.0, 0.0])[:, None]
    with edit(layer, {"heads": lambda heads: heads * keep_first}):
        one = layer(x)
        with torch.no_grad():
            layer.qkv.weight[20:] *= 3.0  # values of head 1
        torch.testing.assert_close(layer(x), one)


BAD = {
    "heads": (lambda: MultiHeadAttention(10, 3), "dim 10 is not divisible by heads 3"),
    "kv heads": (lambda: MultiHeadAttention(12, 4, kv_heads=3), "not divisible by kv_heads 3"),
    "features": (lambda: MultiHeadAttention(8, 2)(torch.randn(1, 2, 6)), "x has 6 features"),
    "no context": (
        lambda: MultiHeadAttention(8, 2, context_dim=8)(torch.randn(1, 2, 8)),
        "cross attention needs context",
    ),
    "a context": (
        lambda: MultiHeadAttention(8, 2)(torch.randn(1, 2, 8), torch.randn(1, 2, 8)),
        "self attention takes no context",
    ),
    "cache with gradients": (
        lambda: MultiHeadAttention(8, 2)(torch.randn(1, 2, 8), cache=KeyValueCache(3)),
        "cache serves under torch.no_grad",
    ),
}


@pytest.mark.refuses
@pytest.mark.parametrize("case", BAD)
def test_misuse_is_explained(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()


def test_a_full_cache_is_refused():
    layer = MultiHeadAttention(8, 2)
    with torch.no_grad(), pytest.raises(ValueError, match="capacity 3 cannot hold 4 tokens"):
        layer(torch.randn(1, 4, 8), cache=KeyValueCache(3))


def test_a_cache_keeps_the_projected_context_and_chosen_rows():
    layer, cache = MultiHeadAttention(8, 2, context_dim=6, qk_norm=True), KeyValueCache(capacity=4)
    x, context = torch.randn(3, 2, 8), torch.randn(3, 4, 6)
    with torch.no_grad():
        first = layer(x, context, cache=cache)
        torch.testing.assert_close(first, layer(x, context))
        cache.select(torch.tensor([2, 0]))
        torch.testing.assert_close(layer(x[[2, 0]], context[[2, 0]], cache=cache), first[[2, 0]])
    with pytest.raises(ValueError, match="empty"):
        KeyValueCache(capacity=1).contents()


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"heads": 0}, "heads must be at least 1, got 0"),
        ({"heads": -1, "head_dim": 4}, "heads must be at least 1, got -1"),
        ({"heads": 2, "kv_heads": 0}, "kv_heads must be at least 1"),
        ({"heads": 2, "head_dim": 0}, "head_dim must be at least 1"),
        ({"heads": 2, "dropout": 2.0}, r"dropout must be in \[0, 1\), got 2.0"),
        ({"heads": 2, "dropout": "0.1"}, "dropout must be"),
    ],
)
def test_what_cannot_be_a_layer_is_refused(wrong, named):
    with pytest.raises(ValueError, match=named):
        MultiHeadAttention(16, **wrong)


@torch.no_grad()
def test_a_cache_is_as_it_was_after_an_error():
    layer, cache = MultiHeadAttention(8, heads=2).eval(), KeyValueCache(capacity=4)
    x = torch.randn(1, 4, 8)
    first = layer(x[:, :2], causal=True, cache=cache)
    for wrong in ({"mask": torch.ones(7, 7, dtype=torch.bool)}, {"lengths": [1]}):
        with pytest.raises((TypeError, ValueError)):
            layer(x[:, 2:], cache=cache, **wrong)
    with pytest.raises(ValueError, match=r"do not go with \(2, 2, 1, 4\)"):
        layer(x[:, 2:3].expand(2, -1, -1), cache=cache)
    with pytest.raises(ValueError, match="capacity 4 cannot hold 5"):
        layer(x[:, :3], cache=cache)
    rest = layer(x[:, 2:], causal=True, cache=cache)
    torch.testing.assert_close(torch.cat([first, rest], 1), layer(x, causal=True))
