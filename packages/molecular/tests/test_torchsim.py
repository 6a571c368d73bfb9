import pytest
import torch
from ase.build import bulk, molecule

from attn_molecular import AttnCalculator
from attn_molecular.testing import untrained
from attn_molecular.torchsim import TorchSimModel


def test_without_torchsim_it_says_what_to_install(monkeypatch, molecular):
    monkeypatch.setattr("attn_molecular.torchsim.ModelInterface", torch.nn.Module)
    with pytest.raises(ValueError, match="torch-sim-atomistic"):
        TorchSimModel(molecular)


@pytest.fixture
def sim():
    return pytest.importorskip("torch_sim", reason="torch-sim-atomistic needs Python 3.12")


def test_it_is_what_torchsim_asks_of_a_model(sim):
    from torch_sim.models.interface import validate_model_outputs

    model = TorchSimModel(untrained((1, 6, 12, 14, 26)), dtype="float64")
    validate_model_outputs(model, torch.device("cpu"), torch.float64)


def test_a_batch_equals_the_calculator(sim):
    potential, crystals = untrained((14,)), [bulk("Si", cubic=True), bulk("Si") * (2, 1, 1)]
    for seed, atoms in enumerate(crystals):
        atoms.rattle(0.05, seed=seed)
        atoms.set_cell(atoms.cell.array + 0.1 * torch.eye(3).numpy()[[1, 2, 0]], scale_atoms=True)
    model = TorchSimModel(potential, dtype="float64")
    seen = model(sim.initialize_state(crystals, torch.device("cpu"), torch.float64))
    begin = 0
    for index, atoms in enumerate(crystals):
        atoms.calc = AttnCalculator(potential, dtype="float64")
        end = begin + len(atoms)
        forces = torch.from_numpy(atoms.get_forces())
        stress = torch.from_numpy(atoms.get_stress(voigt=False))
        assert float(seen["energy"][index]) == pytest.approx(atoms.get_potential_energy())
        torch.testing.assert_close(seen["forces"][begin:end], forces)
        torch.testing.assert_close(seen["stress"][index], stress)
        begin = end


def test_molecules_have_no_stress_and_their_energy_is_kept(sim, molecular):
    model = TorchSimModel(molecular, dtype="float64")
    state = sim.initialize_state(
        [molecule("H2O"), molecule("CH4")], torch.device("cpu"), torch.float64
    )
    assert "stress" not in model(state)
    before = model(state)["energy"]
    state.rng = 0
    final = sim.integrate(
        system=state, model=model, integrator=sim.Integrator.nve, n_steps=20, temperature=10.0,
        timestep=0.0002,
    )  # fmt: skip
    kinetic = sim.calc_kinetic_energy(
        masses=final.masses, momenta=final.momenta, system_idx=final.system_idx
    )
    assert torch.isfinite(final.energy).all() and (kinetic >= 0).all()
    assert (final.energy - before).abs().max() < 0.1
