"""Reads "Example:" in a docstring as a section of code, as "Examples:" is."""

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Else the lines of an example are prose, and brackets in them look like references."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Renames the section."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(
                r"^Example:", "Examples:", obj.docstring.value, flags=re.MULTILINE
            )
