"""Predictors of the query's label, in batches: softmax heads, gradient steps, ridge."""

import torch
from jaxtyping import Float
from torch import Tensor

from core_attn import attention

from .data import Prompts


def softmax_heads(
    prompts: Prompts, omega: Float[Tensor, "heads"], mu: Float[Tensor, "heads"]
) -> Float[Tensor, "batch"]:
    """The structured model sum_h mu_h <y, softmax(omega_h X x_q)>.

    Example:
        >>> from attn_theory.icl_linear import LinearRegression
        >>> prompts = LinearRegression().sample(4)
        >>> pair = torch.tensor([0.1, -0.1])
        >>> softmax_heads(prompts, pair, 4 * pair).shape
        torch.Size([4])
    """
    return read_labels(prompts, omega[:, None] * prompts.x_query[:, None])[..., 0] @ mu


def read_labels(
    prompts: Prompts, asked: Float[Tensor, "batch heads d"]
) -> Float[Tensor, "batch heads outputs"]:
    """softmax(X asked_h)^T y of each head; the heads share keys and values."""
    keys, values = prompts.x.unsqueeze(1), prompts.y.unsqueeze(1)
    return attention(asked.unsqueeze(1), keys, values, scale=1.0)[:, 0]


def gradient_step(prompts: Prompts, *, debiased: bool = False) -> Float[Tensor, "batch"]:
    """(1/n) sum_l y_l <x_l, x_q>, the covariates centred on their mean where debiased."""
    x = prompts.x - prompts.x.mean(-2, keepdim=True) if debiased else prompts.x
    moment = torch.einsum("bld,bl->bd", x, prompts.y[..., 0]) / x.shape[-2]
    return torch.einsum("bd,bd->b", moment, prompts.x_query)


def ridge(
    prompts: Prompts, penalty: float
) -> tuple[Float[Tensor, "batch"], Float[Tensor, "batch"]]:
    """Ridge predictions, and x_q^T (X^T X + penalty I)^-1 x_q.

    With penalty = noise * d the first is Bayes-optimal and the second, times the noise, is the
    excess risk given the covariates: averaging it needs no labels.
    """
    gram = prompts.x.transpose(-1, -2) @ prompts.x
    gram.diagonal(dim1=-2, dim2=-1).add_(penalty)
    right = torch.stack(
        (torch.einsum("bld,bl->bd", prompts.x, prompts.y[..., 0]), prompts.x_query), -1
    )
    solved = torch.cholesky_solve(right, torch.linalg.cholesky(gram))
    predicted, leverage = torch.einsum("bd,bdk->bk", prompts.x_query, solved).unbind(-1)
    return predicted, leverage
