import pytest
import timm
import torch

from attn_vision import VisionTransformer
from attn_vision.official import vit


def test_a_timm_model_of_any_size_gives_the_same_scores():
    torch.manual_seed(0)
    options = {"img_size": [24, 32], "patch_size": 8, "embed_dim": 20, "depth": 3, "num_heads": 5}
    timms = timm.models.VisionTransformer(**options, num_classes=4, init_values=0.1).eval()
    config = vit.convert_config({**options, "num_classes": 4}, timms.state_dict())
    ours = VisionTransformer(config).eval()
    ours.load_state_dict(vit.convert(timms.state_dict()))
    x = torch.randn(2, 3, 24, 32)
    torch.testing.assert_close(ours(x), timms(x), rtol=1e-4, atol=1e-5)


def test_training_wrappers_are_removed():
    state = timm.models.VisionTransformer(
        img_size=8, patch_size=4, embed_dim=8, depth=1, num_heads=2
    ).state_dict()
    wrapped = {"model": {f"module.{name}": x for name, x in state.items()}, "epoch": 3}
    assert vit.convert(wrapped).keys() == state.keys()


def test_other_checkpoints_are_refused():
    with pytest.raises(ValueError, match="not a ViT state dict: it has no 'cls_token'"):
        vit.convert({"conv1.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"no counterpart for \['class_token'\]"):
        vit.convert_config({"class_token": False}, {})
