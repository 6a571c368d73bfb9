"""Results that are there as a whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to write in, whose files come to `path` when all of them are written.

    Whatever ends the block early, as an error or Ctrl-C, leaves `path` as it was. Other files
    that are in it stay.

    Example:
        >>> out = Path(tempfile.mkdtemp()) / "results"
        >>> with whole_folder(out) as folder:
        ...     _ = (folder / "a.csv").write_text("1")
        ...     out.exists()
        False
        >>> [file.name for file in out.iterdir()]
        ['a.csv']
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield part
        path.mkdir(exist_ok=True)
        for file in sorted(part.iterdir()):
            os.replace(file, path / file.name)
    finally:
        shutil.rmtree(part, ignore_errors=True)
