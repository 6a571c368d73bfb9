"""Taking heads out of a model for good: smaller matrices, the same output as with masked heads."""

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .bench import Head
from .sites import Sites, find_sites


def pruned(model: nn.Module, heads: Iterable[Head], *, sites: Sites | None = None) -> nn.Module:
    """A copy of a model whose attention layers have lost some heads.

    Layers whose queries, keys and values come from one matrix `qkv` (timm's and
    `core_attn.MultiHeadAttention` without grouped keys) can be cut. A layer keeps at least one
    head.

    Args:
        model: any with such layers.
        heads: layer names and heads.
        sites: the layers; found by default.

    Raises:
        ValueError: a head that is not there, a layer that would lose all, or one that cannot be
            cut.

    Example:
        >>> import core_attn
        >>> layer = core_attn.MultiHeadAttention(8, heads=4)
        >>> pruned(layer, [("", 1)]).num_heads
        3
    """
    names = find_sites(model) if sites is None else sites
    gone: dict[str, set[int]] = {}
    for name, head in heads:
        if name not in names:
            raise ValueError(f"no layer is named {name!r}; layers: {', '.join(names)}")
        total = names[name].num_heads
        if not 0 <= head < total:
            raise ValueError(f"{name} has heads 0 to {total - 1}, not {head}")
        gone.setdefault(name, set()).add(head)
    for name, which in gone.items():
        if len(which) == names[name].num_heads:
            raise ValueError(f"{name} would lose all its {len(which)} heads; at least one stays")
    smaller = copy.deepcopy(model)
    for name, which in gone.items():
        layer = smaller.get_submodule(name)
        keep = [head for head in range(names[name].num_heads) if head not in which]
        cut_heads(name, layer, keep, names[name].num_heads)
    return smaller


def cut_heads(
    name: str,
    layer: Any,
    keep: Sequence[int],
    total: int,
    pairs: Sequence[int] | None = None,
    kv_heads: int | None = None,
) -> None:
    """Cuts a layer whose queries, keys and values come from one matrix, in place.

    Args:
        name: of the layer.
        layer: with `qkv` (or `c_attn`) and an output projection.
        keep: query heads.
        total: query heads until now.
        pairs: key and value heads that stay; those of `keep` where each head has its own.
        kv_heads: key and value heads until now; `total` by default.

    Raises:
        ValueError: the layer is of another kind.
    """
    joined = "c_attn" if hasattr(layer, "c_attn") else "qkv"
    outputs = ("c_proj",) if joined == "c_attn" else ("proj", "out")
    output = next((part for part in outputs if hasattr(layer, part)), outputs[0])
    qkv, proj = getattr(layer, joined, None), getattr(layer, output, None)
    kv_heads, pairs = kv_heads or total, keep if pairs is None else pairs
    width = 0 if proj is None else _inputs(proj)
    dim = width // total
    outside = getattr(layer, "kv_heads", kv_heads) != kv_heads
    if qkv is None or proj is None or outside or _outputs(qkv) != dim * (total + 2 * kv_heads):
        raise ValueError(
            f"{name}: {type(layer).__name__} cannot be cut: its queries, keys and values do not "
            f"come from one matrix with {total} and twice {kv_heads} heads"
        )
    columns, shared = kept_rows(keep, dim), kept_rows(pairs, dim)
    rows = torch.cat([columns, width + shared, width + kv_heads * dim + shared])
    setattr(layer, joined, cut_rows(qkv, rows))
    setattr(layer, output, cut_columns(proj, columns))
    for attribute, value in (
        ("num_heads", len(keep)),
        ("kv_heads", len(pairs)),
        ("attn_dim", len(keep) * dim),
        ("split_size", len(keep) * dim),
    ):
        if isinstance(getattr(layer, attribute, None), int):
            setattr(layer, attribute, value)
    if hasattr(layer, "k_map"):
        maps = [head * len(pairs) // len(keep) for head in range(len(keep))]
        layer.k_map, layer.v_map = maps, list(maps)
        layer.sizes = [len(keep), len(pairs), len(pairs)]


def kept_rows(heads: Sequence[int], dim: int) -> Tensor:
    """The features that belong to some heads of `dim` features each."""
    return (torch.tensor(heads)[:, None] * dim + torch.arange(dim)).flatten()


def cut_rows(linear: Any, rows: Tensor) -> nn.Module:
    """A linear layer, or GPT-2's transposed one, with only some outputs."""
    axis = 0 if isinstance(linear, nn.Linear) else 1
    bias = getattr(linear, "bias", None)
    return _replaced(linear, linear.weight.index_select(axis, rows),
                     None if bias is None else bias[rows])  # fmt: skip


def cut_columns(linear: Any, columns: Tensor) -> nn.Module:
    """A linear layer, or GPT-2's transposed one, with only some inputs."""
    axis = 1 if isinstance(linear, nn.Linear) else 0
    weight = linear.weight.index_select(axis, columns)
    return _replaced(linear, weight, getattr(linear, "bias", None))


def _replaced(linear: Any, weight: Tensor, bias: Tensor | None) -> nn.Module:
    made = copy.copy(linear)
    made._parameters = {}
    made.weight = nn.Parameter(weight.detach().clone())
    made.bias = None if bias is None else nn.Parameter(bias.detach().clone())
    if isinstance(linear, nn.Linear):
        made.out_features, made.in_features = weight.shape
    else:
        made.nx, made.nf = weight.shape
    return made


def _outputs(linear: Any) -> int:
    return linear.out_features if isinstance(linear, nn.Linear) else linear.weight.shape[1]


def _inputs(linear: Any) -> int:
    return linear.in_features if isinstance(linear, nn.Linear) else linear.weight.shape[0]
