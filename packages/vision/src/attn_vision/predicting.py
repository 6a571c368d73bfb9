"""`predict`: a table of the classes of one's own pictures."""

import csv
from pathlib import Path

import torch

from core_attn.training import opened

from .data.image_data import ImageData
from .data.reading import named_files, read_image, readable


def predict_pictures(
    ckpt: str, given: list[str], output: str, batch_size: int = 64
) -> tuple[int, int]:
    """Writes file, class and the probability of each class for pictures.

    Args:
        ckpt: a checkpoint of an image classification.
        given: files, and folders of files.
        output: the CSV file to write.
        batch_size: pictures at once.

    Returns:
        How many pictures were classified, and how many could not be read.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: no picture can be read, the checkpoint is of another task, or a batch is empty.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    task, data = (found := opened(ckpt)).task, found.data
    if not isinstance(data, ImageData):
        raise ValueError(f"{ckpt} is of {type(data).__name__}, not of images")
    names = found.content["class_names"]
    listed = named_files(given)
    paths = readable(listed, ", ".join(given))
    change = data.evaluation_transform()
    with Path(output).open("w", newline="", encoding="utf-8") as file, torch.inference_mode():
        table = csv.writer(file)
        table.writerow(["file", "class", *(f"p({name})" for name in names)])
        for start in range(0, len(paths), batch_size):
            some = paths[start : start + batch_size]
            images = torch.stack([change(read_image(path, data.channels)) for path in some])
            shares = task.predict_step(images, 0)
            for path, row in zip(some, shares, strict=True):
                values = [f"{x:.6g}" for x in row.tolist()]
                table.writerow([str(path), names[int(row.argmax())], *values])
    return len(paths), len(listed) - len(paths)
