import numpy as np
import pytest

from attn_theory.icl_linear import theory

PROBLEM = (5, 40, 0.1)


@pytest.mark.parametrize(
    "risk, step", [(theory.gd_risk, theory.gd_step), (theory.dgd_risk, theory.dgd_step)]
)
def test_the_best_step_has_the_least_risk(risk, step):
    eta = step(*PROBLEM)
    at, below, above = (risk(eta + shift, *PROBLEM) for shift in (0, -1e-3, 1e-3))
    assert at < below and at < above


def test_values_quoted_for_five_dimensions_and_forty_points():
    assert 1.1 - theory.gd_step(*PROBLEM) == pytest.approx(0.2398, abs=1e-4)
    assert theory.dgd_risk(theory.dgd_step(*PROBLEM), *PROBLEM) == pytest.approx(0.24286, abs=1e-5)
    assert theory.separated_task_risk(4, 48, 0.1) == pytest.approx(0.4122, abs=5e-5)


def test_pair_loss_is_the_approximate_loss_of_a_pair():
    g, m = 0.2, 2.0
    pair = theory.approximate_loss(np.array([m, -m]), np.array([g, -g]), *PROBLEM)
    assert theory.pair_loss(m, g, *PROBLEM) == pytest.approx(pair)


def test_flow_descends_the_loss_and_follows_its_gradient():
    rng = np.random.default_rng(0)
    mu, omega = 0.1 * rng.normal(size=(2, 1, 2))
    mus, omegas = theory.flow(mu, omega, *PROBLEM, step=1e-6, steps=1, record=np.array([0, 1]))

    def loss(x):
        return 0.5 * theory.approximate_loss(x[:2], x[2:], *PROBLEM)

    x = np.concatenate((mu[0], omega[0]))
    slopes = [(loss(x + 1e-6 * e) - loss(x - 1e-6 * e)) / 2e-6 for e in np.eye(4)]
    moved = np.concatenate((mus[1, 0] - mus[0, 0], omegas[1, 0] - omegas[0, 0]))
    np.testing.assert_allclose(moved / -1e-6, slopes, rtol=1e-4)


def test_preconditioned_risk_with_a_scalar_is_the_isotropic_one():
    eta = 0.7
    risk = theory.dgd_preconditioned_risk(eta * np.eye(5), np.eye(5), 40, 0.1)
    assert risk == pytest.approx(theory.dgd_risk(eta, *PROBLEM))


def test_the_preconditioner_beats_its_neighbours():
    sigma = 0.5 ** np.abs(np.subtract.outer(np.arange(4), np.arange(4)))
    best = theory.dgd_preconditioner(sigma, 30, 0.1)
    floor = theory.dgd_preconditioned_risk(best, sigma, 30, 0.1)
    rng = np.random.default_rng(0)
    for _ in range(20):
        other = best + 0.05 * rng.normal(size=(4, 4))
        assert theory.dgd_preconditioned_risk(other, sigma, 30, 0.1) > floor


def test_linear_attention_at_its_own_length_is_gradient_descent():
    assert theory.linear_attention_risk(0.8, 5, 40, 40, 0.1) == theory.gd_risk(0.8, 5, 40, 0.1)
