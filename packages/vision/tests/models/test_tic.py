from dataclasses import replace

import pytest
import torch

from attn_vision.models.msa_conv import (
    MSAConv2d,
    MSAConvLayer,
    multi_directional_shift,
    window_products,
)
from attn_vision.models.tic import TicConfig
from core_attn import attention, record

SMALL = TicConfig(
    32, channels=1, classes=5, dims=(8, 16), depths=(2, 1), heads=(2, 4), dilations=(1, 2),
    mlp_ratios=(2, 2), stem_dim=4, kernel=3,
)  # fmt: skip


def unfolded(layer, x):
    """The formula: windows by torch's unfold."""
    (rows, columns), t = layer.kernel, layer.dilation
    padding = (t * (rows // 2), t * (columns // 2))

    def windows(part):
        flat = torch.nn.functional.unfold(part, layer.kernel, t, padding)
        return flat.view(len(x), layer.num_heads, -1, rows * columns, *x.shape[2:])

    q, k, v = layer.qkv(x.movedim(1, -1)).movedim(-1, 1).chunk(3, 1)
    q = q.unflatten(1, (layer.num_heads, -1))[:, :, :, None]
    scores = (q * windows(k)).sum(2) * q.shape[2] ** -0.5
    return (scores.softmax(2)[:, :, None] * windows(v)).sum(3).flatten(1, 2)


@pytest.mark.parametrize("kernel", [1, 3, (5, 3), (1, 3)])
@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("heads", [1, 2, 6])
def test_it_is_the_unfolded_formula(kernel, dilation, heads):
    layer = MSAConv2d(6, heads, kernel, dilation).double()
    x = torch.randn(2, 6, 5, 7, dtype=torch.float64, requires_grad=True)
    y, expected = layer(x), unfolded(layer, x)
    torch.testing.assert_close(y, expected)
    cotangent = torch.randn_like(y)
    for got, want in zip(
        torch.autograd.grad(y, (x, layer.qkv.weight), cotangent),
        torch.autograd.grad(expected, (x, layer.qkv.weight), cotangent),
        strict=True,
    ):
        torch.testing.assert_close(got, want)


def test_a_masked_kernel_over_the_map_is_global_attention():
    layer, x = MSAConv2d(6, 2, (7, 9), mask_padding=True), torch.randn(2, 6, 4, 5)
    q, k, v = (
        part.unflatten(-1, (2, -1)).transpose(1, 2)
        for part in layer.qkv(x.flatten(2).transpose(1, 2)).chunk(3, -1)
    )
    expected = attention(q, k, v).transpose(1, 2).flatten(2).transpose(1, 2).unflatten(2, (4, 5))
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("options", [{}, {"shift": True}, {"inter_pool": True}])
def test_the_same_weights_take_maps_of_any_size(options):
    model = replace(SMALL, **options).build().eval()
    with record(model, "pattern") as seen:
        model(torch.randn(1, 1, 32, 32))
    assert seen["stages.0.blocks.0.attn.attention"].shape[:3] == (1, 2, 64)
    for sides in ((40, 56), (17, 33), (224, 224)):
        with torch.no_grad():
            assert model(torch.randn(1, 1, *sides)).isfinite().all()


def test_shifted_heads_see_a_window_away():
    layer = MSAConv2d(5, 5, 1, shift=2)
    with record(layer, "pattern") as seen:
        layer(torch.randn(1, 5, 5, 6))
    tap = seen[""][0, :, 14]  # row 2, column 2; its heads see one position each
    rolled = multi_directional_shift(torch.arange(30.0).expand(1, 5, 30)[..., None], (5, 6), 2)
    assert tap.argmax(-1).tolist() == [14] * 5  # positions after rolling
    assert rolled[0, :, 14, 0].tolist() == [14.0, 26.0, 2.0, 16.0, 12.0]


def test_pooled_windows_join_one_softmax():
    layer = MSAConv2d(4, 2, 3, inter_pool=True).double()
    x = torch.randn(1, 4, 5, 6, dtype=torch.float64)
    with record(layer, "pattern") as seen:
        y = layer(x)
    pattern = seen[""]
    assert pattern.shape == (1, 2, 30, 30 + 9)
    torch.testing.assert_close(pattern.sum(-1), torch.ones_like(pattern.sum(-1)))
    # position (2, 3) sees rows 1-3 and columns 2-4, and rows 0-2, columns 0-2 of the 3x3 pooled map
    seen_by = (pattern[0, 0, 15] > 0).nonzero().flatten().tolist()
    fine = [6 * r + c for r in (1, 2, 3) for c in (2, 3, 4)]
    assert seen_by == fine + list(range(30, 39))
    assert y.shape == x.shape


BAD = {
    "even": (lambda: MSAConv2d(6, 1, 4), "MSA-Conv needs odd kernel sizes, got 4"),
    "even layer": (lambda: MSAConvLayer(6, 6, (3, 2)), r"odd kernel sizes, got \(3, 2\)"),
    "even function": (lambda: window_products(*torch.zeros(2, 1, 1, 1, 1), 2), "odd kernel"),
    "even net": (lambda: replace(SMALL, kernel=2), "odd kernel sizes, got 2"),
    "heads": (lambda: MSAConv2d(6, 4), "dim 6 is not divisible by heads 4"),
    "dilation": (lambda: MSAConv2d(6, 2, dilation=0), "dilation must be at least 1"),
    "stages": (lambda: replace(SMALL, heads=(2,)), "heads must have one entry per stage"),
}


@pytest.mark.parametrize("case", BAD)
def test_misuse_is_explained(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()
