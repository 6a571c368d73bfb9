from contextlib import nullcontext

import numpy as np
import pytest

from attn_theory.multitask_hebbian import (
    Network,
    boltzmann,
    draw_examples,
    draw_patterns,
    dynamics,
    glauber,
    magnetisations,
    parallel_step,
    sweeps_at_zero,
    theory,
)
from attn_theory.multitask_hebbian.model import entropy


def network(n=12, k=3, replicas=2, seed=0):
    rng = np.random.default_rng(seed)
    patterns = draw_patterns(rng, n, k, 0.3, replicas)
    return rng, patterns, Network.storing(patterns)


def test_factors_are_the_couplings():
    rng, patterns, _ = network()
    shown = draw_examples(rng, patterns, 0.6, 5)
    rho, n = entropy(0.6, 5), 12
    mean = shown[:, 1].mean(-1)
    supervised = mean @ mean.T / (n * 0.36 * (1 + rho))
    flat = shown[:, 1].reshape(n, -1)
    unsupervised = flat @ flat.T / (n * 5 * 0.36 * (1 + rho))
    for expected, build in ((supervised, "supervised"), (unsupervised, "unsupervised")):
        np.fill_diagonal(expected, 0)
        with pytest.warns() if build == "unsupervised" else nullcontext():
            ours = getattr(Network, build)(shown, 0.6)
        np.testing.assert_allclose(ours.couplings(1), expected, atol=1e-12)


def test_energy_is_the_double_sum():
    rng, _, net = network()
    spins = rng.choice((-1.0, 1.0), (12, 2))
    expected = [-0.5 * s @ net.couplings(r) @ s / 12 for r, s in enumerate(spins.T)]
    np.testing.assert_allclose(net.energy(spins), expected)


def test_parallel_step_is_the_sign_of_the_dense_field():
    rng, _, net = network(n=15)
    spins = rng.choice((-1.0, 1.0), (15, 2))
    for r, after in enumerate(parallel_step(net, spins).T):
        field = net.couplings(r) @ spins[:, r]
        clear = np.abs(field) > 1e-9
        assert (after[clear] == np.sign(field[clear])).all()
        assert (after[~clear] == spins[~clear, r]).all()


def test_zero_temperature_sweeps_never_raise_the_energy():
    rng, _, net = network(n=30)
    states = sweeps_at_zero(net, rng.choice((-1.0, 1.0), (30, 2)), 5)
    energies = np.stack([net.energy(s) for s in states])
    assert (np.diff(energies, axis=0) < 1e-12).all()


def test_infinite_temperature_is_a_coin():
    rng, patterns, net = network(n=400, replicas=30)
    last = glauber(rng, net, patterns[..., 0] * 0 + 1.0, 0.0, 1).spins
    assert abs(last.mean()) < 5 / np.sqrt(last.size)


@pytest.mark.parametrize("beta", [0.0, 3.0, np.inf])
@pytest.mark.parametrize("n, k, replicas", [(1, 1, 1), (37, 3, 5), (60, 21, 2)])
def test_the_kernel_makes_the_sweep_of_numpy(n, k, replicas, beta):
    if dynamics.KERNEL.missing() is not None:
        pytest.skip(dynamics.KERNEL.missing())
    rng, _, net = network(n, k, replicas)
    spins, uniform = rng.choice((-1.0, 1.0), (n, replicas)), rng.random((n, replicas))
    ours, plain = dynamics.State(net, spins), dynamics.State(net, spins.copy())
    for _ in range(3):
        order = rng.permutation(n)
        dynamics._native(ours, order, uniform, beta)
        dynamics._plain(plain, order, uniform, beta)
        assert (ours.spins == plain.spins).all()
        np.testing.assert_allclose(ours.overlap, plain.overlap, atol=1e-9)


def test_without_a_kernel_the_same_numbers_come_out(monkeypatch):
    _, _, net = network(n=25)
    runs = []
    for reason in (None, "none here"):
        monkeypatch.setattr(type(dynamics.KERNEL), "missing", lambda self, reason=reason: reason)
        runs.append(glauber(np.random.default_rng(3), net, np.ones((25, 2)), 2.0, 6, averaged=4))
    np.testing.assert_array_equal(runs[0][0], runs[1][0])
    np.testing.assert_array_equal(runs[0][1], runs[1][1])


def test_overlap_products_follow_boltzmann_at_any_temperature():
    _, patterns, net = network(n=8)
    cold = boltzmann(net, patterns[:, 0], 50.0)
    assert cold.mean_energy == pytest.approx(cold.ground_energy, abs=1e-3)
    hot = boltzmann(net, patterns[:, 0], 0.0)
    np.testing.assert_allclose(hot.spin_products, np.eye(8), atol=1e-12)


