"""The Triton kernels of wkv, lif and pluecker_mean beside the reference."""

import pytest
import torch

from core_attn import lif, pluecker_mean, use_backend, wkv


def gradients(backend, run, inputs):
    with use_backend(backend):
        leaves = [x.clone().requires_grad_() for x in inputs]
        outs = run(*leaves)
    generator = torch.Generator().manual_seed(9)
    loss = sum((y * torch.randn(y.shape, generator=generator).to(y)).sum() for y in outs)
    return [*(y.detach() for y in outs), *torch.autograd.grad(loss, leaves)]


def assert_same(run, inputs, rtol=1e-4, atol=1e-4):
    ours, theirs = gradients("triton", run, inputs), gradients("reference", run, inputs)
    for x, y in zip(ours, theirs, strict=True):
        assert x.isfinite().all()
        torch.testing.assert_close(x, y, rtol=rtol, atol=atol)


@pytest.mark.parametrize("size", [1.0, 60.0])
@pytest.mark.parametrize("tokens, channels", [(1, 1), (13, 33)])
def test_wkv(device, size, tokens, channels):
    torch.manual_seed(0)
    k, v = torch.randn(2, 2, tokens, channels, device=device).unbind(0)
    w, u = -torch.rand(channels, device=device), torch.randn(channels, device=device)

    def run(k, v, w, u):
        out, state = wkv(k, v, log_decay=w, bonus=u)
        return out, state[:, :2]

    assert_same(run, (size * k, v, w, u), rtol=1e-3 if size > 1 else 1e-4)


@pytest.mark.parametrize("tokens, channels", [(1, 1), (13, 33)])
def test_lif(device, tokens, channels):
    torch.manual_seed(1)
    x, state = (
        torch.randn(2, tokens, channels, device=device),
        torch.rand(2, channels, device=device),
    )
    assert_same(lambda x, state: lif(2 * x, tau=1.7, threshold=0.6, state=state), (x, state))


@pytest.mark.parametrize("offsets", [[1], [1, 2, 4], [-2, 1, 99]])
@pytest.mark.parametrize("tokens, dim", [(5, 2), (7, 6)])
def test_pluecker_mean(device, offsets, tokens, dim):
    torch.manual_seed(2)
    z = torch.randn(2, tokens, dim, device=device)
    assert_same(lambda z: (pluecker_mean(z, offsets),), (z,), rtol=1e-3, atol=1e-3)


def test_parallel_vectors(device):
    z = torch.tensor([[[1.0, 2.0], [2.0, 4.0], [0.0, 0.0], [1.0, 0.0]]], device=device)
    assert_same(lambda z: (pluecker_mean(z, [1, 2]),), (z,))
