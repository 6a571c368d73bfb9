"""Learning rules of an associative memory: keys are conditional stimuli, values unconditional ones.

Every rule writes a token before that token's own query reads. Hebbian, decaying and delta memories
are the core's recurrences; Oja and BCM are step by step, since their updates are not linear in the
state.
"""

import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from core_attn import delta_rule, linear_attention

Memory = tuple[Float[Tensor, "*batch heads tokens v_dim"], Float[Tensor, "*batch heads dim v_dim"]]


def elu_feature(x: Tensor) -> Tensor:
    """The positive feature map elu(x) + 1.

    Example:
        >>> elu_feature(torch.zeros(1))
        tensor([1.])
    """
    return F.elu(x) + 1


def unit(keys: Float[Tensor, "... dim"]) -> Float[Tensor, "... dim"]:
    """Keys scaled to length 1.

    Raises:
        ValueError: a key is zero.

    Example:
        >>> unit(torch.tensor([3.0, 4.0]))
        tensor([0.6000, 0.8000])
    """
    length = keys.norm(dim=-1, keepdim=True)
    if (length == 0).any():
        raise ValueError("a key has length 0 and cannot be normalised")
    return keys / length


def hebbian(
    q: Float[Tensor, "*batch heads tokens dim"],
    k: Float[Tensor, "*batch heads tokens dim"],
    v: Float[Tensor, "*batch heads tokens v_dim"],
    *,
    state: Float[Tensor, "*batch heads dim v_dim"] | None = None,
    scale: float | None = None,
    feature: Callable[[Tensor], Tensor] | None = None,
    normalize: bool = False,
) -> Memory:
    """S_t = S_{t-1} + k_t v_t^T, read as S_t^T q_t.

    Args:
        q: test stimuli.
        k: conditional stimuli.
        v: unconditional stimuli.
        state: what is known before; zeros.
        scale: factor on what is read; 1/sqrt(dim) by default.
        feature: applied to queries and keys.
        normalize: divide by sum_j phi(k_j) . phi(q).

    Raises:
        ValueError: no tokens, widths that differ, values that are not finite, or both a state and
            the normaliser, which the state does not hold.

    Example:
        >>> k = torch.eye(2)[None, None]
        >>> hebbian(k, k, 3 * k, scale=1.0)[0].flatten()
        tensor([3., 0., 0., 3.])
    """
    _check(q, k, v)
    if feature is not None:
        q, k = feature(q), feature(k)
    if not normalize:
        return linear_attention(q, k, v, state=state, scale=scale)
    if state is not None:
        raise ValueError("normalize=True needs the sum of the earlier keys, which state lacks")
    counted = torch.cat((v, torch.ones_like(v[..., :1])), -1)
    out, state = linear_attention(q, k, counted, scale=1.0)
    return out[..., :-1] / out[..., -1:], state[..., :-1]


def decaying(
    q: Tensor, k: Tensor, v: Tensor, forgetting: float, *, scale=None, state=None
) -> Memory:
    """S_t = (1 - forgetting) S_{t-1} + k_t v_t^T; arguments as in `hebbian`.

    Raises:
        ValueError: forgetting is outside [0, 1), or as in `hebbian`.

    Example:
        >>> k = torch.ones(1, 1, 2, 1)
        >>> decaying(k, k, k, 0.5)[0].flatten()
        tensor([1.0000, 1.5000])
    """
    _check(q, k, v)
    if not 0 <= forgetting < 1:
        raise ValueError(f"forgetting must be in [0, 1), got {forgetting}")
    decay = torch.full(k.shape[:-1], 1 - forgetting, dtype=k.dtype, device=k.device)
    return linear_attention(q, k, v, decay=decay, state=state, scale=scale)


