import pytest
import torch

from core_attn import attention, attention_lse, attention_weights, use_backend

from .comparing import CHECKS, assert_drops_the_same_both_ways, assert_like_reference, rounded

HALVES = [torch.bfloat16, torch.float16]


def make(
    device, dtype=torch.float32, *, batch=(2,), heads=(2, 2, 2), tokens=(37, 53), dims=(20, 12)
):
    (q_heads, k_heads, v_heads), (queries, keys), (dim, v_dim) = heads, tokens, dims
    return [
        rounded((*batch, q_heads, queries, dim), dtype, device, 0),
        rounded((*batch, k_heads, keys, dim), dtype, device, 1),
        rounded((*batch, v_heads, keys, v_dim), dtype, device, 2),
    ]


def holed_bias(device, dtype=torch.float32, shape=(2, 2, 37, 53)):
    """A bias that forbids some keys to a head and all keys to one query."""
    bias = rounded(shape, dtype, device, 3)
    with torch.no_grad():
        bias[..., 0, :, 5:] = -torch.inf
        bias[..., 1, 3, :] = -torch.inf
    return bias


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_plain(device, dtype):
    assert_like_reference(attention, make(device, dtype))


@pytest.mark.parametrize(
    ("dims", "dtype"),
    [((8, 8), torch.float32), ((33, 64), torch.float32), ((100, 128), torch.float16)],
)
def test_head_dims(device, dims, dtype):
    assert_like_reference(attention, make(device, dtype, batch=(1,), heads=(2, 2, 2), dims=dims))


def test_many_tiles(device):
    tensors = make(device, batch=(1,), heads=(1, 1, 1), tokens=(150, 275))
    assert_like_reference(attention, tensors, causal=True)
    assert_like_reference(attention, tensors, window=(20, 3))


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_bias_with_rows_that_see_nothing(device, dtype):
    tensors = make(device, dtype)
    assert_like_reference(attention, tensors, bias=holed_bias(device, dtype))


def test_bias_of_wider_dtype(device):
    assert_like_reference(attention, make(device, torch.bfloat16), bias=holed_bias(device))


@pytest.mark.parametrize(
    "shape", [(1, 2, 37, 53), (37, 53), (2, 1, 1, 53), (2, 37, 1), (2, 1, 1, 1), (1, 1)]
)
def test_bias_gradient_is_summed_over_broadcast_axes(device, shape):
    assert_like_reference(attention, make(device), bias=rounded(shape, torch.float32, device, 3))


def test_several_batch_axes(device):
    tensors = make(device, batch=(2, 2), heads=(2, 1, 1), tokens=(5, 9))
    bias = rounded((2, 1, 1, 5, 9), torch.float32, device, 3)
    mask = torch.rand(2, 2, 1, 1, 9, generator=torch.Generator().manual_seed(0)) > 0.3
    lengths = torch.tensor([[9, 3], [0, 7]], device=device)
    assert_like_reference(attention, tensors, bias=bias, mask=mask.to(device), lengths=lengths)


def test_no_batch_axis(device):
    assert_like_reference(attention, make(device, batch=()), causal=True)


@pytest.mark.parametrize("shape", [(2, 1, 37, 53), (2, 1, 1, 53), (2, 37, 53)])
def test_mask(device, shape):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(0)) > 0.5
    mask[0, :, 0] = False
    assert_like_reference(attention, make(device), mask=mask.to(device))


def test_lengths(device):
    lengths = torch.tensor([7, 0], device=device)
    assert_like_reference(attention, make(device), lengths=lengths)


@pytest.mark.parametrize("tokens", [(37, 53), (60, 40), (1, 53)])
@pytest.mark.parametrize(
    "options", [{"causal": True}, {"window": (5, 2)}, {"window": 9, "causal": True}]
)
def test_causal_and_window(device, tokens, options):
    assert_like_reference(attention, make(device, tokens=tokens), **options)


def test_head_maps(device):
    assert_like_reference(attention, make(device, heads=(4, 2, 1)))
    tensors = make(device, heads=(3, 2, 4))
    assert_like_reference(attention, tensors, k_head_map=[1, 0, 1], v_head_map=[3, 3, 0])


@pytest.mark.parametrize("shape", [(2, 2), (2, 37, 2)])
def test_head_gate_even_where_it_is_zero(device, shape):
    gate = rounded(shape, torch.float32, device, 3)
    with torch.no_grad():
        gate[0] = 0.0
    assert_like_reference(attention, make(device), head_gate=gate)


