"""Running a model again from one of its blocks, with what those before it gave the first time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .sites import Sites


class _Given(nn.Module):
    """Stands in for a module: gives what it gave, and has its attributes."""

    def __init__(self, module: nn.Module, value: Any):
        super().__init__()
        self._value, self._known = value, [module]  # in a list it is no part of this one

    def forward(self, *_args: Any, **_kwargs: Any) -> Any:
        return self._value

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_known"][0], name)


_Part = tuple[nn.Module, str, nn.Module]  # what holds a module, its name in there, the module


class Chain:
    """The blocks of a model, one after the other.

    Args:
        model: whose blocks stand in one `nn.ModuleList` or `nn.Sequential`.
        sites: its attention layers.

    Attributes:
        block_of: for each layer's name, the number of its block; empty where no list of blocks
            holds all of them: such a model is always run whole.

    Example:
        >>> import core_attn
        >>> from core_attn.analysis import find_sites
        >>> model = nn.Sequential(*(core_attn.MultiHeadAttention(8, heads=2) for _ in range(3)))
        >>> x, chain = torch.randn(1, 4, 8), Chain(model, find_sites(model))
        >>> with chain.caching():
        ...     y = model(x)
        >>> with chain.restarted(2):  # blocks 0 and 1 are not computed
        ...     bool((model(x) == y).all())
        True
    """

    def __init__(self, model: nn.Module, sites: Sites):
        place, self.block_of = _blocks(model, sites)
        blocks = model.get_submodule(place) if self.block_of else nn.ModuleList()
        owner = model.get_submodule(place.rpartition(".")[0]) if place else nn.Module()
        self._blocks = [(blocks, name, block) for name, block in blocks.named_children()]
        self._beside = [(owner, *child) for child in owner.named_children() if child[1] != blocks]
        self._stem: list[_Part] = []
        self._given: dict[nn.Module, Any] = {}

    @contextmanager
    def caching(self) -> Iterator[None]:
        """While open, keeps what every block gives, and what is computed before the first."""
        self._given, order = {}, []

        def keep(module: nn.Module, _args: tuple, output: Any) -> None:
            self._given[module] = output
            order.append(module)

        parts = [*self._beside, *self._blocks]
        handles = [module.register_forward_hook(keep) for _, _, module in parts]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
        blocks = [module for _, _, module in self._blocks]
        first = next((i for i, module in enumerate(order) if module in blocks), 0)
        once = [module for module in order[:first] if order.count(module) == 1]
        self._stem = [part for part in self._beside if part[2] in once]

    @contextmanager
    def restarted(self, index: int) -> Iterator[None]:
        """While open, what runs before block `index` gives what it gave when caching."""
        skipped = [*self._stem, *self._blocks[:index]] if index else []
        try:
            for owner, name, module in skipped:
                setattr(owner, name, _Given(module, self._given[module]))
            yield
        finally:
            for owner, name, module in skipped:
                setattr(owner, name, module)

    def holds(self, run: Callable[[], Tensor], right: Tensor) -> bool:
        """Whether running from the last block gives the same again; else blocks are no chain."""
        if not self.block_of:
            return False
        with self.restarted(len(self._blocks) - 1):
            again = run()
        return again.shape == right.shape and torch.allclose(again, right, rtol=1e-4, atol=1e-5)


def _blocks(model: nn.Module, sites: Sites) -> tuple[str, dict[str, int]]:
    """The name of the list that holds the blocks, and the block of each site."""
    best: tuple[str, dict[str, int]] = ("", {})
    for name, module in model.named_modules():
        if not isinstance(module, (nn.ModuleList, nn.Sequential)):
            continue
        prefix = f"{name}." if name else ""
        inside = [site for site in sites if site.startswith(prefix)]
        if len(inside) < len(sites):
            continue
        place = {site: int(site[len(prefix) :].partition(".")[0]) for site in inside}
        if len(set(place.values())) > len(set(best[1].values())):
            best = name, place
    return best
