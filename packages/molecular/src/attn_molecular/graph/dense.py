"""The graph of EScAIP v2 with a fixed number of slots for each atom: for programs and GPUs."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .graph import Graph
from .pairs import Pairs
from .soft_knn import SPARE, SoftKNN, safe_norm, sine_ranks


@dataclass(frozen=True)
class DenseGraph(Graph):
    """Every atom has `slots` edges, those outside of the graph among them.

    Attributes:
        slots: edges of each atom.
    """

    slots: int = 0

    def padded(self, x: Tensor, fill: float = 0.0) -> Tensor:
        """(atoms * slots, ...) as (atoms, slots, ...), `fill` outside of the graph."""
        assert self.outside is not None
        outside = self.outside.view(-1, *(1,) * (x.dim() - 1))
        return torch.where(outside, fill, x).view(-1, self.slots, *x.shape[1:])

    def packed(self, x: Tensor) -> Tensor:
        """The inverse of `padded`."""
        return x.flatten(0, 1)

    def sums(self, x: Tensor) -> Tensor:
        """Sums over the edges of each atom."""
        return self.padded(x).sum(1)

    @property
    def every(self) -> int:
        """The slots."""
        return self.slots

    @property
    def longest(self) -> int:  # type: ignore[override]
        """The slots."""
        return self.slots


def candidate_table(pairs: Pairs, atoms: int) -> Int[Tensor, "atoms slots"]:
    """For each atom its directed candidates: itself, then pairs (+ atoms), then their reverses.

    Pair p is number atoms + p seen from its i and atoms + pairs + p seen from its j; -1 fills up.
    """
    count, device = len(pairs.i), pairs.i.device
    center = torch.cat([torch.arange(atoms, device=device), pairs.i, pairs.j])
    order = torch.argsort(center, stable=True)
    counts = torch.bincount(center, minlength=atoms)
    slot = (
        torch.arange(atoms + 2 * count, device=device) - (counts.cumsum(0) - counts)[center[order]]
    )
    table = center.new_full((atoms, int(counts.max())), -1)
    table[center[order], slot] = order
    return table


def dense_graph(
    knn: SoftKNN,
    positions: Float[Tensor, "atoms 3"],
    cell: Float[Tensor, "3 3"],
    i: Int[Tensor, " pairs"],
    j: Int[Tensor, " pairs"],
    shift: Float[Tensor, "pairs 3"],
    table: Int[Tensor, "atoms slots"],
    dtype: torch.dtype,
) -> DenseGraph:
    """The graph of one structure, equal to `knn`'s, by operations whose shapes are known.

    Args:
        knn: soft, low-memory ranks.
        positions: in A.
        cell: rows in A.
        i: first atoms of the candidate pairs, each pair listed once.
        j: second atoms.
        shift: their images.
        table: what `candidate_table` gives.
        dtype: of the results.
    """
    atoms, slots = table.shape
    vector = positions[j] - positions[i] + shift @ cell
    distance = safe_norm(vector)
    unit = vector / distance[:, None]
    zero = positions.new_zeros(atoms)
    ends = positions.new_full((1,), 1e6)  # what -1 points at
    distances = torch.cat([zero, distance, distance, ends])
    nothing = positions.new_zeros(1, 3)
    units = torch.cat([positions.new_zeros(atoms, 3), unit, -unit, nothing])
    count, last = i.shape[0], distances.shape[0] - 1
    itself = torch.arange(atoms, device=table.device)
    neighbors = torch.cat([itself, j, i, itself[:1]])
    sorted_distance, order = distances[table].sort(1)
    table = table.gather(1, order)
    ranks = sine_ranks(sorted_distance, knn.sigmoid_scale, knn.k + SPARE)
    listed = torch.arange(slots, device=table.device) < knn.k + SPARE
    ranks = torch.where(listed, ranks, torch.inf)
    place = torch.where(table < 0, last, table).flatten()
    by_edge = torch.zeros_like(distances).index_put((place,), ranks.flatten())
    ahead, back = by_edge[atoms : atoms + count], by_edge[atoms + count : last]
    scaled = torch.stack([ahead / knn.k, back / knn.k, distance / knn.cutoff])
    inside = (scaled < 1).all(0)
    # what is outside anyway is kept out of the exponentials, whose gradients would be NaN
    safe = torch.where(inside, scaled, 0.5)
    env = knn.lse_scale * torch.logsumexp(safe / knn.lse_scale, 0)
    inside = inside & (env < 1)
    env = torch.where(inside, env, 0.5)
    log_env = -env.square() / (1 - env.square())
    outside = torch.cat(
        [zero.bool(), ~inside, ~inside, torch.ones_like(zero[:1], dtype=torch.bool)]
    )
    if not knn.envelope:
        log_env = torch.zeros_like(log_env)
    logs = torch.cat([zero, log_env, log_env, zero[:1]])
    flat = table.flatten()
    out = outside[flat]
    return DenseGraph(
        itself[:, None].expand(-1, slots).flatten(),
        neighbors[flat],
        torch.arange(atoms + 1, device=table.device) * slots,
        units[flat].to(dtype),
        torch.where(out, 0.0, distances[flat]).to(dtype),
        torch.where(out, -torch.inf, logs[flat]).to(dtype),
        None,
        out,
        slots=slots,
    )
