"""wkv, lif and pluecker_mean: their definitions, their backends, their laws."""

import math
from contextlib import nullcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core_attn import lif, pluecker_mean, use_backend, why, wkv
from core_attn.ops._along_tokens import native

needs_kernel = pytest.mark.skipif(native.missing() is not None, reason=str(native.missing()))
CPU = pytest.param("cpu", marks=needs_kernel)


def keys_of(tokens, channels, size=1.0, dtype=torch.float32, batch=2):
    torch.manual_seed(tokens + channels)
    k = size * torch.randn(batch, tokens, channels, dtype=dtype)
    v = torch.randn(batch, tokens, channels, dtype=dtype)
    return k, v, -torch.rand(channels, dtype=dtype) * 2, torch.randn(channels, dtype=dtype)


def with_gradients(run, inputs, cotangents):
    leaves = [x.clone().requires_grad_() for x in inputs]
    outs = run(*leaves)
    outs = outs if isinstance(outs, tuple) else (outs,)
    loss = sum((y * c).sum() for y, c in zip(outs, cotangents, strict=True))
    return [y.detach() for y in outs], torch.autograd.grad(loss, leaves)


def run_wkv(k, v, w, u):
    out, state = wkv(k, v, log_decay=w, bonus=u)
    return out, state[:, :2]


@torch.no_grad()
def test_wkv_is_a_weighted_mean():
    k, v, w, u = keys_of(9, 3, dtype=torch.float64)
    out, _ = wkv(k, v, log_decay=w, bonus=u)
    for t in range(9):
        logs = torch.stack([(t - 1 - i) * w + k[:, i] for i in range(t)] + [u + k[:, t]], 1)
        expected = (logs.softmax(1) * v[:, : t + 1]).sum(1)
        torch.testing.assert_close(out[:, t], expected)


def test_wkv_differentiates_twice():
    k, v, w, u = (x[:1] if x.dim() == 3 else x for x in keys_of(4, 2, dtype=torch.float64))
    inputs = [x.requires_grad_() for x in (k, v, w, u)]

    def run(k, v, w, u):
        return wkv(k, v, log_decay=w, bonus=u)[0]

    with use_backend("reference"):
        assert torch.autograd.gradcheck(run, inputs)
        assert torch.autograd.gradgradcheck(run, inputs)


@pytest.mark.parametrize("backend", [CPU, "chunked"])
@pytest.mark.parametrize("size", [1.0, 60.0])
@pytest.mark.parametrize("tokens, channels", [(1, 1), (2, 5), (63, 64), (65, 70), (130, 7)])
def test_wkv_backends_give_the_definition(backend, size, tokens, channels):
    inputs = keys_of(tokens, channels, size)
    cotangents = [torch.randn(2, tokens, channels), 0.1 * torch.randn(2, 2, channels)]
    with use_backend("reference"):
        expected, wanted = with_gradients(run_wkv, inputs, cotangents)
    with use_backend(backend):
        outs, grads = with_gradients(run_wkv, inputs, cotangents)
    for ours, theirs in zip((*outs, *grads), (*expected, *wanted), strict=True):
        assert ours.isfinite().all()
        rtol = 1e-3 if size > 1 else 1e-4  # sums over texts and tokens of large terms
        torch.testing.assert_close(ours, theirs, rtol=rtol, atol=1e-4)


