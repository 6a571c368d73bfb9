from dataclasses import replace

import pytest
import torch

from attn_vision.models import VisionTransformerConfig
from attn_vision.models.evit import EViTConfig, keep_schedule, multiply_adds, select, token_counts
from attn_vision.models.tokens import TokenState

OPTIONS = {"patch_size": 4, "channels": 1, "classes": 5, "dim": 24, "depth": 4, "heads": 3}
SMALL = EViTConfig((16, 24), **OPTIONS, keep_rates=(1, 0.7, 1, 0.5))
IMAGES = torch.randn(3, 1, 16, 24, generator=torch.Generator().manual_seed(0))


def test_keeping_all_is_the_plain_transformer_bit_for_bit():
    plain = VisionTransformerConfig((16, 24), **OPTIONS).build().eval()
    for model in (replace(SMALL, keep_rates=(1.0,)).build(), SMALL.build()):
        model.eval().load_state_dict(plain.state_dict())
        assert model(IMAGES, keep_rate=1.0).equal(plain(IMAGES))


FUSED = {0.9: (179, 163, 148), 0.8: (159, 129, 105), 0.7: (140, 100, 72), 0.6: (120, 74, 46),
         0.5: (100, 52, 28)}  # fmt: skip
MACS = {0.9: 4.0, 0.8: 3.5, 0.7: 3.0, 0.6: 2.6, 0.5: 2.3}


@pytest.mark.parametrize("rate", FUSED)
@pytest.mark.parametrize("fuse", [True, False])
def test_published_counts_of_tokens_and_multiplications(rate, fuse):
    config = EViTConfig(dim=384, heads=6, keep_rates=keep_schedule(12, rate), fuse=fuse)
    counts = token_counts(config)
    if fuse:
        assert tuple(counts[i] for i in (3, 6, 9)) == FUSED[rate]
    # Published to a decimal; without fusion 0.8 gives 3.44, published as 3.5.
    assert multiply_adds(config) / 1e9 == pytest.approx(MACS[rate], abs=0.06)


def test_a_number_of_tokens_overrides_the_rates_and_a_rate_only_where_one_is_configured():
    model = SMALL.build().eval()
    assert [model.keep(block, 24, keep_rate=0.8) for block in range(4)] == [24, 20, 24, 20]
    assert [model.keep(block, 24, tokens=7) for block in range(4)] == [7] * 4
    state = model.features(IMAGES, tokens=[24, 6, 7, 3])
    assert state.tokens.shape[1] == 1 + 3 + 1
    assert (state.kept[:, -1] == -4).all()  # the token fused in block 3 is no patch
    assert ((state.kept[:, :-1] >= 0) | (state.kept[:, :-1] == -2)).all()


def test_class_distillation_and_register_tokens_are_never_ranked():
    config = replace(SMALL, distilled=True, registers=2)
    state = config.build().eval().features(IMAGES)
    assert state.prefix == 4
    assert state.patches.shape[1] == token_counts(config)[-1] - 4


def test_any_number_of_threads_keeps_the_same_patches():
    model, before, kept = SMALL.build().eval(), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            kept.append(model.features(IMAGES).kept)
    finally:
        torch.set_num_threads(before)
    assert kept[0].equal(kept[1]) and kept[0].equal(kept[2])


def test_of_equally_attended_patches_the_first_go_on():
    state = TokenState(torch.arange(5.0)[None, :, None], (1, 4), prefix=1)
    small = select(state, torch.full((1, 4), 0.25), keep=2, fused_as=-1)
    assert small.kept.tolist() == [[0, 1, -1]]
    torch.testing.assert_close(small.tokens.flatten()[-1], torch.tensor(0.25 * (3 + 4)))


BAD = {
    "rate": (lambda: replace(SMALL, keep_rates=(1, 0, 1, 1)), r"keep_rates must be in \(0, 1\]"),
    "list": (lambda: replace(SMALL, keep_rates=(1, 0.5)), "1 value or one per block"),
    "class token": (
        lambda: replace(SMALL, class_token=False, pool="mean"),
        "class_token must be True",
    ),
    "place": (lambda: keep_schedule(4, 0.5, after=(4,)), r"blocks in \[0, 4\), got 4"),
    "call": (lambda: SMALL.build()(IMAGES, keep_rate=1.5), r"keep_rate must be in \(0, 1\], got 1"),
    "none": (lambda: SMALL.build()(IMAGES, tokens=0), r"tokens must be in \[1, 24\] at block 0"),
    "more": (lambda: SMALL.build()(IMAGES, tokens=25), r"tokens must be in \[1, 24\] at block 0"),
    "counts": (lambda: SMALL.build()(IMAGES, tokens=[5, 5]), "one per block"),
    "pixels": (lambda: replace(SMALL, image_size=18), "not a multiple of patch_size 4"),
}


@pytest.mark.parametrize("case", BAD)
def test_misuse_is_explained(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()
