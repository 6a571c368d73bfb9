"""What FuxiCTR and DeepCTR-Torch keep apart and we keep together."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..layout import Layout


def stack_maps(
    weights: Mapping[str, Tensor], prefix: str, names: Sequence[str], *, transpose: bool
) -> Tensor:
    """Queries, keys, values and, where there is one, residual as one weight (out, in).

    Raises:
        ValueError: queries, keys or values are missing.
    """
    missing = [prefix + name for name in names[:3] if prefix + name not in weights]
    if missing:
        raise ValueError(f"weights {missing} are missing; got {sorted(weights)[:20]}")
    found = [weights[prefix + name] for name in names if prefix + name in weights]
    return torch.cat([x.T if transpose else x for x in found])


def depth_of(weights: Mapping[str, Tensor], query: str) -> int:
    """Number of blocks, from the names of their query maps, as `W_q.{}.weight`."""
    depth = 0
    while query.format(depth) in weights:
        depth += 1
    return depth


def numbered(weights: Mapping[str, Tensor], prefix: str) -> list[dict[str, Tensor]]:
    """The layers `{prefix}{n}.{part}` by rising n, each as its parts.

    Example:
        >>> numbered({"l.10.bias": torch.ones(1), "l.2.bias": torch.zeros(1)}, "l.")
        [{'bias': tensor([0.])}, {'bias': tensor([1.])}]
    """
    layers: dict[int, dict[str, Tensor]] = {}
    for name, x in weights.items():
        if name.startswith(prefix):
            number, part = name.removeprefix(prefix).split(".")
            layers.setdefault(int(number), {})[part] = x
    return [layers[number] for number in sorted(layers)]


def stack_deep(layers: Sequence[Mapping[str, Tensor]], *, dropout: bool) -> dict[str, Tensor]:
    """State dict of `DeepPart.hidden` from linear maps and the batch norms after them.

    Args:
        layers: their parts.
        dropout: whether dropout follows each ReLU, which shifts the numbers of later layers.
    """
    state, place = {}, 0
    for i, layer in enumerate(layers):
        is_norm = layer["weight"].dim() == 1
        if i and not is_norm:
            place += 1 + dropout
        state |= {f"{place}.{part}": x for part, x in layer.items()}
        place += 1
    return state


def stack_table(
    weights: Mapping[str, Tensor], name: str, layout: Layout, *, missing_ok: Sequence[str] = ()
) -> Tensor:
    """One shared table from one table per field, `name` with the field's name in it.

    Tables may have fewer rows than the layout gives the field; the rest stay 0. A numerical
    field's map (dim, 1) becomes its row.

    Raises:
        ValueError: a table is missing or too large.
    """
    tables = {}
    for field, size in zip(layout.names, layout.sizes, strict=True):
        key = name.format(field)
        if key not in weights:
            if field in missing_ok:
                continue
            raise ValueError(f"no weights {key!r} for field {field}")
        table = weights[key].T if field in layout.numerical else weights[key]
        if len(table) > size:
            raise ValueError(f"field {field}: {len(table)} rows do not fit into {size}")
        tables[field] = table
    first = next(iter(tables.values()))
    shared = first.new_zeros(layout.rows, first.shape[1])
    for field, start in zip(layout.names, layout.firsts, strict=True):
        if field in tables:
            shared[start : start + len(tables[field])] = tables[field]
    return shared
