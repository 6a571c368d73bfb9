"""Molecular dynamics that can be killed and resumed."""

import os
import warnings
from pathlib import Path
from typing import Any, Literal

import ase.io
import numpy as np
from ase import Atoms, units
from ase.constraints import dict2constraint
from ase.io.jsonio import decode, encode
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.md import MolecularDynamics
from ase.md.velocitydistribution import Stationary, ZeroRotation, thermalize_momenta
from ase.md.verlet import VelocityVerlet

from ..calculator import AttnCalculator, has_volume
from .folder import frozen, new_figure, read_structure, results_folder, write_summary

COLUMNS = (
    "step",
    "time_ps",
    "potential_eV",
    "kinetic_eV",
    "total_eV",
    "temperature_K",
    "volume_A3",
)
FARTHEST = 0.5  # A in one step
OF_BAROSTAT = ("p_eps", "gamma_mod", "force_eps", "barostat_mass")


def md(
    input: str,
    model: str | None = None,
    ensemble: Literal["nve", "langevin", "npt"] = "nve",
    steps: int = 1000,
    timestep: float = 0.5,
    temperature: float = 300.0,
    friction: float = 0.01,
    pressure: float = 0.0,
    every: int = 10,
    save_every: int = 100,
    seed: int = 0,
    out: str | None = None,
    resume: bool = False,
    device: str = "cpu",
    dtype: Literal["float32", "float64"] = "float32",
) -> int:
    """Run molecular dynamics; killed, it goes on with --resume as if nothing had happened.

    Args:
        input: file with the structure; the last one in it. Without velocities it gets those of
            `temperature`.
        model: potential; a shipped name or a file.
        ensemble: nve (Verlet), langevin (constant volume), npt (Langevin, volume free to change).
        steps: in total, those before a resumption included.
        timestep: in fs.
        temperature: in K.
        friction: of langevin and npt, in 1/fs.
        pressure: of npt, in GPa.
        every: steps between frames.
        save_every: steps between states to resume from.
        seed: of velocities and thermostat.
        out: folder for trajectory.extxyz, log.csv, md.png, summary.json.
        resume: continue what is in `out`.
        device: of the network.
        dtype: of the network.

    Raises:
        ValueError: numbers out of range, a folder that is in use, or atoms that fly apart: the
            message names the last good frame.
    """
    for name, value in (("steps", steps), ("every", every), ("save_every", save_every)):
        if value < 1:
            raise ValueError(f"--{name} must be at least 1, got {value}")
    if timestep <= 0 or temperature < 0 or friction < 0:
        raise ValueError("--timestep must be positive, --temperature and --friction not negative")
    folder = results_folder(out, input, "md")
    settings = {
        "input": str(input), "model": model, "ensemble": ensemble, "timestep": timestep,
        "temperature": temperature, "friction": friction, "pressure": pressure, "every": every,
        "save_every": save_every, "seed": seed, "dtype": dtype,
    }  # fmt: skip
    run = Run(folder, settings)
    calculator = AttnCalculator(model, device, dtype)
    if resume:
        run.load(calculator)
    elif run.state.exists():
        raise ValueError(f"{folder} holds a run: continue it with --resume, or give another --out")
    else:
        run.begin(read_structure(input), calculator)
    run.to(steps)
    summary = run.summarize()
    write_summary(folder, summary)
    return 0


