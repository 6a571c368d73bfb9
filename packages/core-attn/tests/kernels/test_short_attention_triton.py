import pytest
import torch

from core_attn import attention_weights, use_backend
from core_attn.ops import short_attention

from .comparing import CHECKS, assert_drops_the_same_both_ways, assert_like_reference, rounded

LENGTHS = [5, 0, 9, 12, 1, 20]


def make(device, dtype=torch.float32, *, batch=(3,), heads=2, tokens=(18, 18), dims=(20, 12)):
    (queries, keys), (dim, v_dim) = tokens, dims
    return [
        rounded((*batch, heads, queries, dim), dtype, device, 0),
        rounded((*batch, heads, keys, dim), dtype, device, 1),
        rounded((*batch, heads, keys, v_dim), dtype, device, 2),
    ]


def make_packed(device, dtype=torch.float32, heads=2, dims=(20, 12)):
    total = sum(LENGTHS)
    tensors = [
        rounded((total, heads, dim), dtype, device, seed)
        for seed, dim in enumerate((dims[0], dims[0], dims[1]))
    ]
    return tensors, torch.tensor([0, *LENGTHS]).cumsum(0).to(device)


def random_mask(device, *shape):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(0)) > 0.4
    mask[..., 1, :] = False
    return mask.to(device)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_several_problems_a_program(device, dtype):
    assert_like_reference(short_attention, make(device, dtype, batch=(7,), heads=3))


@pytest.mark.parametrize(
    ("tokens", "dtype"),
    [
        ((2, 2), torch.float32),
        ((9, 30), torch.float32),
        ((64, 64), torch.float32),
        ((65, 3), torch.float16),
    ],
)
@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_sizes(device, tokens, dtype, batch):
    assert_like_reference(short_attention, make(device, dtype, batch=batch, tokens=tokens, heads=2))


def test_the_longest(device):
    tensors = make(device, torch.bfloat16, batch=(2,), heads=1, tokens=(128, 128), dims=(64, 64))
    bias = rounded((1, 128, 128), torch.float32, device, 3)
    assert_like_reference(short_attention, tensors, bias=bias)


@pytest.mark.parametrize("shape", [(2, 18, 18), (3, 2, 18, 18), (3, 1, 1, 18), (18, 1), (1, 1)])
def test_bias_gradient_is_summed_over_broadcast_axes(device, shape):
    bias = rounded(shape, torch.float32, device, 3)
    assert_like_reference(short_attention, make(device), bias=bias)


def test_a_shared_bias_gradient_has_one_order_in_deterministic_mode(device, monkeypatch):
    from core_attn.ops._short_attention import triton_kernels as kernels

    planned, launch_of = [], kernels.launch_of
    monkeypatch.setattr(
        kernels,
        "launch_of",
        lambda *given, **outputs: planned.append(outputs) or launch_of(*given, **outputs),
    )
    tensors, offsets = make_packed(device)
    torch.use_deterministic_algorithms(True)
    try:
        assert_like_reference(
            short_attention, tensors, offsets=offsets,
            bias=rounded((2, 20, 20), torch.float32, device, 3),
        )  # fmt: skip
        bias = rounded((18, 1), torch.float32, device, 3)
        assert_like_reference(short_attention, make(device), bias=bias)
    finally:
        torch.use_deterministic_algorithms(False)
    assert [x["SHARED_BIAS"] for x in planned if "SHARED_BIAS" in x] == [False, False]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_that_see_nothing(device, dtype):
    bias = rounded((2, 18, 18), dtype, device, 3)
    with torch.no_grad():
        bias[:, 3] = -torch.inf
    mask = random_mask(device, 3, 1, 18, 18)
    assert_like_reference(short_attention, make(device, dtype), bias=bias, mask=mask)


@pytest.mark.parametrize("shape", [(3, 2), (3, 18, 2)])
def test_head_gate(device, shape):
    gate = rounded(shape, torch.float32, device, 3)
    assert_like_reference(short_attention, make(device), head_gate=gate)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed(device, dtype):
    tensors, offsets = make_packed(device, dtype)
    assert_like_reference(short_attention, tensors, offsets=offsets)


@pytest.mark.parametrize("gate_shape", [(len(LENGTHS), 2), (sum(LENGTHS), 2)])
@pytest.mark.parametrize("bias_shape", [(2, 20, 20), (len(LENGTHS), 1, 20, 20)])
def test_packed_with_everything(device, gate_shape, bias_shape):
    tensors, offsets = make_packed(device)
    assert_like_reference(
        short_attention,
        tensors,
        offsets=offsets,
        bias=rounded(bias_shape, torch.float32, device, 3),
        mask=random_mask(device, len(LENGTHS), 1, 20, 20),
        head_gate=rounded(gate_shape, torch.float32, device, 4),
    )


def test_split_of_heads_is_read_where_it_lies(device):
    fused = rounded((5, 11, 3, 2, 16), torch.float32, device, 0)
    q, k, v = (x.detach() for x in fused.permute(2, 0, 3, 1, 4).unbind(0))
    assert_like_reference(short_attention, [x.requires_grad_() for x in (q, k, v)])
    with use_backend("triton"):
        assert short_attention(q, k, v).transpose(1, 2).is_contiguous()


def test_dropout(device):
    tensors = make(device, batch=(4,), heads=2, tokens=(27, 31), dims=(16, 16))
    weights = attention_weights(*tensors[:2])
    assert_drops_the_same_both_ways(short_attention, tensors, weights, 0.3)


def test_second_derivative_with_dropout_is_refused(device):
    q, k, v = make(device)
    with use_backend("triton"):
        out = short_attention(q, k, v, dropout=0.1)
    (dq,) = torch.autograd.grad(out.sum(), q, create_graph=True)
    with pytest.raises(NotImplementedError, match=r'use_backend\("reference"\)'):
        torch.autograd.grad(dq.sum(), k)


def test_operator_is_well_formed(device):
    q, k, v = make(device)
    bias = rounded((1, 2, 18, 18), torch.float32, device, 3)
    gate = rounded((3, 2, 1), torch.float32, device, 4)
    arguments = (q, k, v, bias, None, None, gate, None, 18, 0.3, 0.0)
    torch.library.opcheck(
        torch.ops.core_attn.short_attention_triton.default, arguments, test_utils=CHECKS
    )
    (q, k, v), offsets = make_packed(device)
    q, k, v = (x.detach().transpose(0, 1)[None].requires_grad_() for x in (q, k, v))
    arguments = (q, k, v, None, None, offsets, None, None, 20, 0.3, 0.0)
    torch.library.opcheck(
        torch.ops.core_attn.short_attention_triton.default, arguments, test_utils=CHECKS
    )


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="torch sees no second GPU")
def test_second_device_while_the_first_is_current():
    assert_like_reference(short_attention, make(torch.device("cuda:1")))


def test_offsets_with_strides(device):
    offsets = torch.tensor([0, 9, 7, 9, 20, 9], device=device)[::2]
    for shape in ((20, 2, 16), (2, 20, 16)):  # tokens or heads first
        tensors = [rounded(shape, torch.float32, device, seed) for seed in range(3)]
        assert_like_reference(short_attention, tensors, offsets=offsets)


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # in base two
def test_a_finite_bias_forbids_nothing(device):
    tensors, bias = make(device), torch.zeros(18, 18, device=device)
    bias[3] = bias[4, 2:] = torch.finfo(bias.dtype).min
    with use_backend("triton"):
        out = short_attention(*tensors, bias=bias)
    with use_backend("reference"):
        expected = short_attention(*tensors, bias=bias)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
