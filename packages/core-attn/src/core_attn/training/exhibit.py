"""What a report shows."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Exhibit(NamedTuple):
    """One picture or table of a report; it is also written beside the page, as PNG and CSV.

    Attributes:
        title: a few words.
        caption: what to see in it, one or two sentences.
        content: a matplotlib figure, or a table as rows with equal keys.
        rows: the numbers in a figure, likewise.
        name: of the files; made of the title if empty.
    """

    title: str
    caption: str
    content: "Figure | Sequence[Mapping[str, Any]]"
    rows: Sequence[Mapping[str, Any]] = ()
    name: str = ""
