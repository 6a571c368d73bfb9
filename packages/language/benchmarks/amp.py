"""AMP on SmolLM2-135M: does pruning what matters least cost least, and what is saved?

`python -m benchmarks.amp VALID TEST` takes two texts (as WikiText-2's): one for the importance, one
for the perplexity, three pieces of each, by default.
"""

import argparse
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core_attn.analysis import Decoder, prune_decoder
from core_attn.testing.timing import medians

from .smol import smol


def pieces(ids: list[int], count: int, tokens: int) -> list[Tensor]:
    """Evenly spread pieces of a text."""
    starts = torch.linspace(0, len(ids) - tokens, count).long().tolist()
    return [torch.tensor(ids[start : start + tokens]) for start in starts]


@torch.no_grad()
def perplexity(model: nn.Module, texts: list[Tensor]) -> float:
    """Of the next token, over all texts."""
    losses = [F.cross_entropy(model(text[None])[0, :-1], text[1:]) for text in texts]
    return float(torch.stack(losses).mean().exp())


def main() -> None:
    """Prints perplexities by order and ratio, then what cutting out removes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("valid", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    model, tokenizer = smol()
    read = lambda path: tokenizer.encode(path.read_text("utf-8")[:400_000])  # noqa: E731
    prompts, texts = pieces(read(arguments.valid), 3, 128), pieces(read(arguments.test), 3, 192)
    decoder = Decoder(model)
    found = decoder.importance(prompts)
    print(f"dense: perplexity {perplexity(model, texts):.1f}", flush=True)
    for heads, share in ((1, 0.1), (2, 0.2)):
        units = round(share * decoder.units)
        line = {}
        for order, seeds in (("standard", [0]), ("random", arguments.seeds), ("reversed", [0])):
            for seed in seeds:
                removal = decoder.choose(found, heads, units, order=order, group="free", seed=seed)
                with decoder.masked(removal):
                    line[f"{order} {seed}" if len(seeds) > 1 else order] = perplexity(model, texts)
        said = ", ".join(f"{name} {value:.4g}" for name, value in line.items())
        drawn = [value for name, value in line.items() if name.startswith("random")]
        ordered = line["standard"] < min(drawn) and max(drawn) < line["reversed"]
        print(
            f"{heads} of {decoder.heads} heads, {share:.0%} of units: {said}; {ordered=}",
            flush=True,
        )
    for exact in (True, False):
        budget = decoder.budget(0.2, exact=exact)
        removal = decoder.choose(found, budget.heads, budget.units)
        smaller = prune_decoder(decoder, removal)
        with decoder.masked(removal), torch.no_grad():
            masked = model(texts[0][None])
        with torch.no_grad():
            times = medians([partial(m, texts[0][None]) for m in (model, smaller)], 12)
            apart = float((smaller(texts[0][None]) - masked).abs().max())
        left = sum(p.numel() for p in smaller.parameters())
        assert left == budget.parameters - budget.removed
        again = smaller.config.build().eval()
        again.load_state_dict(smaller.state_dict())
        assert perplexity(again, texts[:1]) == perplexity(smaller, texts[:1])
        print(f"cut, {exact=}: {budget}")
        print(
            f"  largest difference to masked logits {apart:.1e} of {float(masked.abs().max()):.0f}"
        )
        print(f"  192 tokens in {times[1]:.2f} s, before {times[0]:.2f} s: "
              f"{times[0] / times[1]:.2f}x", flush=True)  # fmt: skip
    double = Decoder(model.double())
    with double.masked(removal), torch.no_grad():
        masked = double.model(texts[0][None])
    with torch.no_grad():
        apart = float((prune_decoder(double, removal)(texts[0][None]) - masked).abs().max())
    print(f"the same in double precision: largest difference {apart:.1e}")


if __name__ == "__main__":
    main()
