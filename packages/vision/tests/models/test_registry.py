"""What holds for every named model; a new one needs a row in SHRUNK and in PARAMETERS."""

from dataclasses import replace

import onnxruntime
import pytest
import torch
from torch import nn

from attn_vision.models import VARIANTS, create
from attn_vision.models.blocks import DropPath
from core_attn import losses, record

_COLUMN = {"image_size": 16, "patch_size": 4, "channels": 1, "classes": 3, "dim": 24, "depth": 2}
SHRUNK = {
    "VisionTransformerConfig": _COLUMN | {"heads": 3},
    "ConViTConfig": _COLUMN | {"heads": 4, "local_layers": 1},
    "DHVTConfig": _COLUMN | {"heads": 4, "patch_size": 4},
    "EViTConfig": _COLUMN | {"heads": 3, "keep_rates": (0.7, 0.5)},
    "SparsifinerConfig": _COLUMN | {"heads": 3, "top_coefficients": 2},
    "HaloNetConfig": {
        "image_size": 32, "channels": 1, "classes": 3, "dims": (8, 16), "depths": (1, 1),
        "widths": (8, 16), "strides": (1, 2), "kinds": ("c", "h"), "heads": 2, "block": 4,
        "halo": 1, "head_dim": None, "stem_dim": 8, "group_width": 0, "final_dim": 0,
        "expansion": 0.0,
    },
    "MoHViTConfig": {
        "image_size": 32, "channels": 1, "classes": 3, "dims": (8, 16), "depths": (1, 2),
        "heads": (2, 4), "mlp_ratios": (2, 2), "shrinks": (4, 1), "shared": (2, 1),
        "routed": (0, 2),
    },
    "SpectFormerConfig": _COLUMN | {"heads": 4, "spectral": 1, "drop_path": 0.0},
    "SpectFormerHConfig": {
        "image_size": 32, "channels": 1, "classes": 3, "dims": (8, 16), "depths": (1, 2),
        "stem_dim": 4, "heads": (2, 4), "mlp_ratios": (2, 2), "spectral": (True, False),
        "drop_path": 0.0,
    },
    "TicConfig": {
        "image_size": 16, "channels": 1, "classes": 3, "dims": (8, 16), "depths": (2, 1),
        "stem_dim": 4, "heads": (2, 4), "dilations": (1, 2), "mlp_ratios": (2, 2), "kernel": 3,
    },
    "MoHDiTConfig": {
        "image_size": 8, "channels": 2, "classes": 3, "dim": 16, "head_dim": 4, "heads": (4, 4),
        "shared": (2, 4), "routed": (1, 0),
    },
}  # fmt: skip
PARAMETERS = {
    "deit_tiny": 5_717_416, "deit_small": 22_050_664, "deit_base": 86_567_656,
    "deit_tiny_distilled": 5_910_800, "deit_small_distilled": 22_436_432,
    "deit_base_distilled": 87_338_192,
    "convit_tiny": 5_710_512, "convit_small": 27_777_322, "convit_base": 86_540_040,
    "convit_tiny_plus": 9_972_912, "convit_small_plus": 48_979_882,
    "convit_base_plus": 153_134_856,
    "dhvt_tiny": 6_008_650, "dhvt_small": 23_425_450, "dhvt_tiny_patch2": 5_845_162,
    "dhvt_small_patch2": 22_766_698, "dhvt_tiny_domainnet": 6_105_975,
    "dhvt_small_domainnet": 23_788_431, "dhvt_tiny_imagenet": 6_267_334,
    "dhvt_small_imagenet": 24_040_606,
    "evit_tiny": 5_717_416, "evit_small": 22_050_664, "evit_base": 86_567_656,
    "sparsifiner_tiny": 5_717_416 + 201_216, "sparsifiner_small": 22_050_664 + 201_216,
    "sparsifiner_base": 86_567_656 + 201_216,
    "moh_vit_small_80": 49_910_548, "moh_vit_small_75": 49_910_548,
    "moh_vit_base_75": 90_020_632, "moh_vit_base_50": 90_023_512,
    "moh_dit_xl_2_90": 675_371_552, "moh_dit_xl_2_75": 675_394_592,
    "moh_dit_l_2_90": 458_250_272, "moh_dit_l_2_75": 458_266_656,
    "moh_dit_b_2_90": 130_441_760, "moh_dit_b_2_75": 130_441_760,
    "moh_dit_s_2_90": 32_898_848, "moh_dit_s_2_75": 32_900_384,
    "halonet_h0": 5_500_952, "halonet_h1": 8_100_056, "halonet_h2": 9_404_312,
    "halonet_h3": 11_841_304, "halonet_h4": 19_101_976, "halonet_h5": 30_717_272,
    "halonet_h6": 43_456_792, "halonet_h7": 67_433_240, "halonet26t": 12_480_288,
    "halonet50ts": 22_733_280, "sehalonet33ts": 13_691_712, "eca_halonext26ts": 10_756_885,
    "halo2botnet50ts_256": 22_635_360, "haloregnetz_b": 11_680_072,
    "spectformer_tiny": 9_158_376, "spectformer_xsmall": 20_028_520,
    "spectformer_small": 32_449_768, "spectformer_base": 57_159_656,
    "spectformer_h_small": 21_777_928, "spectformer_h_base": 32_539_880,
    "spectformer_h_large": 54_162_792, "spectformer_h_small_token_labels": 22_226_928,
    "spectformer_h_base_token_labels": 33_052_880, "spectformer_h_large_token_labels": 54_675_792,
    "tic_tiny": 7_870_576, "tic_small": 18_565_448,
}  # fmt: skip


