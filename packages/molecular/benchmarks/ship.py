"""Makes a shipped potential and its card of a checkpoint.

    python -m benchmarks.ship hco runs/hco-escaip/version_0/last.ckpt DATA_FOLDER
    python -m benchmarks.ship si runs/si-escaip/version_0/last.ckpt DATA_FOLDER

The energy is linear in the weights of the head's last layer, and so are the forces: after a short
training by gradient descent these may be solved for, from every n-th training frame.
"""

import sys
from pathlib import Path

import numpy as np
import torch

import attn_molecular.data
import attn_molecular.tasks  # noqa: F401 (known by name in checkpoints)
from attn_molecular import Potential, predict
from attn_molecular.data.labelled import Labelled, fit_references
from attn_molecular.data.reading import Frame, read_frames
from attn_molecular.potential import WEIGHTS
from core_attn.training import trained

CARDS = {
    "hco": {
        "what": "EScAIP (second release, gradient forces, smooth bond order) for two molecules.",
        "data": "ethanol (rMD17 geometries; the O-H bond and two normal modes stretched) and "
        "acetylacetone at 300 K: BOTNet-datasets, arXiv 2205.06643",
        "labels": "ORCA, PBE/def2-SVP (acetylacetone with D3), eV and eV/A",
        "licence": "MIT",
        "recipe": "hco-escaip",
        "not_for": "other molecules, reactions, anything whose result matters",
        "train": ["ethanol/train.extxyz.gz", "acetylacetone/train_300K.extxyz.gz"],
        "test": ["ethanol/test_MD.extxyz.gz", "acetylacetone/test_MD_300K.extxyz.gz"],
        "frames": 100,
    },
    "si": {
        "what": "EScAIP (second release, gradient forces, smooth bond order) for silicon.",
        "data": "mlearn, silicon: elastic, AIMD, surface and vacancy cells",
        "labels": "VASP, PBE; eV, eV/A and eV/A^3",
        "licence": "BSD-3-Clause",
        "recipe": "si-escaip",
        "crystal": "20.46 A^3/atom; C11 141, C12 54, C44 53 GPa (measured 166, 64, 80); optical "
        "mode at the zone's center 14.5 THz (measured 15.5)",
        "not_for": "phases other than diamond, melts, anything whose result matters",
        "train": ["mlearn/Si_training.extxyz.gz"],
        "test": ["mlearn/Si_test.extxyz.gz"],
        "frames": 0,
    },
}


def spread(frames: list[Frame], count: int) -> list[Frame]:
    """About `count` of the frames, evenly spaced."""
    return frames[:: max(1, len(frames) // count)]


def solve_last_layer(potential: Potential, frames: list[Frame], energy_weight: float = 3.0) -> None:
    """Sets the head's last weights, and then the references, to the least squares of labels."""
    network, head = potential.network, potential.network.energy_head
    scale, size = float(potential.scale), head.out.in_features
    normal, right = torch.zeros(size, size).double(), torch.zeros(size).double()
    for begin in range(0, len(frames), 10):
        labelled = Labelled.of(frames[begin : begin + 10])
        batch = labelled.batch
        x = batch.positions.requires_grad_()
        graph = network.graph(batch, None, network.dtype)
        nodes, _, _ = network.features(graph, batch.numbers, batch.system, batch.counts)
        features = head.ffn(nodes if head.skips_norm else head.norm(nodes))
        total = features.new_zeros(len(batch), size).index_add(0, batch.system, features)
        forces = torch.stack(
            [-torch.autograd.grad(total[:, k].sum(), x, retain_graph=True)[0].flatten()
             for k in range(size)], 1,
        )  # fmt: skip
        offset = potential.references[batch.numbers]
        offset = offset.new_zeros(len(batch)).index_add(0, batch.system, offset)
        wanted = (labelled.energy - offset) / scale / batch.counts * energy_weight
        given = total.detach().double() / batch.counts[:, None] * energy_weight
        a = torch.cat([given, forces.double()])
        b = torch.cat([wanted, labelled.forces.flatten() / scale])
        normal += a.T @ a
        right += a.T @ b
    ridge = 1e-6 * normal.diagonal().mean() * torch.eye(size).double()
    head.out.weight.data = torch.linalg.solve(normal + ridge, right)[None].to(network.dtype)
    seen = predict([frame.atoms for frame in frames], potential, forces=False, stress=False)
    own = potential.references
    left = [
        Frame(f.atoms, f.energy - a.get_potential_energy(), f.forces, f.stress)
        for f, a in zip(frames, seen, strict=True)
    ]
    own += fit_references(left, len(own)) * potential.known


def errors(potential: Potential, name: str, frames: list[Frame]) -> dict[str, float | str | int]:
    """Mean absolute errors on frames."""
    seen = predict([f.atoms for f in frames], potential, batch_atoms=300)
    counts = np.array([len(f.atoms) for f in frames])
    both = list(zip(seen, frames, strict=True))
    energy = np.array([a.get_potential_energy() - f.energy for a, f in both])
    forces = np.concatenate([a.get_forces() - f.forces for a, f in both])
    plain = np.concatenate([f.forces for f in frames])
    row = {
        "test": name,
        "frames": len(frames),
        "energy, meV/atom": round(1e3 * float(np.abs(energy / counts).mean()), 1),
        "forces, meV/A": round(1e3 * float(np.abs(forces).mean())),
        "forces of zero": round(1e3 * float(np.abs(plain).mean())),
    }  # fmt: skip
    stress = [
        np.abs(a.get_stress(voigt=False) - f.stress).mean()
        for a, f in zip(seen, frames, strict=True)
        if "stress" in a.calc.results and np.isfinite(f.stress).all()
    ]
    return row | ({"stress, meV/A^3": round(1e3 * float(np.mean(stress)), 2)} if stress else {})


def main(name: str, checkpoint: str, data: str) -> None:
    card = dict(CARDS[name])
    opened = trained(checkpoint)
    potential = opened.task.model.eval()
    tests = {path: spread(read_frames([Path(data, path)])[0], 40) for path in card.pop("test")}
    train, count = card.pop("train"), card.pop("frames")
    if count:
        parts = [read_frames([Path(data, path)])[0] for path in train]
        solve_last_layer(
            potential, [f for part in parts for f in spread(part, count // len(parts))]
        )
    rows = [errors(potential, path, part) for path, part in tests.items()]
    print(*rows, sep="\n")
    steps = int(opened.content["global_step"])
    potential.card = card | {"steps": steps, "errors": rows}
    WEIGHTS.mkdir(exist_ok=True)
    potential.save(WEIGHTS / f"{name}.safetensors")
    facts = {
        "data": card["data"],
        "labels": card["labels"],
        "licence of the data": card["licence"],
        "elements": ", ".join(potential.symbols),
        "training": f"{steps} steps of `attn-molecular fit --config {card['recipe']}`"
        + (f", the last layer by least squares on {count} frames" if count else ""),
        **({"crystal": card["crystal"]} if "crystal" in card else {}),
        "must not be used for": card["not_for"],
    }
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [f"# {name}", "", card["what"], "", "| | |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in facts.items()]
    lines += ["", "Mean absolute errors on test frames:", ""]
    lines += ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(str(row.get(key, "")) for key in columns) + " |" for row in rows]
    lines += ["", "A small network after a short training: it is there to try the package with."]
    (WEIGHTS / f"{name}.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:4])
