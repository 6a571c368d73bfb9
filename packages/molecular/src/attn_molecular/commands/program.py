"""The energy as a program that runs without this package."""

import io
from pathlib import Path
from typing import Literal

import torch
from ase import Atoms
from ase.build import bulk, molecule
from jaxtyping import Float, Int
from torch import Tensor, nn

from core_attn import use_backend

from ..calculator import DTYPES
from ..graph import Batch, SoftKNN
from ..graph.dense import candidate_table, dense_graph
from ..models import EScAIP
from ..potential import Potential, load_potential


class EnergyProgram(nn.Module):
    """Energy of one structure in eV, of its tensors alone; forces are its gradient.

    Args:
        potential: of the second release, with soft low-memory neighbors.

    Raises:
        ValueError: it is another kind.
    """

    references: Tensor
    scale: Tensor

    def __init__(self, potential: Potential):
        super().__init__()
        network = potential.network
        graph = network.graph
        if not isinstance(network, EScAIP) or not isinstance(graph, SoftKNN):
            raise ValueError("export needs a potential of the second release (EScAIP v2)")
        if not graph.soft or not graph.low_memory:
            raise ValueError("export needs soft, low-memory neighbors")
        self.network, self.knn = network, graph
        self.register_buffer("references", potential.references)
        self.register_buffer("scale", potential.scale)

    def forward(
        self,
        numbers: Int[Tensor, " atoms"],
        positions: Float[Tensor, "atoms 3"],
        cell: Float[Tensor, "3 3"],
        i: Int[Tensor, " pairs"],
        j: Int[Tensor, " pairs"],
        shift: Float[Tensor, "pairs 3"],
        table: Int[Tensor, "atoms slots"],
    ) -> Float[Tensor, ""]:
        """Args: see `dense_graph`; positions, cell and shift in float64."""
        graph = dense_graph(self.knn, positions, cell, i, j, shift, table, self.network.dtype)
        system = torch.zeros_like(numbers)
        counts = torch.ones_like(numbers).sum(0, keepdim=True)
        nodes, _, whole = self.network.features(graph, numbers, system, counts)
        energies = self.network.atom_energies(nodes, whole, system, counts)
        return self.scale * energies.double().sum() + self.references[numbers].sum()


def program_inputs(atoms: Atoms, knn: SoftKNN) -> tuple[Tensor, ...]:
    """The arguments of the program for a structure.

    Example:
        >>> len(program_inputs(molecule("H2O"), SoftKNN()))
        7
    """
    batch = Batch.from_atoms([atoms])
    pairs = knn.pairs(batch)
    table = candidate_table(pairs, len(atoms))
    cell = batch.cell[0]
    return batch.numbers, batch.positions, cell, pairs.i, pairs.j, pairs.shift, table


def export(
    model: str | None = None,
    out: str = "energy.pt2",
    dtype: Literal["float32", "float64"] = "float32",
    tolerance: float = 1e-4,
) -> int:
    """Write a potential's energy by torch.export: PyTorch alone runs and differentiates it.

    The program takes (numbers, positions, cell, i, j, shift, table) of one structure: its pairs of
    atoms i, j + shift within the reach that is written beside it (extra file "reach", in A), each
    once, and for each atom the places of its edges in (atoms, pairs, reversed pairs), filled up
    with -1. The README makes them with ASE.

    Args:
        model: potential; a shipped name or a file.
        out: the file.
        dtype: of the network.
        tolerance: the largest difference allowed, in eV and eV/A.

    Returns:
        0, or 1 where energies or forces differ by more than the tolerance.

    Raises:
        FileNotFoundError: there is no folder for `out`.
        ValueError: the potential is of the first release, or its neighbors are hard or ranked
            among all.
    """
    from core_attn.training.files import write_whole

    if not Path(out).parent.is_dir():
        raise FileNotFoundError(f"--out {out}: there is no folder {Path(out).parent}")
    potential = load_potential(model).eval().requires_grad_(False)
    potential.network.to(DTYPES[dtype])
    program = EnergyProgram(potential).eval()
    samples = _samples(potential)
    sizes = [torch.export.Dim(name, min=2) for name in ("atoms", "pairs", "slots")]
    atoms, pairs, slots = ({0: size} for size in sizes)
    shapes = (atoms, atoms, None, pairs, pairs, pairs, atoms | {1: slots[0]})
    inputs = program_inputs(samples[0], program.knn)
    with use_backend("reference"):  # torch's own operators, which run without this package
        exported = torch.export.export(program, inputs, dynamic_shapes=shapes, strict=False)
    reach = {"reach": str(program.knn.reach)}
    buffer = io.BytesIO()  # torch's own writer ends the process where the disk is full
    torch.export.save(exported, buffer, extra_files=reach)
    write_whole(out, lambda file: file.write(buffer.getbuffer()))
    loaded = torch.export.load(out).module()
    worst = 0.0
    for sample in samples:
        seen = potential(Batch.from_atoms([sample]))
        assert seen.forces is not None
        given = list(program_inputs(sample, program.knn))
        given[1].requires_grad_()
        energy = loaded(*given)
        (gradient,) = torch.autograd.grad(energy, given[1])
        differences = (energy.detach() - seen.energy).abs(), (gradient + seen.forces).abs().max()
        worst = max(worst, *map(float, differences))
    agrees = worst <= tolerance
    told = "" if agrees else f", beyond the tolerance of {tolerance:.2g}"
    print(f"{out}: pairs within {program.knn.reach:.4f} A; largest difference {worst:.2g}{told}")
    return 0 if agrees else 1


def _samples(potential: Potential) -> list[Atoms]:
    """Structures of elements it knows, of several sizes."""
    symbol = potential.symbols[0]
    if symbol == "H" and {"C", "O"} <= set(potential.symbols):
        return [molecule(name) for name in ("CH3CH2OH", "H2O", "C6H6")]
    crystal = bulk(symbol, "diamond", a=5.4, cubic=True)
    crystal.rattle(0.05)
    return [crystal * (2, 1, 1), crystal]
