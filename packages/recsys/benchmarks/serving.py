"""Files scored by `attn-recsys predict`, beside the model alone: python -m benchmarks.serving

39 columns of 25,641 ids, three blocks of 64. The model alone has its ids in memory.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
import torch

from attn_recsys.serving import measure, predict_files
from core_attn.cli import main as command
from core_attn.training import opened


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1 << 18)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), args)
    for name, value in measure().items():
        print(f"{name}: {value}")


def compare(folder, args):
    table, schema = folder / "clicks.parquet", folder / "clicks.yaml"
    random = np.random.default_rng(0)
    columns = {f"f{i}": random.integers(0, 25_641, args.rows) for i in range(39)}
    pl.DataFrame(columns | {"label": random.integers(0, 2, args.rows)}).write_parquet(table)
    fields = "".join(f"  {name}: categorical\n" for name in columns)
    schema.write_text(f"files: {table}\nlabel: label\nfields:\n{fields}")
    words = ["--config", "table-autoint", "--data.schema", schema, "--data.folder", folder / "data"]
    words += ["--model.config.block_widths", "[64, 64, 64]", "--trainer.default_root_dir", folder]
    words += ["--trainer.max_steps", 1, "--trainer.callbacks", "null"]
    command("attn_recsys", ["fit", *map(str, words), "--trainer.enable_progress_bar", "false"])
    ckpt = folder / "table-autoint" / "version_0" / "last.ckpt"

    _, task, data, _ = opened(str(ckpt), "predict")
    batches = list(data.loader("train", shuffle=False))
    rows = sum(len(batch["label"]) for batch in batches)
    for threads in args.threads:
        torch.set_num_threads(threads)
        alone, streamed = [], []
        for _ in range(args.rounds):
            start = time.perf_counter()
            with torch.inference_mode():
                for batch in batches:
                    task.predict_step(batch)
            alone.append(rows / (time.perf_counter() - start))
            count, seconds, _ = predict_files(str(ckpt), str(table), folder / "p.parquet")
            streamed.append(count / seconds)
        model, predict = statistics.median(alone), statistics.median(streamed)
        print(
            f"{threads} thread(s): predict {predict:,.0f} rows a second, the model alone "
            f"{model:,.0f}: {predict / model:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
