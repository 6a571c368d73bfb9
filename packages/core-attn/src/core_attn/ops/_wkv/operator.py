"""WKV: RWKV-4's weighted mean of the values so far, with a decay per channel."""

from jaxtyping import Float
from torch import Tensor

from .._dispatch import Backend, Operator, offer_of
from . import chunked, cpu, reference, triton_backend
from .call import check

WKV = Operator(
    "wkv",
    Backend("cpu", offer_of(cpu.run, cpu.refuses, cpu.reluctant)),
    Backend(
        "triton",
        offer_of(triton_backend.run, triton_backend.refuses, triton_backend.reluctant),
    ),
    Backend("chunked", offer_of(chunked.run), plain=True),
    Backend("reference", offer_of(reference.run), plain=True),
)


def wkv(
    k: Float[Tensor, "batch tokens channels"],
    v: Float[Tensor, "batch tokens channels"],
    *,
    log_decay: Float[Tensor, " channels"],
    bonus: Float[Tensor, " channels"],
    state: Float[Tensor, "batch 3 channels"] | None = None,
) -> tuple[Float[Tensor, "batch tokens channels"], Float[Tensor, "batch 3 channels"]]:
    r"""Mean of the values so far, weighted by exp(k) and a decay, the current one by a bonus.

    out_t = (sum_{i<t} e^{(t-1-i) w + k_i} v_i + e^{u + k_t} v_t) / (the same without v), channel
    by channel, with w = `log_decay` and u = `bonus`. Computed with a running maximum, so that keys
    of any size are safe.

    Args:
        k: logarithms of the tokens' weights.
        v: values.
        log_decay: added to all earlier logarithms at each token; at most 0.
        bonus: added to the logarithm of the current token, at its own output only.
        state: what an earlier call returned; None before the first token.

    Returns:
        The means, and the state after the last token: numerator, denominator and the logarithm by
        which both are scaled, which carries no gradient. Both in at least float32.

    Raises:
        TypeError: an argument is not a floating tensor.
        ValueError: shapes, dtypes or devices that do not fit, a positive `log_decay`, or a state
            that holds NaN.

    Source: Peng et al., 2023, "RWKV: Reinventing RNNs for the Transformer Era", arXiv 2305.13048,
        eqs. (19)-(21) and appendix D.

    Example:
        >>> import torch
        >>> k, v = torch.randn(2, 1, 7, 4).unbind(0)
        >>> w, u = -torch.rand(4), torch.randn(4)
        >>> whole, _ = wkv(k, v, log_decay=w, bonus=u)
        >>> first, state = wkv(k[:, :5], v[:, :5], log_decay=w, bonus=u)
        >>> rest, _ = wkv(k[:, 5:], v[:, 5:], log_decay=w, bonus=u, state=state)
        >>> torch.cat((first, rest), 1).allclose(whole, atol=1e-6)
        True
    """
    return WKV(check(k, v, log_decay, bonus, state))
