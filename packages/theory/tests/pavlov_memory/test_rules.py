import pytest
import torch

from attn_theory.pavlov_memory import bcm, decaying, delta, hebbian, oja, theory
from attn_theory.pavlov_memory.official import recurrence
from attn_theory.pavlov_memory.rules import elu_feature, unit


def tokens(n=6, d=4, e=3):
    generator = torch.Generator().manual_seed(0)
    k = torch.randn(1, 2, n, d, generator=generator, dtype=torch.float64)
    v = torch.randn(1, 2, n, e, generator=generator, dtype=torch.float64)
    return k, v


def test_normalised_hebbian_memory_is_an_average_of_values():
    k, v = tokens()
    out, _ = hebbian(k, k, torch.ones_like(v), feature=elu_feature, normalize=True)
    torch.testing.assert_close(out, torch.ones_like(v))


def test_forgetting_weighs_old_pairs_down():
    k, v = tokens()
    _, state = decaying(k, k, v, 0.25)
    weight = 0.75 ** torch.arange(5, -1, -1, dtype=torch.float64)
    expected = torch.einsum("bhtd,bhte,t->bhde", k, v, weight)
    torch.testing.assert_close(state, expected)


def test_orthonormal_keys_are_recalled_without_error():
    k = torch.eye(4, dtype=torch.float64)[None, None]
    v = tokens(4)[1][:, :1]
    for rule in (hebbian, delta):
        _, state = rule(k, k, v)
        torch.testing.assert_close(k @ state, v)


def test_oja_converges_on_a_repeated_pair_and_bcm_keeps_its_silence():
    k = torch.ones(1, 1, 200, 1, dtype=torch.float64)
    assert oja(k, k, k, 0.5)[1].item() == pytest.approx(1.0)
    assert bcm(k, k, torch.zeros_like(k), 0.1)[1].item() == 0.0


def test_a_diverging_rate_warns():
    k, v = tokens()
    with pytest.warns(UserWarning, match=r"must be in \[0, 2\]"):
        delta(unit(k), unit(k), v, 2.5)


@pytest.mark.refuses
@pytest.mark.parametrize(
    "call, message",
    [
        (lambda k, v: hebbian(k[:, :, :0], k[:, :, :0], v[:, :, :0]), "at least 1 pair"),
        (lambda k, v: hebbian(k[..., :3], k, v), "q has d_k = 3, k has 4"),
        (lambda k, v: delta(k, k, v * float("nan")), "v must be finite"),
        (lambda k, v: unit(torch.zeros(2, 3)), "length 0"),
        (lambda k, v: decaying(k, k, v, 1.0), r"forgetting must be in \[0, 1\)"),
        (
            lambda k, v: hebbian(k, k, v, normalize=True, state=torch.zeros(1, 2, 4, 3).double()),
            "which state lacks",
        ),
        (lambda k, v: theory.average_capacity(0.0, 4), "tau must be a positive error"),
        (lambda k, v: recurrence(k, k, v, rule="oja"), "rule must be"),
        (lambda k, v: recurrence(k, k, v, rule="hebb", beta=k[..., 0]), "beta belongs to"),
    ],
)
def test_bad_requests_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(*tokens())
