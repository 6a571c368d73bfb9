"""From a Parquet file to a trained epoch, beside the peers' own loaders and trainers.

python -m benchmarks.end_to_end

39 integer columns of 25,641 ids and a label, width 16 (which DeepCTR-Torch and torch-rechub force),
3 blocks, 2 heads, batch 1024, one thread, CPU seconds for one epoch of the same rows with the
peer's documented way in: `model.fit` on columns for DeepCTR-Torch, DataGenerator and CTRTrainer for
torch-rechub. Ours is shown with and without its two passes of preparation.
"""

import argparse
import contextlib
import io
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas
import polars as pl
import torch
from torch.nn import functional as F

from . import peers


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_480)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    shape = peers.Shape()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clicks.parquet"
        random = np.random.default_rng(0)
        ids = {name: random.integers(0, shape.size, args.rows) for name in shape.names}
        pl.DataFrame(ids | {"label": random.integers(0, 2, args.rows)}).write_parquet(path)
        base = None
        for name, run in {"ours": ours, "deepctr-torch": deepctr, "torch-rechub": rechub}.items():
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    seconds = run(shape, path)
            except ImportError as error:
                print(f"{name}: missing ({error})")
                continue
            base = base or seconds[-1]
            shown = ", ".join(f"{s:.1f}" for s in seconds)
            rate = args.rows / seconds[-1]
            print(f"{name:<14} CPU s {shown}   {rate:,.0f} rows/s   peer / ours "
                  f"{seconds[-1] / base:.2f}", flush=True)  # fmt: skip


def ours(shape, path):
    from attn_recsys.data import TableData
    from attn_recsys.memory import keep_freed_memory
    from attn_recsys.models import create
    from attn_recsys.optim import make_optimizer

    keep_freed_memory()
    schema = path.with_suffix(".yaml")
    fields = "".join(f"  {name}: categorical\n" for name in shape.names)
    schema.write_text(f"files: {path}\nlabel: label\nfields:\n{fields}split: [1, 0, 0]\n")
    start = time.process_time()
    data = TableData(str(schema), folder=str(path.with_suffix("")), batch_size=1024)
    data.prepare_data()
    data.setup()
    prepared = time.process_time() - start
    start = time.process_time()
    changes = {"block_widths": (16,) * shape.blocks, "linear_term": True}
    model = create("autoint_paper", data.prepared.layout, changes, sparse=True)
    update = make_optimizer(model, "deferred_adam")
    for batch in data.loader("train", shuffle=True):
        logits = model(batch["index"], batch["value"])
        loss = F.binary_cross_entropy_with_logits(logits, batch["label"])
        update.zero_grad()
        loss.backward()
        update.step()
    return prepared, time.process_time() - start


def deepctr(shape, path):
    from deepctr_torch.inputs import SparseFeat
    from deepctr_torch.models import AutoInt

    start = time.process_time()
    frame = pandas.read_parquet(path)
    columns = [SparseFeat(name, shape.size, embedding_dim=shape.dim) for name in shape.names]
    model = AutoInt(columns, columns, att_layer_num=3, att_head_num=2, dnn_hidden_units=())
    model.compile("adam", "binary_crossentropy")
    inputs = {name: frame[name].to_numpy() for name in shape.names}
    model.fit(inputs, frame[["label"]].to_numpy(), batch_size=1024, epochs=1, verbose=0)
    return (time.process_time() - start,)


def rechub(shape, path):
    from torch_rechub.basic.features import SparseFeature
    from torch_rechub.models.ranking import AutoInt
    from torch_rechub.trainers import CTRTrainer
    from torch_rechub.utils.data import DataGenerator

    start = time.process_time()
    frame = pandas.read_parquet(path)
    inputs = {name: frame[name].to_numpy() for name in shape.names}
    labels = frame["label"].to_numpy()
    features = [SparseFeature(name, shape.size, embed_dim=shape.dim) for name in shape.names]
    model = AutoInt(features, [], num_layers=3, num_heads=2, mlp_params=None)
    generator = DataGenerator(inputs, labels)
    few = {name: x[:2] for name, x in inputs.items()}
    train, _, _ = generator.generate_dataloader(few, labels[:2], few, labels[:2], batch_size=1024)
    trainer = CTRTrainer(model, optimizer_params={"lr": 1e-3}, n_epoch=1)
    trainer.fit(train)
    return (time.process_time() - start,)


if __name__ == "__main__":
    main()
