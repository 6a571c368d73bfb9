"""GAAM beside no attention, a weighted sum and multi-head attention of equal capacity."""

import argparse
import math
import statistics

import torch

from attn_speech.audio import MelFeatures
from attn_speech.data import SpokenDigits, UtteranceData
from attn_speech.models import GaamConfig, focal_loss
from attn_speech.tasks.classification import accuracy, average_recall

MECHANISMS = {
    "none": {"mechanism": "none"},
    "weighted sum": {"mechanism": "weighted_sum"},
    "multi-head": {"mechanism": "mha"},
    "GAAM, 8 heads": {"mechanism": "gaam"},
    "GAAM, 1 head": {"mechanism": "gaam", "heads": 1},
    "GQ-GAAM": {
        "mechanism": "gq_gaam", "embed": 64, "query_heads": 8, "kv_heads": 2, "grid": (8, 8),
    },
}  # fmt: skip


def run(data: UtteranceData, changes: dict, seed: int, epochs: int) -> torch.Tensor:
    """The confusion of the last epoch on the test's groups."""
    torch.manual_seed(seed)
    layers, dim = data.shape
    config = GaamConfig(
        layers=layers, dim=dim, classes=len(data.class_names), conv_hidden=24,
        **{"grid": (5, 8), **changes},
    )  # fmt: skip
    model = config.build()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    x, y = (torch.cat([data.parts[p].tensors[i] for p in ("train", "valid")]) for i in (0, 1))
    for _ in range(epochs):
        for chosen in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            focal_loss(model.train()(x[chosen]), y[chosen]).backward()
            optimizer.step()
    x, y = data.parts["test"].tensors
    counts = torch.zeros(config.classes, config.classes, dtype=torch.long)
    with torch.no_grad():
        counts.index_put_((y, model.eval()(x).argmax(-1)), torch.tensor(1), accumulate=True)
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", help="of the Free Spoken Digit Dataset; synthetic digits without")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--test-groups", nargs="+", default=None)
    options = parser.parse_args()
    torch.set_num_threads(1)
    features = MelFeatures(
        rate=8000, hop=80, window=256, fft=512, mels=40, low=60.0, high=4000.0
    )  # fmt: skip
    source = SpokenDigits(options.root)
    data = UtteranceData(source, features, test_groups=options.test_groups)
    data.setup("fit")
    print(
        f"{'mechanism':<15} {'accuracy':>18} {'average recall':>16}   "
        f"mean and 95% of {options.seeds} seeds"
    )
    for name, changes in MECHANISMS.items():
        counts = [run(data, changes, seed, options.epochs) for seed in range(options.seeds)]
        columns = []
        for measure in (accuracy, average_recall):
            values = [100 * measure(c) for c in counts]
            spread = statistics.stdev(values) if len(values) > 1 else math.nan
            columns.append(
                f"{statistics.mean(values):5.1f} ± {1.96 * spread / len(values) ** 0.5:4.1f}"
            )
        print(f"{name:<15} {columns[0]:>18} {columns[1]:>16}", flush=True)


if __name__ == "__main__":
    main()
