"""What a row's target reads of the user's history."""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from core_attn.layers import AttentionLayer


class TargetAttention(AttentionLayer):
    """The mean of a history's vectors, weighted by how much the row's target attends to each.

    Softmax attention with the target's vector as the only query; the values are the history's own
    vectors, so that the result lies among the embeddings. An empty history gives the zero vector.

    Args:
        dim: features of a field.

    Source: Zhou et al., 2018, "Deep Interest Network", arXiv 1706.06978, eq. (3), with the scaled
    product of Pi et al., 2020, "Search-based User Interest Modeling", arXiv 2006.05639, section
    3.3, in the place of its small network.

    Example:
        >>> import torch
        >>> read = TargetAttention(4)
        >>> present = torch.tensor([[True, False], [False, False]])
        >>> read(torch.randn(2, 4), torch.ones(2, 2, 4), present)
        tensor([[1., 1., 1., 1.],
                [0., 0., 0., 0.]], grad_fn=<SelectBackward0>)
    """

    def __init__(self, dim: int):
        super().__init__()
        self.query, self.key = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)

    def forward(
        self,
        target: Float[Tensor, "batch dim"],
        history: Float[Tensor, "batch values dim"],
        present: Bool[Tensor, "batch values"],
    ) -> Float[Tensor, "batch dim"]:
        """Returns one vector a row.

        Args:
            target: of the row.
            history: its values.
            present: which of them are there.
        """
        q, k = self.query(target)[:, None, None], self.key(history)[:, None]
        heads = self.attend(q, k, history[:, None], mask=present[:, None, None])
        return heads[:, 0, 0]
