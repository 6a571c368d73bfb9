"""Copying over a distance: routed heads find what local windows cannot reach.

    python -m benchmarks.copying [--steps 600] [--seeds 3]

Pairs of a key and a value, filler longer than a local window and the block before it, then a key
again: its value is asked for.
"""

import argparse
import statistics
from collections.abc import Iterator

import torch
from torch import Tensor

from attn_language import create
from attn_language.models import Decoder
from core_attn.testing.timing import table

from .training import BATCH, train

KEYS, VALUES, PAIRS, FILLER = 8, 8, 4, 24
VOCAB = KEYS + VALUES + 1


def batches(seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Texts with one scored token each, every other target is -100."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        keys = torch.stack(
            [torch.randperm(KEYS, generator=generator)[:PAIRS] for _ in range(BATCH)]
        )
        values = KEYS + torch.randint(VALUES, (BATCH, PAIRS), generator=generator)
        asked = torch.randint(PAIRS, (BATCH, 1), generator=generator)
        pairs = torch.stack((keys, values), -1).flatten(1)
        filler = torch.full((BATCH, FILLER), VOCAB - 1)
        ids = torch.cat((pairs, filler, keys.gather(1, asked)), 1)
        targets = torch.full_like(ids, -100)
        targets[:, -1] = values.gather(1, asked)[:, 0]
        yield ids, targets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    context, rows = 2 * PAIRS + FILLER + 1, []
    for name, local in (("local heads only", 4), ("2 local, 2 routed", 2)):
        found = []
        for seed in range(options.seeds):
            torch.manual_seed(seed)
            model = create(
                "routing", vocab=VOCAB, context=context, dim=32, depth=3, heads=4, hidden=64,
                local_heads=local, window=8, local_window=8, clusters=4, decay=0.99,
            )  # fmt: skip
            assert isinstance(model, Decoder)
            train(model, batches(seed), options.steps, rate=3e-3)
            stream, right = batches(1000 + seed), []
            with torch.no_grad():
                for _ in range(20):
                    ids, targets = next(stream)
                    right.append((model(ids)[:, -1].argmax(-1) == targets[:, -1]).float().mean())
            found.append(torch.stack(right).mean().item())
        rows.append([name, f"{statistics.mean(found):.3f}", " ".join(f"{x:.2f}" for x in found)])
    print(f"chance {1 / VALUES:.3f}")
    print(table(("model", "values found", "per seed"), rows))


if __name__ == "__main__":
    main()
