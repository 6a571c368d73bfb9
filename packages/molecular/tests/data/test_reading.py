import gzip
import pickle
import zlib

import ase.io
import ase.io.jsonio
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from attn_molecular.data import Keys, XtbMolecules, read_frames
from attn_molecular.data.labelled import Labelled, fit_references, random_rotations
from attn_molecular.data.reading import KCAL, Frame


@pytest.fixture
def copper():
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=0)
    atoms.calc = EMT()
    atoms.get_stress()
    return atoms


@pytest.mark.parametrize("name", ["a.extxyz", "a.extxyz.gz", "a.traj", "a.db"])
def test_labels_come_back_from_every_format(name, copper, tmp_path):
    path = tmp_path / name
    if name.endswith(".gz"):
        ase.io.write(tmp_path / "plain.extxyz", copper)
        path.write_bytes(gzip.compress((tmp_path / "plain.extxyz").read_bytes()))
    else:
        ase.io.write(path, copper)
    (frame,), report = read_frames([path])
    assert str(report) == "1 frames: 1 energy, 1 forces, 1 stress"
    assert frame.energy == pytest.approx(copper.get_potential_energy())
    assert np.allclose(frame.forces, copper.get_forces(), atol=1e-6)
    assert np.allclose(frame.stress, copper.get_stress(voigt=False), atol=1e-6)


def write_lmdb(path, entries):
    lmdb = pytest.importorskip("lmdb")
    with lmdb.open(str(path), subdir=False) as env, env.begin(write=True) as view:
        for key, value in entries.items():
            view.put(key.encode(), value)


def test_aselmdb_rows_are_ase_json_without_constraints_applied(copper, tmp_path):
    row = {name: getattr(copper, name) for name in ("numbers", "positions", "pbc")} | {
        "cell": copper.cell.array, "forces": copper.get_forces(), "stress": copper.get_stress(),
        "energy": copper.get_potential_energy(), "user": None, "data": {"tag": "one"},
        "constraints": [{"name": "FixAtoms", "kwargs": {"indices": [0]}}],
    }  # fmt: skip
    entries = {"1": zlib.compress(ase.io.jsonio.encode(row).encode())}
    entries |= {"nextid": zlib.compress(b"3"), "deleted_ids": zlib.compress(b"[2]")}
    write_lmdb(tmp_path / "a.aselmdb", entries)
    (frame,), report = read_frames([tmp_path / "a.aselmdb"])
    assert str(report) == "1 frames: 1 energy, 1 forces, 1 stress"
    assert frame.atoms == Atoms(copper.numbers, copper.positions, cell=copper.cell, pbc=True)
    assert frame.energy == pytest.approx(copper.get_potential_energy())
    assert np.allclose(frame.forces, copper.get_forces())
    assert np.allclose(frame.stress, copper.get_stress(voigt=False))


def test_rows_come_in_the_order_of_their_numbers(tmp_path):
    rows = [{"numbers": [z], "positions": [[0.0, 0.0, 0.0]]} for z in range(1, 12)]
    encoded = [zlib.compress(ase.io.jsonio.encode(row).encode()) for row in rows]
    write_lmdb(tmp_path / "a.aselmdb", {str(i): x for i, x in enumerate(encoded, start=1)})
    frames, _ = read_frames([tmp_path / "a.aselmdb"])
    assert [int(f.atoms.numbers[0]) for f in frames] == list(range(1, 12))


def test_pickles_are_read_only_when_trusted(tmp_path):
    water = molecule("H2O")
    sample = {"pos": water.positions, "atomic_numbers": water.numbers, "y": -2.5,
              "force": np.ones((3, 3)), "cell": 9 * np.eye(3)[None]}  # fmt: skip
    write_lmdb(tmp_path / "a.lmdb", {"0": pickle.dumps(sample), "length": pickle.dumps(1)})
    with pytest.raises(ValueError, match="reading a pickle runs code in it: pass trust_pickle"):
        read_frames([tmp_path / "a.lmdb"])
    (frame,), _ = read_frames([tmp_path / "a.lmdb"], trust_pickle=True)
    assert frame.energy == -2.5 and (frame.forces == 1).all() and frame.atoms.pbc.all()


def test_xtb_labels_are_the_gradient_of_its_energy():
    pytest.importorskip("tblite", reason="needs the extra [xtb]")
    from tblite.ase import TBLite

    data = XtbMolecules(molecules=("H2O",), frames=4, seed=1)
    data.setup()
    frame, step = data.train_frames[0], 1e-3
    energies = []
    for sign in (1, -1):
        moved = frame.atoms.copy()
        moved.positions[0, 0] += sign * step
        moved.calc = TBLite(method="GFN2-xTB", verbosity=0)
        energies.append(moved.get_potential_energy())
    assert frame.forces[0, 0] == pytest.approx((energies[1] - energies[0]) / step / 2, abs=1e-3)


def test_constraints_do_not_zero_labels(copper, tmp_path):
    forces = copper.get_forces()
    held = copper.copy()
    held.set_constraint(FixAtoms([0, 1, 2]))
    held.calc = SinglePointCalculator(held, energy=0.0, forces=forces)
    ase.io.write(tmp_path / "a.extxyz", held)
    (frame,), _ = read_frames([tmp_path / "a.extxyz"])
    assert np.allclose(frame.forces, forces, atol=1e-6)
    assert not frame.atoms.constraints