@pytest.mark.parametrize("backend", [CPU, "chunked", "reference"])
@given(cut=st.integers(0, 20))
@settings(max_examples=8, deadline=None)
@torch.no_grad()
def test_wkv_cut_anywhere_is_the_whole(backend, cut):
    k, v, w, u = keys_of(20, 6, 10.0)
    with use_backend(backend):
        whole, last = wkv(k, v, log_decay=w, bonus=u)
        parts, state = [], None
        for piece in (slice(0, cut), slice(cut, None)):
            if k[:, piece].shape[1]:
                out, state = wkv(k[:, piece], v[:, piece], log_decay=w, bonus=u, state=state)
                parts.append(out)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(state, last, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", [CPU, "chunked"])
def test_gradients_go_through_the_state(backend):
    k, v, w, u = keys_of(12, 4)

    def halves(k, v, w, u):
        first, state = wkv(k[:, :7], v[:, :7], log_decay=w, bonus=u)
        second, _ = wkv(k[:, 7:], v[:, 7:], log_decay=w, bonus=u, state=state)
        return torch.cat((first, second), 1)

    cotangent = [torch.randn(2, 12, 4)]
    with use_backend("reference"):
        _, wanted = with_gradients(lambda *x: run_wkv(*x)[0], (k, v, w, u), cotangent)
    with use_backend(backend):
        _, grads = with_gradients(halves, (k, v, w, u), cotangent)
    torch.testing.assert_close(grads, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", [CPU, "chunked", "reference"])
def test_the_scale_of_the_state_carries_no_gradient(backend):
    k, v, w, u = keys_of(3, 4)
    state = wkv(k, v, log_decay=w, bonus=u)[1].requires_grad_()
    with use_backend(backend):
        out, _ = wkv(k, v, log_decay=w, bonus=u, state=state)
    (grad,) = torch.autograd.grad(out.sum(), state)
    assert (grad[:, :2] != 0).all() and (grad[:, 2] == 0).all()


def test_what_decides_nothing_is_no_trouble_to_second_derivatives():
    k, v, w, u = (x.requires_grad_() for x in keys_of(1, 4))  # nothing decays
    z = torch.randn(1, 3, 4, requires_grad=True)  # nothing is paired
    for out, leaves in (
        (wkv(k, v, log_decay=w, bonus=u)[0], (k, v, w, u)),
        (pluecker_mean(z, [5, -7]), (z,)),
    ):
        first = torch.autograd.grad(out.sum(), leaves, create_graph=True, allow_unused=True)
        assert all(x is None or x.isfinite().all() for x in first)


@pytest.mark.parametrize("backend", ["reference", None])
def test_without_tokens_there_are_gradients(backend):
    x = torch.randn(2, 0, 4, requires_grad=True)
    w = -torch.rand(4)
    with use_backend(backend) if backend else nullcontext():
        for out in (lif(x)[0], wkv(x, x, log_decay=w, bonus=w)[0], pluecker_mean(x, [1])):
            assert torch.autograd.grad(out.sum(), x)[0].shape == x.shape


def test_lif_gradient_by_hand():
    """Three steps of one neuron, tau 2: h = (v + x) / 2, a spike at the second."""
    x = torch.tensor([0.8, 1.9, 0.6], dtype=torch.float64)
    h1 = 0.4
    h2 = (h1 + 1.9) / 2
    h3 = 0.3

    def slope(h):
        return 1 / (1 + (math.pi * (h - 1)) ** 2)

    dh3 = slope(h3)
    dv2 = dh3 / 2
    dh2 = slope(h2) + dv2 * ((1 - 1) - h2 * slope(h2))
    dv1 = dh2 / 2
    dh1 = slope(h1) + dv1 * ((1 - 0) - h1 * slope(h1))
    leaf = x.view(1, 3, 1).clone().requires_grad_()
    spikes, membrane = lif(leaf)
    assert spikes.flatten().tolist() == [0, 1, 0] and membrane.item() == pytest.approx(h3)
    spikes.sum().backward()
    torch.testing.assert_close(leaf.grad.flatten() * 2, torch.tensor([dh1, dh2, dh3]).double())


@needs_kernel
@pytest.mark.parametrize("tau, threshold", [(2.0, 1.0), (1.0, 0.3), (5.0, 0.7)])
@pytest.mark.parametrize("tokens, channels", [(1, 1), (7, 64), (40, 70)])
def test_lif_kernel_gives_the_definition(tokens, channels, tau, threshold):
    torch.manual_seed(1)
    inputs = (2 * torch.randn(2, tokens, channels), torch.rand(2, channels))
    cotangents = [torch.randn(2, tokens, channels), torch.randn(2, channels)]

    def run(x, state):
        return lif(x, tau=tau, threshold=threshold, state=state)

    with use_backend("reference"):
        expected, wanted = with_gradients(run, inputs, cotangents)
    with use_backend("cpu"):
        outs, grads = with_gradients(run, inputs, cotangents)
    assert outs[0].equal(expected[0])
    torch.testing.assert_close(outs[1], expected[1])
    torch.testing.assert_close(grads, wanted, rtol=1e-4, atol=1e-6)


OFFSETS = [(1,), (1, 2, 4), (3, 1, 100), (-1, 1, 2)]


@pytest.mark.parametrize("backend", [CPU, "factored"])
@pytest.mark.parametrize("offsets", OFFSETS)
@pytest.mark.parametrize("tokens, dim", [(2, 2), (5, 3), (20, 7), (9, 32)])
def test_pluecker_backends_give_the_definition(backend, offsets, tokens, dim):
    torch.manual_seed(2)
    z = torch.randn(2, tokens, dim)
    cotangent = [torch.randn(2, tokens, dim * (dim - 1) // 2)]

    def run(z):
        return pluecker_mean(z, offsets)

    with use_backend("reference"):
        (expected,), (wanted,) = with_gradients(run, (z,), cotangent)
    with use_backend(backend):
        (out,), (grad,) = with_gradients(run, (z,), cotangent)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(grad, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("backend", [CPU, "factored", "reference"])
def test_parallel_and_zero_vectors_have_no_plane_and_finite_gradients(backend):
    z = torch.tensor([[[1.0, 2.0, -3.0], [1.0, 2.0, -3.0], [2.0, 4.0, -6.0], [0.0, 0.0, 0.0]]])
    z.requires_grad_()
    with use_backend(backend):
        p = pluecker_mean(z, [1, 2])
    assert p.abs().max() == 0
    p.sum().backward()
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("backend", [CPU, "factored", "reference"])
@torch.no_grad()
def test_without_a_partner_the_mean_is_zero(backend):
    with use_backend(backend):
        for z, offsets in ((torch.randn(2, 1, 5), [1, 2]), (torch.randn(2, 6, 5), [100])):
            assert pluecker_mean(z, offsets).equal(torch.zeros(*z.shape[:2], 10))


@pytest.mark.parametrize("backend", [CPU, "factored", "reference"])
@given(scale=st.floats(0.01, 100.0))
@settings(max_examples=10, deadline=None)
@torch.no_grad()
def test_planes_are_projective(backend, scale):
    torch.manual_seed(3)
    z = torch.randn(1, 2, 4)
    with use_backend(backend):
        p = pluecker_mean(z, [1])[0, 1]
        scaled = pluecker_mean(z * torch.tensor([1.0, scale])[:, None], [1])[0, 1]
        swapped = pluecker_mean(z.flip(1), [1])[0, 1]
    torch.testing.assert_close(scaled, p, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(swapped, -p, rtol=1e-4, atol=1e-5)
    relation = p[0] * p[5] - p[1] * p[4] + p[2] * p[3]  # 01 23 - 02 13 + 03 12
    assert abs(relation.item()) < 1e-6


def test_pluecker_differentiates_twice():
    z = torch.randn(1, 4, 3, dtype=torch.float64, requires_grad=True)
    for backend in ("reference", "factored"):
        with use_backend(backend):
            assert torch.autograd.gradcheck(lambda z: pluecker_mean(z, [1, 2]), [z])
            assert torch.autograd.gradgradcheck(lambda z: pluecker_mean(z, [1, 2]), [z])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_half_precision_computes_wide(dtype):
    k, v, w, u = keys_of(20, 6)
    out, state = wkv(k.to(dtype), v.to(dtype), log_decay=w, bonus=u)
    assert out.dtype == state.dtype == torch.float32
    exact, _ = wkv(k.to(dtype).float(), v.to(dtype).float(), log_decay=w, bonus=u)
    torch.testing.assert_close(out, exact)
    z = torch.randn(2, 9, 5).to(dtype)
    exact = pluecker_mean(z.float(), [1, 2])
    torch.testing.assert_close(pluecker_mean(z, [1, 2]).float(), exact, rtol=2e-2, atol=1e-2)
    assert lif(z)[0].dtype == dtype and lif(z)[1].dtype == torch.float32


@needs_kernel
def test_the_kernel_is_the_first_choice_and_takes_strided_tensors():
    k, v, w, u = keys_of(8, 6)
    assert why(wkv, k, v, log_decay=w, bonus=u)[0].backend == "cpu"
    turned = k.transpose(0, 1).contiguous().transpose(0, 1)
    out, _ = wkv(turned, v, log_decay=w, bonus=u)
    assert out.equal(wkv(k, v, log_decay=w, bonus=u)[0])


@pytest.mark.traces
@needs_kernel
def test_the_kernels_compile_into_a_graph():
    k, v, w, u = keys_of(8, 6)
    run = torch.compile(lambda k: wkv(k, v, log_decay=w, bonus=u)[0] + lif(k)[0], fullgraph=True,
                        backend="eager")  # fmt: skip
    torch.testing.assert_close(run(k), wkv(k, v, log_decay=w, bonus=u)[0] + lif(k)[0])


@pytest.mark.refuses
@pytest.mark.parametrize(
    "call, message",
    [
        (lambda k, v, w, u: wkv(k, v[:, :3], log_decay=w, bonus=u), "alike"),
        (lambda k, v, w, u: wkv(k, v, log_decay=-w, bonus=u), "log_decay must be at most 0"),
        (lambda k, v, w, u: wkv(k, v, log_decay=w * math.nan, bonus=u), "at most 0, got nan"),
        (lambda k, v, w, u: wkv(k, v, log_decay=w[:2], bonus=u), r"log_decay must be \(6,\)"),
        (lambda k, v, w, u: wkv(k, v, log_decay=w, bonus=u, state=k[:, :2]), "state must be"),
        (
            lambda k, v, w, u: wkv(
                k, v, log_decay=w, bonus=u, state=torch.full((len(k), 3, 6), torch.nan)
            ),
            "state holds NaN",
        ),
        (lambda k, v, w, u: lif(k, state=k[:, 0] * torch.nan), "state holds NaN"),
        (lambda k, v, w, u: lif(k, tau=0.5), "tau must be at least 1"),
        (lambda k, v, w, u: lif(k, threshold=0.0), "threshold must be above 0"),
        (lambda k, v, w, u: lif(k, state=w), "state must be"),
        (lambda k, v, w, u: pluecker_mean(k, [0, 1]), "offsets must be distinct and not 0"),
        (lambda k, v, w, u: pluecker_mean(k, [1, 1]), "offsets must be distinct"),
        (lambda k, v, w, u: pluecker_mean(k[..., :1], [1]), "dim 2 or more"),
        (lambda k, v, w, u: pluecker_mean(k, [1], eps=0.0), "eps must be above 0"),
    ],
)
def test_what_does_not_fit_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(*keys_of(8, 6))
