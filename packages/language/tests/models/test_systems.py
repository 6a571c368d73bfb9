"""What each system's own definition asks for, beyond what the registry tests ask of all."""

import math

import pytest
import torch
from models_under_test import ids_of, small
from torch import nn
from torch.nn import functional as F

from attn_language import create
from attn_language.models.grassmann import GrassmannConfig, GrassmannMixing
from attn_language.models.lama import LowRankPooling
from attn_language.models.parts import PLAIN
from attn_language.models.rcmha import ConvolvedAttention, RCMHAConfig, next_segment
from attn_language.models.spikegpt import SpikeGPTConfig, spike
from attn_language.models.transformer import SelfAttention
from attn_language.models.uoe import (
    ExpertRouter,
    SelectiveAttention,
    TextRouter,
    TokenRouter,
    UnionFeedForward,
)
from attn_language.official import spikegpt as official_spikegpt
from attn_language.official import uoe as official_uoe
from attn_language.spikes import spike_rates
from core_attn import losses


def parameters(config):
    with torch.device("meta"):
        return sum(p.numel() for p in config.build().parameters())


# ---- SpikeGPT ----


def test_spikegpt_has_the_published_number_of_parameters():
    config = SpikeGPTConfig(vocab=50277, dim=768, depth=18)
    c, layers = 768, 18
    layer = 4 * c * c + 5 * c + 9 * c * c + 2 * c + 4 * c
    assert parameters(config) == layers * layer + 2 * c + 2 * 50277 * c + 2 * c
    assert round(parameters(config) / 1e6, 1) == 215.4


@pytest.mark.parametrize("depth", [1, 2, 8])
@torch.no_grad()
def test_spikegpt_steps_at_any_depth(depth):
    model, ids = small("spikegpt", depth=depth), ids_of(tokens=24)
    first, state = model.step(ids[:, :11])
    second, _ = model.step(ids[:, 11:], state)
    torch.testing.assert_close(torch.cat((first, second), 1), model(ids), rtol=1e-5, atol=1e-5)


def test_every_layer_fires_and_not_always():
    torch.manual_seed(0)
    model = small("spikegpt")
    measured = spike_rates(model, ids_of(batch=4, tokens=40))
    assert len(measured.rates) == 5
    assert all(0 < rate < 1 for rate in measured.rates.values())
    assert 0 < measured.accumulates < measured.multiplies
    with pytest.raises(ValueError, match="no model with neurons"):
        spike_rates(small("mha"), ids_of())


def test_the_surrogate_is_the_slope_of_an_arc_tangent():
    z = torch.tensor([-0.3, 0.0, 0.7], dtype=torch.float64, requires_grad=True)
    spike(z).sum().backward()
    torch.testing.assert_close(z.grad, 1 / (1 + (math.pi * z.detach()).square()))


def test_the_logit_pull_changes_gradients_only():
    torch.manual_seed(0)
    model, ids = small("spikegpt").train(), ids_of()
    logits = model(ids)
    (pull,) = losses(model).values()
    assert pull.item() == 0
    (grad,) = torch.autograd.grad(pull, logits)
    expected = torch.zeros_like(logits)
    top = logits.max(-1)
    expected.scatter_(
        -1, top.indices[..., None], 1e-4 / ids.numel() * top.values[..., None].detach()
    )
    torch.testing.assert_close(grad, expected)


def test_official_keys_that_are_missing_or_unknown_are_named():
    with pytest.raises(ValueError, match=r"missing keys in the checkpoint: emb\.weight"):
        official_spikegpt.config_from(
            {}, {"head.weight": torch.ones(1), "ln_out.weight": torch.ones(1)}
        )
    with pytest.raises(ValueError, match=r"unknown keys in the checkpoint: blocks\.0\.att\.gate"):
        official_spikegpt.from_official({"blocks.0.att.gate": torch.ones(1)}, SpikeGPTConfig())


# ---- LAMA ----


@pytest.mark.parametrize("context", ["mean", "learned"])
def test_lama_is_finite_without_words_and_padding_changes_nothing(context):
    pool = LowRankPooling(6, 3, context)
    h = torch.randn(3, 5, 6)
    h[1, 3:] = torch.nan
    valid = torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [False] * 5])
    h.requires_grad_()
    pooled = pool(h, valid)
    pooled.states.square().sum().backward()
    assert pooled.states[2].abs().max() == 0 and pooled.weights[2].abs().max() == 0
    alone = pool(h[1:2, :3])
    torch.testing.assert_close(pooled.states[1:2], alone.states)
    assert h.grad[2].abs().max() == 0 and h.grad[1, 3:].abs().max() == 0
    assert h.grad.isfinite().all() and pool.p.grad.isfinite().all()


