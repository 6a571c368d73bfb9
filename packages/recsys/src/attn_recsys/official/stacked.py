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

    Raises:
        ValueError: an activation has weights of its own; ours is ReLU.
    """
    state, place = {}, 0
    for i, layer in enumerate(layers):
        is_norm = layer["weight"].dim() == 1
        if is_norm and "running_mean" not in layer:
            raise ValueError("the deep part has an activation with weights; ours is ReLU")
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
    field's map (dim, 1) becomes its row. Fields on the same rows of the layout share one table,
    which need be there for one of them only.

    Raises:
        ValueError: a table is missing or too large, or fields on the same rows differ in theirs.
    """
    tables: dict[tuple[int, int], tuple[str, Tensor]] = {}
    places = list(zip(layout.names, layout.firsts, layout.sizes, strict=True))
    for field, first, size in places:
        key = name.format(field)
        if key not in weights:
            continue
        table = weights[key].T if field in layout.numerical else weights[key]
        if len(table) > size:
            raise ValueError(f"field {field}: {len(table)} rows do not fit into {size}")
        other, known = tables.setdefault((first, size), (field, table))
        if not torch.equal(known, table):
            raise ValueError(
                f"fields {other} and {field} share their rows in the layout, their tables differ"
            )
    for field, first, size in places:
        if (first, size) not in tables and field not in missing_ok:
            raise ValueError(f"no weights {name.format(field)!r} for field {field}")
    some = next(iter(tables.values()))[1]
    shared = some.new_zeros(layout.rows, some.shape[1])
    for (first, _), (_, table) in tables.items():
        shared[first : first + len(table)] = table
    return shared


def refuse_unknown(weights: Mapping[str, Tensor], known: Sequence[str]) -> None:
    """Requires that every name starts with one of those that are converted.

    Raises:
        ValueError: weights that our model has no place for, such as those of an activation.
    """
    if unknown := sorted(name for name in weights if not name.startswith(tuple(known))):
        raise ValueError(f"our model has no counterpart of {unknown[:20]}")
