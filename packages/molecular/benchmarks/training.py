"""Time of a training step with gradient forces, by model and backend, and beside fairchem.

python -m benchmarks.training                      # beside fairchem-core where it is installed
python -m benchmarks.training --threads 2 "H128 L4"
"""

import argparse
import importlib.util
import statistics

import torch
from ase.build import bulk, molecule

from attn_molecular.data.labelled import Labelled
from attn_molecular.data.reading import Frame
from attn_molecular.kernels import rows
from attn_molecular.tasks import PotentialTraining
from core_attn import use_backend

from .peers import SIZES, Clock, Official, clock, ours_of


def frames(name: str) -> list[Frame]:
    """Ten ethanol molecules, or two cells of 64 silicon atoms, with labels of no meaning."""
    plain = molecule("CH3CH2OH") if name == "ethanol" else bulk("Si", cubic=True) * (2, 2, 2)
    made = []
    for seed in range(10 if name == "ethanol" else 2):
        atoms = plain.copy()
        atoms.rattle(0.05, seed=seed)
        made.append(Frame(atoms, 0.0, 0 * atoms.positions + 0.1, 0 * atoms.cell.array))
    return made


def step_ms(task: PotentialTraining, labelled: Labelled, now: Clock) -> float:
    """Median time of a step."""
    optimizer = torch.optim.AdamW(task.parameters(), fused=True)
    times = []
    for _ in range(6):
        start = now()
        optimizer.zero_grad()
        task._losses(labelled, create_graph=True)["loss"].backward()
        optimizer.step()
        times.append(1e3 * (now() - start))
    return statistics.median(times[1:])


def beside_fairchem(size: str, name: str, now: Clock, rounds: int = 3) -> str:
    """Steps of this package and of fairchem on the same weights and structures, alternating."""
    structures = [frame.atoms for frame in frames(name)]
    official = Official(size, "gradient", bool(structures[0].pbc.any())).train()
    ours = ours_of(official, size, "gradient").train()
    batch = Labelled.of(frames(name)).batch

    def our_step() -> torch.Tensor:
        seen = ours(batch, create_graph=True)
        return seen.energy.square().mean() + seen.forces.square().mean()

    def their_step() -> torch.Tensor:
        seen = official(structures)
        return seen["energy"].square().mean() + seen["forces"].square().mean()

    times: list[list[float]] = [[], []]
    losses = [0.0, 0.0]
    for _ in range(rounds + 1):
        for who, (step, model) in enumerate(((our_step, ours), (their_step, official))):
            start = now()
            loss = step()
            loss.backward()
            times[who].append(1e3 * (now() - start))
            losses[who] = float(loss.detach())
            model.zero_grad()
    fast, slow = (statistics.median(spent[1:]) for spent in times)
    return (
        f"{size} {name}: ours {fast:.0f} ms, fairchem {slow:.0f} ms, ratio {slow / fast:.2f}; "
        f"losses {losses[0]:.6g} and {losses[1]:.6g}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sizes", nargs="*", default=list(SIZES))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    now = clock(options.threads)
    if importlib.util.find_spec("fairchem"):
        for size in options.sizes:
            for name in ("ethanol", "Si64"):
                print(beside_fairchem(size, name, now), flush=True)
        return
    print("model         data      kernels, ms   plain torch, ms   ratio")
    for variant in ("escaip_tiny", "escaip_small"):
        for name in ("ethanol", "Si64"):
            labelled = Labelled.of(frames(name))
            task = PotentialTraining(variant, {"smooth_order": True})
            fast = step_ms(task, labelled, now)
            real, rows._plain = rows._plain, lambda x: True
            with use_backend("reference", "edge_attention"):
                slow = step_ms(task, labelled, now)
            rows._plain = real
            print(f"{variant:<13} {name:<8} {fast:12.0f} {slow:17.0f} {slow / fast:7.2f}")


if __name__ == "__main__":
    main()
