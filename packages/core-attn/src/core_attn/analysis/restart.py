"""Running a model again from one of its blocks, with what those before it gave the first time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .sites import Sites


class _Given(nn.Module):
    """Stands in for a block: gives what the block gave."""

    def __init__(self, value: Any):
        super().__init__()
        self.value = value

    def forward(self, *_args: Any, **_kwargs: Any) -> Any:
        return self.value


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
        self._blocks, self.block_of = _blocks(model, sites)
        self._given: list[Any] = []

    @contextmanager
    def caching(self) -> Iterator[None]:
        """While open, keeps what every block gives."""
        self._given = [None] * len(self._blocks)
        handles = [
            block.register_forward_hook(_keeper(self._given, i))
            for i, block in enumerate(self._blocks)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def restarted(self, index: int) -> Iterator[None]:
        """While open, the blocks before `index` give what they gave when caching."""
        skipped = [self._blocks[i] for i in range(index)]
        try:
            for i in range(index):
                self._blocks[i] = _Given(self._given[i])
            yield
        finally:
            for i, block in enumerate(skipped):
                self._blocks[i] = block

    def holds(self, run: Any, right: Tensor) -> bool:
        """Whether running from the last block gives the same again; else blocks are no chain."""
        if not self.block_of:
            return False
        with self.restarted(len(self._blocks) - 1):
            again = run()
        return again.shape == right.shape and torch.allclose(again, right, rtol=1e-4, atol=1e-5)


def _keeper(given: list[Any], index: int) -> Callable[[nn.Module, tuple, Any], None]:
    def keep(_module: nn.Module, _args: tuple, output: Any) -> None:
        given[index] = output

    return keep


def _blocks(model: nn.Module, sites: Sites) -> tuple[nn.ModuleList | nn.Sequential, dict[str, int]]:
    best: tuple[nn.ModuleList | nn.Sequential, dict[str, int]] = (nn.ModuleList(), {})
    for name, module in model.named_modules():
        if not isinstance(module, (nn.ModuleList, nn.Sequential)):
            continue
        prefix = f"{name}." if name else ""
        inside = [site for site in sites if site.startswith(prefix)]
        if len(inside) < len(sites):
            continue
        place = {site: int(site[len(prefix) :].partition(".")[0]) for site in inside}
        if len(set(place.values())) > len(set(best[1].values())):
            best = module, place
    return best
