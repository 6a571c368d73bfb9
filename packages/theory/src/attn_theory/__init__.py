"""Five theory papers on attention, re-run in full: experiments, closed forms, figures, checks."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl


def measure(
    experiment: str, *, quick: bool = False, folder: str | Path = "runs/theory", **changes: Any
) -> "pl.DataFrame":
    """Runs an experiment with any configuration and returns what came out as a tidy table.

    What was measured with the same configuration is read, not measured again.

    Args:
        experiment: "<paper>.<experiment>"; `attn-theory list` names them.
        quick: whether the small form is changed, not the full run.
        folder: where results are kept.
        changes: fields of its configuration; `attn-theory show <experiment>` explains them.

    Raises:
        ValueError: no such experiment or field, or a number that cannot be.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     table = measure("pavlov_memory.reliability", samples=100, heads=(1,), folder=folder)
        >>> table.columns
        ['heads', 'layers', 'works', 'error', 'law']
    """
    from . import configure, papers, runner, tables

    found = papers.find(experiment)
    config = configure.configured(found, quick=quick, **configure.typed(found, changes))
    return tables.frame(found.tidy, runner.run(found, config, folder=folder))
