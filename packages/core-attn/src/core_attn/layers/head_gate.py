"""Mixture of heads: a router that weighs the heads of an attention layer token by token."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from ..ops import attention, top_positions
from .auxiliary_loss import AuxiliaryLoss, mean_over_processes


class HeadGate(nn.Module):
    """A factor per token and head: shared heads always act, of the others the `routed` best.

    With router weights of zero every acting head has the factor 1. In training the balance of the
    routed heads is kept as an auxiliary loss, E * sum_i (mean probability of i) * (share of tokens
    that chose i), which is `routed` where routing is uniform.

    Args:
        dim: features of a token.
        heads: of the attention layer; the first `shared` ones always act.
        shared: how many always act.
        routed: how many of the others act for a token; 0 only where all heads are shared.
        balance_weight: factor of the auxiliary loss.

    Raises:
        ValueError: the numbers do not fit `heads`.

    Source: Jin et al., 2024, "MoH: Multi-Head Attention as Mixture-of-Head Attention", arXiv
    2410.11842, eqs. (5) to (8), with the factors of the official code.

    Example:
        >>> gate = HeadGate(8, heads=4, shared=1, routed=2)
        >>> gates = gate(torch.randn(2, 5, 8))
        >>> gates.shape, (gates > 0).sum(-1).unique()
        (torch.Size([2, 5, 4]), tensor([3]))
    """

    def __init__(
        self, dim: int, heads: int, shared: int, routed: int, *, balance_weight: float = 0.01
    ):
        super().__init__()
        choices = heads - shared
        if shared < 0 or choices < 0:
            raise ValueError(f"shared heads must be in [0, {heads}], got {shared}")
        if not 0 <= routed <= choices:
            raise ValueError(f"routed={routed} but only {choices} routed heads exist")
        if routed == 0 and choices:
            raise ValueError(f"routed=0 needs all {heads} heads to be shared, got shared={shared}")
        self.shared, self.routed, self.choices = shared, routed, choices
        self.to_routed = nn.Linear(dim, choices, bias=False) if routed else None
        self.to_groups = nn.Linear(dim, 2, bias=False) if routed and shared else None
        self.to_shared = nn.Linear(dim, shared, bias=False) if shared > 1 else None
        self.balance = AuxiliaryLoss(balance_weight)

    def forward(self, x: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens heads"]:
        """The factors, in float32 or wider; no gradient flows through the choice."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(torch.promote_types(x.dtype, torch.float32))
            parts = []
            if self.shared == 1:
                parts.append(x.new_ones(*x.shape[:-1], 1))
            elif self.to_shared is not None:
                parts.append(self.shared * _softmax(self.to_shared, x))
            if self.to_routed is not None:
                parts.append(self._routed(_softmax(self.to_routed, x)))
            if self.to_groups is not None:
                groups = 2 * _softmax(self.to_groups, x)
                parts = [groups[..., i, None] * part for i, part in enumerate(parts)]
            return torch.cat(parts, -1)

    def _routed(self, shares: Tensor) -> Tensor:
        chosen = torch.zeros_like(shares)
        chosen = chosen.scatter(-1, top_positions(shares, self.routed), 1.0)
        if self.training:
            mean, share = (x.flatten(0, -2).mean(0) for x in (shares, chosen))
            self.balance(self.choices * (mean * mean_over_processes(share)).sum())
        kept = shares * chosen
        return (
            self.routed * kept / kept.sum(-1, keepdim=True).clamp(min=torch.finfo(kept.dtype).eps)
        )


def query_norm_gate(
    q: Float[Tensor, "batch heads tokens dim"], shared: int, routed: int
) -> Float[Tensor, "batch tokens heads"]:
    """A gate of zeros and ones without parameters: the heads whose queries are longest act.

    Args:
        q: queries, before any rotation.
        shared: the first heads, which always act.
        routed: how many of the others act for a token.

    Raises:
        ValueError: there are fewer heads.

    Source: Jin et al., 2024, "MoH", arXiv 2410.11842, section 3.4: converted language models.

    Example:
        >>> query_norm_gate(torch.tensor([1.0, 3.0, 2.0])[None, :, None, None], 1, 1)
        tensor([[[1., 1., 0.]]])
    """
    choices = q.shape[1] - shared
    if shared < 0 or not 0 < routed <= choices:
        raise ValueError(f"routed={routed} but only {choices} routed heads exist")
    norms = q[:, shared:].detach().float().norm(dim=-1).transpose(1, 2)
    chosen = torch.zeros_like(norms).scatter(-1, top_positions(norms, routed), 1.0)
    return torch.cat([chosen.new_ones(*chosen.shape[:-1], shared), chosen], -1)


def chosen_rows_attention(
    q: Float[Tensor, "batch heads tokens dim"],
    k: Float[Tensor, "batch heads keys dim"],
    v: Float[Tensor, "batch heads keys v_dim"],
    chosen: Bool[Tensor, "batch tokens heads"],
    *,
    bias: Float[Tensor, "heads tokens keys"] | None = None,
    scale: float | None = None,
) -> Float[Tensor, "batch heads tokens v_dim"]:
    """Attention of the queries that chose a head; other rows are 0.

    Each head's queries are brought together before the product with its keys, as many for every
    head as the busiest one has, so that balanced heads cost their share.

    Args:
        q: queries.
        k: keys.
        v: values.
        chosen: which heads act for a token.
        bias: added to the scores.
        scale: factor on the scores; 1/sqrt(dim) by default.

    Example:
        >>> q = torch.randn(1, 2, 5, 4)
        >>> chosen = torch.tensor([[1, 0], [0, 1], [1, 1], [0, 0], [0, 1]]).bool()[None]
        >>> rows = chosen_rows_attention(q, q, q, chosen)
        >>> rows.allclose(attention(q, q, q) * chosen.transpose(1, 2)[..., None], atol=1e-6)
        True
    """
    asked = chosen.transpose(1, 2)
    most = int(asked.sum(-1).max())
    index = top_positions(asked.float(), most, ascending=True)
    rows = q.gather(2, index[..., None].expand(*index.shape, q.shape[-1]))
    if bias is not None:
        full = bias.expand(len(q), *bias.shape[-3:])
        bias = full.gather(2, index[..., None].expand(*index.shape, k.shape[-2]))
    heads = attention(rows, k, v, bias=bias, scale=scale)
    heads = heads * asked.gather(2, index)[..., None]
    empty = heads.new_zeros(*q.shape[:-1], v.shape[-1])
    return empty.scatter(2, index[..., None].expand(heads.shape), heads)


def _softmax(layer: nn.Linear, x: Tensor) -> Tensor:
    return F.linear(x, layer.weight.to(x.dtype)).softmax(-1)
