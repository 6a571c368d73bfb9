"""The graph of EScAIP v1: the nearest atoms within a radius."""

from dataclasses import dataclass

import torch

from .batch import Batch
from .graph import Graph
from .pairs import Pairs, pairs_within

TIE = 0.01  # A^2: as far beyond the last neighbor, more are taken where the count is not strict


@dataclass(frozen=True)
class NearestNeighbors:
    """The `k` nearest atoms within the cutoff, no self edge, not smooth where neighbors change.

    An atom without neighbors gets an edge to itself along x, without distance features.

    Args:
        cutoff: in A.
        k: the most neighbors.
        strict: whether exactly the k nearest are taken, which breaks ties arbitrarily; otherwise
            also those whose squared distance is within 0.01 A^2 of the last one's.

    Source: Qu and Krishnapriyan, 2024, arXiv 2410.24169; the official code's first release.

    Example:
        >>> from ase.build import molecule
        >>> graph = NearestNeighbors(cutoff=6.0, k=1)(Batch.from_atoms([molecule("H2O")]))
        >>> graph.neighbor.tolist()
        [1, 0, 0]
    """

    cutoff: float = 6.0
    k: int = 20
    strict: bool = True

    @property
    def reach(self) -> float:
        """How far candidates matter, in A."""
        return self.cutoff

    def pairs(self, batch: Batch, skin: float = 0.0) -> Pairs:
        """The candidates; with a `skin` they serve until an atom has moved by half of it."""
        return pairs_within(batch, self.cutoff + skin)

    def __call__(
        self, batch: Batch, pairs: Pairs | None = None, dtype: torch.dtype | None = None
    ) -> Graph:
        """Builds the graph; see `SoftKNN`."""
        pairs = self.pairs(batch) if pairs is None else pairs
        atoms = len(batch.numbers)
        vector = pairs.vectors(batch)
        distance = vector.norm(dim=1)
        center, neighbor = torch.cat([pairs.i, pairs.j]), torch.cat([pairs.j, pairs.i])
        square = distance.detach().square().repeat(2)
        order = torch.argsort(square)
        order = order[torch.argsort(center[order], stable=True)]
        order = order[square[order] <= self.cutoff**2]
        counts = torch.bincount(center[order], minlength=atoms)
        begin = counts.cumsum(0) - counts
        slot = torch.arange(len(order), device=order.device) - begin[center[order]]
        if self.strict:
            keep = slot < self.k
        else:
            last = begin + counts.clamp(max=self.k) - 1
            # an atom without neighbors looks up another's edge, but has none to keep
            keep = square[order] <= square[order][last.clamp(min=0)][center[order]] + TIE
        order = order[keep]

        lonely = (torch.bincount(center[order], minlength=atoms) == 0).nonzero()[:, 0]
        unit = vector / distance[:, None]
        unit, far = torch.cat([unit, -unit])[order], torch.cat([distance, distance])[order]
        along_x = unit.new_tensor([[1.0, 0.0, 0.0]]).expand(len(lonely), 3)
        center = torch.cat([center[order], lonely])
        neighbor = torch.cat([neighbor[order], lonely])
        featureless = torch.arange(len(center), device=center.device) >= len(order)
        arranged = torch.argsort(center, stable=True)
        offsets = torch.bincount(center, minlength=atoms).cumsum(0)
        dtype = dtype or vector.dtype
        return Graph(
            center[arranged],
            neighbor[arranged],
            torch.cat([offsets.new_zeros(1), offsets]),
            torch.cat([unit, along_x])[arranged].to(dtype),
            torch.cat([far, far.new_zeros(len(lonely))])[arranged].to(dtype),
            torch.zeros(len(center), dtype=dtype, device=center.device),
            featureless[arranged] if len(lonely) else None,
        )
