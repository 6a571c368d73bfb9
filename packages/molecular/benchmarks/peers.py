"""Other potentials as functions of atoms, each for an environment of its own."""

import time
from collections.abc import Callable

import numpy as np
import torch
from ase import Atoms
from torch import nn

Clock = Callable[[], float]
Call = Callable[[Atoms], tuple[float, np.ndarray]]  # energy and forces
SIZES = {
    "H128 L4": {"dim": 128, "depth": 4, "heads": 8, "frequencies": (6, 4, 3, 2, 1)},
    "H512 L6": {"dim": 512, "depth": 6, "heads": 8, "frequencies": (20, 10, 4, 10, 20)},
}


def clock(threads: int) -> Clock:
    """CPU time of one thread, time on the wall of several."""
    torch.set_num_threads(threads)
    return time.process_time if threads == 1 else time.perf_counter


class Official(nn.Module):
    """fairchem's own EScAIP with random weights: backbone and heads under their official keys."""

    def __init__(self, size: str, forces: str, periodic: bool):
        super().__init__()
        from fairchem.core.models.escaip.EScAIP import (
            EScAIPBackbone,
            EScAIPDirectForceHead,
            EScAIPEnergyHead,
            EScAIPGradientEnergyForceStressHead,
        )

        torch.manual_seed(0)
        c, self.direct = SIZES[size], forces == "direct"
        self.backbone = EScAIPBackbone(
            regress_forces=True, direct_forces=self.direct, hidden_size=c["dim"],
            num_layers=c["depth"], atten_num_heads=c["heads"], activation="gelu", use_compile=False,
            atten_name="math",
            use_padding=False, use_pbc=periodic, max_num_elements=119, max_atoms=1000,
            max_batch_size=32, max_radius=6.0, knn_k=30, knn_soft=True, knn_sigmoid_scale=0.2,
            knn_lse_scale=0.1, knn_use_low_mem=True, knn_pad_size=45,
            freequency_list=list(c["frequencies"]),
        )  # fmt: skip
        if self.direct:
            heads = [EScAIPEnergyHead(self.backbone), EScAIPDirectForceHead(self.backbone)]
        else:
            heads = [EScAIPGradientEnergyForceStressHead(self.backbone, wrap_property=False)]
        self.output_heads = nn.ModuleDict({f"head{i}": head for i, head in enumerate(heads)})

    def forward(self, structures: list[Atoms]) -> dict[str, torch.Tensor]:
        """Energies and forces of a batch."""
        from fairchem.core.datasets.atomic_data import AtomicData, atomicdata_list_to_batch

        data = atomicdata_list_to_batch([AtomicData.from_ase(atoms) for atoms in structures])
        data.pos.requires_grad_(not self.direct)
        seen, found = self.backbone(data), {}
        for head in self.output_heads.values():
            found |= head(data, seen)
        return found


def ours_of(official: Official, size: str, forces: str) -> nn.Module:
    """This package's network with the official one's weights."""
    from attn_molecular import EScAIPConfig
    from attn_molecular.official import from_official

    config = EScAIPConfig(forces=forces, **SIZES[size])  # type: ignore[arg-type]
    network = config.build()
    network.load_state_dict(from_official(official.state_dict(), config))
    return network


def escaip(size: str, forces: str, periodic: bool, alone: str | None = None) -> dict[str, Call]:
    """This package and fairchem on the same weights, or one of them without importing the other."""
    official, calls = None, {}
    if alone != "ours":
        try:
            official = Official(size, forces, periodic).eval()
        except ModuleNotFoundError:
            if alone is not None:
                raise
    if alone != "fairchem":
        from attn_molecular import AttnCalculator, EScAIPConfig, Potential

        if official is None:
            network = EScAIPConfig(forces=forces, **SIZES[size]).build()  # type: ignore[arg-type]
        else:
            network = ours_of(official, size, forces)
        calculator = AttnCalculator(Potential(network, torch.zeros(network.config.elements)))
        calls["ours"] = of_calculator(calculator)
    if official is not None:

        def theirs(atoms: Atoms) -> tuple[float, np.ndarray]:
            found = official([atoms])
            return float(found["energy"].detach()), found["forces"].detach().numpy()

        calls["fairchem"] = theirs
    return calls


def of_calculator(calculator) -> Call:
    """Energy and forces by an ASE calculator."""

    def call(atoms: Atoms) -> tuple[float, np.ndarray]:
        calculator.calculate(atoms, ["energy", "forces"], ["positions"])
        return calculator.results["energy"], calculator.results["forces"]

    return call


def chgnet() -> Call:
    """CHGNet 0.3.0."""
    from chgnet.model import CHGNetCalculator

    return of_calculator(CHGNetCalculator(use_device="cpu"))


def sevennet() -> Call:
    """SevenNet-0."""
    from sevenn.calculator import SevenNetCalculator

    return of_calculator(SevenNetCalculator("7net-0", device="cpu"))


def diep() -> Call:
    """DIEP, whose weights are in its wheel."""
    from diep.pretrained import make_calculator

    return of_calculator(make_calculator())


def mace() -> Call:
    """MACE of MP-0's small layout, with random weights."""
    torch.serialization.add_safe_globals([slice])  # in a file of constants that e3nn 0.4.4 loads
    from e3nn import o3
    from mace import modules
    from mace.calculators import MACECalculator

    torch.manual_seed(0)
    numbers = list(range(1, 90))
    model = modules.ScaleShiftMACE(
        r_max=6.0, num_bessel=10, num_polynomial_cutoff=5, max_ell=3,
        interaction_cls=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
        interaction_cls_first=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
        num_interactions=2, num_elements=len(numbers), hidden_irreps=o3.Irreps("128x0e"),
        MLP_irreps=o3.Irreps("16x0e"), gate=torch.nn.functional.silu,
        atomic_energies=np.zeros(len(numbers)), avg_num_neighbors=60, atomic_numbers=numbers,
        correlation=3, atomic_inter_scale=1.0, atomic_inter_shift=0.0,
    )  # fmt: skip
    return of_calculator(MACECalculator(models=[model], device="cpu", default_dtype="float32"))


PEERS = {"chgnet": chgnet, "sevennet": sevennet, "diep": diep, "mace": mace}
