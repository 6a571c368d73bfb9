"""The papers, by name."""

from . import (
    icl_linear,
    multitask_hebbian,
    pavlov_memory,
    random_feature_attention,
    universal_approximation,
)
from .experiment import Experiment, Paper

PAPERS: dict[str, Paper] = {
    package.PAPER.name: package.PAPER
    for package in (
        icl_linear,
        random_feature_attention,
        universal_approximation,
        pavlov_memory,
        multitask_hebbian,
    )
}


def find(name: str) -> Experiment:
    """The experiment of a name.

    Raises:
        ValueError: there is none; the message lists the paper's experiments.

    Example:
        >>> find("icl_linear.estimators").paper
        'icl_linear'
    """
    matches = [e for paper in PAPERS.values() for e in paper.experiments if e.name == name]
    if not matches:
        paper = PAPERS.get(name.partition(".")[0])
        known = PAPERS if paper is None else [e.name for e in paper.experiments]
        raise ValueError(f"no experiment {name!r}; there are {', '.join(known)}")
    return matches[0]


def select(name: str) -> list[Experiment]:
    """The experiments of a paper, of all papers ("all"), or one.

    Raises:
        ValueError: no such paper or experiment.

    Example:
        >>> len(select("all")) > 30
        True
    """
    if name == "all":
        return [e for paper in PAPERS.values() for e in paper.experiments]
    if name in PAPERS:
        return list(PAPERS[name].experiments)
    return [find(name)]
