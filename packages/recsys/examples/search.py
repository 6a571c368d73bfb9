"""Hyper-parameters by Optuna over the command's own flags: python examples/search.py --trials 20

Needs `pip install optuna`. Every trial is a run of `attn-recsys fit`, whose log loss on the
validation rows is minimized. Words after `--` are flags of every run, as
-- --data.schema shop.yaml --trainer.max_epochs 2.
"""

import argparse
import csv
import subprocess
from pathlib import Path

import optuna


def main():
    """Searches, and prints the best."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="insteval-autoint", help="a recipe")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("search"))
    parser.add_argument("flags", nargs="*", help="of every run")
    args = parser.parse_args()

    def log_loss(trial):
        width = trial.suggest_categorical("width", [16, 32, 64])
        chosen = {
            "model.lr": trial.suggest_float("lr", 3e-4, 1e-2, log=True),
            "model.table_lr": trial.suggest_float("table_lr", 3e-4, 1e-2, log=True),
            "model.config.block_widths": [width] * trial.suggest_int("depth", 1, 3),
            "model.config.embedding_dropout": trial.suggest_float("dropout", 0.0, 0.5),
        }
        folder = args.out / f"trial_{trial.number}"
        command = ["attn-recsys", "fit", "--config", args.config, *args.flags]
        command += ["--trainer.default_root_dir", str(folder)]
        command += ["--trainer.enable_progress_bar", "false"]
        command += [f"--{flag}={value}" for flag, value in chosen.items()]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        [log] = folder.glob("*/version_0/metrics.csv")
        with log.open(newline="") as file:
            losses = [row["val/logloss"] for row in csv.DictReader(file)]
        return min(float(loss) for loss in losses if loss)

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(log_loss, n_trials=args.trials)
    print(f"best val/logloss {study.best_value:.5f}: {study.best_params}")


if __name__ == "__main__":
    main()
