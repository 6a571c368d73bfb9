"""The Triton kernel of edge_attention beside the reference, to the second derivative."""

import re

import pytest
import torch
from torch.nn import functional as F

from core_attn import edge_attention, use_backend
from core_attn.ops._triton_host import INSTALLED, INTERPRETED


def make(device, counts, heads=2, dim=8, v_dim=5, first=False):
    """q, k, v, direction, bias and offsets: self edges first, some keys forbidden, the last atom
    with edges sees only itself."""
    generator = torch.Generator().manual_seed(0)
    edges, offsets = sum(counts), torch.tensor([0, *counts]).cumsum(0)
    asking = len(counts) if first else edges
    begins = [int(b) for b, n in zip(offsets[:-1], counts, strict=True) if n]

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    direction, bias = F.normalize(normal(edges, 3), dim=1), -normal(edges).abs()
    bias[::5] = bias[begins[-1] :] = -torch.inf
    direction[begins], bias[begins] = 0, 0
    made = [normal(asking, heads, dim), normal(edges, heads, dim), normal(edges, heads, v_dim)]
    return [x.to(device) for x in (*made, direction, bias)], offsets.to(device)


def results(backend, tensors, offsets, **options):
    leaves = [x.clone().requires_grad_() for x in tensors]
    with use_backend(backend, "edge_attention"):
        *qkvu, bias = leaves
        out = edge_attention(*qkvu, offsets, bias=bias, **options)
    generator = torch.Generator().manual_seed(1)

    def along(x):
        return torch.randn(x.shape, generator=generator).to(x)

    weight = along(out).requires_grad_()
    asked = {"allow_unused": True, "materialize_grads": True}
    first = torch.autograd.grad(out, leaves, weight, create_graph=True, **asked)
    total = sum((x * along(x)).sum() for x in first)
    return [out, *first, *torch.autograd.grad(total, [weight, *leaves], **asked)]


@pytest.mark.parametrize("first", [False, True], ids=["all", "first"])
@pytest.mark.parametrize(
    "counts, degrees",
    [([5, 1, 0, 3], (3, 2, 1, 1, 1)), ([17], (0, 5, 3)), ([1, 2], (8,))],
    ids=["degrees", "wide", "plain"],
)
def test_it_agrees_with_the_definition_to_the_second_derivative(device, counts, degrees, first):
    tensors, offsets = make(device, counts, first=first)
    options = {"degrees": degrees, "first_only": first, "scale": 0.7}
    pairs = zip(
        results("triton", tensors, offsets, **options),
        results("reference", tensors, offsets, **options),
        strict=True,
    )
    for place, (kernel, definition) in enumerate(pairs):
        most = max(1.0, float(definition.detach().abs().max()))
        error = float((kernel - definition).detach().abs().max())
        assert error <= 3e-5 * most, f"result {place} is off by {error:.1e} of {most:.1e}"


def test_what_it_does_not_take_is_told(device):
    tensors, offsets = make(device, [3], dim=65)
    *qkvu, _ = tensors
    with use_backend("triton", "edge_attention"):
        with pytest.raises(ValueError, match="heads up to 64 channels, there are 65"):
            edge_attention(*qkvu, offsets)
        with pytest.raises(ValueError, match="it knows no dropout"):
            edge_attention(*qkvu, offsets, dropout=0.1)


@pytest.mark.skipif(INTERPRETED or not INSTALLED, reason="triton is not there, or interprets")
def test_loops_carry_what_they_change(monkeypatch):
    """Triton drops a variable that a loop sets to the very tensor that another one began as."""
    import triton
    from triton.backends.compiler import GPUTarget

    from core_attn.ops._edge_attention.triton_kernels import plan

    class Elsewhere:
        get_current_target = staticmethod(lambda: GPUTarget("cuda", 90, 32))
        get_current_device = staticmethod(lambda: "elsewhere")
        get_current_stream = staticmethod(lambda device: 0)

    (q, k, v, u, bias), offsets = make("cpu", [5, 3])
    rows, gradients = torch.zeros(8, 2, 3), {"dq": q, "dk": k, "dv": v, "dbias": torch.zeros(8, 2)}
    launch = plan(
        1, q, v, offsets, torch.tensor([4, 2, 2]), 1.0, False, 5, "sm90",
        k=k, u=u, bias=bias, grad=v, du_asking=rows, du_asked=rows, **gradients,
    )  # fmt: skip
    monkeypatch.setattr(triton.runtime.driver, "_active", Elsewhere())
    made = launch.kernel.warmup(grid=(launch.programs, launch.splits), **launch.args)
    carried = [found.count("=") for found in re.findall(r"iter_args\((.*?)\)", made.asm["ttir"])]
    # Scores, P_n, P_n', those of n - 1; then P_n to its second derivative, those of n - 1, and the
    # gradients of queries, keys and cosines.
    assert carried == [5, 9]
