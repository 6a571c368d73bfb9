"""The command attn-recsys."""

import sys
from typing import Literal

from core_attn.cli import main as run


def main() -> int:
    """Runs attn-recsys and returns its exit code."""
    return run(
        "attn_recsys",
        commands={
            "calibrate": calibrate,
            "predict": predict,
            "export": export,
            "bench": bench,
        },
    )


def calibrate(
    ckpt: str, method: Literal["platt", "isotonic", "none"] = "platt", out: str | None = None
) -> None:
    """Fit probabilities to the validation rows, for every other command to use.

    Args:
        ckpt: the checkpoint.
        method: "platt" for two parameters; "isotonic" for any rising curve, where there are some
            ten thousand validation rows; "none" to take a calibration away.
        out: the checkpoint to write; by default the calibration is added to `ckpt`.
    """
    from . import serving

    rows = serving.calibrate(ckpt, method, out)
    for row in rows:
        print(
            f"{row['rows']:<12}{row['probabilities']:<12}log loss {row['log loss']:.5f}   "
            f"calibration error {row['calibration error']:.5f}"
        )
    print(out or ckpt)


def predict(ckpt: str, input: str, output: str, batch_size: int = 8192) -> None:
    """Stream rows of Parquet, CSV or TSV files through a checkpoint into a Parquet file.

    Args:
        ckpt: the checkpoint.
        input: a file, or a pattern of several, with the columns of the schema; a label is not
            needed.
        output: the Parquet file to write: the rows' numbers, in order, and their probability.
        batch_size: rows scored at once.
    """
    from .serving import predict_files

    rows, seconds = predict_files(ckpt, input, output, batch_size=batch_size)
    print(f"{output}: {rows:,} rows, {rows / max(seconds, 1e-9):,.0f} a second")


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
