"""DHA three ways on a Transformer of 8 heads trained here: fused, means of similar heads, of runs.

python -m benchmarks.dha FILE [--steps 400] [--fusion 200]
"""

import argparse
import copy

import torch

from attn_language import create, fusion
from attn_language.conversion import cache_bytes
from attn_language.data.text import read_text
from attn_language.generation import perplexity
from attn_language.tokens import Characters
from core_attn.testing.timing import table

from . import mechanisms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--fusion", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    text = read_text(options.file)
    tokenizer = Characters.of(text)
    ids = torch.tensor(tokenizer.encode(text))
    cut = len(ids) * 9 // 10
    train, test = ids[:cut], ids[cut : cut + 20000]
    mechanisms.MODELS["eight"] = {}
    mechanisms.create = lambda name, **settings: create(
        "transformer", **(settings | {"dim": 64, "depth": 3, "heads": 8, "positions": "rotary"})
    )
    model, _ = mechanisms.trained("eight", options.seed, options.steps, train, tokenizer.vocab)
    context = mechanisms.CONTEXT

    def batches():
        generator = torch.Generator().manual_seed(7)
        while True:
            starts = torch.randint(len(train) - context - 1, (16,), generator=generator)
            window = torch.stack([train[s : s + context + 1] for s in starts])
            yield window[:, :-1], window[:, 1:]

    rows = [
        ["dense", "48", f"{perplexity(model, test).nats:.3f}", str(cache_bytes(model, context))]
    ]
    for budget in (0.5, 0.25):
        for name, method in (("adaptive, fused", "adaptive"), ("CKA, mean", "cka"),
                             ("contiguous, mean", "contiguous")):  # fmt: skip
            own = copy.deepcopy(model)
            groups = fusion.planned(own, budget, method=method)
            if method == "adaptive":
                own, _ = fusion.fuse(own, groups, batches(), steps=options.fusion)
            else:
                own = fusion.averaged(own, groups)
            nats = perplexity(own, test).nats
            rows.append([name, str(groups.total), f"{nats:.3f}", str(cache_bytes(own, context))])
    print(table(("key and value heads", "kept", "nats", "cache bytes"), rows))


if __name__ == "__main__":
    main()
