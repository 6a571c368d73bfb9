import pytest
import torch

from core_attn import (
    HeadGate,
    MixtureOfHeadAttention,
    MultiHeadAttention,
    losses,
    query_norm_gate,
    record,
)


def test_a_router_of_zeros_leaves_plain_attention():
    plain = MultiHeadAttention(24, heads=4).eval()
    gated = MixtureOfHeadAttention(24, 4, shared=1, routed=3).eval()
    gated.load_state_dict(plain.state_dict(), strict=False)
    for layer in (gated.gate.to_routed, gated.gate.to_groups):
        torch.nn.init.zeros_(layer.weight)
    x = torch.randn(2, 7, 24)
    torch.testing.assert_close(gated(x), plain(x))


@pytest.mark.parametrize("shared,routed", [(0, 1), (1, 1), (2, 3), (5, 0)])
def test_as_many_heads_act_as_configured_and_gates_sum_to_them(shared, routed):
    gate = HeadGate(8, 5, shared, routed)
    gates = gate(3 * torch.randn(2, 9, 8))
    assert ((gates > 0).sum(-1) == shared + routed).all()
    if not shared or not routed:
        torch.testing.assert_close(gates.sum(-1), torch.full((2, 9), float(shared + routed)))


def test_of_equal_scores_the_first_head_is_chosen():
    gate = HeadGate(8, 6, 2, 2)
    torch.nn.init.zeros_(gate.to_routed.weight)
    acting = (gate(torch.randn(1, 5, 8)) > 0).int().flatten(0, 1)
    assert acting.equal(torch.tensor([1, 1, 1, 1, 0, 0]).int().expand(5, -1))


@pytest.mark.parametrize("shared,routed", [(0, 2), (1, 1), (3, 2)])
def test_skipped_rows_change_nothing(shared, routed):
    torch.manual_seed(0)
    layer = MixtureOfHeadAttention(36, 6, shared, routed, head_dim=5).eval()
    x = torch.randn(1, 512, 36)
    assert layer._skips(512) and not layer._skips(197)
    skipped = layer(x)
    with record(layer, "pattern"):
        dense = layer(x)
    torch.testing.assert_close(skipped, dense, rtol=1e-4, atol=1e-6)


def test_skipped_rows_have_the_same_gradients():
    torch.manual_seed(0)
    layer, grads = MixtureOfHeadAttention(12, 4, 1, 1).eval(), []
    for x in [torch.randn(1, 130, 12)] * 2:
        x = x.clone().requires_grad_()
        with record(layer, "pattern" if grads else "heads"):
            layer(x).square().sum().backward()
        grads.append(x.grad)
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-5)


def test_the_balance_of_uniform_routing_is_the_number_of_routed_heads():
    gate = HeadGate(16, 8, 2, 3, balance_weight=1.0)
    torch.nn.init.normal_(gate.to_routed.weight, std=0.01)
    gate(torch.randn(4, 500, 16))
    assert float(losses(gate)["balance"].detach()) == pytest.approx(3.0, abs=0.1)
    gate.eval()(torch.randn(1, 3, 16))
    assert not losses(gate)


def test_the_router_stays_in_float32_under_autocast():
    gate = HeadGate(8, 4, 2, 1)
    x = torch.randn(1, 5, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert gate(x).equal(gate(x.float())) and gate(x).dtype == torch.float32


BAD = {
    "too many routed": (lambda: HeadGate(8, 6, 2, 5), "routed=5 but only 4 routed heads exist"),
    "too many shared": (lambda: HeadGate(8, 4, 5, 0), r"shared heads must be in \[0, 4\], got 5"),
    "none": (lambda: HeadGate(8, 4, 2, 0), "routed=0 needs all 4 heads to be shared, got shared=2"),
    "width": (lambda: MixtureOfHeadAttention(10, 4, 4, 0), "dim 10 is not divisible by heads 4"),
    "query norms": (
        lambda: query_norm_gate(torch.randn(1, 4, 3, 2), 2, 3),
        "routed=3 but only 2 routed heads exist",
    ),
}


@pytest.mark.refuses
@pytest.mark.parametrize("case", BAD)
def test_misuse_is_explained(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()
