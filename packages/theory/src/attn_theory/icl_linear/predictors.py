"""Predictors of the query's label, in batches: softmax heads, gradient steps, ridge."""

import torch
from jaxtyping import Float
from torch import Tensor

from core_attn import attention

from .data import Prompts


def softmax_heads(
    prompts: Prompts, omega: Float[Tensor, " heads"], mu: Float[Tensor, " heads"]
) -> Float[Tensor, " batch"]:
    """The structured model sum_h mu_h <y, softmax(omega_h X x_q)>.

    Args:
        prompts: with one label per point.
        omega: query-key strength of each head.
        mu: output-value strength of each head.

    Source: He et al., 2025, arXiv 2503.12734, sec. 3.

    Example:
        >>> from attn_theory.icl_linear import LinearRegression
        >>> prompts = LinearRegression().sample(4)
        >>> pair = torch.tensor([0.1, -0.1])
        >>> softmax_heads(prompts, pair, 4 * pair).shape
        torch.Size([4])
    """
    return smoothers(prompts, omega) @ mu


def smoothers(prompts: Prompts, omega: Float[Tensor, " heads"]) -> Float[Tensor, "batch heads"]:
    """<y, softmax(omega_h X x_q)> of each head; the scores X x_q are computed once for all.

    Args:
        prompts: with one label per point.
        omega: of each head.

    Example:
        >>> from attn_theory.icl_linear import LinearRegression
        >>> smoothers(LinearRegression().sample(4), torch.tensor([0.1, -0.1])).shape
        torch.Size([4, 2])
    """
    pattern = (omega[:, None] * _scores(prompts)[:, None]).softmax(-1)
    return (pattern @ prompts.y)[..., 0]


def read_labels(
    prompts: Prompts, asked: Float[Tensor, "batch heads d"]
) -> Float[Tensor, "batch heads outputs"]:
    """softmax(X asked_h)^T y of each head; the heads share keys and values.

    Args:
        prompts: with any number of labels per point.
        asked: what each head compares the points with.

    Example:
        >>> from attn_theory.icl_linear import MultiTask
        >>> prompts = MultiTask().sample(4)
        >>> read_labels(prompts, torch.stack((prompts.x_query, -prompts.x_query), 1)).shape
        torch.Size([4, 2, 2])
    """
    keys, values = prompts.x.unsqueeze(1), prompts.y.unsqueeze(1)
    return attention(asked.unsqueeze(1), keys, values, scale=1.0)[:, 0]


def gradient_step(prompts: Prompts, *, debiased: bool = False) -> Float[Tensor, " batch"]:
    """(1/n) sum_l y_l <x_l, x_q>, the covariates centred on their mean where debiased.

    Args:
        prompts: with one label per point.
        debiased: whether to centre; <x_l - mean, x_q> are the scores less their mean.

    Example:
        >>> from attn_theory.icl_linear import LinearRegression
        >>> gradient_step(LinearRegression().sample(4), debiased=True).shape
        torch.Size([4])
    """
    scores = _scores(prompts)
    if debiased:
        scores = scores - scores.mean(-1, keepdim=True)
    return (scores * prompts.y[..., 0]).mean(-1)


def _scores(prompts: Prompts) -> Float[Tensor, "batch length"]:
    """<x_l, x_q>: a row times a matrix, too small for a batched product to pay."""
    return (prompts.x * prompts.x_query[:, None]).sum(-1)


def ridge(
    prompts: Prompts, penalty: float
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """Ridge predictions, and x_q^T (X^T X + penalty I)^-1 x_q.

    With penalty = noise * d the first is Bayes-optimal and the second, times the noise, is the
    excess risk given the covariates: averaging it needs no labels.

    Args:
        prompts: with one label per point.
        penalty: added to the diagonal of X^T X.

    Example:
        >>> from attn_theory.icl_linear import LinearRegression
        >>> guess, leverage = ridge(LinearRegression(d=2).sample(4), 0.2)
        >>> guess.shape, bool((leverage > 0).all())
        (torch.Size([4]), True)
    """
    gram = prompts.x.transpose(-1, -2) @ prompts.x
    gram.diagonal(dim1=-2, dim2=-1).add_(penalty)
    right = torch.stack(
        (torch.einsum("bld,bl->bd", prompts.x, prompts.y[..., 0]), prompts.x_query), -1
    )
    solved = torch.cholesky_solve(right, torch.linalg.cholesky(gram))
    predicted, leverage = torch.einsum("bd,bdk->bk", prompts.x_query, solved).unbind(-1)
    return predicted, leverage
