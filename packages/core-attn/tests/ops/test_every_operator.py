"""What holds for every operator: a new one is a new row of the table."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import core_attn.ops as ops
from core_attn.ops import use_backend, why
from core_attn.ops._dispatch import _operators


@dataclass(frozen=True)
class Row:
    """One way to call an operator.

    `tensors` are shapes of its float arguments, in order or by name, of which a first axis of BATCH
    or TOTAL counts problems; `cast` says whether autocast chooses the dtype of the result.
    """

    call: Callable[..., Any]
    tensors: tuple[tuple[int, ...], ...]
    named: dict[str, tuple[int, ...]] = field(default_factory=dict)
    others: dict[str, Any] = field(default_factory=dict)
    cast: bool = True
    name: str = ""

    def __str__(self) -> str:
        return self.name or self.call.__name__

    def draw(self, dtype: torch.dtype = torch.float64, empty: bool = False) -> dict[str, Tensor]:
        """The float arguments, of no problems if `empty`."""
        generator = torch.Generator().manual_seed(0)
        shapes = {str(n): shape for n, shape in enumerate(self.tensors)} | self.named
        drawn = {}
        for name, shape in shapes.items():
            shape = (0, *shape[1:]) if empty and shape[0] in (BATCH, TOTAL) else shape
            x = torch.randn(shape, generator=generator, dtype=torch.float64)
            drawn[name] = (-x.square() if "decay" in name else x).to(dtype)
        return drawn

    def run(self, tensors: dict[str, Tensor]) -> Tensor:
        """The result, of several the first."""
        positional = [x for name, x in tensors.items() if name.isdigit()]
        named = {name: x for name, x in tensors.items() if not name.isdigit()}
        out = self.call(*positional, **named, **self.others)
        return out[0] if isinstance(out, tuple) else out


BATCH, TOTAL = 3, 9
QKV = ((3, 2, 5, 8),) * 3
RECURRENT = ((3, 2, 5, 4),) * 3
ROWS = [
    Row(ops.attention, QKV, {"bias": (2, 5, 5), "head_gate": (3, 5, 2)}, {"causal": True}),
    Row(ops.attention_lse, QKV, {"bias": (2, 5, 5)}, {"causal": True}),
    Row(ops.attention_weights, QKV[:2], {"bias": (5, 5)}),
    Row(ops.attention_row, QKV[:2], others={"row": 2}),
    Row(ops.attention_mean, QKV[:2], others={"over": "queries"}),
    Row(ops.short_attention, QKV, {"bias": (2, 5, 5)}),
    Row(
        ops.short_attention, ((9, 2, 8),) * 3,
        others={"offsets": torch.tensor([0, 4, 4, 9])}, name="packed short_attention",
    ),
    Row(
        ops.short_attention_block, ((3, 5, 16), (64, 16)), {"bias": (64,)},
        {"heads": 2, "residual": "linear"},
    ),
    Row(ops.linear_attention, RECURRENT, {"log_decay": (3, 2, 5)}, cast=False),
    Row(ops.bidirectional_linear_attention, RECURRENT, {"beta": (3, 2, 5)}, cast=False),
    Row(ops.delta_rule, RECURRENT, {"log_decay": (3, 2, 5)}, cast=False),
    Row(ops.relu_attention, QKV),
    Row(
        ops.gather_attention, QKV,
        others={"index": torch.tensor([0, 3, -1]).expand(3, 2, 5, 3)},
    ),
    Row(
        ops.cluster_attention, QKV,
        others={"members": torch.tensor([[0, 2], [2, 4]]).expand(3, 2, 2, 2)},
    ),
    Row(ops.neighborhood_attention, ((3, 2, 6, 8),) * 3, others={"grid": (2, 3), "halo": 1}),
    Row(
        ops.edge_attention, (*((9, 2, 8),) * 3, (9, 3)), {"bias": (9,)},
        {"offsets": torch.tensor([0, 4, 4, 9]), "degrees": (4, 2, 2)},
    ),
    Row(ops.wkv, ((3, 5, 4),) * 2, {"log_decay": (4,), "bonus": (4,)}, cast=False),
    Row(ops.lif, ((3, 5, 4),), cast=False),
    Row(ops.pluecker_mean, ((3, 5, 4),), others={"offsets": (1, 2)}, cast=False),
    Row(ops.dropout, ((3, 5, 4),), others={"p": 1e-9}, cast=False),  # which drops nothing here
]  # fmt: skip
PADDED = [row for row in ROWS if "offsets" not in row.others or row.call is ops.pluecker_mean]
every = pytest.mark.parametrize("row", ROWS, ids=str)
fits = [row for row in PADDED if not {"index", "members"} & row.others.keys()]


def leaves(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: x.detach().clone().requires_grad_() for name, x in tensors.items()}


def grads(out: Tensor, tensors: dict[str, Tensor], **options: Any) -> list[Tensor]:
    generator = torch.Generator().manual_seed(9)
    along = torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype)
    return list(torch.autograd.grad(out, list(tensors.values()), along, **options))


def test_every_registered_operator_is_in_the_table():
    called = {choice.operator for row in ROWS for choice in why(row.run, row.draw())}
    assert called == set(_operators)


@every
def test_it_agrees_with_its_definition_in_float64(row):
    ours, exact = leaves(row.draw(torch.float32)), leaves(row.draw(torch.float32))
    exact = {name: x.detach().double().requires_grad_() for name, x in exact.items()}
    out = row.run(ours)
    with use_backend("reference"):
        expected = row.run(exact)
    assert_close(out, expected)
    for got, want in zip(grads(out, ours), grads(expected, exact), strict=True):
        assert_close(got, want)


@every
def test_views_are_read_where_they_lie(row):
    dense = row.draw()
    views = {
        name: torch.stack([torch.full_like(x, torch.nan), x], -1)[..., 1].mT.contiguous().mT
        if x.dim() > 1
        else torch.stack([x, x], -1)[..., 1]
        for name, x in dense.items()
    }
    torch.testing.assert_close(row.run(views), row.run(dense))


@every
def test_gradients_have_gradients(row):
    ours, exact = leaves(row.draw(torch.float32)), leaves(row.draw())
    with use_backend("reference"):
        first = grads(row.run(exact), exact, create_graph=True)
        expected = second(first, exact)
    assert_close(second(grads(row.run(ours), ours, create_graph=True), ours), expected)


def second(first: list[Tensor], tensors: dict[str, Tensor]) -> list[Tensor]:
    total = sum(x.sin().sum() for x in first)
    if not total.requires_grad:  # linear in everything
        return []
    found = torch.autograd.grad(total, list(tensors.values()), allow_unused=True)
    return [torch.zeros(()) if x is None else x for x in found]


@pytest.mark.parametrize("row", [row for row in fits if row.call is not ops.dropout], ids=str)
def test_vmap_and_forward_mode(row):
    tensors = row.draw()
    many = {name: x for name, x in tensors.items() if x.shape[0] == BATCH}
    one = {name: x for name, x in tensors.items() if name not in many}

    def each(x):
        return row.run({name: (x | one).get(name) for name in tensors})

    def alone(x):
        return each({name: y[None] for name, y in x.items()})[0]

    if row.call is not ops.lif:  # its surrogate is a function of its own
        _, tangent = torch.func.jvp(each, (many,), (many,))
        assert tangent.isfinite().all()
    torch.testing.assert_close(torch.func.vmap(alone)(many), each(many))


@every
def test_no_problems_are_no_trouble(row):
    empty = {name: row.others[name][:0] for name in ("index", "members") if name in row.others}
    if row not in PADDED:
        empty = {"offsets": torch.tensor([0, 0, 0])}
    row = Row(row.call, row.tensors, row.named, row.others | empty)
    tensors = leaves(row.draw(empty=True))
    out = row.run(tensors)
    assert out.numel() == 0
    for x, grad in zip(tensors.values(), grads(out, tensors, allow_unused=True), strict=True):
        assert grad is None or grad.shape == x.shape


@every
def test_autocast_casts_at_the_door(row):
    tensors = row.draw(torch.float32)
    mixed = {name: x if n % 2 else x.bfloat16() for n, (name, x) in enumerate(tensors.items())}
    with torch.autocast("cpu", torch.bfloat16):
        outs = [row.run(tensors), row.run(mixed)]
    for out in outs:
        assert not row.cast or out.dtype == torch.bfloat16
        assert_close(out, row.run(tensors), rtol=0.1 if row.cast else 0.03)
    if not row.cast:  # what autocast would round is kept exact
        torch.testing.assert_close(outs[0], row.run(tensors))


@pytest.mark.traces
@every
def test_compiled_it_gives_the_same(row):
    tensors = row.draw(torch.float32)
    torch._dynamo.reset()  # one function with many operators would be compiled too often
    compiled = torch.compile(lambda x: row.run(x), backend="eager", fullgraph=True)
    assert_close(compiled(tensors), row.run(tensors))


@pytest.mark.refuses
@every
def test_what_is_no_tensor_is_named(row):
    tensors = row.draw()
    for name, x in tensors.items():
        for wrong in (x.tolist(), 1.5):
            with pytest.raises(TypeError, match="must be a torch.Tensor, got (list|float)"):
                row.run(tensors | {name: wrong})
        if name.isdigit():
            with pytest.raises(TypeError, match="must be a torch.Tensor, got NoneType"):
                row.run(tensors | {name: None})
    with pytest.raises(TypeError, match="unexpected keyword argument 'scales'"):
        Row(row.call, (), {}, row.others | {"scales": 1.0}).run(tensors)


def assert_close(got: Any, want: Any, rtol: float = 2e-4) -> None:
    """Relative to the largest entry."""
    pairs = zip(got, want, strict=True) if isinstance(got, list) else [(got, want)]
    for x, y in pairs:
        bound = rtol * max(1.0, float(y.detach().abs().max())) if y.numel() else 0.0
        assert x.shape == y.shape and F.relu((x.double() - y.double()).abs() - bound).sum() == 0
