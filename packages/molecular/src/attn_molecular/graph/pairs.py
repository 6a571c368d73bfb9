"""Pairs of atoms and images, each once: what every graph is made from."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from vesin import NeighborList

from .batch import Batch

OVERLAP = 1e-3
FARTHEST = 1e8  # A; beyond, cells have no volume in float64 that means anything


@dataclass(frozen=True)
class Pairs:
    """Pairs (i, j + image); the pair (j, i - image) is not listed.

    Attributes:
        i: (pairs) an atom.
        j: (pairs) its neighbor.
        shift: (pairs, 3) the image of j, in cell vectors.
    """

    i: Int[Tensor, " pairs"]
    j: Int[Tensor, " pairs"]
    shift: Float[Tensor, "pairs 3"]

    def vectors(self, batch: Batch) -> Float[Tensor, "pairs 3"]:
        """From i to the image of j, in A; differentiable in positions and cell."""
        x = batch.positions
        images = torch.einsum(
            "pa,pab->pb", self.shift.to(x.dtype), batch.cell[batch.system[self.i]]
        )
        return x[self.j] - x[self.i] + images


def pairs_within(batch: Batch, radius: float) -> Pairs:
    """All pairs closer than `radius` A, by vesin's cell lists.

    A cell vector along which a structure does not repeat may be anything, zero included.

    Raises:
        ValueError: positions that are not finite, a singular cell, or atoms that coincide.

    Example:
        >>> from ase.build import bulk
        >>> pairs = pairs_within(Batch.from_atoms([bulk("Cu", "fcc", a=3.6)]), 2.6)
        >>> len(pairs.i)  # 12 neighbors, each pair once
        6
    """
    positions = batch.positions.detach().cpu().numpy()
    cells, pbcs = batch.cell.detach().cpu().numpy(), batch.pbc.cpu().numpy()
    found_i, found_j, found_shift = [], [], []
    start = 0
    for count, cell, pbc in zip(batch.counts.tolist(), cells, pbcs, strict=True):
        x = positions[start : start + count]
        _check(x, cell, pbc)
        i, j, shift = _one(x, complete_cell(cell, pbc), pbc, radius)
        found_i.append(i + start)
        found_j.append(j + start)
        found_shift.append(shift)
        start += count
    device = batch.positions.device
    return Pairs(
        torch.from_numpy(np.concatenate(found_i)).to(device),
        torch.from_numpy(np.concatenate(found_j)).to(device),
        torch.from_numpy(np.concatenate(found_shift)).to(device),
    )


def all_pairs(batch: Batch, radius: float) -> Pairs:
    """Every pair of atoms with every image up to ceil(radius * reciprocal length) along each axis.

    The candidates of the official dense graph; their number grows with the square of the atoms.
    """
    found = []
    start = 0
    cells, pbcs = batch.cell.detach().cpu().numpy(), batch.pbc.cpu().numpy()
    for count, cell, pbc in zip(batch.counts.tolist(), cells, pbcs, strict=True):
        reach = [0, 0, 0]
        if pbc.any():
            inverse = torch.linalg.inv(torch.as_tensor(complete_cell(cell, pbc)))
            reach = [
                math.ceil(radius * float(inverse[:, axis].norm())) if pbc[axis] else 0
                for axis in range(3)
            ]
        images = torch.cartesian_prod(*(torch.arange(-n, n + 1) for n in reach)).reshape(-1, 3)
        i, j = torch.arange(count), torch.arange(count)
        i, j, n = (
            x.reshape(-1) for x in torch.meshgrid(i, j, torch.arange(len(images)), indexing="ij")
        )
        shift = images[n]
        # of (i, j, n) and (j, i, -n) one is kept; (i, i, 0) is not a pair
        positive = (shift * torch.tensor([1_000_000, 1_000, 1])).sum(1) > 0
        keep = torch.where(i == j, positive, i < j)
        found.append((i[keep] + start, j[keep] + start, shift[keep].double()))
        start += count
    return Pairs(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def complete_cell(cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """The cell with vectors of length 1 normal to the others where it does not repeat.

    Example:
        >>> complete_cell(np.diag([3.0, 4.0, 0.0]), np.array([True, True, False])).tolist()
        [[3.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 1.0]]
    """
    if pbc.all():
        return cell
    if not pbc.any():
        return np.eye(3)
    _, _, rows = np.linalg.svd(cell[pbc])
    full = cell.copy()
    full[~pbc] = rows[pbc.sum() :]
    return full


def _one(x: np.ndarray, cell: np.ndarray, pbc: np.ndarray, radius: float):
    x = x - x.mean(0)
    # vesin sorts atoms into cells along all axes; where nothing repeats, the box spans them all
    span = np.abs(x).max() * 4 + 4 * radius if len(x) else 1.0
    box = np.where(pbc[:, None], cell, cell * span)
    i, j, shift, d = NeighborList(
        cutoff=radius, full_list=False, n_threads=torch.get_num_threads()
    ).compute(points=x, box=box, periodic=tuple(bool(p) for p in pbc), quantities="ijSd")
    i, j, shift = i.astype(np.int64), j.astype(np.int64), shift.astype(np.float64)
    close = d < OVERLAP
    if close.any():
        at = int(np.argmax(close))
        raise ValueError(
            f"atoms {i[at]} and {j[at]} are {d[at]:.2g} A apart; no two atoms may be closer than "
            f"{OVERLAP} A"
        )
    return i, j, shift


def _check(x: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> None:
    if len(x) == 0:
        raise ValueError("a structure has no atoms")
    if not np.isfinite(x).all():
        raise ValueError(
            f"atom {int(np.argmin(np.isfinite(x).all(1)))} has a position that is not finite"
        )
    if not np.isfinite(cell).all():
        raise ValueError("the cell has entries that are not finite")
    if pbc.any():
        periodic = cell[pbc]
        if np.abs(periodic).max() > FARTHEST:
            raise ValueError(f"the cell has entries beyond {FARTHEST:.0e} A: {periodic.tolist()}")
        lengths = np.linalg.norm(periodic, axis=1)
        sizes = np.linalg.svd(periodic / np.where(lengths, lengths, 1)[:, None], compute_uv=False)
        if lengths.min() == 0 or sizes.min() < 1e-8:
            axes = "".join("abc"[axis] for axis in range(3) if pbc[axis])
            raise ValueError(
                f"the cell repeats along {axes}, but these vectors are zero or not independent: "
                f"{periodic.round(4).tolist()}"
            )
