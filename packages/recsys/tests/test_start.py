"""What a command imports before it does anything."""

import subprocess
import sys

TRAINER = ("pytorch_lightning", "torchmetrics", "sklearn", "pandas")


def imported(code):
    """Which of the slow packages a process has imported after some code."""
    code += f"; import sys; print([name for name in {TRAINER} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


def test_scoring_needs_neither_the_trainer_nor_pandas():
    code = (
        "import polars as pl, attn_recsys.cli, attn_recsys.serving, attn_recsys.scoring;"
        "from attn_recsys.data.batches import to_batch;"
        "from attn_recsys import Layout, Schema;"
        "from attn_recsys.schema import PreparedSchema;"
        "schema = Schema.parse({'label': 'y', 'fields': {'a': 'categorical', 'b': 'multi'}});"
        "layout = Layout(('a', 'b'), (1, 6), (1, 5), (4, 4), 9);"
        "p = PreparedSchema(schema, layout, 9, {}, {}, 0.5, {}, {}, {}, 0, '');"
        "to_batch(pl.DataFrame({'a': [1, None], 'b': [[5, 6], None]}).to_arrow(), p)"
    )
    assert imported(code) == "[]"


def test_the_list_of_recipes_needs_no_trainer():
    assert (
        imported("import sys; sys.argv = ['x', 'recipes']; import attn_recsys.cli as c; c.main()")
        == "[]"
    )
