"""Pictures and tables of a report."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from core_attn import record
from core_attn.training import Exhibit

from ..data.reading import Frame
from ..data.structures import StructureData
from ..graph import Batch
from ..potential import Potential
from ..prediction import predict

MOST = 100  # frames in a picture


def exhibits(potential: Potential, data: StructureData) -> Iterable[Exhibit]:
    """Errors, predicted against true, and attention by distance."""
    frames = data.test_frames
    chosen = [
        frames[i] for i in np.linspace(0, len(frames) - 1, min(MOST, len(frames))).astype(int)
    ]
    seen = predict([frame.atoms for frame in chosen], potential, batch_atoms=500)
    yield Exhibit(
        "Errors on test frames",
        f"Mean absolute errors over {len(chosen)} frames, and what predicting the mean would give.",
        errors(chosen, seen),
    )
    yield Exhibit(
        "Predicted and true",
        "On the diagonal, prediction and label agree.",
        agreement(chosen, seen),
    )
    yield Exhibit(
        "Attention and distance",
        "Weight that an atom's own edge gives to its neighbors, averaged over atoms: how far each "
        "head of each block looks.",
        attention(potential, chosen[:20]),
    )


def errors(frames: Sequence[Frame], seen) -> list[dict[str, object]]:
    """A table of mean absolute errors."""
    counts = np.array([len(frame.atoms) for frame in frames])
    rows: list[dict[str, object]] = []
    energy = np.array([f.energy for f in frames])
    if np.isfinite(energy).any():
        error = np.array([a.get_potential_energy() for a in seen]) - energy
        per_atom = energy / counts
        rows.append(_row("energy, meV", error, energy - np.nanmean(energy)))
        rows.append(_row("energy, meV/atom", error / counts, per_atom - np.nanmean(per_atom)))
    forces = np.concatenate([f.forces for f in frames])
    if np.isfinite(forces).any():
        error = np.concatenate([a.get_forces() for a in seen]) - forces
        rows.append(_row("forces, meV/A", error, forces))
    stress = [
        (a.get_stress(voigt=False) - f.stress, f.stress)
        for a, f in zip(seen, frames, strict=True)
        if "stress" in a.calc.results and np.isfinite(f.stress).all()
    ]
    if stress:
        error, true = map(np.stack, zip(*stress, strict=True))
        rows.append(_row("stress, meV/A^3", error, true - true.mean(0)))
    return rows


def _row(name: str, error: np.ndarray, plain: np.ndarray) -> dict[str, object]:
    return {
        "quantity": name,
        "error": float(1e3 * np.nanmean(np.abs(error))),
        "of the mean": float(1e3 * np.nanmean(np.abs(plain))),
    }


def agreement(frames: Sequence[Frame], seen):
    """Predicted against true energies and forces."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots(1, 2)
    counts = np.array([len(frame.atoms) for frame in frames])
    pairs = [
        (
            np.array([f.energy for f in frames]) / counts,
            np.array([a.get_potential_energy() for a in seen]) / counts,
            "energy per atom, eV",
        ),
        (
            np.concatenate([f.forces for f in frames]).ravel(),
            np.concatenate([a.get_forces() for a in seen]).ravel(),
            "force component, eV/A",
        ),
    ]
    for ax, (true, predicted, name) in zip(axes, pairs, strict=True):
        known = np.isfinite(true)
        if known.any():
            ends = [
                min(true[known].min(), predicted.min()),
                max(true[known].max(), predicted.max()),
            ]
            ax.plot(ends, ends, color="0.7", lw=1)
        ax.plot(true[known], predicted[known], ".", ms=2.5, alpha=0.5)
        ax.set_xlabel(f"true {name}")
        ax.set_ylabel("predicted")
        ax.spines[["top", "right"]].set_visible(False)
    return figure


@torch.no_grad()
def attention(potential: Potential, frames: Sequence[Frame]):
    """Mean weight of the first edge's attention, by distance of the key."""
    from matplotlib.figure import Figure

    network = potential.network
    batch = Batch.from_atoms([frame.atoms for frame in frames])
    graph = network.graph(batch, None, network.dtype)
    distance = graph.padded(graph.distance)
    filled = graph.padded(torch.ones_like(graph.distance)).bool()
    with record(network, "pattern") as seen:
        network(batch, forces=network.config.forces == "direct")
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots(1, len(seen), squeeze=False)[0]
    edges = np.linspace(0, network.config.cutoff, 25)
    middle = (edges[1:] + edges[:-1]) / 2
    place = np.digitize(distance[filled].cpu().numpy(), edges) - 1
    for block, (ax, pattern) in enumerate(zip(axes, seen.values(), strict=True)):
        for head in range(pattern.shape[1]):
            weight = pattern[:, head, 0][filled].cpu().numpy()
            total = np.bincount(place, weight, minlength=len(middle))[: len(middle)]
            count = np.bincount(place, minlength=len(middle))[: len(middle)]
            mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
            ax.plot(middle, mean, ".-", lw=1, ms=3, label=f"head {head}")
        ax.set_title(f"block {block}", loc="left", fontsize=10)
        ax.set_xlabel("distance, A")
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("mean weight")
    axes[0].legend(frameon=False, fontsize=7)
    return figure
