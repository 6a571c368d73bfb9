from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from core_attn import angle_legendre, edge_attention, use_backend, why
from core_attn.ops._edge_attention import cpu

COUNTS = [9, 1, 17, 0, 5]
NAMES = ("q", "k", "v", "direction", "bias")
needs_kernel = pytest.mark.skipif(
    cpu.KERNEL.missing() is not None, reason=f"no C kernel: {cpu.KERNEL.missing()}"
)


def make(counts=COUNTS, heads=3, dim=16, v_dim=12, dtype=torch.float32, first=False, seed=0):
    """Tensors by name and offsets: self edges first, some keys forbidden, an atom that sees itself
    only."""
    torch.manual_seed(seed)
    edges, offsets = sum(counts), torch.tensor([0, *counts]).cumsum(0)
    begins = [int(b) for b, n in zip(offsets[:-1], counts, strict=True) if n]
    direction = F.normalize(torch.randn(edges, 3, dtype=dtype), dim=1)
    bias = -3 * torch.rand(edges, dtype=dtype)
    bias[::5] = -torch.inf
    bias[begins[-1] :] = -torch.inf
    direction[begins], bias[begins] = 0, 0
    asking = len(counts) if first else edges
    tensors = {
        "q": torch.randn(asking, heads, dim, dtype=dtype),
        "k": torch.randn(edges, heads, dim, dtype=dtype),
        "v": torch.randn(edges, heads, v_dim, dtype=dtype),
        "direction": direction,
        "bias": bias,
    }
    return {name: x.requires_grad_() for name, x in tensors.items()}, offsets


def harmonics(direction):
    """Real spherical harmonics of degree 0, 1, 2, whose squares sum to 1 in each degree."""
    x, y, z = direction.unbind(-1)
    root = 3**0.5
    two = [root * x * y, root * y * z, root * x * z, root / 2 * (x * x - y * y),
           (3 * z * z - direction.square().sum(-1)) / 2]  # fmt: skip
    return [torch.ones_like(x)[:, None], direction, torch.stack(two, -1)]


def test_it_is_attention_on_queries_and_keys_times_harmonics():
    tensors, offsets = make()
    q, k, v, direction, bias = (tensors[name].detach() for name in NAMES)
    degrees = (9, 4, 3)
    spread = [
        torch.cat(
            [
                (part[..., None] * y[:, None, None]).flatten(-2)
                for part, y in zip(x.split(degrees, -1), harmonics(direction), strict=True)
            ],
            -1,
        )
        for x in (q, k)
    ]
    expected = []
    for begin, end in pairwise(offsets.tolist()):
        a, b, c = (x[begin:end].transpose(0, 1) for x in (*spread, v))
        scores = 0.3 * a @ b.transpose(1, 2) + bias[begin:end]
        expected.append((scores.softmax(-1) @ c).transpose(0, 1))
    out = edge_attention(q, k, v, direction, offsets, degrees=degrees, bias=bias, scale=0.3)
    torch.testing.assert_close(out, torch.cat(expected), rtol=1e-4, atol=1e-5)


@needs_kernel
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("degrees", [(6, 4, 3, 2, 1), (16,), (0, 10, 6)])
def test_the_kernel_agrees_with_the_definition_to_the_second_derivative(degrees, first):
    results = []
    for backend in ("cpu", "reference"):
        tensors, offsets = make(first=first)
        inputs = list(tensors.values())
        with use_backend(backend, "edge_attention"):
            q, k, v, direction, bias = inputs
            out = edge_attention(
                q, k, v, direction, offsets, degrees=degrees, bias=bias, first_only=first
            )
        torch.manual_seed(1)
        weight = torch.randn_like(out).requires_grad_()
        asked = {"allow_unused": True, "materialize_grads": True}
        first_order = torch.autograd.grad(out, inputs, weight, create_graph=True, **asked)
        along = sum((x * torch.randn_like(x)).sum() for x in first_order)
        second_order = torch.autograd.grad(along, [weight, *inputs], **asked)
        results.append([out, *first_order, *second_order])
    for kernel, definition in zip(*results, strict=True):
        scale = float(definition.detach().abs().max().clamp(min=1))
        torch.testing.assert_close(kernel, definition, rtol=1e-4, atol=2e-5 * scale)


@pytest.mark.parametrize("first", [False, True])
def test_first_and_second_derivatives_of_the_definition(first):
    tensors, offsets = make([4, 1, 3], 2, 4, 3, torch.float64, first)
    bias = tensors["bias"].detach()
    inputs = [tensors[name] for name in NAMES[:4]]

    def attend(q, k, v, direction):
        # on the sphere, where directions live; the self edges stay zero
        length = direction.norm(dim=1, keepdim=True)
        unit = torch.where(length > 0, direction / length.where(length > 0, 1.0), direction)
        return edge_attention(
            q, k, v, unit, offsets, degrees=(2, 1, 1), bias=bias, first_only=first
        )

    inputs[3] = F.normalize(torch.randn(8, 3, dtype=torch.float64), dim=1).requires_grad_()
    assert torch.autograd.gradcheck(attend, inputs)
    assert torch.autograd.gradgradcheck(attend, inputs)


