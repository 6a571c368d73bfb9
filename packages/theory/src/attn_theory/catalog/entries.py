"""What is said of an experiment and of a paper."""

from dataclasses import dataclass

OURS = "ours: no claim of the paper"


@dataclass(frozen=True)
class Entry:
    """An experiment in words.

    Attributes:
        name: "<paper>.<experiment>".
        title: what it shows, one sentence.
        claim: the figure, theorem or claim of the paper that it belongs to.
        seconds: what the full run takes on one core.
    """

    name: str
    title: str
    claim: str
    seconds: float

    @property
    def paper(self) -> str:
        """The paper's short name."""
        return self.name.partition(".")[0]

    @property
    def short(self) -> str:
        """The name within the paper."""
        return self.name.partition(".")[2]


@dataclass(frozen=True)
class Source:
    """A paper.

    Attributes:
        name: the short name used on the command line.
        title, authors, arxiv: of the paper.
        entries: its experiments, in the order of its page.
    """

    name: str
    title: str
    authors: str
    arxiv: str
    entries: tuple[Entry, ...]
