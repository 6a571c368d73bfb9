"""VHR on a small LLaVA trained here: louder vision heads name fewer things that are not there.

`python -m benchmarks.analysis.hallucination` trains one model per seed from scratch, image encoder
and all, on scenes with a strong prior (`scenes`), and captions pictures that break it:

- CHAIR_I against alpha, with the heads that VHR selects, with as many random ones, with the others
  and with all heads of its layers;
- whether T-VHD of a hallucinated word is lower than that of a right one: the area under the curve.
"""

import argparse
import statistics
from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from core_attn.analysis import hallucination as h

from . import scenes as s

HEADS, LAYERS = 8, 4
ALPHAS = (0.5, 1.0, 1.5, 2.0, 3.0)


def build(seed: int) -> LlavaForConditionalGeneration:
    """Two layers that see 16 patches, four that write; 8 heads of 8 features each."""
    torch.manual_seed(seed)
    size = dict(hidden_size=64, intermediate_size=128)
    vision = CLIPVisionConfig(
        **size, num_hidden_layers=2, num_attention_heads=4, image_size=s.SIDE, patch_size=7
    )
    text = LlamaConfig(
        **size, vocab_size=len(s.WORDS), num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=HEADS, head_dim=8, pad_token_id=s.PAD, bos_token_id=s.BOS,
        eos_token_id=s.EOS, max_position_embeddings=64,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_id=s.IMAGE, vision_feature_layer=-1
    )
    return LlavaForConditionalGeneration(config)


def prompts(count: int) -> Tensor:
    """The same prompt for every picture."""
    return torch.tensor(s.PROMPT).expand(count, -1)


