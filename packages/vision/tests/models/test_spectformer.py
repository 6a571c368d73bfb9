from dataclasses import replace

import pytest
import torch

from attn_vision.models import VisionTransformerConfig
from attn_vision.models.spectformer import SpectFormerConfig
from attn_vision.models.spectformer_hierarchical import SpectFormerHConfig
from attn_vision.models.spectral_gate import (
    SpectralGate,
    filter_by_products,
    hermitian,
    resize_spectral,
)
from attn_vision.models.token_labels import Box, TokenScores, swapped, token_label_loss
from attn_vision.models.tokens import TokenState
from attn_vision.official import spectformer

SMALL = SpectFormerConfig(
    (16, 24), patch_size=4, channels=1, classes=5, dim=16, depth=3, spectral=2, mlp_ratio=2
)
STAGES = SpectFormerHConfig(
    (32, 64), channels=1, classes=5, dims=(8, 12, 16), depths=(1, 2, 1), stem_dim=4,
    heads=(2, 3, 4), mlp_ratios=(2, 2, 2), spectral=(True, True, False), token_labels=True,
)  # fmt: skip


@pytest.mark.parametrize("grid", [(4, 6), (5, 7), (1, 5), (4, 2), (3, 1), (40, 6), (33, 35)])
def test_the_gate_is_a_circular_convolution(grid):
    gate = SpectralGate(3, grid).double()
    x = torch.randn(2, grid[0] * grid[1], 3, dtype=torch.float64)
    y = gate(TokenState(x, grid)).unflatten(1, grid)
    kernel, maps = gate.kernel(), x.unflatten(1, grid)
    expected = sum(
        kernel[i, j] * maps.roll((i, j), (1, 2)) for i in range(grid[0]) for j in range(grid[1])
    )
    torch.testing.assert_close(y, expected)
    weight = hermitian(gate.complex_weight, grid[1])
    compiled = filter_by_products(maps, weight, gate.matrices(torch.float64))
    torch.testing.assert_close(compiled, expected)


