"""python -m benchmarks.small_data [--epochs N] [--seeds N] [--out FILE]: from scratch on digits.

Models of 40 to 50 thousand parameters, 400 training images of scikit-learn's digits and the other
1,397 to test on. Finished runs are kept in the file, so that it continues where it stopped.
"""

import csv
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from jsonargparse import auto_cli
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from attn_vision.models import VisionTransformerConfig
from attn_vision.models.convit import ConViTConfig
from attn_vision.models.dhvt import DHVTConfig
from attn_vision.tasks.optimization import parameter_groups
from core_attn.testing.timing import table

SIZE = {"image_size": 8, "patch_size": 2, "channels": 1, "classes": 10}
SHAPE = SIZE | {"dim": 32, "depth": 3, "heads": 4}
MODELS: dict[str, Callable[[], nn.Module]] = {
    "ViT": lambda: VisionTransformerConfig(**SHAPE).build(),
    "ConViT": lambda: ConViTConfig(**SHAPE, local_layers=2).build(),
    "DHVT": lambda: DHVTConfig(**SHAPE).build(),
    "DHVT without head tokens": lambda: DHVTConfig(**SHAPE, head_tokens=False).build(),
    "DHVT with plain patches": lambda: DHVTConfig(**SHAPE, overlapping_stem=False).build(),
    "DHVT with a plain MLP": lambda: DHVTConfig(**SHAPE, convolutional_mlp=False).build(),
    "small CNN": lambda: cnn(),
}


def cnn(width: int = 32) -> nn.Module:
    """Five convolutions with batch norms, as a reference."""
    layers: list[nn.Module] = []
    for fan_in, stride in ((1, 1), (width, 1), (width, 2), (width, 1), (width, 2)):
        convolution = nn.Conv2d(fan_in, width, 3, stride, 1, bias=False)
        layers += [convolution, nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


def digits() -> tuple[Tensor, Tensor]:
    """All images, normalized, in one fixed order."""
    pixels, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))
    images = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8)[order]
    return (images / 16 - 0.3053) / 0.3762, torch.tensor(labels)[order]


def accuracy(name: str, seed: int, epochs: int, count: int = 400, lr: float = 2e-3) -> float:
    """The share of test images that are right after training."""
    torch.manual_seed(seed)
    images, labels = digits()
    model = MODELS[name]()
    steps = epochs * (count // 16)
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.05), lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr, total_steps=steps, pct_start=0.1, final_div_factor=1e9
    )
    for _ in range(epochs):
        for rows in torch.randperm(count).split(16):
            x, shift = images[rows], torch.randint(-1, 2, (2,)).tolist()
            x = F.pad(x, (1, 1, 1, 1), value=float(images.min()))
            x = x[..., 1 + shift[0] : 9 + shift[0], 1 + shift[1] : 9 + shift[1]]
            loss = F.cross_entropy(model(x), labels[rows], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.no_grad():
        guessed = torch.cat([model(x).argmax(1) for x in images[count:].split(200)])
    return float((guessed == labels[count:]).float().mean())


def main(epochs: int = 60, seeds: int = 3, out: str = "runs/small_data.csv") -> None:
    """Trains what is not in the file yet, and prints mean and spread."""
    path, done = Path(out), {}
    if path.exists():
        with path.open(newline="") as file:
            done = {(r["model"], int(r["seed"]), int(r["epochs"])): float(r["accuracy"])
                    for r in csv.DictReader(file)}  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if not done:
            writer.writerow(["model", "seed", "epochs", "accuracy"])
        for seed in range(seeds):
            for name in MODELS:
                if (key := (name, seed, epochs)) not in done:
                    done[key] = accuracy(*key)
                    writer.writerow([*key, done[key]])
                    file.flush()
    rows = []
    for name, make in MODELS.items():
        each = [100 * x for (model, _, n), x in done.items() if (model, n) == (name, epochs)]
        spread = statistics.stdev(each) if len(each) > 1 else 0.0
        size = sum(p.numel() for p in make().parameters())
        rows.append([name, f"{size:,}", f"{statistics.fmean(each):.1f}", f"{spread:.1f}"])
    print(f"400 digits, {epochs} epochs, {seeds} seed(s)")
    print(table(("model", "parameters", "accuracy %", "spread"), rows))


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
