"""A shop's small table in many forms, and a scorer of it."""

from pathlib import Path

import polars as pl
import torch

from attn_recsys import Scorer
from attn_recsys.calibration import Probability
from attn_recsys.data import TableData
from attn_recsys.data.prepare import load_vocabulary
from attn_recsys.models import BaselineConfig

ROWS = 60


FIELDS = "  user: categorical\n  price: {kind: numerical, missing: zero}\n"


def shop(**columns):
    frame = {
        "user": [1000 + i % 9 for i in range(ROWS)],
        "price": [i / 4 for i in range(ROWS)],
        "bought": [i % 2 for i in range(ROWS)],
    }
    return pl.DataFrame(frame | columns)


def data(table, fields=FIELDS, label="bought", rest="", file="t.parquet", **options):
    """The prepared table, of a frame or of the bytes of a file."""
    if isinstance(table, pl.DataFrame):
        table.write_parquet(file) if file.endswith("parquet") else table.write_csv(file)
    elif table is not None:
        Path(file).write_bytes(table if isinstance(table, bytes) else table.encode())
    Path("s.yaml").write_text(f"files: {file}\nlabel: {label}\nfields:\n{fields}{rest}", "utf-8")
    found = TableData("s.yaml", **options)
    found.prepare_data()
    found.setup()
    return found


def scorer(found):
    """With weights that tell every row of the table apart."""
    torch.manual_seed(0)
    model = BaselineConfig("lr").build(found.prepared.layout)
    for part in model.parameters():
        torch.nn.init.normal_(part)
    vocabulary = load_vocabulary(found.prepared_folder, found.prepared)
    return Scorer(model, Probability(), found.prepared, vocabulary)


TEXT = "user,price,bought\n" + "".join(f"{i % 9},{i},{i % 2}\n" for i in range(ROWS))


LONG = shop(tags=[["a"]] * ROWS)
