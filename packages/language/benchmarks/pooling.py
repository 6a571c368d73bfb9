"""LAMA beside mean pooling of the same GRU and beside counted words, on review snippets.

python -m benchmarks.pooling FOLDER [--epochs 4] [--seeds 3]
"""

import argparse
import statistics
import time

import torch
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

from attn_language import create
from attn_language.data import Reviews
from attn_language.models import Lama
from core_attn.testing.timing import table

GOOD = "good great best fun funny love moving beautiful brilliant powerful smart charming".split()
BAD = "bad worst dull boring bland flat stupid lame fails mess tired tedious lacks".split()
STOP = "the a an of and to is in it that this for with as its on by but at from be are".split()


def words_alone(data: Reviews) -> float:
    """Accuracy of a logistic regression on which words occur, of those seen twice."""
    counts = CountVectorizer(min_df=2, binary=True)
    texts, labels = zip(*data.rows["train"], strict=True)
    model = LogisticRegression(C=0.3, max_iter=1000).fit(counts.fit_transform(texts), labels)
    texts, labels = zip(*data.rows["test"], strict=True)
    return float(model.score(counts.transform(texts), labels))


def run(data: Reviews, name: str, seed: int, epochs: int) -> dict[str, float]:
    """A classifier trained, the best epoch by validation tested."""
    torch.manual_seed(seed)
    model = create(name, vocab=data.tokenizer.vocab, classes=2)  # type: ignore[union-attr]
    assert isinstance(model, Lama)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    begin, best = time.process_time(), {"val": 0.0, "test": 0.0}
    for _ in range(epochs):
        model.train()
        for batch in data.train_dataloader():
            optimizer.zero_grad()
            F.cross_entropy(model(batch.ids, batch.lengths), batch.labels).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        model.eval()
        scores = {"val": accuracy(model, data.val_dataloader())}
        if scores["val"] > best["val"]:
            best = scores | {"test": accuracy(model, data.test_dataloader())}
    best["seconds"] = time.process_time() - begin
    best["pooling"] = 0 if model.pool is None else sum(x.numel() for x in model.pool.parameters())
    if model.pool is not None:
        best |= weights(model, data)
    return best


@torch.no_grad()
def accuracy(model: Lama, batches) -> float:
    right = [(model(b.ids, b.lengths).argmax(-1) == b.labels).float() for b in batches]
    return torch.cat(right).mean().item()


@torch.no_grad()
def weights(model: Lama, data: Reviews) -> dict[str, float]:
    """Mean weight, in uniform weights, of words of sentiment and of stop words."""
    assert data.tokenizer is not None and model.pool is not None
    sets = {"sentiment": GOOD + BAD, "stop": STOP}
    ids = {name: torch.tensor(data.tokenizer.encode(" ".join(w))) for name, w in sets.items()}
    found: dict[str, list[torch.Tensor]] = {name: [] for name in sets}
    for batch in data.test_dataloader():
        valid = torch.arange(batch.ids.shape[1]) < batch.lengths[:, None]
        seen = model.pool(model.states(batch.ids, batch.lengths), valid).weights.mean(1)
        seen = seen * batch.lengths[:, None]
        for name, words in ids.items():
            found[name].append(seen[torch.isin(batch.ids, words) & valid])
    return {name: torch.cat(parts).mean().item() for name, parts in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = Reviews(options.folder)
    data.setup("fit")
    rows = []
    for name in ("lama", "lama_mean"):
        runs = [run(data, name, seed, options.epochs) for seed in range(options.seeds)]
        test = [r["test"] for r in runs]
        rows.append([
            name, f"{statistics.mean(test):.3f} ± {statistics.pstdev(test):.3f}",
            f"{runs[0]['pooling']:.0f}", f"{statistics.mean(r['seconds'] for r in runs):.0f}",
        ])  # fmt: skip
        if "stop" in runs[0]:
            sentiment, stop = (statistics.mean(r[k] for r in runs) for k in ("sentiment", "stop"))
            print(f"mean weight over uniform: sentiment words {sentiment:.2f}, stop {stop:.2f}")
    rows.append(["logistic regression on words", f"{words_alone(data):.3f}", "", ""])
    print(table(("model", "test accuracy", "pooling parameters", "cpu s"), rows))


if __name__ == "__main__":
    main()