def test_finite_solution_of_the_infinite_network_is_a_fixed_point():
    site = theory.entries(3, 0.4)
    m = theory.solve(site, 5.0, theory.hierarchical(3, 0.4))
    again = theory.response(m, site, 5.0) @ (site.weight[:, None] * site.true)
    np.testing.assert_allclose(again, m, atol=1e-10)


def test_equal_amplitudes_at_high_dilution_and_finite_temperature():
    m = theory.solve(theory.entries(2, 0.8), 20.0, theory.hierarchical(2, 0.8))
    np.testing.assert_allclose(m, (0.1798, 0.1798), atol=1e-4)


def test_many_examples_are_the_archetypes():
    site = theory.learned_entries(2, 0.3, 1.0, 3)
    m = theory.solve(site, 20.0, theory.hierarchical(2, 0.3))
    stored = theory.solve(theory.entries(2, 0.3), 20.0, theory.hierarchical(2, 0.3))
    np.testing.assert_allclose(m, stored, atol=1e-9)


def test_overlaps_from_examples_are_those_of_many_sites_drawn_at_random():
    rng, quality, examples, beta = np.random.default_rng(0), 0.1, 99, 50.0
    true = rng.choice((-1.0, 0.0, 1.0), (100_000, 2), p=(0.35, 0.3, 0.35))
    kept = rng.binomial(examples, (1 + quality) / 2, true.shape)
    drawn = theory.Entries(
        true, true * (2 * kept / examples - 1) / quality, np.full(len(true), 1 / len(true))
    )
    rho, squares = entropy(quality, examples), []
    for site in (theory.learned_entries(2, 0.3, quality, examples), drawn):
        n = theory.solve(site, beta, np.array([0.4, 0.3]), rho=rho, iterations=100)
        squares.append(np.square(theory.archetype(n, site, beta, rho)).sum())
    assert squares[0] == pytest.approx(squares[1], rel=0.01)


def test_many_patterns_take_the_gaussian_of_their_examples():
    exact, gaussian = (theory.learned_entries(k, 0.0, 0.3, 80) for k in (1, 4))
    assert len(exact.weight) ** 4 > len(gaussian.weight)
    for site in (exact, gaussian):
        variance = site.weight @ np.square(site.seen[:, 0] - site.true[:, 0])
        assert variance == pytest.approx(entropy(0.3, 80), rel=1e-6)


def test_lowest_branch_comes_first():
    found = theory.branches(3, 0.7, np.inf)
    assert found[0][0] <= found[-1][0]
    np.testing.assert_allclose(found[0][1], (0.2865, 0.2235, 0.1605), atol=1e-4)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda r: draw_patterns(r, 5, 2, 1.0), r"dilution must be in \[0, 1\)"),
        (lambda r: draw_patterns(r, 5, 0, 0.3), "at least 1 pattern"),
        (lambda r: entropy(0.0, 5), r"quality must be in \(0, 1\]"),
        (lambda r: entropy(0.5, 0), "examples must be at least 1"),
        (lambda r: theory.entries(13, 0.3), "use Monte Carlo expectation"),
        (lambda r: theory.learned_entries(6, 0.3, 0.2, 99), "use Monte Carlo expectation"),
        (lambda r: theory.solve(theory.entries(2, 0.3), -1.0, np.ones(2)), "beta must be"),
        (lambda r: Network.storing(np.full((3, 1, 1), 0.5)), r"\{-1, 0, 1\}"),
        (
            lambda r: glauber(r, Network.storing(np.ones((3, 1, 1))), np.zeros((3, 1)), 1.0, 1),
            r"spins must be \+1 or -1",
        ),
        (
            lambda r: glauber(r, Network.storing(np.ones((3, 1, 1))), np.ones((3, 1)), -1.0, 1),
            "beta must be",
        ),
        (
            lambda r: glauber(
                r, Network.storing(np.ones((3, 1, 1))), np.ones((3, 1)), 1.0, 2, averaged=3
            ),
            "averaged must be from 0 to 2",
        ),
        (lambda r: boltzmann(Network.storing(np.ones((21, 1, 1))), np.ones((21, 1)), 1.0), "N up"),
        (
            lambda r: sweeps_at_zero(
                Network.storing(np.ones((3, 1, 1))), np.ones((3, 1)), 1, compat="x"
            ),
            "compat must be",
        ),
    ],
)
def test_bad_requests_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.random.default_rng(0))


def test_high_storage_warns():
    rng, patterns, _ = network(n=20)
    with pytest.warns(UserWarning, match="exceeds N/10"):
        Network.unsupervised(draw_examples(rng, patterns, 0.5, 4), 0.5)


def test_magnetisation_of_the_pattern_itself_is_its_share_of_entries():
    _, patterns, _ = network(n=50)
    m = magnetisations(patterns, np.where(patterns[..., 0] == 0, 1.0, patterns[..., 0]))
    np.testing.assert_allclose(m[:, 0], np.abs(patterns[..., 0]).mean(0))