def test_only_allowed_keys_count_and_a_blind_query_gives_zero():
    tensors, offsets = make()
    q, k, v, direction, bias = (tensors[name].detach() for name in NAMES)
    changed_k, changed_v = k.clone(), v.clone()
    changed_k[bias == -torch.inf] = 99
    changed_v[bias == -torch.inf] = 99
    for backend in (["cpu"] if cpu.KERNEL.missing() is None else []) + ["reference"]:
        with use_backend(backend, "edge_attention"):
            out = edge_attention(q, k, v, direction, offsets, bias=bias)
            again = edge_attention(q, changed_k, changed_v, direction, offsets, bias=bias)
            torch.testing.assert_close(out, again)
            blind = torch.full_like(bias, -torch.inf)
            assert not edge_attention(q, k, v, direction, offsets, bias=blind).any()
    # the last atom sees only its first edge
    begin = int(offsets[-2])
    torch.testing.assert_close(out[begin:], v[begin].expand_as(out[begin:]))


def test_turning_all_directions_changes_nothing():
    tensors, offsets = make(dtype=torch.float64)
    q, k, v, direction, bias = (tensors[name].detach() for name in NAMES)
    turn, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    degrees = (6, 4, 3, 2, 1)
    out = edge_attention(q, k, v, direction, offsets, degrees=degrees, bias=bias)
    turned = edge_attention(q, k, v, direction @ turn.T, offsets, degrees=degrees, bias=bias)
    torch.testing.assert_close(out, turned)


def test_atoms_of_equal_size_may_say_so():
    tensors, offsets = make([5, 5, 5])
    q, k, v, direction, _ = (tensors[name].detach() for name in NAMES)
    with use_backend("reference", "edge_attention"):
        out = edge_attention(q, k, v, direction, offsets, slots=5)
        torch.testing.assert_close(out, edge_attention(q, k, v, direction, offsets))


def test_the_pattern_is_seen_and_used():
    tensors, offsets = make([4, 2])
    q, k, v, direction, _ = (tensors[name].detach() for name in NAMES)
    seen = []

    def watch(weights):
        seen.append(weights)
        return weights * 0

    assert not edge_attention(q, k, v, direction, offsets, pattern=watch).any()
    assert seen[0].shape == (2, 3, 4, 4)
    torch.testing.assert_close(seen[0].sum(-1)[0], torch.ones(3, 4))


def test_which_backend_runs_is_told():
    tensors, offsets = make(dtype=torch.float64)
    q, k, v, direction, _ = (tensors[name].detach() for name in NAMES)
    told = str(why(edge_attention, q, k, v, direction, offsets))
    assert "edge_attention -> reference" in told and "float64" in told


def test_polynomials_of_known_angles():
    x = torch.tensor([[[1.0, 0, 0], [0.5, 0.75**0.5, 0], [0, 0, 0]]])
    values = [p[0] for p in angle_legendre(x, 4)]
    assert values[0].eq(1).all()
    torch.testing.assert_close(values[2][0], torch.tensor([1.0, -0.125, 0.0]))
    torch.testing.assert_close(values[3][0], torch.tensor([1.0, -0.4375, 0.0]))
    right = angle_legendre(x, 3, right_angle=True)[2][0]
    torch.testing.assert_close(right[2], torch.tensor([-0.5, -0.5, -0.5]))


BAD = {
    "degrees": ({"degrees": (3, 3)}, r"degrees \(3, 3\) must sum to the head dim 16"),
    "offsets": ({"offsets": torch.tensor([0, 4])}, "rise from 0 to the 6 edges"),
    "offsets type": ({"offsets": torch.tensor([0.0, 6.0])}, "int32 or int64"),
    "bias": ({"bias": torch.zeros(5)}, r"bias must have shape \(6,\)"),
    "direction": ({"direction": torch.zeros(6, 2)}, r"direction must have shape \(6, 3\)"),
    "q": ({"q": torch.zeros(2, 3, 16)}, r"q must have shape \(6, 3, 16\)"),
    "slots": ({"slots": 4}, "slots 4 of 2 atoms are not 6 edges"),
    "uneven slots": ({"slots": 3}, "slots is 3, but an atom has 4 edges"),
    "pairs": ({"pair_bias": torch.zeros(2, 3, 2, 2)}, r"pair_bias must be .* = \(2, 3, 4, 4\)"),
    "first_only": ({"first_only": None}, "first_only must be True or False"),
    "dropout": ({"dropout": 1.5}, "dropout"),
}


@pytest.mark.refuses
@pytest.mark.parametrize("case", BAD)
def test_arguments_that_do_not_fit_are_named(case):
    tensors, offsets = make([4, 2])
    given = {name: x.detach() for name, x in tensors.items()} | {"offsets": offsets}
    change, message = BAD[case]
    with pytest.raises((ValueError, TypeError), match=message):
        edge_attention(**(given | change))
