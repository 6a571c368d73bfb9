"""The heads of SmolLM2-135M that find the indirect object, by discrete codes, and a check.

`python -m benchmarks.circuits` ranks all 270 heads from 20 sentences and their counterparts, then
gives the best 20 their mean output: that must hurt more than each of five random draws of 20.
"""

import argparse
import time

import torch
from torch import Tensor, nn

from core_attn.analysis import find_sites
from core_attn.analysis.circuits import ablated, find_circuit, ioi
from core_attn.taps import Mean

from .smol import smol


@torch.no_grad()
def logit_difference(
    model: nn.Module, prompts: list[Tensor], right: Tensor, wrong: Tensor
) -> float:
    """The mean lead of the right name over the other."""
    last = torch.stack([model(ids[None])[0, -1] for ids in prompts])
    rows = torch.arange(len(prompts))
    return float((last[rows, right] - last[rows, wrong]).mean())


def main() -> None:
    """Prints the best heads and the logit differences."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--checked", type=int, default=8)
    parser.add_argument("--ablated", type=int, default=20)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    model, tokenizer = smol()
    task = ioi(arguments.prompts, single=lambda word: len(tokenizer.encode(word)) == 1)
    positive, negative = (
        [torch.tensor(tokenizer.encode(text)) for text in texts]
        for texts in (task.positive, task.negative)
    )
    right, wrong = (
        torch.tensor([tokenizer.encode(word)[0] for word in words])
        for words in (task.answers, task.distractors)
    )
    given = logit_difference(model, positive, right, wrong)
    none = logit_difference(model, negative, right, wrong)
    print(f"logit difference: {given:.2f}, in the counterparts {none:.2f}", flush=True)
    sites = find_sites(model)
    with sites.record("heads", lambda: Mean(of=lambda x: x.mean(1))) as seen, torch.no_grad():
        for ids in negative:
            model(ids[None])
        means = dict(seen)
    some = positive[: arguments.checked], right[: arguments.checked], wrong[: arguments.checked]
    whole = logit_difference(model, *some)
    layers = {name: number for number, name in enumerate(sites)}
    every = [(name, head) for name, site in sites.items() for head in range(site.num_heads)]

    def without(heads: list[tuple[str, int]]) -> float:
        with ablated(model, heads, means):
            return logit_difference(model, *some)

    draws = []
    for draw in range(5):
        order = torch.randperm(len(every), generator=torch.Generator().manual_seed(draw))
        draws.append(without([every[i] for i in order[: arguments.ablated].tolist()]))
    print(f"{len(some[0])} prompts: {whole:.2f}; without {arguments.ablated} random heads "
          f"{', '.join(f'{x:.2f}' for x in draws)}", flush=True)  # fmt: skip
    for seed in arguments.seeds:
        start = time.perf_counter()
        found = find_circuit(model, positive, negative, steps=300, seed=seed)
        took = time.perf_counter() - start
        top = found.top(arguments.ablated)
        bottom = list(found.table().tail(arguments.ablated).select("name", "head").iter_rows())
        best = ", ".join(
            f"{layers[name]}.{head} ({codes:g})"
            for name, head, codes in found.table()
            .head(5)
            .select("name", "head", "codes")
            .iter_rows()
        )
        least, lost = without(bottom), without(top)
        own = int((found.counts > 0).sum())
        print(
            f"seed {seed}, {took:.0f} s: {own} of {len(every)} heads have codes of their own, "
            f"best {best}; without the top {arguments.ablated} {lost:.2f}, "
            f"without the last {least:.2f}; below every random draw: {lost < min(draws)}",
            flush=True,
        )


if __name__ == "__main__":
    main()
