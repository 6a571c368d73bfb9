from dataclasses import replace

import pytest
import timm
import torch

from attn_vision.models.halo_attention import HaloAttention
from attn_vision.models.halonet import VARIANTS, HaloNetConfig
from attn_vision.official import halonet
from core_attn import record

SMALL = HaloNetConfig(
    (32, 64), channels=1, classes=5, dims=(8, 16), depths=(1, 2), widths=(8, 8), strides=(1, 2),
    heads=2, block=4, halo=1, stem_dim=8,
)  # fmt: skip


@pytest.mark.parametrize("name", [
    "halonet_h1", "halonet26t", "halonet50ts", "eca_halonext26ts", "sehalonet33ts",
    "halo2botnet50ts_256", "haloregnetz_b",
])  # fmt: skip
def test_weights_of_timm_convert_and_agree(name):
    torch.manual_seed(0)
    peer = timm.create_model(name, num_classes=7)
    for part in peer.modules():  # else the zero of the last norms hides every branch
        if isinstance(part, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(part.weight, 0.5, 1.0)
            part.momentum = 1.0
    images = torch.randn(1, 3, *peer.default_cfg["input_size"][1:])
    with torch.no_grad():  # statistics that keep the features' size
        peer.train()(images)
        for part in peer.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.running_var.clamp_(min=0.1)
    config = replace(VARIANTS[name], classes=7)
    model = config.build().eval()
    model.load_state_dict(halonet.from_official(peer.state_dict(), config))
    again = halonet.to_official(model.state_dict(), config)
    assert again.keys() == peer.state_dict().keys()
    assert all(x.equal(peer.state_dict()[key]) for key, x in again.items())
    with torch.no_grad():
        expected = peer.eval()(images)
        error = (model(images) - expected).abs().max()
    assert error < 1e-3 * expected.std()


@pytest.mark.parametrize("ratio", [0.33, 0.5, 2.0])
def test_queries_are_as_wide_as_timms_at_any_ratio(ratio):
    row = {"type": "self_attn", "d": 2, "c": 36, "s": 2, "br": 1.0}
    attention = {"block_size": 4, "halo_size": 1, "num_heads": 2, "qk_ratio": ratio}
    peer = timm.models.byobnet.ByobNet(
        timm.models.byobnet.ByoModelCfg(
            blocks=(timm.models.byobnet.ByoBlockCfg(**row),) * 2, stem_chs=8, stem_type="3x3",
            self_attn_layer="halo", self_attn_kwargs=attention, downsample="conv1x1",
        ),
        num_classes=3,
    ).eval()  # fmt: skip
    options = {"img_size": 64, "stem": "3x3, maxpool", "blocks": [list(row.values())[:4]] * 2}
    config = halonet.config_from(options | attention, peer.state_dict())
    model = config.build().eval()
    model.load_state_dict(halonet.from_official(peer.state_dict(), config))
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(model(images), peer(images), rtol=1e-4, atol=1e-5)


def test_foreign_weights_are_refused_by_name():
    state = timm.create_model("halonet26t", num_classes=7).state_dict()
    with pytest.raises(ValueError, match="not the weights of this HaloNet: missing: .*height"):
        halonet.from_official(state, replace(VARIANTS["halonet_h1"], classes=7))
    with pytest.raises(ValueError, match="config needs 'blocks', a row for each stage"):
        halonet.config_from({}, {})
    with pytest.raises(ValueError, match="not a HaloNet in timm's layout"):
        halonet.config_from({"blocks": [["self_attn", 1, 16, 1, 1.0]]}, {})


@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"stride": 2, "block": 3, "halo": 1}])
def test_each_pixel_by_itself_gives_the_same(options):
    """Queries taken one by one, with logits written out."""
    torch.manual_seed(0)
    options = {"block": 4, "halo": 2, "out_dim": 12} | options
    layer = HaloAttention(6, heads=2, **options).double()
    x = torch.randn(1, 6, 12, 24, dtype=torch.float64)
    with torch.no_grad():
        y, tokens = layer(x), x.permute(0, 2, 3, 1)[0]
        q = layer.q(tokens).unflatten(-1, (2, -1))
        kv = layer.kv(tokens).unflatten(-1, (2, -1))
        h, window, stride = layer.halo, layer.block + 2 * layer.halo, layer.stride
        full = torch.zeros(2, 12 // stride, 24 // stride, 6, dtype=torch.float64)
        for row in range(12 // stride):
            for column in range(24 // stride):
                top, left = (p * stride // layer.block * layer.block - h for p in (row, column))
                i, j = (p * stride % layer.block // stride for p in (row, column))
                for head in range(2):
                    one = q[row * stride, column * stride, head]
                    logits, values = [], []
                    for a in range(window):
                        for b in range(window):
                            inside = 0 <= top + a < 12 and 0 <= left + b < 24
                            both = kv[top + a, left + b, head] if inside else kv[0, 0, 0] * 0
                            key, value = both.split([layer.head_dim, 6])
                            logit = layer.head_dim**-0.5 * one @ key
                            logit += one @ layer.height[a - i + window - 1]
                            logits.append(logit + one @ layer.width[b - j + window - 1])
                            values.append(value)
                    weights = torch.stack(logits).softmax(0)
                    full[head, row, column] = weights @ torch.stack(values)
        expected = full.permute(0, 3, 1, 2).reshape(1, 12, *full.shape[1:3])
        if layer.pooled:
            expected = torch.nn.functional.avg_pool2d(expected, 2)
    torch.testing.assert_close(y, expected)


def test_one_block_over_the_map_is_global_attention():
    layer = HaloAttention(6, heads=2, block=6, halo=0)
    x = torch.randn(1, 6, 6, 6)
    with record(layer, "pattern") as seen:
        layer(x)
    torch.testing.assert_close(seen[""].sum(-1), torch.ones(1, 2, 36))


def test_any_size_pads_and_crops():
    layer = HaloAttention(6, heads=2, block=4, halo=1, any_size=True)
    x = torch.randn(2, 6, 5, 7)
    padded = torch.nn.functional.pad(x, (0, 1, 0, 3))
    torch.testing.assert_close(layer(x), layer(padded)[:, :, :5, :7])


def test_rows_of_distances_that_never_occur_get_no_gradient():
    layer = HaloAttention(6, heads=2, block=4, halo=2)
    layer(torch.randn(2, 6, 8, 8)).square().sum().backward()
    used = layer.height.grad.abs().sum(1) > 0
    assert used.tolist() == [False] * 4 + [True] * 11


def test_rectangles_work_and_other_sizes_say_which_fit():
    model = SMALL.build().eval()
    assert model(torch.randn(2, 1, 64, 32)).shape == (2, 5)
    with pytest.raises(ValueError, match="a map of 9x8, which is not divisible by block 4; sizes "):
        model(torch.randn(1, 1, 36, 32))
    assert replace(SMALL, any_size=True).build()(torch.randn(2, 1, 37, 50)).shape == (2, 5)


BAD = {
    "letters": (
        lambda: replace(SMALL, kinds=("h", "hx")),
        "kinds must be 2 letters of 'h', 'b' and 'c'",
    ),
    "whole map": (
        lambda: replace(SMALL, kinds=("h", "bb")),
        "whole map was built for images of 32x64 pixels, which must be square",
    ),
    "expansion": (lambda: replace(SMALL, expansion=-1.0), "expansion must be at least 0"),
    "stem": (lambda: replace(SMALL, stem="5x5"), "stem must be one of '7x7', 'tiered', '3x3'"),
    "heads": (lambda: HaloAttention(10, heads=4), "out_dim 10 is not divisible by heads 4"),
    "stride": (lambda: HaloAttention(8, heads=2, stride=3), "stride must be 1 or 2, got 3"),
    "halo": (lambda: HaloAttention(8, heads=2, halo=-1), "halo at least 0, got 8, -1"),
    "map": (
        lambda: HaloAttention(8, heads=2)(torch.randn(1, 8, 30, 30)),
        "a feature map of 30x30 is not divisible by block 8",
    ),
    "image": (lambda: replace(SMALL, image_size=40), "sizes that are multiples of 32 fit"),
    "channels": (lambda: SMALL.build()(torch.randn(1, 3, 32, 64)), r"must be \(batch, 1, height"),
}


@pytest.mark.parametrize("case", BAD)
def test_misuse_is_explained(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()