def test_lama_of_zero_states_and_its_parameters():
    pool = LowRankPooling(6, 3)
    pooled = pool(torch.zeros(1, 4, 6))
    assert pooled.weights.allclose(torch.full((1, 3, 4), 0.25))
    assert sum(p.numel() for p in pool.parameters()) == 2 * 6 * 3
    with pytest.raises(ValueError, match="heads must be 2 or more"):
        LowRankPooling(6, 1)


@torch.no_grad()
def test_a_lama_classifier_reads_no_padding():
    model = create("lama", vocab=20, dim=8, hidden=4, heads=2).eval()
    ids = torch.randint(20, (2, 7))
    padded = F.pad(ids, (0, 4), value=3)
    both = model(padded, torch.tensor([7, 0]))
    torch.testing.assert_close(both[:1], model(ids[:1]))
    assert both.isfinite().all()
    with pytest.raises(ValueError, match="token id 20 is outside the vocabulary of 20"):
        model(ids.fill_(20))


# ---- Grassmann ----


@pytest.mark.parametrize(
    "depth, out_proj, millions",
    [(6, False, 12.607), (12, False, 17.367), (6, True, 13.001), (12, True, 18.156)],
)
def test_grassmann_counts_of_the_papers_table(depth, out_proj, millions):
    config = GrassmannConfig(depth=depth, out_proj=out_proj)
    assert round(parameters(config) / 1e6, 3) == millions


def test_transformer_counts_of_the_papers_table():
    model = create("transformer", vocab=1)
    for depth, millions in ((6, 12.585), (12, 17.324)):
        config = model.config.__class__(vocab=30522, dim=256, depth=depth, heads=4, hidden=1024)
        assert round(parameters(config) / 1e6, 3) == pytest.approx(millions, abs=1e-3)


@torch.no_grad()
def test_future_partners_leak_so_the_causality_test_can_fail():
    h = torch.randn(1, 9, 8)
    changed = h.clone()
    changed[:, 6] += 1
    for offsets, leaks in (((1, 2), False), ((-1, -2), True)):
        mixing = GrassmannMixing(8, 4, offsets)
        before, after = mixing(h)[0], mixing(changed)[0]
        assert before[:, :6].equal(after[:, :6]) is not leaks


@pytest.mark.parametrize("offsets", [(), (0,), (1, 1), (-1,), (1.5,)])
def test_grassmann_refuses_offsets(offsets):
    with pytest.raises(ValueError, match="offsets must be distinct positive integers"):
        GrassmannConfig(offsets=offsets)


# ---- RCMHA ----


def test_rcmha_variants_are_two_flags_of_one_module():
    names = {
        n: {p for p, _ in small(n).blocks[0].mixer.named_parameters()}
        for n in ("rcmha", "rmha", "mdha", "mha")
    }
    conv = {f"conv_{x}.{p}" for x in "qkv" for p in ("weight", "bias")}
    relative = {"distance", "distance_bias", "query_bias"}
    assert names["rcmha"] - names["mha"] == conv | relative
    assert names["rmha"] - names["mha"] == relative and names["mdha"] - names["mha"] == conv


@torch.no_grad()
def test_segments_are_one_text_where_the_convolution_is_carried():
    ids = ids_of(tokens=18)
    for carry in (True, False):
        model = small("rcmha", carry_conv=carry, memory=32)
        first, state = model.step(ids[:, :7])
        second, _ = model.step(ids[:, 7:], next_segment(state, model.config))
        same = torch.allclose(torch.cat((first, second), 1), model(ids), atol=1e-5)
        assert same is carry


@torch.no_grad()
def test_memory_is_bounded_and_distances_are_checked():
    model = small("rcmha", memory=4, max_distance=8)
    _, state = model.step(ids_of(tokens=6))
    kept = next_segment(state, model.config)
    assert kept.blocks[0].inputs.shape[1] == 4
    model.step(ids_of(tokens=5), kept)
    with pytest.raises(ValueError, match="distance 9 exceeds max_distance 8"):
        model.step(ids_of(tokens=6), kept)
    assert RCMHAConfig().max_distance == 4096
    layer = ConvolvedAttention(8, 2, max_distance=None)
    assert layer(torch.randn(1, 3, 8), 3, 0).shape == (1, 3, 8)


# ---- Union of Experts ----


