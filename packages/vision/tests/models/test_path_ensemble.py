import pytest
import timm
import torch
from torch.nn import functional as F

from attn_vision import create
from attn_vision.models import VisionTransformerConfig
from attn_vision.models.path_ensemble import PathEnsemble, greedy_pruning, self_distillation

SMALL = VisionTransformerConfig(
    16, patch_size=4, channels=1, classes=5, dim=24, depth=2, heads=3, layer_scale=0.3
)
IMAGES = torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 3])


def timms(**options):
    shape = {"img_size": 16, "patch_size": 4, "in_chans": 1, "num_classes": 5, "embed_dim": 24}
    return timm.models.VisionTransformer(**shape, depth=2, num_heads=3, **options)


MODELS = {
    "ours": SMALL.build,
    "ours, mean": lambda: VisionTransformerConfig(**vars(SMALL) | {"pool": "mean"}).build(),
    "a class token that enters late": lambda: create(
        "convit_tiny", image_size=16, patch_size=4, channels=1, classes=5, dim=24, depth=3, heads=3,
        local_layers=2,
    ),
    "patches left out": lambda: create(
        "sparsifiner_tiny", image_size=16, patch_size=4, channels=1, classes=5, dim=24, depth=2,
        top_coefficients=2, prunes_tokens=(True,), token_keep_rates=(0.7, 0.5),
    ),
    "timm": timms,
    "timm, registers and mean": lambda: timms(reg_tokens=2, global_pool="avg"),
    "timm, layer scale": lambda: timms(init_values=0.1),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_the_last_tokens_are_the_sum_of_the_paths(name):
    model = MODELS[name]().eval().double()
    ensemble = PathEnsemble(model).double()
    images = IMAGES.double()
    scores = ensemble.classified(torch.stack(ensemble.paths(images)).sum(0))
    torch.testing.assert_close(scores, model(images), rtol=1e-10, atol=1e-10)
    read = ensemble.classified(torch.stack(ensemble.read_paths(images)).sum(0))
    torch.testing.assert_close(read, model(images), rtol=1e-10, atol=1e-10)
    with torch.no_grad():  # nothing pruned or scaled: bit for bit the model
        assert ensemble(images).equal(model(images))


def test_greedy_pruning_never_raises_the_loss_and_keeps_a_path():
    ensemble = PathEnsemble(SMALL.build().eval(), scale=None)
    history = greedy_pruning(ensemble, [(IMAGES[:2], LABELS[:2]), (IMAGES[2:], LABELS[2:])])
    losses = [loss for _, loss in history]
    assert losses == sorted(losses, reverse=True)
    assert 1 <= ensemble.path_mask.sum() == 5 - (len(history) - 1)
    with torch.no_grad():
        found = F.cross_entropy(ensemble(IMAGES), LABELS)
    torch.testing.assert_close(found, torch.tensor(losses[-1]))


def test_the_last_layer_teaches_and_is_not_taught():
    last, early = (torch.randn(3, 5, requires_grad=True) for _ in range(2))
    self_distillation(last, [early], temperature=2.0).backward()
    assert last.grad is None and early.grad.abs().sum() > 0


BAD = {
    "name": (ValueError, lambda: PathEnsemble(SMALL.build(), ["attn.3"]), "no path 'attn.3'; ther"),
    "number": (ValueError, lambda: PathEnsemble(SMALL.build(), [5]), "there are 0 to 4"),
    "all": (ValueError, lambda: PathEnsemble(SMALL.build(), range(5)), "pruned names every path"),
    "scale": (ValueError, lambda: PathEnsemble(SMALL.build(), scale="token"), "scale must be"),
    "infinite": (
        ValueError,
        lambda: PathEnsemble(SMALL.build()).paths(IMAGES * float("nan")),
        "path embed holds values that are not finite",
    ),
    "convolutions": (
        TypeError,
        lambda: PathEnsemble(timm.create_model("resnet18")),
        "ResNet has no patch_embed",
    ),
    "hierarchy": (
        TypeError,
        lambda: PathEnsemble(create("tic_tiny", dims=(8, 8), depths=(1, 1), heads=(1, 1),
                                    dilations=(1, 1), mlp_ratios=(1, 1))),
        "Tic has no patch_embed",
    ),
    "one residual": (
        TypeError,
        lambda: PathEnsemble(create("spectformer_tiny", image_size=16, dim=16, depth=1,
                                    spectral=1)),
        "SpectFormer has blocks of SpectralBlock",
    ),
    "a third branch": (
        TypeError,
        lambda: PathEnsemble(timm.create_model("xcit_nano_12_p16_224", img_size=32, depth=1))(
            torch.randn(1, 3, 32, 32)
        ),
        "Xcit does more with its tokens than to add two branches per block",
    ),
    "no block": (
        TypeError, lambda: PathEnsemble(create("deit_tiny", depth=0)), "has no block",
    ),
    "shrinking": (
        TypeError,
        lambda: PathEnsemble(create("evit_tiny", dim=12, depth=1, keep_rates=(0.5,))),
        "EViT has blocks of ShrinkingBlock",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_misuse_is_explained(case):
    kind, call, message = BAD[case]
    with pytest.raises(kind, match=message):
        call()