def test_everything_at_once(device):
    mask = torch.rand(2, 1, 37, 53, generator=torch.Generator().manual_seed(0)) > 0.2
    assert_like_reference(
        attention,
        make(device, torch.bfloat16, heads=(2, 1, 2)),
        bias=holed_bias(device, torch.bfloat16),
        mask=mask.to(device),
        lengths=torch.tensor([53, 30], device=device),
        window=(30, 10),
        scale=0.3,
        head_gate=rounded((2, 37, 2), torch.bfloat16, device, 4),
    )


def test_strided_views(device):
    fused = rounded((2, 11, 3, 4, 16), torch.float32, device, 0)
    q, k, v = fused.permute(2, 0, 3, 1, 4).detach().unbind(0)
    assert_like_reference(attention, [x.requires_grad_() for x in (q, k, v)])
    flipped = [x.detach().transpose(-1, -2).contiguous().transpose(-1, -2) for x in (q, k, v)]
    assert_like_reference(attention, [x.requires_grad_() for x in flipped])


def test_dropout(device):
    tensors = make(device, tokens=(33, 41))
    weights = attention_weights(*tensors[:2])
    assert_drops_the_same_both_ways(attention, tensors, weights, 0.3)


def test_second_derivative_with_dropout_is_refused(device):
    q, k, v = make(device, tokens=(5, 7))
    with use_backend("triton"):
        out = attention(q, k, v, dropout=0.1)
    (dq,) = torch.autograd.grad(out.sum(), q, create_graph=True)
    with pytest.raises(NotImplementedError, match=r'use_backend\("reference"\)'):
        torch.autograd.grad(dq.sum(), k)


def test_compiles_and_exports(device):
    class Attend(torch.nn.Module):
        def forward(self, q, k, v, bias):
            return attention(q, k, v, bias=bias, causal=True)

    arguments = (
        *make(device, heads=(4, 2, 2), tokens=(5, 7)),
        rounded((5, 7), torch.float32, device, 3),
    )
    with use_backend("triton"):
        expected = Attend()(*arguments)
        compiled = torch.compile(Attend(), backend="aot_eager", fullgraph=True)(*arguments)
        exported = torch.export.export(Attend(), arguments).module()(*arguments)
    torch.testing.assert_close(exported, expected)
    torch.testing.assert_close(compiled, expected)
    for got, want in zip(
        torch.autograd.grad(compiled.sum(), arguments),
        torch.autograd.grad(expected.sum(), arguments),
        strict=True,
    ):
        torch.testing.assert_close(got, want)


def test_operator_is_well_formed(device):
    q, k, v = make(device, batch=(1,), heads=(4, 2, 4), tokens=(5, 7))
    bias = rounded((1, 4, 5, 7), torch.float32, device, 3)
    gate = rounded((1, 4, 1), torch.float32, device, 4)
    arguments = (q, k, v, bias, None, None, gate, None, [0, 0, 1, 1], None, [3, 0], 0.3, 0.0)
    torch.library.opcheck(
        torch.ops.core_attn.attention_triton.default, arguments, test_utils=CHECKS
    )


@pytest.mark.parametrize("heads", [(2, 2, 2), (4, 2, 2)])
def test_logarithm_of_the_normaliser(device, heads):
    def both(*tensors, **options):
        out, lse = attention_lse(*tensors, **options)
        return torch.cat([out, lse.masked_fill(lse == -torch.inf, 0)[..., None]], -1)

    lengths = torch.tensor([11, 0], device=device)
    assert_like_reference(both, make(device, heads=heads, tokens=(9, 11)), lengths=lengths)


@pytest.mark.parametrize("options", [{"causal": True}, {"window": (9, 4)}, {}])
def test_groups_of_heads_share_a_tile(device, options):
    assert_like_reference(attention, make(device, heads=(6, 2, 2), tokens=(21, 40)), **options)


def test_groups_of_heads_with_everything(device):
    assert_like_reference(
        attention,
        make(device, heads=(4, 2, 2), tokens=(19, 37)),
        bias=rounded((2, 4, 19, 37), torch.float32, device, 3),
        mask=torch.rand(2, 4, 19, 37, generator=torch.Generator().manual_seed(0)).to(device) > 0.2,
        lengths=torch.tensor([37, 20], device=device),
        window=(20, 5),
        head_gate=rounded((2, 19, 4), torch.float32, device, 4),
    )


