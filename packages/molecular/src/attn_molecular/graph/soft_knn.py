"""The graph of EScAIP v2: soft nearest neighbors in both directions."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .batch import Batch
from .graph import Graph
from .pairs import Pairs, all_pairs, pairs_within

SPARE = 20  # candidates ranked beyond k


@dataclass(frozen=True)
class SoftKNN:
    """An edge i-j exists while each is among the other's nearest, and both within the cutoff.

    rank is a soft count of closer atoms, and with t the `lse_scale`,
    env = t logsumexp([rank_i(j) / k, rank_j(i) / k, d / cutoff] / t). Edges have env < 1 and the
    log envelope -env^2 / (1 - env^2).

    Args:
        cutoff: in A.
        k: neighbors wanted, the atom itself counted.
        soft: whether ranks are soft; otherwise they are places in the sorted list, and env the
            largest of the three numbers: not differentiable across swaps.
        low_memory: whether ranks are counted among the k + 20 nearest with a sine step of compact
            support instead of among all with a sigmoid.
        sigmoid_scale: width of the soft step, in A.
        lse_scale: t.
        envelope: whether edges fade; otherwise their log envelope is 0.
        official_images: whether candidates are those of the official code, all images up to a
            fixed reach, whose number grows with the square of the atoms.

    Source: Qu and Krishnapriyan, 2024, arXiv 2410.24169; the official code's second release.

    Example:
        >>> from ase.build import molecule
        >>> graph = SoftKNN(cutoff=6.0, k=30)(Batch.from_atoms([molecule("H2O")]))
        >>> graph.counts.tolist()
        [3, 3, 3]
    """

    cutoff: float = 6.0
    k: int = 30
    soft: bool = True
    low_memory: bool = True
    sigmoid_scale: float = 0.2
    lse_scale: float = 0.1
    envelope: bool = True
    official_images: bool = False

    @property
    def reach(self) -> float:
        """How far candidates matter, in A."""
        if not self.soft:
            return self.cutoff
        support = math.pi if self.low_memory else 16.0  # a sigmoid is 1e-7 there
        return self.cutoff + support * self.sigmoid_scale

    def pairs(self, batch: Batch, skin: float = 0.0) -> Pairs:
        """The candidates; with a `skin` they serve until an atom has moved by half of it."""
        if self.official_images:
            return all_pairs(batch, self.cutoff)
        return pairs_within(batch, self.reach + skin)

    def __call__(
        self, batch: Batch, pairs: Pairs | None = None, dtype: torch.dtype | None = None
    ) -> Graph:
        """Builds the graph, differentiable in positions and cell.

        Args:
            batch: the structures.
            pairs: their candidates, from `pairs`; made where missing.
            dtype: of the results; the positions' by default. The graph itself is computed in the
                positions' dtype.

        Raises:
            ValueError: as `pairs_within`.
        """
        pairs = self.pairs(batch) if pairs is None else pairs
        atoms, count = len(batch.numbers), len(pairs.i)
        vector = pairs.vectors(batch)
        distance = safe_norm(vector)
        itself = torch.arange(atoms, device=vector.device)
        center = torch.cat([itself, pairs.i, pairs.j])
        distances = torch.cat([distance.new_zeros(atoms), distance, distance])

        # by center, then by distance, in one sort
        farthest = float(distance.detach().max()) if count else 0.0
        order = torch.argsort(center * (farthest + 1) + distances.detach())
        counts = torch.bincount(center, minlength=atoms)
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=order.device)
        slot = place - (counts.cumsum(0) - counts)[center]
        kept = min(self.k + SPARE, int(counts.max())) if self.low_memory or not self.soft else None
        rank = self._ranks(distances, center, slot, counts, kept)
        ahead, back = rank[atoms : atoms + count], rank[atoms + count :]

        # logsumexp is at least the largest: what is not below 1 here cannot be an edge
        scaled = torch.stack([ahead / self.k, back / self.k, distance / self.cutoff])
        near = (scaled.detach() < 1).all(0).nonzero()[:, 0]
        env = self._envelope(scaled[:, near])
        inside = (env.detach() < 1).nonzero()[:, 0]
        env, near = env[inside], near[inside]
        log_env = -env.square() / (1 - env.square()) if self.envelope else torch.zeros_like(env)

        places = torch.cat([place[:atoms], place[near + atoms], place[near + atoms + count]])
        order = torch.argsort(places)
        unit = vector[near] / distance[near, None]
        center = torch.cat([itself, pairs.i[near], pairs.j[near]])[order]
        offsets = torch.bincount(center, minlength=atoms).cumsum(0)
        dtype = dtype or vector.dtype
        zeros = vector.new_zeros(atoms)
        return Graph(
            center,
            torch.cat([itself, pairs.j[near], pairs.i[near]])[order],
            torch.cat([offsets.new_zeros(1), offsets]),
            torch.cat([vector.new_zeros(atoms, 3), unit, -unit])[order].to(dtype),
            torch.cat([zeros, distance[near], distance[near]])[order].to(dtype),
            torch.cat([zeros, log_env, log_env])[order].to(dtype),
        )

    def _envelope(self, scaled: Tensor) -> Tensor:
        if not self.soft:
            return scaled.max(0).values
        return self.lse_scale * torch.logsumexp(scaled / self.lse_scale, 0)

    def _ranks(
        self, distance: Tensor, center: Tensor, slot: Tensor, counts: Tensor, kept: int | None
    ) -> Tensor:
        """For each candidate, how many of its center's candidates are closer."""
        if not self.soft:
            return slot.to(distance.dtype)
        width = int(counts.max()) if kept is None else kept
        listed = (slot < width).nonzero()[:, 0]
        far = distance.detach().max() + 100 * self.sigmoid_scale
        table = far * distance.new_ones(len(counts), width)
        table = table.index_put((center[listed], slot[listed]), distance[listed])
        if kept is None:
            real = torch.arange(width, device=slot.device) < counts[:, None]
            steps = torch.sigmoid((table[:, :, None] - table[:, None, :]) / self.sigmoid_scale)
            ranks = (steps * real[:, None, :]).sum(2)
        else:
            ranks = sine_ranks(table, self.sigmoid_scale)
        outside = distance.new_full((len(distance),), torch.inf)
        return outside.index_put((listed,), ranks[center[listed], slot[listed]])


