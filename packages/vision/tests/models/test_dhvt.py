from dataclasses import replace

import pytest
import torch

from attn_vision.models.daff import DynamicAggregationFeedForward
from attn_vision.models.dhvt import DHVTConfig
from attn_vision.models.tokens import TokenState

SMALL = DHVTConfig(32, dim=16, depth=2, heads=4, classes=5)


def test_the_same_weights_take_images_of_any_size():
    model = SMALL.build().eval()
    for sides in ((32, 32), (64, 64), (224, 224), (30, 45)):
        assert model(torch.randn(1, 3, *sides)).isfinite().all()


def test_fixed_statistics_within_the_convolutions_change_nothing():
    layer = DynamicAggregationFeedForward(8, hidden=12)
    state = TokenState(torch.randn(3, 13, 8), (3, 4), prefix=1)
    for _ in range(3):  # statistics that are not those of the start
        layer(state)
    for norm in (layer.bn1, layer.bn2, layer.bn3):
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    layer.eval()
    u = torch.nn.functional.gelu(layer.bn1(layer.conv1(state.feature_map)))
    v = u + torch.nn.functional.gelu(layer.bn2(layer.conv2(u)))
    expected = layer.bn3(layer.conv3(v)).flatten(2).transpose(1, 2)
    torch.testing.assert_close(layer(state)[:, 1:], expected)


BAD = {
    "patches": (lambda: replace(SMALL, patch_size=8).build(), "SOPE supports patch sizes 2, 4, 16"),
    "width": (lambda: replace(SMALL, patch_size=16, dim=12).build(), "must be a multiple of 8"),
    "positions": (lambda: replace(SMALL, positions=True), "the convolutions tell where a patch is"),
    "kernel": (lambda: DynamicAggregationFeedForward(8, 8, 4), "kernel_size must be odd, got 4"),
    "heads": (lambda: replace(SMALL, heads=3), "dim 16 is not divisible by heads 3"),
    "grid": (
        lambda: DynamicAggregationFeedForward(8, 8)(TokenState(torch.randn(1, 16, 8), None, 1)),
        "DAFF needs the patch grid; 15 patches have none",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_misuse_is_explained(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()