def shrunk(config):
    return replace(config, **SHRUNK[type(config).__name__])


# Names that differ in size alone are one small model.
SMALL = {shrunk(config): name for name, config in VARIANTS.items()}
EVERY = pytest.mark.parametrize("config", SMALL, ids=SMALL.get)
# Compilers are slow: one small model of each class.
ONE_OF_EACH = {type(config): config for config in reversed(SMALL)}
EACH = pytest.mark.parametrize("config", ONE_OF_EACH.values(), ids=SMALL.get)
NAMED = {config: type(config).__name__ for config in ONE_OF_EACH.values()}
_OF = {name: config for config, name in NAMED.items()}
EXPORTED = NAMED | {
    replace(
        _OF["VisionTransformerConfig"], pool="map", class_token=False, distilled=False
    ): "a query that pools",
    replace(
        _OF["SparsifinerConfig"], prunes_tokens=(True,), token_keep_rates=(0.7, 0.5)
    ): "patches left out",
}


def built(config, **changes):
    torch.manual_seed(0)
    return replace(config, **changes).build()


@pytest.mark.parametrize("name", PARAMETERS)
def test_it_has_the_published_number_of_parameters(name):
    with torch.device("meta"):
        model = create(name)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]


@EVERY
def test_it_trains(config):
    model = built(config, drop_path=0.2)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    inputs, before = model.example_inputs(4), {n: p.clone() for n, p in model.named_parameters()}
    for _ in range(3):
        loss = (model(*inputs) - 1).square().mean() + sum(losses(model).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.isfinite()
    frozen = {n for n, p in model.named_parameters() if p.grad is None}
    # A predictor's choice has no gradient; the last MLP of a class token needs no squeeze there.
    assert all("mask_predictor" in name for name in frozen), frozen
    moved = [n for n, p in model.named_parameters() if n not in frozen and p.equal(before[n])]
    assert not moved, moved


@EVERY
def test_one_image_trains_as_two_of_it(config):
    one, two = (built(config, drop_path=0.0).train() for _ in range(2))
    inputs = one.example_inputs(1)
    try:
        for model, times in ((one, 1), (two, 2)):
            y = model(*(x.expand(times, *x.shape[1:]) for x in inputs))
            ((y - 1).square().mean() + sum(losses(model).values())).backward()
    except ValueError as error:
        assert "more than 1 value per channel" in str(error)
        return
    grads = [
        (name, p.grad, q.grad)
        for (name, p), q in zip(one.named_parameters(), two.parameters(), strict=True)
        if p.grad is not None
    ]
    near = 1e-4 * max(float(grad.abs().max()) for _, grad, _ in grads)
    for name, grad, of_two in grads:
        torch.testing.assert_close(of_two, grad, rtol=1e-3, atol=near, msg=name)


@EVERY
def test_branches_are_dropped_at_rates_that_rise_from_zero(config):
    rates = [m.rate for m in built(config, drop_path=0.3).modules() if isinstance(m, DropPath)]
    if not rates:
        pytest.skip("this model has no stochastic depth, as the official one")
    assert rates[0] == 0 and rates == sorted(rates) and rates[-1] == pytest.approx(0.3)


@EVERY
def test_every_attention_layer_can_be_watched_without_changing_the_result(config):
    model = built(config).eval()
    inputs = model.example_inputs(2)
    plain = model(*inputs)
    for tap in ("pattern", "heads"):
        with record(model, tap) as seen:
            watched = model(*inputs)
            assert all(x.isfinite().all() for x in seen.values())
        torch.testing.assert_close(watched, plain, rtol=1e-4, atol=1e-5)


@EVERY
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_half_precision_stays_near(config, dtype):
    model = built(config).eval()
    inputs = model.example_inputs(2)
    exact = model(*inputs)
    with torch.autocast("cpu", dtype):
        rounded = model(*inputs)
    assert rounded.isfinite().all()
    assert (rounded.float() - exact).abs().max() <= 0.1 * exact.abs().max() + 0.05
    model.train()
    with torch.autocast("cpu", dtype):
        model(*inputs).float().square().mean().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@EVERY
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=["f64", "bf16"])
def test_all_of_it_in_another_dtype_stays_near(config, dtype):
    model = built(config).eval()
    inputs = model.example_inputs(2)
    exact = model(*inputs)
    other = model.to(dtype)(*(x.to(dtype) if x.is_floating_point() else x for x in inputs))
    assert other.dtype == dtype
    near = 1e-4 if dtype == torch.float64 else 0.1 * exact.abs().max() + 0.05
    assert (other - exact).abs().max() <= near
    try:
        larger = (config.image_size, 2 * config.image_size)
        assert (
            model(
                torch.randn(1, config.channels, *larger, dtype=dtype),
                *(x[:1].to(dtype) if x.is_floating_point() else x[:1] for x in inputs[1:]),
            ).dtype
            == dtype
        )
    except ValueError as error:
        assert str(config.image_size) in str(error)


