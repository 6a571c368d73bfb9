"""Energy and forces of EScAIP here and in fairchem, and beside other potentials.

    python -m benchmarks.inference                      # ours, all structures and sizes
    python -m benchmarks.inference --peer fairchem      # in an environment with fairchem-core

Each environment runs alone and prints one row per case.
"""

import argparse
import resource
import statistics
import time

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk, molecule

SIZES = {
    "H128 L4": {"dim": 128, "depth": 4, "heads": 8, "frequencies": (6, 4, 3, 2, 1)},
    "H512 L6": {"dim": 512, "depth": 6, "heads": 8},
}


def structures() -> dict[str, Atoms]:
    """A molecule of 27 atoms, rattled silicon, and a box of 64 waters."""
    large = molecule("C6H6") + molecule("C6H6") + Atoms("NOH", [[0, 0, 9], [0, 1.2, 9], [0, 0, 10]])
    large.positions[12:24] += [0, 0, 4.0]
    found = {"molecule": large}
    for name, cells in (("Si64", 2), ("Si512", 4)):
        crystal = bulk("Si", cubic=True).repeat(cells)
        crystal.rattle(0.05, seed=0)
        found[name] = crystal
    water = Atoms(cell=[12.4] * 3, pbc=True)
    for place in np.ndindex(4, 4, 4):
        one = molecule("H2O")
        one.rotate(37 * sum(place), "xyz"[sum(place) % 3])
        one.positions += 3.1 * np.array(place)
        water += one
    found["water192"] = water
    return found


def median_ms(call, atoms: Atoms, seconds: float) -> float:
    """Median CPU time of a call, positions changed before each."""
    random, times, begin = np.random.default_rng(0), [], time.monotonic()
    while len(times) < 3 or time.monotonic() - begin < seconds:
        atoms.positions += random.normal(scale=1e-3, size=atoms.positions.shape)
        start = time.process_time()
        call(atoms)
        times.append(1e3 * (time.process_time() - start))
    return statistics.median(times[1:])


def ours(size: str, forces: str):
    """A calculator of this package with random weights."""
    from attn_molecular import AttnCalculator, EScAIPConfig, Potential

    torch.manual_seed(0)
    network = EScAIPConfig(forces=forces, **SIZES[size]).build()  # type: ignore[arg-type]
    return AttnCalculator(Potential(network, torch.zeros(network.config.elements)))


def fairchem(size: str, forces: str):
    """fairchem's own EScAIP with the same sizes, as a function of atoms."""
    from fairchem.core.datasets.atomic_data import AtomicData, atomicdata_list_to_batch
    from fairchem.core.models.escaip.EScAIP import (
        EScAIPBackbone,
        EScAIPDirectForceHead,
        EScAIPEnergyHead,
        EScAIPGradientEnergyForceStressHead,
    )

    c = SIZES[size]
    backbone = EScAIPBackbone(
        regress_forces=True, direct_forces=forces == "direct", hidden_size=c["dim"],
        num_layers=c["depth"], atten_num_heads=c["heads"], activation="gelu", use_compile=False,
        use_padding=False, use_pbc=True, max_num_elements=119, max_atoms=1000, max_batch_size=4,
        max_radius=6.0, knn_k=30, knn_soft=True, knn_sigmoid_scale=0.2, knn_lse_scale=0.1,
        knn_use_low_mem=True, knn_pad_size=45,
        freequency_list=list(c.get("frequencies", (20, 10, 4, 10, 20))),
    ).eval()  # fmt: skip
    if forces == "direct":
        heads = [EScAIPEnergyHead(backbone), EScAIPDirectForceHead(backbone)]
    else:
        heads = [EScAIPGradientEnergyForceStressHead(backbone, wrap_property=False)]

    def call(atoms: Atoms):
        data = atomicdata_list_to_batch([AtomicData.from_ase(atoms)])
        data.pos.requires_grad_(forces == "gradient")
        seen = backbone(data)
        return [head.eval()(data, seen) for head in heads]

    return call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", default="ours", choices=["ours", "fairchem"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--sizes", nargs="*", default=list(SIZES))
    parser.add_argument("--structures", nargs="*", default=list(structures()))
    parser.add_argument("--forces", nargs="*", default=["gradient", "direct"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print("package   size     forces    structure  ms per call (CPU)  peak MB so far")
    for size in options.sizes:
        for forces in options.forces:
            for name in options.structures:
                atoms = structures()[name]
                if options.peer == "ours":
                    atoms.calc = ours(size, forces)
                    ms = median_ms(lambda a: a.get_forces(), atoms, options.seconds)
                else:
                    ms = median_ms(fairchem(size, forces), atoms, options.seconds)
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                print(f"{options.peer:<9} {size:<8} {forces:<9} {name:<10} {ms:17.0f} {peak:15.0f}")


if __name__ == "__main__":
    main()
