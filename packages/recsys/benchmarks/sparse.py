"""Dense against sparse updates, and a table of ten million rows: python -m benchmarks.sparse WHAT

criteo     AUC, log loss and calibration on Criteo-10k, each tenth scored by a model of the others,
           of dense, deferred and lazy Adam and row-wise Adagrad; what rounding does to dense Adam.
vocabulary time of an update step as the table grows from 1e5 to 1e7 rows.
stream     ten million generated rows: preparation and one epoch, with the peak memory.
planted    the pairs that the report finds in generated clicks.
"""

import argparse
import os
import resource
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.model_selection import StratifiedKFold
from torch.nn import functional as F

from attn_recsys.data import Criteo, SyntheticClicks
from attn_recsys.data.synthetic import generate, planted_pairs
from attn_recsys.interactions import interaction_strengths
from attn_recsys.layout import Layout
from attn_recsys.metrics import auc, summary
from attn_recsys.models import create
from attn_recsys.optim import SPARSE, make_optimizer
from core_attn import use_backend
from core_attn.allocator import keep_freed_memory

DATA = Path(os.environ.get("ATTN_DATA", "../../../shared/data"))  # from packages/recsys


def fit(
    layout, batches, name, changes, optimizer, *, seed=0, lr=1e-3, table_lr=None,
    dtype=torch.float32,
):  # fmt: skip
    torch.manual_seed(seed)
    model = create(name, layout, sparse=optimizer in SPARSE, **changes).to(dtype)
    update = make_optimizer(model, optimizer, lr=lr, table_lr=table_lr)
    model.train()
    for batch in batches:
        logits = model(batch["index"], batch["value"])
        loss = F.binary_cross_entropy_with_logits(logits, batch["label"].to(dtype))
        update.zero_grad()
        loss.backward()
        update.step()
    return model.eval()


def epochs_of(data, epochs):
    loader = data.loader("train", shuffle=True)
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        yield from loader


@torch.no_grad()
def score(model, loader):
    p, labels = [], []
    for batch in loader:
        p.append(model(batch["index"], batch["value"]).sigmoid())
        labels.append(batch["label"])
    return torch.cat(labels).numpy(), torch.cat(p).double().numpy()


def criteo(folder):
    path = DATA / "recsys" / "criteo-10k" / "train_examples.txt.gz"
    data = Criteo(str(path), "official", folder=f"{folder}/criteo")
    data.prepare_data()
    data.setup()
    loaders = [data.loader(part, shuffle=False) for part in ("train", "val", "test")]
    parts = [batch for loader in loaders for batch in loader]
    rows = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    folds = StratifiedKFold(10, shuffle=True, random_state=2018)
    folds = list(folds.split(np.zeros(len(rows["label"])), rows["label"]))
    print("three seeds of ten folds: AUC, mean of the folds / log loss / calibration error")
    for title, optimizer, table_lr, dtype, backend in (
        ("dense", "adam_tf", 1e-3, torch.float32, "cpu"),
        ("dense, rounded otherwise", "adam_tf", 1e-3, torch.float32, "composed"),
        ("deferred", "deferred_adam", 1e-3, torch.float32, "cpu"),
        ("dense, float64", "adam_tf", 1e-3, torch.float64, "composed"),
        ("deferred, float64", "deferred_adam", 1e-3, torch.float64, "composed"),
        ("lazy", "lazy_adam", 1e-3, torch.float32, "cpu"),
        ("row-wise Adagrad", "row_adagrad", 1e-2, torch.float32, "cpu"),
    ):
        with use_backend(backend, "short_attention_block"):
            found = [folded(data, rows, folds, seed, optimizer, table_lr, dtype)
                     for seed in range(3)]  # fmt: skip
        line = "  ".join(f"{x['auc']:.5f}/{x['logloss']:.5f}/{x['ece']:.4f}" for x in found)
        mean = statistics.mean(x["auc"] for x in found)
        print(f"{title:<25} {line}   mean AUC {mean:.5f}", flush=True)


def folded(data, rows, folds, seed, optimizer, table_lr, dtype, epochs=3, size=256):
    """Each tenth of the rows scored by a model of the other nine."""
    changes = {"block_widths": (32, 32, 32), "embedding_dropout": 0.1}
    aucs, labels, scores = [], [], []
    for train, test in folds:
        random = np.random.default_rng(seed)
        order = [x for _ in range(epochs) for x in np.split(
            random.permutation(train), range(size, len(train), size))]  # fmt: skip
        batches = ({name: x[at] for name, x in rows.items()} for at in order)
        model = fit(
            data.prepared.layout, batches, "autoint", changes, optimizer, seed=seed,
            table_lr=table_lr, dtype=dtype,
        )  # fmt: skip
        label, p = score(model, [{name: x[test] for name, x in rows.items()}])
        aucs.append(auc(label, p))
        labels.append(label)
        scores.append(p)
    return summary(np.concatenate(labels), np.concatenate(scores)) | {"auc": statistics.mean(aucs)}


