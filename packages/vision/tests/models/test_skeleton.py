import json
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from attn_vision.models import (
    VARIANTS,
    ImageConfig,
    StagedConfig,
    StagedTransformer,
    VisionTransformer,
    VisionTransformerConfig,
)
from attn_vision.models.blocks import Block, Mlp, SelfAttention
from attn_vision.models.stems import PatchEmbed

SHAPE = {"image_size": 16, "patch_size": 4, "channels": 1, "dim": 24, "depth": 2, "classes": 3}


@dataclass(frozen=True)
class ScaledConfig(VisionTransformerConfig):
    factor: float = 1.0

    def build(self):
        return Scaled(self)


class Scaled(VisionTransformer):
    config: ScaledConfig

    def forward(self, images):
        return self.config.factor * super().forward(images)


@dataclass(frozen=True)
class PyramidConfig(StagedConfig):
    def build(self):
        return Pyramid(self)


class Pyramid(StagedTransformer):
    config: PyramidConfig

    def make_embed(self, stage):
        dims = (self.config.channels, *self.config.dims)
        return PatchEmbed(dims[stage], dims[stage + 1], 2)

    def make_block(self, stage, index):
        dim = self.config.dims[stage]
        return Block(
            dim, SelfAttention(dim, 2), Mlp(dim, 8), drop_path=self.drop_path_rate(stage, index)
        )


def test_a_setting_of_a_subclass_is_saved_and_loaded(tmp_path):
    model = Scaled(ScaledConfig(**SHAPE, factor=3.0)).eval()
    model.save_pretrained(tmp_path)
    again, x = Scaled.from_pretrained(tmp_path), torch.randn(1, 1, 16, 16)
    assert again.config == model.config
    torch.testing.assert_close(again(x), model(x))


def test_a_configuration_of_another_class_is_refused():
    with pytest.raises(TypeError, match="VisionTransformer is built from a VisionTransformerConf"):
        VisionTransformer(ScaledConfig(**SHAPE))


def test_weights_of_another_shape_are_not_loaded_in_part(tmp_path):
    VisionTransformer(VisionTransformerConfig(**SHAPE)).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(SHAPE | {"depth": 3}))
    with pytest.raises(RuntimeError, match="Missing key"):
        VisionTransformer.from_pretrained(tmp_path)


def test_a_part_with_an_initialization_of_its_own_keeps_it():
    class Ones(nn.Linear):
        def init_weights(self):
            nn.init.ones_(self.weight)

    class Odd(VisionTransformer):
        def make_head(self):
            return Ones(24, 3)

    assert (Odd(VisionTransformerConfig(**SHAPE)).head.weight == 1).all()


def test_stages_give_one_map_each_and_rates_rise_over_all_blocks(tmp_path):
    config = PyramidConfig(
        (8, 12), channels=1, classes=3, dims=(4, 6), depths=(2, 3), drop_path=0.4
    )
    model = config.build()
    maps = model.features(torch.randn(2, 1, 8, 12))
    assert [tuple(m.shape) for m in maps] == [(2, 4, 4, 6), (2, 6, 2, 3)]
    rates = [block.drop_path1.rate for stage in model.stages for block in stage.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    model.eval().save_pretrained(tmp_path)
    x = torch.randn(1, 1, 8, 12)
    torch.testing.assert_close(Pyramid.from_pretrained(tmp_path)(x), model(x))


BAD = {
    "stages": (lambda: StagedConfig(dims=(4,)), r"dims must have one entry per stage \(4"),
    "size": (lambda: ImageConfig(image_size=0), "image_size must be at least 1, got 0"),
    "channels": (lambda: ImageConfig(channels=0), "channels must be at least 1, got 0"),
    "classes": (lambda: ImageConfig(classes=-1), "classes must be at least 0, got -1"),
    "rate": (lambda: ImageConfig(drop_path=1.0), r"drop_path must be in \[0, 1\), got 1.0"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_settings_are_refused(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("name,field,value,message", [
    ("deit_tiny", "depth", 1.5, "depth must be a whole number, got 1.5"),
    ("deit_tiny", "depth", -1, "depth must be at least 0, got -1"),
    ("deit_tiny", "image_size", (8,), r"image_size must be a whole number or .* got \(8,\)"),
    ("deit_tiny", "norm_eps", float("nan"), "norm_eps must be a number, got nan"),
    ("deit_tiny", "norm_eps", -1, "norm_eps must be at least 0, got -1"),
    ("deit_tiny", "class_token", 1, "class_token must be true or false, got 1"),
    ("deit_tiny", "layer_scale", "x", "layer_scale must be a number or none, got 'x'"),
    ("deit_tiny", "mlp_ratio", -1, "mlp_ratio must be above 0, got -1"),
    ("evit_tiny", "keep_rates", 0.5, "keep_rates must be a list, each a number, got 0.5"),
    ("tic_tiny", "heads", (0, 1, 1, 1), r"heads must be at least 1, got \(0, 1, 1, 1\)"),
    ("tic_tiny", "stem_dim", 0, "stem_dim must be at least 1, got 0"),
    ("moh_vit_small_80", "shrinks", (0, 1, 1, 1), "shrinks must be at least 1"),
    ("moh_dit_s_2_90", "patch_size", 0, "patch_size must be at least 1, got 0"),
    ("moh_dit_s_2_90", "label_dropout", 1.0, r"label_dropout must be in \[0, 1\), got 1.0"),
    ("moh_vit_small_80", "routed", (0, 0, 10, 12), "routed=10 but only 9 routed heads exist"),
    ("moh_dit_s_2_90", "shared", (7,) * 12, r"shared heads must be in \[0, 6\], got 7"),
    ("moh_dit_s_2_90", "routed", (0,) * 12, "routed=0 needs all 6 heads to be shared"),
    ("halonet_h0", "kinds", (1, 2, 3, 4), "kinds must be a list, each a word"),
])  # fmt: skip
def test_values_of_another_type_or_range_are_refused_by_name(name, field, value, message):
    with pytest.raises((TypeError, ValueError), match=message):
        replace(VARIANTS[name], **{field: value})
