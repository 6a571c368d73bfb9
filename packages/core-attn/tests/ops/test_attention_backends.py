import subprocess
import sys
from contextlib import nullcontext

import pytest
import torch

from core_attn import attention, use_backend, why
from core_attn.ops._dispatch import constant_in_graphs
from core_attn.ops._short_attention import native

OPTIONS = {
    "plain": lambda: {},
    "causal": lambda: {"causal": True},
    "window": lambda: {"window": (3, 1), "scale": 0.7},
    "lengths": lambda: {"lengths": torch.arange(256) % 14},
    "mask and bias": lambda: {
        "mask": torch.rand(256, 1, 11, 13) > 0.6,
        "bias": torch.randn(4, 11, 13, requires_grad=True),
    },
    "maps and gate": lambda: {
        "k_head_map": [1, 0, 1, 1],
        "v_head_map": [0, 0, 1, 0],
        "head_gate": torch.rand(256, 11, 4, requires_grad=True),
    },
}


@pytest.mark.skipif(native.missing() is not None, reason=str(native.missing()))
@pytest.mark.parametrize("case", OPTIONS)
def test_many_problems_of_few_tokens_take_the_short_kernel_and_agree(case):
    torch.manual_seed(0)
    heads = 2 if case == "maps and gate" else 4
    q, k, v = (torch.randn(256, h, t, 8, requires_grad=True) for h, t in
               ((4, 11), (heads, 13), (heads, 13)))  # fmt: skip
    options = OPTIONS[case]()
    assert why(attention, q, k, v, **options)[0].backend == "short"
    with use_backend("reference"):
        expected = attention(q, k, v, **options)
    actual = attention(q, k, v, **options)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
    leaves = [q, k, v, *(x for x in options.values() if getattr(x, "requires_grad", False))]
    cotangent = torch.randn_like(actual)
    for got, want in zip(
        torch.autograd.grad(actual, leaves, cotangent),
        torch.autograd.grad(expected, leaves, cotangent),
        strict=True,
    ):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_a_small_call_is_not_worth_the_short_kernel():
    q = torch.randn(2, 4, 11, 8)
    assert why(attention, q, q, q)[0].backend == "sdpa"


@pytest.mark.traces
@pytest.mark.parametrize("backend", ["reference", "sdpa", None])
def test_compiles_and_exports_without_a_graph_break(backend):
    q, k, v = torch.randn(3, 2, 4, 7, 6).unbind(0)
    mask = torch.rand(2, 1, 7, 7) > 0.3

    class Module(torch.nn.Module):
        def forward(self, q, k, v):
            return attention(q, k, v, mask=mask, causal=True)

    with use_backend(backend) if backend else nullcontext():
        expected = Module()(q, k, v)
        compiled = torch.compile(Module(), fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(q, k, v), expected)
        exported = torch.export.export(Module(), (q, k, v)).module()
        torch.testing.assert_close(exported(q, k, v), expected)


def test_importing_does_not_wait_for_dynamo():
    code = "import sys, core_attn; sys.exit('torch._dynamo' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    ours, theirs = (lambda: 0), (lambda: 0)
    constant_in_graphs(ours)
    torch.compiler.assume_constant_result(theirs)
    assert vars(ours) == vars(theirs) != {}


def test_mixed_dtypes_under_autocast_as_after_rotary_positions():
    q, k, v = torch.randn(3, 2, 2, 5, 8).bfloat16().unbind(0)
    turn = torch.randn(5, 8)  # q and k become float32, v stays
    with torch.autocast("cpu", torch.bfloat16):
        out = attention(q * turn, k * turn, v, head_gate=torch.rand(2, 2))
        assert out.dtype == torch.bfloat16
        exact = attention(q.double(), k.double(), v.double())
    assert exact.dtype == torch.float64  # as torch's own attention
    with pytest.raises(ValueError, match="v has dtype torch.bfloat16 but q has torch.float32"):
        attention(q * turn, k * turn, v)


@pytest.mark.parametrize("batch", [2, 512])
def test_autocast_and_derivatives_do_not_depend_on_the_batch(batch):
    q = torch.randn(batch, 8, 20, 16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert attention(q, q, q).dtype == torch.bfloat16
    small = q[:2].detach().requires_grad_()
    seconds = []
    for x in (q, small):

        def derive(x=x):
            (first,) = torch.autograd.grad(attention(x, x, x).sum(), x, create_graph=True)
            seconds.append(torch.autograd.grad(first.square().sum(), x)[0])

        choices = why(derive)
    torch.testing.assert_close(seconds[0][:2], seconds[1], rtol=1e-3, atol=1e-4)
    assert choices[-1].backend == "reference" and "second derivative" in str(choices[-1])


def test_second_derivatives_of_one_tensor_in_three_places():
    x = torch.randn(2, 2, 5, 8, requires_grad=True)
    found = []
    for backend in ("sdpa", "reference"):
        with use_backend(backend):
            (first,) = torch.autograd.grad(attention(x, x, x).sin().sum(), x, create_graph=True)
            found.append([first, *torch.autograd.grad(first.square().sum(), x)])
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_vmap_over_lengths():
    q, lengths = torch.randn(5, 2, 9, 8), torch.arange(1, 6)
    out = torch.func.vmap(
        lambda x, n: attention(x[None], x[None], x[None], lengths=n[None])[0]
    )(q, lengths)  # fmt: skip
    torch.testing.assert_close(out, attention(q, q, q, lengths=lengths))


def test_heads_in_groups_are_not_laid_out_for_decoding():
    q, k, v = torch.randn(2, 8, 1, 16), torch.randn(2, 2, 9, 16), torch.randn(2, 2, 9, 16)
    with torch.profiler.profile(record_shapes=True) as profile:
        out = attention(q, k, v, causal=True)
    large = [e for e in profile.events() if e.name in ("aten::index", "aten::copy_")]
    assert not [e for e in large if [2, 8, 9, 16] in e.input_shapes]
    with use_backend("reference"):
        torch.testing.assert_close(out, attention(q, k, v))
