import pytest
import timm
import torch
from torch import nn

from attn_vision import VisionTransformer
from attn_vision.official import convit, vit

SIZE = {"img_size": [24, 32], "patch_size": 8, "embed_dim": 20, "depth": 3, "num_heads": 5}
OPTIONS = {
    "layer scale": {"init_values": 0.1},
    "mean of the patches": {"global_pool": "avg"},
    "no class token": {"global_pool": "avg", "class_token": False},
    "maximum": {"global_pool": "max", "fc_norm": False},
    "mean and maximum": {"global_pool": "avgmax", "class_token": False},
    "patches alone have positions": {"no_embed_class": True, "init_values": 1e-6},
    "attention pooling": {"global_pool": "map", "class_token": False},
    "attention pooling beside a class token": {"global_pool": "map", "reg_tokens": 1},
    "registers": {"reg_tokens": 4, "no_embed_class": True},
    "registers with positions": {"reg_tokens": 2},
    "norm before the blocks": {"pre_norm": True},
    "norm after pooling": {"fc_norm": True},
    "norm of the mean before": {"global_pool": "avg", "fc_norm": False},
    "normalized queries and keys": {"qk_norm": True},
    "no positions": {"pos_embed": "none"},
    "no biases": {"qkv_bias": False},
}


@pytest.mark.parametrize("case", OPTIONS)
def test_a_timm_model_of_any_size_and_option_gives_the_same_scores(case):
    torch.manual_seed(0)
    options = SIZE | {"num_classes": 4} | OPTIONS[case]
    timms = timm.models.VisionTransformer(**options).eval()
    with torch.no_grad():
        for parameter in timms.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    config = vit.config_from(options, timms.state_dict())
    ours = VisionTransformer(config).eval()
    ours.load_state_dict(vit.from_official(timms.state_dict(), config))
    x = torch.randn(2, 3, 24, 32)
    torch.testing.assert_close(ours(x), timms(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name,eps", [
    ("deit3_small_patch16_224", 1e-6),
    ("vit_small_patch14_reg4_dinov2", 1e-6),
    ("vit_base_patch32_clip_224", 1e-5),
])  # fmt: skip
def test_published_timm_models_load(name, eps):
    patch = {"deit3_small_patch16_224": 16, "vit_base_patch32_clip_224": 32}.get(name, 14)
    small = {"embed_dim": 24, "depth": 2, "num_heads": 2, "img_size": 2 * patch}
    timms = timm.create_model(name, **small, num_classes=3).eval()
    options = small | {"patch_size": patch, "num_classes": 3, "norm_eps": eps}
    options["no_embed_class"] = timms.no_embed_class
    config = vit.config_from(options, timms.state_dict())
    ours = config.build().eval()
    ours.load_state_dict(vit.from_official(timms.state_dict(), config))
    x = torch.randn(2, 3, 2 * patch, 2 * patch)
    torch.testing.assert_close(ours(x), timms(x), rtol=1e-4, atol=1e-5)


def test_positions_are_resized_as_timm_does():
    options = SIZE | {"num_classes": 4}
    timms = timm.models.VisionTransformer(**options, dynamic_img_size=True).eval()
    nn.init.normal_(timms.pos_embed)
    config = vit.config_from(options, timms.state_dict())
    ours = config.build().eval()
    ours.load_state_dict(timms.state_dict())
    for sides in ((16, 48), (40, 16)):  # 2 x 6 patches are as many as 3 x 4
        x = torch.randn(1, 3, *sides)
        torch.testing.assert_close(ours(x), timms(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_timms_convit_gives_the_same_scores(pool):
    torch.manual_seed(0)
    options = {"img_size": 32, "patch_size": 8, "depth": 3, "num_heads": 4, "num_classes": 5,
               "local_up_to_layer": 2, "global_pool": pool}  # fmt: skip
    timms = timm.models.ConVit(**options, embed_dim=6).eval()
    config = convit.config_from(options | {"embed_dim": 6}, timms.state_dict())
    ours = config.build().eval()
    ours.load_state_dict(convit.from_official(timms.state_dict(), config))
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours(x), timms(x), rtol=1e-4, atol=1e-5)


def test_other_checkpoints_are_refused():
    with pytest.raises(ValueError, match="no counterpart for global_pool=''"):
        convit.config_from({"global_pool": ""}, {})
    config = vit.config_from({"img_size": 8, "patch_size": 4, "embed_dim": 8, "num_heads": 2}, {})
    with pytest.raises(ValueError, match="not the weights of this ViT: missing: cls_token, pos_em"):
        vit.from_official({"conv1.weight": torch.zeros(1)}, config)
    with pytest.raises(ValueError, match=r"no counterpart for \['window_size'\]"):
        vit.config_from({"window_size": 3}, {})
    with pytest.raises(ValueError, match="no counterpart for global_pool='prr'"):
        vit.config_from({"global_pool": "prr"}, {})