def sine_ranks(sorted_distances: Tensor, scale: float, limit: int | None = None) -> Tensor:
    """sum over c' of S((d_c - d_c') / scale), S(x) = (1 + sin(x / 2)) / 2 up to |x| = pi.

    Beyond, S is 0 or 1.
    sin(a - b) = sin a cos b - cos a sin b turns the sum over each window into differences of two
    running sums, so that the work grows with the row and not with its square.

    Args:
        sorted_distances: (rows, candidates), ascending.
        scale: in the unit of the distances.
        limit: how many of a row count; None for all.
    """
    d = sorted_distances
    fixed = d.detach().contiguous()
    low = torch.searchsorted(fixed, fixed - math.pi * scale, right=True)
    high = torch.searchsorted(fixed, fixed + math.pi * scale)
    if limit is not None:
        low, high = low.clamp(max=limit), high.clamp(max=limit)
    phase = d / (2 * scale)
    sine, cosine = phase.sin(), phase.cos()
    sums = [torch.nn.functional.pad(x.cumsum(1), (1, 0)) for x in (sine, cosine)]
    sines, cosines = (x.gather(1, high) - x.gather(1, low) for x in sums)
    return low + (high - low) / 2 + (sine * cosines - cosine * sines) / 2


def safe_norm(vector: Tensor) -> Tensor:
    """Lengths of (..., 3), zero with a zero gradient below 1e-6."""
    square = vector.square().sum(-1)
    tiny = square.detach() < 1e-12
    return torch.where(tiny, 0.0, torch.where(tiny, 1.0, square).sqrt())
