import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.neighborlist import neighbor_list

from attn_molecular import Batch, NearestNeighbors, SoftKNN
from attn_molecular.graph import pairs_within
from attn_molecular.graph.dense import candidate_table, dense_graph
from attn_molecular.graph.soft_knn import sine_ranks


def as_set(graph):
    rows = torch.cat(
        [graph.center[:, None], graph.neighbor[:, None], graph.direction * graph.distance[:, None]],
        1,
    )
    return sorted(map(tuple, rows.double().round(decimals=5).tolist()))


STRUCTURES = {
    "molecule": molecule("C6H6"),
    "one atom": Atoms("O"),
    "primitive": bulk("Si"),
    "slab": Atoms("Cu4", bulk("Cu", cubic=True).positions, cell=[3.6, 3.6, 0], pbc=[1, 1, 0]),
    "wire": Atoms("Si2", [[0, 0, 0], [1, 2, 0]], cell=[3, 0, 0], pbc=[1, 0, 0]),
}


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("radius", [2.5, 6.6])
def test_pairs_are_those_of_ase(name, radius):
    atoms = STRUCTURES[name].copy()
    atoms.rattle(0.02, seed=1)
    atoms.positions += [4.0, -7.0, 2.0]
    pairs = pairs_within(Batch.from_atoms([atoms]), radius)
    i, j, shift = neighbor_list("ijS", atoms, radius)
    theirs = {(a, b, *s) for a, b, s in zip(i.tolist(), j.tolist(), shift.tolist(), strict=True)}
    ours = set()
    for a, b, s in zip(pairs.i.tolist(), pairs.j.tolist(), pairs.shift.int().tolist(), strict=True):
        ours |= {(a, b, *s), (b, a, *(-x for x in s))}
    assert ours == theirs and len(theirs) == 2 * len(pairs.i)


@pytest.mark.parametrize("cells", [2, 6])
@pytest.mark.parametrize("soft", [True, False])
def test_the_list_gives_the_official_dense_graph(cells, soft):
    """On 64 and 192 atoms: the same neighbors and envelopes."""
    atoms = bulk("Si", cubic=True) * (2, 2, cells)
    atoms.rattle(0.1, seed=0)
    batch = Batch.from_atoms([atoms])
    fast = SoftKNN(5.0, 12, soft)(batch)
    dense = SoftKNN(5.0, 12, soft, official_images=True)(batch)
    assert as_set(fast) == as_set(dense)
    torch.testing.assert_close(
        fast.log_envelope.exp().sort().values, dense.log_envelope.exp().sort().values,
        rtol=0, atol=1e-6,
    )  # fmt: skip


def test_ranks_by_running_sums_are_ranks_by_pairs():
    d = torch.rand(5, 40, dtype=torch.float64).mul(6).sort(1).values
    x = (d[:, :, None] - d[:, None]) / 0.2
    step = torch.where(x.abs() < np.pi, 0.5 + 0.5 * (x / 2).sin(), (x > 0).double())
    torch.testing.assert_close(sine_ranks(d, 0.2), step.sum(2))


def test_envelope_is_differentiable_everywhere():
    positions = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    base = Batch.from_atoms([Atoms("H6", 2 * positions.numpy())])
    knn = SoftKNN(4.0, 4)

    def total(x):
        batch = Batch(base.numbers, x, base.cell, base.pbc, base.system, base.counts)
        graph = knn(batch)
        return graph.log_envelope.exp().sum() + graph.distance.sum()

    assert torch.autograd.gradcheck(total, base.positions.clone().requires_grad_())
    assert torch.autograd.gradgradcheck(total, base.positions.clone().requires_grad_())


def test_a_batch_is_its_structures():
    structures = [a for a in STRUCTURES.values()]
    knn = SoftKNN(5.0, 8)
    whole = knn(Batch.from_atoms(structures))
    parts = [knn(Batch.from_atoms([a])) for a in structures]
    assert whole.counts.tolist() == [n for part in parts for n in part.counts.tolist()]
    torch.testing.assert_close(whole.distance, torch.cat([part.distance for part in parts]))


def test_slots_of_fixed_number_hold_the_same_graph():
    atoms = bulk("Si", cubic=True)
    atoms.rattle(0.1, seed=0)
    batch, knn = Batch.from_atoms([atoms]), SoftKNN(5.0, 12)
    pairs = knn.pairs(batch)
    packed = knn(batch, pairs)
    table = candidate_table(pairs, len(atoms))
    dense = dense_graph(
        knn, batch.positions, batch.cell[0], pairs.i, pairs.j, pairs.shift, table, torch.float64
    )
    inside = ~dense.outside
    assert inside.view(len(atoms), -1).sum(1).tolist() == packed.counts.tolist()
    torch.testing.assert_close(dense.distance[inside], packed.distance)
    torch.testing.assert_close(dense.log_envelope[inside], packed.log_envelope)


def test_the_nearest_are_kept_strictly_or_with_ties():
    atoms = Atoms("OHHH", [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0001]])
    batch = Batch.from_atoms([atoms])
    assert NearestNeighbors(3.0, 2)(batch).counts[0] == 2
    assert NearestNeighbors(3.0, 2, strict=False)(batch).counts[0] == 3
    alone = NearestNeighbors(3.0, 2)(Batch.from_atoms([Atoms("O")]))
    assert alone.neighbor.tolist() == [0] and alone.featureless.tolist() == [True]


@pytest.mark.parametrize("most", [1, 40, 10_000])
def test_pieces_hold_the_same_edges(most):
    graph = SoftKNN(5.0, 8)(Batch.from_atoms(list(STRUCTURES.values())))
    pieces = graph.pieces(most)
    assert sum(piece.atoms for piece in pieces) == graph.atoms
    assert all(len(piece.center) <= most or piece.atoms == 1 for piece in pieces)
    whole = torch.cat([piece.center + piece.begin for piece in pieces])
    assert torch.equal(whole, graph.center)
    assert torch.equal(torch.cat([piece.distance for piece in pieces]), graph.distance)
    assert all(piece.counts.sum() == len(piece.center) for piece in pieces)
