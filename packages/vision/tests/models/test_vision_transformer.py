from contextlib import nullcontext
from dataclasses import replace
from inspect import unwrap

import pytest
import torch

from attn_vision import VARIANTS, VisionTransformer, VisionTransformerConfig, create
from attn_vision.models.tokens import TokenState
from core_attn import record, use_backend
from core_attn.ops._short_attention import native

SMALL = VisionTransformerConfig(16, patch_size=4, channels=1, classes=5, dim=24, depth=2)


@pytest.mark.parametrize(
    "name,parameters",
    [("deit_tiny", 5_717_416), ("deit_small", 22_050_664), ("deit_base", 86_567_656)],
)
def test_the_published_sizes(name, parameters):
    with torch.device("meta"):
        model = VisionTransformer(VARIANTS[name])
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_distilled_scores_are_the_mean_of_two_heads():
    model = VisionTransformer(replace(SMALL, distilled=True)).eval()
    images = torch.randn(2, 1, 16, 16)
    class_head, teacher_head = model.head_scores(images)
    assert not class_head.equal(teacher_head)
    torch.testing.assert_close(model(images), (class_head + teacher_head) / 2)


@pytest.mark.parametrize("sides", [(16, 16), (8, 24), (4, 4)])
def test_other_image_sizes_and_rectangles_work(sides):
    model = VisionTransformer(SMALL)
    with record(model, "pattern") as seen:
        assert model(torch.randn(2, 1, *sides)).shape == (2, 5)
    tokens = 1 + sides[0] * sides[1] // 16
    assert seen["blocks.1.attn"].shape == (2, 3, tokens, tokens)


def test_a_rectangular_model_equals_its_grid():
    model = VisionTransformer(replace(SMALL, image_size=(8, 24)))
    assert model.features(torch.randn(1, 1, 8, 24)).grid == (2, 6)
    assert model.features(torch.randn(1, 1, 8, 24)).feature_map.shape == (1, 24, 2, 6)


def test_drop_path_rises_with_depth_and_acts_in_training_only():
    model = VisionTransformer(replace(SMALL, depth=5, drop_path=0.4))
    rates = [block.drop_path1.rate for block in model.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    x = torch.randn(2, 1, 16, 16)
    model.eval()
    assert model(x).equal(model(x))


def test_save_and_load_as_a_pretrained_model(tmp_path):
    model = VisionTransformer(replace(SMALL, image_size=(8, 16))).eval()
    model.save_pretrained(tmp_path)
    again = VisionTransformer.from_pretrained(tmp_path)
    x = torch.randn(1, 1, 8, 16)
    assert again.config == model.config
    torch.testing.assert_close(again(x), model(x))


def test_a_setting_that_would_be_lost_is_not_saved(tmp_path):
    class Mine(VisionTransformer):
        def __init__(self, config: VisionTransformerConfig, extra: int = 3):
            super().__init__(config)
            self.extra = extra

    with pytest.raises(TypeError, match="Mine cannot be saved: .* does not keep extra"):
        Mine(SMALL, extra=7).save_pretrained(tmp_path)


SHORT = pytest.param(
    "short",
    marks=pytest.mark.skipif(native.missing() is not None, reason=str(native.missing())),
)


@pytest.mark.traces
@pytest.mark.parametrize("backend", ["reference", "sdpa", SHORT])
def test_the_compiled_model_equals_eager_with_each_backend(backend, monkeypatch):
    # of an object that the graph itself makes, checked methods cannot be traced
    monkeypatch.setattr(TokenState, "with_tokens", unwrap(TokenState.with_tokens))
    monkeypatch.setattr(TokenState, "patches", property(unwrap(TokenState.patches.fget)))
    model, x = VisionTransformer(SMALL).eval(), torch.randn(200, 1, 16, 16)
    torch._dynamo.reset()
    with torch.no_grad(), use_backend(backend, "attention"):
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x), model(x))


@pytest.mark.parametrize("backend", ["reference", "sdpa", None])
def test_the_exported_model_equals_eager_at_any_batch_size(backend):
    model, x = VisionTransformer(SMALL).eval(), torch.randn(200, 1, 16, 16)
    with use_backend(backend, "attention") if backend else nullcontext():
        batch = torch.export.Dim("batch", min=2)
        program = torch.export.export(model, (x,), dynamic_shapes=({0: batch},)).module()
        torch.testing.assert_close(program(x[:2]), model(x[:2]))
        torch.testing.assert_close(program(x), model(x))


def test_the_compiled_model_trains_like_the_plain_one():
    torch.manual_seed(0)
    model, x = VisionTransformer(SMALL), torch.randn(2, 1, 16, 16)
    model(x).square().sum().backward()
    plain = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    torch._dynamo.reset()
    torch.compile(model, backend="aot_eager")(x).square().sum().backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, plain[name])


@pytest.mark.parametrize("name,options", [
    ("deit_tiny", {}), ("convit_tiny", {"local_layers": 1}), ("dhvt_tiny", {}),
    ("evit_tiny", {"keep_rates": (1.0,)}),
    ("evit_tiny", {"keep_rates": (0.5,)}), ("sparsifiner_tiny", {"top_coefficients": 2}),
    ("spectformer_tiny", {"spectral": 1}),
])  # fmt: skip
def test_what_an_attention_layer_gives_is_dropped_too(name, options):
    model = create(name, image_size=16, patch_size=4, dim=24, depth=2, dropout=0.5, **options)
    seen = {}
    for index, block in enumerate(model.blocks):
        block.drop_path1.register_forward_hook(lambda m, a, y, i=index: seen.update({i: y}))
    model.train()(torch.randn(4, 3, 16, 16))
    shares = [float((change == 0).float().mean()) for change in seen.values()]
    assert shares == pytest.approx([0.5, 0.5], abs=0.1)
    seen.clear()
    model.eval()(torch.randn(4, 3, 16, 16))
    assert all((change != 0).all() for change in seen.values())


def test_mean_pooling_ignores_the_class_token():
    model = VisionTransformer(replace(SMALL, pool="mean", depth=0)).eval()
    x = torch.randn(1, 1, 16, 16)
    before = model(x)
    with torch.no_grad():
        model.cls_token += 1.0
    torch.testing.assert_close(model(x), before)


BAD = {
    "sides": (lambda: replace(SMALL, image_size=(16, 18)), r"image_size \(16, 18\) is not a mult"),
    "heads": (lambda: replace(SMALL, heads=5), "dim 24 is not divisible by heads 5"),
    "pool": (
        lambda: replace(SMALL, pool="top"),
        "pool must be one of class, mean, max, mean_max, map, got 'top'",
    ),
    "distilled": (lambda: replace(SMALL, pool="mean", distilled=True), "distilled needs pool"),
    "name": (
        lambda: create("diet_tiny"),
        "no model is named 'diet_tiny'; did you mean 'deit_tiny'",
    ),
    "setting": (lambda: create("deit_tiny", size=3), "deit_tiny has no setting 'size'; settings:"),
    "channels": (lambda: VisionTransformer(SMALL)(torch.randn(1, 3, 16, 16)), r"\(batch, 1, hei"),
    "pixels": (lambda: VisionTransformer(SMALL)(torch.randn(1, 1, 16, 17)), "16x17 pixels cannot"),
}


@pytest.mark.parametrize("case", BAD)
def test_misuse_is_explained(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()
