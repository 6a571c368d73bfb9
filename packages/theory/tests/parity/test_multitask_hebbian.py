import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from attn_theory.multitask_hebbian import boltzmann, glauber, sweeps_at_zero
from attn_theory.multitask_hebbian.model import entropy
from attn_theory.multitask_hebbian.official import from_recorded
from core_attn.testing import assert_parity, load_case, parity_cases

CASES = parity_cases("multitask_hebbian", Path(__file__).parent / "cases")


def network_of(case):
    xi, eta = case.inputs["xi"].double().numpy(), case.inputs["eta"].double().numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # recorded networks are tiny, far from low storage
        return from_recorded(case.config, xi, eta), xi


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_couplings_averages_and_sweeps_equal_the_recorded_ones(path):
    case = load_case(path)
    network, xi = network_of(case)
    exact = boltzmann(network, xi, case.config["beta"])
    start = case.inputs["sigma0"].double().numpy()[:, None]
    recorded = case.outputs["zero_T_sweeps"]
    sweeps = sweeps_at_zero(network, start, 4, compat="rounded-ties")[..., 0]
    first = 0 if np.array_equal(recorded[0], start[:, 0]) else 1
    rho = entropy(case.config["quality"], case.config["examples"])
    actual = {
        "J": network.couplings(),
        "log_Z": exact.log_z,
        "mean_energy": exact.mean_energy,
        "ground_energy": exact.ground_energy,
        "mm": exact.overlap_products,
        "abs_m": exact.overlap_sizes,
        "spin_corr": exact.spin_products,
        "rho": rho,
        "zero_T_sweeps": sweeps[first : first + len(recorded)],
    }
    actual = {name: torch.tensor(value).float() for name, value in actual.items()}
    assert_parity(actual, case.outputs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_a_glauber_chain_reproduces_the_exact_overlaps(path):
    case = load_case(path)
    network, xi = network_of(case)
    rng = np.random.default_rng(0)
    replicas = 2000
    wide = type(network)(np.repeat(network.factors, replicas, 1))
    spins = rng.choice((-1.0, 1.0), (network.spins, replicas))
    last = glauber(rng, wide, spins, case.config["beta"], 60).spins
    m = last.T @ xi / network.spins
    products = np.einsum("ra,rb->rab", m, m)
    error = products.std(0) / replicas**0.5
    assert (np.abs(products.mean(0) - case.outputs["mm"].numpy()) < 4.5 * error + 1e-6).all()
