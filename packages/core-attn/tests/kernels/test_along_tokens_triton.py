"""The Triton kernels of wkv, lif and pluecker_mean beside the reference, and compiled."""

import os
import subprocess
import sys

import pytest
import torch

from core_attn import lif, pluecker_mean, use_backend, wkv
from core_attn.ops._triton_host import INSTALLED


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


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from core_attn.ops._lif import triton_kernels as lif
from core_attn.ops._pluecker_mean import triton_kernels as pluecker
from core_attn.ops._wkv import triton_kernels as wkv

F, I = "*fp32", "i32"
def signature(kernel, floats, ints, constants, pointers_of_ints=()):
    names = kernel.arg_names
    out = {}
    for name in names:
        if name in constants: out[name] = "constexpr"
        elif name in ints: out[name] = I
        elif name in floats: out[name] = "fp32"
        elif name in pointers_of_ints: out[name] = "*i32"
        else: out[name] = F
    return out

cases = [
    (wkv.forward, (), ("tokens", "channels"), {"KEEP": False, "BLOCK": 32}, ()),
    (wkv.forward, (), ("tokens", "channels"), {"KEEP": True, "BLOCK": 32}, ()),
    (wkv.backward, (), ("tokens", "channels"), {"BLOCK": 32}, ()),
    (lif.forward, ("tau", "threshold"), ("tokens", "channels"), {"KEEP": False, "BLOCK": 32}, ()),
    (lif.forward, ("tau", "threshold"), ("tokens", "channels"), {"KEEP": True, "BLOCK": 32}, ()),
    (lif.backward, ("tau", "threshold"), ("tokens", "channels"), {"BLOCK": 32}, ()),
    (pluecker.forward, ("eps",), ("tokens", "dim"), {"COUNT": 6, "BLOCK": 32}, ("offsets",)),
    (pluecker.backward, ("eps",), ("tokens", "dim"), {"COUNT": 6, "BLOCK": 32}, ("offsets",)),
]
targets = GPUTarget("cuda", 80, 32), GPUTarget("cuda", 90, 32), GPUTarget("hip", "gfx942", 64)
for target in targets:
    for kernel, floats, ints, constants, others in cases:
        source = ASTSource(kernel, signature(kernel, floats, ints, constants, others), constants)
        compiled = triton.compile(source, target=target)
        assert compiled.asm, kernel
print("compiled", len(cases))
"""


@pytest.mark.skipif(not INSTALLED, reason="triton is not installed")
def test_kernels_compile_ahead_of_time_for_gpus_that_are_not_here():
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "compiled 8"
