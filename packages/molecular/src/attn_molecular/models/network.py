"""What turns atoms' energies into energies, forces and stress; shared by both releases."""

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..graph import Batch, Graph, NearestNeighbors, Pairs, SoftKNN
from .config import BaseConfig
from .layers import Surroundings, branch_keep

KEPT_OF_GRAPH = 600  # bytes of an edge: candidates in float64 and what their gradient needs
WORK = 48  # numbers of an edge and channel in one block, where no kernel spares any


@dataclass(frozen=True)
class Prediction:
    """What a network says about a batch, in its own units and without references.

    Attributes:
        energy: (structures).
        energies: (atoms), which sum to the energy.
        forces: (atoms, 3), if asked.
        stress: (structures, 3, 3), dE/dstrain / volume, if asked.
        stress_parts: (structures, 1) and (structures, 5), the head's own numbers, if it has any.
    """

    energy: Float[Tensor, " structures"]
    energies: Float[Tensor, " atoms"]
    forces: Float[Tensor, "atoms 3"] | None = None
    stress: Float[Tensor, "structures 3 3"] | None = None
    stress_parts: tuple[Tensor, Tensor] | None = None


class Network(nn.Module):
    """An attention network over the neighborhoods of atoms.

    A subclass sets its parts: `input` makes nodes and edges of the surroundings, each of `blocks`
    better ones, `readouts` reads them, before the first and after each, `projection` puts together
    what they read, and the heads, None where it has none, say what it means. With `whole`, the
    energy is read from features of the structure that it makes of the nodes at every stage.
    """

    config: BaseConfig
    graph: SoftKNN | NearestNeighbors
    order: nn.Module
    input: nn.Module
    blocks: nn.ModuleList
    readouts: nn.ModuleList
    projection: nn.Module
    energy_head: nn.Module
    force_head: nn.Module | None
    stress_head: nn.Module | None
    whole: nn.Module | None

    def features(
        self,
        graph: Graph,
        numbers: Tensor,
        system: Tensor,
        counts: Tensor,
        most: int | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Final features of nodes, of edges for direct forces, of the whole where it is read.

        Args:
            graph: the neighborhoods.
            numbers: (atoms) atomic numbers.
            system: (atoms) the structure of each atom.
            counts: (structures) atoms in each.
            most: edges that are looked at at a time; what a layer computes of them is computed
                again for gradients instead of kept.
        """
        keep = branch_keep(self.config.drop_path, self.training, system)
        if most is None or keep is not None:
            pieces, run = [graph], _called
        else:
            pieces, run = graph.pieces(most), partial(checkpoint, _sparing, use_reentrant=False)
        order = _together([run(self.order, piece) for piece in pieces])
        around = [Surroundings(piece, numbers, order) for piece in pieces]
        states = [run(self.input, s) for s in around]
        readouts = [[run(self.readouts[0], *state)] for state in states]
        stages = [_together([own for own, _ in states])]
        for block, readout in zip(self.blocks, list(self.readouts)[1:], strict=True):
            nodes = stages[-1]
            states = [
                run(block, nodes, edges, s, keep)
                for (_, edges), s in zip(states, around, strict=True)
            ]
            for kept, state in zip(readouts, states, strict=True):
                kept.append(run(readout, *state))
            stages.append(_together([own for own, _ in states]))
        whole = None if self.whole is None else self.whole(stages, system, counts)
        nodes, edges = zip(*(self.projection(kept) for kept in readouts), strict=True)
        return _together(nodes), None if edges[0] is None else _together(edges), whole

    def atom_energies(
        self, nodes: Tensor, whole: Tensor | None, system: Tensor, counts: Tensor
    ) -> Float[Tensor, " atoms"]:
        """Energies that sum to the structures': equal shares where those are read of the whole."""
        if whole is not None:
            return (self.energy_head(whole)[:, 0] / counts)[system]
        energies = self.energy_head(nodes)[:, 0]
        return energies / counts[system].to(energies.dtype) if self.reduce == "mean" else energies

    def forward(
        self,
        batch: Batch,
        *,
        forces: bool = True,
        stress: bool = False,
        pairs: Pairs | None = None,
        create_graph: bool | None = None,
        memory: float | None = None,
    ) -> Prediction:
        """Predicts.

        Args:
            batch: the structures; positions that require gradients get them.
            forces: whether forces are wanted.
            stress: whether stress is wanted.
            pairs: candidates from `self.graph.pairs`, so that one list serves several calls.
            create_graph: whether gradient forces can be differentiated again; by default while
                training.
            memory: the most MiB that intermediate results may take; as many as needed by
                default. Where it binds, atoms are taken in pieces, and gradients compute again
                what a layer made of a piece: the result is the same, the time a third longer.

        Raises:
            ValueError: an element is unknown, stress is asked where there is none, or the memory
                is too little for what has to be kept.
        """
        self.check(batch)
        if stress and not self.gives_stress:
            raise ValueError("this model has direct forces and no stress head: it gives no stress")
        if self.config.forces == "direct" or not (forces or stress):
            return self._predict(batch, pairs, forces, stress, memory)
        again = self.training and torch.is_grad_enabled() if create_graph is None else create_graph
        with torch.enable_grad():
            x = batch.positions
            x = x if x.requires_grad else x.detach().requires_grad_()
            strain = x.new_zeros(len(batch), 3, 3, requires_grad=stress)
            moved = batch.strained(x, strain) if stress else Batch(
                batch.numbers, x, batch.cell, batch.pbc, batch.system, batch.counts
            )  # fmt: skip
            seen = self._predict(moved, pairs, False, False, memory)
            wanted = [x, strain] if stress else [x]
            found = torch.autograd.grad(seen.energy.sum(), wanted, create_graph=again)
        energy, energies = (seen.energy, seen.energies) if again else (
            seen.energy.detach(), seen.energies.detach()
        )  # fmt: skip
        virial = found[1] / batch.cell.detach().det().abs()[:, None, None] if stress else None
        return Prediction(energy, energies, -found[0], virial)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compiles the layers; the graph is searched, and forces derived, as ever."""
        for part in (self.input, *self.blocks, *self.readouts, self.projection):
            part.compile(*args, **kwargs)

    @property
    def gives_stress(self) -> bool:
        """Whether stress can be asked for."""
        return self.config.forces == "gradient" or self.stress_head is not None

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return next(self.parameters()).dtype

    def check(self, batch: Batch) -> None:
        """Requires known elements.

        Raises:
            ValueError: naming one that is not.
        """
        from ase.data import chemical_symbols

        wrong = (batch.numbers < 1) | (batch.numbers >= self.config.elements)
        if wrong.any():
            z = int(batch.numbers[wrong][0])
            symbol = chemical_symbols[z] if 0 <= z < len(chemical_symbols) else "?"
            raise ValueError(
                f"element {symbol} (Z={z}) is outside of this model's 1 to "
                f"{self.config.elements - 1}"
            )

    def _predict(
        self, batch: Batch, pairs: Pairs | None, forces: bool, stress: bool, memory: float | None
    ) -> Prediction:
        graph = self.graph(batch, pairs, self.dtype)
        most = None if memory is None else self._edges_within(memory, graph)
        nodes, edges, whole = self.features(graph, batch.numbers, batch.system, batch.counts, most)
        energies = self.atom_energies(nodes, whole, batch.system, batch.counts)
        energy = energies.new_zeros(len(batch)).index_add(0, batch.system, energies)
        seen = [None, None, None]
        if forces and self.force_head is not None:
            seen[0] = self.force_head(nodes, edges, graph)
        if stress and self.stress_head is not None:
            seen[1], seen[2] = self.stress_head(nodes, edges, graph, batch)
        return Prediction(energy, energies, *seen)

    def _edges_within(self, memory: float, graph: Graph) -> int | None:
        """How many edges a piece may have; None where the whole may stay.

        The graph and the edges after each block are kept, of a piece what a block makes of it, of
        the whole what all make.
        """
        c, size = self.config, torch.finfo(self.dtype).bits // 8
        kept = len(graph.center) * (KEPT_OF_GRAPH + size * c.dim * (c.depth + 3)) / 2**20
        work = size * (WORK * c.dim + 4 * c.distance_dim + 4 * c.order_size * graph.longest) / 2**20
        if kept + work * graph.longest > memory:
            raise ValueError(
                f"memory = {memory} MiB is too little for {graph.atoms} atoms with "
                f"{len(graph.center)} edges: at least {kept + work * graph.longest:.0f} are needed"
            )
        if kept + work * len(graph.center) * (c.depth + 1) <= memory:
            return None
        return int((memory - kept) / work)

    @property
    def reduce(self) -> str:
        """How atoms' energies make a structure's."""
        return self.config.energy_reduce


def _called(layer: Callable, *arguments: Any) -> Any:
    return layer(*arguments)


def _sparing(layer: Callable, *arguments: Any) -> Any:
    """Calls a layer after what the piece before has freed is the system's again."""
    give_back()
    return layer(*arguments)


@cache
def _trim() -> Callable[[int], int] | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None  # another C library than glibc, which has its own ways


def give_back() -> None:
    """Returns freed memory that glibc keeps between what is in use, several times as much here."""
    trim = _trim()
    if trim is not None:
        trim(0)


def _together(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))
