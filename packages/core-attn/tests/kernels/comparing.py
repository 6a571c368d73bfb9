"""Kernels beside the reference in float64, at the same (rounded) arguments."""

import itertools

import torch

from core_attn import use_backend

TOLERANCE = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
CHECKS = (
    "test_schema",
    "test_autograd_registration",
    "test_faketensor",
)  # of torch.library.opcheck
RESULTS = ("out", "dq", "dk", "dv")


def rounded(shape, dtype, device, seed):
    """Normal numbers, the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(device, dtype).requires_grad_()


def assert_like_reference(operator, tensors, **options):
    """Output and gradients of the Triton backend against the reference's.

    The tolerance is relative to the largest entry of each result. An option may be a tuple of
    tensors.
    """
    given = itertools.chain(*(x if isinstance(x, tuple) else (x,) for x in options.values()))
    leaves = [*tensors, *(x for x in given if torch.is_tensor(x) and x.requires_grad)]
    with use_backend("triton"):
        out = operator(*tensors, **options)
    cotangent = rounded(out.shape, out.dtype, out.device, 99).detach()
    actual = [out, *torch.autograd.grad(out, leaves, cotangent)]

    exact = {x: x.detach().double().requires_grad_() for x in leaves}
    wide = {name: _replaced(x, exact) for name, x in options.items()}
    with use_backend("reference"):
        out = operator(*(exact[x] for x in tensors), **wide)
    expected = [out, *torch.autograd.grad(out, list(exact.values()), cotangent.double())]

    for n, (got, want) in enumerate(zip(actual, expected, strict=True)):
        name = RESULTS[n] if n < len(RESULTS) else f"gradient {n}"
        assert got.shape == want.shape, name
        assert got.isfinite().all(), name
        bound = TOLERANCE[tensors[0].dtype] * max(1.0, float(want.detach().abs().max()))
        error = float((got - want).detach().abs().max())
        assert error <= bound, f"{name} is off by {error:.2e}, allowed are {bound:.2e}"


def _replaced(x, exact):
    if isinstance(x, tuple):
        return tuple(_replaced(one, exact) for one in x)
    return exact.get(x, x) if torch.is_tensor(x) else x


def assert_drops_the_same_both_ways(operator, tensors, weights, rate):
    """The weights dropped, seen through v = 1, explain the output and every gradient."""
    q, k, v = tensors
    identity = torch.eye(k.shape[-2], device=q.device).expand(*k.shape[:-1], k.shape[-2])
    with use_backend("triton"):
        torch.manual_seed(5)
        seen = operator(q, k, identity.contiguous(), dropout=rate).detach()
        torch.manual_seed(5)
        out = operator(q, k, v, dropout=rate)
        other = operator(q, k, v, dropout=rate)
    kept = seen != 0
    assert abs(float(kept.float().mean()) - (1 - rate)) < 0.05
    assert not torch.equal(out, other)
    expected = (weights * kept / (1 - rate)) @ v
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    cotangent = torch.ones_like(out).cumsum(-1)
    for got, want in zip(
        torch.autograd.grad(out, tensors, cotangent),
        torch.autograd.grad(expected, tensors, cotangent),
        strict=True,
    ):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
