"""The delta rule: linear attention that writes only what its state does not yet say."""

from jaxtyping import Float
from torch import Tensor

from .._dispatch import Backend, Operator, offer_of
from .._recurrence.call import check
from . import chunked, reference

DELTA_RULE = Operator(
    "delta_rule",
    Backend("chunked", offer_of(chunked.run, reluctant=chunked.reluctant), plain=True),
    Backend("reference", offer_of(reference.run), plain=True),
)


def delta_rule(
    q: Float[Tensor, "*batch heads tokens dim"],
    k: Float[Tensor, "*batch heads tokens dim"],
    v: Float[Tensor, "*batch heads tokens v_dim"],
    *,
    beta: Float[Tensor, "..."] | None = None,
    decay: Float[Tensor, "..."] | None = None,
    state: Float[Tensor, "*batch heads dim v_dim"] | None = None,
    scale: float | None = None,
) -> tuple[Float[Tensor, "*batch heads tokens v_dim"], Float[Tensor, "*batch heads dim v_dim"]]:
    r"""Delta rule: S' = decay_t S_{t-1}, S_t = S' + beta_t k_t (v_t - S'^T k_t)^T, o_t = S_t^T q_t.

    Each token is written before its own query reads; outputs carry the factor `scale`. Keys are
    taken as they are: with unit keys a beta in (0, 2) is stable.

    Args:
        q: queries.
        k: keys, shaped as the queries.
        v: values, the targets of the correction.
        beta: learning rate of each token, broadcastable to (*batch, heads, tokens); 1.
        decay: factor on the old state at each token, in (0, 1], broadcastable likewise; 1.
        state: the state before the first token; zeros.
        scale: factor on the outputs; 1/sqrt(dim) by default.

    Returns:
        The outputs in the dtype of `q`, and the state after the last token in at least float32;
        both differentiable, any number of times, in every float argument.

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
    return DELTA_RULE(check(q, k, v, beta, decay, state, scale))
