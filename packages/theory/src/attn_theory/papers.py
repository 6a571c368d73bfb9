"""The experiments by name; a paper's code is loaded when it is asked for."""

from importlib import import_module

from . import catalog
from .experiment import Experiment, Paper


def paper(name: str) -> Paper:
    """A paper, loaded.

    Raises:
        ValueError: there is none of that name.

    Example:
        >>> paper("pavlov_memory").source.arxiv
        '2508.08289'
    """
    if name not in catalog.SOURCES:
        raise ValueError(f"no paper {name!r}; there are {', '.join(catalog.SOURCES)}")
    return import_module(f".{name}", __package__).PAPER


def find(name: str) -> Experiment:
    """The experiment of a name, loaded.

    Raises:
        ValueError: there is none; the message lists the paper's experiments.

    Example:
        >>> find("icl_linear.estimators").paper
        'icl_linear'
    """
    entry = catalog.entry(name)
    experiments = {e.name: e for e in paper(entry.paper).experiments}
    return experiments[name]


def select(name: str) -> list[Experiment]:
    """The experiments of a paper, of all papers ("all"), or one, loaded.

    Raises:
        ValueError: no such paper or experiment.

    Example:
        >>> len(select("all")) > 30
        True
    """
    return [find(entry.name) for entry in catalog.select(name)]
