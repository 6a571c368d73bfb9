"""The next day: weights and moments of a model, for vocabularies that have grown."""

from collections.abc import Mapping
from typing import Any

import polars as pl
import torch
from jaxtyping import Int
from torch import Tensor, nn

from .data.numbering import Vocabulary, layout_of
from .data.vocabulary import Counter
from .models.embedding import FieldEmbedding
from .schema import PreparedSchema, Schema


def extended(
    schema: Schema, counters: Mapping[str, Counter], base: Vocabulary, prepared: PreparedSchema
) -> Vocabulary:
    """The vocabularies of `base` with the values that are new in `counters` after them.

    A field's rows are its rare row, the values in their order, the new ones, and a learned missing
    row last.

    Raises:
        ValueError: the schema is another one.
    """
    if schema.to_dict()["fields"] != prepared.schema.to_dict()["fields"]:
        raise ValueError(
            "the fields are not those that the model was trained with; continue with its schema"
        )
    if base.warm_up or any(size == base.layout.rows for size in base.layout.sizes[1:]):
        raise ValueError("official numberings, that mix the rows of fields, cannot be extended")
    tables: dict[str, pl.DataFrame] = {}
    rare: dict[str, int] = {}
    missing: dict[str, int] = {}
    firsts, sizes, start = [], [], 1
    for field, old, size in zip(schema.fields, base.layout.firsts, base.layout.sizes, strict=True):
        if field.target is not None:  # it has its target's rows
            firsts.append(0)
            sizes.append(1)
            continue
        if field.name in base.tables:
            known = base.tables[field.name]
            new = counters[field.name].passed().join(known, on="value", how="anti")
            new = new.sort("passed", "value").select("value", "passed")
            last = start + size - (field.name in base.missing)
            ids = pl.int_range(last, last + pl.len(), dtype=pl.Int32)
            tables[field.name] = pl.concat(
                [
                    known.select("value", (pl.col("id") + (start - old)).cast(pl.Int32), "passed"),
                    new.select("value", ids.alias("id"), "passed"),
                ]
            )
            rare[field.name] = start
            size += len(new)
        if field.name in base.missing:
            missing[field.name] = start + size - 1
        firsts.append(start)
        sizes.append(size)
        start += size
    layout = layout_of(schema, firsts, sizes, rows=start)
    return Vocabulary(tables, rare, missing, layout, features=start - 1)


def rows_before(old: PreparedSchema, new: PreparedSchema) -> Int[Tensor, " rows"]:
    """For each row of the new table that of the old one it begins with.

    A new value begins with its field's rare row. Row 0 stays.
    """
    source = torch.zeros(new.layout.rows, dtype=torch.long)
    places = zip(
        new.layout.names, new.layout.firsts, new.layout.sizes, old.layout.firsts, old.layout.sizes,
        strict=True,
    )  # fmt: skip
    histories = dict(new.layout.attends)
    for name, first, size, old_first, old_size in places:
        if name in histories:
            continue
        learned = name in new.missing
        kept = old_size - learned
        source[first : first + kept] = torch.arange(old_first, old_first + kept)
        source[first + kept : first + size] = old.rare.get(name, old_first)
        if learned:
            source[new.missing[name]] = old.missing[name]
    return source


def is_new(old: PreparedSchema, new: PreparedSchema) -> Tensor:
    """Which rows of the new table stand for values that are new."""
    fresh = torch.zeros(new.layout.rows, dtype=torch.bool)
    histories = dict(new.layout.attends)
    for name, first, size, old_size in zip(
        new.layout.names, new.layout.firsts, new.layout.sizes, old.layout.sizes, strict=True
    ):
        if name in histories:
            continue
        learned = name in new.missing
        fresh[first + old_size - learned : first + size - learned] = True
    return fresh


def warm_weights(
    model: nn.Module, state: Mapping[str, Tensor], source: Int[Tensor, " rows"]
) -> dict[str, Tensor]:
    """A model's state for the grown tables, of the state for the old ones."""
    tables = {
        f"{name}.weight" for name, part in model.named_modules() if isinstance(part, FieldEmbedding)
    }
    return {key: x[source] if key in tables else x for key, x in state.items()}


def warm_moments(
    state: dict[str, Any], source: Int[Tensor, " rows"], fresh: Tensor, rows: int
) -> dict[str, Any]:
    """An optimizer's state for the grown tables: new rows have moments of 0.

    Args:
        state: for the old tables, of one of this package's optimizers or torch's.
        source: as `rows_before` gives it.
        fresh: as `is_new` gives it.
        rows: of the old tables.
    """
    if "table" in state and "network" in state:
        return state | {"table": warm_moments(state["table"], source, fresh, rows)}

    def grown(x: Any) -> Any:
        if not isinstance(x, Tensor) or x.dim() == 0 or len(x) != rows:
            return x
        taken = x[source].clone()
        taken[fresh] = 0
        return taken

    moments = {
        number: {name: grown(x) for name, x in entries.items()}
        for number, entries in state["state"].items()
    }
    warm = state | {"state": moments}
    if "deferred" in state:
        warm["deferred"] = state["deferred"] | {
            "tables": [_grown_table(x, source, fresh, state) for x in state["deferred"]["tables"]]
        }
    return warm


def _grown_table(
    table: dict[str, Tensor], source: Tensor, fresh: Tensor, state: dict[str, Any]
) -> dict[str, Tensor]:
    """Where the rows of a table lie, and at which step; new ones are up to date."""
    at = table["at"][source].clone()
    at[fresh] = state["param_groups"][0]["steps"]
    behind = torch.full((int(source.max()) + 1,), -1, dtype=torch.long)
    behind[table["rows"]] = torch.arange(len(table["rows"]))
    place = behind[source]
    place[fresh] = -1
    moved = (place >= 0).nonzero()[:, 0]
    return {"at": at, "rows": moved, "values": table["values"][place[moved]]}
