"""What a report shows."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Exhibit(NamedTuple):
    """One picture, table or sound of a report; also written beside the page, as PNG, CSV or WAV.

    Attributes:
        title: a few words.
        caption: what to see in it, one or two sentences.
        content: a matplotlib figure, a table as rows with equal keys, or the bytes of a WAV file.
        rows: the numbers in a figure, likewise.
        name: of the files; made of the title if empty.
    """

    title: str
    caption: str
    content: "Figure | Sequence[Mapping[str, Any]] | bytes"
    rows: Sequence[Mapping[str, Any]] = ()
    name: str = ""
