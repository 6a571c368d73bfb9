"""All mixers at about equal parameters and steps on tinyshakespeare, beside unigram and bigram.

    python -m benchmarks.mechanisms FILE [--steps 400] [--seeds 3] [--out mechanisms.json]

Resumable: a line of the result file that is there is not measured again.
"""

import argparse
import json
import math
from pathlib import Path

import torch

from attn_language import create
from attn_language.generation import perplexity
from attn_language.models import Decoder
from attn_language.models.spikegpt import SpikeGPTConfig
from attn_language.spikes import spike_rates
from core_attn.testing.timing import table

from .training import CONTEXT, accuracy, corpus, kept, train, windows

HEADER = ("model", "parameters", "nats", "bits a byte", "accuracy", "cpu s", "kept MiB", "seeds")
# Widths and depths that come near 42,000 parameters each, embeddings among them.
MODELS = {
    "transformer": {"dim": 32, "depth": 3, "heads": 4},
    "llama": {"dim": 32, "depth": 3, "heads": 4, "hidden": 88},
    "spikegpt": {"dim": 36, "depth": 2},
    "grassmann": {
        "dim": 32, "depth": 3, "reduced": 6, "hidden": 128, "offsets": (1, 2, 4, 8),
    },
    "grassmann_pre": {
        "dim": 32, "depth": 3, "reduced": 6, "hidden": 128, "offsets": (1, 2, 4, 8),
    },
    "mha": {"dim": 32, "depth": 3, "heads": 4, "hidden": 128},
    "mdha": {"dim": 32, "depth": 3, "heads": 4, "hidden": 128},
    "rmha": {"dim": 32, "depth": 3, "heads": 4, "hidden": 128, "max_distance": 64},
    "rcmha": {"dim": 32, "depth": 3, "heads": 4, "hidden": 128, "max_distance": 64},
    "uoe": {"dim": 32, "depth": 3, "heads": 4},
    "routing": {"dim": 32, "depth": 3, "heads": 4, "window": 12, "local_window": 12, "hidden": 96,
                "decay": 0.99},
    "bam": {"dim": 32, "depth": 2, "heads": 2, "hidden": 48, "experts": 3},
    "btx": {"dim": 32, "depth": 2, "heads": 2, "hidden": 64, "experts": 3},
}  # fmt: skip


def counts(train: torch.Tensor, test: torch.Tensor, vocab: int) -> dict[str, float]:
    """Cross-entropies of unigram and bigram counts."""
    one = torch.bincount(train, minlength=vocab).double()
    two = torch.zeros(vocab, vocab, dtype=torch.double)
    two.index_put_((train[:-1], train[1:]), torch.ones(1, dtype=torch.double), accumulate=True)
    two += 0.1
    return {
        "unigram": -(one / one.sum()).log()[test].mean().item(),
        "bigram": -(two / two.sum(1, keepdim=True)).log()[test[:-1], test[1:]].mean().item(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--test", type=int, default=20000, help="characters of the test text scored"
    )
    parser.add_argument("--out", default="mechanisms.json")
    parser.add_argument("--models", default=",".join(MODELS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    text, out = corpus(options.file), Path(options.out)
    done = json.loads(out.read_text()) if out.is_file() else {}
    for name in options.models.split(","):
        for seed in range(options.seeds):
            key = f"{name}/{seed}/{options.steps}"
            if key in done:
                continue
            torch.manual_seed(seed)
            model = create(name, vocab=text.tokenizer.vocab, context=CONTEXT, **MODELS[name])
            assert isinstance(model, Decoder)
            seconds = train(model, windows(text.train, seed), options.steps)
            scored = text.test[: options.test]
            result = perplexity(
                model, scored, context=CONTEXT, stride=CONTEXT, text_bytes=len(scored)
            )
            done[key] = {
                "parameters": sum(p.numel() for p in model.parameters()),
                "nats": result.nats,
                "bits": result.bits_per_byte,
                "accuracy": accuracy(model, scored),
                "seconds": seconds,
                "kept MiB": kept(model, next(windows(text.train, 0))[0]),
            }
            if isinstance(model.config, SpikeGPTConfig):
                rates = spike_rates(model, text.test[None, :CONTEXT]).rates
                done[key]["rates"] = {layer: round(rate, 3) for layer, rate in rates.items()}
            out.write_text(json.dumps(done, indent=1))
    rows = []
    for name in MODELS:
        runs = [
            done[k] for k in done if k.startswith(f"{name}/") and k.endswith(f"/{options.steps}")
        ]
        if not runs:
            continue
        nats = [r["nats"] for r in runs]
        mean = sum(nats) / len(nats)
        spread = math.sqrt(sum((x - mean) ** 2 for x in nats) / len(nats))
        rows.append([
            name, f"{runs[0]['parameters']:,}", f"{mean:.3f} ± {spread:.3f}",
            f"{sum(r['bits'] for r in runs) / len(runs):.3f}",
            f"{sum(r['accuracy'] for r in runs) / len(runs):.3f}",
            f"{sum(r['seconds'] for r in runs) / len(runs):.0f}", 
            f"{runs[0]['kept MiB']:.1f}", str(len(runs)),
        ])  # fmt: skip
        if "rates" in runs[0]:
            print("spike rates", runs[0]["rates"])
    for name, nats in counts(text.train, text.test, text.tokenizer.vocab).items():
        rows.append([name, "", f"{nats:.3f}", f"{nats / math.log(2):.3f}", "", "", "", ""])
    print(table(HEADER, rows))


if __name__ == "__main__":
    main()
