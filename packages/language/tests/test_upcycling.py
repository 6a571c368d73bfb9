"""BAM and BTX: identities, counts of the paper's table, refusals."""

import pytest
import torch
from models_under_test import ids_of, small

from attn_language.conversion import cache_bytes
from attn_language.models.bam import BAMConfig, balance_loss
from attn_language.models.transformer import TransformerConfig
from attn_language.upcycling import upcycle


def seeds(count=3, **changes):
    models = []
    for number in range(count):
        model = small("bam_seed", **changes)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * number * torch.randn(parameter.shape))
        models.append(model.eval())
    return models


@torch.no_grad()
@pytest.mark.parametrize("kv", ["expert", "shared"])
def test_identical_experts_attend_as_the_dense_model_does(kv):
    dense = small("bam_seed")
    mixed = upcycle([dense] * 3, kv).model
    x = torch.randn(2, 7, 16)
    for ours, theirs in zip(mixed.blocks, dense.blocks, strict=True):
        ours.mixer.router.weight.normal_()
        torch.testing.assert_close(ours.mixer(x)[0], theirs.mixer(x)[0], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_router_of_one_expert_is_that_expert():
    dense = seeds()
    mixed = upcycle(dense).model
    x = torch.randn(2, 7, 16).abs() + 0.1
    for number, expert in enumerate(dense):
        for ours, theirs in zip(mixed.blocks, expert.blocks, strict=True):
            ours.mixer.router.weight.fill_(-1000.0)
            ours.mixer.router.weight[number] = 1000.0
            ours.feed_forward.router.weight.copy_(ours.mixer.router.weight)
            torch.testing.assert_close(ours.mixer(x)[0], theirs.mixer(x)[0], rtol=1e-5, atol=1e-5)
            fed, dense_fed = ours.feed_forward(x)[0], theirs.feed_forward(x)[0]
            torch.testing.assert_close(fed, dense_fed, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_what_is_copied_and_what_averaged():
    dense = seeds(2)
    mixed, report = upcycle(dense, "shared")
    first, second = (m.state_dict() for m in dense)
    state = mixed.state_dict()
    head = state["embed.tokens.weight"]
    assert head.equal((first["embed.tokens.weight"] + second["embed.tokens.weight"]) / 2)
    q0, k0, _ = first["blocks.0.mixer.qkv.weight"].split(16)
    q1, k1, _ = second["blocks.0.mixer.qkv.weight"].split(16)
    assert state["blocks.0.mixer.qkv.weight"][:32].equal(torch.cat((q0, q1)))
    assert state["blocks.0.mixer.qkv.weight"][32:48].equal((k0 + k1) / 2)
    assert len(report) == len(state)
    assert "blocks.0.mixer.qkv.weight: queries copied, keys and values averaged" in report
    assert "blocks.1.feed_forward.down: copied" in report
    btx, told = upcycle(dense, "single")
    assert "blocks.0.mixer.out.weight: averaged" in told
    assert btx(ids_of()).isfinite().all()


def test_parameters_of_the_papers_table():
    small_ = {
        "vocab": 256000, "dim": 1024, "depth": 6, "heads": 8, "hidden": 2048, "tied": False,
        "positions": "rotary", "norm": "scale", "activation": "silu", "gated": True,
        "block": "parallel", "qkv_bias": False, "out_bias": False, "bias": False,
    }  # fmt: skip

    def count(config):
        with torch.device("meta"):
            return sum(p.numel() for p in config.build().parameters())

    assert count(TransformerConfig(**small_)) == 587_209_728
    bam = count(BAMConfig(**small_, experts=4))
    assert bam == 776_002_560
    feed_forward, router = 1024 * 4096 + 2048 * 1024, 4 * 1024
    assert bam - 6 * (3 * feed_forward + router) == 662_731_776  # active: one router counted
    btx = count(BAMConfig(**small_, experts=4, kv="single"))
    assert btx == 700_480_512
    assert btx - 6 * 3 * feed_forward == 587_234_304


def test_caches_hold_every_experts_keys_or_those_of_one():
    dense = seeds()
    one = cache_bytes(dense[0], 10)
    assert cache_bytes(upcycle(dense).model, 10) == 3 * one
    assert cache_bytes(upcycle(dense, "shared").model, 10) == one


def test_balance_is_one_for_uniform_routing_and_counts_no_padding():
    even = torch.full((2, 4, 4), 0.25)
    taken = torch.eye(4).expand(2, 4, 4)
    assert balance_loss(even, taken).item() == pytest.approx(1.0)
    one = torch.zeros(2, 4, 4)
    one[..., 2] = 1.0
    assert balance_loss(one, one).item() == pytest.approx(4.0)
    valid = torch.tensor([[True] * 4, [False] * 4])
    mixed = torch.cat((even[:1], one[1:]))
    assert balance_loss(mixed, torch.cat((taken[:1], one[1:])), valid).item() == pytest.approx(1.0)


def test_other_shapes_kinds_vocabularies_and_ties_are_refused():
    dense = seeds(1)[0]
    for changes, message in (
        ({"dim": 24}, "expert 1 has dim 24, expert 0 has 16"),
        ({"vocab": 40}, "expert 1 has vocab 40, expert 0 has 23"),
        ({"tied": False}, "expert 1 has tied False, expert 0 has True"),
    ):
        with pytest.raises(ValueError, match=message):
            upcycle([dense, small("bam_seed", **changes)])
    with pytest.raises(ValueError, match="expert 0 has pre blocks"):
        upcycle([small("llama")] * 2)
    with pytest.raises(ValueError, match="expert 1 is a SpikeGPTConfig"):
        upcycle([dense, small("spikegpt")])
    with pytest.raises(ValueError, match="2 models or more, got 1"):
        upcycle([dense])
