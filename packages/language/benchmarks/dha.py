"""DHA three ways on a Transformer of 8 heads trained here: fused, means of similar heads, of runs.

python -m benchmarks.dha FILE [--steps 400] [--fusion 200]
"""

import argparse
import copy

import torch

from attn_language import create, fusion
from attn_language.conversion import cache_bytes
from attn_language.generation import perplexity
from attn_language.models import Decoder
from core_attn.testing.timing import table

from .training import CONTEXT, corpus, train, windows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--fusion", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    text = corpus(options.file)
    test = text.test[:20000]
    torch.manual_seed(options.seed)
    model = create(
        "transformer", vocab=text.tokenizer.vocab, context=CONTEXT, dim=64, depth=3, heads=8,
        positions="rotary",
    )  # fmt: skip
    assert isinstance(model, Decoder)
    train(model, windows(text.train, options.seed), options.steps)
    rows = [
        ["dense", "48", f"{perplexity(model, test).nats:.3f}", str(cache_bytes(model, CONTEXT))]
    ]
    for budget in (0.5, 0.25):
        for name, method in (("adaptive, fused", "adaptive"), ("CKA, mean", "cka"),
                             ("contiguous, mean", "contiguous")):  # fmt: skip
            own = copy.deepcopy(model)
            groups = fusion.planned(own, budget, method=method)
            if method == "adaptive":
                own, _ = fusion.fuse(own, groups, windows(text.train, 7), steps=options.fusion)
            else:
                own = fusion.averaged(own, groups)
            nats = perplexity(own, test).nats
            rows.append([name, str(groups.total), f"{nats:.3f}", str(cache_bytes(own, CONTEXT))])
    print(table(("key and value heads", "kept", "nats", "cache bytes"), rows))


if __name__ == "__main__":
    main()
