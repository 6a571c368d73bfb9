"""The command `attn-vision`."""

import sys
from typing import Any

from core_attn.cli import main as run

from .analyze.command import analyze


def predict(
    ckpt: str, input: str | list[str], output: str = "predictions.csv", batch_size: int = 64
) -> None:
    """Write a table of the classes of your own pictures.

    Args:
        ckpt: the checkpoint.
        input: a picture, a folder of pictures, or a list of both.
        output: the CSV file to write: file, class, and the probability of each class.
        batch_size: pictures at once.
    """
    from .predicting import predict_pictures

    given = [input] if isinstance(input, str) else input
    done, unread = predict_pictures(ckpt, given, output, batch_size)
    left = f", {unread} could not be read" if unread else ""
    print(f"{output}: {done} pictures{left}")


def convert(
    input: str,
    output: str,
    variant: str,
    settings: dict[str, Any] | None = None,
    back: bool = False,
) -> None:
    """Convert an official checkpoint to a folder for from_pretrained, or back.

    Args:
        input: the checkpoint; with --back, a folder or file of this package.
        output: the folder to write; with --back, a safetensors file.
        variant: which model it is of, as deit_tiny.
        settings: fields of its configuration that differ, as {"image_size": 96}.
        back: from this package's names to the official ones.
    """
    from .converting import convert_file

    print(convert_file(input, output, variant, settings, back))


def paths(
    ckpt: str, input: str | None = None, output: str = "paths", most: int | None = None
) -> None:
    """Rank what each attention layer and MLP gives the classifier, and prune greedily.

    Args:
        ckpt: the checkpoint.
        input: labelled images, one folder per class; the run's own test images if there is none.
        output: the files to write, without their ends: a table (.csv) and a bar chart (.png).
        most: how many paths are pruned at most.
    """
    from .path_ranking import rank_paths

    print(rank_paths(ckpt, input, output, most))


def bench(threads: int = 1, seconds: float = 20.0) -> None:
    """Compare the speed of DeiT here and in timm; above 1 we are faster.

    Args:
        threads: of torch.
        seconds: for each measurement.
    """
    from .bench import bench as run_bench  # imports torch and timm, which the others can spare

    run_bench(threads, seconds)


COMMANDS = {
    "predict": predict,
    "convert": convert,
    "analyze": analyze,
    "paths": paths,
    "bench": bench,
}


def main() -> None:
    """Runs the command line of the package and exits with its code."""
    sys.exit(run("attn_vision", commands=COMMANDS))
