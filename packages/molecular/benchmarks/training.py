"""CPU time of a training step with gradient forces, by model and backend.

python -m benchmarks.training
"""

import statistics
import time

import torch
from ase.build import bulk, molecule

from attn_molecular.data.labelled import Labelled
from attn_molecular.data.reading import Frame
from attn_molecular.kernels import rows
from attn_molecular.tasks import PotentialTraining
from core_attn import use_backend


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


def main() -> None:
    torch.set_num_threads(1)
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
