"""Files of text."""

from pathlib import Path


def read_text(path: str | Path) -> str:
    """A whole file of text, with or without the mark that spreadsheets put first.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not in UTF-8.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: is not text in UTF-8") from None
