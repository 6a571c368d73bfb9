"""BAM against BTX: three experts of one seed, each on a text of its own, mixed and trained.

    python -m benchmarks.upcycling FILE [--steps 300] [--seeds 3]

FILE is tinyshakespeare; the other texts are the standard library's help topics and license texts.
"""

import argparse
import copy
import statistics
from pathlib import Path

import torch

from attn_language import create
from attn_language.data import Topics
from attn_language.data.text import read_text
from attn_language.generation import perplexity
from attn_language.models import Decoder
from attn_language.tokens import Characters
from attn_language.upcycling import upcycle
from core_attn.testing.timing import table

from .training import CONTEXT, train, windows


def texts(file: str) -> list[str]:
    """Verse, English about a language, and a program."""
    code = "".join(read_text(p) for p in sorted(Path(argparse.__file__).parent.glob("[a-h]*.py")))
    return [read_text(file), "\n".join(Topics().texts("train")), code[:500_000]]


def run(seed: int, steps: int, ids: list[torch.Tensor], vocab: int) -> dict[str, float]:
    """Mean validation loss over the texts of each way to mix."""
    cuts = [len(x) * 9 // 10 for x in ids]
    parts = [x[:cut] for x, cut in zip(ids, cuts, strict=True)]
    tests = [x[cut : cut + 5000] for x, cut in zip(ids, cuts, strict=True)]
    mixed = torch.cat(parts)
    torch.manual_seed(seed)
    dense = create("bam_seed", vocab=vocab, context=CONTEXT, dim=48, depth=2, heads=4, hidden=96)
    assert isinstance(dense, Decoder)
    train(dense, windows(mixed, seed), steps)
    experts = []
    for part in parts:
        experts.append(copy.deepcopy(dense))
        train(experts[-1], windows(part, seed), steps, rate=2e-3)
    found = {"seed": dense}
    averaged = copy.deepcopy(dense)
    states = [expert.state_dict() for expert in experts]
    averaged.load_state_dict(
        {name: torch.stack([s[name] for s in states]).mean(0) for name in states[0]}
    )
    found["average of weights"] = averaged
    for name, kv in (("BTX", "single"), ("BAM", "expert"), ("BAM, shared keys", "shared")):
        found[name] = upcycle(experts, kv).model
        train(found[name], windows(mixed, seed + 1), steps, rate=2e-3)
    return {
        name: statistics.mean(perplexity(model, test).nats for test in tests)
        for name, model in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    words = texts(options.file)
    tokenizer = Characters.of("".join(words))
    ids = [torch.tensor(tokenizer.encode(text)) for text in words]
    runs = [run(seed, options.steps, ids, tokenizer.vocab) for seed in range(options.seeds)]
    rows = [
        [name, f"{statistics.mean(r[name] for r in runs):.3f}",
         f"{statistics.pstdev([r[name] for r in runs]):.3f}"]
        for name in runs[0]
    ]  # fmt: skip
    print(table((f"{options.seeds} seeds, {options.steps} steps each", "nats", "spread"), rows))


if __name__ == "__main__":
    main()
