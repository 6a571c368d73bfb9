"""Errors of potentials trained here, and of others on the same frames.

    python -m benchmarks.accuracy DATA [OUT]              # everything; what OUT has is kept
    python -m benchmarks.accuracy DATA OUT ge 3bpa        # these
    python -m benchmarks.accuracy DATA --peer chgnet      # or diep, where it is installed

Each run is `attn-molecular fit` with a recipe and a schedule of its own; cut, it is continued.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase.build import molecule
from ase.optimize import BFGS

from attn_molecular import AttnCalculator, Potential, load_potential
from attn_molecular.data.labelled import random_rotations
from attn_molecular.data.reading import Frame, read_frames
from attn_molecular.testing import drift, jacobian_asymmetry, nve

from .ship import errors, spread

MOST = 100  # test frames, evenly spaced


@dataclass(frozen=True)
class Run:
    """A recipe, its folder of data, how long it is trained, and what is measured after.

    Args:
        recipe: its name.
        folder: in the folder of all data.
        epochs: of its training.
        tests: files to measure errors on.
        changes: further flags.
        seed: of weights and order.
        dynamics: whether an ethanol molecule's dynamics are measured too.
    """

    recipe: str
    folder: str
    epochs: int
    tests: tuple[str, ...]
    changes: tuple[str, ...] = ()
    seed: int = 0
    dynamics: bool = False


def ethanol(direct: bool = False, seed: int = 0, dim: int = 64, rotate: bool = False) -> Run:
    """A check of the paper's claims in minutes: epochs of 95 steps of ten molecules."""
    settings: dict[str, object] = {"neighbors": 12}
    settings |= {} if direct else {"smooth_order": True}
    settings |= {} if dim == 64 else {"dim": dim, "heads": dim // 16}
    changes = [f"--model.settings={json.dumps(settings)}"]
    changes += ["--model.rotate=true"] if rotate else []
    return Run(
        "ethanol-escaip-direct" if direct else "ethanol-escaip", "ethanol", 6 if direct else 4,
        ("test_MD.extxyz.gz",), tuple(changes), seed, dynamics=True,
    )  # fmt: skip


RUNS = {
    "ethanol-0": ethanol(),
    "ethanol-direct-0": ethanol(direct=True),
    "ethanol-dim32": ethanol(dim=32),
    "ethanol-dim128": ethanol(dim=128),
    "ethanol-1": ethanol(seed=1),
    "ethanol-2": ethanol(seed=2),
    "ethanol-direct-1": ethanol(direct=True, seed=1),
    "ethanol-direct-2": ethanol(direct=True, seed=2),
    "ethanol-direct-rotated": ethanol(direct=True, rotate=True),
    "3bpa": Run("3bpa-escaip", "threebpa", 6, ("train_mixedT.extxyz.gz",)),
    "acetylacetone": Run(
        "acetylacetone-escaip", "acetylacetone", 12,
        ("test_MD_300K.extxyz.gz", "test_MD_600K.extxyz.gz"),
    ),
    "ge": Run("ge-escaip", "mlearn", 8, ("Ge_test.extxyz.gz",)),
    "mo": Run("mo-escaip", "mlearn", 16, ("Mo_test.extxyz.gz",)),
}  # fmt: skip


def trained_by(run: Run, data: Path, out: Path) -> tuple[Path, float]:
    """The checkpoint of a run and the minutes this took; a run that was cut goes on."""
    last = out / run.recipe / "version_0" / "last.ckpt"
    start = time.time()
    if last.exists():
        flags = ["--ckpt_path", str(last)]
    else:
        flags = ["--config", run.recipe, "--data.root", str(data / run.folder), *run.changes]
        flags += [f"--seed_everything={run.seed}", f"--trainer.max_epochs={run.epochs}"]
        flags += [f"--trainer.default_root_dir={out}", "--trainer.check_val_every_n_epoch=1"]
    with (out / "fit.log").open("a") as log:
        program = str(Path(sys.executable).with_name("attn-molecular"))
        subprocess.run([program, "fit", *flags], check=True, stdout=log, stderr=log)
    return last.with_name("best.ckpt"), (time.time() - start) / 60


def dynamics(potential: Potential, frames: list[Frame]) -> dict[str, float]:
    """What an ethanol molecule's forces conserve and break."""
    parts, turns = spread(frames, 10), random_rotations(10).numpy()
    calculator = AttnCalculator(potential)
    apart, cosines = [], []
    for frame, turn in zip(parts, turns, strict=False):
        plain, moved = frame.atoms.copy(), frame.atoms.copy()
        plain.calc = moved.calc = calculator
        forces = plain.get_forces()
        moved.positions = moved.positions @ turn.T
        seen, turned = moved.get_forces(), forces @ turn.T
        apart.append(np.abs(seen - turned).mean())
        cosines.append((seen * turned).sum() / np.linalg.norm(seen) / np.linalg.norm(turned))
    atoms = molecule("CH3CH2OH")
    atoms.calc = AttnCalculator("hco")
    BFGS(atoms, logfile=None).run(fmax=0.05, steps=100)
    energies = nve(potential, atoms, 0.5, 400)
    return {
        "rotation error, meV/A": round(1e3 * float(np.mean(apart)), 3),
        "cosine of turned forces": round(float(np.mean(cosines)), 6),
        "asymmetry": float(f"{jacobian_asymmetry(atoms, potential):.2g}"),
        "drift, meV/atom/ps": round(drift(energies, 0.5), 3),
        "largest change, meV/atom": round(float(np.abs(energies).max()), 2),
    }


def measured(name: str, data: Path, out: Path) -> dict:
    """The results of a run, which a file keeps."""
    run, folder = RUNS[name], out / name
    kept = folder / "result.json"
    if kept.exists():
        return json.loads(kept.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint, minutes = trained_by(run, data, folder)
    potential = load_potential(checkpoint)
    result: dict = {"parameters": sum(p.numel() for p in potential.parameters())}
    result |= {"minutes": round(minutes, 1), "errors": []}
    for test in run.tests:
        frames = read_frames([data / run.folder / test])[0]
        result["errors"].append(errors(potential, test, spread(frames, MOST)))
        if run.dynamics:
            result |= dynamics(potential, frames)
    kept.write_text(json.dumps(result))
    return result


def of_peer(peer: str, data: Path) -> None:
    """Force errors of another potential on the crystals' test frames."""
    from .peers import PEERS

    call = PEERS[peer]()
    for element in ("Si", "Ge", "Mo"):
        frames = read_frames([data / "mlearn" / f"{element}_test.extxyz.gz"])[0]
        apart = np.concatenate([call(f.atoms)[1] - f.forces for f in frames])
        print(f"{peer} {element}: forces within {1e3 * np.abs(apart).mean():.0f} meV/A", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path, nargs="?", default=Path("runs/accuracy"))
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(RUNS))
    parser.add_argument("--peer", choices=["chgnet", "diep"])
    options = parser.parse_args()
    if options.peer:
        of_peer(options.peer, options.data)
        return
    for name in options.names or RUNS:
        print(name, json.dumps(measured(name, options.data.resolve(), options.out)), flush=True)


if __name__ == "__main__":
    main()
