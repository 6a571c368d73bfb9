import copy
import pickle
import re
import threading
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from operator import methodcaller
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.mixing import SumCalculator
from ase.io.trajectory import Trajectory

from attn_molecular import AttnCalculator, predict
from attn_molecular.models.network import give_back
from attn_molecular.potential import shipped
from attn_molecular.testing import untrained
from core_attn import record


def with_calc(atoms, *args, **options):
    atoms = atoms.copy()
    atoms.calc = AttnCalculator(*args, **options)
    return atoms


def test_results_are_plain_numbers_and_energies_sum_up(silicon):
    atoms = with_calc(bulk("Si", cubic=True), silicon)
    atoms.get_forces()
    results = atoms.calc.results
    assert type(results["energy"]) is float and results["free_energy"] == results["energy"]
    assert results["energies"].sum() == results["energy"]
    for name, shape in (("forces", (8, 3)), ("stress", (6,)), ("energies", (8,))):
        assert results[name].dtype == np.float64 and results[name].shape == shape
    assert atoms.get_potential_energy(force_consistent=True) == results["energy"]
    kept = results["forces"].copy()
    results["forces"] += 1
    atoms.rattle(0.01)
    atoms.get_forces()
    assert np.abs(atoms.get_forces() - kept).max() < 0.5


def test_energy_alone_needs_no_backward_and_everything_else_comes_at_once(silicon, monkeypatch):
    atoms = with_calc(bulk("Si", cubic=True), silicon)
    calls = []
    real = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: calls.append(1) or real(*a, **k))
    atoms.get_potential_energy()
    assert not calls
    atoms.get_forces()
    atoms.get_stress()
    atoms.get_potential_energies()
    assert len(calls) == 1


def test_large_references_cost_no_precision(molecular):
    heavy = copy.deepcopy(molecular)
    heavy.references[[1, 6, 8]] = torch.tensor([-13.6, -1030.5, -2043.1], dtype=torch.float64)
    a = with_calc(molecule("CH3CH2OH"), molecular)
    b = with_calc(molecule("CH3CH2OH"), heavy)
    shift = [float((p.references[torch.tensor(a.numbers)]).sum()) for p in (molecular, heavy)]
    apart = (b.get_potential_energy() - shift[1]) - (a.get_potential_energy() - shift[0])
    assert abs(apart) < 1e-9


@pytest.mark.parametrize("case", ["molecule", "direct model", "flat cell"])
def test_stress_that_is_not_there_is_refused(case, molecular, direct, silicon):
    atoms, potential = {
        "molecule": (molecule("H2O"), molecular),
        "direct model": (Atoms("O2", [[0, 0, 0], [0, 0, 2]], cell=[5, 5, 5], pbc=True), direct),
        "flat cell": (Atoms("Si", cell=[3, 3, 0], pbc=[True, True, False]), silicon),
    }[case]
    atoms = with_calc(atoms, potential)
    atoms.get_forces()
    with pytest.raises(PropertyNotImplementedError, match="stress"):
        atoms.get_stress()
    assert ("stress" in atoms.calc.implemented_properties) == (case != "direct model")


def test_the_list_with_a_skin_gives_what_a_fresh_one_gives(silicon):
    atoms = with_calc(bulk("Si", cubic=True) * (2, 1, 1), silicon, dtype="float64", skin=0.4)
    random = np.random.default_rng(0)
    changes = [
        lambda a: a.rattle(0.03, seed=1),
        lambda a: a.wrap(),
        lambda a: a.positions.__iadd__(a.cell.array[1]),
        lambda a: a.set_cell(a.cell.array * 1.01, scale_atoms=True),
        lambda a: a.positions.__iadd__(random.normal(scale=0.05, size=a.positions.shape)),
        lambda a: a.pop(3),
        lambda a: a.set_pbc([True, True, False]),
        lambda a: a.positions.__iadd__(0.09),
    ]
    for change in changes:
        change(atoms)
        fresh = with_calc(atoms, silicon, dtype="float64", skin=0.0)
        assert abs(atoms.get_potential_energy() - fresh.get_potential_energy()) < 1e-9
        assert np.abs(atoms.get_forces() - fresh.get_forces()).max() < 1e-9


