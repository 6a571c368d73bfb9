from dataclasses import replace

import pytest
import torch

from attn_vision.models import VisionTransformerConfig
from attn_vision.models.convit import ConViTConfig
from attn_vision.models.gated_positional import GatedPositionalAttention
from attn_vision.models.tokens import TokenState
from core_attn import record

SMALL = ConViTConfig(
    (12, 20), patch_size=4, channels=1, classes=5, dim=20, depth=3, heads=5, local_layers=2
)


def test_without_local_layers_it_is_the_plain_transformer():
    options = {"patch_size": 4, "channels": 1, "classes": 5, "dim": 20, "depth": 2, "heads": 4}
    model = ConViTConfig(12, **options, local_layers=0).build().eval()
    plain = VisionTransformerConfig(12, **options, qkv_bias=False, prefix_positions=False).build()
    plain.eval().load_state_dict(model.state_dict())
    x = torch.randn(2, 1, 12, 12)
    torch.testing.assert_close(model(x), plain(x))


@pytest.mark.parametrize("grid", [(3, 5), (1, 4), (4, 4)])
def test_the_fast_way_is_the_explicit_one_and_its_rows_sum_to_one(grid):
    layer = GatedPositionalAttention(20, heads=5, locality_strength=0.7)
    torch.nn.init.normal_(layer.gating_param)
    state = TokenState(torch.randn(2, grid[0] * grid[1], 20), grid)
    fast = layer(state)
    with record(layer, "pattern") as seen:
        torch.testing.assert_close(layer(state), fast)
    (pattern,) = seen.values()
    torch.testing.assert_close(pattern.sum(-1), torch.ones(pattern.shape[:-1]))


def test_nine_heads_begin_as_the_nine_places_of_a_convolution():
    layer = GatedPositionalAttention(18, heads=9)
    rows, columns = layer.places((14, 14))
    weights = torch.einsum("hij,hkl->hikjl", rows, columns)[:, 7, 7]  # of a query in the middle
    places = [divmod(int(w.argmax()), 14) for w in weights]
    assert places == [(7 + row, 7 + column) for column in (-1, 0, 1) for row in (-1, 0, 1)]
    torch.testing.assert_close(weights[4].max(), torch.tensor(0.318), atol=1e-3, rtol=0)
    assert layer.v.weight.equal(torch.eye(18))
    torch.testing.assert_close(layer.gate(), torch.full((9,), 0.7311), atol=1e-4, rtol=0)


BAD = {
    "all local": (lambda: replace(SMALL, local_layers=3), "local_layers must be smaller than dept"),
    "position": (lambda: replace(SMALL, prefix_positions=True), "the class token has no position"),
    "heads": (lambda: GatedPositionalAttention(10, 4), "dim 10 is not divisible by heads 4"),
    "grid": (
        lambda: GatedPositionalAttention(8, 4)(TokenState(torch.randn(1, 15, 8), None)),
        "GPSA needs a rectangular grid of patches",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_misuse_is_explained(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()