@torch.no_grad()
@pytest.mark.parametrize("router", [TokenRouter, ExpertRouter])
def test_experts_that_get_every_token_are_the_dense_layers(router):
    torch.manual_seed(0)
    dense = SelfAttention(16, 4, range(4), range(4), rope=PLAIN)
    layer = SelectiveAttention(16, 4, router(16, 4, 4))
    ours = official_uoe.from_dense_attention(
        dense.qkv.weight, dense.qkv.bias, dense.out.weight, dense.out.bias, 4
    )
    layer.load_state_dict(ours, strict=False)
    x = torch.randn(2, 7, 16)
    torch.testing.assert_close(layer(x)[0], dense(x)[0], rtol=1e-5, atol=1e-6)
    up, down = nn.Linear(16, 32), nn.Linear(32, 16)
    union = UnionFeedForward(16, 32, 4, router(16, 4, 4))
    cut = official_uoe.from_dense_feed_forward(up.weight, up.bias, down.weight, down.bias, 4)
    union.load_state_dict(cut, strict=False)
    torch.testing.assert_close(union(x)[0], down(F.gelu(up(x))), rtol=1e-5, atol=1e-6)


def test_the_gate_is_trained_by_default_and_never_officially():
    for routing, learns in (("token", True), ("expert", True), ("official", False)):
        model = small("uoe", routing=routing)
        model(ids_of()).square().sum().backward()
        gates = [p.grad for n, p in model.named_parameters() if ".gate." in n]
        assert all(
            (g is not None and g.any()) is learns or (g is None) is not learns for g in gates
        )


@torch.no_grad()
def test_only_the_official_gate_depends_on_the_batch():
    ids = ids_of(batch=3)
    for routing, depends in (("token", False), ("expert", False), ("official", True)):
        model = small("uoe", routing=routing)
        together, alone = model(ids)[:1], model(ids[:1])
        assert torch.allclose(together, alone, atol=1e-5) is not depends


@pytest.mark.parametrize("causal", [True, False])
@torch.no_grad()
def test_what_padding_holds_is_nothing_to_the_official_gate(causal):
    model, ids = small("uoe", routing="official", gate_scale=False, causal=causal), ids_of()
    other = ids.clone()
    other[1, 13:] = (other[1, 13:] + 5) % 23
    lengths = torch.tensor([19, 13])
    assert model(ids, lengths)[0].equal(model(other, lengths)[0])
    assert model(ids, lengths)[1, :13].equal(model(other, lengths)[1, :13])


def test_experts_process_their_share_of_the_tokens():
    router = ExpertRouter(16, 4, 2)
    chosen = router(torch.randn(3, 20, 16))
    assert chosen.index.shape == (3, 4, 10)
    assert (chosen.index.diff(dim=-1) > 0).all()
    with pytest.raises(ValueError, match="hidden size 30 is not divisible by 4 heads"):
        create("uoe", dim=30, heads=4)


@pytest.mark.parametrize("tokens", [None, 5])
def test_a_text_takes_its_experts_for_all_its_tokens(tokens):
    torch.manual_seed(0)
    router = TextRouter(8, 3, 2, tokens=tokens)
    layer, x = UnionFeedForward(8, 12, 3, router), torch.randn(2, 5, 8)
    y, _ = layer(x)
    read = x.mean(1) if tokens is None else x.flatten(1)
    for row, best in enumerate(router.gate(read).topk(2).indices.tolist()):
        of = [F.gelu(x[row] @ layer.up.weight[e] + layer.up.bias[e]) for e in best]
        expected = sum(
            h @ layer.down.weight[e] + layer.down.bias[e] for h, e in zip(of, best, strict=True)
        )
        torch.testing.assert_close(y[row], expected)


def test_a_gate_on_tokens_in_a_row_is_for_texts_of_one_length():
    with pytest.raises(ValueError, match="texts of 5 tokens, got 4"):
        TextRouter(8, 3, 2, tokens=5)(torch.randn(1, 4, 8))
    pooled = TextRouter(8, 3, 2)
    x = torch.randn(1, 5, 8)
    padded = torch.cat((x, torch.full((1, 2, 8), 9.0)), 1)
    valid = torch.tensor([[True] * 5 + [False] * 2])
    assert pooled(padded, valid).experts.equal(pooled(x).experts)


# ---- all ----


@pytest.mark.parametrize("name", ["spikegpt", "grassmann", "rcmha", "uoe", "routing", "dha", "bam"])
def test_bfloat16_training_stays_near_float32(name):
    ids = ids_of(tokens=16)
    model = small(name).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    plain = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
    with torch.autocast("cpu", torch.bfloat16):
        half = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1).float(), ids[:, 1:].flatten())
    half.backward()
    assert abs(half.item() - plain.item()) < 0.25 * plain.item()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
