import pytest
import torch
from torch.testing import assert_close

from core_attn import short_attention_block, use_backend, why
from core_attn.ops._short_attention import native

needs_kernel = pytest.mark.skipif(native.missing() is not None, reason=f"{native.missing()}")
NAMES = ("x", "weight", "bias", "gain", "shift")


def arguments(batch, tokens, in_width, width, parts, *, bias=True, norm=True, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    found = {"x": normal(*batch, tokens, in_width), "weight": normal(parts * width, in_width) / 4}
    if bias:
        found["bias"] = normal(parts * width)
    if norm:
        found |= {"gain": 1 + normal(width) / 4, "shift": normal(width)}
    return found


CASES = {
    "official": (((50,), 39, 16, 64, 4), {"activation": "relu", "residual": "linear_relu"}),
    "plain": (((9,), 7, 32, 32, 3), {}),
    "paper": (((3, 5), 13, 16, 48, 4), {"residual": "linear"}),
    "identity, norm first": (((20,), 6, 32, 32, 3), {"residual": "identity", "norm_first": True}),
    "mixed": (((7,), 23, 16, 32, 4), {"residual": "linear_relu", "norm_first": True}),
    "two tokens": (((1,), 2, 16, 16, 4), {"activation": "relu", "residual": "linear"}),
    "most tokens": (((2,), 128, 64, 128, 4), {"residual": "linear", "scale": 1.0}),
    "narrow heads": (((5,), 39, 16, 16, 4), {"residual": "linear", "scale": 1.0}),
    "input of no whole vectors": (((6,), 12, 10, 32, 4), {"residual": "linear_relu"}),
    "factored from no whole vectors": (((6,), 12, 5, 64, 4), {"residual": "linear"}),
    "one problem": (((), 9, 16, 32, 4), {"residual": "linear"}),
    "factored": (((6,), 9, 16, 64, 3), {}),
    "factored, three heads": (((5,), 39, 16, 96, 4), {"residual": "linear", "heads": 3}),
    "wide strips": (((4,), 10, 80, 144, 3), {"activation": "relu", "heads": 3}),
}


def results(call, options, dtype, cotangent):
    call = {name: x.to(dtype).requires_grad_() for name, x in call.items()}
    out = short_attention_block(**call, **options)
    return [out, *torch.autograd.grad(out, list(call.values()), cotangent.to(dtype))]


@needs_kernel
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_the_kernel_agrees_with_the_definition(name, norm, bias):
    shape, options = CASES[name]
    call = arguments(*shape, bias=bias, norm=norm)
    options = {"heads": 2, "eps": 1e-3, **options}
    assert why(short_attention_block, **call, **options)[0].backend == "cpu"
    generator = torch.Generator().manual_seed(1)
    grad = torch.randn(short_attention_block(**call, **options).shape, generator=generator)
    ours = results(call, options, torch.float32, grad)
    with use_backend("reference"):
        exact = results(call, options, torch.float64, grad)
    assert_close(short_attention_block(**call, **options), ours[0].detach())  # keeps nothing
    for x, y in zip(ours, exact, strict=True):
        assert_close(x.double(), y, rtol=1e-4, atol=3e-5 * max(1.0, float(y.detach().abs().max())))


def test_a_backend_that_the_block_lacks_computes_its_heads():
    call, options = arguments((3,), 6, 16, 16, 3), {"heads": 2}
    with use_backend("reference"):
        choices = why(short_attention_block, **call, **options)
    assert [(choice.operator, choice.backend) for choice in choices] == [
        ("short_attention_block", "composed"),
        ("short_attention", "reference"),
    ]
    with use_backend("triton"), pytest.raises(ValueError, match="short_attention: no backend of"):
        short_attention_block(**call, **options)


@needs_kernel
def test_the_number_of_threads_does_not_change_a_bit():
    call, options = arguments((200,), 6, 16, 64, 4), {"heads": 2, "residual": "linear"}
    grad = torch.randn(200, 6, 64)
    found = []
    for threads in (1, 2):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        found.append(results(call, options, torch.float32, grad))
        torch.set_num_threads(before)
    assert all(map(torch.equal, *found))


@needs_kernel
@pytest.mark.parametrize(("width", "bias"), [(16, True), (64, False)])  # the second is factored
def test_dropout_acts_and_its_two_derivatives_agree(width, bias):
    call = arguments((5,), 7, 16, width, 4, bias=bias)
    call = {name: x.requires_grad_() for name, x in call.items()}
    options = {"heads": 2, "residual": "linear", "dropout": 0.5}
    torch.manual_seed(0)
    out = short_attention_block(**call, **options)
    assert not torch.equal(out, short_attention_block(**call, **options))
    leaves, grad = list(call.values()), torch.randn_like(out)
    once = torch.autograd.grad(out, leaves, grad, retain_graph=True)
    again = torch.autograd.grad(out, leaves, grad, create_graph=True)  # by the definition
    for x, y in zip(once, again, strict=True):
        assert_close(x, y.detach(), rtol=1e-4, atol=1e-4)
    second = torch.autograd.grad(sum(x.square().sum() for x in again), leaves[:-1])
    assert all(x.isfinite().all() for x in second)


def test_a_layer_can_compute_the_heads_itself():
    call, seen = arguments((3,), 5, 8, 8, 3), []

    def attend(q, k, v):
        seen.append((q @ k.transpose(-2, -1) / 2).softmax(-1))
        return (seen[0] @ v).transpose(-2, -3)

    out = short_attention_block(**call, heads=2, attend=attend)
    assert_close(out, short_attention_block(**call, heads=2))
    assert seen[0].shape == (3, 2, 5, 5)


def test_half_floats_keep_a_small_epsilon():
    call = {name: x.bfloat16() for name, x in arguments((3,), 5, 16, 16, 3).items()}
    call["weight"] = torch.zeros_like(call["weight"])
    call["bias"] = torch.zeros_like(call["bias"])
    out = short_attention_block(**call, heads=2, eps=1e-8)
    assert out.dtype == torch.bfloat16 and out.isfinite().all()


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"heads": 3}, "width divisible by heads 3"),
        ({"weight": torch.zeros(50, 8)}, {"residual": "linear"}, "must hold 4 maps"),
        ({}, {"residual": "identity"}, "needs width 16 = in_width 8"),
        ({}, {"activation": "gelu"}, "activation must be one of"),
        ({"shift": None}, {}, "gain and shift belong together"),
        ({"bias": torch.zeros(5)}, {}, r"bias must have shape \(48,\), got \(5,\)"),
        ({"weight": torch.zeros(48, 9)}, {}, r"got \(2, 5, 8\) and \(48, 9\)"),
        ({}, {"dropout": 1.0}, "dropout must be"),
        ({}, {"heads": 2.0}, "divisible by heads 2.0"),
        ({}, {"eps": -1.0}, "eps must be a finite number"),
    ],
)
def test_bad_arguments_are_refused(change, options, message):
    call = arguments((2,), 5, 8, 16, 3) | change
    with pytest.raises(ValueError, match=message):
        short_attention_block(**call, **{"heads": 2, **options})
