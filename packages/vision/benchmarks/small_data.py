"""python -m benchmarks.small_data [--tables NAMES] [--seeds N] [--out FILE]: from scratch.

Models of 40 to 50 thousand parameters on a few hundred real images: scikit-learn's digits, and
Fashion-MNIST and CIFAR-10 in the folder `vision` of $ATTN_DATA. Finished runs are kept in the
file, so that it continues where it stopped; the plot of accuracy against images is beside it.
"""

import csv
import io
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from jsonargparse import auto_cli
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from attn_vision.data import FashionMNIST
from attn_vision.models import VisionTransformerConfig
from attn_vision.models.convit import ConViTConfig
from attn_vision.models.dhvt import DHVTConfig
from attn_vision.models.halonet import HaloNetConfig
from attn_vision.models.spectformer import SpectFormerConfig
from attn_vision.models.tic import TicConfig
from attn_vision.tasks.optimization import parameter_groups
from core_attn import losses
from core_attn.testing.timing import table

DATA = Path(os.environ.get("ATTN_DATA", "../../../shared/data"), "vision")  # from packages/vision


@dataclass(frozen=True)
class Setting:
    """Images and a short recipe: AdamW, one cycle, shifts of a pixel, flips of photographs."""

    data: str
    train: int
    epochs: int
    lr: float
    batch: int = 16
    size: int = 32
    patch: int = 4
    channels: int = 1
    flip: bool = False
    seeds: int = 3


_CIFAR = {"epochs": 8, "lr": 1e-3, "channels": 3, "flip": True}
SETTINGS = {
    "digits": Setting("digits", 400, 60, 2e-3, size=8, patch=2),
    "fashion": Setting("fashion", 1000, 8, 1e-3),
    "cifar": Setting("cifar", 1000, **_CIFAR),
    "cifar-8000": Setting("cifar", 8000, batch=64, seeds=1, **_CIFAR),
}


def plain(s: Setting) -> dict:
    """What the columnar models share."""
    sizes = {"image_size": s.size, "patch_size": s.patch, "channels": s.channels, "classes": 10}
    return sizes | {"dim": 32, "depth": 3, "heads": 4}


def halo(s: Setting, *kinds: str) -> nn.Module:
    """Two stages; without kinds all halo attention, with "c" 3x3 convolutions: a ResNet."""
    dims, widths = ((48, 96), (24, 40)) if kinds else ((48, 88), (40, 64))
    net = HaloNetConfig(
        2 * s.size if s.size == 8 else s.size, s.channels, 10, dims=dims, depths=(2, 1),
        widths=widths, strides=(1, 2), kinds=kinds, heads=4, block=4,
        halo=1, stem="3x3", stem_dim=24, stem_pool=False,
    ).build()  # fmt: skip
    return doubled(net, s)


def msa_conv(s: Setting) -> nn.Module:
    """Two stages of 3x3 windows."""
    net = TicConfig(
        2 * s.size if s.size == 8 else s.size, s.channels, 10, dims=(24, 44), depths=(2, 1),
        stem_dim=12, heads=(4, 4), kernel=3, dilations=(1, 1), mlp_ratios=(2, 2),
    ).build()  # fmt: skip
    return doubled(net, s)


def doubled(net: nn.Module, s: Setting) -> nn.Module:
    """The stems of the hierarchical nets halve the digits once or twice: these are enlarged."""
    return nn.Sequential(nn.Upsample(scale_factor=2), net) if s.size == 8 else net


