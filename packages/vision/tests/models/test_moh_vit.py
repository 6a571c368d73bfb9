from dataclasses import replace

import pytest
import torch

from attn_vision.models import VARIANTS
from attn_vision.models.moh_llama import MoHLlamaAttention
from attn_vision.models.moh_vit import MoHViTConfig

SMALL = MoHViTConfig(
    64, channels=1, classes=5, dims=(8, 16), depths=(1, 1), heads=(2, 4), mlp_ratios=(2, 2),
    shrinks=(2, 1), shared=(2, 1), routed=(0, 2),
)  # fmt: skip
ACTIVE = {
    "moh_vit_small_80": 343 / 429, "moh_vit_small_75": 323 / 429, "moh_vit_base_75": 441 / 588,
    "moh_vit_base_50": 294 / 588,
}  # fmt: skip


@pytest.mark.parametrize("name", ACTIVE)
def test_the_published_share_of_heads_acts(name):
    assert VARIANTS[name].active_share == pytest.approx(ACTIVE[name])


DIT = {"xl_2_90": 403 / 448, "xl_2_75": 0.75, "l_2_90": 344 / 384, "l_2_75": 0.75,
       "b_2_90": 129 / 144, "b_2_75": 0.75, "s_2_90": 64 / 72, "s_2_75": 0.75}  # fmt: skip


@pytest.mark.parametrize("name", DIT)
def test_the_published_share_of_heads_acts_in_the_diffusion_models(name):
    config = VARIANTS[f"moh_dit_{name}"]
    share = (sum(config.shared) + sum(config.routed)) / sum(config.heads)
    assert share == pytest.approx(DIT[name])


def test_one_shared_head_and_none_work():
    x = torch.randn(2, 1, 64, 64)
    for shared in ((1, 1), (0, 0)):
        model = replace(SMALL, shared=shared, routed=(1, 2)).build()
        model(x).sum().backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


BAD = {
    "routed": (lambda: replace(SMALL, routed=(0, 5)).build(), "routed=5 but only 3 routed heads"),
    "shared": (lambda: replace(SMALL, shared=(3, 1)).build(), r"shared heads must be in \[0, 2\]"),
    "none": (lambda: replace(SMALL, routed=(0, 0)).build(), "routed=0 needs all 4 heads"),
    "stages": (lambda: replace(SMALL, heads=(2,)), "heads must have one entry per stage"),
    "keys": (lambda: MoHLlamaAttention(32, 8, 0), "kv_heads 0 heads"),
    "llama": (lambda: MoHLlamaAttention(32, 8, 2, routed=5), "routed=5 but only 4 routed heads"),
}


@pytest.mark.parametrize("case", BAD)
def test_misuse_is_explained(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()
