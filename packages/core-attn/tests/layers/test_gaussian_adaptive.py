import pytest
import torch
from torch.autograd import gradcheck

from core_attn import (
    GaussianAdaptiveAttention,
    GaussianAdaptiveBlock,
    GaussianGate,
    Mean,
    SummedGroupAttention,
    importance_factor,
    record,
)


def test_a_wide_gate_returns_its_input():
    gate, x = GaussianGate(dim=3, tokens=4, heads=2), torch.randn(2, 4, 3)
    torch.nn.init.constant_(gate.spread, 1e9)
    torch.testing.assert_close(gate(x), x)


def test_the_gate_ignores_shift_and_scale():
    gate, x = GaussianGate(dim=3, tokens=6, heads=2), torch.randn(2, 6, 3, dtype=torch.float64)
    with record(gate, "gate") as seen:
        gate(x)
        a = seen[""]
        gate(300 * x + 5)
    assert a.min() > 0 and a.max() <= 1
    torch.testing.assert_close(seen[""], a, rtol=1e-3, atol=1e-3)


def test_one_gate_of_the_mean_over_time_acts_on_every_frame():
    gate, x = GaussianGate(dim=3, tokens=4, heads=1), torch.randn(2, 4, 5, 3)
    with record(gate, "gate") as seen:
        y = gate(x)
        torch.testing.assert_close(y, x * seen[""][:, :, None])
        gate(x.mean(2))
    torch.testing.assert_close(y.mean(2), x.mean(2) * seen[""])


def test_gradients_of_the_three_forms():
    torch.manual_seed(0)
    x = torch.randn(2, 8, 8, dtype=torch.float64, requires_grad=True)
    for layer in (
        GaussianGate(8, tokens=8, heads=2),
        GaussianAdaptiveAttention(axis=1, heads=3, gaussians=2),
        SummedGroupAttention(8, heads=1, kv_heads=1),
    ):
        assert gradcheck(layer.double(), x)


def test_weights_sum_to_one_over_each_part_of_an_uneven_axis():
    layer = GaussianAdaptiveAttention(axis=1, heads=3, gaussians=2, least=0.0)
    with record(layer, "gate") as seen:
        layer(1e4 * torch.randn(2, 8, 5))
    for part in seen[""].split([2, 2, 4], dim=1):
        torch.testing.assert_close(part.sum(1), torch.ones(2, 5))


def test_padding_is_returned_unchanged():
    x = torch.randn(2, 6, 3)
    x[:, 4:] = -1.0
    y = GaussianAdaptiveAttention(axis=1, padding_value=-1.0)(x)
    assert y[:, 4:].equal(x[:, 4:]) and not y[:, :4].equal(x[:, :4])


def test_a_spread_below_zero_is_warned_of_unless_kept_positive():
    gate = GaussianGate(dim=2, tokens=2, heads=1)
    torch.nn.init.constant_(gate.spread, -0.1)
    with pytest.warns(UserWarning, match="positive_spread"):
        gate(torch.randn(1, 2, 2))
    kept = GaussianGate(dim=2, tokens=2, heads=1, positive_spread=True)
    free, x = GaussianGate(dim=2, tokens=2, heads=1), torch.randn(1, 2, 2)
    torch.testing.assert_close(kept(x), free(x))
    torch.nn.init.constant_(kept.spread, -9.0)
    assert kept(x).isfinite().all()


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianGate(4, tokens=5, heads=2), "tokens 5 is not divisible by heads 2"),
        (lambda: GaussianAdaptiveAttention(padding_value=float("nan")), "padding_value NaN"),
        (lambda: GaussianAdaptiveAttention(heads=0), "heads 0"),
        (lambda: GaussianAdaptiveAttention(axis=3)(torch.randn(2, 5)), "axis 3 is none of the 2"),
        (lambda: GaussianAdaptiveBlock([1], [1, 2], [1]), "as many, at least one: got 1, 2 and 1"),
        (lambda: SummedGroupAttention(24, heads=2), "multiple of 8"),
        (lambda: SummedGroupAttention(32, heads=4, kv_heads=3), "kv_heads 3"),
        (
            lambda: GaussianAdaptiveAttention(axis=1, heads=3)(torch.randn(1, 5, 2)),
            "each head needs at least 2 elements along axis 1: 5 for 3 heads",
        ),
        (lambda: GaussianGate(4, tokens=4, heads=2)(torch.randn(1, 6, 4)), "x has 6 tokens"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_importance_of_a_data_set_by_running_mean():
    gate = GaussianGate(dim=3, tokens=4, heads=2)
    with record(gate, "gate", Mean) as seen:
        for x in torch.randn(3, 2, 4, 3):
            gate(x)
    shown = importance_factor(seen[""])
    assert shown.shape == (4, 3) and shown.min() == 0 and shown.max() == 1
    assert importance_factor(torch.ones(2, 2)).equal(torch.zeros(2, 2))


def test_a_block_adds_each_layer_to_what_it_got():
    block, x = GaussianAdaptiveBlock([1, -1], [2, 1], [3, 1]), torch.randn(2, 7, 4)
    with record(block, "gate") as seen:
        y = block(x)
    first = x + x * seen["layers.0"]
    torch.testing.assert_close(y, first + first * seen["layers.1"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_statistics_of_half_precision_are_taken_in_single(dtype):
    x = (torch.randn(2, 8, 3) * 0.1 + 5).to(dtype)
    for layer in (GaussianGate(3, tokens=8, heads=2), GaussianAdaptiveAttention(axis=1, heads=2)):
        y = layer(x.float())
        torch.testing.assert_close(layer(x).float(), y, rtol=0.02, atol=0.02)
        assert layer(x).dtype == dtype
