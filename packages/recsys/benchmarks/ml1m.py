"""MovieLens-1M by the official protocol: python -m benchmarks.ml1m --model autoint

Trains as the authors do (batch 1024, Adam in TensorFlow's form with 1e-3, keep 0.6 of the attention
weights and 0.9 of the embeddings, last short batch dropped, stop once the validation log loss has
risen four times in a row after more than five), keeps the best epoch by validation log loss, and
adds a line per run to <out>/results.jsonl. A run that was cut off goes on where it was.
"""

import argparse
import itertools
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from attn_recsys.data.batches import ShardDataset
from attn_recsys.data.movielens import prepare_ml1m
from attn_recsys.data.prepare import load_prepared
from attn_recsys.metrics import summary
from attn_recsys.models import create
from attn_recsys.optim import SPARSE, make_optimizer
from core_attn.training.data import StreamLoader

DATA = Path(os.environ.get("ATTN_DATA", "../../../shared/data"))  # from packages/recsys


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="autoint")
    parser.add_argument("--set", default="{}", help="JSON of settings of the model's config")
    parser.add_argument("--name", default="")
    parser.add_argument("--seeds", type=int, nargs="+", default=[2018])
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--stop-after", type=int, default=50, help="epochs of this call")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--optimizer", default="adam_tf", help="of the table, as in `attn-recsys`")
    parser.add_argument(
        "--double", action="store_true", help="in float64: nothing hangs on rounding"
    )
    parser.add_argument("--ml1m", type=Path, default=DATA / "recsys" / "ml-1m")
    parser.add_argument("--out", type=Path, default=Path("/tmp/recsys-ml1m"))
    args = parser.parse_args()
    folder = args.out / "prepared"
    prepared = (
        load_prepared(folder)
        if folder.exists()
        else prepare_ml1m(args.ml1m, folder, protocol="official")
    )
    for seed in args.seeds:
        run(args, prepared, folder, seed)


def run(args, prepared, folder, seed):
    name = args.name or args.model
    changes = json.loads(args.set)
    if args.model.startswith("autoint"):
        changes = {
            "attention_dropout": 0.4, "embedding_dropout": 0.1, "init": "official"
        } | changes  # fmt: skip
    torch.manual_seed(seed)
    dtype = torch.float64 if args.double else torch.float32
    model = create(args.model, prepared.layout, sparse=args.optimizer in SPARSE, **changes)
    model = model.to(dtype)
    optimizer = make_optimizer(model, args.optimizer, lr=args.lr)
    sets = {
        part: StreamLoader(
            ShardDataset(
                folder / part, prepared, 1024 if part == "train" else 8192,
                shuffle=part == "train", seed=seed, buffer=16, drop_last=part == "train",
            )
        )
        for part in ("train", "val", "test")
    }  # fmt: skip
    path = args.out / f"{name}-{seed}.pt"
    history, best = [], None
    if path.exists():
        state = torch.load(path, weights_only=False)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        history, best = state["history"], state["best"]
    first = len(history)
    for epoch in range(first, min(args.epochs, first + args.stop_after)):
        if stopped(history):
            break
        start, cpu = time.time(), time.process_time()
        model.train()
        sets["train"].set_epoch(epoch)
        for batch in sets["train"]:
            loss = F.binary_cross_entropy_with_logits(
                model(batch["index"], batch["value"]), batch["label"].to(dtype)
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        found = score(model, sets["val"])
        found |= {"seconds": time.time() - start, "cpu": time.process_time() - cpu}
        history.append(found)
        print(name, seed, epoch + 1, {k: round(v, 4) for k, v in found.items()}, flush=True)
        if best is None or found["logloss"] < best["val"]["logloss"]:
            best = {"epoch": epoch + 1, "val": found, "test": score(model, sets["test"])}
            torch.save(model.state_dict(), args.out / f"{name}-{seed}.best.pt")
        state = {
            "model": model.state_dict(), "optimizer": optimizer.state_dict(),
            "random": torch.get_rng_state(), "history": history, "best": best,
        }  # fmt: skip
        torch.save(state, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)
    done = stopped(history) or len(history) >= args.epochs
    line = {"name": name, "seed": seed, "epochs": len(history), "done": done, "best": best}
    line["curve"] = [(round(h["auc"], 4), round(h["logloss"], 4)) for h in history]
    with (args.out / "results.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(name, seed, "best epoch", best["epoch"], "test", best["test"], flush=True)


def stopped(history):
    """The authors' rule."""
    losses = [found["logloss"] for found in history]
    last = losses[-5:]  # four rises
    return len(losses) > 5 and all(a < b for a, b in itertools.pairwise(last))


@torch.no_grad()
def score(model, loader):
    model.eval()
    labels, scores = [], []
    for batch in loader:
        scores.append(model(batch["index"], batch["value"]).sigmoid().numpy())
        labels.append(batch["label"].numpy())
    return summary(np.concatenate(labels), np.concatenate(scores))


if __name__ == "__main__":
    main()