def train(seed: int, steps: int, batch: int, faintest: float, noise: float):
    """Captions with pictures, and every fourth batch without: the prior, as of a language model."""
    model, generator = build(seed).train(), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps, pct_start=0.1)
    for step in range(steps):
        pictures, captions, _ = s.batch(
            batch, generator, surprising=False, faintest=faintest, noise=noise
        )
        start = prompts(batch)
        if blind := step % 4 == 3:
            start = start[:, [0, -2, -1]]
        ids = torch.cat([start, captions], 1)
        labels = ids.masked_fill(ids == s.PAD, -100)
        labels[:, : start.shape[1]] = -100
        seen = None if blind else pictures
        loss = model(input_ids=ids, pixel_values=seen, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 250 == 0:
            print(f"  step {step}: loss {loss.item():.3f}, picture: {not blind}", flush=True)
    return model.eval()


class Test:
    """Pictures that break the prior, and what a model writes about them."""

    def __init__(self, count: int, seed: int, faintest: float, noise: float):
        generator = torch.Generator().manual_seed(10_000 + seed)
        self.pictures, _, self.things = s.batch(
            count, generator, surprising=True, faintest=faintest, noise=noise
        )
        ids = prompts(count)
        self.inputs = {
            "input_ids": ids, "pixel_values": self.pictures, "attention_mask": torch.ones_like(ids),
        }  # fmt: skip
        self.present = [{s.THINGS[thing] for thing in one} for one in self.things]
        self.words = {thing: thing for thing in s.THINGS}

    def write(self, model: LlavaForConditionalGeneration) -> Tensor:
        """The words of each caption."""
        options = {"max_new_tokens": s.LONGEST, "do_sample": False}
        return model.generate(**self.inputs, **options)[:, len(s.PROMPT) :]

    def judge(self, written: Tensor) -> tuple[float, float]:
        """CHAIR_I, and the share of the things there that are named."""
        texts = [" ".join(s.WORDS[word] for word in row) for row in _until_end(written)]
        found = h.chair(texts, self.present, self.words)
        named = [set(h.mentioned(text, self.words)) for text in texts]
        hits = sum(len(a & b) for a, b in zip(named, self.present, strict=True))
        return found.per_mention, hits / sum(map(len, self.present))

    def divergence_gap(self, model, written: Tensor) -> tuple[float, float, float]:
        """Mean T-VHD of right and of hallucinated things, and how well it tells them apart."""
        tokens = h.top_divergence(h.token_divergence(model, self.inputs, written))
        right, wrong = [], []
        for row, things, values in zip(_until_end(written), self.things, tokens, strict=True):
            for place, word in enumerate(row):
                if word >= s.FIRST:
                    here = word - s.FIRST in things
                    (right if here else wrong).append(float(values[place]))
        a, b = torch.tensor(right), torch.tensor(wrong)
        higher = (a[:, None] > b).float() + 0.5 * (a[:, None] == b).float()
        return float(a.mean()), float(b.mean()), float(higher.mean())


def _until_end(written: Tensor) -> list[list[int]]:
    rows = []
    for row in written.tolist():
        end = row.index(s.EOS) if s.EOS in row else len(row)
        rows.append(row[:end])
    return rows


def random_heads(layers: list[int], count: int, seed: int) -> dict[int, Tensor]:
    """Half of the heads of each layer, drawn for every picture."""
    generator = torch.Generator().manual_seed(seed)
    scores = {layer: torch.rand(count, HEADS, generator=generator) for layer in layers}
    return {layer: x > x.median(-1, keepdim=True).values for layer, x in scores.items()}


def of_seed(seed: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Everything that is measured on one model."""
    world = {"faintest": arguments.faintest, "noise": arguments.noise}
    file = arguments.folder and arguments.folder / f"{seed}.pt"
    if file and file.exists():
        model = build(seed).eval()
        model.load_state_dict(torch.load(file, weights_only=True))
    else:
        model = train(seed, arguments.steps, arguments.batch, **world)
        if file:
            arguments.folder.mkdir(parents=True, exist_ok=True)
            torch.save(model.state_dict(), file)
    test, layers = Test(arguments.pictures, seed, **world), [1, 2, 3]
    found = {}
    for alpha in ALPHAS:
        with h.reinforce(model, alpha=alpha) as state:
            found[f"VHR, alpha {alpha}"], found[f"named, alpha {alpha}"] = test.judge(
                test.write(model)
            )
        chosen = dict(zip(layers, state.chosen.values(), strict=True))
        controls = {
            "the other heads": {layer: ~mask for layer, mask in chosen.items()},
            "all heads": {layer: torch.ones_like(mask) for layer, mask in chosen.items()},
        }
        for name, heads in controls.items() if alpha >= 2 else ():
            with h.reinforce(model, alpha=alpha, heads=heads):
                found[f"{name}, alpha {alpha}"] = test.judge(test.write(model))[0]
    for alpha in (1.5, 2.0, 3.0):
        draws = []
        for draw in range(5):
            heads = random_heads(layers, arguments.pictures, 100 * seed + draw)
            with h.reinforce(model, alpha=alpha, heads=heads):
                draws.append(test.judge(test.write(model))[0])
        found[f"random heads, alpha {alpha}"] = statistics.mean(draws)
    right, wrong, area = test.divergence_gap(model, test.write(model))
    return found | {"T-VHD right": right, "T-VHD hallucinated": wrong, "T-VHD area": area}


def main() -> None:
    """Prints a table: mean and standard deviation over seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--faintest", type=float, default=0.05)
    parser.add_argument("--noise", type=float, default=0.4)
    parser.add_argument("--folder", type=Path, help="keeps trained weights, and reads them again")
    arguments = parser.parse_args()
    rows = []
    for seed in arguments.seeds:
        print(f"seed {seed}", flush=True)
        rows.append(of_seed(seed, arguments))
        print({name: round(value, 4) for name, value in rows[-1].items()}, flush=True)
    for name in rows[0]:
        values = [row[name] for row in rows]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"{name:<24} {statistics.mean(values):.4f} +- {spread:.4f}")


if __name__ == "__main__":
    main()
