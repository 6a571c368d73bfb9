"""`attn-recsys fit` beside the peers' own loaders and trainers: python -m benchmarks.end_to_end

39 integer columns of 25,641 ids and a label in a Parquet file, 3 blocks, 2 heads, one epoch of the
same rows in CPU seconds, a process each, in turns, imports done. Ids are encoded on both sides: the
peers read them as they are, ours reads prepared shards, whose making is shown apart. "fit" is the
command with its progress bar, logs and checkpoint, "fit unsaved" that without the checkpoint, which
DeepCTR-Torch and torch-rechub do not write either, "bare" a loop of our model over our batches, and
"bare saved" that loop with a plain torch.save of weights and moments at its end, as `fit` leaves.
No peer has an L2 on its embeddings, since ours has none. "fused": lent torch's fused Adam.

At width 16, which they force: `model.fit` on columns for DeepCTR-Torch, DataGenerator and
CTRTrainer for torch-rechub. At width 64: FuxiCTR's Parquet loader and its base model's `fit`;
RecBole's data set, from the text file it asks for and encodes, and its Trainer.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
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
    parser.add_argument("--rows", type=int, default=30_720)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    runs = [run.__name__ for group in GROUPS for run in group]
    parser.add_argument("--only", nargs="*", default=runs, choices=runs)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--run", nargs=4, help="internal: name, file, threads, batch of one run")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    shape = peers.Shape()
    if args.run:
        import torch._dynamo  # seconds, which torch's optimisers would take later

        name, path, threads, batch = args.run
        torch.set_num_threads(int(threads))
        with contextlib.chdir(Path(path).parent):  # peers leave files where they run
            print(json.dumps(globals()[name](shape, Path(path), int(batch))))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clicks.parquet"
        random = np.random.default_rng(0)
        ids = {name: random.integers(0, shape.size, args.rows) for name in shape.names}
        pl.DataFrame(ids | {"label": random.integers(0, 2, args.rows)}).write_parquet(path)
        for threads in args.threads:
            print(f"\n{threads} thread(s), {args.rows:,} rows, batch {args.batch:,}")
            for group in GROUPS:
                times = {run: [] for run in group if run.__name__ in args.only}
                if not times:
                    continue
                for _ in range(args.rounds):
                    for run, found in times.items():
                        found.extend(measure(run, path, threads, args.batch))
                        print(run.__name__, *found[-1:], file=sys.stderr, flush=True)
                show(times, args.rows)


def measure(run, path, threads, batch):
    """(CPU, wall) or (preparation, CPU, wall) of a process; nothing where the peer is missing."""
    command = [sys.executable, "-m", "benchmarks.end_to_end"]
    command += ["--run", run.__name__, str(path), str(threads), str(batch)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and "ImportError" not in done.stderr + done.stdout:
        raise RuntimeError(f"{run.__name__}: {done.stderr[-2000:]}")
    return [] if done.returncode else [json.loads(done.stdout.splitlines()[-1])]


def show(times, rows):
    """Prints the rows of a table; the first is ours."""
    base = None
    for run, found in times.items():
        name = run.__name__.replace("_", " ")
        if not found:
            print(f"{name}: missing")
            continue
        *prepared, cpu, wall = (statistics.median(column) for column in zip(*found, strict=True))
        more = f"   preparation {prepared[0]:.2f} s" if prepared else ""
        if base:
            more = f"   over fit: {cpu / base[0]:.2f} CPU, {wall / base[1]:.2f} wall"
        base = base or (cpu, wall)
        speed = f"{rows / cpu:,.0f} rows/s"
        print(f"{name:<16} CPU {cpu:.2f} s, wall {wall:.2f} s, {speed}{more}", flush=True)


class Watch:
    """CPU seconds of the process and seconds since it was made."""

    def __init__(self):
        self.cpu, self.wall = time.process_time(), time.perf_counter()

    def read(self):
        return time.process_time() - self.cpu, time.perf_counter() - self.wall


LIKE_DEEPCTR = {"block_widths": [16] * 3, "linear_term": True}
LIKE_RECBOLE = {"block_widths": [64] * 3} | peers.LIKE_RECBOLE


def fit_16(shape, path, batch):
    return fit(shape, path, batch, "autoint_paper", LIKE_DEEPCTR)


def fit_unsaved_16(shape, path, batch):
    return fit(shape, path, batch, "autoint_paper", LIKE_DEEPCTR, "--trainer.enable_checkpointing")


def bare_16(shape, path, batch):
    return bare(shape, path, batch, "autoint_paper", LIKE_DEEPCTR)


def bare_saved_16(shape, path, batch):
    return bare(shape, path, batch, "autoint_paper", LIKE_DEEPCTR, save=True)


def fit_64(shape, path, batch):
    return fit(shape, path, batch, "autoint_fuxictr", {})


def fit_unsaved_64(shape, path, batch):
    return fit(shape, path, batch, "autoint_fuxictr", {}, "--trainer.enable_checkpointing")


def bare_64(shape, path, batch):
    return bare(shape, path, batch, "autoint_fuxictr", {})


def bare_saved_64(shape, path, batch):
    return bare(shape, path, batch, "autoint_fuxictr", {}, save=True)


def fit_recbole_64(shape, path, batch):
    return fit(shape, path, batch, "autoint_paper", LIKE_RECBOLE)


def table(shape, path, batch, folder):
    """The prepared table, and the CPU seconds that it took."""
    from attn_recsys.data import TableData

    schema = path.with_suffix(".yaml")
    fields = "".join(f"  {name}: categorical\n" for name in shape.names)
    schema.write_text(f"files: {path}\nlabel: label\nfields:\n{fields}split: [1, 0, 0]\n")
    watch = Watch()
    data = TableData(str(schema), folder=str(Path(folder) / "shards"), batch_size=batch)
    data.prepare_data()
    data.setup()
    return data, watch.read()[0]


def fit(shape, path, batch, preset, changes, *off):
    """The command; what is switched off has `false` after its flag."""
    import dataclasses

    import core_attn.training.fit  # noqa: F401 (seconds)
    from attn_recsys import VARIANTS, tasks  # noqa: F401
    from core_attn.cli import main as command

    config = dataclasses.asdict(dataclasses.replace(VARIANTS[preset], **changes))
    with tempfile.TemporaryDirectory() as folder:
        data, prepared = table(shape, path, batch, folder)
        words = ["fit", "--config", "table-autoint", "--data.schema", data.schema]
        words += ["--data.folder", data.folder, "--data.batch_size", str(batch)]
        words += ["--model.config", json.dumps(config), "--model.rare_rate", "0"]
        words += ["--trainer.max_epochs", "1", "--trainer.default_root_dir", folder]
        watch = Watch()
        code = command("attn_recsys", [*words, *(x for flag in off for x in (flag, "false"))])
        took = watch.read()
        if code:
            raise RuntimeError(f"fit: exit code {code}")
        return prepared, *took


def bare(shape, path, batch, preset, changes, save=False):
    """A loop over the same batches."""
    from attn_recsys.models import create
    from attn_recsys.optim import make_optimizer
    from core_attn.allocator import keep_freed_memory

    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        data, prepared = table(shape, path, batch, folder)
        watch = Watch()
        model = create(preset, data.prepared.layout, sparse=True, **changes)
        update = make_optimizer(model, "deferred_adam")
        for part in data.loader("train", shuffle=True):
            logits = model(part["index"], part["value"])
            loss = F.binary_cross_entropy_with_logits(logits, part["label"])
            update.zero_grad()
            loss.backward()
            update.step()
        if save:
            state = {"model": model.state_dict(), "optimizer": update.state_dict()}
            torch.save(state, Path(folder) / "bare.ckpt")
        return prepared, *watch.read()


def fused(parameters):
    return torch.optim.Adam(parameters, lr=1e-3, fused=True)


def deepctr(shape, path, batch, lent=None):
    from deepctr_torch.inputs import SparseFeat
    from deepctr_torch.models import AutoInt

    watch = Watch()
    frame = pandas.read_parquet(path)
    columns = [SparseFeat(name, shape.size, embedding_dim=shape.dim) for name in shape.names]
    model = AutoInt(
        columns, columns, att_layer_num=3, att_head_num=2, dnn_hidden_units=(),
        l2_reg_embedding=0,
    )  # fmt: skip
    model.compile("adam" if lent is None else lent(model.parameters()), "binary_crossentropy")
    inputs = {name: frame[name].to_numpy() for name in shape.names}
    model.fit(inputs, frame[["label"]].to_numpy(), batch_size=batch, epochs=1, verbose=0)
    return watch.read()


def deepctr_fused(shape, path, batch):
    return deepctr(shape, path, batch, fused)


def rechub(shape, path, batch, **lent):
    from torch_rechub.basic.features import SparseFeature
    from torch_rechub.models.ranking import AutoInt
    from torch_rechub.trainers import CTRTrainer
    from torch_rechub.utils.data import DataGenerator

    watch = Watch()
    frame = pandas.read_parquet(path)
    inputs = {name: frame[name].to_numpy() for name in shape.names}
    labels = frame["label"].to_numpy()
    features = [SparseFeature(name, shape.size, embed_dim=shape.dim) for name in shape.names]
    model = AutoInt(features, [], num_layers=3, num_heads=2, mlp_params=None)
    generator = DataGenerator(inputs, labels)
    few = {name: x[:2] for name, x in inputs.items()}
    train, _, _ = generator.generate_dataloader(few, labels[:2], few, labels[:2], batch_size=batch)
    trainer = CTRTrainer(model, optimizer_params={"lr": 1e-3} | lent, n_epoch=1)
    trainer.fit(train)
    return watch.read()


def rechub_fused(shape, path, batch):
    return rechub(shape, path, batch, fused=True)


def fuxictr(shape, path, batch, lent=None):
    from fuxictr.pytorch.dataloaders.parquet_dataloader import ParquetDataLoader

    features = peers.fuxictr_features(shape)
    loader = ParquetDataLoader(features, str(path), batch_size=batch, shuffle=True)
    watch = Watch()  # its cluster is up
    model = peers.fuxictr_model(shape)
    if lent is not None:
        model.optimizer = lent(model.parameters())
    model.fit(loader)
    return watch.read()


def fuxictr_fused(shape, path, batch):
    return fuxictr(shape, path, batch, fused)


def recbole(shape, path, batch):
    for old, new in {"float_": "float64", "complex_": "complex128", "unicode_": "str_"}.items():
        setattr(np, old, getattr(np, new))  # as in numpy 1, for which recbole 1.2 was written
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.model.context_aware_recommender.autoint import AutoInt
    from recbole.trainer import Trainer

    names = {name: f"{name}:token" for name in shape.names} | {"label": "label:float"}
    folder = path.parent / "clicks"
    folder.mkdir(exist_ok=True)
    pl.read_parquet(path).rename(names).write_csv(folder / "clicks.inter", separator="\t")
    threads = torch.get_num_threads()
    watch = Watch()
    options = {
        "data_path": str(path.parent), "load_col": {"inter": [*shape.names, "label"]},
        "USER_ID_FIELD": "f0", "ITEM_ID_FIELD": "f1", "LABEL_FIELD": "label", "threshold": None,
        "embedding_size": shape.dim, "attention_size": 64, "n_layers": shape.blocks,
        "num_heads": shape.heads, "dropout_probs": [0.0, 0.0, 0.0], "train_batch_size": batch,
        "train_neg_sample_args": None, "epochs": 1, "use_gpu": False, "state": "ERROR",
        "eval_args": {"split": {"RS": [1, 0, 0]}, "order": "RO", "mode": "labeled"},
    }  # fmt: skip
    config = Config(model="AutoInt", dataset="clicks", config_dict=options)
    torch.set_num_threads(threads)
    train, _, _ = data_preparation(config, create_dataset(config))
    Trainer(config, AutoInt(config, train.dataset)).fit(train, saved=False)
    return watch.read()


GROUPS = (
    (fit_16, fit_unsaved_16, bare_16, bare_saved_16, deepctr, deepctr_fused, rechub, rechub_fused),
    (fit_64, fit_unsaved_64, bare_64, bare_saved_64, fuxictr, fuxictr_fused),
    (fit_recbole_64, recbole),
)

if __name__ == "__main__":
    main()
