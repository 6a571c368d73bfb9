"""Factors that a state takes over spans of tokens, exact for gates that close altogether.

Products over spans are made of the factors themselves, or of sums of their logarithms over the
same spans, never of differences of running sums: a difference of two large sums has no digits left,
and a factor of zero has no logarithm.
"""

import torch
from torch import Tensor

from .._dispatch import under_transform
from .._recompute import recomputed


def spans(factors: Tensor) -> Tensor:
    """Products over spans: entry (i, j) of (..., n, n) is that of factors j + 1 to i, 0 for j > i.

    Example:
        >>> spans(torch.tensor([0.9, 0.5, 0.0]))
        tensor([[1.0000, 0.0000, 0.0000],
                [0.5000, 1.0000, 0.0000],
                [0.0000, 0.0000, 1.0000]])
    """
    return products(_each_span(factors, 1.0)).transpose(-1, -2).tril()


def products(x: Tensor) -> Tensor:
    """Cumulative products along the last axis, whose derivatives may be derived.

    That of torch's divides by the factors, and its own derivative by their squares, so that factors
    of 1e-8 would leave it no digits.
    """
    if not torch.compiler.is_compiling() and under_transform():
        return _doubled(x)
    return recomputed(x.cumprod(-1), _doubled, x)


def _doubled(x: Tensor) -> Tensor:
    step = 1
    while step < x.shape[-1]:
        x = torch.cat([x[..., :step], x[..., step:] * x[..., :-step]], -1)
        step *= 2
    return x


def log_spans(log_factors: Tensor) -> Tensor:
    """`spans` of factors given by their logarithms, which may be -inf."""
    return _each_span(log_factors, 0.0).cumsum(-1).exp().transpose(-1, -2).tril()


def _each_span(x: Tensor, neutral: float) -> Tensor:
    """(..., n) as rows (..., n, n), row j with what follows entry j."""
    n = x.shape[-1]
    follows = torch.ones(n, n, dtype=torch.bool, device=x.device).triu(1)
    return x.unsqueeze(-2).masked_fill(~follows, neutral)
