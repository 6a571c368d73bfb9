import json
import os
import signal
import subprocess
import sys
import time

import ase.io
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.constraints import FixAtoms

from attn_molecular import AttnCalculator
from attn_molecular.commands import COMMANDS
from attn_molecular.testing import untrained
from core_attn.cli import main


def run(*words):
    return main("attn_molecular", [str(word) for word in words], commands=COMMANDS)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Structures and untrained potentials."""
    folder = tmp_path_factory.mktemp("files")
    untrained(scale=0.3).save(folder / "hco.safetensors")
    untrained((14,), neighbors=12, cutoff=4.5).save(folder / "si.safetensors")
    untrained(depth=1, dim=16, frequencies=(4, 2, 2), neighbors=8).save(
        folder / "small.safetensors"
    )
    water, crystal = molecule("H2O"), bulk("Si")
    crystal.rattle(0.02, seed=0)
    ase.io.write(folder / "water.xyz", water, format="extxyz")
    ase.io.write(folder / "si.xyz", crystal, format="extxyz")
    bent = water.copy()
    bent.set_angle(1, 0, 2, 130)
    ase.io.write(folder / "bent.xyz", bent, format="extxyz")
    endless = water.copy()
    endless.positions[2, 0] = np.inf
    ase.io.write(folder / "endless.traj", endless)
    return folder


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


@pytest.mark.parametrize("ensemble", ["nve", "langevin", "npt"])
def test_a_resumed_run_is_the_uninterrupted_one(ensemble, files, tmp_path):
    name = "si" if ensemble == "npt" else "water"
    model = "si" if ensemble == "npt" else "hco"
    start = ase.io.read(files / f"{name}.xyz")
    start.info["origin"] = {"made by": "hand", "numbers": [1, 2]}
    start.set_tags(range(len(start)))
    if ensemble != "npt":  # the barostat knows no constraints
        start.set_constraint(FixAtoms([1]))
    path = tmp_path / ("start.cif" if ensemble == "npt" else "start.traj")
    ase.io.write(path, start)
    words = [
        "md", "--input", path, "--model", files / f"{model}.safetensors",
        "--ensemble", ensemble, "--every", 2, "--save_every", 5,
    ]  # fmt: skip
    assert run(*words, "--steps", 14, "--out", tmp_path / "whole") == 0
    assert run(*words, "--steps", 7, "--out", tmp_path / "parts") == 0
    # as if killed after frames that no state knows of
    with (tmp_path / "parts" / "trajectory.extxyz").open("a") as file:
        file.write("half a frame")
    assert run(*words, "--steps", 14, "--out", tmp_path / "parts", "--resume", "true") == 0
    whole, parts = (
        ase.io.read(tmp_path / part / "trajectory.extxyz", ":") for part in ("whole", "parts")
    )
    assert [a.info["step"] for a in whole] == [a.info["step"] for a in parts] == [*range(0, 15, 2)]
    contents = [(tmp_path / part / "trajectory.extxyz").read_text() for part in ("whole", "parts")]
    assert contents[0] == contents[1]
    assert (ensemble == "npt") or (parts[-1].positions[1] == start.positions[1]).all()
    assert (tmp_path / "parts" / "md.png").stat().st_size > 10_000
    assert summary(tmp_path / "parts")["steps"] == 14


def test_a_killed_run_goes_on(files, tmp_path):
    code = "from attn_molecular.cli import main; main()"
    words = [
        "md", "--input", files / "water.xyz", "--model", files / "hco.safetensors", "--steps",
        "100000", "--every", "1", "--save_every", "5", "--out", tmp_path / "run",
    ]  # fmt: skip
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, words)])
    state = tmp_path / "run" / "state.npz"
    for _ in range(3000):
        time.sleep(0.1)
        if state.exists() and (tmp_path / "run" / "log.csv").read_text().count("\n") > 8:
            break
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with np.load(state) as saved:
        reached = json.loads(str(saved["json"]))["step"]
    words[words.index("100000")] = str(reached + 3)
    assert run(*words, "--resume", "true") == 0
    frames = ase.io.read(tmp_path / "run" / "trajectory.extxyz", ":")
    assert [a.info["step"] for a in frames] == list(range(reached + 4))


def test_runs_are_not_overwritten_or_mixed(files, tmp_path, capsys):
    words = ["md", "--input", files / "water.xyz", "--model", files / "hco.safetensors",
             "--steps", 2, "--out", tmp_path]  # fmt: skip
    assert run(*words) == 0
    assert run(*words) == 2
    assert "continue it with --resume" in capsys.readouterr().err
    assert run(*words, "--resume", "true", "--timestep", 1.0) == 2
    assert "timestep = 0.5, not 1.0" in capsys.readouterr().err


def test_atoms_that_fly_apart_stop_the_run(files, tmp_path, capsys):
    words = ["md", "--input", files / "water.xyz", "--model", files / "hco.safetensors"]
    words += ["--temperature", 3e7, "--steps", 50, "--out", tmp_path]
    assert run(*words) == 2
    error = capsys.readouterr().err
    assert "atoms fly apart" in error and "last good frame is step 0" in error


def test_relax_finds_a_minimum_or_says_not(files, tmp_path, capsys):
    words = ["relax", "--input", files / "bent.xyz", "--model", files / "hco.safetensors"]
    assert run(*words, "--steps", 1, "--fmax", 1e-6, "--out", tmp_path / "short") == 3
    assert "not converged" in capsys.readouterr().out
    words = ["relax", "--input", files / "si.xyz", "--model", files / "si.safetensors"]
    code = run(*words, "--fmax", 0.02, "--steps", 40, "--out", tmp_path / "long")
    told = summary(tmp_path / "long")
    assert code == (0 if told["converged"] else 3)
    assert told["energy_gained_eV"] >= 0 or code == 3  # untrained: no minimum need be near
    assert ase.io.read(tmp_path / "long" / "relaxed.extxyz").get_forces().shape == (2, 3)


def test_neb_gives_a_path(files, tmp_path):
    words = ["neb", "--input", files / "water.xyz", "--end", files / "bent.xyz", "--images", 2]
    words += ["--model", files / "hco.safetensors", "--steps", 2, "--out", tmp_path]
    assert run(*words) in (0, 3)
    assert len(ase.io.read(tmp_path / "path.extxyz", ":")) == 4
    assert summary(tmp_path)["barrier_eV"] >= 0


def test_phonons_of_a_crystal_and_a_molecule(files, tmp_path, capsys):
    words = ["phonons", "--input", files / "si.xyz", "--model", files / "si.safetensors"]
    words += ["--steps", 3, "--supercell", "[2,2,2]", "--out", tmp_path / "si"]
    assert run(*words) in (0, 3)
    told = summary(tmp_path / "si")
    assert told["highest_THz"] > 0
    said = "a larger --supercell than [2, 2, 2]" in capsys.readouterr().out
    assert said == (told["lowest_THz"] < -0.1)
    words = ["phonons", "--input", files / "water.xyz", "--model", files / "hco.safetensors"]
    assert run(*words, "--steps", 3, "--out", tmp_path / "water") in (0, 3)
    assert (tmp_path / "water" / "frequencies.csv").read_text().count("\n") == 10


def test_equation_of_state_and_elastic_constants(files, tmp_path, capsys):
    words = ["--input", files / "si.xyz", "--model", files / "si.safetensors"]
    words += ["--steps", 2]
    code = run("eos", *words, "--points", 5, "--out", tmp_path / "eos")
    if code == 2:  # untrained: no minimum need be near
        assert "no minimum of the energy within" in capsys.readouterr().err
    else:
        assert (tmp_path / "eos" / "eos.png").exists()
    assert run("elastic", *words, "--points", 3, "--out", tmp_path / "elastic") in (0, 3)
    told = summary(tmp_path / "elastic")
    assert np.shape(told["constants_GPa"]) == (6, 6)


def test_predict_writes_every_structure(files, tmp_path):
    ase.io.write(tmp_path / "many.extxyz", [molecule("H2O"), molecule("CH4"), molecule("CO2")])
    words = ["predict", "--input", tmp_path / "many.extxyz", "--model", files / "hco.safetensors"]
    assert run(*words, "--out", tmp_path / "out") == 0
    done = ase.io.read(tmp_path / "out" / "predicted.extxyz", ":")
    assert [len(a) for a in done] == [3, 5, 3] and done[1].get_forces().shape == (5, 3)


RELOAD = """
import sys
import ase.build, numpy as np, torch
from ase.neighborlist import neighbor_list

