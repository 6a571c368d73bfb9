"""Neighborhoods of atoms, packed one after the other."""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Graph:
    """For each atom its edges, sorted by distance; edges of atom i are offsets[i] to offsets[i+1].

    Attributes:
        center: (edges) the atom to which an edge belongs.
        neighbor: (edges) the atom at its other end; the center itself for a self edge.
        offsets: (atoms + 1).
        direction: (edges, 3) unit vectors from center to neighbor; zero for self edges.
        distance: (edges) in A.
        log_envelope: (edges) added to attention logits; 0 for self edges, falling to -inf where an
            edge leaves the graph.
        featureless: (edges) edges whose distance expansion is zero; None for none.
        outside: (edges) which of them do not belong to the graph; None for none.
        begin: of a piece of a graph, the first of its atoms in the whole; centers count from it,
            neighbors do not.
    """

    center: Int[Tensor, " edges"]
    neighbor: Int[Tensor, " edges"]
    offsets: Int[Tensor, " atoms_and_one"]
    direction: Float[Tensor, "edges 3"]
    distance: Float[Tensor, " edges"]
    log_envelope: Float[Tensor, " edges"]
    featureless: Bool[Tensor, " edges"] | None = None
    outside: Bool[Tensor, " edges"] | None = None
    begin: int | None = None

    def own(self, x: Tensor) -> Tensor:
        """The rows of (all atoms, ...) that are this piece's."""
        return x if self.begin is None else x.narrow(0, self.begin, self.atoms)

    def pieces(self, most: int) -> "list[Graph]":
        """The same atoms in pieces of at most `most` edges, or of one atom."""
        offsets, cuts = self.offsets.tolist(), [0]
        for atom in range(1, self.atoms):
            if offsets[atom + 1] - offsets[cuts[-1]] > most:
                cuts.append(atom)
        cuts.append(self.atoms)
        found = []
        for begin, end in pairwise(cuts):
            a, b = offsets[begin], offsets[end]
            found.append(
                Graph(
                    self.center[a:b] - begin,
                    self.neighbor[a:b],
                    self.offsets[begin : end + 1] - a,
                    self.direction[a:b],
                    self.distance[a:b],
                    self.log_envelope[a:b],
                    None if self.featureless is None else self.featureless[a:b],
                    begin=begin,
                )
            )
        return found

    @property
    def atoms(self) -> int:
        """The number of atoms."""
        return self.offsets.shape[0] - 1

    @cached_property
    def counts(self) -> Int[Tensor, " atoms"]:
        """The edges of each atom."""
        return self.offsets.diff()

    @cached_property
    def longest(self) -> int:
        """The most edges of an atom."""
        return int(self.counts.max())

    @cached_property
    def slot(self) -> Int[Tensor, " edges"]:
        """The place of each edge among those of its atom."""
        return torch.arange(len(self.center), device=self.center.device) - self.offsets[self.center]

    def padded(self, x: Tensor, fill: float = 0.0) -> Tensor:
        """(edges, ...) as (atoms, longest, ...), `fill` where an atom has fewer edges."""
        full = x.new_full((self.atoms, self.longest, *x.shape[1:]), fill)
        return full.index_put((self.center, self.slot), x)

    def packed(self, x: Tensor) -> Tensor:
        """The inverse of `padded`."""
        return x[self.center, self.slot]

    def sums(self, x: Tensor) -> Tensor:
        """Sums of (edges, ...) over the edges of each atom."""
        return x.new_zeros(self.atoms, *x.shape[1:]).index_add(0, self.center, x)

    @property
    def every(self) -> int | None:
        """The edges of every atom, where all have as many by construction."""
        return None

    @cached_property
    def first(self) -> Int[Tensor, " atoms"]:
        """The first edge of each atom, where there are self edges: that."""
        return self.offsets[:-1]
