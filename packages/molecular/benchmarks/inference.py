"""Energy and forces of EScAIP here and in fairchem, and of other potentials.

    python -m benchmarks.inference                      # beside fairchem-core where it is installed
    python -m benchmarks.inference --peer chgnet        # likewise sevennet, diep, mace
    python -m benchmarks.inference --alone ours         # or fairchem: its peak memory too

The first has both packages in one process, on the same weights and structures, and alternates.
"""

import argparse
import resource
import statistics

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule

from .peers import PEERS, SIZES, Call, Clock, clock, escaip


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


def compare(
    calls: dict[str, Call], atoms: Atoms, repeats: int, now: Clock
) -> tuple[dict[str, float], float]:
    """Median ms of each, positions changed before every round; the largest force difference."""
    random, worst = np.random.default_rng(0), 0.0
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats + 1):
        atoms.positions += random.normal(scale=1e-3, size=atoms.positions.shape)
        forces = []
        for name, call in calls.items():
            start = now()
            forces.append(call(atoms)[1])
            times[name].append(1e3 * (now() - start))
        largest = max(float(np.abs(forces[0]).max()), 1e-12)
        worst = max(worst, float(np.abs(forces[-1] - forces[0]).max()) / largest)
    return {name: statistics.median(spent[1:]) for name, spent in times.items()}, worst


def peak_mb() -> float:
    """The most memory that the process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", choices=list(PEERS))
    parser.add_argument("--alone", choices=["ours", "fairchem"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sizes", nargs="*", default=list(SIZES))
    parser.add_argument("--structures", nargs="*", default=list(structures()))
    parser.add_argument("--forces", nargs="*", default=["gradient", "direct"])
    options = parser.parse_args()
    now = clock(options.threads)
    of_torch = peak_mb()
    if options.peer:
        call = PEERS[options.peer]()
        for name in options.structures:
            atoms = structures()[name]
            if options.peer == "chgnet" and not atoms.pbc.any():
                atoms.set_cell([20.0] * 3)
                atoms.pbc = True
            times, _ = compare({options.peer: call}, atoms, options.repeats, now)
            print(f"{options.peer} {name}: {times[options.peer]:.0f} ms, peak {peak_mb():.0f} MB")
        return
    for size in options.sizes:
        for forces in options.forces:
            for name in options.structures:
                atoms = structures()[name]
                calls = escaip(size, forces, bool(atoms.pbc.any()), options.alone)
                begin = peak_mb()
                times, worst = compare(calls, atoms, options.repeats, now)
                row = f"{size} {forces:<8} {name:<8} " + ", ".join(
                    f"{who} {ms:.0f} ms" for who, ms in times.items()
                )
                if len(times) == 2:
                    row += f", ratio {times['fairchem'] / times['ours']:.2f}"
                    row += f", forces within {worst:.1e} of the largest"
                if options.alone:
                    row += f", peak {peak_mb():.0f} MB: {begin:.0f} before the first call (torch "
                    row += f"{of_torch:.0f}), {peak_mb() - begin:.0f} in calls"
                print(row, flush=True)


if __name__ == "__main__":
    main()
