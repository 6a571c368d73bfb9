"""DHA: identity, duplicated heads, grouping, budgets, saving."""

import copy

import pytest
import torch
from models_under_test import ids_of, small

from attn_language import fusion
from attn_language.conversion import cache_bytes
from attn_language.models.dha import DHAConfig
from attn_language.models.transformer import TransformerConfig

ROTARY = {"positions": "rotary", "heads": 4}


def dense(**changes):
    return small("transformer", **(ROTARY | changes))


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, {"causal": False}, {"dropout": 0.4}])
def test_identity_reproduces_the_model_bit_for_bit(changes):
    model, ids = dense(**changes), ids_of()
    before = model(ids)
    groups = fusion.planned(model, 1.0)
    assert groups.total == 2 * 2 * 4
    torch.testing.assert_close(fusion.fusing(copy.deepcopy(model), groups)(ids), before)
    assert fusion.averaged(model, groups)(ids).equal(before)


@torch.no_grad()
@pytest.mark.parametrize("bias", [True, False])
def test_copies_inside_groups_are_merged_without_loss(bias):
    model, ids = dense(qkv_bias=bias), ids_of()
    for block in model.blocks:
        for part in block.mixer.qkv.parameters():
            heads = part.unflatten(0, (12, 4))
            heads[6], heads[7] = heads[4], heads[5]  # keys 2, 3 like 0, 1
            heads[11] = heads[8]  # value 3 like 0
    before = model(ids)
    groups = fusion.planned(model, 10, method="adaptive")
    assert groups.keys == ((0, 1, 0, 1),) * 2 and groups.values == ((0, 1, 2, 0),) * 2
    after = fusion.averaged(model, groups)
    torch.testing.assert_close(after(ids), before, rtol=1e-5, atol=1e-5)
    assert cache_bytes(after, 10) == 10 * 10 * 4 * 4  # heads, tokens, features, bytes


@torch.no_grad()
def test_grouped_query_attention_is_a_special_case():
    model, ids = dense(), ids_of()
    maps = ((0, 0, 1, 1),) * 2
    merged = fusion.averaged(model, fusion.Groups(maps, maps))
    config = TransformerConfig(
        **(
            {f: getattr(merged.config, f) for f in TransformerConfig.__dataclass_fields__}
            | {"kv_heads": 2}
        )
    )
    plain = config.build().eval()
    plain.load_state_dict(merged.state_dict())
    torch.testing.assert_close(plain(ids), merged(ids), rtol=1e-6, atol=1e-6)
    q, k, v = torch.randn(1, 4, 5, 4), *torch.randn(2, 1, 2, 5, 4)
    torchs = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, is_causal=True, enable_gqa=True
    )
    ours = merged.blocks[0].mixer.attend(
        q, k, v, causal=True, k_head_map=maps[0], v_head_map=maps[0]
    )
    torch.testing.assert_close(ours.transpose(1, 2), torchs)


@pytest.mark.parametrize("method", ["adaptive", "cka", "contiguous"])
@pytest.mark.parametrize("budget", [4, 5, 9, 16, 0.5])
def test_budgets_are_met_exactly_by_every_method(method, budget):
    groups = fusion.planned(dense(), budget, method=method)
    assert groups.total == (budget if isinstance(budget, int) else 8)
    again = fusion.planned(dense(), budget, method=method)
    assert again == groups
    with pytest.raises(ValueError, match=r"budget must be in \[4, 16\] heads, got 3"):
        fusion.planned(dense(), 3, method=method)


@pytest.mark.parametrize("method", ["cka", "contiguous"])
def test_a_budget_that_does_not_divide_is_spent_evenly(method):
    groups = fusion.planned(dense(), 10, method=method)
    counts = [max(one) + 1 for pair in zip(*groups, strict=True) for one in pair]
    assert counts == [3, 3, 2, 2]


def test_fusion_reaches_its_target_and_keeps_more_than_the_mean():
    torch.manual_seed(0)
    model = dense()
    ids = torch.arange(24).remainder(7).repeat(8, 1)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    batch = (ids[:, :-1], ids[:, 1:])
    for _ in range(30):
        loss = torch.nn.functional.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    groups = fusion.planned(model, 0.5)
    fused, progress = fusion.fuse(model, groups, [batch] * 60, steps=60, lr=3e-3, multiplier_lr=1.0)
    assert progress.fusion[0] == pytest.approx(1, rel=1e-4)
    assert progress.fusion[-1] < 0.2
    assert isinstance(fused.config, DHAConfig) and fused.config.cached_heads() == 8


def test_other_models_and_wrong_maps_are_refused():
    with pytest.raises(ValueError, match="head fusion serves Transformers, not SpikeGPT"):
        fusion.planned(small("spikegpt"), 0.5)
    with pytest.raises(ValueError, match="value group 2 of layer 1 has no query head"):
        DHAConfig(heads=4, v_maps=((0, 1, 2, 3), (0, 1, 3, 3)))
    with pytest.raises(ValueError, match="groups must be in"):
        fusion.grouped(torch.eye(3), 4)
