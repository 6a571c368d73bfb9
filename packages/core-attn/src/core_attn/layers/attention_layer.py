"""The base of every softmax attention layer: its taps and the way through them."""

from collections.abc import Sequence

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ..ops import attention, attention_weights
from ..ops._checks import check_head_map
from ..ops.attention.call import take_heads
from ..taps import Tap


class AttentionLayer(nn.Module):
    """A layer that owns the taps `pattern` and `heads` and attends through them.

    `pattern` sees the weights (batch, heads, queries, keys) after the softmax and before dropout;
    it is computed only while something listens. `heads` sees every head's output (batch, queries,
    heads, dim) before the output projection.

    Example:
        >>> import torch
        >>> class Copycat(AttentionLayer):
        ...     def forward(self, x):
        ...         one_head = x[:, None]
        ...         return self.attend(one_head, one_head, one_head).flatten(2)
        >>> Copycat()(torch.randn(2, 5, 8)).shape
        torch.Size([2, 5, 8])
    """

    def __init__(self):
        super().__init__()
        self.pattern = Tap()
        self.heads = Tap()

    def attend(
        self,
        q: Float[Tensor, "*batch heads queries dim"],
        k: Float[Tensor, "*batch k_heads keys dim"],
        v: Float[Tensor, "*batch v_heads keys v_dim"],
        *,
        bias: Float[Tensor, "..."] | None = None,
        mask: Bool[Tensor, "..."] | None = None,
        lengths: Int[Tensor, "*batch"] | None = None,
        causal: bool = False,
        window: int | tuple[int, int] | None = None,
        scale: float | None = None,
        dropout: float = 0.0,
        k_head_map: Sequence[int] | None = None,
        v_head_map: Sequence[int] | None = None,
        head_gate: Float[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "*batch queries heads v_dim"]:
        """`core_attn.attention` through the taps, with the heads beside their features.

        Arguments and errors are those of `core_attn.attention`; `dropout` acts in training only.
        """
        dropout = dropout if self.training else 0.0
        if not self.pattern.listening:
            heads = attention(
                q, k, v, bias=bias, mask=mask, lengths=lengths, causal=causal, window=window,
                scale=scale, dropout=dropout, k_head_map=k_head_map, v_head_map=v_head_map,
                head_gate=head_gate,
            )  # fmt: skip
            return self.heads(heads.transpose(-2, -3))
        weights = attention_weights(
            q, k, bias=bias, mask=mask, lengths=lengths, causal=causal, window=window,
            scale=scale, k_head_map=k_head_map,
        )  # fmt: skip
        weights = F.dropout(self.pattern(weights), dropout)
        v = take_heads(v, check_head_map("v", v_head_map, q.shape[-3], v.shape[-3]))
        heads = (weights @ v).transpose(-2, -3)
        if head_gate is not None:
            shared = head_gate.dim() == q.dim() - 2
            heads = heads * (head_gate[..., None, :, None] if shared else head_gate[..., None])
        return self.heads(heads)
