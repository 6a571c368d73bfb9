"""Vectors made elsewhere, as of texts or pictures, as the start of a field's table rows."""

from collections.abc import Mapping
from pathlib import Path

import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor

from .data.numbering import Vocabulary
from .data.text import as_text
from .models import Model
from .notes import note
from .schema import PreparedSchema


def start_from_vectors(
    model: Model, files: Mapping[str, str], vocabulary: Vocabulary, prepared: PreparedSchema
) -> None:
    """Puts the vectors of files into the table rows of the fields' values, and says how many.

    Args:
        model: untrained.
        files: for a field, a Parquet file with the columns `id` and `vector`.
        vocabulary: the table rows of values.
        prepared: the fields.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a field without a vocabulary, or a file without these columns, with vectors that
            are too short, or with none of the field's values.
    """
    table = model.embeddings[0].weight
    for name, path in files.items():
        if name not in vocabulary.tables:
            known = ", ".join(vocabulary.tables)
            raise ValueError(f"pretrained: {name} has no vocabulary; fields that have are {known}")
        ids, vectors = read_vectors(path, name, vocabulary.tables[name], prepared)
        if vectors.shape[1] < table.shape[1]:
            raise ValueError(
                f"{path}: vectors have {vectors.shape[1]} numbers, fewer than the embedding's "
                f"{table.shape[1]}; set --model.config.dim to {vectors.shape[1]} or less"
            )
        said = f"field {name}: {len(ids):,} of {len(vocabulary.tables[name]):,} values from {path}"
        if vectors.shape[1] > table.shape[1]:
            vectors, share = principal(vectors, table.shape[1])
            said += f", their first {table.shape[1]} principal components ({share:.0%} of variance)"
        with torch.no_grad():
            table[ids] = vectors.to(table)
        note(said)


def read_vectors(
    path: str, name: str, table: pl.DataFrame, prepared: PreparedSchema
) -> tuple[Int[Tensor, " found"], Float[Tensor, "found width"]]:
    """Table rows and vectors of the ids in a file that the field's vocabulary knows.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: as `start_from_vectors` says.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file of vectors for field {name}")
    frame = pl.read_parquet(path)
    if not {"id", "vector"} <= set(frame.columns):
        raise ValueError(
            f"{path} needs the columns id and vector, it has {', '.join(frame.columns)}"
        )
    key = as_text(frame["id"], prepared.schema.field(name), prepared.kinds.get(name))
    frame = frame.select(key.alias("value"), pl.col("vector").cast(pl.List(pl.Float32)))
    found = frame.unique("value", keep="last").join(table, on="value")
    widths = found["vector"].list.len().unique().to_list()
    if not len(found):
        raise ValueError(f"{path}: none of its ids is a value of field {name}")
    if len(widths) != 1 or found["vector"].list.eval(pl.element().is_null()).list.any().any():
        raise ValueError(f"{path}: vectors must all have as many numbers, got {widths}")
    vectors = torch.tensor(found["vector"].to_list())
    return torch.from_numpy(found["id"].to_numpy().copy()).long(), vectors


def principal(
    vectors: Float[Tensor, "found width"], dim: int
) -> tuple[Float[Tensor, "found dim"], float]:
    """The vectors' first principal components, and the share of the variance that they hold.

    Example:
        >>> part, share = principal(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]), 1)
        >>> part.abs().flatten().tolist(), round(share, 3)
        ([1.4142135381698608, 1.4142135381698608], 1.0)
    """
    centered = (vectors - vectors.mean(0)).double()
    spreads, directions = torch.linalg.eigh(centered.T @ centered)  # rising
    share = spreads[-dim:].sum() / spreads.sum().clamp(min=1e-300)
    return (centered @ directions[:, -dim:].flip(1)).float(), float(share)
