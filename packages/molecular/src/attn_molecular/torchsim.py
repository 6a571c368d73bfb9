"""The potential as a model of TorchSim, which simulates many structures at once."""

from typing import Any

import torch
from torch import Tensor, nn

from .calculator import DTYPES, Source, ready
from .graph import Batch

try:
    from torch_sim.models.interface import ModelInterface
except ImportError:  # its package needs Python 3.12
    ModelInterface = nn.Module


class TorchSimModel(ModelInterface):  # pyright: ignore[reportGeneralTypeIssues]
    """Energies, forces and stress of a TorchSim state; needs the extra [torchsim].

    Results are in eV, eV/A and eV/A^3, tension positive, in the model's dtype. Where a structure
    has no volume, there is no stress in the results.

    Args:
        source: a shipped checkpoint's name, a file, or a `Potential`.
        device: of the network.
        dtype: "float32" or "float64".
        memory: about the most MiB that intermediate results may take.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: an unknown dtype, or TorchSim is not installed.
    """

    def __init__(
        self,
        source: Source | None = None,
        device: str = "cpu",
        dtype: str = "float32",
        memory: float | None = None,
    ):
        if ModelInterface is nn.Module:
            raise ValueError(
                "TorchSimModel needs torch-sim-atomistic: install the package's extra [torchsim] "
                "with Python 3.12 or newer"
            )
        super().__init__()
        self.potential, self.memory = ready(source, device, dtype), memory
        self._device, self._dtype = torch.device(device), DTYPES[dtype]
        self._compute_forces, self._compute_stress = True, self.potential.network.gives_stress
        self._memory_scales_with = "n_atoms"

    @property
    def compute_forces(self) -> bool:
        """Whether forces are computed."""
        return self._compute_forces

    @compute_forces.setter
    def compute_forces(self, wanted: bool) -> None:
        self._compute_forces = wanted

    @property
    def compute_stress(self) -> bool:
        """Whether stress is computed."""
        return self._compute_stress

    @compute_stress.setter
    def compute_stress(self, wanted: bool) -> None:
        if wanted and not self.potential.network.gives_stress:
            raise NotImplementedError("this model has direct forces and no stress head")
        self._compute_stress = wanted

    def forward(self, state: Any, **_: Any) -> dict[str, Tensor]:
        """`energy` (structures), `forces` (atoms, 3), `stress` (structures, 3, 3) of a SimState."""
        counts = torch.bincount(state.system_idx)
        batch = Batch(
            state.atomic_numbers.long(),
            state.positions.double(),
            state.row_vector_cell.double(),
            state.pbc.expand(len(counts), 3),
            state.system_idx,
            counts,
        )
        volume = batch.cell.det().abs() > 1e-8
        stress = self._compute_stress and bool((volume & batch.pbc.any(1)).all())
        seen = self.potential(batch, forces=self._compute_forces, stress=stress, memory=self.memory)
        found = {"energy": seen.energy, "forces": seen.forces, "stress": seen.stress}
        return {name: x.detach().to(self._dtype) for name, x in found.items() if x is not None}