@pytest.mark.parametrize("grid", [(4, 6), (5, 7), (4, 1), (4, 2), (1, 1)])
def test_only_the_hermitian_part_of_self_conjugate_columns_counts(grid):
    """The official gate on a CPU, which ignores the rest, with and without it."""
    weight = torch.randn(grid[0], grid[1] // 2 + 1, 3, 2, dtype=torch.float64)
    x = torch.randn(2, *grid, 3, dtype=torch.float64)
    gate = SpectralGate(3, grid)
    assert gate(TokenState(x.flatten(1, 2)[:0].float(), grid)).shape == (
        0,
        *x[0].flatten(0, 1).shape,
    )

    def official(w):
        spectrum = torch.fft.rfft2(x, dim=(1, 2), norm="ortho") * torch.view_as_complex(w)
        return torch.fft.irfft2(spectrum, s=grid, dim=(1, 2), norm="ortho")

    part = hermitian(weight, grid[1]).contiguous()
    torch.testing.assert_close(hermitian(part, grid[1]), part)
    torch.testing.assert_close(official(part), official(weight.contiguous()))


def test_without_gates_it_is_the_plain_transformer():
    plain = VisionTransformerConfig(
        (16, 24), patch_size=4, channels=1, classes=5, dim=16, heads=4, depth=3, mlp_ratio=2,
        class_token=False, pool="mean",
    ).build().eval()  # fmt: skip
    model = replace(SMALL, spectral=0).build().eval()
    model.load_state_dict(plain.state_dict())
    x = torch.randn(2, 1, 16, 24)
    torch.testing.assert_close(model(x), plain(x))


def test_a_resized_gate_of_equal_size_is_itself_and_other_sizes_run():
    weight = torch.randn(4, 4, 3, 2)
    assert resize_spectral(weight, (4, 6), (4, 6)) is weight
    assert resize_spectral(weight, (4, 6), (4, 7)).shape == (4, 4, 3, 2)
    corners = resize_spectral(weight, (4, 6), (7, 12))[[0, 0, -1, -1], [0, -1, 0, -1]]
    torch.testing.assert_close(corners, weight[[0, 0, -1, -1], [0, -1, 0, -1]])
    late = replace(SMALL, head_norm=True)
    for config, sides in ((SMALL, (24, 16)), (late, (24, 16)), (STAGES, (64, 32))):
        model = config.build().eval()
        other = model.resized(sides)
        assert not other.training
        assert other(torch.randn(2, 1, *sides)).shape == (2, 5)
        wide = config.build().eval().double().resized(sides)
        assert wide(torch.randn(2, 1, *sides, dtype=torch.float64)).dtype == torch.float64
        x = torch.randn(1, 1, *config.image_sides)
        torch.testing.assert_close(other.resized(config.image_size).config, config)
        torch.testing.assert_close(model.resized(config.image_size)(x), model(x))


def test_token_scores_are_swapped_back_to_their_image():
    model = STAGES.build().eval()
    images, box = torch.randn(2, 1, 32, 64), Box(0, 2, 1, 3)
    scores = model.token_scores(images, box)
    assert scores.tokens.shape == (2, 8, 5) and scores.box == box
    whole = model.token_scores(images, Box(0, 2, 0, 4))
    flipped = model.token_scores(images.flip(0))
    torch.testing.assert_close(whole.classes, flipped.classes)
    torch.testing.assert_close(whole.tokens, flipped.tokens.flip(0))
    plain = model.token_scores(images)
    torch.testing.assert_close(model(images), plain.classes + 0.5 * plain.tokens.amax(1))


def test_the_loss_of_token_labels():
    torch.manual_seed(0)
    tokens, classes = 6, 4
    scores = TokenScores(torch.randn(2, classes), torch.randn(2, tokens, classes), Box(0, 2, 0, 1))
    targets = torch.rand(2, classes, tokens + 2).softmax(1)
    share = 2 / tokens
    mixed = (1 - share) * targets[..., 1] + share * targets[..., 1].flip(0)
    image = -(mixed * scores.classes.log_softmax(-1)).sum(-1).mean()
    each = -(targets[..., 2:].transpose(1, 2) * scores.tokens.log_softmax(-1)).sum(-1).mean()
    torch.testing.assert_close(token_label_loss(scores, targets), image + 0.5 * each)
    hard = torch.eye(classes)[[1, 3]]
    same = token_label_loss(scores._replace(box=None), hard)
    columns = hard[..., None].expand(-1, -1, tokens + 2)
    torch.testing.assert_close(token_label_loss(scores._replace(box=None), columns), same)


def test_boxes_lie_on_the_map_and_cover_half_of_it_on_average():
    generator = torch.Generator().manual_seed(0)
    boxes = [Box.draw((16, 12), generator) for _ in range(500)]
    assert all(0 <= b.top <= b.bottom <= 16 and 0 <= b.left <= b.right <= 12 for b in boxes)
    mean = sum(box.area for box in boxes) / 500 / 192
    assert 0.2 < mean < 0.5  # the border cuts some off
    state = TokenState(torch.arange(8.0).view(2, 4, 1), (2, 2))
    assert swapped(state, Box(0, 1, 1, 2)).tokens.flatten().tolist() == [0, 5, 2, 3, 4, 1, 6, 7]


def test_foreign_weights_are_refused():
    state = spectformer.to_official(SMALL.build().state_dict(), SMALL)
    with pytest.raises(ValueError, match="not the weights of this SpectFormer: missing: blocks.2"):
        spectformer.from_official(
            {k: x for k, x in state.items() if not k.startswith("blocks.2")}, SMALL
        )
    with pytest.raises(ValueError, match="of another shape: .*complex_weight"):
        spectformer.from_official(state, replace(SMALL, image_size=(16, 32)))


BAD = {
    "grid": (
        lambda: SpectralGate(3, (4, 6))(TokenState(torch.zeros(1, 36, 3), (6, 6))),
        "was built for 4x6 tokens, got 6x6; interpolate the weights with resize_spectral",
    ),
    "same width of weight": (
        lambda: SpectralGate(3, (4, 6))(TokenState(torch.zeros(1, 28, 3), (4, 7))),
        "was built for 4x6 tokens, got 4x7",
    ),
    "image": (
        lambda: SMALL.build()(torch.randn(1, 1, 24, 24)),
        r"built for images of 16x24 pixels, got 24x24; model.resized\(\(24, 24\)\)",
    ),
    "alpha": (lambda: replace(SMALL, spectral=4), r"spectral must be in \[0, depth 3\], got 4"),
    "class token": (lambda: replace(SMALL, class_token=True), "spectral gates take patches only"),
    "heads": (lambda: replace(STAGES, heads=(2, 5, 4)), "are not divisible by heads"),
    "stages": (lambda: replace(STAGES, spectral=(True,)), "spectral must have one entry per stage"),
    "labels": (
        lambda: replace(STAGES, token_labels=False).build().token_scores(torch.zeros(1, 1, 8, 8)),
        "token scores need a configuration with token_labels",
    ),
    "columns": (
        lambda: token_label_loss(TokenScores(torch.zeros(1, 3), torch.zeros(1, 4, 3), None),
                                 torch.zeros(1, 3, 4)),
        "targets must have 6 columns for 4 tokens, got 4",
    ),
    "weight": (
        lambda: resize_spectral(torch.zeros(4, 4, 1, 2), (4, 5), (4, 6)),
        "is not one of a grid of 4x5 tokens, which has 4x3",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_misuse_is_explained(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()
