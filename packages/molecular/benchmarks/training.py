"""CPU time of a training step with gradient forces, by model and backend, and beside fairchem.

python -m benchmarks.training                           # with fairchem-core where it is installed
"""

import importlib.util
import statistics
import sys
import time

import torch
from ase.build import bulk, molecule

from attn_molecular.data.labelled import Labelled
from attn_molecular.data.reading import Frame
from attn_molecular.kernels import rows
from attn_molecular.tasks import PotentialTraining
from core_attn import use_backend

from .peers import Official, ours_of


def frames(name: str) -> list[Frame]:
    """Ten ethanol molecules, or two cells of 64 silicon atoms, with labels of no meaning."""
    plain = molecule("CH3CH2OH") if name == "ethanol" else bulk("Si", cubic=True) * (2, 2, 2)
    made = []
    for seed in range(10 if name == "ethanol" else 2):
        atoms = plain.copy()
        atoms.rattle(0.05, seed=seed)
        made.append(Frame(atoms, 0.0, 0 * atoms.positions + 0.1, 0 * atoms.cell.array))
    return made


def step_ms(task: PotentialTraining, labelled: Labelled) -> float:
    """Median CPU time of a step."""
    optimizer = torch.optim.AdamW(task.parameters(), fused=True)
    times = []
    for _ in range(6):
        start = time.process_time()
        optimizer.zero_grad()
        task._losses(labelled, create_graph=True)["loss"].backward()
        optimizer.step()
        times.append(1e3 * (time.process_time() - start))
    return statistics.median(times[1:])


def beside_fairchem(size: str, name: str, rounds: int = 3) -> str:
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
            start = time.process_time()
            loss = step()
            loss.backward()
            times[who].append(1e3 * (time.process_time() - start))
            losses[who] = float(loss.detach())
            model.zero_grad()
    fast, slow = (statistics.median(spent[1:]) for spent in times)
    return (
        f"{size} {name}: ours {fast:.0f} ms, fairchem {slow:.0f} ms, ratio {slow / fast:.2f}; "
        f"losses {losses[0]:.6g} and {losses[1]:.6g}"
    )


def main() -> None:
    torch.set_num_threads(1)
    if importlib.util.find_spec("fairchem"):
        for size in sys.argv[1:] or ["H128 L4", "H512 L6"]:
            for name in ("ethanol", "Si64"):
                print(beside_fairchem(size, name), flush=True)
        return
    print("model         data      kernels, ms   plain torch, ms   ratio")
    for variant in ("escaip_tiny", "escaip_small"):
        for name in ("ethanol", "Si64"):
            labelled = Labelled.of(frames(name))
            task = PotentialTraining(variant, {"smooth_order": True})
            fast = step_ms(task, labelled)
            real, rows._plain = rows._plain, lambda x: True
            with use_backend("reference", "edge_attention"):
                slow = step_ms(task, labelled)
            rows._plain = real
            print(f"{variant:<13} {name:<8} {fast:12.0f} {slow:17.0f} {slow / fast:7.2f}")


if __name__ == "__main__":
    main()
