"""Attention beside the logarithm of its normaliser, from which parts over the keys add up."""

import math
from collections.abc import Sequence
from typing import Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import check_options
from .._dispatch import Backend, Operator, offer_of
from .._normal import restored
from .._recompute import twice_differentiable
from .._triton_host import interpreted
from . import reference, triton_backend
from .call import FLOATS, AttentionCall, WeightsOptions
from .operator import check


class LseOptions(WeightsOptions, total=False):
    """What `attention_lse` takes besides queries, keys and values: `WeightsOptions` and this.

    Attributes:
        v_head_map: for every query head, the value head it reads.
    """

    v_head_map: Sequence[int] | None


def _run(call: AttentionCall) -> tuple[Tensor, Tensor]:
    out, lse = triton_backend.run_with_lse(call)
    lse = torch.where(lse == torch.inf, -torch.inf, lse * math.log(2))
    return (
        twice_differentiable(out, "attention_lse", reference.run, call, FLOATS),
        twice_differentiable(lse, "attention_lse", reference.lse, call, ("q", "k", "bias")),
    )


LSE = Operator(
    "attention_lse",
    Backend("triton", offer_of(_run, triton_backend.cannot, lambda call: interpreted(call.q))),
    Backend(
        "reference", offer_of(lambda call: (reference.run(call), reference.lse(call))), plain=True
    ),
)


def attention_lse(
    q: Float[Tensor, "*batch heads queries dim"],
    k: Float[Tensor, "*batch k_heads keys dim"],
    v: Float[Tensor, "*batch v_heads keys v_dim"],
    **options: Unpack[LseOptions],
) -> tuple[Float[Tensor, "*batch heads queries v_dim"], Float[Tensor, "*batch heads queries"]]:
    """`attention`, and the logarithm of the sum of exp(scores) of every query.

    Of keys that lie in parts, on several devices say, each part gives (out, lse); with w = exp(lse)
    the whole is sum(w out) / sum(w), and its own lse is log(sum(w)). Both have gradients.

    Args:
        q: queries.
        k: keys, as in `attention`.
        v: values, likewise.
        options: bias, mask, lengths, causal, window, scale, k_head_map, v_head_map.

    Returns:
        The heads' outputs, and the logarithms (at least float32), -inf for a query that sees no
        key, whose output is 0.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: as `attention`.

    Source: Liu et al., 2023, "Ring attention", arXiv 2310.01889, section 3.

    Example:
        >>> import torch
        >>> q, k, v = torch.randn(3, 2, 4, 6, 8).unbind(0)
        >>> whole, _ = attention_lse(q, k, v)
        >>> parts = [attention_lse(q, k[..., at, :], v[..., at, :])
        ...          for at in (slice(4), slice(4, None))]
        >>> out, lse = (torch.stack(x) for x in zip(*parts))
        >>> (out * lse.softmax(0)[..., None]).sum(0).allclose(whole, atol=1e-5)
        True
    """
    check_options("attention_lse", options, LseOptions)
    out, lse = LSE(check(q, k, v, **options))
    return restored(out, q.shape[:-3]), restored(lse, q.shape[:-3])