program, out, *names = sys.argv[1:]
about = {"reach": ""}
energy_of = torch.export.load(program, extra_files=about).module()
seen = []
for atoms in map(ase.build.molecule, names):
    i, j, shift = neighbor_list("ijS", atoms, float(about["reach"]))
    once = (i < j) | (i == j) & ((shift @ [10**6, 10**3, 1]) > 0)
    i, j, shift = i[once], j[once], shift[once]
    n = len(atoms)
    place = [[a, *n + np.flatnonzero(i == a), *n + len(i) + np.flatnonzero(j == a)]
             for a in range(n)]
    table = np.full((n, max(map(len, place))), -1)
    for row, known in zip(table, place):
        row[: len(known)] = known
    x = torch.tensor(atoms.positions, requires_grad=True)
    arrays = (atoms.cell.array, i, j, shift.astype(float), table)
    energy = energy_of(torch.tensor(atoms.numbers), x, *map(torch.from_numpy, arrays))
    seen.append([energy.detach(), -torch.autograd.grad(energy, x)[0]])

assert not any("attn" in module for module in sys.modules)
torch.save(seen, out)
"""


def test_the_exported_energy_runs_without_the_package(files, tmp_path, capsys):
    out, model, seen = tmp_path / "energy.pt2", files / "small.safetensors", tmp_path / "seen.pt"
    assert run("export", "--model", model, "--out", out) == 0
    assert "largest difference" in capsys.readouterr().out
    names = ("CH3CH2OH", "C3H7")
    subprocess.run([sys.executable, "-c", RELOAD, str(out), str(seen), *names], check=True)
    for name, (energy, forces) in zip(names, torch.load(seen), strict=True):
        atoms = molecule(name)
        atoms.calc = AttnCalculator(model)
        assert float(energy) == pytest.approx(atoms.get_potential_energy(), abs=1e-4)
        assert np.abs(forces.numpy() - atoms.get_forces()).max() < 1e-4


BAD = {
    "missing": ("relax --input nowhere.xyz", "--input nowhere.xyz: no such file"),
    "endless": ("md --input {endless} --model {hco}", "atom 2 has a position that is not finite"),
    "model": ("relax --input {water} --model none", "no potential 'none'"),
    "element": ("relax --input {si} --model {hco}", "element Si (Z=14) was not in this model's"),
    "molecule": ("eos --input {water} --model {hco}", "has no volume"),
    "npt": ("md --input {water} --model {hco} --ensemble npt", "npt needs a structure"),
    "steps": ("md --input {water} --model {hco} --steps 0", "--steps must be at least 1"),
    "other atoms": ("neb --input {water} --end {si} --model {hco}", "in the same order"),
    "folder": ("export --model {hco} --out nowhere/e.pt2", "there is no folder nowhere"),
    "device": ("relax --input {water} --model {hco} --device abacus", "device 'abacus' cannot"),
    "compile": (
        "fit --config emt-escaip --data.frames 8 --compile",
        "trained by second derivatives",
    ),
    "resume": ("md --input {water} --model {hco} --resume true", "holds no run"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_ends_in_one_line_and_exit_code_2(case, files, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words, message = BAD[case]
    paths = {"water": files / "water.xyz", "si": files / "si.xyz", "hco": files / "hco.safetensors"}
    paths["endless"] = files / "endless.traj"
    assert run(*words.format(**paths).split()) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and len(error.splitlines()) == 1