@pytest.mark.parametrize("shape", ["voigt", "nine", "full", "virial"])
def test_stress_in_every_form(shape, copper, tmp_path):
    stress, volume = copper.get_stress(voigt=False), copper.get_volume()
    bare = copper.copy()
    keys = Keys(energy="E", stress="S")
    bare.info["E"] = 1.0
    if shape == "virial":
        bare.info["V"], keys = -stress * volume, Keys(energy="E", virial="V")
    else:
        forms = {"voigt": copper.get_stress(), "nine": stress.ravel(), "full": stress}
        bare.info["S"] = forms[shape]
    ase.io.write(tmp_path / "a.extxyz", bare)
    (frame,), _ = read_frames([tmp_path / "a.extxyz"], keys)
    assert np.allclose(frame.stress, stress, atol=1e-6) and frame.energy == 1.0


def test_npz_of_md17_is_in_kcal(tmp_path):
    water = molecule("H2O")
    np.savez(
        tmp_path / "a.npz", R=water.positions[None].repeat(2, 0), z=water.numbers,
        E=np.array([[1.0], [2.0]]), F=np.ones((2, 3, 3)),
    )  # fmt: skip
    frames, _ = read_frames([tmp_path / "a.npz"])
    assert frames[1].energy == pytest.approx(2 * KCAL)
    assert frames[0].forces[0, 0] == pytest.approx(KCAL)


def test_bad_frames_are_skipped_counted_and_listed(tmp_path):
    good = molecule("H2O")
    nan, overlap, wrong = good.copy(), good.copy(), good.copy()
    nan.positions[1, 0] = np.nan
    overlap.positions[1] = overlap.positions[2]
    wrong.info["energy"] = np.nan
    good.info["energy"] = -1.0
    ase.io.write(tmp_path / "a.traj", [good, nan, overlap, wrong])
    frames, report = read_frames([tmp_path / "a.traj"])
    assert len(frames) == 1 and len(report.skipped) == 3
    assert "a.traj[1]: atom 1" in report.skipped[0] and "3 skipped" in str(report)
    ase.io.write(tmp_path / "b.traj", [nan, overlap])
    with pytest.raises(ValueError, match="no usable frame"):
        read_frames([tmp_path / "b.traj"])


def test_a_label_that_is_nowhere_lists_what_is_there(tmp_path):
    atoms = molecule("H2O")
    atoms.info["dft"] = 1.0
    ase.io.write(tmp_path / "a.extxyz", atoms)
    with pytest.raises(ValueError, match="energy under the key 'U'; there is dft"):
        read_frames([tmp_path / "a.extxyz"], Keys(energy="U"))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_frames([tmp_path / "nowhere.xyz"])
    (tmp_path / "cut.extxyz").write_text("3\nProperties=species:S:1:pos:R:3\nH 0 0 0\n")
    with pytest.raises(ValueError, match="cut.extxyz cannot be read"):
        read_frames([tmp_path / "cut.extxyz"])


@pytest.mark.parametrize("name", ["a.npz", "a.aselmdb", "a.traj", "a.db", "a.extxyz.gz"])
def test_a_file_of_something_else_is_named(name, tmp_path):
    if name == "a.aselmdb":
        pytest.importorskip("lmdb", reason="needs the extra aselmdb")
    (tmp_path / name).write_bytes(b"neither this nor that")
    with pytest.raises(ValueError, match=f"{name} cannot be read"):
        read_frames([tmp_path / name])


def test_an_npz_of_too_few_labels_is_named(tmp_path):
    water = molecule("H2O")
    np.savez(tmp_path / "a.npz", R=water.positions[None].repeat(2, 0), z=water.numbers, E=[1.0])
    with pytest.raises(ValueError, match="has 2 structures and 1 of E"):
        read_frames([tmp_path / "a.npz"])


def test_references_are_least_squares():
    frames = [
        Frame(Atoms(formula), energy, np.zeros((len(Atoms(formula)), 3)), np.zeros((3, 3)))
        for formula, energy in (("H2", 2.0), ("H2O", 5.0), ("O2", 6.0))
    ]
    references = fit_references(frames, 20)
    assert references[[1, 8]].tolist() == pytest.approx([1.0, 3.0])


def test_rotation_turns_labels_too():
    import torch

    frame = Frame(bulk("Cu", cubic=True), 0.0, np.random.randn(4, 3), np.diag([1.0, 2.0, 3.0]))
    labelled = Labelled.of([frame])
    turned = labelled.rotated(torch.Generator().manual_seed(0))
    turn = random_rotations(1, torch.Generator().manual_seed(0))[0]
    torch.testing.assert_close(turned.forces, labelled.forces @ turn.T)
    torch.testing.assert_close(turned.stress[0], turn @ labelled.stress[0] @ turn.T)
    torch.testing.assert_close(
        turned.batch.positions.norm(dim=1), labelled.batch.positions.norm(dim=1)
    )
