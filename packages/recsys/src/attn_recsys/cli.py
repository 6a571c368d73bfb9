"""The command attn-recsys."""

import re
import sys
from typing import Literal

from core_attn.cli import exit_code
from core_attn.cli import main as run


def main() -> int:
    """Runs attn-recsys and returns its exit code."""
    words = sys.argv[1:]
    of_files = {"--input", "--group", "--slice", "--at"}
    if words[:1] == ["test"] and of_files & {word.partition("=")[0] for word in words}:
        words = ["evaluate", *words[1:]]  # rows of a file need no trainer
    if words[:1] == ["days"]:  # auto_cli swallows an argument of the name config
        words = [re.sub(r"^--config(=|$)", r"--recipe\1", word) for word in words]
    if words[:1] == ["fit"] and "--continue" in words:
        return exit_code("attn_recsys", words, next_day)
    return run(
        "attn_recsys",
        words,
        commands={
            "evaluate": evaluate,
            "calibrate": calibrate,
            "predict": predict,
            "export": export,
            "days": days,
            "bench": bench,
        },
    )


def next_day(words: list[str]) -> int:
    """`fit --ckpt_path FILE --continue`: a new version that begins with that model.

    Its configuration is the base of this command's flags, as --data.files; vocabularies are
    extended, epochs are counted anew, and the best epoch is judged by the new validation rows.

    Raises:
        ValueError: no checkpoint is named.
    """
    import tempfile
    from pathlib import Path

    import yaml

    from core_attn.training.files import read_checkpoint

    rest, path = [], None
    pending = iter(word for word in words if word != "--continue")
    for word in pending:
        flag, equals, value = word.partition("=")
        if flag in ("--ckpt", "--ckpt_path"):
            path = value if equals else next(pending, None)
        else:
            rest.append(word)
    if path is None:
        raise ValueError("--continue needs the checkpoint of the day before: --ckpt_path FILE")
    content = read_checkpoint(path)
    config = {k: x for k, x in content["config"].items() if k not in ("ckpt_path", "weights_only")}
    config["model"]["init_args"]["start"] = path
    config["data"]["init_args"] |= {"extends": path, "folder": None}
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / f"{content['recipe']}.yaml"
        recipe.write_text(yaml.safe_dump(config), "utf-8")
        return run("attn_recsys", ["fit", "--config", str(recipe), *rest[1:]])


def calibrate(
    ckpt: str,
    method: Literal["platt", "isotonic", "none"] = "platt",
    out: str | None = None,
    input: str | None = None,
) -> None:
    """Fit probabilities to the validation rows, for every other command to use.

    Args:
        ckpt: the checkpoint.
        method: "platt" for two parameters; "isotonic" for any rising curve, where there are some
            ten thousand validation rows; "none" to take a calibration away.
        out: the checkpoint to write; by default the calibration is added to `ckpt`.
        input: a labelled file, folder or pattern to fit it on, instead of the validation rows.
    """
    from . import serving

    rows = serving.calibrate(ckpt, method, out, input)
    for row in rows:
        print(
            f"{row['rows']:<12}{row['probabilities']:<12}log loss {row['log loss']:.5f}   "
            f"calibration error {row['calibration error']:.5f}"
        )
    print(out or ckpt)


def predict(
    ckpt: str,
    input: str,
    output: str,
    keep: list[str] = [],  # noqa: B006 (the parser copies it)
    separator: str | None = None,
    allow_unseen: bool = False,
    batch_size: int = 8192,
    null_values: list[str] | None = None,
    decimal_comma: bool | None = None,
) -> None:
    """Stream rows of Parquet, CSV or TSV files through a checkpoint into a table.

    Args:
        ckpt: the checkpoint; nothing else of the training is needed.
        input: a file, a folder, or a pattern of several, with the columns of the schema; a label is
            not needed.
        output: the table to write, .csv, .tsv or .parquet: the rows' numbers, in order, and their
            probability.
        keep: columns to copy into it, as [user,item].
        separator: between cells of text files; by default that of the training files.
        allow_unseen: score also where no value of a field was seen in training.
        batch_size: rows scored at once.
        null_values: spellings of an empty cell in text files; by default those of training.
        decimal_comma: whether numbers there are written 3,5; by default as in training.
    """
    from .serving import predict_files

    rows, seconds, notes = predict_files(
        ckpt, input, output, batch_size=batch_size, keep=keep, separator=separator,
        allow_unseen=allow_unseen, null_values=null_values, decimal_comma=decimal_comma,
    )  # fmt: skip
    print(f"{output}: {rows:,} rows, {rows / max(seconds, 1e-9):,.0f} a second")
    for line in notes:
        print(line)


