"""Bugs planted one at a time: each must break a check that holds without it."""

import dataclasses
from functools import cache

import numpy as np
import pytest

from attn_theory.icl_linear import theory as icl_theory
from attn_theory.icl_linear.experiments import debiasing, estimators
from attn_theory.multitask_hebbian import Network, dynamics
from attn_theory.multitask_hebbian.experiments import exact, finite, simulate
from attn_theory.runner import run
from attn_theory.universal_approximation import jackson
from attn_theory.universal_approximation.experiments import certificate


def gradient_step_not_centred(monkeypatch):
    right = debiasing.gradient_step
    monkeypatch.setattr(debiasing, "gradient_step", lambda prompts, debiased=False: right(prompts))


def weights_ten_percent_up(monkeypatch):
    right = estimators.softmax_heads
    monkeypatch.setattr(estimators, "softmax_heads", lambda p, omega, mu: right(p, omega, 1.1 * mu))


def risks_five_percent_up(monkeypatch):
    for name in ("gd_risk", "dgd_risk"):
        right = getattr(icl_theory, name)
        monkeypatch.setattr(icl_theory, name, lambda *args, right=right: 1.05 * right(*args))


def jackson_factors_five_percent_down(monkeypatch):
    right = jackson.factors
    monkeypatch.setattr(
        jackson, "factors", lambda degree: np.r_[1.0, 0.95 * np.ones(degree)] * right(degree)
    )


def beta_twenty_percent_up(monkeypatch, module=exact):
    right = dynamics.glauber
    monkeypatch.setattr(
        module,
        "glauber",
        lambda rng, network, spins, beta, *args: right(rng, network, spins, 1.2 * beta, *args),
    )


def self_coupling_left_in(monkeypatch):
    class Own(dynamics.State):
        def __init__(self, network, spins):
            super().__init__(network, spins)
            self.own = 0 * self.own

    monkeypatch.setattr(dynamics, "State", Own)


def shuffled(network: Network) -> Network:
    return Network(np.random.default_rng(0).permutation(network.factors))


def couplings_shuffled(monkeypatch):
    right = dynamics.glauber
    monkeypatch.setattr(
        exact, "glauber", lambda rng, network, *args: right(rng, shuffled(network), *args)
    )


def stored_couplings_shuffled(monkeypatch):
    right = simulate.relax
    monkeypatch.setattr(
        simulate,
        "relax",
        lambda rng, network, *args, **kw: right(rng, shuffled(network), *args, **kw),
    )


SMALL = {
    debiasing: {"means": (0.5,), "prompts": 20_000},
    estimators: {"lengths": (40,), "prompts": 100_000},
    exact: {},
    finite: {"n": 400, "seeds": 8},
    certificate: {"degrees": (8,), "per_axis": 21},
}


def failed(module, tmp_path) -> list[str]:
    experiment = module.EXPERIMENT
    config = dataclasses.replace(experiment.quick, **SMALL[module])
    result = run(experiment, config, folder=tmp_path)
    return [check.name for check in experiment.checks(result) if not check.passed]


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    """The checks that fail without any bug, computed once a module."""
    return cache(lambda module: failed(module, tmp_path_factory.mktemp("right")))


@pytest.mark.parametrize(
    "module, plant",
    [
        (debiasing, gradient_step_not_centred),
        (estimators, weights_ten_percent_up),
        (estimators, risks_five_percent_up),
        (certificate, jackson_factors_five_percent_down),
        (exact, beta_twenty_percent_up),
        (exact, self_coupling_left_in),
        (exact, couplings_shuffled),
        (finite, stored_couplings_shuffled),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_planted_bug_breaks_a_check(module, plant, right, monkeypatch, tmp_path):
    assert not right(module)
    plant(monkeypatch)
    assert failed(module, tmp_path)
