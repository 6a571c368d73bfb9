"""The papers and their experiments in words: what is listed before anything is loaded.

Figure and theorem numbers of the papers were not at hand: an experiment is told by the claim of the
abstract, or the figure of the authors' code, that it belongs to.
"""

from . import (
    icl_linear,
    multitask_hebbian,
    pavlov_memory,
    random_feature_attention,
    universal_approximation,
)
from .entries import Entry, Source

__all__ = ["SOURCES", "Entry", "Source", "entry", "select"]

PAPERS = (
    icl_linear,
    random_feature_attention,
    universal_approximation,
    pavlov_memory,
    multitask_hebbian,
)
SOURCES = {paper.SOURCE.name: paper.SOURCE for paper in PAPERS}


def entry(name: str) -> Entry:
    """The experiment of a name.

    Raises:
        ValueError: there is none; the message lists the paper's experiments, or the papers.

    Example:
        >>> entry("icl_linear.flow").seconds
        15
    """
    paper = name.partition(".")[0]
    if paper in SOURCES:
        for found in SOURCES[paper].entries:
            if found.name == name:
                return found
        names = [found.name for found in SOURCES[paper].entries]
    else:
        names = list(SOURCES)
    raise ValueError(f"no experiment {name!r}; there are {', '.join(names)}")


def select(name: str) -> list[Entry]:
    """The experiments of a paper, of all papers ("all"), or one.

    Raises:
        ValueError: no such paper or experiment.

    Example:
        >>> len(select("all")), len(select("icl_linear")), select("icl_linear.flow")[0].short
        (42, 11, 'flow')
    """
    if name == "all":
        return [found for source in SOURCES.values() for found in source.entries]
    if name in SOURCES:
        return list(SOURCES[name].entries)
    return [entry(name)]
