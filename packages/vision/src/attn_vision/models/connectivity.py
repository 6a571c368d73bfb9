"""Which keys a query should look at, predicted at low cost."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from core_attn import top_positions


class Prediction(NamedTuple):
    """What a `ConnectivityPredictor` says.

    Attributes:
        scores: of every key for every patch's query.
        coefficients: by which the basis is summed.
        basis: patterns over the keys.
    """

    scores: Float[Tensor, "batch heads patches tokens"]
    coefficients: Float[Tensor, "batch heads patches basis"]
    basis: Float[Tensor, "basis tokens"]


class ConnectivityPredictor(nn.Module):
    """Approximates attention as a mixture of a few patterns over the keys, the basis.

    Args:
        head_dim: features of a head.
        heads: attention heads; they share the predictor.
        tokens: for which it is built, the class token included.
        width: features that queries and keys are brought to.
        size: patterns in the basis.
        shared: whether keys are summed by the basis itself.
        top_coefficients: how many patterns a query keeps; None keeps those above the threshold.
        basis_threshold: up to which entries of the basis are zero.
        coefficient_threshold: see `top_coefficients`.
        signed_basis: whether the basis keeps its signs, against the official code, which trains it
            with signs and then uses its magnitude.

    Raises:
        ValueError: a size is below 1, or more patterns are kept than there are.

    Source: Wei et al., 2023, "Sparsifiner: Learning Sparse Instance-Dependent Attention for
    Efficient Vision Transformers", arXiv 2303.13755, section 3.2, with the scales of the official
    code.

    Example:
        >>> predictor = ConnectivityPredictor(8, 2, tokens=17, width=4, size=4)
        >>> q = torch.randn(1, 2, 17, 8)
        >>> predictor(q, q).scores.shape
        torch.Size([1, 2, 16, 17])
    """

    def __init__(
        self,
        head_dim: int,
        heads: int,
        *,
        tokens: int,
        width: int,
        size: int,
        shared: bool = False,
        top_coefficients: int | None = None,
        basis_threshold: float = 0.02,
        coefficient_threshold: float = 0.05,
        signed_basis: bool = False,
    ):
        super().__init__()
        if width < 1 or size < 1:
            raise ValueError(
                f"the predictor would have width {width} and {size} patterns; both must be at "
                "least 1: lower reduce_c and reduce_n"
            )
        if top_coefficients is not None and not 1 <= top_coefficients <= size:
            raise ValueError(f"top_coefficients must be in [1, {size}], got {top_coefficients}")
        self.num_heads, self.top_coefficients = heads, top_coefficients
        self.basis_threshold = basis_threshold
        self.coefficient_threshold = coefficient_threshold
        self.signed_basis = signed_basis
        self.proj_c_q, self.proj_c_k = nn.Linear(head_dim, width), nn.Linear(head_dim, width)
        self.proj_n = nn.Parameter(torch.empty(tokens, size))
        self.proj_back_n = self.proj_n if shared else nn.Parameter(torch.empty(tokens, size))
        self.init_weights()

    def init_weights(self) -> None:
        """Narrow weights, biases of zero."""
        for layer in (self.proj_c_q, self.proj_c_k):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        for basis in (self.proj_n, self.proj_back_n):
            nn.init.trunc_normal_(basis, std=0.02)

    def forward(
        self,
        q: Float[Tensor, "batch heads tokens dim"],
        k: Float[Tensor, "batch heads tokens dim"],
        alive: Bool[Tensor, "batch patches"] | None = None,
        *,
        dense: bool = False,
    ) -> Prediction:
        """Scores of all keys for the queries of patches.

        Args:
            q: queries of the attention layer, the class token's first.
            k: its keys.
            alive: patches that were not pruned.
            dense: nothing is set to zero and the basis has its signs, as for learning from
                attention maps.
        """
        narrow_q, narrow_k = self.proj_c_q(q[:, :, 1:]), self.proj_c_k(k)
        if alive is not None:
            rows = alive[:, None, :, None]
            narrow_q = narrow_q * rows
            narrow_k = torch.cat([narrow_k[:, :, :1], narrow_k[:, :, 1:] * rows], 2)
        down = narrow_k.transpose(2, 3) @ self.proj_n
        with torch.autocast(q.device.type, enabled=False):
            scores = (narrow_q.float() @ down.float()) * self.num_heads**-0.5
            coefficients = scores.softmax(-1)
            basis = self.proj_back_n.float().T
            if not dense:
                coefficients, basis = self._sparse(coefficients), self._thresholded(basis)
            return Prediction(coefficients @ basis, coefficients, basis)

    def _sparse(self, coefficients: Tensor) -> Tensor:
        if self.top_coefficients is None:
            return coefficients * (coefficients > self.coefficient_threshold)
        index = top_positions(coefficients, self.top_coefficients)
        return torch.zeros_like(coefficients).scatter(-1, index, coefficients.gather(-1, index))

    def _thresholded(self, basis: Tensor) -> Tensor:
        size = basis.abs()
        return (basis if self.signed_basis else size) * (size > self.basis_threshold)
