from dataclasses import replace

import pytest
import timm
import torch

from attn_vision.models import VisionTransformerConfig
from attn_vision.models.sparsifiner import (
    SparsifinerConfig,
    reconstruction_loss,
    saved_share,
    sparsity,
)
from attn_vision.models.tokens import TokenState
from attn_vision.official import sparsifiner

OPTIONS = {"patch_size": 4, "channels": 1, "classes": 5, "dim": 24, "depth": 2, "heads": 3}
SMALL = SparsifinerConfig((16, 24), **OPTIONS, keep_rates=(0.3,), top_coefficients=2)
IMAGES = torch.randn(2, 1, 16, 24, generator=torch.Generator().manual_seed(0))


def test_all_keys_are_the_dense_model():
    plain = VisionTransformerConfig((16, 24), **OPTIONS).build().eval()
    config = replace(SMALL, keep_rates=(1.0,))
    model = config.build().eval()
    model.load_state_dict(sparsifiner.from_dense(plain.state_dict(), config))
    torch.testing.assert_close(model(IMAGES), plain(IMAGES))


def test_a_timm_checkpoint_becomes_one_in_one_call():
    options = {"img_size": [16, 24], "patch_size": 4, "in_chans": 1, "num_classes": 5}
    options |= {"embed_dim": 24, "depth": 2, "num_heads": 3}
    timms = timm.models.VisionTransformer(**options).eval()
    config = replace(SMALL, keep_rates=(1.0,))
    model = config.build().eval()
    model.load_state_dict(sparsifiner.from_dense(timms.state_dict(), config))
    torch.testing.assert_close(model(IMAGES), timms(IMAGES), rtol=1e-4, atol=1e-5)


def test_every_query_has_its_budget_of_keys_in_every_batch():
    layer = SMALL.build().eval().blocks[0].attn
    for batch in (1, 3):
        state = TokenState(torch.randn(batch, 25, 24), (4, 6), prefix=1)
        q, k, _ = layer.queries(state)
        mask = layer.mask(layer.mask_predictor(q, k), None)
        assert mask[:, :, 0].all()
        assert (mask[:, :, 1:].sum(-1) == 8).all()  # ceil(0.3 * 25)


def test_sparsity_is_told_block_by_block():
    model = SMALL.build().eval()
    first, second = sparsity(model, IMAGES)
    assert (first["block"], second["block"]) == (0, 1)
    assert first["attn_mask_sparsity"] == pytest.approx(1 - (25 + 24 * 8) / 25**2)
    assert first["basis_coef_sparsity"] == pytest.approx(1 - 2 / 4)  # two of 25 // 6 patterns
    filled = float((model.blocks[1].attn.mask_predictor.proj_back_n.abs() > 0.02).float().mean())
    assert second["basis_sparsity"] == pytest.approx(1 - filled)
    expected = saved_share(25, 8, 0.3, width=4, size=4, filled=filled, top=2)
    assert second["multiplications_saved"] == pytest.approx(expected)


def test_predictors_learn_the_attention_of_their_backbone():
    torch.manual_seed(0)
    model = SMALL.build()
    predictors = [p for n, p in model.named_parameters() if n in model.predictor_parameters()]
    optimizer, losses = torch.optim.AdamW(predictors, 3e-2), []
    for _ in range(30):
        loss = reconstruction_loss(model.reconstructed(IMAGES))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


BAD = {
    "rate": (lambda: replace(SMALL, keep_rates=(0.0,)), r"keep_rates must be in \(0, 1\], got 0"),
    "list": (lambda: replace(SMALL, keep_rates=(0.5,) * 3), "1 value or one per block"),
    "width": (lambda: replace(SMALL, reduce_c=9).build(), "lower reduce_c and reduce_n"),
    "basis": (lambda: replace(SMALL, reduce_n=26).build(), "lower reduce_c and reduce_n"),
    "top": (lambda: replace(SMALL, top_coefficients=5).build(), r"must be in \[1, 4\], got 5"),
    "registers": (lambda: replace(SMALL, registers=1), "no other token before the patches"),
    "image": (
        lambda: SMALL.build()(torch.randn(1, 1, 24, 16)),
        r"built for images of \(16, 24\) pixels, got \(24, 16\)",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_misuse_is_explained(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()