class Run:
    """A trajectory in a folder, and the state that it continues from.

    Args:
        folder: where it lies.
        settings: what must be the same in a resumed run.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]):
        self.folder, self.settings = folder, settings
        self.state = folder / "state.npz"
        self.trajectory, self.log = folder / "trajectory.extxyz", folder / "log.csv"
        self.atoms: Atoms
        self.dynamics: MolecularDynamics
        self.random = np.random.default_rng(settings["seed"])
        self.step = 0
        self.last_frame = 0

    def begin(self, atoms: Atoms, calculator: AttnCalculator) -> None:
        """Starts at step 0."""
        self.atoms = atoms
        atoms.info.update(decode(encode(atoms.info), always_array=False))  # as a state keeps it
        atoms.calc = calculator
        atoms.get_forces()  # what it cannot take is named before velocities are drawn
        if not atoms.get_momenta().any() and self.settings["temperature"] > 0:
            thermalize_momenta(atoms, self.settings["temperature"], rng=self.random)
            Stationary(atoms)
            if not atoms.pbc.any() and len(atoms) > 2:
                ZeroRotation(atoms)
        self.dynamics = self._integrator({})
        self.trajectory.write_bytes(b"")
        self.log.write_text(",".join(COLUMNS) + "\n")
        self._record()
        self._save()

    def load(self, calculator: AttnCalculator) -> None:
        """Goes back to the last state saved; what was written after it is cut off.

        Raises:
            ValueError: there is none, or it is of a run with other settings.
        """
        if not self.state.exists():
            raise ValueError(f"--resume: {self.folder} holds no run")
        with np.load(self.state, allow_pickle=False) as saved:
            kept: Any = decode(str(saved["json"]), always_array=False)
            wrong = [k for k, v in self.settings.items() if kept["settings"].get(k) != v]
            if wrong:
                name = wrong[0]
                raise ValueError(
                    f"--resume: the run in {self.folder} has {name} = "
                    f"{kept['settings'].get(name)}, not {self.settings[name]}"
                )
            arrays = {name[3:]: x for name, x in saved.items() if name.startswith("of_")}
            held = [dict2constraint(constraint) for constraint in kept["constraints"]]
            self.atoms = Atoms(
                arrays["numbers"], cell=saved["cell"], pbc=saved["pbc"], info=kept["info"],
                constraint=held,
            )  # fmt: skip
            self.atoms.arrays.update(arrays)
        self.atoms.calc = calculator
        self.random.bit_generator.state = kept["random"]
        self.step, self.last_frame = kept["step"], kept["last_frame"]
        self.dynamics = self._integrator(kept["integrator"])
        for path, size in ((self.trajectory, kept["trajectory"]), (self.log, kept["log"])):
            os.truncate(path, size)

    def to(self, steps: int) -> None:
        """Runs until step `steps`.

        Raises:
            ValueError: an atom moves too far in a step, or something is not finite.
        """
        while self.step < steps:
            before = self.atoms.positions.copy()
            try:
                self.dynamics.step()  # pyright: ignore[reportAttributeAccessIssue]
            except ValueError as error:  # atoms that meet, or are nowhere any more
                raise ValueError(f"{error}; {self._last_good()}") from error
            self.step += 1
            self._check(before)
            if self.step % self.settings["every"] == 0:
                self._record()
            if self.step % self.settings["save_every"] == 0 or self.step == steps:
                self._save()

    def summarize(self) -> dict[str, Any]:
        """Draws the picture and returns what there is to know."""
        table = np.genfromtxt(self.log, delimiter=",", names=True, ndmin=1)
        atoms, time = len(self.atoms), table["time_ps"]
        total = 1e3 * (table["total_eV"] - table["total_eV"][0]) / atoms
        summary: dict[str, Any] = {
            "steps": self.step,
            "frames": len(table),
            "time_ps": float(time[-1]),
            "mean_temperature_K": float(table["temperature_K"].mean()),
        }
        conserves = self.settings["ensemble"] == "nve"
        if len(table) > 2:
            slope = float(np.polyfit(time, total, 1)[0])
            if conserves:
                summary["drift_meV_per_atom_per_ps"] = slope
                summary["largest_deviation_meV_per_atom"] = float(np.abs(total).max())
        figure, axes = new_figure(2)
        axes[0].plot(time, total, lw=1)
        axes[0].set(xlabel="time, ps", ylabel="total energy - start, meV/atom")
        if (drift := summary.get("drift_meV_per_atom_per_ps")) is not None:
            axes[0].set_title(f"drift {drift:.3g} meV/atom/ps", loc="left", fontsize=10)
        axes[1].plot(time, table["temperature_K"], lw=1)
        axes[1].set(xlabel="time, ps", ylabel="temperature, K")
        figure.savefig(self.folder / "md.png", dpi=144)
        return summary | {"settings": self.settings}

    def _integrator(self, kept: dict[str, float]) -> MolecularDynamics:
        s = self.settings
        dt = s["timestep"] * units.fs
        if s["ensemble"] == "nve":
            return VelocityVerlet(self.atoms, dt)
        pressure = {}
        if s["ensemble"] == "npt":
            if not has_volume(self.atoms) or not self.atoms.pbc.all():
                raise ValueError("npt needs a structure that repeats along all three axes")
            pressure = {
                "externalstress": -s["pressure"] * units.GPa, "hydrostatic": True,
                "P_tau": 1000 * dt, "P_mass": kept.get("barostat_mass"),
            }  # fmt: skip
        friction = s["friction"] / units.fs
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Using heuristic P_mass")
            dynamics = LangevinBAOAB(
                self.atoms, dt, temperature_K=s["temperature"], rng=self.random,
                T_tau=1 / friction if friction else 1e12, **pressure,
            )  # fmt: skip
        for name in kept:
            setattr(dynamics, name, kept[name])
        return dynamics

    def _check(self, before: np.ndarray) -> None:
        moved = np.linalg.norm(self.atoms.positions - before, axis=1)
        if self.settings["ensemble"] == "npt":  # the cell carries atoms along
            moved = moved - np.median(moved)
        if not np.isfinite(moved).all() or moved.max() > FARTHEST:
            worst = int(np.argmax(np.where(np.isfinite(moved), moved, np.inf)))
            raise ValueError(
                f"atoms fly apart: at step {self.step} atom {worst} moves {moved[worst]:.3g} A; "
                f"{self._last_good()}"
            )

    def _last_good(self) -> str:
        return f"the last good frame is step {self.last_frame} in {self.trajectory}"

    def _record(self) -> None:
        atoms = self.atoms
        self.last_frame = self.step
        frame = frozen(atoms)
        frame.info["step"] = self.step
        ase.io.write(str(self.trajectory), frame, format="extxyz", append=True)
        potential, kinetic = atoms.get_potential_energy(), atoms.get_kinetic_energy()
        row = (
            self.step, self.step * self.settings["timestep"] * 1e-3, potential, kinetic,
            potential + kinetic, atoms.get_temperature(), abs(np.linalg.det(atoms.cell.array)),
        )  # fmt: skip
        with self.log.open("a") as file:
            file.write(",".join(f"{value:.10g}" for value in row) + "\n")

    def _save(self) -> None:
        """Writes the state whole or not at all, and goes on from it as a resumed run does."""
        atoms = self.atoms
        state = {
            name: float(getattr(self.dynamics, name))
            for name in OF_BAROSTAT
            if hasattr(self.dynamics, name)
        }
        kept = {
            "settings": self.settings, "random": self.random.bit_generator.state,
            "step": self.step, "last_frame": self.last_frame, "integrator": state,
            "trajectory": self.trajectory.stat().st_size, "log": self.log.stat().st_size,
            "info": atoms.info, "constraints": [held.todict() for held in atoms.constraints],
        }  # fmt: skip
        part = self.state.with_name("state.part.npz")
        arrays: dict[str, Any] = {f"of_{name}": x for name, x in atoms.arrays.items()}
        np.savez(part, json=encode(kept), cell=atoms.cell.array, pbc=atoms.pbc, **arrays)
        part.replace(self.state)
        calculator = atoms.calc
        assert isinstance(calculator, AttnCalculator)
        calculator.reset()
        calculator.forget_lists()
        self.dynamics = self._integrator(state)
