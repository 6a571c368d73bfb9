"""The delta rule: linear attention that writes only what its state does not yet say."""

from typing import Unpack

from jaxtyping import Float
from torch import Tensor

from .._dispatch import Backend, Operator, offer_of
from .._normal import restored
from .._recurrence.call import RecurrenceOptions, check
from .._recurrence.chunks import refuses, reluctant
from . import chunked, reference

DELTA_RULE = Operator(
    "delta_rule",
    Backend("chunked", offer_of(chunked.run, refuses, reluctant), plain=True),
    Backend("reference", offer_of(reference.run), plain=True),
)


def delta_rule(
    q: Float[Tensor, "*batch heads tokens dim"],
    k: Float[Tensor, "*batch heads tokens dim"],
    v: Float[Tensor, "*batch heads tokens v_dim"],
    **options: Unpack[RecurrenceOptions],
) -> tuple[Float[Tensor, "*batch heads tokens v_dim"], Float[Tensor, "*batch heads dim v_dim"]]:
    r"""Delta rule: S' = decay_t S_{t-1}, S_t = S' + beta_t k_t (v_t - S'^T k_t)^T, o_t = S_t^T q_t.

    Each token is written before its own query reads; outputs carry the factor `scale`. Keys are
    taken as they are: with unit keys a beta in (0, 2) is stable.

    Args:
        q: queries.
        k: keys, shaped as the queries.
        v: values, the targets of the correction.
        options: beta, decay, log_decay, state, scale: see `RecurrenceOptions`.

    Returns:
        The outputs in the dtype of `q`, and the state after the last token in at least float32;
        both differentiable, any number of times, in every float argument. Autocast changes nothing
        but that tensors of different dtypes are allowed.

    Raises:
        TypeError: an argument is not a floating tensor.
        ValueError: shapes, dtypes, devices or values that do not fit, named with the rule.

    Source: Yang et al., 2024, "Parallelizing Linear Transformers with the Delta Rule over
        Sequence Length", arXiv 2406.06484, eqs. (3) and (10); with decay: Yang et al., 2024,
        "Gated Delta Networks", arXiv 2412.06464, eq. (10).

    Example:
        >>> import torch
        >>> k = torch.eye(4)[None, None, :2]
        >>> v = torch.randn(1, 1, 2, 3)
        >>> out, state = delta_rule(k, k, v, scale=1.0)
        >>> out.allclose(v)
        True
    """
    out, state = DELTA_RULE(check(q, k, v, **options))
    return restored(out, q.shape[:-3]), restored(state, q.shape[:-3])