def test_the_process_stays_as_it_was(molecular):
    state = torch.get_rng_state(), torch.get_default_dtype(), torch.get_num_threads()
    threads = [threading.Thread(target=AttnCalculator) for _ in range(4)]  # a file
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    a, b = (with_calc(molecule("H2O"), molecular, dtype=d) for d in ("float32", "float64"))
    for _ in range(2):
        one, two = a.get_potential_energy(), b.get_potential_energy()
        a.rattle(0.01, seed=1)
        b.rattle(0.01, seed=1)
    assert abs(one - two) < 1e-5 and one != two
    assert torch.equal(state[0], torch.get_rng_state())
    assert state[1:] == (torch.get_default_dtype(), torch.get_num_threads())
    assert all(not p.requires_grad for p in a.calc.potentials[0].parameters())
    assert all(p.requires_grad for n, p in molecular.network.named_parameters() if "input" in n)


def energy_of(atoms):
    return atoms.get_potential_energy()


def test_pickles_threads_and_processes(molecular):
    atoms = with_calc(molecule("CH3CH2OH"), molecular)
    expected = atoms.get_potential_energy()
    again = pickle.loads(pickle.dumps(atoms))
    again.calc.reset()
    assert again.get_potential_energy() == expected
    seen = []
    copies = [with_calc(molecule("CH3CH2OH"), molecular) for _ in range(2)]
    threads = [threading.Thread(target=lambda a=a: seen.append(energy_of(a))) for a in copies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [expected, expected]
    again.calc.reset()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(methodcaller("get_potential_energy"), again).result() == pytest.approx(
            expected, abs=1e-9
        )


def test_it_adds_to_other_calculators_and_its_results_are_written(molecular, tmp_path):
    from ase.calculators.lj import LennardJones

    plain = with_calc(molecule("H2O"), molecular)
    total = molecule("H2O")
    other = molecule("H2O")
    other.calc = LennardJones()
    total.calc = SumCalculator([AttnCalculator(molecular), LennardJones()])
    expected = plain.get_potential_energy() + other.get_potential_energy()
    assert total.get_potential_energy() == pytest.approx(expected)
    plain.get_forces()
    ase.io.write(tmp_path / "a.extxyz", plain)
    back = ase.io.read(tmp_path / "a.extxyz")
    assert back.get_potential_energy() == pytest.approx(plain.get_potential_energy())
    with Trajectory(tmp_path / "a.traj", "w") as trajectory:
        trajectory.write(plain)
    back = ase.io.read(tmp_path / "a.traj")
    assert np.allclose(back.get_forces(), plain.get_forces())


def test_several_potentials_give_mean_and_spread():
    a, b = untrained(seed=1), untrained(seed=2)
    single = [with_calc(molecule("H2O"), p) for p in (a, b)]
    both = with_calc(molecule("H2O"), [a, b])
    forces = np.stack([x.get_forces() for x in single])
    assert np.allclose(both.get_forces(), forces.mean(0))
    assert both.get_potential_energy() == pytest.approx(
        np.mean([x.get_potential_energy() for x in single])
    )
    spread = np.sqrt((forces.std(0) ** 2).sum(1))
    assert np.allclose(both.calc.results["forces_spread"], spread)


def test_ignored_charge_is_warned_about_once(molecular):
    atoms = with_calc(molecule("H2O"), molecular)
    atoms.info["charge"] = 1
    with pytest.warns(UserWarning, match="charge"):
        atoms.get_potential_energy()
    atoms.rattle(0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        atoms.get_potential_energy()


@pytest.mark.parametrize(
    "change",
    ["far away", "dummy vector", "left-handed", "outside the cell", "one atom", "skewed"],
)
def test_the_same_structure_told_otherwise_has_the_same_energy(change, molecular, silicon):
    crystal = bulk("Si")
    crystal.rattle(0.05, seed=0)
    slab = bulk("Si", cubic=True)
    slab.pbc = [True, True, False]
    slab.cell[2] = 0
    plain, other, potential = crystal.copy(), crystal.copy(), silicon
    if change == "far away":
        plain, potential = molecule("CH3CH2OH"), molecular
        other = plain.copy()
        other.positions += 10_000
    elif change == "dummy vector":
        plain, other = slab, slab.copy()
        other.cell[2] = [0.3, 0.2, 7.0]
    elif change == "left-handed":
        other.set_cell(crystal.cell.array[[1, 0, 2]])
    elif change == "outside the cell":
        other.positions += np.array([[3, -2, 1], [0, 5, -4]]) @ crystal.cell.array
    elif change == "one atom":
        plain = bulk("Si", "sc", a=2.6)
        other = plain * (2, 1, 1)
    elif change == "skewed":
        other.cell[2] += 2 * crystal.cell.array[0]
    energies = [
        with_calc(a, potential, dtype="float64").get_potential_energy() / len(a)
        for a in (plain, other)
    ]
    assert energies[0] == pytest.approx(energies[1], abs=1e-8)


def test_many_at_once_are_as_one_by_one(molecular):
    water = molecule("H2O")
    boxed = molecule("CH4")
    boxed.set_cell([6, 6, 6])
    boxed.pbc = True
    structures = [water, boxed, molecule("CH3CH2OH"), water, boxed]
    seen = predict(structures, molecular, batch_atoms=9)
    for atoms, done in zip(structures, seen, strict=True):
        alone = with_calc(atoms, molecular)
        assert done.get_chemical_formula() == atoms.get_chemical_formula()
        assert abs(done.get_potential_energy() - alone.get_potential_energy()) < 1e-5
        assert np.abs(done.get_forces() - alone.get_forces()).max() < 1e-5
        if atoms.pbc.any():
            assert np.abs(done.get_stress() - alone.get_stress()).max() < 1e-5
        else:
            assert "stress" not in done.calc.results


@pytest.mark.parametrize("name", ["CO2", "CCH"])
def test_nearly_linear_molecules_too(name):
    """Rounding must not be magnified where symmetry makes a bond order vanish."""
    structures = [molecule("H2O")]
    for seed in range(4):
        structures.append(molecule(name))
        structures[-1].rattle(0.02 * seed, seed=seed)
    for atoms, done in zip(structures, predict(structures, "hco"), strict=True):
        alone = predict([atoms], "hco")[0]
        np.testing.assert_allclose(done.get_forces(), alone.get_forces(), rtol=1e-5, atol=1e-5)


BAD = {
    "no atoms": (Atoms(), "has no atoms"),
    "nan": (Atoms("HO", [[0, 0, 0], [0, np.nan, 1]]), "atom 1 has a position that is not finite"),
    "overlap": (Atoms("OHH", [[0, 0, 0], [1, 0, 0], [1, 0, 5e-4]]), "atoms 1 and 2 are"),
    "element": (Atoms("HeH", [[0, 0, 0], [1, 0, 0]]), "element He .Z=2. was not in this model's"),
    "zero cell": (Atoms("H", pbc=True), "repeats along abc"),
    "endless cell": (Atoms("H", cell=[1e300] * 3, pbc=True), "entries beyond 1e.08 A"),
    "flat cell": (Atoms("H", cell=[[1, 0, 0], [2, 0, 0], [0, 0, 1]], pbc=True), "not independent"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_it_cannot_take_is_named(case, molecular):
    atoms, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        with_calc(atoms, molecular).get_potential_energy()
    if len(atoms):
        with pytest.raises(ValueError, match=f"structure 1: .*{message}"):
            predict([molecule("H2O"), atoms], molecular)


def test_bad_arguments_are_named(molecular, tmp_path):
    with pytest.raises(ValueError, match="dtype must be float32 or float64"):
        AttnCalculator(molecular, dtype="half")
    with pytest.raises(ValueError, match="device 'abacus' cannot be used: "):
        AttnCalculator(molecular, device="abacus")
    with pytest.raises(ValueError, match="skin"):
        AttnCalculator(molecular, skin=-1)
    with pytest.raises(FileNotFoundError, match="no potential 'nowhere'"):
        AttnCalculator("nowhere")
    (tmp_path / "a.safetensors").write_text("nothing")
    with pytest.raises(ValueError, match="not a safetensors file"):
        AttnCalculator(tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="batch_atoms"):
        predict([molecule("H2O")], molecular, batch_atoms=0)


def test_a_potential_is_saved_and_read_back(molecular, tmp_path):
    molecular.card["name"] = "random"
    molecular.save(tmp_path / "a.safetensors")
    a = with_calc(molecule("H2O"), molecular)
    b = with_calc(molecule("H2O"), tmp_path / "a.safetensors")
    assert a.get_potential_energy() == b.get_potential_energy()
    assert b.calc.potentials[0].card == {"name": "random"}
    assert b.calc.potentials[0].symbols == ["H", "C", "O"]


@pytest.mark.parametrize("kind", ["gradient", "direct"])
def test_pieces_within_a_memory_bound_give_the_same(kind):
    potential = untrained((14,), neighbors=16, cutoff=5.0, forces=kind)
    crystal = bulk("Si", cubic=True) * (2, 2, 1)
    crystal.rattle(0.1, seed=0)
    whole, pieces = crystal.copy(), crystal.copy()
    whole.calc = AttnCalculator(potential, dtype="float64")
    pieces.calc = AttnCalculator(potential, dtype="float64", memory=4.0)
    with record(pieces.calc.potentials[0].network, "pattern") as seen:
        pieces.get_potential_energy()
    assert len(seen["blocks.0.attention.attend"]) < len(crystal)  # the last piece of several
    assert whole.get_potential_energy() == pytest.approx(pieces.get_potential_energy(), abs=1e-10)
    assert np.abs(whole.get_forces() - pieces.get_forces()).max() < 1e-10
    if kind == "gradient":
        assert np.abs(whole.get_stress() - pieces.get_stress()).max() < 1e-10
    crystal.calc = AttnCalculator(potential, memory=0.1)
    with pytest.raises(ValueError, match=r"memory = 0.1 MiB is too little for 32 atoms"):
        crystal.get_potential_energy()


def grown(atoms):
    """MiB by which the process grows at most while forces are computed."""
    give_back()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    start = resident("VmRSS")
    atoms.get_forces()
    return resident("VmHWM") - start


def resident(name):
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) / 1024


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measured by Linux's /proc")
@pytest.mark.parametrize("dtype, bound", [("float32", 50.0), ("float64", 100.0)])
def test_memory_stays_below_its_bound(dtype, bound):
    potential = untrained((14,), neighbors=16, cutoff=5.0)
    crystal = bulk("Si", cubic=True) * (4, 4, 4)
    crystal.rattle(0.1, seed=0)
    free = with_calc(crystal, potential, dtype=dtype)
    free.get_forces()
    assert grown(with_calc(crystal, potential, dtype=dtype)) > bound
    assert grown(with_calc(crystal, potential, dtype=dtype, memory=bound)) < bound


def test_shipped_potentials_are_small_have_cards_and_know_their_substances():
    assert sorted(shipped()) == ["hco", "si"]
    for path in shipped().values():
        assert path.stat().st_size <= 2_000_000
        card = path.with_suffix(".md").read_text()
        for word in ("data", "licence", "must not be used for", "forces, meV/A"):
            assert word in card
    ethanol = with_calc(molecule("CH3CH2OH"))  # hco
    assert ethanol.get_potential_energy() == pytest.approx(-4210.2, abs=0.3)  # by PBE/def2-SVP
    silicon = with_calc(bulk("Si"), "si")
    assert silicon.get_potential_energy() / 2 == pytest.approx(-5.42, abs=0.1)  # by PBE
    assert np.abs(silicon.get_forces()).max() < 1e-3  # by symmetry