@EVERY
def test_it_is_saved_and_loaded_with_its_settings(config, tmp_path):
    model = built(config).eval()
    model.save_pretrained(tmp_path)
    again, inputs = type(model).from_pretrained(tmp_path), model.example_inputs(1)
    assert again.config == config
    torch.testing.assert_close(again(*inputs), model(*inputs))


@EVERY
def test_rectangular_images_work_or_are_refused_with_the_sizes_that_do(config):
    model = built(config, image_size=(config.image_size, 2 * config.image_size)).eval()
    assert model(*model.example_inputs(1)).isfinite().all()
    square = built(config).eval()
    try:
        assert square(*model.example_inputs(1)).isfinite().all()
    except ValueError as error:
        assert str(config.image_size) in str(error)


@EACH
def test_the_compiled_model_equals_eager(config):
    model = built(config).eval()
    inputs = model.example_inputs(3)
    torch._dynamo.reset()
    with torch.no_grad():
        compiled = torch.compile(model, backend="aot_eager")
        torch.testing.assert_close(compiled(*inputs), model(*inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", EXPORTED, ids=EXPORTED.get)
def test_the_exported_program_and_onnx_serve_any_batch(config, tmp_path):
    model, path = built(config).eval(), tmp_path / "model.onnx"
    inputs, batch = model.example_inputs(3), torch.export.Dim("batch", min=1)
    shapes = tuple({0: batch} for _ in inputs)
    with torch.no_grad():
        torch.export.save(
            torch.export.export(model, inputs, dynamic_shapes=shapes), path.with_suffix(".pt2")
        )
        program = torch.export.load(path.with_suffix(".pt2")).module()
        for size in (1, 2, 5):
            given = model.example_inputs(size)
            torch.testing.assert_close(program(*given), model(*given), rtol=1e-4, atol=1e-5)
        torch.onnx.export(
            model, inputs, path, dynamo=True, dynamic_shapes=shapes, verbose=False, optimize=False
        )
        session = onnxruntime.InferenceSession(path)
        names = [given.name for given in session.get_inputs()]
        for size in (1, 2, 5):
            given = model.example_inputs(size)
            fed = {name: x.numpy() for name, x in zip(names, given, strict=True)}
            onnx = torch.from_numpy(session.run(None, fed)[0])
            torch.testing.assert_close(onnx, model(*given), rtol=1e-4, atol=1e-5)


@EVERY
def test_equal_images_give_equal_results_in_any_batch_and_order(config):
    model = built(config).eval()
    inputs = model.example_inputs(3)
    with torch.no_grad():
        whole = model(*inputs)
        apart = torch.cat([model(*(x[i : i + 1] for x in inputs)) for i in range(3)])
    torch.testing.assert_close(apart, whole, rtol=1e-4, atol=1e-5)


def test_a_batch_of_one_with_one_patch_is_refused_in_training_where_it_breaks():
    model = create("dhvt_tiny", image_size=4, patch_size=4, dim=16, depth=1, classes=3)
    with pytest.raises(ValueError, match="more than (one patch|1 value)"):
        model.train()(torch.randn(1, 3, 4, 4))


def test_parts_that_initialize_themselves_are_not_overwritten():
    model = create("convit_tiny", dim=16, depth=2, local_layers=1, image_size=16, patch_size=4)
    assert model.blocks[0].attn.v.weight.equal(torch.eye(16))
    assert isinstance(model.blocks[1].attn.qkv, nn.Linear)
