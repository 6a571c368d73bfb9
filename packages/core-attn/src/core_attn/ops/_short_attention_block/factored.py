"""A block whose input is no wider than a head, by maps that let the attention run over the input.

The scores of a head are x Wq^T Wk x^T = z x^T with z = x M, and its result softmax(z x^T) x Wv^T. A
bias of the queries becomes one of z; one of the keys adds the same to all scores of a query and
has no effect; one of the values reaches every result whole, because the weights sum to one.
"""

import torch
from torch import Tensor

from .call import BlockCall


def pays(call: BlockCall, lanes: int) -> bool:
    """Whether a call can be factored and is the faster for it; `lanes`: floats in a vector."""
    head_dim = call.width // call.heads
    linear = call.activation == "none" and not (call.dropout and call.bias is not None)
    return linear and call.x.shape[-1] <= head_dim and head_dim % lanes == 0


def maps(
    weight: Tensor, bias: Tensor | None, heads: int, width: int
) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
    """The maps to z, stacked on that of the residual, and to the values, each with its bias."""
    queries, keys = _queries_and_keys(weight, bias, heads, width)
    in_width = weight.shape[1]
    z = (keys.transpose(1, 2) @ queries).flatten(0, 1)
    values, rest = weight[2 * width : 3 * width], weight[3 * width :]
    stacked = torch.cat([z[:, :in_width], rest])
    if bias is None:
        return stacked, None, values, None
    return stacked, torch.cat([z[:, -1], bias[3 * width :]]), values, bias[2 * width : 3 * width]


def gradients(
    weight: Tensor,
    bias: Tensor | None,
    heads: int,
    width: int,
    dmaps: tuple[Tensor, Tensor | None, Tensor, Tensor | None],
) -> tuple[Tensor, Tensor | None]:
    """Gradients of weight and bias, given those of the four results of `maps`."""
    dstacked, dbiases, dvalues, dvalues_bias = dmaps
    queries, keys = _queries_and_keys(weight, bias, heads, width)
    in_width = weight.shape[1]
    rows = heads * in_width
    dz = dstacked[:rows]
    if dbiases is not None:
        dz = torch.cat([dz, dbiases[:rows, None]], 1)
    dz = dz.unflatten(0, (heads, in_width))
    dqueries, dkeys = (keys @ dz).flatten(0, 1), (queries @ dz.transpose(1, 2)).flatten(0, 1)
    dweight = torch.cat([dqueries[:, :in_width], dkeys, dvalues, dstacked[rows:]])
    if dbiases is None or dvalues_bias is None:
        return dweight, None
    none = torch.zeros_like(dvalues_bias)
    return dweight, torch.cat([dqueries[:, -1], none, dvalues_bias, dbiases[rows:]])


def _queries_and_keys(weight, bias, heads, width) -> tuple[Tensor, Tensor]:
    """Their maps (heads, head_dim, in_width), the queries' bias as a last column of theirs."""
    queries, keys = weight[:width], weight[width : 2 * width]
    if bias is not None:
        queries = torch.cat([queries, bias[:width, None]], 1)
    return queries.unflatten(0, (heads, -1)), keys.unflatten(0, (heads, -1))
