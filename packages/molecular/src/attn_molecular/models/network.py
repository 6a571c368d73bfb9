"""What turns atoms' energies into energies, forces and stress; shared by both releases."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..graph import Batch, Graph, NearestNeighbors, Pairs, SoftKNN
from .config import BaseConfig


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

    A subclass sets `graph` and the heads, None where it has none, and implements `features`.
    """

    config: BaseConfig
    graph: SoftKNN | NearestNeighbors
    energy_head: nn.Module
    force_head: nn.Module | None
    stress_head: nn.Module | None

    def features(self, graph: Graph, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Final features of nodes and, for direct forces, edges."""
        raise NotImplementedError

    def forward(
        self,
        batch: Batch,
        *,
        forces: bool = True,
        stress: bool = False,
        pairs: Pairs | None = None,
        create_graph: bool | None = None,
    ) -> Prediction:
        """Predicts.

        Args:
            batch: the structures; positions that require gradients get them.
            forces: whether forces are wanted.
            stress: whether stress is wanted.
            pairs: candidates from `self.graph.pairs`, so that one list serves several calls.
            create_graph: whether gradient forces can be differentiated again; by default while
                training.

        Raises:
            ValueError: an element is unknown, or stress is asked where there is none.
        """
        self.check(batch)
        if stress and not self.gives_stress:
            raise ValueError("this model has direct forces and no stress head: it gives no stress")
        if self.config.forces == "direct" or not (forces or stress):
            return self._predict(batch, pairs, forces, stress)
        again = self.training and torch.is_grad_enabled() if create_graph is None else create_graph
        with torch.enable_grad():
            x = batch.positions
            x = x if x.requires_grad else x.detach().requires_grad_()
            strain = x.new_zeros(len(batch), 3, 3, requires_grad=stress)
            moved = batch.strained(x, strain) if stress else Batch(
                batch.numbers, x, batch.cell, batch.pbc, batch.system, batch.counts
            )  # fmt: skip
            seen = self._predict(moved, pairs, False, False)
            wanted = [x, strain] if stress else [x]
            found = torch.autograd.grad(seen.energy.sum(), wanted, create_graph=again)
        energy, energies = (seen.energy, seen.energies) if again else (
            seen.energy.detach(), seen.energies.detach()
        )  # fmt: skip
        virial = found[1] / batch.cell.detach().det().abs()[:, None, None] if stress else None
        return Prediction(energy, energies, -found[0], virial)

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

    def _predict(self, batch: Batch, pairs: Pairs | None, forces: bool, stress: bool) -> Prediction:
        graph = self.graph(batch, pairs, self.dtype)
        nodes, edges = self.features(graph, batch)
        energies = self.energy_head(nodes)[:, 0]
        if self.reduce == "mean":
            energies = energies / batch.counts[batch.system].to(energies.dtype)
        energy = energies.new_zeros(len(batch)).index_add(0, batch.system, energies)
        seen = [None, None, None]
        if forces and self.force_head is not None:
            seen[0] = self.force_head(nodes, edges, graph)
        if stress and self.stress_head is not None:
            seen[1], seen[2] = self.stress_head(nodes, edges, graph, batch)
        return Prediction(energy, energies, *seen)

    @property
    def reduce(self) -> str:
        """How atoms' energies make a structure's."""
        return self.config.energy_reduce