def vocabulary(folder):
    torch.set_num_threads(1)
    fields, batch = 39, 1024
    for rows in (100_000, 1_000_000, 10_000_000):
        line = f"{rows:>10,} rows"
        for optimizer in ("adam_tf", "deferred_adam", "lazy_adam", "row_adagrad"):
            sparse = optimizer in SPARSE
            model = create("mlp", Layout.plain(fields, rows), deep_widths=(8,), sparse=sparse)
            update = make_optimizer(model, optimizer)
            times = []
            for step in range(8):
                index = torch.randint(rows, (batch, fields))
                start = time.process_time()
                update.zero_grad()
                model(index, torch.ones(batch, fields)).sum().backward()
                update.step()
                if step > 1:
                    times.append(time.process_time() - start)
            line += f"   {optimizer} {1e3 * statistics.median(times):.0f} ms"
            del model, update
        print(line, flush=True)


def stream(folder, rows=10_000_000):
    torch.set_num_threads(1)
    source = Path(folder) / "clicks.parquet"
    import pyarrow.parquet as pq

    writer = None
    for frame in generate(rows):
        part = frame.drop("p").to_arrow()
        writer = writer or pq.ParquetWriter(source, part.schema)
        writer.write_table(part)
    writer.close()
    print(f"{rows:,} rows, {source.stat().st_size >> 20} MiB of Parquet", flush=True)
    from attn_recsys.data import TableData
    from attn_recsys.data.synthetic import FIELDS

    schema = Path(folder) / "clicks.yaml"
    fields = "".join(f"  {name}: categorical\n" for name in FIELDS)
    schema.write_text(f"files: {source}\nlabel: click\nfields:\n{fields}")
    data = TableData(str(schema), folder=f"{folder}/stream", batch_size=8192)
    start = time.perf_counter(), time.process_time()
    data.prepare_data()
    data.setup()
    report("prepared", *start)
    start = time.perf_counter(), time.process_time()
    changes = {"dim": 8, "block_widths": (16,)}
    model = fit(data.prepared.layout, epochs_of(data, 1), "autoint", changes, "deferred_adam")
    report("one epoch", *start)
    labels, p = score(model, data.test_dataloader())
    print({name: round(x, 4) for name, x in summary(labels, p).items()}, f"{len(p):,} test rows")


def report(what, wall, cpu):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(
        f"{what}: {time.perf_counter() - wall:.0f} s, {time.process_time() - cpu:.0f} s of CPU, "
        f"peak memory so far {peak} MiB",
        flush=True,
    )


def planted(folder):
    data = SyntheticClicks(rows=200_000, folder=f"{folder}/planted")
    data.prepare_data()
    data.setup()
    wanted = planted_pairs()
    for seed in range(3):
        data.seed = seed
        model = fit(
            data.prepared.layout, epochs_of(data, 5), "autoint", {"block_widths": (32, 32)},
            "deferred_adam", seed=seed, lr=3e-3,
        )  # fmt: skip
        labels, p = score(model, data.test_dataloader())
        strengths = interaction_strengths(model, next(iter(data.test_dataloader()))).numpy()
        names = data.prepared.layout.names
        pairs = [
            frozenset((names[i], names[j])) for i, j in zip(*np.triu_indices(12, 1), strict=True)
        ]
        order = np.argsort(-strengths[np.triu_indices(12, 1)])
        first = [pairs[i] in wanted for i in order[: len(wanted)]]
        quality = summary(labels, p)
        print(
            f"seed {seed}: test AUC {quality['auc']:.4f}, log loss {quality['logloss']:.4f}, "
            f"calibration error {quality['ece']:.4f}; of the {len(wanted)} strongest pairs "
            f"{sum(first)} are planted; {[(*pairs[i],) for i in order[:12]]}",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["criteo", "vocabulary", "stream", "planted"])
    parser.add_argument("--rows", type=int, default=10_000_000)
    args = parser.parse_args()
    keep_freed_memory()
    scratch = tempfile.mkdtemp()
    try:
        if args.what == "stream":
            stream(scratch, args.rows)
        else:
            {"criteo": criteo, "vocabulary": vocabulary, "planted": planted}[args.what](scratch)
    finally:
        shutil.rmtree(scratch)