def evaluate(
    ckpt: str,
    input: str,
    separator: str | None = None,
    group: str | None = None,
    slice: str | None = None,
    at: list[int] = [5, 10],  # noqa: B006 (the parser copies it)
    null_values: list[str] | None = None,
    decimal_comma: bool | None = None,
) -> None:
    """Measure a checkpoint on a new labelled file.

    Args:
        ckpt: the checkpoint; nothing else of the training is needed.
        input: a file, a folder, or a pattern of several, with the columns of the schema and the
            label.
        separator: between cells of text files; by default that of the training files.
        group: a column, as the user: adds AUC and calibration within its groups, and NDCG and
            reciprocal rank of each group's first rows; by default the schema's group.
        slice: a column, for whose most frequent values the metrics are shown apart.
        at: how many of a group's first rows count for NDCG and reciprocal rank.
        null_values: spellings of an empty cell in text files; by default those of training.
        decimal_comma: whether numbers there are written 3,5; by default as in training.
    """
    import polars as pl

    from .serving import evaluate as measured

    rows, found, slices, notes = measured(
        ckpt, input, separator, group=group, slice_by=slice, cutoffs=at,
        null_values=null_values, decimal_comma=decimal_comma,
    )  # fmt: skip
    print(f"{rows:,} rows")
    for name, value in found.items():
        print(f"{name:<20} {value:.5f}")
    if "auc" not in found:
        print("auc                  undefined: all rows have one label")
    if slices:
        with pl.Config(
            tbl_rows=-1, tbl_cols=-1, tbl_hide_dataframe_shape=True, tbl_width_chars=120,
            tbl_hide_column_data_types=True, float_precision=4,
        ):  # fmt: skip
            print(pl.DataFrame(slices, infer_schema_length=None))
    for line in notes:
        print(line)


def export(
    ckpt: str,
    format: Literal["onnx", "torch"] = "onnx",
    out: str | None = None,
    tolerance: float = 1e-5,
) -> int:
    """Write a checkpoint's network as ONNX or torch.export, with its pre-processing tables.

    Args:
        ckpt: the checkpoint.
        format: "onnx", for onnxruntime, or "torch", for torch.export.load.
        out: the file to write; by default beside the checkpoint.
        tolerance: the largest difference allowed between an exported and an original probability.
    """
    from .serving import export_with_tables

    return export_with_tables(ckpt, format, out, tolerance)


def days(
    schema: str, files: list[str], recipe: str = "table-autoint_plus", out: str = "days"
) -> None:
    """Train on each day and test on the next: warm-started, beside trained anew on all days so far.

    Args:
        schema: the YAML file that says what the columns mean.
        files: one per day, in order, as [mon.parquet,tue.parquet].
        recipe: of the runs; `--config`, as elsewhere, is the same.
        out: the folder for runs, days.csv and days.png.
    """
    from pathlib import Path

    from .days import prequential

    for row in prequential(schema, files, recipe, Path(out)):
        auc = row.get("auc", float("nan"))
        print(
            f"{row['tested on']:<28} {row['model']:<5} auc {auc:.4f}  log loss {row['logloss']:.4f}"
        )
    print(f"{out}/days.csv, {out}/days.png")


def bench(quick: bool = False) -> None:
    """Measure scoring: rows a second, and the latency of one row.

    Args:
        quick: fewer repeats.
    """
    from .serving import measure

    for name, value in measure(repeats=3 if quick else 10).items():
        print(f"{name:<40} {value}")


if __name__ == "__main__":
    sys.exit(main())
