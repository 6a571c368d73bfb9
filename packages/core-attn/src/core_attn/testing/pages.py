"""The code of a page of the documentation, for a test to run."""

import re
from pathlib import Path


def page_code(path: Path, heading: str) -> str:
    """The Python blocks under one heading of a Markdown page, one after the other.

    Args:
        path: the page.
        heading: the text of the heading, of any level.

    Raises:
        ValueError: no such heading, or no code under it.
    """
    parts = re.split(r"^#+ (.+)$", path.read_text("utf-8"), flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    if heading not in sections:
        raise ValueError(f"{path.name} has no heading {heading!r}: {', '.join(sections)}")
    code = re.findall(r"^```python\n(.*?)^```", sections[heading], flags=re.MULTILINE | re.DOTALL)
    if not code:
        raise ValueError(f"{path.name} has no code under {heading!r}")
    return "\n".join(code)
