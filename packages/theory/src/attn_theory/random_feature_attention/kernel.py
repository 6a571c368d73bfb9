"""The kernel of infinitely many heads."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from .data import Inputs


def arc_cosine(c: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """E[relu(a) relu(b)] of two standard normal numbers with correlation c.

    Example:
        >>> arc_cosine(torch.tensor(1.0)).item()
        0.5
    """
    c = c.clamp(-1, 1)
    return ((1 - c.square()).sqrt() + (math.pi - c.arccos()) * c) / (2 * math.pi)


def infinite_kernel(a: Inputs, b: Inputs, chunk: int = 2**24) -> Float[Tensor, "samples others"]:
    """The inner product of features of a and b in the limit of many unbiased heads, in float64.

    k = (1/N N') sum_ij <x~_i, y~_j> s t E_c[relu relu], with s^2 and t^2 the variances of the two
    scores and c their correlation.

    Args:
        a: inputs, of any length.
        b: other inputs.
        chunk: pairs of tokens at a time.

    Example:
        >>> from attn_theory.random_feature_attention import sphere
        >>> x = sphere(3, 4, 5)
        >>> k = infinite_kernel(x, x)
        >>> k.allclose(k.T)
        True
    """
    query_a, keys_a = (x.double() for x in a.lifted())
    query_b, keys_b = (x.double() for x in b.lifted())
    spread_a = 0.5 * query_a.norm(dim=-1)[:, None] * keys_a.norm(dim=-1)
    spread_b = 0.5 * query_b.norm(dim=-1)[:, None] * keys_b.norm(dim=-1)
    rows = max(1, chunk // (keys_a.shape[1] * keys_b.shape[0] * keys_b.shape[1]))
    out = []
    for start in range(0, len(query_a), rows):
        chosen = slice(start, start + rows)
        match = torch.einsum("nid,mjd->nimj", keys_a[chosen], keys_b)
        spread = spread_a[chosen, :, None, None] * spread_b
        product = 0.25 * (query_a[chosen] @ query_b.T)[:, None, :, None] * match
        value = match * spread * arc_cosine(product / spread)
        out.append(value.mean((1, 3)))
    return torch.cat(out)