@pytest.mark.parametrize("heads", [(2, 2, 2), (4, 2, 2)])
def test_the_keys_of_few_queries_are_split(device, heads):
    from core_attn.ops._attention.triton_call import Inputs
    from core_attn.ops._attention.triton_forward import plan

    tensors = make(device, batch=(2,), heads=heads, tokens=(2, 700), dims=(16, 16))
    lengths = torch.tensor([700, 90], device=device)
    gate = rounded((2, 2, heads[0]), torch.float32, device, 4)
    nothing = dict.fromkeys(("bias", "mask", "lengths", "gate", "seed", "window"))
    maps = [head // (heads[0] // heads[1]) for head in range(heads[0])]
    x = Inputs(*tensors, **nothing, k_map=maps, v_map=maps, scale=1.0, dropout=0.0)
    assert len(plan(x, "sm80")[0]) == 2
    assert_like_reference(attention, tensors, lengths=lengths, causal=True, head_gate=gate)


@pytest.mark.parametrize("tokens", [(49, 49), (117, 117)])
def test_unaligned_sizes_and_a_split_of_heads(device, tokens):
    fused = rounded((1, tokens[0], 3, 2, 16), torch.bfloat16, device, 0)
    q, k, v = (x.requires_grad_() for x in fused.permute(2, 0, 3, 1, 4).detach().unbind(0))
    bias = rounded((2, *tokens), torch.float32, device, 3)
    mask = torch.rand(1, 1, *tokens, generator=torch.Generator().manual_seed(0)) > 0.3
    assert_like_reference(attention, [q, k, v], bias=bias, mask=mask.to(device))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="torch sees no second GPU")
def test_second_device_while_the_first_is_current():
    assert_like_reference(attention, make(torch.device("cuda:1")), causal=True)


@pytest.mark.parametrize(
    "lengths", [torch.tensor([[5, 2], [20, 2], [9, 2]])[:, 0], torch.tensor([9]).expand(3)]
)
def test_lengths_with_strides(device, lengths):
    tensors = [rounded((3, 2, 20, 16), torch.float32, device, seed) for seed in range(3)]
    assert_like_reference(attention, tensors, lengths=lengths.to(device))


@pytest.mark.parametrize("window", [1, (1, 0), (0, 1), 0])
def test_a_window_of_one(device, window):
    tensors = [rounded((1, 2, 20, 16), torch.float32, device, seed) for seed in range(3)]
    assert_like_reference(attention, tensors, window=window)


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # in base two
def test_a_finite_bias_forbids_nothing(device):
    tensors = [rounded((1, 2, 20, 16), torch.float32, device, seed) for seed in range(3)]
    bias = torch.zeros(20, 20, device=device)
    bias[3] = bias[4, 2:] = torch.finfo(bias.dtype).min
    with use_backend("triton"):
        out = attention(*tensors, bias=bias)
    with use_backend("reference"):
        torch.testing.assert_close(out, attention(*tensors, bias=bias), rtol=1e-4, atol=1e-5)


def test_what_padding_holds_reaches_nothing(device):
    tensors = [rounded((2, 2, 20, 16), torch.float32, device, seed) for seed in range(3)]
    lengths = torch.tensor([17, 3], device=device)
    results = []
    for fill in (0.0, torch.nan):
        q, k, v = (x.detach().clone() for x in tensors)
        for n, stop in enumerate(lengths):
            k[n, :, stop:] = v[n, :, stop:] = fill
        leaves = [x.requires_grad_() for x in (q, k, v)]
        with use_backend("triton"):
            out = attention(*leaves, lengths=lengths)
        results.append([out, *torch.autograd.grad(out.sum(), leaves)])
    for clean, other in zip(*results, strict=True):
        torch.testing.assert_close(other, clean)


def test_second_derivatives_recompute_the_definition(device):
    x = rounded((1, 2, 9, 16), torch.float32, device, 0)
    found = []
    for backend in ("triton", "reference"):
        with use_backend(backend):
            (first,) = torch.autograd.grad(attention(x, x, x).sum(), x, create_graph=True)
            found.append(torch.autograd.grad(first.square().sum(), x)[0])
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-4)