Make = Callable[[Setting], nn.Module]
MODELS: dict[str, Make] = {
    "ViT": lambda s: VisionTransformerConfig(**plain(s)).build(),
    "ConViT": lambda s: ConViTConfig(**plain(s), local_layers=2).build(),
    "SpectFormer": lambda s: SpectFormerConfig(**plain(s), spectral=2).build(),
    "DHVT": lambda s: DHVTConfig(**plain(s)).build(),
    "halo net": halo,
    "MSA-Conv net": msa_conv,
    "small ResNet": lambda s: halo(s, "cc", "c"),
}
ABLATIONS: dict[str, Make] = {
    "DHVT without head tokens": lambda s: DHVTConfig(**plain(s), head_tokens=False).build(),
    "DHVT with plain patches": lambda s: DHVTConfig(**plain(s), overlapping_stem=False).build(),
    "DHVT with a plain MLP": lambda s: DHVTConfig(**plain(s), convolutional_mlp=False).build(),
}


SPECTRAL: dict[str, Make] = {
    f"{alpha} of 4 blocks spectral": lambda s, alpha=alpha: SpectFormerConfig(
        **plain(s) | {"depth": 4}, spectral=alpha
    ).build()
    for alpha in (0, 2, 4)
}
MORE = {"digits": ABLATIONS, "fashion": SPECTRAL, "cifar": SPECTRAL}


def models_of(name: str) -> dict[str, Make]:
    """The models of a table: all, and ablations."""
    return MODELS | MORE.get(name, {})


def images_of(data: str) -> tuple[Tensor, Tensor]:
    """Training images first, then at most 2,000 to test on; normalized, in one fixed order."""
    if data == "digits":
        pixels, labels = load_digits(return_X_y=True)
        order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))
        images = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8)[order] / 16
        return (images - 0.3053) / 0.3762, torch.tensor(labels)[order]
    parts = [part(data, name) for name in ("train", "test")]
    images, labels = (torch.cat(pair) for pair in zip(*parts, strict=True))
    images = images.float() / 255
    means, stds = images[:1000].mean((0, 2, 3)), images[:1000].std((0, 2, 3))
    return (images - means[:, None, None]) / stds[:, None, None], labels


def part(data: str, name: str) -> tuple[Tensor, Tensor]:
    """At most 8,000 training images or 2,000 test images, uint8, 32 pixels a side."""
    count = 8000 if name == "train" else 2000
    if data == "fashion":
        source = FashionMNIST(str(DATA / "fashion-mnist-subset")).load(name, lambda image: image)
        images = F.pad(torch.tensor(source.images[:count])[:, None], (2, 2, 2, 2))  # type: ignore
        return images, torch.tensor(source.labels[:count]).long()  # type: ignore
    with np.load(DATA / "cifar10-jpeg-subset" / f"{name}.npz") as file:
        jpeg, offsets, labels = file["jpeg"].tobytes(), file["offsets"], file["labels"]
    files = (jpeg[a:b] for a, b in pairwise(offsets[: count + 1]))
    images = np.stack([np.asarray(Image.open(io.BytesIO(each))) for each in files])
    return torch.tensor(images).movedim(-1, 1), torch.tensor(labels[:count]).long()


def shifted(x: Tensor, floor: float, flip: bool) -> Tensor:
    """A batch moved by at most a pixel each way, and mirrored half of the time."""
    height, width = x.shape[2:]
    down, right = torch.randint(0, 3, (2,)).tolist()
    x = F.pad(x, (1, 1, 1, 1), value=floor)[..., down : down + height, right : right + width]
    return x.flip(-1) if flip and torch.rand(()) < 0.5 else x