def delta(
    q: Float[Tensor, "*batch heads tokens dim"],
    k: Float[Tensor, "*batch heads tokens dim"],
    v: Float[Tensor, "*batch heads tokens v_dim"],
    beta: Float[Tensor, "..."] | float = 1.0,
    *,
    state: Float[Tensor, "*batch heads dim v_dim"] | None = None,
    scale: float | None = None,
) -> Memory:
    """Rescorla-Wagner: S_t = S_{t-1} + beta_t k_t (v_t - S_{t-1}^T k_t)^T.

    Args:
        q: as in `hebbian`.
        k: as in `hebbian`.
        v: as in `hebbian`.
        beta: learning rate; a number or broadcastable to (*batch, heads, tokens).
        state: as in `hebbian`.
        scale: as in `hebbian`.

    Raises:
        ValueError: as in `hebbian`.

    Warns:
        UserWarning: beta |k|^2 leaves [0, 2], where repeated trials diverge.

    Example:
        >>> k = torch.ones(1, 1, 3, 1)
        >>> delta(k, k, k, 0.5)[0].flatten()
        tensor([0.5000, 0.7500, 0.8750])
    """
    _check(q, k, v)
    beta = torch.as_tensor(beta, dtype=k.dtype, device=k.device).expand(k.shape[:-1])
    rate = (beta * k.square().sum(-1)).detach()
    if (rate < 0).any() or (rate > 2 + 1e-5).any():
        warnings.warn(
            f"beta |k|^2 must be in [0, 2], got up to {float(rate.abs().max()):.3g}; "
            "repeated trials diverge",
            stacklevel=2,
        )
    return delta_rule(q, k, v, beta=beta, state=state, scale=scale)


def oja(q: Tensor, k: Tensor, v: Tensor, rate: float, *, scale: float = 1.0, state=None) -> Memory:
    """Oja's rule (our addition): S_t = S_{t-1} + rate (k_t - S_{t-1} v_t) v_t^T.

    Example:
        >>> k = torch.ones(1, 1, 2, 1)
        >>> oja(k, k, k, 0.5)[0].flatten()
        tensor([0.5000, 0.7500])
    """

    def update(state: Tensor, k: Tensor, v: Tensor, t: int) -> Tensor:
        error = k - (state @ v.unsqueeze(-1)).squeeze(-1)
        return state + rate * error.unsqueeze(-1) * v.unsqueeze(-2)

    return _stepwise(q, k, v, update, scale, state)


def bcm(q: Tensor, k: Tensor, v: Tensor, rate: float, *, scale: float = 1.0, state=None) -> Memory:
    """BCM rule (our addition): with o = S^T k + v, S_t = S_{t-1} + rate k_t (o (o - theta))^T.

    theta is the running mean of o^2, entry by entry; v is the drive that the unconditional
    stimulus gives.

    Example:
        >>> k = torch.ones(1, 1, 2, 1)
        >>> bcm(k, k, 2 * k, 0.1)[0].shape
        torch.Size([1, 1, 2, 1])
    """
    theta = torch.zeros_like(v[..., 0, :])

    def update(state: Tensor, k: Tensor, v: Tensor, t: int) -> Tensor:
        nonlocal theta
        response = (k.unsqueeze(-2) @ state).squeeze(-2) + v
        theta = theta + (response.square() - theta) / (t + 1)
        change = response * (response - theta)
        return state + rate * k.unsqueeze(-1) * change.unsqueeze(-2)

    return _stepwise(q, k, v, update, scale, state)


def _stepwise(q, k, v, update, scale, state) -> Memory:
    _check(q, k, v)
    if state is None:
        state = k.new_zeros(*k.shape[:-2], k.shape[-1], v.shape[-1])
    out = []
    for t in range(k.shape[-2]):
        state = update(state, k[..., t, :], v[..., t, :], t)
        out.append(scale * (q[..., t, :].unsqueeze(-2) @ state).squeeze(-2))
    return torch.stack(out, -2), state


def _check(q: Tensor, k: Tensor, v: Tensor) -> None:
    if k.shape[-2] < 1:
        raise ValueError("there must be at least 1 pair of key and value, got 0")
    if q.shape[-1] != k.shape[-1]:
        raise ValueError(f"q has d_k = {q.shape[-1]}, k has {k.shape[-1]}; they must agree")
    for name, x in (("q", q), ("k", k), ("v", v)):
        if not x.isfinite().all():
            raise ValueError(f"{name} must be finite")
