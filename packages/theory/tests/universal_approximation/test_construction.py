import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attn_theory.universal_approximation import (
    SingleLayerTransformer,
    TransformerConfig,
    approximate,
    degree_for,
    jackson,
)
from attn_theory.universal_approximation.construction import evaluate, grid_points
from attn_theory.universal_approximation.targets import LIPSCHITZ, convex_pieces, kinked
from attn_theory.universal_approximation.training import train


def test_jackson_factors_are_those_of_the_kernel():
    degree, p = 6, 4
    t = (np.arange(4000) + 0.5) / 4000 * np.pi
    kernel = (np.sin(p * t / 2) / np.sin(t / 2)) ** 4
    kernel /= kernel.mean()
    for k, rho in enumerate(jackson.factors(degree)):
        assert (kernel * np.cos(k * t)).mean() == pytest.approx(rho, abs=1e-6)


def test_block_and_closed_form_agree_to_rounding():
    built = approximate(kinked, 2, 6, lipschitz=LIPSCHITZ)
    x = np.random.default_rng(0).random((200, 2))
    assert np.abs(evaluate(built.transformer(), x) - built(x)).max() < 1e-10


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6), degree=st.sampled_from((2, 4, 6)))
def test_no_error_exceeds_its_certificate(seed, degree):
    f, constants = convex_pieces(np.random.default_rng(seed))
    built = approximate(f, 2, degree, lipschitz=constants)
    x = grid_points(2, 41)
    assert (np.abs(built(x) - f(x)).max(0) <= built.bound()).all()


def test_three_tokens_and_one_work_the_same():
    def f(x):
        return np.abs(x - x.mean(1, keepdims=True))

    constants = [[2 / 3 if i == j else 1 / 3 for j in range(3)] for i in range(3)]
    built = approximate(f, 3, 4, lipschitz=constants)
    x = np.random.default_rng(0).random((300, 3))
    assert (np.abs(built(x) - f(x)).max(0) <= built.bound()).all()
    assert np.abs(evaluate(built.transformer(), x) - built(x)).max() < 1e-10
    one = approximate(lambda x: np.abs(x - 0.4), 1, 16, lipschitz=[[1.0]])
    x = grid_points(1, 101)
    assert np.abs(one(x) - np.abs(x - 0.4)).max() <= one.bound()[0]


def test_a_soft_head_leaks_and_the_bound_knows():
    x = grid_points(2, 21)
    for sharpness in (2.0, 6.0):
        built = approximate(kinked, 2, 4, lipschitz=LIPSCHITZ, sharpness=sharpness)
        out = evaluate(built.transformer(), x)
        assert np.abs(out - built(x)).max() > 1e-4
        assert (np.abs(out - kinked(x)).max(0) <= built.bound()).all()


def test_degree_for_reaches_eps():
    degree = degree_for(0.3, LIPSCHITZ)
    assert approximate(kinked, 2, degree, lipschitz=LIPSCHITZ).bound().max() <= 0.3


def test_without_positions_the_block_commutes_with_permutations():
    torch.manual_seed(0)
    block = SingleLayerTransformer(TransformerConfig(3, positions=False)).double()
    x = torch.rand(5, 3, dtype=torch.float64)
    order = [2, 0, 1]
    torch.testing.assert_close(block(x[:, order]), block(x)[:, order])


def test_seeds_train_together_as_alone():
    config = TransformerConfig(2, hidden=5)
    models = train(config, kinked, seeds=2, steps=2, batch=8)
    assert not models[0].hidden.weight.equal(models[1].hidden.weight)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        start = SingleLayerTransformer(config)
    assert not models[1].hidden.weight.equal(start.hidden.weight)
    assert (models[1].hidden.weight - start.hidden.weight).abs().max() < 0.05


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: degree_for(0.0, LIPSCHITZ), "eps must be positive"),
        (lambda: approximate(kinked, 2, 3, lipschitz=LIPSCHITZ), "even and at least 2, got 3"),
        (lambda: approximate(kinked, 2, 0, lipschitz=LIPSCHITZ), "even and at least 2, got 0"),
        (lambda: approximate(kinked, 5, 4), "width grows like"),
        (lambda: approximate(kinked, 2, 4), "pass lipschitz= or certificate=False"),
        (lambda: approximate(kinked, 2, 4, lipschitz=[[1.0]]), "lipschitz must have shape"),
        (lambda: approximate(lambda x: x[:, :1], 2, 4, certificate=False), "the same shape"),
        (lambda: approximate(lambda x: x / 0.0, 2, 4, certificate=False), "must be finite"),
        (
            lambda: approximate(kinked, 2, 4, lipschitz=LIPSCHITZ)(np.array([[0.5, 1.1]])),
            "the bound does not hold outside",
        ),
        (lambda: approximate(kinked, 2, 4, certificate=False).bound(), "needs Lipschitz"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_bad_requests_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