def trained(
    model: nn.Module,
    s: Setting,
    images: Tensor,
    labels: Tensor,
    after: Callable[[int], None] = lambda epoch: None,
) -> nn.Module:
    """The model after the recipe, in eval mode; `after` is called with each finished epoch."""
    model.train()
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.05), s.lr, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, s.lr, total_steps=s.epochs * -(-s.train // s.batch), pct_start=0.1,
        final_div_factor=1e9,
    )  # fmt: skip
    floor = float(images.min())
    for epoch in range(s.epochs):
        for rows in torch.randperm(s.train).split(s.batch):
            scores = model(shifted(images[rows], floor, s.flip))
            loss = F.cross_entropy(scores, labels[rows], label_smoothing=0.1)
            loss = loss + sum(losses(model).values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        after(epoch + 1)
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The share of images that are right."""
    guessed = torch.cat([model(x).argmax(1) for x in images.split(200)])
    return float((guessed == labels).float().mean())


def run(name: str, model: str, seed: int) -> tuple[float, float]:
    """Accuracy on the test images, and the seconds that training took."""
    torch.manual_seed(seed)
    s = SETTINGS[name]
    images, labels = images_of(s.data)
    tested = slice(400, None) if s.data == "digits" else slice(-2000, None)
    start = time.perf_counter()
    net = trained(models_of(name)[model](s), s, images, labels)
    seconds = time.perf_counter() - start
    return accuracy(net, images[tested], labels[tested]), seconds


FIELDS = ("setting", "model", "seed", "accuracy", "seconds")


def main(
    tables: Sequence[str] = tuple(SETTINGS),
    models: Sequence[str] = (*MODELS, *ABLATIONS, *SPECTRAL),
    seeds: int = 3,
    out: str = "runs/small_data.csv",
    run_more: bool = True,
) -> None:
    """Trains what is not in the file yet, and prints mean and spread.

    Args:
        tables: of digits, fashion, cifar and cifar-8000.
        models: those to train; the ablations are of some tables only.
        seeds: runs of each model at most; one is all of cifar-8000.
        out: the file of finished runs.
        run_more: False only prints and draws what is there.
    """
    path, done = Path(out), {}
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        with path.open(newline="") as file:
            for r in csv.DictReader(file):
                done[r["setting"], r["model"], int(r["seed"])] = (
                    float(r["accuracy"]),
                    float(r["seconds"]),
                )
    if run_more:
        with path.open("a", newline="") as file:
            writer = csv.writer(file)
            if not done:
                writer.writerow(FIELDS)
            for seed in range(seeds):
                for name in (each for each in tables if seed < SETTINGS[each].seeds):
                    for model in (each for each in models_of(name) if each in models):
                        if (key := (name, model, seed)) not in done:
                            done[key] = run(*key)
                            writer.writerow([*key, *done[key]])
                            file.flush()
    for name in tables:
        print_table(name, done)
    plot(done, path.with_suffix(".png"))


Done = dict[tuple[str, str, int], tuple[float, float]]


def print_table(name: str, done: Done) -> None:
    """Mean, spread and every run of each model."""
    s, rows = SETTINGS[name], []
    for model, make in models_of(name).items():
        runs = [x for (setting, of, _), x in done.items() if (setting, of) == (name, model)]
        if not runs:
            continue
        each = [100 * x for x, _ in runs]
        spread = f"{statistics.stdev(each):.1f}" if len(each) > 1 else ""
        size = sum(p.numel() for p in make(s).parameters())
        seconds = statistics.median(x for _, x in runs)
        rows.append(
            [model, f"{size:,}", f"{statistics.fmean(each):.1f}", spread, str(len(each)),
             f"{seconds:.0f}"]
        )  # fmt: skip
    print(f"\n{s.data}: {s.train:,} training images, {s.epochs} epochs in batches of {s.batch}")
    print(table(("model", "parameters", "accuracy %", "spread", "seeds", "seconds"), rows))


def plot(done: Done, path: Path) -> None:
    """Accuracy on CIFAR-10 against the number of training images."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    for model in MODELS:
        points = []
        for name in ("cifar", "cifar-8000"):
            each = [
                x for (setting, of, _), (x, _) in done.items() if (setting, of) == (name, model)
            ]
            if each:
                points.append((SETTINGS[name].train, 100 * statistics.fmean(each)))
        axes.plot(*zip(*points or [(1000, np.nan)], strict=True), marker="o", label=model)
    axes.set(xscale="log", xlabel="training images of CIFAR-10", ylabel="accuracy, %")
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
