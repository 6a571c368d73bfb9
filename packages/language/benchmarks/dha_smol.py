"""DHA three ways on SmolLM2-135M, of whose 180 key and value heads 120 or 90 are kept.

`python -m benchmarks.dha_smol FOLDER`: wiki.valid.txt in it trains, wiki.test.txt is scored.
"""

import argparse
import copy
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from attn_language import fusion
from attn_language.data.text import read_text
from attn_language.generation import perplexity
from core_attn.testing.timing import table

from .smol import smol


def pieces(ids: Tensor, tokens: int) -> Iterator[tuple[Tensor, Tensor]]:
    """One window after the other, and what follows."""
    for start in range(0, len(ids) - tokens, tokens):
        window = ids[None, start : start + tokens + 1]
        yield window[:, :-1], window[:, 1:]


def main() -> None:
    """Prints the perplexity of each way and budget as it comes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--coefficient-lr", type=float, default=3e-2)
    parser.add_argument("--budgets", type=int, nargs="+", default=[120, 90])
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = smol()
    train, test = (
        torch.tensor(tokenizer.encode(read_text(options.folder / f"wiki.{part}.txt")[:60000]))
        for part in ("valid", "test")
    )
    test = test[:769]

    def score(one) -> str:
        return f"{perplexity(one, test, context=192).perplexity:.4g}"

    rows = [["dense", "180", score(model)]]
    print(rows[-1], flush=True)
    for budget in options.budgets:
        for name, method in (
            ("contiguous, mean", "contiguous"), ("CKA, mean", "cka"),
            ("adaptive, mean", "adaptive"), ("adaptive, fused", "adaptive"),
        ):  # fmt: skip
            own = copy.deepcopy(model)
            groups = fusion.planned(own, budget, method=method)
            told = ""
            if name.endswith("fused"):
                batches = pieces(train, options.tokens)
                own, progress = fusion.fuse(
                    own, groups, batches, steps=options.steps, lr=options.lr,
                    coefficient_lr=options.coefficient_lr,
                )  # fmt: skip
                told = f", fusion loss 1 to {progress.fusion[-1]:.2g}"
            else:
                own = fusion.averaged(own, groups)
            rows.append([name + told, str(groups.total), score(own)])
            print(rows[-1], flush=True)
    print(table(("key and value heads", "kept", "perplexity"), rows))


if __name__ == "__main__":
    main()
